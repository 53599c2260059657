//! Schema fragments for texts that the type system of OpenAPI does not know. Each has a bound, so that the
//! API server can estimate the cost of the rules that read it.

use requiem_model::Layer;
use requiem_model::names::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES};
use requiem_model::request::{MAX_ITEMS, MAX_TEXT_BYTES};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

use crate::execution::LayerRequirement;
use crate::executor_pool::Tier;

/// One path component that is not empty, `.` or `..`, in RE2, which has no look-ahead.
const COMPONENT: &str = r"(?:[^/.]|\.[^/.]|\.\.[^/])[^/]*";

/// A path below the workspace, normalised.
pub(crate) fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "A path below the workspace.",
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_PATH_BYTES,
        "x-kubernetes-validations": [{
            "rule": format!("self.matches(r'^{COMPONENT}(?:/{COMPONENT})*$')"),
            "message": "must be a path below the workspace: relative, without '.', '..', '//' and a trailing '/'",
            "reason": "FieldValueInvalid",
        }],
    })
}

/// A set of paths below the workspace.
pub(crate) fn paths(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_ITEMS,
        "x-kubernetes-list-type": "set",
        "items": path(generator),
    })
}

/// A digest: `blake3:` and 64 hexadecimal digits.
pub(crate) fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 71, "pattern": "^blake3:[0-9a-f]{64}$" })
}

/// A list of arguments.
pub(crate) fn arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_ITEMS,
        "x-kubernetes-list-type": "atomic",
        "items": { "description": "One argument.", "type": "string", "maxLength": MAX_TEXT_BYTES },
    })
}

/// Text that stands in the object itself.
pub(crate) fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": MAX_TEXT_BYTES })
}

/// The name of an environment variable.
pub(crate) fn variable_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_COMPONENT_BYTES,
        "x-kubernetes-validations": [{
            "rule": "!self.contains('=')",
            "message": "must not contain '='",
            "reason": "FieldValueInvalid",
        }],
    })
}

/// The name of an object in the same namespace.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    })
}

/// A key of a Secret or a ConfigMap.
pub(crate) fn data_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": r"^[-._a-zA-Z0-9]+$" })
}

/// A reference to a container image.
pub(crate) fn image(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^[^\s]+$" })
}

/// Names of objects, in which `*` stands for any text.
pub(crate) fn name_patterns(_: &mut SchemaGenerator) -> Schema {
    patterns(253, r"^[-.*a-z0-9]+$", "A name, in which a * stands for any text.")
}

/// References to container images, in which `*` stands for any text.
pub(crate) fn image_patterns(_: &mut SchemaGenerator) -> Schema {
    patterns(512, r"^[^\s]+$", "An image, in which a * stands for any text.")
}

fn patterns(longest: usize, pattern: &str, description: &str) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": {
            "description": description, "type": "string", "minLength": 1, "maxLength": longest, "pattern": pattern,
        },
    })
}

/// A set of layers.
pub(crate) fn layer_set(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": Layer::ALL.len(),
        "x-kubernetes-list-type": "set",
        "items": { "description": "The name of a layer.", "type": "string", "enum": Layer::ALL.map(Layer::name) },
    })
}

/// A set of tiers.
pub(crate) fn tiers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": Tier::ALL.len(),
        "x-kubernetes-list-type": "set",
        "items": { "description": "A tier of pods.", "type": "string", "enum": Tier::ALL.map(Tier::as_str) },
    })
}

/// Whether something may be asked for; without the sentence that the type would put in place of the field's own.
pub(crate) fn permission(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Allowed", "Forbidden"] })
}

/// A path below the kubelet's seccomp folder.
pub(crate) fn profile(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
    })
}

/// An absolute path on a node.
pub(crate) fn host_folder(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 2, "maxLength": 1024, "pattern": r"^/[^\s]+$" })
}

/// Labels of a node.
pub(crate) fn node_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "description": "Value of the label.", "type": "string", "maxLength": 63 },
    })
}

/// Quantities by the name of a resource, in the grammar of Kubernetes.
pub(crate) fn resource_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "description": "A quantity: 500m, 2, 512Mi.",
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maxLength": 32,
            "pattern": r"^[0-9]{1,16}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        },
    })
}

/// The requirement level of each layer: a map in Rust, an object with one documented field per layer here,
/// so that `kubectl explain` lists them and a misspelt one is an unknown field.
pub(crate) fn layers(_: &mut SchemaGenerator) -> Schema {
    let field = |layer: Layer| {
        let value = json!({
            "description": format!("{} Absent means required.", layer_doc(layer)),
            "type": "string",
            "enum": LayerRequirement::ALL.map(LayerRequirement::as_str),
        });
        (layer.name().to_owned(), value)
    };
    let properties: serde_json::Map<String, serde_json::Value> = Layer::ALL.into_iter().map(field).collect();
    json_schema!({ "type": "object", "properties": properties })
}

/// Names of layers.
pub(crate) fn layer_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": Layer::ALL.len(),
        "x-kubernetes-list-type": "atomic",
        "items": { "description": "The name of a layer.", "type": "string", "maxLength": 64 },
    })
}

/// Coded reasons of a confidence level.
pub(crate) fn reason_codes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "description": "One reason, such as clock:real or layer:cgroup:partial.",
            "type": "string",
            "maxLength": 128,
        },
    })
}

/// Conditions, merged by type, with the bounds of the Kubernetes API conventions.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One aspect of the state of this object.",
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "description": "What the condition is about, in CamelCase.",
                    "type": "string", "maxLength": 316, "minLength": 1,
                },
                "status": {
                    "description": "Whether it holds: True, False or Unknown.",
                    "type": "string", "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "The metadata.generation that the condition was set for.",
                    "type": "integer", "format": "int64", "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "When the status of the condition last changed.",
                    "type": "string", "format": "date-time",
                },
                "reason": {
                    "description": "Why, as one stable word for programs.",
                    "type": "string", "maxLength": 1024, "minLength": 1,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "Why, for people; may be empty.",
                    "type": "string", "maxLength": 32768,
                },
            },
        },
    })
}

/// What each layer does, as `kubectl explain` shows it.
const fn layer_doc(layer: Layer) -> &'static str {
    match layer {
        Layer::UserNamespace => "Own user namespace: the command's ids mean nothing outside.",
        Layer::PidNamespace => "Own process ids: nothing outside can be seen or signalled.",
        Layer::MountNamespace => "Own mount table.",
        Layer::NetworkNamespace => "Own network stack with nothing but loopback.",
        Layer::IpcNamespace => "Own System V IPC and POSIX message queues.",
        Layer::UtsNamespace => "Own host name.",
        Layer::CgroupNamespace => "Own view of the cgroup tree.",
        Layer::MinimalRoot => {
            "A minimal root file system with read-only system folders; the old root is gone."
        }
        Layer::ReadOnlyInputs => "Inputs refuse writes, and that cannot be undone from inside.",
        Layer::Scratch => "Workspace and /tmp are memory file systems with byte and inode caps.",
        Layer::Procfs => "A /proc that shows the command's own processes only.",
        Layer::NoNewPrivileges => "No set-id program can raise privileges.",
        Layer::Capabilities => "Every capability set is empty.",
        Layer::Rlimits => "POSIX resource limits.",
        Layer::Cgroup => "cgroup limits on memory and processes of the whole tree.",
        Layer::Landlock => "Landlock: file access by path hierarchy.",
        Layer::Seccomp => "Allow-list of system calls; foreign ABIs are closed.",
        Layer::Descriptors => "Only standard input, output and error are open at the start.",
    }
}
