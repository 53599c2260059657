//! Byte quantities as Kubernetes users write them: `512Mi`, `1.5G`, `1048576`, `2e6`. Exact integers
//! throughout; a fraction of a byte is an error, not rounded.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of bytes, kept as it was written: a bare number or text with a suffix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ByteQuantity {
    /// Written as a number.
    Number(u64),
    /// Written as text.
    Text(String),
}

/// Why a text is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text is not of the form digits, optional fraction, optional suffix.
    #[error("{0:?} is not a quantity such as 512Mi, 1.5G or 1048576")]
    Syntax(String),
    /// The value is not a whole number of bytes.
    #[error("{0:?} is not a whole number of bytes")]
    Fraction(String),
    /// The value is 2^63 bytes or more.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

impl ByteQuantity {
    /// The quantity written as `text`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The number of bytes.
    ///
    /// # Errors
    /// A text outside the grammar, a fraction of a byte, or 2^63 bytes and more.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        match self {
            Self::Number(bytes) if i64::try_from(*bytes).is_ok() => Ok(*bytes),
            Self::Number(bytes) => Err(QuantityError::TooLarge(bytes.to_string())),
            Self::Text(text) => parse(text),
        }
    }
}

impl fmt::Display for ByteQuantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(bytes) => write!(out, "{bytes}"),
            Self::Text(text) => out.write_str(text),
        }
    }
}

impl JsonSchema for ByteQuantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteQuantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "maxLength": 32,
            "minimum": 0,
            "pattern": "^[0-9]{1,19}(\\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][0-9]{1,2})?$",
        })
    }
}

fn parse(text: &str) -> Result<u64, QuantityError> {
    let quoted = || text.chars().take(40).collect::<String>();
    let syntax = || QuantityError::Syntax(quoted());
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let dangling = number.ends_with('.');
    if whole.is_empty() || dangling || whole.len() > 19 || fraction.len() > 9 || fraction.contains('.') {
        return Err(syntax());
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_not_a_number| syntax())?;
    let multiplier = multiplier(suffix).ok_or_else(syntax)?;
    // At most 28 digits times 2^60 can exceed u128: then it is far beyond the bound below.
    let scaled = digits.checked_mul(multiplier).ok_or_else(|| QuantityError::TooLarge(quoted()))?;
    let divisor = (0..fraction.len()).fold(1u128, |power, _| power * 10);
    if scaled % divisor != 0 {
        return Err(QuantityError::Fraction(quoted()));
    }
    let bytes = i64::try_from(scaled / divisor).map_err(|_too_large| QuantityError::TooLarge(quoted()))?;
    Ok(bytes.unsigned_abs())
}

fn multiplier(suffix: &str) -> Option<u128> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if suffix.is_empty() {
        return Some(1);
    }
    if let Some(step) = BINARY.iter().position(|known| *known == suffix) {
        return Some(1u128 << (10 * (step + 1)));
    }
    if let Some(step) = DECIMAL.iter().position(|known| *known == suffix) {
        return 1000u128.checked_pow(u32::try_from(step + 1).ok()?);
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let plain = exponent.len() <= 2 && exponent.bytes().all(|digit| digit.is_ascii_digit());
    10u128.checked_pow(exponent.parse().ok().filter(|_| plain)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, QuantityError> {
        ByteQuantity::text(text).bytes()
    }

    #[test]
    fn quantities_mean_what_kubernetes_says() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512Mi", 512 << 20),
            ("1.5Gi", 3 << 29),
            ("1k", 1000),
            ("2M", 2_000_000),
            ("0.5G", 500_000_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("1.024k", 1024),
            ("7Ei", 7 << 60),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        assert_eq!(ByteQuantity::Number(7).bytes(), Ok(7));
    }

    #[test]
    fn what_is_not_a_number_of_bytes_is_refused() {
        for text in [
            "", "Mi", "-1", "+1", "1 Mi", "1mi", "1m", "1..5", ".5Mi", "1.", "1.Mi", "1e", "1e-3", "1e+3",
            "0x10", "١",
        ] {
            assert!(matches!(bytes(text), Err(QuantityError::Syntax(_))), "{text:?}: {:?}", bytes(text));
        }
        assert!(matches!(bytes("0.5"), Err(QuantityError::Fraction(_))));
        assert!(matches!(bytes("1.0001k"), Err(QuantityError::Fraction(_))));
        for text in ["8Ei", "9223372036854775808", "1e19", "9999999999999999999.999999999Ei", "1e99"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(ByteQuantity::Number(u64::MAX).bytes().is_err());
    }

    #[test]
    fn it_is_written_back_as_it_was_read() {
        for json in ["1048576", "\"512Mi\""] {
            let quantity: ByteQuantity = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&quantity).unwrap(), json);
        }
    }
}
