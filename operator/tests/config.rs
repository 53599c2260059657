//! The configuration file, by the program itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// Starts the operator with this file and nothing else; gives exit code and standard error.
fn start(content: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), content).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_requiem-operator"));
    command.args(["--config", "a.toml"]).current_dir(folder.path());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_file_is_used_told_of_or_refused() {
    // The kubeconfig that the file names is not there, so it ends; before, what is wrong with the file is told, in the file's form.
    let (code, said) = start("configVersion = 1\nkubeconfig = \"absent\"\nlogJson = true\ntls-key = \"k\"\n");
    assert_eq!(code, Some(2), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() >= 2 && lines.iter().all(|line| line.starts_with('{')), "{said}");
    assert!(
        said.contains("a.toml:4: tls-key is no setting") && said.contains("did you mean tlsKey?"),
        "{said}"
    );
    assert!(said.contains("cannot run") && said.contains("absent"), "{said}");
    let (code, said) = start("configVersion = 1\nkubeconfig = \"absent\"\nconcurrency = -1\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a.toml:3: concurrency is \"-1\"") && !said.contains("cannot run"), "{said}");
}
