//! Whose signatures count: a trust file names keys, and says how many of them must have signed.
//!
//! What counts is keys, not signatures: one key counts once, however often it signs and whatever it is called. This module holds
//! no cryptography; the caller says whether a signature is a key's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::envelope::Bound;
use crate::json::{self, JsonError};
use crate::time::is_rfc3339_millis;

/// The schema of a trust file.
pub const TRUST_SCHEMA: &str = "requiem-trust/1";
/// Largest trust file, in bytes.
pub const MAX_TRUST_BYTES: usize = 256 * 1024;
/// Most keys of a trust file.
pub const MAX_KEYS: usize = 256;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519 over the PAE (RFC 8032).
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA on P-256 with SHA-256 over the PAE; the signature in ASN.1.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// An Ed25519 key of OpenSSH; the signature is an SSHSIG blob in the namespace [`SSH_NAMESPACE`].
    #[serde(rename = "sshsig")]
    Sshsig,
}

/// Namespace of OpenSSH signatures, so that one made for another purpose never passes here.
pub const SSH_NAMESPACE: &str = "requiem-dsse-v1";

/// The public key itself. Two spellings of one key are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// A point on Curve25519.
    Ed25519([u8; 32]),
    /// A point on P-256, uncompressed.
    P256([u8; 65]),
}

/// One key of a trust file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEntry {
    /// What people call it.
    pub name: String,
    /// What envelopes call it.
    pub key_id: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// PEM (`BEGIN PUBLIC KEY`), or for `sshsig` a line `ssh-ed25519 …`.
    pub public_key: String,
    /// It counts for runs that ended at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// It counts for runs that ended before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<usize>,
    keys: Vec<KeyEntry>,
}

/// A key that may count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// As it stands in the file.
    pub entry: KeyEntry,
    /// The key itself.
    pub material: KeyMaterial,
}

/// A trust file that can be used: every key is valid, and no two are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    threshold: usize,
    keys: Vec<TrustedKey>,
}

/// Why a trust file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The file is not the JSON that is expected.
    #[error("the trust file cannot be read: {0}")]
    Json(#[from] JsonError),
    /// Too large, or of another schema.
    #[error("the trust file {0}")]
    File(&'static str),
    /// A key cannot be used.
    #[error("key {name:?} of the trust file {why}")]
    Key {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// Who signed, as far as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signers {
    /// Names of the distinct trusted keys, in the order of the trust file.
    pub names: Vec<String>,
    /// How many are demanded.
    pub threshold: usize,
    /// Trusted keys that signed, but do not count for a run of this time.
    pub outside_epoch: Vec<String>,
    /// Signatures that no trusted key made.
    pub unknown: usize,
}

/// Why signatures are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A signature names a trusted key and is not that key's.
    #[error("a signature is said to be by {name}, and is not")]
    Forged {
        /// The key that it names.
        name: String,
    },
    /// A trusted key's signature goes by another id.
    #[error("a signature by {name} goes by the key id {key_id:?}")]
    Misnamed {
        /// The key that made it.
        name: String,
        /// What the envelope calls it.
        key_id: String,
    },
    /// No trusted key signed.
    #[error("no trusted key has signed, {threshold} must")]
    Unsigned {
        /// How many must have.
        threshold: usize,
    },
    /// Fewer keys than demanded signed.
    #[error("{} of {threshold} demanded keys have signed: {}", names.len(), names.join(", "))]
    Threshold {
        /// Those that have.
        names: Vec<String>,
        /// How many must have.
        threshold: usize,
    },
}

impl SignatureError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Forged { .. } | Self::Misnamed { .. } => "E_SIGNATURE",
            Self::Unsigned { .. } => "E_UNSIGNED",
            Self::Threshold { .. } => "E_THRESHOLD",
        }
    }
}

impl TrustError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        "E_TRUST"
    }
}

// === impl Trust ===

impl Trust {
    /// Reads a trust file.
    ///
    /// # Errors
    /// [`TrustError`] with the offending key.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        if bytes.len() > MAX_TRUST_BYTES {
            return Err(TrustError::File("is larger than 256 KiB"));
        }
        let File { schema, threshold, keys } = json::strict(json::parse(bytes)?)?;
        if schema != TRUST_SCHEMA {
            return Err(TrustError::File("is not of the schema requiem-trust/1"));
        }
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(TrustError::File("has no key, or more than 256"));
        }
        let threshold = threshold.unwrap_or(1);
        if threshold == 0 || threshold > keys.len() {
            return Err(TrustError::File("demands no signature, or more than it has keys"));
        }
        let mut known: Vec<TrustedKey> = Vec::new();
        for entry in keys {
            let key = TrustedKey::new(entry)?;
            if let Some(twin) = known.iter().find(|other| other.is_like(&key)) {
                let why = format!("is {:?} once more: each key, name and keyId stands once", twin.entry.name);
                return Err(TrustError::Key { name: key.entry.name, why });
            }
            known.push(key);
        }
        Ok(Self { threshold, keys: known })
    }

    /// How many distinct keys must have signed.
    pub const fn threshold(&self) -> usize {
        self.threshold
    }

    /// The keys.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// Says which keys signed. `made_by` says whether a signature is a key's.
    ///
    /// # Guarantees
    /// Each key counts once. The id in the envelope decides nothing, but must be right where a trusted key is concerned.
    ///
    /// # Errors
    /// A signature that claims a trusted key and is not that key's, or fewer keys than demanded.
    pub fn judge(
        &self,
        signatures: &[Bound],
        made_by: impl Fn(&TrustedKey, &Bound) -> bool,
    ) -> Result<Signers, SignatureError> {
        let mut signers = Signers { threshold: self.threshold, ..Signers::default() };
        let mut counted = vec![false; self.keys.len()];
        for signature in signatures {
            match self.keys.iter().position(|key| made_by(key, signature)) {
                Some(at) => self.count(at, signature, &mut counted, &mut signers)?,
                None => match self.keys.iter().find(|key| key.entry.key_id == signature.key_id) {
                    Some(key) => return Err(SignatureError::Forged { name: key.entry.name.clone() }),
                    None => signers.unknown += 1,
                },
            }
        }
        let names = self.keys.iter().zip(&counted).filter(|(_, counted)| **counted);
        signers.names = names.map(|(key, _)| key.entry.name.clone()).collect();
        match signers.names.len() {
            0 => Err(SignatureError::Unsigned { threshold: self.threshold }),
            count if count < self.threshold => {
                Err(SignatureError::Threshold { names: signers.names, threshold: self.threshold })
            }
            _ => Ok(signers),
        }
    }

    fn count(
        &self,
        at: usize,
        signature: &Bound,
        counted: &mut [bool],
        signers: &mut Signers,
    ) -> Result<(), SignatureError> {
        let entry = &self.keys[at].entry;
        let name = entry.name.clone();
        if signature.key_id != entry.key_id {
            return Err(SignatureError::Misnamed { name, key_id: signature.key_id.clone() });
        }
        if entry.covers(&signature.completed_at) {
            counted[at] = true;
        } else if !signers.outside_epoch.contains(&name) {
            signers.outside_epoch.push(name);
        }
        Ok(())
    }
}

// === impl TrustedKey ===

impl TrustedKey {
    fn new(entry: KeyEntry) -> Result<Self, TrustError> {
        let refuse = |why: &str| TrustError::Key { name: entry.name.clone(), why: why.to_owned() };
        let is_word = |text: &str| {
            (1..=128).contains(&text.len()) && text.chars().all(|letter| letter.is_ascii_graphic())
        };
        if !is_word(&entry.name) || !is_word(&entry.key_id) {
            return Err(refuse("has a name or keyId that is not 1 to 128 printable characters"));
        }
        if [&entry.from, &entry.until].into_iter().flatten().any(|time| !is_rfc3339_millis(time)) {
            return Err(refuse("has a time that is not like 2026-11-22T20:15:00.000Z"));
        }
        let material = match entry.algorithm {
            Algorithm::Ed25519 | Algorithm::EcdsaP256 => from_pem(&entry.public_key),
            Algorithm::Sshsig => from_ssh(&entry.public_key),
        };
        match (entry.algorithm, material) {
            (Algorithm::Ed25519 | Algorithm::Sshsig, Some(material @ KeyMaterial::Ed25519(_)))
            | (Algorithm::EcdsaP256, Some(material @ KeyMaterial::P256(_))) => Ok(Self { entry, material }),
            _ => Err(refuse(
                "has no public key of its algorithm: give PEM (BEGIN PUBLIC KEY) for ed25519 and ecdsa-p256, \
                 a line ssh-ed25519 … for sshsig",
            )),
        }
    }

    /// Whether both are one key, or would be taken for one another.
    fn is_like(&self, other: &Self) -> bool {
        self.material == other.material
            || self.entry.name == other.entry.name
            || self.entry.key_id == other.entry.key_id
    }
}

impl KeyEntry {
    /// Whether the key counts for a run that ended at `time`. Times have one form, so their order is that of their texts.
    fn covers(&self, time: &str) -> bool {
        self.from.as_deref().is_none_or(|from| from <= time)
            && self.until.as_deref().is_none_or(|until| time < until)
    }
}

/// What stands before the key in a SubjectPublicKeyInfo of Ed25519 (RFC 8410).
const ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Likewise of an uncompressed point on P-256 (RFC 5480).
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl KeyMaterial {
    /// The key as a SubjectPublicKeyInfo in DER: what stands in its PEM.
    pub fn to_der(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(point) => [ED25519, point].concat(),
            Self::P256(point) => [P256, point].concat(),
        }
    }
}

/// Reads a public key in PEM: SubjectPublicKeyInfo of Ed25519 or of an uncompressed point on P-256. Both have constant bytes in front
/// of the key.
pub fn from_pem(text: &str) -> Option<KeyMaterial> {
    let inner =
        text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let inner: String = inner.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(inner).ok()?;
    if let Some(key) = bytes.strip_prefix(ED25519) {
        return key.try_into().ok().map(KeyMaterial::Ed25519);
    }
    let point: [u8; 65] = bytes.strip_prefix(P256)?.try_into().ok()?;
    (point[0] == 4).then_some(KeyMaterial::P256(point))
}

/// Reads a public key as OpenSSH writes it: `ssh-ed25519 BASE64 comment`.
pub fn from_ssh(line: &str) -> Option<KeyMaterial> {
    const PREFIX: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("ssh-ed25519") {
        return None;
    }
    let blob = STANDARD.decode(words.next()?).ok()?;
    blob.strip_prefix(PREFIX)?.try_into().ok().map(KeyMaterial::Ed25519)
}
