//! What the journal says: one record per event of an attempt, as canonical JSON.

use requiem_model::attempt::{Identity, SealedAttempt};
use requiem_model::{BlobDigest, CanonError, Failure, RequestDigest, canon};
use serde::{Deserialize, Serialize};

use super::frame::MAX_PAYLOAD;

/// Which attempt: UID of the Execution and attempt number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttemptKey {
    /// UID of the Execution.
    pub uid: String,
    /// Attempt, from 1.
    pub attempt: u32,
}

impl AttemptKey {
    /// The key of `identity`.
    pub fn of(identity: &Identity) -> Self {
        Self { uid: identity.uid.clone(), attempt: identity.attempt }
    }
}

impl std::fmt::Display for AttemptKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.uid, self.attempt)
    }
}

/// Who asked for what: enough to recognise the same request again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asked {
    /// Whose attempt it is.
    pub identity: Identity,
    /// What was to be run.
    pub request_digest: RequestDigest,
}

/// Content that travels inside a record, because one sync of the journal is cheaper than one per file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InlineBlob {
    /// Digest of the content.
    pub digest: BlobDigest,
    /// The content.
    pub content: Content,
}

/// Bytes in a document that can hold only text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    /// UTF-8, as it is.
    Text(String),
    /// Anything else, two hexadecimal digits per byte.
    Hex(String),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// The payload is about to run.
    Started {
        /// Who asked for what.
        asked: Asked,
        /// When, RFC 3339.
        at: String,
    },
    /// Somebody wants it to end.
    Cancelled {
        /// Who had asked for what.
        asked: Asked,
    },
    /// There is a result.
    Sealed {
        /// Who asked for what.
        asked: Asked,
        /// The result with its bundle.
        sealed: Box<SealedAttempt>,
        /// Small streams that are not yet durable in the store.
        blobs: Vec<InlineBlob>,
    },
    /// There is no result and there will be none.
    Failed {
        /// Who asked for what.
        asked: Asked,
        /// Why.
        failure: Failure,
    },
    /// The result is safe elsewhere.
    Acked {
        /// Which attempt.
        key: AttemptKey,
    },
}

impl Record {
    /// The canonical bytes.
    ///
    /// # Errors
    /// A value outside canonical JSON, or more than a frame can carry.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CanonError> {
        canon::to_vec_limited(self, MAX_PAYLOAD)
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are not canonical or not a record.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, CanonError> {
        canon::from_slice_limited(payload, MAX_PAYLOAD)
    }
}

impl InlineBlob {
    /// Carries `bytes`, whose digest is `digest`.
    pub fn new(digest: BlobDigest, bytes: Vec<u8>) -> Self {
        let content =
            String::from_utf8(bytes).map_or_else(|error| Content::Hex(hex(error.as_bytes())), Content::Text);
        Self { digest, content }
    }

    /// The content, if it has its digest.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let bytes = match &self.content {
            Content::Text(text) => text.clone().into_bytes(),
            Content::Hex(digits) => unhex(digits)?,
        };
        (BlobDigest::of(&bytes) == self.digest).then_some(bytes)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_content_survives_whatever_its_bytes() {
        for bytes in [b"".to_vec(), "caf\u{e9}\0\n".into(), vec![0xff, 0, 0x80, b'"']] {
            let blob = InlineBlob::new(BlobDigest::of(&bytes), bytes.clone());
            let text = canon::to_vec(&blob).unwrap();
            let back: InlineBlob = canon::from_slice(&text).unwrap();
            assert_eq!(back.bytes(), Some(bytes));
        }
    }

    #[test]
    fn content_with_another_digest_is_not_given_out() {
        let blob = InlineBlob::new(BlobDigest::of(b"a"), b"b".to_vec());
        assert_eq!(blob.bytes(), None);
        let broken = InlineBlob { digest: BlobDigest::of(b"a"), content: Content::Hex("6".into()) };
        assert_eq!(broken.bytes(), None);
    }
}
