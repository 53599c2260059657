//! Parts of JSON Schemas for what the lower crates say, which know nothing of schemas.

use requiem_model::report::{Source, Status};
use requiem_model::{Layer, Requirement};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Value, json};

/// The schema of a document that is printed. What has no value is left out of it, never null.
pub(crate) fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(without_null);
    settings.into_generator().into_root_schema_for::<T>()
}

/// One document or another.
pub(crate) fn either<A: JsonSchema, B: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(without_null);
    let mut generator = settings.into_generator();
    let choice = [generator.subschema_for::<A>(), generator.subschema_for::<B>()];
    let definitions = generator.take_definitions(true);
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": choice,
        "$defs": definitions,
    })
}

fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choice)) = schema.get_mut("anyOf") {
        choice.retain(|part| part != &json!({"type": "null"}));
    }
    schemars::transform::transform_subschemas(&mut without_null, schema);
}

/// A digest of any kind.
pub(crate) fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^blake3:[0-9a-f]{64}$"})
}

/// Digests of any kind.
pub(crate) fn digests(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": digest(generator)})
}

/// A level of determinism confidence.
pub(crate) fn level(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": ["best_effort", "medium", "high"]})
}

/// How a key signs.
pub(crate) fn algorithm(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": ["ed25519", "ecdsa-p256", "sshsig"]})
}

/// Declared outputs that are not there.
pub(crate) fn missing_outputs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "why": {"type": "string"}},
            "required": ["path", "why"],
        },
    })
}

/// A level for layers.
pub(crate) fn layers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": {"enum": names(&Layer::ALL)},
        "additionalProperties": {"enum": levels()},
    })
}

/// Name and version of an engine.
pub(crate) fn engine(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
        "required": ["name", "version"],
    })
}

/// A file or a folder by its digest.
pub(crate) fn content(generator: &mut SchemaGenerator) -> Schema {
    let digest = digest(generator);
    json_schema!({
        "type": "object",
        "properties": {
            "kind": {"enum": ["blob", "tree"]},
            "digest": digest,
            "bytes": {"type": "integer", "minimum": 0},
            "executable": {"type": "boolean"},
            "entries": {"type": "integer", "minimum": 0},
        },
        "required": ["kind", "digest", "bytes"],
    })
}

/// What was seen of one layer.
pub(crate) fn layer_report(_: &mut SchemaGenerator) -> Schema {
    let statuses =
        [Status::Enforced, Status::Partial, Status::Unsupported, Status::Delegated, Status::Disabled];
    json_schema!({
        "type": "object",
        "properties": {
            "layer": {"enum": names(&Layer::ALL)},
            "requested": {"enum": levels()},
            "status": {"enum": names(&statuses)},
            "mechanism": {"type": "string"},
            "scope": {"enum": ["processTree", "pod", "node"]},
            "evidence": {"enum": ["probe", "readback", "syscallReturn", "assertedByOuter", "none"]},
            "detail": {"type": "string"},
        },
        "required": ["layer", "requested", "status", "mechanism", "scope", "evidence"],
    })
}

/// What was seen of each layer, and of each source of differences.
pub(crate) fn report(generator: &mut SchemaGenerator) -> Schema {
    let layer = layer_report(generator);
    json_schema!({
        "type": "object",
        "properties": {
            "layers": {"type": "array", "items": layer},
            "sources": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "source": {"enum": names(&Source::ALL)},
                        "state": {"enum": ["fixed", "real", "unprobed"]},
                    },
                    "required": ["source", "state"],
                },
            },
        },
        "required": ["layers", "sources"],
    })
}

/// A request in the form that is digested.
pub(crate) fn request(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The canonical request, as bundles hold it: docs/format/proof.md.",
        "type": "object",
        "required": ["argv", "limits", "policy"],
    })
}

/// The body of a bundle, whose form is specified elsewhere.
pub(crate) fn body(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The body of the bundle, byte by byte in docs/format/proof.md.",
        "type": "object",
        "required": ["schema", "execution", "run"],
    })
}

/// Every requirement level.
pub(crate) fn levels() -> Vec<Value> {
    names(&[Requirement::Required, Requirement::Preferred, Requirement::Off])
}

/// What unit variants are called in documents.
pub(crate) fn names<T: Serialize>(variants: &[T]) -> Vec<Value> {
    variants.iter().filter_map(|variant| serde_json::to_value(variant).ok()).collect()
}
