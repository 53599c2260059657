//! The spec of a benchmark: JSON from a user, with a named error for everything that is wrong with it.

use std::ops::RangeInclusive;

use requiem_executor::engine::sandbox::NAME as ENGINE;
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use crate::error::CommandError;
use crate::{request_schema, store};

const FIELDS: [&str; 6] = ["name", "request", "engine", "warmup", "repeats", "concurrency"];

const MAX_NAME_CHARS: usize = 128;
const WARMUP: RangeInclusive<u64> = 0..=1000;
const REPEATS: RangeInclusive<u64> = 1..=10_000;
const CONCURRENCY: RangeInclusive<u64> = 1..=64;

const DEFAULT_WARMUP: u64 = 3;
/// More than what a comparison needs: a machine changes its speed from second to second, and a result should have seen that.
const DEFAULT_REPEATS: u64 = 300;
const DEFAULT_CONCURRENCY: u64 = 1;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    /// Runs that are not counted, before those that are.
    pub(crate) warmup: u64,
    /// Runs that are counted.
    pub(crate) repeats: u64,
    /// Runs at a time.
    pub(crate) concurrency: u64,
    /// The request document; what is wrong in it is for its own parser to say.
    pub(crate) request: Vec<u8>,
}

impl Spec {
    /// Reads a spec.
    ///
    /// # Errors
    /// The first field that is unknown, given twice or unusable.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        let hint = "give one JSON object; its fields stand in docs/bench.md";
        let parsed = requiem_proof::json::parse(bytes).map_err(|error| wrong("spec", error, hint))?;
        let Value::Object(mut members) = parsed else { return Err(wrong("spec", "is not an object", hint)) };
        if let Some(name) = members.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(wrong(
                name,
                "is not a field of a spec",
                format!("remove it; the fields are {}", FIELDS.join(", ")),
            ));
        }
        engine(members.remove("engine"))?;
        Ok(Self {
            name: name(members.remove("name"))?,
            warmup: number(&mut members, "warmup", WARMUP, DEFAULT_WARMUP)?,
            repeats: number(&mut members, "repeats", REPEATS, DEFAULT_REPEATS)?,
            concurrency: number(&mut members, "concurrency", CONCURRENCY, DEFAULT_CONCURRENCY)?,
            request: request(members.remove("request"))?,
        })
    }
}

fn name(value: Option<Value>) -> Result<String, CommandError> {
    let hint = "give it a name of 1 to 128 characters, like \"sort a million lines\"";
    match value {
        None => Err(wrong("name", "is missing", hint)),
        Some(Value::String(text)) => {
            let is_good = !text.trim().is_empty()
                && text.chars().count() <= MAX_NAME_CHARS
                && !text.contains(char::is_control);
            if is_good { Ok(text) } else { Err(wrong("name", "cannot be used", hint)) }
        }
        Some(_) => Err(wrong("name", "is not text", hint)),
    }
}

fn number(
    members: &mut Map<String, Value>,
    name: &str,
    bounds: RangeInclusive<u64>,
    default: u64,
) -> Result<u64, CommandError> {
    let Some(value) = members.remove(name) else { return Ok(default) };
    let good = value.as_u64().filter(|number| bounds.contains(number));
    good.ok_or_else(|| {
        let why = format!("is not a whole number from {} to {}", bounds.start(), bounds.end());
        wrong(name, why, format!("write it without quotes, or leave it out for {default}"))
    })
}

/// Only the sandbox is measured. Naming it keeps a spec from being measured by a program that measures another.
fn engine(value: Option<Value>) -> Result<(), CommandError> {
    match value {
        None => Ok(()),
        Some(Value::String(name)) if name == ENGINE => Ok(()),
        Some(_) => {
            let hint = format!("leave it out, or write \"{ENGINE}\"");
            Err(wrong("engine", "is not an engine that is measured", hint))
        }
    }
}

fn request(value: Option<Value>) -> Result<Vec<u8>, CommandError> {
    let hint = "give \"request\": {\"command\": …}, as exec run reads it";
    match value {
        Some(value @ Value::Object(_)) => serde_json::to_vec(&value).map_err(|error| store::encoding(&error)),
        None => Err(wrong("request", "is missing", hint)),
        Some(_) => Err(wrong("request", "is not an object", hint)),
    }
}

fn wrong(field: &str, why: impl std::fmt::Display, hint: impl Into<String>) -> CommandError {
    CommandError::unusable("InvalidSpec", format!("{field}: {why}"), hint)
}

/// The schema of specs. `Spec::parse` is what counts; a test holds the two together.
pub(crate) fn schema() -> Schema {
    let mut request = request_schema::schema();
    request.remove("$schema");
    let mut definitions = match request.remove("$defs") {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    definitions.insert("request".to_owned(), request.to_value());
    let number = |bounds: RangeInclusive<u64>, default: u64| json!({"type": "integer", "minimum": bounds.start(), "maximum": bounds.end(), "default": default});
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "A benchmark of `requiem bench run`.",
        "type": "object",
        "properties": {
            // At least one character that is no space, and none that controls a terminal.
            "name": {
                "type": "string",
                "maxLength": MAX_NAME_CHARS,
                "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$",
            },
            "request": {"$ref": "#/$defs/request"},
            "engine": {"const": ENGINE},
            "warmup": number(WARMUP, DEFAULT_WARMUP),
            "repeats": number(REPEATS, DEFAULT_REPEATS),
            "concurrency": number(CONCURRENCY, DEFAULT_CONCURRENCY),
        },
        "required": ["name", "request"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_field_and_what_was_meant() {
        let check = |text: &str, message: &str, hint: &str| {
            let error = Spec::parse(text.as_bytes()).unwrap_err();
            assert_eq!(
                (error.error_code.as_str(), error.message.as_str()),
                ("InvalidSpec", message),
                "{text}"
            );
            assert!(error.hint.contains(hint), "{text}: {}", error.hint);
        };
        check("[]", "spec: is not an object", "one JSON object");
        check(
            r#"{"name":"a","request":{},"repeat":3}"#,
            "repeat: is not a field of a spec",
            "remove it; the fields are name, request, engine, warmup, repeats, concurrency",
        );
        check(r#"{"request":{}}"#, "name: is missing", "1 to 128");
        check(r#"{"name":7,"request":{}}"#, "name: is not text", "1 to 128");
        check(r#"{"name":" ","request":{}}"#, "name: cannot be used", "1 to 128");
        check(r#"{"name":"a\u001b","request":{}}"#, "name: cannot be used", "1 to 128");
        check(
            &format!(r#"{{"name":"{}","request":{{}}}}"#, "ä".repeat(129)),
            "name: cannot be used",
            "1 to 128",
        );
        check(r#"{"name":"a"}"#, "request: is missing", "as exec run reads it");
        check(r#"{"name":"a","request":"b"}"#, "request: is not an object", "as exec run reads it");
        for engine in [r#""podman""#, "null", "7"] {
            let text = format!(r#"{{"name":"a","request":{{}},"engine":{engine}}}"#);
            check(&text, "engine: is not an engine that is measured", "leave it out, or write \"requiem\"");
        }
        for (field, bounds, default) in
            [("warmup", "0 to 1000", 3), ("repeats", "1 to 10000", 300), ("concurrency", "1 to 64", 1)]
        {
            for bad in ["-1", "1.5", "\"5\"", "null", "10001", "18446744073709551616"] {
                let message = format!("{field}: is not a whole number from {bounds}");
                check(
                    &format!(r#"{{"name":"a","request":{{}},"{field}":{bad}}}"#),
                    &message,
                    &format!("out for {default}"),
                );
            }
        }
        for (text, part) in [
            ("{", "spec: not JSON"),
            (r#"{"name":"a","name":"b","request":{}}"#, "\"name\" occurs twice"),
            (r#"{"name":"a","request":{"env":{"A":"1","A":"2"}}}"#, "\"A\" occurs twice"),
        ] {
            let error = Spec::parse(text.as_bytes()).unwrap_err();
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn every_field_arrives() {
        let text = r#"{"name":"a b","request":{"command":"x"},"engine":"requiem","warmup":0,"repeats":10000,"concurrency":64}"#;
        let spec = Spec::parse(text.as_bytes()).unwrap();
        assert_eq!((spec.name.as_str(), spec.warmup, spec.repeats, spec.concurrency), ("a b", 0, 10_000, 64));
        assert_eq!(spec.request, br#"{"command":"x"}"#);
        let least = Spec::parse(br#"{"name":"a","request":{}}"#).unwrap();
        assert_eq!((least.warmup, least.repeats, least.concurrency), (3, 300, 1));
    }
}
