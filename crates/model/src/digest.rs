//! Digests: 32 bytes of BLAKE3, one text form, one parser, one type per kind.
//!
//! Content (what a file holds) is hashed with plain BLAKE3, so that `b3sum` prints the same value.
//! Structure (what a document means) is hashed in BLAKE3's `derive_key` mode with a context that
//! names product, date, purpose and version; see the constants in [`context`]. A value of one kind
//! can therefore never be replayed as a value of another.
//!
//! Source: the BLAKE3 paper, section 2.3 (modes) and 6.2 (key derivation contexts).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Key-derivation contexts of every structural hash. Changing one is a new format version.
pub mod context {
    /// Canonical bytes of an execution request.
    pub const REQUEST: &str = "requiem.dev 2026-11 request/v1";
    /// Canonical bytes of an effective policy.
    pub const POLICY: &str = "requiem.dev 2026-11 policy/v1";
    /// Canonical bytes of a run result.
    pub const RESULT: &str = "requiem.dev 2026-11 result/v1";
    /// A reference to a value, for the name of the variable that brings it to the runner.
    pub const CARRIER: &str = "requiem.dev 2026-11 carrier/v1";
    /// Leaf of a proof tree.
    pub const PROOF_LEAF: &str = "requiem.dev 2026-11 proof/v1 leaf";
    /// Inner node of a proof tree.
    pub const PROOF_NODE: &str = "requiem.dev 2026-11 proof/v1 node";
    /// Root of what every honest re-execution must reproduce.
    pub const EXECUTION_ROOT: &str = "requiem.dev 2026-11 proof/v1 execution-root";
    /// Root of one run's claims, wrapped around its execution root.
    pub const BUNDLE_ROOT: &str = "requiem.dev 2026-11 proof/v1 bundle-root";
    /// Canonical bytes of where a benchmark was taken.
    pub const BENCH_ENVIRONMENT: &str = "requiem.dev 2026-11 bench/v1 environment";
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text does not begin with `blake3:`.
    #[error("digest {0:?} does not begin with \"blake3:\"")]
    Scheme(String),
    /// The part after the scheme is not 64 lower-case hexadecimal digits.
    #[error("digest {0:?} is not 64 lower-case hexadecimal digits after \"blake3:\"")]
    Hex(String),
}

const SCHEME: &str = "blake3:";

fn parse(text: &str) -> Result<[u8; 32], DigestError> {
    let hex = text.strip_prefix(SCHEME).ok_or_else(|| DigestError::Scheme(clip(text)))?;
    parse_hex(hex.as_bytes()).ok_or_else(|| DigestError::Hex(clip(text)))
}

fn parse_hex(hex: &[u8]) -> Option<[u8; 32]> {
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Error texts quote user input; a megabyte of it helps nobody.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

macro_rules! digest_kinds {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest with exactly these 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 lower-case hexadecimal digits, without the scheme.
            pub fn to_hex(&self) -> String {
                blake3::Hash::from_bytes(self.0).to_hex().to_string()
            }

            /// The digest that [`Self::to_hex`] writes like this; nothing for any other bytes.
            pub fn from_hex(hex: &[u8]) -> Option<Self> {
                parse_hex(hex).map(Self)
            }

            /// The first twelve hexadecimal digits, for people; never for comparison.
            pub fn short(&self) -> String {
                self.to_hex().chars().take(12).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{SCHEME}{}", self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = String::deserialize(input)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

digest_kinds! {
    /// Plain BLAKE3 of a byte sequence: equal to what `b3sum` prints.
    BlobDigest;
    /// Plain BLAKE3 of a directory manifest; names a whole tree.
    TreeDigest;
    /// What is to be run: everything that can change the outcome, nothing that cannot.
    RequestDigest;
    /// The effective policy after defaulting.
    PolicyDigest;
    /// What came out of one run.
    ResultDigest;
    /// Root over what every honest re-execution must reproduce.
    ExecutionRoot;
    /// Root over one run's claims, including its execution root.
    BundleRoot;
    /// Where a benchmark was taken.
    EnvironmentDigest;
}

impl BlobDigest {
    /// Hashes `content`; for streams use a [`blake3::Hasher`] and [`BlobDigest::from_bytes`].
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

/// BLAKE3 in `derive_key` mode over the concatenation of `parts`.
pub fn derive(context: &'static str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_digests_equal_the_published_blake3_vectors() {
        let check = |content: &[u8], hex: &str| assert_eq!(BlobDigest::of(content).to_hex(), hex);
        check(b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        check(b"hello", "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f");
    }

    #[test]
    fn there_is_one_spelling() {
        let digest = BlobDigest::of(b"hello");
        let text = digest.to_string();
        assert_eq!(text.parse(), Ok(digest));
        for bad in [
            text.to_uppercase(),
            text.replace("blake3:", "sha256:"),
            text.replace("blake3:", ""),
            text[..70].to_owned(),
            format!("{text}0"),
            format!(" {text}"),
            text.replace('e', "\u{0435}"),
            String::new(),
        ] {
            assert!(bad.parse::<BlobDigest>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn contexts_separate_kinds() {
        assert_ne!(derive(context::REQUEST, &[b"x"]), derive(context::POLICY, &[b"x"]));
        assert_ne!(&derive(context::REQUEST, &[b"x"]), BlobDigest::of(b"x").as_bytes());
    }
}
