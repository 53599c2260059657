//! Variables whose values somebody else holds: a Secret, a ConfigMap. A request names where a value stands and never what it is,
//! so neither it nor its digest helps to guess one.

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::{context, derive};
use crate::names::{EnvName, NameError};

/// Longest name of an object, and longest key within it, in bytes.
const MAX_NAME: usize = 253;

/// One environment variable whose value is not in the request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvRef {
    /// Name of the variable.
    pub name: EnvName,
    /// Where its value stands.
    pub source: ValueSource,
}

/// Where a value stands, in the namespace of the Execution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum ValueSource {
    /// In a Secret.
    Secret {
        /// Its name.
        name: ObjectName,
        /// The key within it.
        key: DataKey,
    },
    /// In a ConfigMap.
    ConfigMap {
        /// Its name.
        name: ObjectName,
        /// The key within it.
        key: DataKey,
    },
}

/// The name of an object: labels of 1 to 63 lower-case letters, digits and hyphens, between dots; at most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ObjectName(String);

/// A key of a Secret or a ConfigMap: 1 to 253 of `A-Z a-z 0-9 - _ .`, and neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DataKey(String);

// === impl EnvRef ===

impl EnvRef {
    /// The variable that brings the value into the container of the runner. It follows from the whole reference, so a value
    /// that was brought for another one is not found; and no image has a variable of this name by chance.
    pub fn carrier(&self) -> String {
        let (kind, object, key) = match &self.source {
            ValueSource::Secret { name, key } => ("secret", name, key),
            ValueSource::ConfigMap { name, key } => ("configMap", name, key),
        };
        // No part can hold a NUL.
        let text = [self.name.as_str(), kind, object.as_str(), key.as_str()].join("\0");
        let hash = blake3::Hash::from_bytes(derive(context::CARRIER, &[text.as_bytes()]));
        format!("REQUIEM_VALUE_{}", &hash.to_hex()[..32])
    }
}

impl std::fmt::Display for ValueSource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret { name, key } => write!(out, "key {} of Secret {}", key.as_str(), name.as_str()),
            Self::ConfigMap { name, key } => {
                write!(out, "key {} of ConfigMap {}", key.as_str(), name.as_str())
            }
        }
    }
}

// === names ===

impl ObjectName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError::Object`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() <= MAX_NAME && text.split('.').all(is_label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Object(text.chars().take(80).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DataKey {
    /// Parses a key.
    ///
    /// # Errors
    /// [`NameError::Key`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_folder = matches!(text, "." | "..");
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(good) && !is_folder {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Key(text.chars().take(80).collect()))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for DataKey {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(variable: &str, name: &str, key: &str) -> EnvRef {
        let source =
            ValueSource::Secret { name: ObjectName::parse(name).unwrap(), key: DataKey::parse(key).unwrap() };
        EnvRef { name: EnvName::parse(variable).unwrap(), source }
    }

    #[test]
    fn names_and_keys_are_those_of_kubernetes() {
        for good in ["a", "a.b-c.9", &"a".repeat(63)] {
            assert!(ObjectName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".", &"a".repeat(64), &"a.".repeat(127)] {
            assert!(ObjectName::parse(bad).is_err(), "{bad}");
        }
        for good in ["a", "tls.crt", "A_b-9", "...", &"k".repeat(253)] {
            assert!(DataKey::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", &"k".repeat(254)] {
            assert!(DataKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_part_of_a_reference_makes_another_carrier() {
        let one = secret("A", "s", "k");
        let config = ValueSource::ConfigMap {
            name: ObjectName::parse("s").unwrap(),
            key: DataKey::parse("k").unwrap(),
        };
        let others = [
            secret("B", "s", "k"),
            secret("A", "t", "k"),
            secret("A", "s", "l"),
            EnvRef { source: config, ..one.clone() },
        ];
        for other in &others {
            assert_ne!(one.carrier(), other.carrier(), "{other:?}");
        }
        assert_eq!(one.carrier(), "REQUIEM_VALUE_984edd38b3185ecf0e1b8326cbe8ec2d");
    }
}
