//! The schema of request documents. `document` is what counts; a test holds the two together.

use requiem_model::Layer;
use requiem_model::request::{MAX_ITEMS, MAX_TEXT_BYTES};
use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use crate::schema::{levels, names};

/// The schema.
pub(crate) fn schema() -> Schema {
    let text = || json!({"type": ["string", "null"]});
    let texts = || json!({"type": ["array", "null"], "items": {"type": "string"}, "maxItems": MAX_ITEMS});
    let number = || json!({"type": ["integer", "null"], "minimum": 1});
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "A request of `requiem exec run`. Bounds of numbers and what paths may be are checked by the program.",
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": "Program: an absolute path, or a name looked up in the sandbox's PATH."},
            "argv": texts(),
            "env": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
            "cwd": text(),
            "workspace_root": text(),
            "stdin": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/source"}]},
            "inputs": {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/source"}, "maxProperties": MAX_ITEMS},
            "outputs": texts(),
            "nonce": text(),
            "timeout_ms": number(),
            "max_output_bytes": {"type": ["integer", "null"], "minimum": 0},
            "limits": {"type": ["object", "null"], "properties": limits(), "additionalProperties": false},
            "policy": {"type": ["object", "null"], "properties": {"layers": policy()}, "additionalProperties": false},
            "request_id": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9._-]{1,128}$"},
            "tenant_id": {"type": ["string", "null"], "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
        },
        "required": ["command"],
        "additionalProperties": false,
        "$defs": {"source": source()},
    })
}

fn limits() -> Value {
    let limit = json!({"type": "integer", "minimum": 1});
    ["memory_bytes", "pids", "scratch_bytes", "scratch_inodes", "open_files"]
        .into_iter()
        .map(|name| (name.to_owned(), limit.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn policy() -> Value {
    json!({
        "type": "object",
        "propertyNames": {"enum": names(&Layer::ALL)},
        "additionalProperties": {"enum": levels()},
    })
}

fn source() -> Value {
    let digest = json!({"type": "string", "pattern": "^blake3:[0-9a-f]{64}$"});
    let of = |name: &str, value: Value, executable: bool| {
        let mut properties = json!({ name: value });
        if executable {
            properties["executable"] = json!({"type": ["boolean", "null"]});
        }
        json!({"type": "object", "properties": properties, "required": [name], "additionalProperties": false})
    };
    json!({
        "description": "Bytes by digest, a folder by digest, a text, or a file of this machine.",
        "oneOf": [
            digest.clone(),
            of("blob", digest.clone(), true),
            of("tree", digest, false),
            of("text", json!({"type": "string", "maxLength": MAX_TEXT_BYTES}), true),
            of("file", json!({"type": "string"}), true),
        ],
    })
}
