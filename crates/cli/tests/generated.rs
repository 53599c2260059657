//! What is made from the command line's table: the reference page, manual pages, completions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::{Desk, repository};
use requiem_model::BlobDigest;

#[test]
fn the_reference_pages_are_up_to_date() {
    let desk = Desk::new();
    let said = desk.requiem(&["man", "--markdown", "--out", "docs"]);
    assert_eq!(said.code, 0, "{said:?}");
    let pages = ["cli.md", "kubectl.md"].map(|page| {
        let committed =
            std::fs::read_to_string(repository(&format!("docs/reference/{page}"))).unwrap_or_default();
        assert!(
            desk.read(&format!("docs/{page}")) == committed,
            "run `cargo xtask generate` and commit the result"
        );
        committed
    });
    assert_eq!(desk.requiem(&["man", "--markdown"]).stdout, pages.concat());
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let desk = Desk::new();
    let said = desk.requiem(&["metrics", "--markdown", "--out", "docs"]);
    assert_eq!(said.code, 0, "{said:?}");
    let committed = std::fs::read_to_string(repository("docs/reference/cli-metrics.md")).unwrap_or_default();
    assert!(
        desk.read("docs/cli-metrics.md") == committed,
        "run `cargo xtask generate` and commit the result"
    );
}

#[test]
fn every_command_has_a_manual_page_and_no_page_names_another() {
    let desk = Desk::new();
    let written = desk.requiem(&["man", "--out", "pages", "--json"]).json();
    let files: BTreeSet<&str> =
        written["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(files.contains("requiem.1") && files.contains("requiem-exec-run.1"), "{files:?}");
    assert!(!files.iter().any(|name| name.contains("runner") || name.contains("help")), "{files:?}");
    for file in &files {
        let page = desk.read(&format!("pages/{file}"));
        assert!(page.contains(".TH requiem") && page.contains(".SH DESCRIPTION"), "{file}");
        for line in page.lines().filter(|line| line.starts_with("requiem\\-") && line.ends_with("(1)")) {
            let named = line.replace('\\', "").replace("(1)", ".1");
            assert!(files.contains(named.as_str()), "{file} names {named}");
        }
    }
    let one = desk.requiem(&["man", "exec", "run"]);
    assert_eq!(one.stdout.trim_end(), desk.read("pages/requiem-exec-run.1").trim_end());
    let said = desk.requiem(&["man", "exec", "walk"]);
    assert!(said.code == 2 && said.stderr.contains("its commands are: run, "), "{said:?}");
    assert_eq!(desk.requiem(&["man", "runner"]).code, 2, "it is nobody's to call");
}

#[test]
fn bash_completes_commands_options_and_choices() {
    let desk = Desk::new();
    desk.write("requiem.bash", desk.requiem(&["completions", "bash"]).stdout);
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let script = format!(
            "set -eu; . ./requiem.bash; COMP_WORDS=({line}); [[ '{line}' == *' ' ]] && COMP_WORDS+=(''); \
             COMP_CWORD={}; _requiem requiem '{}' '{}' || true; echo \"${{COMPREPLY[*]-}}\"",
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(desk.path(".")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("requiem ex"), "exec");
    assert_eq!(complete("requiem exec re"), "replay");
    assert_eq!(complete("requiem exec run --req"), "--request");
    assert_eq!(complete("requiem completions z"), "zsh");
    assert_eq!(complete("requiem runn"), "", "it is nobody's to call");
}

#[test]
fn zsh_and_fish_know_every_command() {
    let desk = Desk::new();
    for (shell, start) in [("zsh", "#compdef requiem"), ("fish", "# Print an optspec")] {
        let script = desk.requiem(&["completions", shell]).stdout;
        assert!(script.starts_with(start), "{shell}: {}", &script[..60]);
        for word in
            ["exec", "replay", "cas", "digest", "proof", "generate", "health", "completions", "version"]
        {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(desk.requiem(&["completions", "tcsh"]).code, 2);
}

#[test]
fn the_version_is_told_with_the_digest_that_bundles_name() {
    let desk = Desk::new();
    let version = desk.requiem(&["version", "--json"]).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let program = std::fs::read(env!("CARGO_BIN_EXE_requiem")).unwrap();
    assert_eq!(version["build"]["binary"], BlobDigest::of(&program).to_string());
    let layers =
        serde_json::json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    desk.write("r.json", serde_json::json!({"command": "true", "policy": {"layers": layers}}).to_string());
    assert_eq!(desk.requiem(&["exec", "run", "--request", "r.json", "--proof", "p.json"]).code, 0);
    let body = &desk.requiem(&["proof", "show", "p.json", "--json"]).json()["body"];
    assert_eq!(body["run"]["executor"]["binary"], version["build"]["binary"]);
    assert_eq!(body["schema"], version["documents"]["bundle"]);
    let format = std::fs::read_to_string(desk.path("data/requiem/cas/format")).unwrap();
    assert_eq!(format.trim(), version["documents"]["store"].as_str().unwrap());
}
