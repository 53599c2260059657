//! The definitions as they are installed. The derived schemas are finished here:
//!
//! - no field is nullable: a null would satisfy `has()` and so blind the rules; the API server then refuses a
//!   null, or replaces it where the field has a default;
//! - `status` is there from the first moment, with `observedGeneration: -1`, so that no client takes an
//!   object for finished that nobody has looked at;
//! - formats that OpenAPI does not know are removed, because the API server warns about each;
//! - every field has a bound and a sentence, which a test checks.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde::Serialize;

use crate::{
    ClusterExecutionPolicy, Execution, ExecutionPolicy, ExecutionStatus, ExecutorPool, ExecutorPoolStatus,
    ProofBundle, ProofBundleStatus,
};

/// Every definition, in the order of installation.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        finish(Execution::crd(), &ExecutionStatus::default()),
        finish(ProofBundle::crd(), &ProofBundleStatus::default()),
        finish(ExecutorPool::crd(), &ExecutorPoolStatus::default()),
        // Nothing is written about a policy: who reads its status for health finds none, and takes it for current.
        finish(ExecutionPolicy::crd(), &()),
        finish(ClusterExecutionPolicy::crd(), &()),
    ]
}

/// Calls `visit` on `schema` and on every schema below it, with the path of each.
pub fn walk(path: &str, schema: &JSONSchemaProps, visit: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    visit(path, schema);
    for (name, field) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), field, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        walk(&format!("{path}[]"), item, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &schema.additional_properties {
        walk(&format!("{path}{{}}"), value, visit);
    }
}

fn finish(mut definition: CustomResourceDefinition, fresh: &impl Serialize) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        finish_schema(root);
        if let Some(fields) = root.properties.as_mut() {
            if let Some(status) = fields.get_mut("status") {
                status.default = serde_json::to_value(fresh).ok().map(JSON);
                status.description = Some("What is so. Written by the operator alone.".to_owned());
            }
            if let Some(spec) = fields.get_mut("spec") {
                spec.description = Some("What is wanted.".to_owned());
            }
        }
    }
    definition
}

fn finish_schema(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(text) = &mut schema.description {
        *text = unwrapped(text);
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        // Says the same as the extension, and loses its content in the structural rewrite.
        schema.any_of = None;
    }
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some("int64".to_owned());
    }
    if schema.format.as_deref() == Some("date-time") {
        // A bound for the cost estimate; RFC 3339 with microseconds and an offset has 32 characters.
        schema.max_length = Some(40);
    }
    for field in schema.properties.iter_mut().flat_map(|fields| fields.values_mut()) {
        finish_schema(field);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        finish_schema(item);
    }
}

/// Doc comments are wrapped for the source; paragraphs stay apart.
fn unwrapped(text: &str) -> String {
    let paragraphs: Vec<String> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    paragraphs.join("\n\n")
}
