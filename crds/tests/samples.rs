//! Every sample under `config/samples` parses and converts; the one that is there to be refused is refused.
//! That the API server takes them is tested with the real one, in `tests/api/crds.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use requiem_crds::{Execution, ExecutorPool, convert};
use serde::Deserialize as _;

fn documents() -> Vec<(String, serde_json::Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let mut found = Vec::new();
    // Folders below hold samples that need objects in the store first.
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "kustomization.yaml" || !name.ends_with(".yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_norway::Deserializer::from_str(&text) {
            found.push((name.clone(), serde_json::Value::deserialize(document).unwrap()));
        }
    }
    found
}

#[test]
fn every_sample_converts_or_is_meant_not_to() {
    let mut executions = 0;
    for (file, document) in documents() {
        match document["kind"].as_str() {
            Some("Execution") => {
                let execution: Execution = serde_json::from_value(document).unwrap();
                let refused = convert::to_request(&execution.spec).err();
                assert_eq!(refused.is_some(), file.contains("invalid"), "{file}: {refused:?}");
                executions += 1;
            }
            Some("ExecutorPool") => {
                let _parses: ExecutorPool = serde_json::from_value(document).unwrap();
            }
            other => panic!("{file}: unexpected kind {other:?}"),
        }
    }
    assert!(executions >= 10, "{executions} samples");
}

#[test]
fn the_kustomization_names_every_sample() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let listed = std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap();
    for (file, _) in documents() {
        assert!(listed.contains(&format!("- {file}\n")), "{file} is not listed");
    }
}
