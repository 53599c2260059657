//! The configuration file, by the program itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// Starts `serve` with this file and nothing else; gives exit code and standard error.
fn serve(content: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), content).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_requiem-executor"));
    command.args(["serve", "--config", "a.toml"]).current_dir(folder.path());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_file_is_used_told_of_or_refused() {
    // All that is required stands in the file, and what is wrong there is told; it ends because there are no certificates.
    let files = "tlsCert = \"c\"\ntlsKey = \"k\"\nclientCa = \"a\"\nstore = \"s\"\nlisten = \"127.0.0.1:0\"\nadminListen = \"127.0.0.1:0\"\n";
    let (code, said) = serve(&format!("configVersion = 1\n{files}slot = 1\n"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a.toml:8: slot is no setting") && said.contains("did you mean slots?"), "{said}");
    assert!(said.contains("does not start"), "{said}");
    let (code, said) = serve(&format!("configVersion = 1\n{files}slots = \"1\"\n"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a.toml:8: slots is text, not a whole number [ConfigType]"), "{said}");
    assert!(!said.contains("does not start"), "it was started: {said}");
}
