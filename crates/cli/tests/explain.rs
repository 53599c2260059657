//! `requiem exec explain` says what `exec run` does; `sandbox probe` and `sandbox explain` say what this machine does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::collections::BTreeMap;

use common::{Desk, Said, repository};
use requiem_model::Layer;
use serde_json::{Value, json};

const RUN: [&str; 5] = ["exec", "run", "--json", "--request", "request.json"];
const EXPLAIN: [&str; 5] = ["exec", "explain", "--json", "--request", "request.json"];

fn explain(desk: &Desk, request: &Value) -> Said {
    desk.write("request.json", request.to_string());
    desk.requiem(&EXPLAIN)
}

#[test]
fn it_runs_nothing_keeps_nothing_and_knows_the_digest() {
    let desk = Desk::new();
    desk.write("in/a", "A");
    desk.write("plain", "P");
    let tree = desk.requiem(&["digest", "file", "plain"]).stdout.trim().to_owned();
    let request = json!({
        "command": "/bin/sh", "argv": ["-c", "touch ran; echo hi"], "outputs": ["ran"], "nonce": "n",
        "stdin": {"text": "T"}, "inputs": {"plain": {"file": "plain"}, "tool": {"text": "x", "executable": true}},
        "policy": {"layers": {"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "off"}},
    });
    let said = explain(&desk, &request);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!desk.path("data").exists(), "no store is made");
    let explained = said.json();
    assert_eq!(explained["inputs"][1]["digest"], tree);
    assert_eq!(explained["off"], json!(["landlock"]));
    assert_eq!(explained["preferred"], json!(["cgroupNamespace", "cgroup"]));
    assert_eq!(explained["required"].as_array().unwrap().len(), 15);
    let ran = desk.requiem(&RUN).json();
    assert_eq!(ran["request_digest"], explained["request_digest"]);
    assert_eq!(ran["policy_applied"], explained["request"]["policy"]["layers"]);
    let text = desk.requiem(&["exec", "explain", "--request", "request.json"]).stdout;
    for part in
        ["nothing was run", "off        landlock", "plain  blob  there", "at best, determinism: best_effort"]
    {
        assert!(text.contains(part), "{part:?}: {text}");
    }
}

#[test]
fn a_missing_input_is_a_finding() {
    let desk = Desk::new();
    desk.write("in/a", "A");
    let digest = desk.requiem(&["cas", "put", "in"]).stdout.trim().to_owned();
    let request = json!({"command": "true", "inputs": {"in": {"tree": digest}}});
    assert_eq!(explain(&desk, &request).json()["inputs"][0]["there"], true);
    let mut other = request.clone();
    other["tenant_id"] = json!("other");
    let said = explain(&desk, &other);
    assert_eq!((said.code, &said.json()["inputs"][0]["there"]), (1, &json!(false)), "{said:?}");
    assert!(!desk.path("data/requiem/cas/tenants/other").exists(), "no tenant is made");
    let ran = desk.requiem(&RUN);
    assert_eq!((ran.code, ran.json()["error_code"].as_str()), (2, Some("InputMissing")));
    for (wrong, code) in [
        (json!({"command": "true", "colour": 1}), "InvalidRequest"),
        (json!({"command": "true", "timeout_ms": 0}), "InvalidRequest"),
        (json!({"command": "true", "inputs": {"x": {"file": "absent"}}}), "InvalidRequest"),
        (json!({"command": "true", "tenant_id": "../x"}), "Tenant"),
    ] {
        let said = explain(&desk, &wrong);
        assert_eq!((said.code, said.json()["error_code"].as_str()), (2, Some(code)), "{said:?}");
    }
}

/// Whatever is asked for, no run is better than what was said it could be; and where every layer is in force, it is as good.
#[test]
fn no_run_is_better_than_at_best() {
    let desk = Desk::new();
    let score = |document: &Value| (document["level"].clone(), document["score"].as_u64().unwrap());
    let policies = Layer::ALL.map(|layer| Some(layer.name())).into_iter().chain([None]);
    let (mut equal, mut full) = (0, 0);
    for off in policies {
        let level = |layer: &Layer| if Some(layer.name()) == off { "off" } else { "preferred" };
        let layers: BTreeMap<&str, &str> =
            Layer::ALL.iter().map(|layer| (layer.name(), level(layer))).collect();
        let request = json!({"command": "true", "policy": {"layers": layers}});
        let best = score(&explain(&desk, &request).json()["determinism_at_best"]);
        let ran = desk.requiem(&RUN).json();
        let real = score(&ran["determinism_confidence"]);
        assert!(real.1 <= best.1, "{off:?}: {real:?} is better than {best:?}");
        let applied = &ran["sandbox_applied"];
        let in_force = ["partial", "unsupported", "delegated"].iter().all(|list| applied[list] == json!([]));
        if in_force {
            full += 1;
            equal += i32::from(real == best);
        }
    }
    assert_eq!(equal, full, "a run with every wanted layer in force is as good as was said");
}

#[test]
fn the_probe_and_the_explanation_agree() {
    let desk = Desk::new();
    let probe = desk.requiem(&["sandbox", "probe", "--json"]);
    let probed = probe.json();
    assert_eq!(probe.code, i32::from(probed["ok"] != json!(true)));
    let rows = probed["report"]["layers"].as_array().unwrap();
    assert_eq!(rows.len(), 18);
    for row in rows {
        let name = row["layer"].as_str().unwrap();
        let said = desk.requiem(&["sandbox", "explain", name, "--json"]);
        let explained = said.json();
        assert_eq!(&explained["here"], row, "{name}");
        assert_eq!(said.code, i32::from(row["status"] != "enforced"), "{said:?}");
    }
    let said = desk.requiem(&["sandbox", "explain", "seccomp"]);
    assert!(
        said.stdout.contains("Only system calls of a list") && said.stdout.contains("here   "),
        "{said:?}"
    );
    let said = desk.requiem(&["sandbox", "explain", "magic"]);
    assert!(said.code == 2 && said.stderr.contains("userNamespace, pidNamespace"), "{said:?}");
    assert!(!desk.path("data").exists(), "no store is needed");
}

/// Where the kernel really refuses: a user namespace in which no other may be made.
#[test]
fn what_the_kernel_refuses_is_said_with_its_need() {
    let desk = Desk::new();
    let program = env!("CARGO_BIN_EXE_requiem");
    let script = format!(
        "echo 0 > /proc/sys/user/max_cgroup_namespaces
         {program} sandbox probe; echo code $?
         {program} sandbox explain cgroupNamespace; echo code $?"
    );
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount-proc", "--pid", "--fork", "sh", "-c", &script]);
    let output = unshare.env("XDG_DATA_HOME", desk.path("data")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\ncgroupNamespace needs userNamespace, or CAP_SYS_ADMIN\n"), "{output:?}");
    assert!(text.contains("here     unsupported, by namespace:cgroup"), "{text}");
    assert!(text.contains("a limit below /proc/sys/user is reached"), "{text}");
    assert_eq!(text.matches("code 1").count(), 2, "{text}");
}

#[test]
fn the_page_about_layers_is_up_to_date() {
    let desk = Desk::new();
    assert_eq!(desk.requiem(&["sandbox", "explain", "--markdown", "--out", "docs"]).code, 0);
    let committed = std::fs::read_to_string(repository("docs/reference/layers.md")).unwrap_or_default();
    assert!(desk.read("docs/layers.md") == committed, "run `cargo xtask generate` and commit the result");
    assert_eq!(desk.requiem(&["sandbox", "explain"]).stdout.lines().count(), 18);
}
