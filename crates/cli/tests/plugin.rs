//! `kubectl-requiem` as far as it needs no cluster; the rest is in the suite `pods`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use common::Desk;
use serde_json::Value;

fn plugin(desk: &Desk, arguments: &[&str]) -> Output {
    let program = desk.path("kubectl-requiem");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_requiem"), &program).unwrap();
    }
    Command::new(program).args(arguments).current_dir(desk.path(".")).output().unwrap()
}

fn refused(desk: &Desk, arguments: &[&str]) -> (i32, String) {
    let output = plugin(desk, &[&["--json"], arguments].concat());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), document["error_code"].as_str().unwrap().to_owned())
}

#[test]
fn the_name_of_the_program_makes_the_plugin() {
    let desk = Desk::new();
    let help = plugin(&desk, &["--help"]);
    let said = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success() && said.contains("Usage: kubectl requiem "), "{said}");
    assert!(desk.requiem(&["--help"]).stdout.contains("Usage: requiem "));
    let wrong = plugin(&desk, &["nonsense"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn what_is_wrong_without_a_cluster_is_said_without_one() {
    let desk = Desk::new();
    desk.write("binary", b"\xff\xfe");
    let nowhere = ["--kubeconfig", "absent"];
    for (arguments, code) in [
        (&["run", "--env", "A", "--", "true"][..], "Usage"),
        (&["run", "--input", "a=absent", "--", "true"], "File"),
        (&["run", "--input", "a=binary", "--", "true"], "InvalidInput"),
        (&["run", "--output", "../up", "--", "true"], "Usage"),
        (&["run", "--pool", "a", "--image", "b", "--", "true"], "Usage"),
        (&["run", "--proof", "absent/file", "--", "true"], "File"),
        (&["run"], "Usage"),
        (&["get"], "NoCluster"),
        (&["logs", "a"], "NoCluster"),
        (&["outputs", "a"], "NoCluster"),
        (&["verify", "a"], "NoCluster"),
        (&["diff", "a", "b"], "NoCluster"),
        (&["cancel", "a"], "NoCluster"),
        (&["top"], "NoCluster"),
    ] {
        assert_eq!(refused(&desk, &[&nowhere, arguments].concat()), (2, code.to_owned()), "{arguments:?}");
    }
    let said = plugin(&desk, &["run", "--env", "TOKEN:hunter2", "--", "true"]);
    let complaint = String::from_utf8(said.stderr).unwrap();
    assert!(!complaint.contains("hunter2"), "{complaint}");
}
