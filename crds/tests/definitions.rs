//! What the definitions promise, checked without a server, and the drift of generated files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrBool,
};
use requiem_crds::definition::{all, walk};
use requiem_crds::status::ResultReason;
use requiem_crds::{ExecutionStatus, generate};

/// Spec, status and every field below, of every kind.
fn every_field(check: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    for definition in all() {
        let parts = if has_status(&definition) { &["spec", "status"][..] } else { &["spec"] };
        for part in parts {
            walk(&format!("{}.{part}", definition.spec.names.kind), part_of(&definition, part), check);
        }
    }
}

/// Policies have none: nothing is written about them.
fn has_status(definition: &CustomResourceDefinition) -> bool {
    let subresources = definition.spec.versions[0].subresources.as_ref();
    subresources.is_some_and(|subresources| subresources.status.is_some())
}

fn part_of<'a>(definition: &'a CustomResourceDefinition, part: &str) -> &'a JSONSchemaProps {
    let schema = definition.spec.versions[0].schema.as_ref().unwrap();
    &schema.open_api_v3_schema.as_ref().unwrap().properties.as_ref().unwrap()[part]
}

#[test]
fn generated_files_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in generate::files().unwrap() {
        let committed = std::fs::read_to_string(root.join(&file.path)).unwrap_or_default();
        assert!(committed == file.content, "{} is stale: run `cargo xtask generate`", file.path);
    }
}

#[test]
fn every_field_has_a_sentence() {
    every_field(&mut |path, schema| {
        let text = schema.description.as_deref().unwrap_or_default();
        assert!(text.len() > 8 && text.ends_with('.'), "{path}: {text:?} is not a sentence");
        assert!(!text.contains("  ") && !text.contains('\n'), "{path}: {text:?} is badly wrapped");
    });
}

#[test]
fn every_field_is_bounded() {
    every_field(&mut |path, schema| {
        let bounded = match schema.type_.as_deref() {
            Some("string") => schema.max_length.is_some() || schema.enum_.is_some(),
            Some("array") => schema.max_items.is_some(),
            // A map has a bound of its own; `walk` goes on to its values.
            Some("object") => match &schema.additional_properties {
                None => schema.properties.is_some(),
                Some(JSONSchemaPropsOrBool::Schema(_)) => schema.max_properties.is_some(),
                Some(JSONSchemaPropsOrBool::Bool(_)) => false,
            },
            Some("integer") => schema.minimum.is_some(),
            Some("boolean") => true,
            None => schema.x_kubernetes_int_or_string == Some(true) && schema.max_length.is_some(),
            Some(_) => false,
        };
        assert!(bounded, "{path} has no bound");
        assert_eq!(schema.nullable, None, "{path} is nullable, which blinds has()");
    });
}

#[test]
fn nothing_is_pruned_or_kept_blindly() {
    every_field(&mut |path, schema| {
        assert_eq!(schema.x_kubernetes_preserve_unknown_fields, None, "{path}");
    });
}

#[test]
fn only_suspend_cancel_and_ttl_of_a_spec_may_change() {
    for definition in all().into_iter().take(2) {
        let spec = part_of(&definition, "spec");
        let rule = &spec.x_kubernetes_validations.as_ref().unwrap()[0].rule;
        for field in spec.properties.as_ref().unwrap().keys() {
            let free = ["suspend", "cancel", "ttlAfterFinished"].contains(&field.as_str());
            // Without has() the rule would fail on an object that lacks the field.
            let always = spec.required.iter().flatten().any(|name| name == field)
                || spec.properties.as_ref().unwrap()[field].default.is_some();
            let end = if always { ")" } else { &format!(" : !has(oldSelf.{field})") };
            let fixed = rule.contains(&format!("self.{field} == oldSelf.{field}{end}"));
            assert!(free || fixed, "{} spec.{field} has no rule", definition.spec.names.kind);
        }
    }
}

#[test]
fn every_status_field_is_fenced() {
    let execution = all().remove(0);
    let status = part_of(&execution, "status");
    let rules = status.x_kubernetes_validations.as_ref().unwrap();
    let fences: Vec<_> =
        rules.iter().filter(|rule| rule.rule.starts_with("!oldSelf.terminal || (")).collect();
    for field in status.properties.as_ref().unwrap().keys() {
        let free = field == "observedGeneration" || field == "conditions";
        let fixed = format!("self.{field} == oldSelf.{field} : !has(oldSelf.{field})");
        let fenced = fences.iter().any(|fence| fence.rule.contains(&fixed));
        assert!(free || fenced, "status.{field} can change after the end");
    }
}

#[test]
fn the_words_of_a_result_are_its_serialised_names() {
    for reason in ResultReason::ALL {
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }
    let execution = all().remove(0);
    let field = &part_of(&execution, "status").properties.as_ref().unwrap()["result"];
    assert_eq!(field.enum_.as_ref().unwrap().len(), ResultReason::ALL.len());
}

#[test]
fn an_object_that_nobody_looked_at_has_a_status() {
    let all: Vec<_> = all().into_iter().filter(has_status).collect();
    assert_eq!(all.len(), 3);
    for definition in all {
        let fresh = part_of(&definition, "status").default.as_ref().unwrap();
        assert_eq!(fresh.0["observedGeneration"], -1, "{}", definition.spec.names.kind);
    }
    let empty: ExecutionStatus = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, ExecutionStatus::default());
}
