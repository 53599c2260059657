//! JSON that others wrote: every member once, at any depth, and nothing that the type it is read into does not write again.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why bytes are no such document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8 or not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// A member occurs twice, is absent, unknown or of the wrong type.
    #[error("unexpected shape: {0}")]
    Shape(String),
}

/// Parses `bytes`; a member that occurs twice is an error.
///
/// # Errors
/// [`JsonError`].
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::Syntax(error.to_string()))?;
    let Unique(value) = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => JsonError::Shape(error.to_string()),
        _ => JsonError::Syntax(error.to_string()),
    })?;
    Ok(value)
}

/// Reads a value into `T`, which must write it again as it was: no member is passed over, and none is read from another form.
///
/// # Errors
/// [`JsonError::Shape`].
pub fn strict<T: DeserializeOwned + Serialize>(value: Value) -> Result<T, JsonError> {
    let shape = |error: serde_json::Error| JsonError::Shape(error.to_string());
    let read: T = T::deserialize(&value).map_err(shape)?;
    if serde_json::to_value(&read).map_err(shape)? == value {
        Ok(read)
    } else {
        Err(JsonError::Shape("it holds members of another form".to_owned()))
    }
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(Self(Once.deserialize(input)?))
    }
}

/// Builds a [`Value`] as `serde_json` does, except for members that occur twice.
#[derive(Clone, Copy)]
struct Once;

impl<'de> DeserializeSeed<'de> for Once {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            found.push(item);
        }
        Ok(Value::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if found.insert(name.clone(), value).is_some() {
                let name: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format!("member {name:?} occurs twice")));
            }
        }
        Ok(Value::Object(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Pair {
        one: u64,
        other: Vec<u64>,
    }

    #[test]
    fn nothing_occurs_twice_at_any_depth() {
        for bad in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"b":2,"a":3}}]"#, r#"{"a":1,"\u0061":1}"#] {
            assert!(matches!(parse(bad.as_bytes()), Err(JsonError::Shape(_))), "{bad}");
        }
        for bad in ["", "{", "nonsense", "\"\u{1}\"", "1 2", "\u{feff}{}"] {
            assert!(matches!(parse(bad.as_bytes()), Err(JsonError::Syntax(_))), "{bad}");
        }
        assert!(parse(b"\"\xff\"").is_err() && parse(&b"[".repeat(10_000)).is_err());
        let all = r#"{"a":[1,-1,1.5,true,null,"x",{}]}"#;
        assert_eq!(parse(all.as_bytes()).unwrap().to_string(), all);
    }

    #[test]
    fn only_the_written_form_is_read() {
        let read = |text: &str| strict::<Pair>(parse(text.as_bytes()).unwrap()).is_ok();
        assert!(read(r#"{"other":[2],"one":1}"#));
        assert!(!read(r#"[1,[2]]"#), "a list of values is not the object");
        assert!(!read(r#"{"one":1,"other":[2],"more":3}"#));
    }
}
