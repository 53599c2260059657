//! Signatures from elsewhere: DSSE envelopes over in-toto Statements that name a bundle's roots.
//!
//! A statement about a bundle has exactly one spelling, so that binding is one comparison of bytes: whatever else an envelope
//! holds (another bundle's statement, another spelling, another predicate) is refused. Who signed it is judged by
//! [`trust`](crate::trust); the byte specification stands in `docs/format/signatures.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use requiem_model::{BundleRoot, ExecutionRoot, RequestDigest};
use serde::{Deserialize, Serialize};

use crate::time::is_rfc3339_millis;
use crate::verify::Verified;

/// What an envelope of ours holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Type of its predicate.
pub const PREDICATE_TYPE: &str = "https://requiem.dev/attestation/execution/v1";
/// Most envelopes beside one bundle.
pub const MAX_ENVELOPES: usize = 16;
/// Most signatures of one envelope.
pub const MAX_SIGNATURES: usize = 64;
/// Longest signature, in bytes.
pub const MAX_SIGNATURE_BYTES: usize = 16 * 1024;

/// A DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// Always [`PAYLOAD_TYPE`].
    pub payload_type: String,
    /// The statement, in base64.
    pub payload: String,
    /// Who signed it.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Which key is said to have made it. A hint that nothing protects.
    pub keyid: String,
    /// The signature, in base64.
    pub sig: String,
}

/// Why an envelope is not about this bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Base64 that is not its own encoding, or too many or too long parts.
    #[error("envelope {at}: {why}")]
    Form {
        /// Which envelope, from 0.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The payload is of another type.
    #[error("envelope {at} holds {found:?}, not {PAYLOAD_TYPE}")]
    PayloadType {
        /// Which envelope, from 0.
        at: usize,
        /// What it says.
        found: String,
    },
    /// The payload is not the statement about this bundle, in its one spelling.
    #[error("envelope {at} does not hold the statement about this bundle: {why}")]
    Statement {
        /// Which envelope, from 0.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
}

impl EnvelopeError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Form { .. } => "E_ENVELOPE",
            Self::PayloadType { .. } => "E_PAYLOAD_TYPE",
            Self::Statement { .. } => "E_STATEMENT",
        }
    }
}

/// What a statement says about a bundle. What a verifier does not know (it has one output and not the bundle) is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Root of the bundle.
    pub bundle_root: BundleRoot,
    /// Its execution root.
    pub execution_root: ExecutionRoot,
    /// Digest of its request.
    pub request_digest: Option<RequestDigest>,
    /// When the run ended, as the bundle claims.
    pub completed_at: Option<String>,
    /// SHA-256 of the body's bytes, 64 lower-case hexadecimal digits. Tools that do not know BLAKE3 find the bundle by it.
    pub body_sha256: Option<String>,
}

/// A signature that is bound to a bundle; nobody has checked yet who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Key id as the envelope says.
    pub key_id: String,
    /// Exactly what was signed.
    pub pae: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
    /// When the run ended, as the statement says.
    pub completed_at: String,
}

// In the order of names, and without white space, as RFC 8785 writes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate: Predicate,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: [Subject; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Predicate {
    bundle_root: BundleRoot,
    completed_at: String,
    execution_root: ExecutionRoot,
    request_digest: RequestDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    digest: Digests,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digests {
    sha256: String,
}

/// The bytes that DSSE signs, whatever the payload is.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// An envelope around the statement about a bundle, not signed yet.
///
/// # Errors
/// Never for a verified bundle; the type of the encoder is passed on.
pub fn unsigned(verified: &Verified, body_sha256: &str) -> Result<Envelope, serde_json::Error> {
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        predicate: Predicate {
            bundle_root: verified.bundle_root,
            completed_at: verified.body.run.completed_at.clone(),
            execution_root: verified.execution_root,
            request_digest: verified.request_digest,
        },
        predicate_type: PREDICATE_TYPE.to_owned(),
        subject: [Subject {
            digest: Digests { sha256: body_sha256.to_owned() },
            name: verified.bundle_root.to_string(),
        }],
    };
    let payload = STANDARD.encode(serde_json::to_string(&statement)?);
    Ok(Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload, signatures: Vec::new() })
}

/// Takes envelopes apart and checks that each is about this bundle.
///
/// # Errors
/// The first envelope that is not, or whose form is not the one form.
pub fn bound(envelopes: &[Envelope], about: &About) -> Result<Vec<Bound>, EnvelopeError> {
    if envelopes.len() > MAX_ENVELOPES {
        return Err(EnvelopeError::Form { at: MAX_ENVELOPES, why: "there are more than 16 envelopes" });
    }
    let mut found = Vec::new();
    for (at, envelope) in envelopes.iter().enumerate() {
        let Envelope { payload_type, payload, signatures } = envelope;
        if payload_type != PAYLOAD_TYPE {
            let said = payload_type.chars().take(80).collect();
            return Err(EnvelopeError::PayloadType { at, found: said });
        }
        if signatures.len() > MAX_SIGNATURES {
            return Err(EnvelopeError::Form { at, why: "it has more than 64 signatures" });
        }
        let payload = decoded(payload, at)?;
        let completed_at = check_statement(&payload, about, at)?;
        let pae = pae(payload_type, &payload);
        for Signature { keyid, sig } in signatures {
            let signature = decoded(sig, at)?;
            if keyid.len() > 256 || signature.is_empty() || signature.len() > MAX_SIGNATURE_BYTES {
                let why = "a signature is empty or too long, or its keyid is";
                return Err(EnvelopeError::Form { at, why });
            }
            let (key_id, completed_at) = (keyid.clone(), completed_at.clone());
            found.push(Bound { key_id, pae: pae.clone(), signature, completed_at });
        }
    }
    Ok(found)
}

fn decoded(text: &str, at: usize) -> Result<Vec<u8>, EnvelopeError> {
    // The engine refuses everything but the one padded spelling.
    STANDARD
        .decode(text)
        .map_err(|_| EnvelopeError::Form { at, why: "its base64 is not in the one spelling" })
}

fn check_statement(payload: &[u8], about: &About, at: usize) -> Result<String, EnvelopeError> {
    let refuse = |why| EnvelopeError::Statement { at, why };
    let said: Statement =
        serde_json::from_slice(payload).map_err(|_| refuse("it is no statement about an execution"))?;
    let again = serde_json::to_vec(&said).map_err(|_| refuse("it cannot be written again"))?;
    if again != payload {
        return Err(refuse("it is not in the one spelling"));
    }
    let Statement { kind, predicate, predicate_type, subject: [Subject { digest, name }] } = said;
    let Predicate { bundle_root, completed_at, execution_root, request_digest } = predicate;
    if kind != STATEMENT_TYPE || predicate_type != PREDICATE_TYPE {
        return Err(refuse("it is a statement of another type"));
    }
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    if digest.sha256.len() != 64
        || !digest.sha256.bytes().all(hexadecimal)
        || !is_rfc3339_millis(&completed_at)
        || name != bundle_root.to_string()
    {
        return Err(refuse("its subject or its time has no valid form"));
    }
    let same = bundle_root == about.bundle_root
        && execution_root == about.execution_root
        && about.request_digest.is_none_or(|known| known == request_digest)
        && about.completed_at.as_ref().is_none_or(|known| *known == completed_at)
        && about.body_sha256.as_ref().is_none_or(|known| *known == digest.sha256);
    if same { Ok(completed_at) } else { Err(refuse("it is about another bundle")) }
}

impl About {
    /// All that a bundle says.
    pub fn bundle(verified: &Verified, body_sha256: String) -> Self {
        Self {
            bundle_root: verified.bundle_root,
            execution_root: verified.execution_root,
            request_digest: Some(verified.request_digest),
            completed_at: Some(verified.body.run.completed_at.clone()),
            body_sha256: Some(body_sha256),
        }
    }

    /// What is known where only one output is.
    pub const fn roots(bundle_root: BundleRoot, execution_root: ExecutionRoot) -> Self {
        Self { bundle_root, execution_root, request_digest: None, completed_at: None, body_sha256: None }
    }
}
