//! The configuration for kube-state-metrics: the fields that its page "Custom Resource State Metrics" documents and no other
//! (kubernetes/kube-state-metrics, docs/metrics/extend/customresourcestate-metrics.md, commit c92fe0c of August 2026), and every path in
//! our definitions.

use std::collections::{BTreeMap, BTreeSet};

use requiem_tests::Failure;
use requiem_xtask::paths;
use serde::Deserialize;
use serde_json::{Value, json};

const FILE: &str = "config/monitoring/kube-state-metrics.yaml";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    kind: String,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resource {
    group_version_kind: GroupVersionKind,
    metric_name_prefix: String,
    #[serde(default)]
    labels_from_path: Labels,
    #[serde(default, rename = "errorLogV")]
    _error_log_v: u8,
    metrics: Vec<Metric>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metric {
    name: String,
    help: String,
    #[serde(default)]
    common_labels: BTreeMap<String, String>,
    each: Each,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Each {
    r#type: Type,
    gauge: Option<Gauge>,
    state_set: Option<StateSet>,
    info: Option<Info>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
enum Type {
    Gauge,
    StateSet,
    Info,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gauge {
    path: Path,
    #[serde(default)]
    labels_from_path: Labels,
    #[serde(default)]
    value_from: Path,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StateSet {
    path: Path,
    label_name: String,
    list: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Info {
    path: Path,
    labels_from_path: Labels,
}

type Path = Vec<String>;
type Labels = BTreeMap<String, Path>;

/// Fields whose values may be labels: few in each object, and words or names of objects. (path of the metric, path of the label)
const LABELS: [(&str, &str); 8] = [
    ("", "metadata.name"),
    ("", "metadata.namespace"),
    ("status.conditions", "type"),
    ("status.endpoints", "name"),
    ("status.sandbox.partial", ""),
    ("status.sandbox.unsupported", ""),
    ("status.sandbox.delegated", ""),
    ("status.sandbox.disabled", ""),
];

/// What is wrong with a configuration, each as a sentence.
fn faults(text: &str) -> Result<Vec<String>, Failure> {
    let read: Configuration = serde_norway::from_str(text)?;
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(what);
    if read.kind != "CustomResourceStateMetrics" {
        fault(format!("kind is {}", read.kind));
    }
    for resource in &read.spec.resources {
        let schema = schema(&resource.group_version_kind)?;
        let prefix = &resource.metric_name_prefix;
        labels("", &schema, &resource.labels_from_path, prefix, &mut fault);
        let mut series = BTreeSet::new();
        for metric in &resource.metrics {
            let name = format!("{prefix}_{}", metric.name);
            if metric.help.is_empty() || !series.insert((&metric.name, &metric.common_labels)) {
                fault(format!("{name} has no help, or is there twice"));
            }
            each(&name, &schema, &metric.each, &mut fault);
        }
    }
    Ok(faults)
}

fn each(name: &str, schema: &Value, each: &Each, fault: &mut impl FnMut(String)) {
    match each {
        Each { r#type: Type::Gauge, gauge: Some(gauge), state_set: None, info: None } => {
            let Some(at) = walk(schema, &gauge.path) else {
                return fault(format!("{name}: no {:?}", gauge.path));
            };
            let each = element(at);
            labels(&gauge.path.join("."), each, &gauge.labels_from_path, name, fault);
            match walk(each, &gauge.value_from) {
                Some(value) if is_number(value, &gauge.value_from) => {}
                found => fault(format!("{name}: {:?} is no number: {found:?}", gauge.value_from)),
            }
        }
        Each { r#type: Type::StateSet, gauge: None, state_set: Some(set), info: None } => {
            let words = walk(schema, &set.path).map(|at| at["enum"].clone());
            if words != Some(json!(set.list)) || set.label_name.is_empty() {
                fault(format!("{name}: {:?} has the values {words:?}, not {:?}", set.path, set.list));
            }
        }
        Each { r#type: Type::Info, gauge: None, state_set: None, info: Some(info) } => {
            match walk(schema, &info.path) {
                // kube-state-metrics warns of other names.
                Some(_) if !name.ends_with("_info") => fault(format!("{name}: an Info is called NAME_info")),
                Some(at) => labels(&info.path.join("."), element(at), &info.labels_from_path, name, fault),
                None => fault(format!("{name}: no {:?}", info.path)),
            }
        }
        _ => fault(format!("{name}: its type and what it holds do not fit")),
    }
}

fn labels(at: &str, schema: &Value, labels: &Labels, name: &str, fault: &mut impl FnMut(String)) {
    for (label, path) in labels {
        let is_text = walk(schema, path).is_some_and(|found| found["type"] == "string");
        if !is_text {
            fault(format!("{name}: label {label}: no text at {path:?}"));
        }
        if !LABELS.contains(&(at, path.join(".").as_str())) {
            fault(format!("{name}: label {label}: {path:?} is not bounded"));
        }
    }
}

/// What a gauge can be made of: a number, a truth value, a date, or the status of a condition.
fn is_number(schema: &Value, path: &[String]) -> bool {
    match schema["type"].as_str() {
        Some("integer" | "number" | "boolean") => true,
        Some("string") => {
            schema["format"] == "date-time"
                || (path == ["status"] && schema["enum"] == json!(["True", "False", "Unknown"]))
        }
        _ => false,
    }
}

/// An array or object makes a series for each element.
fn element(schema: &Value) -> &Value {
    if schema["type"] == "array" { &schema["items"] } else { schema }
}

fn walk<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(schema, |at, part| at["properties"].get(part))
}

/// The schema of a kind, as its definition has it, with the metadata that every object has.
fn schema(of: &GroupVersionKind) -> Result<Value, Failure> {
    for entry in std::fs::read_dir(paths::repository().join("config/crd"))? {
        let definition: Value = serde_norway::from_str(&std::fs::read_to_string(entry?.path())?)?;
        let spec = &definition["spec"];
        if spec["group"] != json!(of.group) || spec["names"]["kind"] != json!(of.kind) {
            continue;
        }
        let versions = spec["versions"].as_array().into_iter().flatten();
        if let Some(version) = versions.into_iter().find(|version| version["name"] == json!(of.version)) {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            let text = json!({"type": "string"});
            schema["properties"]["metadata"] = json!({"type": "object", "properties": {
                "name": text, "namespace": text, "creationTimestamp": {"type": "string", "format": "date-time"},
            }});
            return Ok(schema);
        }
    }
    Err(format!("no definition of {}/{} {}", of.group, of.version, of.kind).into())
}

#[test]
fn the_configuration_fits_what_is_documented_and_our_definitions() -> Result<(), Failure> {
    let text = std::fs::read_to_string(paths::repository().join(FILE))?;
    assert_eq!(faults(&text)?, Vec::<String>::new());
    for kind in ["Execution", "ProofBundle", "ExecutorPool"] {
        assert!(text.contains(&format!("kind: {kind}}}")), "nothing is said of {kind}");
    }
    for (is, becomes, words) in [
        ("[status, durationMs]", "[status, durationS]", "durationS"),
        ("[status, determinismConfidence, level]", "[status, determinismConfidence, formula]", "formula"),
        ("- ProofRejected", "- ProofRefused", "ProofRefused"),
        ("valueFrom: [ready]", "valueFrom: [version]", "is no number"),
        ("{type: [type]}", "{type: [message]}", "is not bounded"),
        ("execution: [metadata, name]", "execution: [metadata, labels]", "no text"),
        ("type: Info, info", "type: Gauge, info", "do not fit"),
        ("layer_not_enforced_info", "layer_not_enforced", "is called NAME_info"),
    ] {
        assert!(text.contains(is), "{is}");
        let found = faults(&text.replace(is, becomes))?;
        assert!(found.iter().any(|fault| fault.contains(words)), "{becomes}: {found:?}");
    }
    for (is, becomes, words) in
        [("valueFrom:", "valueOf:", "valueOf"), ("kind: ExecutorPool", "kind: Pool", "no definition")]
    {
        let error =
            faults(&text.replace(is, becomes)).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{becomes}: {error:?}");
    }
    Ok(())
}
