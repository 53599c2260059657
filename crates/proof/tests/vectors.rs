//! The committed vectors. They are the contract with verifiers that others write: a changed vector is a new
//! format version, never a fix. `REQUIEM_WRITE_VECTORS=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use requiem_proof::tree::{Leaf, Tree, leaf_hash};
use requiem_proof::{Expect, ProofFile, Sealed, Verified, prove_output, verify, verify_output};
use serde_json::{Value, json};

/// Here there is none. The suite `verifier` has one, and includes this file.
#[allow(unused_imports, reason = "the including file has its own")]
pub(crate) use common::none as second_opinion;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn check(name: &str, computed: &Value) {
    if std::env::var_os("REQUIEM_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(computed).unwrap() + "\n";
        std::fs::write(folder().join(name), text).unwrap();
    }
    assert_eq!(&read(name), computed, "{name} has changed: that is a new format version");
}

fn body_and_digests(sealed: &Sealed, verified: &Verified) -> Value {
    json!({
        "body": sealed.body,
        "executionRoot": sealed.execution_root,
        "bundleRoot": sealed.bundle_root,
        "requestDigest": verified.request_digest,
        "resultDigest": verified.result_digest,
    })
}

fn hex(hash: [u8; 32]) -> String {
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

#[test]
fn the_good_bundle_has_the_committed_bytes_and_roots() {
    let sealed = common::sealed();
    let verified = verify(&sealed.body, &common::roots_of(&sealed)).unwrap();
    let output = prove_output(&verified, &common::path("out/\u{e9}")).unwrap();
    let mut computed = body_and_digests(&sealed, &verified);
    computed["policyDigest"] = json!(verified.body.execution.request.policy.digest().unwrap());
    computed["outputProof"] = json!(output);
    check("bundle.json", &computed);
}

#[test]
fn a_bundle_that_refers_to_values_has_the_committed_bytes_and_roots() {
    let sealed = requiem_proof::seal(&common::referring()).unwrap();
    let verified = verify(&sealed.body, &common::roots_of(&sealed)).unwrap();
    check("references.json", &body_and_digests(&sealed, &verified));
}

#[test]
fn a_bundle_of_another_engine_has_the_committed_bytes_and_roots() {
    let sealed = requiem_proof::seal(&common::elsewhere()).unwrap();
    let verified = verify(&sealed.body, &common::roots_of(&sealed)).unwrap();
    check("engine.json", &body_and_digests(&sealed, &verified));
}

#[test]
fn a_committed_bundle_verifies_from_its_bytes_alone() {
    let vector = read("bundle.json");
    let file = json!({
        "body": vector["body"], "executionRoot": vector["executionRoot"], "bundleRoot": vector["bundleRoot"],
    });
    let verified = ProofFile::parse(file.to_string().as_bytes()).unwrap().verify().unwrap();
    assert_eq!(vector["requestDigest"], verified.request_digest.to_string());
    assert_eq!(vector["resultDigest"], verified.result_digest.to_string());
    let proof = serde_json::from_value(vector["outputProof"].clone()).unwrap();
    verify_output(&proof, &verified.execution_root).unwrap();
    assert!(verify(vector["body"].as_str().unwrap(), &Expect::default()).is_ok());
}

/// Values that Rust, Python, Node and `b3sum` agreed on before this crate was written.
#[test]
fn trees_have_the_shape_that_four_implementations_agreed_on() {
    const TRIAL_ROOT: &str = "requiem.dev 2026-11 proof/v1 root";
    for vector in read("tree.json").as_array().unwrap() {
        let facts: Vec<(&str, &str)> = vector["leaves"]
            .as_array()
            .unwrap()
            .iter()
            .map(|leaf| (leaf[0].as_str().unwrap(), leaf[1].as_str().unwrap()))
            .collect();
        assert_eq!(vector["context"], TRIAL_ROOT);
        let first = leaf_hash(facts[0].0, facts[0].1.as_bytes()).unwrap();
        assert_eq!(vector["firstLeaf"], hex(first));
        let leaves: Vec<Leaf> = facts
            .iter()
            .map(|(tag, body)| Leaf { tag: (*tag).to_owned(), body: body.as_bytes().to_vec() })
            .collect();
        let tree = Tree::build(&leaves).unwrap();
        assert_eq!(vector["root"], hex(tree.root(TRIAL_ROOT)), "{facts:?}");
    }
}
