//! Objects of `requiem.dev/v1alpha1` in files, as kubectl reads them: YAML or JSON, several documents, Lists.
//!
//! What the definitions do not know is refused: whoever judges a misspelt field by ignoring it says what is not so.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use requiem_crds::definition;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::CommandError;
use crate::store;
use crate::text::{printable, shown};

/// Largest file: some thousand objects.
const MAX_BYTES: u64 = 32 << 20;
const VERSION: &str = "requiem.dev/v1alpha1";
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// One object of a file, of one of our kinds.
pub(crate) struct Manifest {
    /// Its kind.
    pub(crate) kind: String,
    file: String,
    object: Value,
}

/// The objects in the file at `path`, each of one of `kinds`; at least one.
pub(crate) fn read(path: &Path, kinds: &[&str]) -> Result<Vec<Manifest>, CommandError> {
    let content = store::read(path, MAX_BYTES)?;
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_slice(&content) {
        let value =
            Value::deserialize(document).map_err(|error| unusable(path, kinds, &error.to_string()))?;
        flatten(value, &mut objects);
    }
    if objects.is_empty() {
        return Err(unusable(path, kinds, "there is no object in it"));
    }
    objects.into_iter().map(|object| Manifest::new(path, object, kinds)).collect()
}

/// A List is its items, a document without content is nothing.
fn flatten(mut value: Value, objects: &mut Vec<Value>) {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").filter(|_| is_list).map(Value::take) {
        Some(Value::Array(items)) => items.into_iter().for_each(|item| flatten(item, objects)),
        _ if value.is_null() => {}
        _ => objects.push(value),
    }
}

fn unusable(path: &Path, kinds: &[&str], why: &str) -> CommandError {
    let message = format!("{}: {}", shown(path), printable(why));
    let hint = format!("give objects of {VERSION}, of kind {}, as YAML or JSON", kinds.join(" or "));
    CommandError::unusable("InvalidManifest", message, hint)
}

impl Manifest {
    fn new(path: &Path, object: Value, kinds: &[&str]) -> Result<Self, CommandError> {
        let word = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (word("apiVersion"), word("kind"));
        if version != VERSION || !kinds.contains(&kind.as_str()) {
            return Err(unusable(
                path,
                kinds,
                &format!("there is an object of {version:?}, kind {kind:?}, in it"),
            ));
        }
        let manifest = Self { kind, file: shown(path), object };
        match manifest.strange() {
            Some(strange) => Err(manifest.refused(&strange)),
            None => Ok(manifest),
        }
    }

    /// The object as its type; without a namespace it is in `namespace`.
    pub(crate) fn typed<K: DeserializeOwned>(&self, namespace: &str) -> Result<K, CommandError> {
        let mut object = self.object.clone();
        if object["metadata"].is_object() && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = namespace.into();
        }
        serde_json::from_value(object).map_err(|error| self.refused(&error.to_string()))
    }

    /// What is wrong with it, for people.
    pub(crate) fn refused(&self, why: &str) -> CommandError {
        let metadata = &self.object["metadata"];
        let name = ["name", "generateName"].iter().find_map(|field| metadata[*field].as_str());
        let (kind, name) = (&self.kind, printable(name.unwrap_or("without a name")));
        let message = format!("{}: {kind} {name}: {}", self.file, printable(why));
        let hint = "correct it; kubectl apply --dry-run=server says all that the API server has against it";
        CommandError::unusable("InvalidManifest", message, hint)
    }

    /// The first field that the definition does not know, or list that it does not admit empty.
    fn strange(&self) -> Option<String> {
        let fields = self.object.as_object()?;
        if let Some(strange) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Some(format!("{strange} is not a field of it"));
        }
        let all = definition::all();
        let definition = all.iter().find(|definition| definition.spec.names.kind == self.kind)?;
        let schema = definition.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()?;
        stranger(schema.properties.as_ref()?.get("spec")?, &self.object["spec"], "spec")
    }
}

fn stranger(schema: &JSONSchemaProps, value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match field(schema, name) {
                Some(schema) => stranger(schema, value, &path),
                None => Some(format!("{path} is not a field of it")),
            }
        }),
        Value::Array(items) => {
            if schema.min_items.is_some_and(|least| items.is_empty() && least > 0) {
                return Some(format!("{path} is empty; leave it out, or give an item"));
            }
            let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else { return None };
            items.iter().enumerate().find_map(|(n, item)| stranger(schema, item, &format!("{path}[{n}]")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn field<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    let own = schema.properties.as_ref().and_then(|properties| properties.get(name));
    let any = match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(&**schema),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
    };
    own.or(any)
}
