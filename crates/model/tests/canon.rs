//! Canonical JSON against its golden vectors, and as a property: what is parsed is written again byte for
//! byte, and nothing that comes in makes the reader panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use requiem_model::canon::{self, CanonError, INTEGER_BOUND, MAX_BYTES, MAX_DEPTH, Value};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    format: String,
    good: Vec<Vector>,
    bad: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    bytes: Option<String>,
    hex: Option<String>,
    code: Option<String>,
}

impl Vector {
    fn content(&self) -> Vec<u8> {
        match (&self.bytes, &self.hex) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(hex)) => {
                let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                (0..hex.len()).step_by(2).map(digit).collect()
            }
            _ => panic!("{}: exactly one of bytes and hex", self.name),
        }
    }
}

fn vectors() -> Vectors {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/canon.json")).unwrap();
    assert_eq!(vectors.format, "requiem-cj/1");
    vectors
}

#[test]
fn good_vectors_are_their_own_canonical_form() {
    for vector in vectors().good {
        let bytes = vector.content();
        let value = canon::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!(canon::encode(&value).as_bytes(), bytes, "{}", vector.name);
        let json: serde_json::Value = canon::from_slice(&bytes).unwrap();
        assert_eq!(canon::to_vec(&json).unwrap(), bytes, "{}", vector.name);
    }
}

#[test]
fn bad_vectors_are_refused_with_their_code() {
    let vectors = vectors().bad;
    assert!(vectors.len() > 60);
    for vector in vectors {
        match canon::parse(&vector.content()) {
            Ok(value) => panic!("{}: was accepted as {value:?}", vector.name),
            Err(error) => assert_eq!(Some(error.code()), vector.code.as_deref(), "{}: {error}", vector.name),
        }
    }
}

#[test]
fn size_is_bounded_on_both_ways() {
    let fitting = format!("\"{}\"", "x".repeat(MAX_BYTES - 2));
    assert!(canon::parse(fitting.as_bytes()).is_ok());
    let text = "x".repeat(MAX_BYTES - 1);
    assert_eq!(canon::parse(format!("\"{text}\"").as_bytes()).unwrap_err().code(), "E_BOUNDS");
    assert_eq!(canon::to_vec(&text).unwrap_err().code(), "E_BOUNDS");
    assert!(canon::to_vec_limited(&text, MAX_BYTES + 1).is_ok());
    assert!(canon::parse_limited(b"{}", 1).is_err());
    assert!(canon::from_slice_limited::<bool>(b"true", 4).is_ok());
}

#[test]
fn writing_refuses_what_reading_refuses() {
    let nested = |depth| (0..depth).fold(serde_json::json!(0), |inner, _| serde_json::json!([inner]));
    let code = |value: serde_json::Value| canon::to_vec(&value).map_err(|error| error.code());
    assert!(code(nested(MAX_DEPTH)).is_ok());
    assert_eq!(code(nested(MAX_DEPTH + 1)), Err("E_BOUNDS"));
    assert_eq!(code(serde_json::json!({"a": null})), Err("E_NULL"));
    assert_eq!(code(serde_json::json!(1.0)), Err("E_NUMBER"));
    assert_eq!(code(serde_json::json!(INTEGER_BOUND)), Err("E_NUMBER"));
    assert_eq!(code(serde_json::json!(-INTEGER_BOUND)), Err("E_NUMBER"));
    assert_eq!(code(serde_json::json!(u64::MAX)), Err("E_NUMBER"));
    assert_eq!(code(serde_json::json!({"a-b": 1})), Err("E_KEY"));
}

#[test]
fn a_shape_error_names_what_is_wrong() {
    let error = canon::from_slice::<bool>(b"[]").unwrap_err();
    assert!(matches!(&error, CanonError::Shape(text) if text.contains("boolean")), "{error}");
}

#[test]
fn the_first_difference_is_pointed_at() {
    let at = |text: &str| match canon::parse(text.as_bytes()) {
        Err(CanonError::NotCanonical { at }) => at,
        other => panic!("{other:?}"),
    };
    assert_eq!(at("{\"a\": 1}"), 5);
    assert_eq!(at("{} "), 2);
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (-INTEGER_BOUND + 1..INTEGER_BOUND).prop_map(Value::Int),
        any::<String>().prop_map(Value::String),
        "[\\x00-\\x20\"\\\\/\u{7f}\u{e9}\u{1f600}]{0,8}".prop_map(Value::String),
    ];
    scalar.prop_recursive(6, 64, 6, |inner| {
        let names = "[A-Za-z][A-Za-z0-9_]{0,6}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(names, inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<BTreeMap<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(value in value()) {
        let text = canon::encode(&value);
        prop_assert_eq!(canon::parse(text.as_bytes()), Ok(value));
        // Any JSON library reads the same document.
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(canon::to_vec(&json).unwrap(), text.into_bytes());
    }

    #[test]
    fn what_is_accepted_is_written_the_same(text in "[\\[\\]{}\",:\\\\0-9a-eu\\-+. \u{e9}]{0,24}") {
        if let Ok(value) = canon::parse(text.as_bytes()) {
            prop_assert_eq!(canon::encode(&value), text);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _verdict = canon::parse(&bytes);
    }

    #[test]
    fn one_changed_byte_is_another_document_or_none(value in value(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
        let text = canon::encode(&value);
        let mut changed = text.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert_ne!(canon::parse(&changed), Ok(value));
    }
}
