//! Canonical JSON, `requiem-cj/1`: one byte sequence per document.
//!
//! # Byte specification
//!
//! A strict subset of RFC 8785 (JSON Canonicalization Scheme), so any JCS library reproduces the bytes.
//!
//! - A document is one object, array, string, boolean or integer. There is no `null`, no fraction, no
//!   exponent, no negative zero.
//! - Integers satisfy |n| < 2^53 and are written in decimal without leading zeros.
//! - Member names match `[A-Za-z][A-Za-z0-9_]*` and are at most 128 bytes; members are sorted by name,
//!   byte-wise, and unique. Names that users choose (paths, variables) are therefore never member names
//!   but strings inside arrays.
//! - Strings are Unicode scalar values in UTF-8. `"` and `\` are written `\"` and `\\`; U+0008, U+0009,
//!   U+000A, U+000C, U+000D as `\b \t \n \f \r`; other characters below U+0020 as `\u00xx` in lower case;
//!   everything else is written as itself. Strings are never normalised.
//! - No white space outside strings. At most 32 objects and arrays lie within one another. A document is at
//!   most 256 KiB unless the reader names another limit.
//!
//! A reader accepts a byte sequence only if it is its own canonical form. Golden vectors stand in
//! `tests/vectors/canon.json` of this crate: a changed vector is a new format version, never a fix.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest document that [`parse`] and [`from_slice`] take, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;
/// Most objects and arrays that lie within one another.
pub const MAX_DEPTH: usize = 32;
/// Integers lie strictly between minus and plus this value (2^53).
pub const INTEGER_BOUND: i64 = 1 << 53;

/// A canonical document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// An integer with |n| < 2^53.
    Int(i64),
    /// Unicode text.
    String(String),
    /// Values in order.
    Array(Vec<Value>),
    /// Members, sorted by name.
    Object(BTreeMap<String, Value>),
}

/// Why bytes or a value have no canonical form. [`CanonError::code`] is stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonError {
    /// The document is larger than the limit.
    #[error("document of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Size of the document.
        bytes: usize,
        /// Limit in force.
        limit: usize,
    },
    /// Objects and arrays are nested too deeply.
    #[error("nesting is deeper than {MAX_DEPTH}")]
    TooDeep,
    /// The bytes are not JSON.
    #[error("not JSON at byte {at}: {what}")]
    Syntax {
        /// Offset of the offending byte.
        at: usize,
        /// What was expected or found.
        what: &'static str,
    },
    /// A member occurs twice in one object.
    #[error("member {0:?} occurs twice")]
    DuplicateKey(String),
    /// A member name is outside the grammar.
    #[error("member name {0:?} is not [A-Za-z][A-Za-z0-9_]* of at most 128 bytes")]
    Key(String),
    /// A number is not an integer with |n| < 2^53.
    #[error("number {0} is not an integer between -2^53 and 2^53")]
    Number(String),
    /// `null` was found.
    #[error("null is not allowed: leave the member out")]
    Null,
    /// The bytes are JSON but not in canonical form.
    #[error("bytes are not in canonical form (first difference at byte {at})")]
    NotCanonical {
        /// Offset of the first difference.
        at: usize,
    },
    /// The document does not have the expected shape.
    #[error("unexpected shape: {0}")]
    Shape(String),
}

impl CanonError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::TooDeep => "E_BOUNDS",
            Self::Syntax { .. } => "E_PARSE",
            Self::DuplicateKey(_) => "E_DUP_KEY",
            Self::Key(_) => "E_KEY",
            Self::Number(_) => "E_NUMBER",
            Self::Null => "E_NULL",
            Self::NotCanonical { .. } => "E_NOT_CANONICAL",
            Self::Shape(_) => "E_SHAPE",
        }
    }
}

/// The canonical bytes of `value`.
///
/// # Errors
/// Floats, nulls, integers out of range, member names outside the grammar, too deep or too large.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonError> {
    to_vec_limited(value, MAX_BYTES)
}

/// Like [`to_vec`] with a size limit of the caller's, for documents such as large directory manifests.
///
/// # Errors
/// As [`to_vec`].
pub fn to_vec_limited<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, CanonError> {
    let json = serde_json::to_value(value).map_err(|error| CanonError::Shape(error.to_string()))?;
    let text = encode(&from_json(json, 0)?);
    check_size(text.len(), limit)?;
    Ok(text.into_bytes())
}

/// Reads canonical bytes into `T`.
///
/// # Errors
/// Anything that is not its own canonical form, or not of `T`'s shape.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonError> {
    from_slice_limited(bytes, MAX_BYTES)
}

/// Like [`from_slice`] with a size limit of the caller's.
///
/// # Errors
/// As [`from_slice`].
pub fn from_slice_limited<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CanonError> {
    parse_limited(bytes, limit)?;
    serde_json::from_slice(bytes).map_err(|error| CanonError::Shape(error.to_string()))
}

/// Parses canonical bytes.
///
/// # Errors
/// Anything that is not its own canonical form.
pub fn parse(bytes: &[u8]) -> Result<Value, CanonError> {
    parse_limited(bytes, MAX_BYTES)
}

/// Like [`parse`] with a size limit of the caller's.
///
/// # Errors
/// As [`parse`].
pub fn parse_limited(bytes: &[u8], limit: usize) -> Result<Value, CanonError> {
    check_size(bytes.len(), limit)?;
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    if reader.at != bytes.len() {
        return Err(reader.fail("data after the document"));
    }
    let canonical = encode(&value);
    if canonical.as_bytes() != bytes {
        let same = canonical.bytes().zip(bytes).take_while(|(ours, theirs)| ours == *theirs).count();
        return Err(CanonError::NotCanonical { at: same });
    }
    Ok(value)
}

/// Writes a value in canonical form. The value must lie within the grammar, as everything that [`parse`] gives
/// does: for member names, integers and depth that a caller made up, use [`to_vec`], which checks.
pub fn encode(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

const fn check_size(bytes: usize, limit: usize) -> Result<(), CanonError> {
    if bytes > limit { Err(CanonError::TooLarge { bytes, limit }) } else { Ok(()) }
}

fn check_key(name: &str) -> Result<(), CanonError> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if first && name.len() <= 128 && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        Ok(())
    } else {
        Err(CanonError::Key(name.chars().take(80).collect()))
    }
}

fn from_json(json: serde_json::Value, depth: usize) -> Result<Value, CanonError> {
    use serde_json::Value as Json;
    if matches!(json, Json::Array(_) | Json::Object(_)) && depth >= MAX_DEPTH {
        return Err(CanonError::TooDeep);
    }
    Ok(match json {
        Json::Null => return Err(CanonError::Null),
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => number
            .as_i64()
            .filter(|n| *n > -INTEGER_BOUND && *n < INTEGER_BOUND)
            .map(Value::Int)
            .ok_or_else(|| CanonError::Number(number.to_string()))?,
        Json::String(text) => Value::String(text),
        Json::Array(items) => {
            Value::Array(items.into_iter().map(|item| from_json(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Json::Object(members) => {
            let mut object = BTreeMap::new();
            for (name, member) in members {
                check_key(&name)?;
                object.insert(name, from_json(member, depth + 1)?);
            }
            Value::Object(object)
        }
    })
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Int(number) => {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "{number}");
        }
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(out, name);
                out.push(':');
                write_value(out, member);
            }
            out.push('}');
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                let _infallible = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Recursive-descent reader. It accepts what JSON allows and our grammar can represent; the comparison
/// with the re-encoded form in [`parse_limited`] then refuses every other spelling.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    const fn fail(&self, what: &'static str) -> CanonError {
        CanonError::Syntax { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, expected: u8, what: &'static str) -> Result<(), CanonError> {
        if self.peek() == Some(expected) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.fail(what))
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), CanonError> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.fail("unknown word"))
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, CanonError> {
        self.skip_space();
        let value = match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => return Err(CanonError::TooDeep),
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b't') => self.word("true").map(|()| Value::Bool(true))?,
            Some(b'f') => self.word("false").map(|()| Value::Bool(false))?,
            Some(b'n') => self.word("null").and(Err(CanonError::Null))?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return Err(self.fail("a value was expected")),
        };
        self.skip_space();
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value, CanonError> {
        self.take(b'{', "'{' was expected")?;
        let mut members = BTreeMap::new();
        self.skip_space();
        if self.peek() != Some(b'}') {
            loop {
                self.skip_space();
                let name = self.string()?;
                check_key(&name)?;
                self.skip_space();
                self.take(b':', "':' was expected")?;
                let member = self.value(depth + 1)?;
                if members.insert(name.clone(), member).is_some() {
                    return Err(CanonError::DuplicateKey(name));
                }
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(b'}', "'}' was expected")?;
        Ok(Value::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Value, CanonError> {
        self.take(b'[', "'[' was expected")?;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() != Some(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(b']', "']' was expected")?;
        Ok(Value::Array(items))
    }

    fn number(&mut self) -> Result<Value, CanonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned();
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let plain = digits == "0" && !text.starts_with('-') || !digits.starts_with('0');
        text.parse::<i64>()
            .ok()
            .filter(|n| plain && *n > -INTEGER_BOUND && *n < INTEGER_BOUND)
            .map(Value::Int)
            .ok_or_else(|| CanonError::Number(text.chars().take(40).collect()))
    }

    fn string(&mut self) -> Result<String, CanonError> {
        self.take(b'"', "a string was expected")?;
        let mut text = Vec::new();
        loop {
            match self.peek() {
                None => return Err(self.fail("the string does not end")),
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut text)?,
                Some(byte) if byte < 0x20 => return Err(self.fail("control character in a string")),
                Some(byte) => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        String::from_utf8(text).map_err(|_| self.fail("the string is not UTF-8"))
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), CanonError> {
        let escaped = self.bytes.get(self.at + 1).copied();
        self.at += 2;
        let character = match escaped {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b't') => '\t',
            Some(b'n') => '\n',
            Some(b'f') => '\u{c}',
            Some(b'r') => '\r',
            // Only the control characters need \u in canonical form; surrogate pairs never occur there.
            Some(b'u') => {
                let hex =
                    self.bytes.get(self.at..self.at + 4).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
                let code = hex.and_then(|hex| std::str::from_utf8(hex).ok());
                let code = code.and_then(|hex| u32::from_str_radix(hex, 16).ok());
                self.at += 4;
                code.and_then(char::from_u32).ok_or_else(|| self.fail("bad \\u escape"))?
            }
            _ => return Err(self.fail("unknown escape")),
        };
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}
