//! The committed vectors.

use std::path::Path;

use requiem_model::canon;
use serde_json::{Value, json};

use crate::python::{ask, second_opinion};

fn read(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn canonical_json() {
    let vectors = read("crates/model/tests/vectors/canon.json");
    let content = |vector: &Value| match (&vector["bytes"], &vector["hex"]) {
        (Value::String(text), _) => hex(text.as_bytes()),
        (_, hex) => hex.as_str().unwrap().to_owned(),
    };
    for vector in vectors["good"].as_array().unwrap() {
        let bytes = content(vector);
        let answer = ask(&json!({"kind": "canon", "hex": bytes}));
        assert_eq!((&answer["code"], &answer["again"]), (&json!("ok"), &json!(bytes)), "{vector}");
    }
    for vector in vectors["bad"].as_array().unwrap() {
        let answer = ask(&json!({"kind": "canon", "hex": content(vector)}));
        assert_eq!(answer["code"], vector["code"], "{vector}: {answer}");
    }
}

/// Every vector with one byte replaced by each of some others: the verdicts agree, and so do the codes.
#[test]
fn canonical_json_with_one_byte_changed() {
    let vectors = read("crates/model/tests/vectors/canon.json");
    let mut tried = 0;
    for vector in vectors["good"].as_array().unwrap() {
        let bytes = vector["bytes"].as_str().unwrap().as_bytes();
        for at in 0..bytes.len() {
            for other in *b"{}[],:\"\\0-1eutn \x00\x7f\xff" {
                let mut changed = bytes.to_vec();
                changed[at] = other;
                let verdict = canon::parse(&changed).map_or_else(|error| error.code(), |_| "ok");
                let answer = ask(&json!({"kind": "canon", "hex": hex(&changed)}));
                let theirs = answer["code"].as_str().unwrap();
                // A document may be wrong in several ways; then each code is right.
                assert_eq!(verdict == "ok", theirs == "ok", "{verdict}, {answer}: {changed:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 5_000, "{tried}");
}

#[test]
fn trees() {
    for vector in read("crates/proof/tests/vectors/tree.json").as_array().unwrap() {
        assert_eq!(vector["context"], "requiem.dev 2026-11 proof/v1 root");
        let answer = ask(&json!({"kind": "tree", "context": "root", "leaves": vector["leaves"]}));
        assert_eq!(answer["root"], format!("blake3:{}", vector["root"].as_str().unwrap()));
    }
}

#[test]
fn the_bundle_its_digests_and_its_output_proof() {
    for file in ["bundle", "references", "engine"] {
        let vector = read(&format!("crates/proof/tests/vectors/{file}.json"));
        let mut question = vector.clone();
        question["kind"] = "body".into();
        let answer = ask(&question);
        for name in ["executionRoot", "bundleRoot", "requestDigest", "resultDigest"] {
            assert_eq!(answer[name], vector[name], "{name}: {answer}");
        }
    }
    let vector = read("crates/proof/tests/vectors/bundle.json");
    let proof = vector["outputProof"].to_string();
    second_opinion(
        &json!({"kind": "output", "proof": proof, "executionRoot": vector["executionRoot"]}),
        "ok",
    );
    second_opinion(
        &json!({"kind": "output", "proof": proof, "executionRoot": vector["bundleRoot"]}),
        "E_PROOF",
    );
}
