//! `requiem exec run` and `requiem health` on the real sandbox.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{Desk, Said};
use requiem_model::BlobDigest;
use serde_json::{Value, json};

/// A request that runs where one of these layers is missing, too; the report tells what is so.
fn request(mut fields: Value) -> Value {
    let layers = json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    fields["policy"] = json!({ "layers": layers });
    fields
}

fn shell(script: &str) -> Value {
    request(json!({"command": "/bin/sh", "argv": ["-c", script]}))
}

fn run(desk: &Desk, request: &Value) -> Said {
    desk.write("request.json", request.to_string());
    desk.requiem(&["exec", "run", "--request", "request.json", "--proof", "proof.json", "--json"])
}

fn names(document: &Value, list: &str) -> Vec<String> {
    let names = document[list].as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_ends_with_result_report_and_proof() {
    let desk = Desk::new();
    let mut wanted = shell("cat in.txt; echo err >&2; mkdir -p out; echo made > out/file");
    wanted["inputs"] = json!({"in.txt": {"text": "hello\n"}});
    wanted["outputs"] = json!(["out"]);
    wanted["request_id"] = json!("run-1");
    let said = run(&desk, &wanted);
    assert_eq!(said.code, 0, "{said:?}");
    let result = said.json();
    assert_eq!((&result["ok"], &result["exit_code"]), (&json!(true), &json!(0)));
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!("hello\n"), &json!("err\n")));
    assert_eq!(result["stdout_digest"], BlobDigest::of(b"hello\n").to_string());
    assert_eq!((&result["request_id"], &result["tenant_id"]), (&json!("run-1"), &json!("default")));
    assert!(names(&result["sandbox_applied"], "enforced").contains(&"seccomp".to_owned()), "{result}");
    assert!(!names(&result["determinism_confidence"], "reasons").is_empty());
    // The proof stands by itself, and is about this run.
    let proof = desk.requiem(&["proof", "verify", "proof.json", "--json"]);
    assert_eq!(proof.code, 0, "{proof:?}");
    for field in ["execution_root", "bundle_root", "request_digest", "result_digest"] {
        assert_eq!(proof.json()[field], result[field], "{field}");
    }
    assert_eq!(proof.json()["uid"], "run-1");
    // The output can be had back.
    let digest = result["output_digests"]["out"].as_str().unwrap();
    assert_eq!(desk.requiem(&["cas", "get", digest, "--tree", "--out", "got"]).code, 0);
    assert_eq!(desk.read("got/file"), "made\n");
}

#[test]
fn equal_work_has_equal_execution_root_and_other_bundle_root() {
    let desk = Desk::new();
    let (one, other) = (run(&desk, &shell("echo same")).json(), run(&desk, &shell("echo same")).json());
    assert_eq!(one["request_digest"], other["request_digest"]);
    assert_eq!(one["execution_root"], other["execution_root"]);
    assert_ne!(one["bundle_root"], other["bundle_root"]);
    let mut nonce = shell("echo same");
    nonce["nonce"] = json!("another");
    assert_ne!(run(&desk, &nonce).json()["request_digest"], one["request_digest"]);
}

#[test]
fn files_folders_and_blobs_are_inputs() {
    let desk = Desk::new();
    desk.write("src/deep/a", "A");
    desk.write("tool.sh", "#!/bin/sh\ncat src/deep/a blob plain; cat\n");
    let tree = desk.requiem(&["cas", "put", "src"]).stdout;
    let blob = desk.requiem_with(&["cas", "put", "-"], b"B").stdout;
    desk.write("plain", "C");
    let wanted = request(json!({
        "command": "/workspace/tool.sh",
        "workspace_root": ".",
        "stdin": {"text": "D"},
        "inputs": {
            "src": {"tree": tree.trim()},
            "blob": blob.trim(),
            "plain": {"file": "plain"},
            "tool.sh": {"file": "tool.sh", "executable": true},
        },
    }));
    let said = run(&desk, &wanted);
    assert_eq!((said.code, said.json()["stdout"].as_str()), (0, Some("ABCD")), "{said:?}");
}

#[test]
fn a_failed_run_is_exit_code_1_and_still_proven() {
    let desk = Desk::new();
    for (script, reason) in [("exit 7", "NonZeroExit"), ("kill -9 $$", "Signalled")] {
        let said = run(&desk, &shell(script));
        assert_eq!((said.code, said.json()["termination_reason"].as_str()), (1, Some(reason)), "{said:?}");
        assert_eq!(said.json()["ok"], false);
        assert_eq!(desk.requiem(&["proof", "verify", "proof.json"]).code, 0);
    }
    let mut slow = shell("sleep 60");
    slow["timeout_ms"] = json!(300);
    let said = run(&desk, &slow);
    assert_eq!((said.code, said.json()["termination_reason"].as_str()), (1, Some("TimedOut")), "{said:?}");
    let mut missing = shell("true");
    missing["outputs"] = json!(["never"]);
    let said = run(&desk, &missing);
    assert_eq!((said.code, said.json()["error_code"].as_str()), (1, Some("OutputMissing")), "{said:?}");
    assert_eq!(said.json()["missing_outputs"][0]["path"], "never");
}

#[test]
fn a_flood_is_cut_at_the_cap() {
    let desk = Desk::new();
    let mut flood = shell("head -c 3000000 /dev/zero");
    flood["max_output_bytes"] = json!(1000);
    let result = run(&desk, &flood).json();
    let kept = result["stdout"].as_str().unwrap().len();
    assert_eq!((result["stdout_truncated"].as_bool(), kept), (Some(true), 1000));
}

#[test]
fn requests_that_cannot_be_run_are_exit_code_2() {
    let desk = Desk::new();
    let check = |request: Value, code: &str, part: &str| {
        let said = run(&desk, &request);
        assert_eq!((said.code, said.json()["error_code"].as_str()), (2, Some(code)), "{said:?}");
        assert!(said.stderr.contains(part), "{part:?}: {said:?}");
        assert!(!said.json()["hint"].as_str().unwrap().is_empty());
    };
    check(json!({"command": "a", "colour": 1}), "InvalidRequest", "colour: is not a field of a request");
    check(json!({"command": "a", "timeout_ms": 0}), "InvalidRequest", "timeout_ms: ");
    check(json!({"command": "a", "limits": {"memory_bytes": 1}}), "InvalidRequest", "limits.memory_bytes: ");
    check(
        json!({"command": "a", "inputs": {"x": {"file": "gone"}}}),
        "InvalidRequest",
        "inputs[x]: cannot read",
    );
    check(json!({"command": "a", "inputs": {"x": {"file": "."}}}), "InvalidRequest", "not a regular file");
    check(json!({"command": "rel/ative"}), "InvalidRequest", "command: is a relative path");
    check(request(json!({"command": "/no/such/program"})), "CommandNotRunnable", "/no/such/program");
    let absent = BlobDigest::of(b"absent").to_string();
    check(request(json!({"command": "true", "inputs": {"x": absent.clone()}})), "InputMissing", &absent);
    check(json!({"command": "a", "tenant_id": "Not/A/Tenant"}), "Tenant", "tenant");
    let said = desk.requiem(&["exec", "run", "--request", "gone.json"]);
    assert_eq!(said.code, 2, "{said:?}");
    desk.write("bad.json", "{");
    let said = desk.requiem(&["exec", "run", "--request", "bad.json"]);
    assert!(said.code == 2 && said.stderr.contains("request: "), "{said:?}");
}

#[test]
fn the_result_document_goes_to_a_file_and_the_text_to_people() {
    let desk = Desk::new();
    desk.write("request.json", shell("printf 'a\\033[2Jb\\n'").to_string());
    let said = desk.requiem(&["exec", "run", "--request", "request.json", "--out", "result.json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.starts_with("result "), "{said:?}");
    assert!(said.stdout.contains("a\\u{1b}[2Jb") && !said.stdout.contains('\u{1b}'), "{said:?}");
    let result: Value = serde_json::from_str(&desk.read("result.json")).unwrap();
    assert_eq!(result["stdout"], "a\u{1b}[2Jb\n");
    desk.write("request.json", "{}");
    let said = desk.requiem(&["exec", "run", "--request", "request.json", "--out", "result.json"]);
    assert_eq!(said.code, 2);
    let result: Value = serde_json::from_str(&desk.read("result.json")).unwrap();
    assert_eq!((&result["ok"], &result["error_code"]), (&json!(false), &json!("InvalidRequest")));
}

#[test]
fn the_request_may_come_from_standard_input() {
    let desk = Desk::new();
    let request = shell("echo hi").to_string();
    let said = desk.requiem_with(&["exec", "run", "--request", "-", "--json"], request.as_bytes());
    assert_eq!((said.code, said.json()["stdout"].as_str()), (0, Some("hi\n")), "{said:?}");
}

#[test]
fn a_layer_that_is_off_is_reported_disabled() {
    let desk = Desk::new();
    let mut wanted = shell("true");
    wanted["policy"]["layers"]["seccomp"] = json!("off");
    let said = run(&desk, &wanted);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["policy_applied"]["seccomp"], "off");
    let applied = &said.json()["sandbox_applied"];
    assert!(names(applied, "disabled").contains(&"seccomp".to_owned()), "{said:?}");
    assert!(!names(applied, "enforced").contains(&"seccomp".to_owned()), "{said:?}");
}

#[test]
fn health_tries_the_sandbox() {
    let desk = Desk::new();
    let said = desk.requiem(&["health", "--json"]);
    let health = said.json();
    assert!(names(&health["sandbox"], "enforced").contains(&"seccomp".to_owned()), "{said:?}");
    assert_eq!(health["report"]["layers"].as_array().unwrap().len(), 18);
    assert_eq!(said.code, i32::from(health["ok"] != json!(true)), "{said:?}");
    let text = desk.requiem(&["health"]);
    assert!(text.stdout.contains("LAYER") && text.stdout.contains("store: "), "{text:?}");
}
