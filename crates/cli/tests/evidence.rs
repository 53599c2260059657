//! `requiem proof generate`, `show`, `prove`, `verify` with a store and receipts, and `exec replay`, on real runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{Desk, Said};
use serde_json::{Value, json};

/// A desk with one run of a script, its result and its proof.
fn ran(script: &str, outputs: &[&str]) -> Desk {
    let desk = Desk::new();
    let layers = json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    let request = json!({
        "command": "/bin/sh", "argv": ["-c", script], "outputs": outputs, "policy": {"layers": layers},
        "inputs": {"names.txt": {"text": "b\na\n"}},
    });
    desk.write("request.json", request.to_string());
    let said = desk.requiem(&[
        "exec",
        "run",
        "--request",
        "request.json",
        "--out",
        "result.json",
        "--proof",
        "proof.json",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    desk
}

fn sorted() -> Desk {
    ran("sort names.txt > sorted.txt; mkdir kept; cp names.txt kept/a; echo hi", &["sorted.txt", "kept"])
}

fn code(said: &Said) -> String {
    said.json()["error_code"].as_str().unwrap_or("ok").to_owned()
}

#[test]
fn a_proof_is_generated_from_a_result_that_is_not_trusted() {
    let desk = sorted();
    let generate = |result: &str| {
        desk.requiem(&["proof", "generate", "--result", result, "--out", "again.json", "--json"])
    };
    assert_eq!(code(&generate("result.json")), "ok");
    assert_eq!(desk.read("again.json"), desk.read("proof.json"));
    let honest: Value = serde_json::from_str(&desk.read("result.json")).unwrap();
    let changes: [(&str, Value); 11] = [
        ("ok", json!(false)),
        ("exit_code", json!(1)),
        ("stdout", json!("ho\n")),
        ("stderr", json!("x")),
        ("output_digests", json!({})),
        ("duration_ms", json!(86_400_000)),
        ("execution_root", honest["bundle_root"].clone()),
        ("sandbox_applied", json!({"enforced": []})),
        ("determinism_confidence", json!({"level": "high"})),
        ("request_id", json!("other")),
        ("color", json!("red")),
    ];
    std::fs::remove_file(desk.path("again.json")).unwrap();
    for (field, value) in changes {
        let mut forged = honest.clone();
        assert_ne!(forged[field], value);
        forged[field] = value;
        desk.write("forged.json", forged.to_string());
        let said = generate("forged.json");
        assert_eq!((said.code, code(&said).as_str()), (1, "E_RESULT"), "{field}: {said:?}");
    }
    let mut forged = honest.clone();
    let body = forged["proof_body"].as_str().unwrap().replacen("\"code\":0", "\"code\":1", 1);
    forged["proof_body"] = body.into();
    desk.write("forged.json", forged.to_string());
    assert_eq!(code(&generate("forged.json")), "E_RESULT");
    forged["proof_body"] = "{}".into();
    desk.write("forged.json", forged.to_string());
    assert_eq!(generate("forged.json").code, 1);
    assert_eq!(generate("request.json").code, 2);
    assert!(!desk.path("again.json").exists(), "nothing is written of what is refused");
}

#[test]
fn show_says_what_ran_and_why_it_can_be_trusted_so_far() {
    let desk = sorted();
    let said = desk.requiem(&["proof", "show", "proof.json"]);
    assert_eq!(said.code, 0, "{said:?}");
    for part in [
        "/bin/sh -c sort names.txt",
        "sorted.txt",
        "seccomp",
        "best_effort",
        "clock:real",
        "bundle root",
        "not checked: who made it",
    ] {
        assert!(said.stdout.contains(part), "{part:?} is not in {}", said.stdout);
    }
    let shown = desk.requiem(&["proof", "show", "proof.json", "--json"]).json();
    assert_eq!(shown["body"]["execution"]["result"]["outcome"]["code"], 0);
    assert_eq!(shown["verdict"], "integrity only");
    desk.write("forged.json", desk.read("proof.json").replacen("sorted", "forged", 1));
    assert_eq!(code(&desk.requiem(&["proof", "show", "forged.json", "--json"])), "E_ROOT");
}

#[test]
fn every_named_object_must_be_in_the_store_and_intact() {
    let desk = sorted();
    let check = |cas: &str, more: &[&str]| {
        let mut arguments = vec!["proof", "verify", "proof.json", "--cas", cas, "--json"];
        arguments.extend(more);
        desk.requiem(&arguments)
    };
    let said = check("data/requiem/cas", &[]);
    // names.txt (also kept/a), stdout, stderr, sorted.txt, the folder.
    assert_eq!((said.code, &said.json()["objects_in_store"]), (0, &json!(5)), "{said:?}");
    assert_eq!(code(&check("data/requiem/cas", &["--tenant", "other"])), "E_STORE");
    let said = check("nowhere", &[]);
    assert_eq!((said.code, code(&said).as_str()), (2, "NoStore"));
    assert!(!desk.path("nowhere").exists(), "a store that is asked for is not made");
    // One byte of one object, then the object itself.
    let digest = desk.requiem(&["proof", "show", "proof.json", "--json"]).json()["body"]["execution"]["result"]["stdout"]["digest"].clone();
    let hex = digest.as_str().unwrap().strip_prefix("blake3:").unwrap().to_owned();
    let object = desk.path(&format!("data/requiem/cas/tenants/default/objects/{}/{hex}", &hex[..2]));
    std::fs::set_permissions(&object, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&object, "ho\n").unwrap();
    let said = check("data/requiem/cas", &[]);
    assert_eq!((said.code, code(&said).as_str()), (1, "E_STORE"), "{said:?}");
    assert!(said.json()["message"].as_str().unwrap().starts_with("stdout is not intact"), "{said:?}");
    assert_eq!(code(&check("data/requiem/cas", &[])), "E_STORE", "and now it is gone");
}

#[test]
fn requirements_are_named_when_they_are_not_met() {
    let desk = sorted();
    let require = |what: &str| desk.requiem(&["proof", "verify", "proof.json", "--require", what]);
    for met in ["integrity", "determinism=best_effort", "integrity,determinism=best_effort"] {
        assert_eq!(require(met).code, 0, "{met}");
    }
    for unmet in
        ["determinism=high", "determinism=medium", "signed=1", "signed", "replayed=1", "integrity,replayed"]
    {
        let said = require(unmet);
        let name = unmet.rsplit(',').next().unwrap();
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.stderr.contains(&format!("requirement {name}")) && said.stderr.contains("[E_REQUIRE]"),
            "{said:?}"
        );
    }
    for nonsense in
        ["signed=0", "signed=x", "sandbox", "sandbox=half", "determinism=certain", "integrity=1", "color"]
    {
        assert_eq!(require(nonsense).code, 2, "{nonsense}");
    }
    // A layer that is off: the bundle of the vectors has one.
    let text = std::fs::read(common::repository("crates/proof/tests/vectors/bundle.json")).unwrap();
    let vector: Value = serde_json::from_slice(&text).unwrap();
    let file = json!({"body": vector["body"], "executionRoot": vector["executionRoot"], "bundleRoot": vector["bundleRoot"]});
    desk.write("partly.json", file.to_string());
    let said = desk.requiem(&["proof", "verify", "partly.json", "--require", "sandbox=full"]);
    assert!(
        said.code == 1 && said.stderr.contains("utsNamespace") && said.stderr.contains("sandbox=full"),
        "{said:?}"
    );
}

#[test]
fn a_replay_that_agrees_is_counted() {
    let desk = sorted();
    for (source, file) in [("--bundle", "proof.json"), ("--result", "result.json")] {
        let said = desk.requiem(&[
            "exec",
            "replay",
            source,
            file,
            "--receipts",
            "receipts.json",
            "--proof",
            "again.json",
            "--json",
        ]);
        assert_eq!(said.code, 0, "{said:?}");
        let document = said.json();
        assert_eq!((&document["agrees"], &document["divergences"]), (&json!(true), &json!([])));
        assert_eq!(document["execution_root"], document["replay_execution_root"]);
        assert_ne!(document["bundle_root"], document["replay_bundle_root"]);
    }
    assert_eq!(desk.requiem(&["proof", "verify", "again.json"]).code, 0);
    let verify = |receipts: &str, require: &str| {
        desk.requiem(&[
            "proof",
            "verify",
            "proof.json",
            "--receipts",
            receipts,
            "--require",
            require,
            "--json",
        ])
    };
    let said = verify("receipts.json", "replayed=2");
    assert_eq!(said.json()["verdict"], "integrity only; replayed 2 times, 2 agree", "{said:?}");
    assert_eq!(code(&verify("receipts.json", "replayed=3")), "E_REQUIRE");
    // Receipts of another bundle, twice the same run, and no receipts at all.
    let receipts: Value = serde_json::from_str(&desk.read("receipts.json")).unwrap();
    let mut twice = receipts.clone();
    twice["replays"][1] = twice["replays"][0].clone();
    desk.write("twice.json", twice.to_string());
    assert_eq!(code(&verify("twice.json", "integrity")), "E_RECEIPT_TWICE");
    desk.write(
        "other.json",
        receipts.to_string().replacen("\"bundleRoot\":\"blake3:", "\"bundleRoot\":\"blake3:0", 1),
    );
    assert_eq!(code(&verify("other.json", "integrity")), "E_RECEIPTS");
    assert_eq!(code(&verify("proof.json", "integrity")), "E_RECEIPTS");
    let said = desk.requiem(&["exec", "replay", "--bundle", "again.json", "--receipts", "receipts.json"]);
    assert!(said.code == 2 && said.stderr.contains("receipts"), "{said:?}");
}

#[test]
fn a_replay_that_diverges_names_the_first_item() {
    // The clock and randomness of the host: no two runs are equal.
    let check = |script: &str, outputs: &[&str], divergences: &[&str]| {
        let desk = ran(script, outputs);
        let said = desk.requiem(&[
            "exec",
            "replay",
            "--bundle",
            "proof.json",
            "--receipts",
            "receipts.json",
            "--json",
        ]);
        assert_eq!(said.code, 1, "{script}: {said:?}");
        let document = said.json();
        assert_eq!(
            (&document["agrees"], &document["divergences"]),
            (&json!(false), &json!(divergences)),
            "{script}"
        );
        assert_eq!(document["first_divergence"], divergences[0]);
        let said = desk.requiem(&["proof", "verify", "proof.json", "--receipts", "receipts.json"]);
        assert!(said.stdout.contains("replayed 1 times, 0 agree"), "{said:?}");
        assert!(
            said.stdout.contains(&format!("first divergence of a replay: {}", divergences[0])),
            "{said:?}"
        );
        let text = desk.requiem(&["exec", "replay", "--bundle", "proof.json"]);
        assert!(text.code == 1 && text.stdout.contains("it diverges: first in"), "{text:?}");
    };
    let random = "od -An -N16 -tx1 /dev/urandom";
    check(random, &[], &["stdout"]);
    check(&format!("{random} >&2"), &[], &["stderr"]);
    check(&format!("{random} > a; {random} > b; echo same > c"), &["a", "b", "c"], &["output a", "output b"]);
}

#[test]
fn a_forged_bundle_is_not_replayed() {
    let desk = sorted();
    desk.write("forged.json", desk.read("proof.json").replacen("echo hi", "echo ho", 1));
    let said = desk.requiem(&["exec", "replay", "--bundle", "forged.json", "--json"]);
    assert_eq!((said.code, code(&said).as_str()), (1, "E_ROOT"), "{said:?}");
    let said = desk.requiem(&["exec", "replay"]);
    assert!(said.code == 2 && said.stderr.contains("--bundle"), "{said:?}");
    // What it needs is not in this store.
    let said = desk.requiem(&["exec", "replay", "--bundle", "proof.json", "--tenant", "other", "--json"]);
    assert_eq!((said.code, code(&said).as_str()), (2, "InputMissing"), "{said:?}");
}

#[test]
fn a_run_that_took_values_from_elsewhere_is_not_repeated() {
    let desk = Desk::new();
    let vector = include_str!("../../proof/tests/vectors/references.json");
    let vector: Value = serde_json::from_str(vector).unwrap();
    let file = json!({
        "body": vector["body"], "executionRoot": vector["executionRoot"], "bundleRoot": vector["bundleRoot"],
    });
    desk.write("proof.json", file.to_string());
    let said = desk.requiem(&["proof", "verify", "proof.json", "--json"]);
    assert_eq!((said.code, code(&said).as_str()), (0, "ok"), "{said:?}");
    let said = desk.requiem(&["exec", "replay", "--bundle", "proof.json", "--json"]);
    assert_eq!((said.code, code(&said).as_str()), (2, "ValuesUndisclosed"), "{said:?}");
    let message = said.json().to_string();
    assert!(message.contains("TOKEN from key token of Secret registry"), "{message}");
}
