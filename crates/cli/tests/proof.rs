//! `requiem proof verify` on good, forged and unusable files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{Desk, repository};
use serde_json::{Value, json};

fn good() -> Value {
    let text = std::fs::read(repository("crates/proof/tests/vectors/bundle.json")).unwrap();
    let vector: Value = serde_json::from_slice(&text).unwrap();
    json!({"body": vector["body"], "executionRoot": vector["executionRoot"], "bundleRoot": vector["bundleRoot"]})
}

fn object() -> Value {
    let mut spec = good();
    spec["executionRef"] = json!({"name": "build-1", "uid": "3b241101-e2bb-4255-8caf-4136c566a962"});
    json!({
        "apiVersion": "requiem.dev/v1alpha1",
        "kind": "ProofBundle",
        "metadata": {"namespace": "team-a", "name": "build-1-1"},
        "spec": spec,
    })
}

fn check(file: &Value, code: i32, error_code: &str) {
    let desk = Desk::new();
    desk.write("proof.json", file.to_string());
    let said = desk.requiem(&["proof", "verify", "proof.json", "--json"]);
    assert_eq!((said.code, said.json()["error_code"].as_str()), (code, Some(error_code)), "{said:?}");
    assert_eq!(said.json()["ok"], false);
    assert!(said.stderr.contains("error: ") && said.stderr.contains(" hint: "), "{said:?}");
}

#[test]
fn a_good_bundle_is_called_integrity_only() {
    let desk = Desk::new();
    for file in [good(), object()] {
        desk.write("proof.json", file.to_string());
        let said = desk.requiem(&["proof", "verify", "proof.json"]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
        assert!(said.stdout.starts_with("integrity only: "), "{said:?}");
        for part in [
            "not checked: who made it",
            good()["executionRoot"].as_str().unwrap(),
            good()["bundleRoot"].as_str().unwrap(),
            "OutputMissing: exit code 0; stdout 5 bytes (truncated)",
            "landlock          partial",
            "best_effort, 60 of 100",
            "clock:real",
        ] {
            assert!(said.stdout.contains(part), "{part:?} is not in {}", said.stdout);
        }
        // Never one green word.
        assert!(!said.stdout.to_lowercase().contains("verified"), "{said:?}");
    }
}

#[test]
fn standard_input_and_json_work() {
    let said = Desk::new().requiem_with(&["proof", "verify", "-", "--json"], good().to_string().as_bytes());
    assert_eq!(said.code, 0, "{said:?}");
    let document = said.json();
    assert_eq!((&document["ok"], &document["verdict"]), (&json!(true), &json!("integrity only")));
    assert_eq!(document["execution_root"], good()["executionRoot"]);
    assert_eq!(document["sandbox_applied"]["unsupported"], json!(["cgroup"]));
}

#[test]
fn forged_bundles_are_findings_with_distinct_codes() {
    let with = |pointer: &str, from: &str, to: &str| {
        let mut file = object();
        let place = file.pointer_mut(pointer).unwrap();
        let text = place.as_str().unwrap().replacen(from, to, 1);
        assert_ne!(place.as_str().unwrap(), text, "{from:?} is not there");
        *place = text.into();
        file
    };
    check(&with("/spec/body", "\"score\":60", "\"score\":90"), 1, "E_ROOT");
    check(&with("/spec/body", "\"status\":\"partial\"", "\"status\":\"enforced\""), 1, "E_ROOT");
    check(&with("/spec/body", "{", "{ "), 1, "E_NOT_CANONICAL");
    check(&with("/spec/body", "requiem-bundle/1", "requiem-bundle/2"), 1, "E_VERSION");
    check(&with("/spec/executionRef/uid", "3b24", "4b24"), 1, "E_REQUEST_BINDING");
    check(&with("/metadata/namespace", "team-a", "team-b"), 1, "E_REQUEST_BINDING");
    let mut cut = object();
    cut["spec"]["body"] = "{\"execution\":".into();
    check(&cut, 1, "E_PARSE");
}

#[test]
fn files_that_are_no_proofs_are_unusable() {
    check(&json!({"apiVersion": "v1", "kind": "List", "items": []}), 2, "E_KIND");
    check(&json!({"apiVersion": "v1", "kind": "Secret"}), 2, "E_KIND");
    check(&json!({"hello": 1}), 2, "E_SHAPE");
    let desk = Desk::new();
    let said = desk.requiem(&["proof", "verify", "nowhere.json"]);
    assert_eq!(said.code, 2);
    assert!(
        said.stderr.contains("cannot read nowhere.json") && said.stderr.contains("hint: check the path"),
        "{said:?}"
    );
    desk.write("proof.yaml", "apiVersion: requiem.dev/v1alpha1\nkind: ProofBundle\n");
    let said = desk.requiem(&["proof", "verify", "proof.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("[E_PARSE]") && said.stderr.contains("-o json"), "{said:?}");
}

#[test]
fn what_others_wrote_does_not_steer_the_terminal() {
    use requiem_proof::{BundleBody, Sealed, seal};
    let mut body: BundleBody = serde_json::from_str(good()["body"].as_str().unwrap()).unwrap();
    body.execution.request.argv.push("\u{1b}]0;evil\u{7}\u{202e}".into());
    let sealed: Sealed = seal(&body).unwrap();
    let desk = Desk::new();
    desk.write("proof.json", sealed.to_file().unwrap());
    let said = desk.requiem(&["proof", "verify", "proof.json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("\\u{1b}]0;evil"), "{said:?}");
    assert!(!said.stdout.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{said:?}");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let desk = Desk::new();
    desk.write("proof.json", good().to_string());
    let mut command = desk.command(&["proof", "verify", "proof.json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn wrong_usage_is_unusable_input() {
    let desk = Desk::new();
    let wrong: [&[&str]; 5] =
        [&["proof"], &["proof", "verify"], &["nonsense"], &["cas", "get", "sha256:00"], &["exec", "run"]];
    for arguments in wrong {
        let said = desk.requiem(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        assert!(!said.stderr.contains("panicked"));
    }
    assert_eq!(desk.requiem(&["--version"]).stdout, format!("requiem {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(desk.requiem(&["--help"]).code, 0);
}
