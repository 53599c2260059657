//! Proofs of real runs in the sandbox of this machine.

use std::path::Path;
use std::process::{Command, Output};

use requiem_tests::{PROGRAMS, setting};
use serde_json::{Value, json};

use crate::python::{here, interpreter};

fn requiem(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(setting(PROGRAMS).unwrap().join("requiem"));
    command.args(arguments).current_dir(folder).env("XDG_DATA_HOME", folder);
    command.output().unwrap()
}

fn verify(folder: &Path, file: &str) -> (Option<i32>, Value) {
    let mut command = Command::new(interpreter());
    let output = command.arg(here().join("verify.py")).arg(folder.join(file)).output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), said)
}

#[test]
fn proofs_of_real_runs() {
    let folder = tempfile::tempdir().unwrap();
    let layers =
        json!({"layers": {"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"}});
    let scripts = [
        ("true", 0),
        ("echo out; echo err >&2; exit 3", 1),
        ("mkdir -p 'a b'; echo é > 'a b/é'; echo 1 > @stdout", 0),
        ("kill -9 $$", 1),
        ("head -c 100000 /dev/zero", 0),
        ("exit 0 # and an output that is missing", 1),
    ];
    for (index, (script, code)) in scripts.into_iter().enumerate() {
        let outputs = if index == 2 { json!(["a b", "@stdout"]) } else { json!([]) };
        let outputs = if index == 5 { json!(["gone"]) } else { outputs };
        let request = json!({
            "command": "/bin/sh", "argv": ["-c", script], "outputs": outputs, "policy": layers, "max_output_bytes": 1000,
            "env": {"B": "2", "A": "\u{1}\"\\"}, "inputs": {"in/x": {"text": "x"}}, "nonce": "n",
        });
        std::fs::write(folder.path().join("request.json"), request.to_string()).unwrap();
        let ran = requiem(
            folder.path(),
            &["exec", "run", "--request", "request.json", "--proof", "proof.json", "--json"],
        );
        assert_eq!(ran.status.code(), Some(code), "{script}: {ran:?}");
        let ours: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let (code, theirs) = verify(folder.path(), "proof.json");
        assert_eq!(code, Some(0), "{script}: {theirs}");
        for (mine, yours) in [
            ("execution_root", "executionRoot"),
            ("bundle_root", "bundleRoot"),
            ("request_digest", "requestDigest"),
            ("result_digest", "resultDigest"),
        ] {
            assert_eq!(ours[mine], theirs[yours], "{script}");
        }
        let text = std::fs::read_to_string(folder.path().join("proof.json")).unwrap();
        std::fs::write(folder.path().join("forged.json"), text.replacen("/bin/sh", "/bin/sx", 1)).unwrap();
        let (code, theirs) = verify(folder.path(), "forged.json");
        assert_eq!((code, &theirs["code"]), (Some(1), &json!("E_ROOT")), "{script}");
    }
}
