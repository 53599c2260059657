//! Every command of docs/cli.md is run, in order, in one folder. A `sh` block is a script that must succeed; the
//! `text` block after it shows lines that its output must have, `…` standing for anything.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Desk, repository};

/// One fenced block.
struct Block {
    language: String,
    content: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push(Block { language: language.to_owned(), content: content.join("\n") });
        }
    }
    found
}

fn is_like(line: &str, pattern: &str) -> bool {
    let mut rest = line.trim_end();
    for (index, part) in pattern.trim_end().split('…').enumerate() {
        match rest.find(part) {
            Some(at) if index > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    pattern.trim_end().ends_with('…') || rest.is_empty()
}

/// Runs one script where the program is found by its name.
fn run(desk: &Desk, script: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_requiem")).parent().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", script]).current_dir(desk.path("."));
    shell.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()));
    let output = shell.env("XDG_DATA_HOME", desk.path("data")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}\n{complaint}");
    said
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let page = std::fs::read_to_string(repository("docs/cli.md")).unwrap();
    let desk = Desk::new();
    let mut said = String::new();
    let (mut scripts, mut checked) = (0, 0);
    for block in blocks(&page) {
        match block.language.as_str() {
            "sh" => {
                said = run(&desk, &block.content);
                scripts += 1;
            }
            "text" => {
                let patterns = block.content.lines().filter(|line| !matches!(line.trim(), "" | "…"));
                for pattern in patterns {
                    let shown = said.lines().any(|line| is_like(line, pattern));
                    assert!(shown, "no line like {pattern:?} in\n{said}");
                    checked += 1;
                }
            }
            _ => {}
        }
    }
    assert!(scripts >= 5 && checked >= 10, "{scripts} scripts, {checked} lines");
}

#[test]
fn patterns_can_fail() {
    assert!(is_like("a  b c", "a…c") && is_like("abc", "abc") && is_like("abc  ", "abc"));
    assert!(!is_like("abcd", "abc") && !is_like("xabc", "abc") && !is_like("ab", "a…c"));
}
