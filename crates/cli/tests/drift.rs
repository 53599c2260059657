//! `requiem drift analyze` on real runs: what differs is named item by item, what agrees agrees, what is forged is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{Desk, Said};
use serde_json::{Value, json};

/// Runs a script, and writes result and proof under a name.
fn ran(desk: &Desk, name: &str, script: &str, more: Value) {
    let layers = json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    let mut request = json!({
        "command": "/bin/sh", "argv": ["-c", script], "outputs": ["a", "b"], "policy": {"layers": layers},
        "inputs": {"salt": {"file": "salt"}},
    });
    for (field, value) in more.as_object().unwrap() {
        request[field] = value.clone();
    }
    desk.write("request.json", request.to_string());
    for folder in ["results", "proofs"] {
        std::fs::create_dir_all(desk.path(&format!("{folder}/{name}")).parent().unwrap()).unwrap();
    }
    let (out, proof) = (format!("results/{name}.json"), format!("proofs/{name}.json"));
    let said = desk.requiem(&["exec", "run", "--request", "request.json", "--out", &out, "--proof", &proof]);
    assert!(said.code <= 1, "{said:?}");
}

fn analyze(desk: &Desk, a: &str, b: &str) -> Said {
    desk.requiem(&["drift", "analyze", a, b, "--json"])
}

fn items(pair: &Value) -> Vec<&str> {
    let differences = pair["differences"].as_array().unwrap();
    differences.iter().map(|difference| difference["item"].as_str().unwrap()).collect()
}

#[test]
fn each_item_is_named_and_nothing_else() {
    let desk = Desk::new();
    desk.write("salt", "1");
    let script = "echo out; echo err >&2; echo a > a; echo b > b";
    ran(&desk, "base", script, json!({}));
    ran(&desk, "same", script, json!({}));
    for (a, b) in [("results", "results"), ("proofs", "proofs"), ("results", "proofs"), ("proofs", "results")]
    {
        let said = analyze(&desk, &format!("{a}/base.json"), &format!("{b}/same.json"));
        let pair = said.json()["pairs"][0].clone();
        assert_eq!(
            (said.code, &pair["agrees"], &pair["differences"]),
            (0, &json!(true), &json!([])),
            "{said:?}"
        );
        assert_eq!(pair["execution_root_a"], pair["execution_root_b"]);
    }
    let random = "od -An -N16 -tx1 /dev/urandom";
    let check = |name: &str, script: &str, expected: &[&str]| {
        ran(&desk, &format!("{name}-1"), script, json!({}));
        ran(&desk, &format!("{name}-2"), script, json!({}));
        let said = analyze(&desk, &format!("results/{name}-1.json"), &format!("proofs/{name}-2.json"));
        assert_eq!((said.code, items(&said.json()["pairs"][0])), (1, expected.to_vec()), "{name}: {said:?}");
        let difference = &said.json()["pairs"][0]["differences"][0];
        assert_ne!(difference["one"], difference["other"]);
    };
    check("stdout", &format!("{random}; echo a > a; echo b > b"), &["stdout"]);
    check("stderr", &format!("{random} >&2; echo a > a; echo b > b"), &["stderr"]);
    check("outputs", &format!("{random} > a; {random} > b"), &["output a", "output b"]);
    // The low bit of a random byte: runs until one ends as the other did not.
    let coin = "exit $(( $(od -An -N1 -tu1 /dev/urandom) % 2 ))";
    let exits = (0..40).any(|_| {
        ran(&desk, "exit-1", coin, json!({}));
        ran(&desk, "exit-2", coin, json!({}));
        let said = analyze(&desk, "results/exit-1.json", "results/exit-2.json");
        items(&said.json()["pairs"][0]) == ["exit"]
    });
    assert!(exits, "forty pairs of coins that fell alike");
}

#[test]
fn another_request_and_another_sandbox_are_drift() {
    let desk = Desk::new();
    desk.write("salt", "1");
    ran(&desk, "one", "echo hi", json!({}));
    let off = json!({"policy": {"layers": {
        "cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred", "utsNamespace": "off",
    }}});
    ran(&desk, "two", "echo hi", off);
    let said = analyze(&desk, "results/one.json", "results/two.json");
    let document = said.json();
    let found = items(&document["pairs"][0]);
    assert!(found.starts_with(&["request"]), "{said:?}");
    assert!(found.contains(&"sandbox utsNamespace") && found.contains(&"source identity"), "{said:?}");
    let text = desk.requiem(&["drift", "analyze", "results/one.json", "results/two.json"]);
    assert!(text.stdout.starts_with("1 compared, 1 drifted\none.json: drifts\n  request"), "{text:?}");
    let row = text.stdout.lines().find(|line| line.contains("sandbox utsNamespace")).unwrap();
    assert!(row.contains("enforced") && row.contains("disabled"), "{row}");
}

#[test]
fn folders_are_compared_by_name() {
    let desk = Desk::new();
    desk.write("salt", "1");
    ran(&desk, "x/good", "echo hi", json!({}));
    ran(&desk, "y/good", "echo hi", json!({}));
    ran(&desk, "x/bad", "od -An -N16 -tx1 /dev/urandom", json!({}));
    ran(&desk, "y/bad", "od -An -N16 -tx1 /dev/urandom", json!({}));
    ran(&desk, "x/lone", "echo hi", json!({}));
    desk.write("results/x/request.json", "{\"command\": \"true\"}");
    desk.write("results/x/notes.txt", "not looked at");
    let said = analyze(&desk, "results/x", "results/y");
    let document = said.json();
    assert_eq!((said.code, &document["ok"]), (1, &json!(false)), "{said:?}");
    let verdicts: Vec<(&str, bool)> = document["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (pair["name"].as_str().unwrap(), pair["agrees"].as_bool().unwrap()))
        .collect();
    assert_eq!(verdicts, [("bad.json", false), ("good.json", true)]);
    assert_eq!((&document["only_in_a"], &document["only_in_b"]), (&json!(["lone.json"]), &json!([])));
    assert_eq!(document["passed_over"], json!(["request.json"]));
    let text = desk.requiem(&["drift", "analyze", "results/y", "results/x"]).stdout;
    assert!(text.contains("2 compared, 1 drifted") && text.contains("only in B: lone.json"), "{text}");
    // A partner that is missing is drift by itself.
    for name in ["bad.json", "request.json"] {
        std::fs::remove_file(desk.path(&format!("results/x/{name}"))).unwrap();
    }
    std::fs::remove_file(desk.path("results/y/bad.json")).unwrap();
    assert_eq!(analyze(&desk, "results/x", "results/y").code, 1);
    std::fs::remove_file(desk.path("results/x/lone.json")).unwrap();
    assert_eq!(analyze(&desk, "results/x", "results/y").code, 0);
}

#[test]
fn what_is_forged_or_no_run_is_refused() {
    let desk = Desk::new();
    desk.write("salt", "1");
    ran(&desk, "x/one", "echo hi", json!({}));
    ran(&desk, "y/one", "echo hi", json!({}));
    let check = |a: &str, b: &str, exit: i32, code: &str| {
        let said = analyze(&desk, a, b);
        assert_eq!((said.code, said.json()["error_code"].as_str()), (exit, Some(code)), "{said:?}");
    };
    desk.write("proofs/y/one.json", desk.read("proofs/y/one.json").replacen("echo hi", "echo ho", 1));
    check("proofs/x/one.json", "proofs/y/one.json", 1, "E_ROOT");
    check("proofs/x", "proofs/y", 1, "E_ROOT");
    desk.write("results/y/one.json", desk.read("results/y/one.json").replacen("\"hi\\n\"", "\"ho\\n\"", 1));
    check("results/x", "results/y", 1, "E_RESULT");
    check("results/x", "results/x/one.json", 2, "Usage");
    check("request.json", "results/x/one.json", 2, "E_SHAPE");
    check("absent.json", "results/x/one.json", 2, "File");
    std::fs::create_dir(desk.path("empty")).unwrap();
    check("empty", "empty", 2, "NothingToCompare");
}
