//! What the program says to people: the help of every command, and the errors that they meet first. Texts that change are seen in
//! review: `INSTA_UPDATE=always cargo test -p requiem-cli --test words` writes them anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{Desk, repository};
use insta::assert_snapshot;

/// Names below `Commands:` of a help.
fn commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The help of a command and of all below it, and how many there are.
fn helps(desk: &Desk, path: &[&str]) -> usize {
    let said = desk.requiem(&[path, &["--help"]].concat());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert_snapshot!([&["help"], path].concat().join("-"), said.stdout);
    let below = commands(&said.stdout);
    let counts = below.iter().map(|name| helps(desk, &[path, &[name.as_str()]].concat()));
    1 + counts.sum::<usize>()
}

#[test]
fn every_command_has_its_help() {
    let count = helps(&Desk::new(), &[]);
    let folder = repository("crates/cli/tests/snapshots");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let kept = names.filter(|name| name.to_string_lossy().starts_with("words__help")).count();
    assert_eq!(kept, count, "a help is kept of a command that is no more");
}

#[test]
fn errors_name_the_field_and_the_next_step() {
    let desk = Desk::new();
    desk.write("not.json", "{");
    desk.write("field.json", r#"{"command": "true", "colour": "red"}"#);
    desk.write("type.json", r#"{"command": "true", "timeout_ms": "5"}"#);
    desk.write("limit.json", r#"{"command": "true", "limits": {"memory_bytes": 1}}"#);
    desk.write("layer.json", r#"{"command": "true", "policy": {"layers": {"magic": "off"}}}"#);
    desk.write("input.json", r#"{"command": "true", "inputs": {"x": {"file": "absent"}}}"#);
    desk.write("other.json", r#"{"hello": 1}"#);
    desk.write("spec.json", r#"{"name": "sort", "request": {"command": "true"}, "repeat": 3}"#);
    desk.write("folder/file", "");
    let absent = format!("blake3:{}", "0".repeat(64));
    let mut text = String::new();
    for line in [
        "nonsense",
        "exec",
        "exec run",
        "exec run --request absent.json",
        "exec run --request not.json",
        "exec run --request field.json",
        "exec run --request type.json",
        "exec run --request limit.json",
        "exec run --request layer.json",
        "exec run --request input.json",
        "exec run --request field.json --out folder",
        "exec replay",
        "cas put absent",
        "cas get sha256:00",
        &format!("cas get {absent}"),
        "cas put other.json --tenant Not/A/Tenant",
        "digest file folder",
        &format!("digest verify folder/file {absent}"),
        "proof verify absent.json",
        "proof verify not.json",
        "proof verify other.json",
        "proof verify other.json --require certainty",
        "exec apply other.json --kubeconfig absent",
        "bench run",
        "bench run --spec absent.json",
        "bench run --spec spec.json",
        "bench compare other.json",
        "bench compare other.json other.json",
        "bench gate not.json other.json",
        "bench gate other.json other.json --threshold 10%",
    ] {
        let said = desk.requiem(&line.split(' ').collect::<Vec<_>>());
        assert_ne!(said.code, 0, "{line}: {said:?}");
        text += &format!("$ requiem {line}\n{}{}exit code {}\n\n", said.stdout, said.stderr, said.code);
    }
    assert_snapshot!("errors", text);
}
