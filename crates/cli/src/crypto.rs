//! Whether a signature is a key's. The only cryptography besides BLAKE3, and only here: `ring`, which TLS brings along.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use requiem_proof::envelope::Bound;
use requiem_proof::trust::{Algorithm, KeyMaterial, SSH_NAMESPACE, TrustedKey};
use ring::digest::{SHA256, SHA512, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

/// SHA-256 in hexadecimal, by which tools that do not know BLAKE3 find a bundle.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in base64, by which tools name keys.
pub(crate) fn sha256_base64(bytes: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, bytes))
}

/// Whether `key` made a signature of an envelope.
pub(crate) fn made_by(key: &TrustedKey, bound: &Bound) -> bool {
    is_valid(key.entry.algorithm, &key.material, &bound.pae, &bound.signature)
}

/// Whether a key made a signature over `message`.
pub(crate) fn is_valid(algorithm: Algorithm, key: &KeyMaterial, message: &[u8], signature: &[u8]) -> bool {
    match (algorithm, key) {
        (Algorithm::Ed25519, KeyMaterial::Ed25519(point)) => ed25519(point, message, signature),
        (Algorithm::EcdsaP256, KeyMaterial::P256(point)) => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
        }
        (Algorithm::Sshsig, KeyMaterial::Ed25519(point)) => sshsig(point, message, signature).is_some(),
        _ => false,
    }
}

fn ed25519(point: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok()
}

/// An SSHSIG blob (PROTOCOL.sshsig of OpenSSH), version 1, by exactly this key, in our namespace.
fn sshsig(point: &[u8; 32], message: &[u8], blob: &[u8]) -> Option<()> {
    let mut rest = blob.strip_prefix(b"SSHSIG\0\0\0\x01")?;
    let [key, namespace, reserved, hash, signature] = std::array::from_fn(|_| string(&mut rest));
    let (mut key, mut signature) = (key?, signature?);
    let same_key = string(&mut key)? == b"ssh-ed25519" && string(&mut key)? == point && key.is_empty();
    let namespace = namespace.filter(|name| *name == SSH_NAMESPACE.as_bytes())?;
    let raw =
        string(&mut signature).filter(|kind| *kind == b"ssh-ed25519").and_then(|_| string(&mut signature))?;
    if !same_key || !rest.is_empty() || !signature.is_empty() {
        return None;
    }
    let algorithm = match hash? {
        b"sha256" => &SHA256,
        b"sha512" => &SHA512,
        _ => return None,
    };
    let mut signed = b"SSHSIG".to_vec();
    for part in [namespace, reserved?, hash?, digest(algorithm, message).as_ref()] {
        signed.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
        signed.extend_from_slice(part);
    }
    ed25519(point, &signed, raw).then_some(())
}

/// A string of RFC 4251: its length in four bytes, then its bytes.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(4)?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let (text, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(text)
}
