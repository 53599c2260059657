//! One signature as a Sigstore bundle, for the programs that read those: a DSSE envelope, and a hint which key to verify it with. No
//! certificate, no log and no timestamp: whoever verifies it brings the key.
//!
//! It is made from what is in a proof file and adds nothing to it. The form: `bundle.proto` of sigstore/protobuf-specs, version 0.3.

use serde::Serialize;

use crate::envelope::{Envelope, Signature};

/// What such a bundle says it is.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A bundle of one signature; the format allows no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SigstoreBundle {
    media_type: &'static str,
    verification_material: Material,
    dsse_envelope: Signed,
}

/// A DSSE envelope whose signature goes by no key id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    payload_type: String,
    payload: String,
    signatures: [Unnamed; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Unnamed {
    sig: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: PublicKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PublicKey {
    hint: String,
}

impl SigstoreBundle {
    /// The bundle of `signature`, which is one of `envelope`'s.
    ///
    /// `hint` says which key to look for; readers expect the SHA-256 of its SubjectPublicKeyInfo in base64. The key id of the envelope is
    /// left out: nothing signs it, and the DSSE of Go takes one that is not a fingerprint of its own kind for that of another key.
    pub fn new(envelope: &Envelope, signature: &Signature, hint: String) -> Self {
        let Envelope { payload_type, payload, signatures: _ } = envelope.clone();
        let signatures = [Unnamed { sig: signature.sig.clone() }];
        Self {
            media_type: MEDIA_TYPE,
            verification_material: Material { public_key: PublicKey { hint } },
            dsse_envelope: Signed { payload_type, payload, signatures },
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// Never; the type of the encoder is passed on.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_one_signature_and_its_hint() {
        let signature = |keyid: &str, sig: &str| Signature { keyid: keyid.to_owned(), sig: sig.to_owned() };
        let signatures = vec![signature("alice", "QQ=="), signature("bob", "Qg==")];
        let envelope =
            Envelope { payload_type: "text/plain".to_owned(), payload: "e30=".to_owned(), signatures };
        let bundle = SigstoreBundle::new(&envelope, &envelope.signatures[1], "aGludA==".to_owned());
        let expected = serde_json::json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "aGludA=="}},
            "dsseEnvelope": {
                "payload": "e30=", "payloadType": "text/plain",
                "signatures": [{"sig": "Qg=="}],
            },
        });
        assert_eq!(serde_json::to_value(bundle).unwrap(), expected);
    }
}
