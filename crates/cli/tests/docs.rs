//! The commands of docs/cli.md, docs/bench.md and docs/signers.md do what the pages say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/guide.rs"]
mod guide;

use common::{Desk, repository};
use guide::follow;
use guide::page::is_like;

#[test]
fn the_command_line() {
    let followed = follow(&Desk::new(), "docs/cli.md");
    assert!(followed.scripts >= 8 && followed.lines >= 30, "{followed:?}");
}

#[test]
fn benchmarks() {
    let desk = Desk::new();
    let followed = follow(&desk, "docs/bench.md");
    assert!(followed.scripts >= 3 && followed.lines >= 14, "{followed:?}");
}

#[test]
fn signers() {
    let desk = Desk::new();
    let text = std::fs::read(repository("crates/proof/tests/vectors/bundle.json")).unwrap();
    let vector: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let file = serde_json::json!({
        "body": vector["body"], "executionRoot": vector["executionRoot"], "bundleRoot": vector["bundleRoot"],
    });
    desk.write("proof.json", file.to_string());
    let followed = follow(&desk, "docs/signers.md");
    assert!(followed.scripts >= 4 && followed.lines >= 5, "{followed:?}");
}

#[test]
fn patterns_can_fail() {
    assert!(is_like("a  b c", "a…c") && is_like("abc", "abc") && is_like("abc  ", "abc"));
    assert!(!is_like("abcd", "abc") && !is_like("xabc", "abc") && !is_like("ab", "a…c"));
}

#[test]
fn every_attack_of_the_page_is_a_test() {
    let page = std::fs::read_to_string(repository("docs/format/attacks.md")).unwrap();
    let files = [
        "proof/tests/attacks.rs",
        "proof/tests/envelopes.rs",
        "proof/tests/tree.rs",
        "proof/tests/mutation.rs",
    ];
    let ours = ["sign", "evidence", "proof", "engines", "dual"].map(|name| format!("cli/tests/{name}.rs"));
    let files = files.map(str::to_owned).into_iter().chain(ours);
    let sources: String =
        files.map(|file| std::fs::read_to_string(repository(&format!("crates/{file}"))).unwrap()).collect();
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let tests = row.rsplit(" | ").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2).filter(|name| name.contains('_')) {
            assert!(sources.contains(&format!("fn {name}()")), "{name}");
            named += 1;
        }
    }
    assert!(named >= 45, "{named}");
}
