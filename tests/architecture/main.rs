//! The house rules that no compiler checks: edges between rooms, the place of `unsafe`, file sizes, stale generated files.
//!
//! Each rule is a pure function from what it looks at to a list of violations, so that a test can also show it a violation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Room → rooms that it may depend on, in every kind of dependency.
const EDGES: [(&str, &[&str]); 12] = [
    ("requiem-model", &[]),
    ("requiem-cas", &["requiem-model"]),
    ("requiem-sandbox", &["requiem-model"]),
    ("requiem-proof", &["requiem-model"]),
    ("requiem-config", &[]),
    ("requiem-crds", &["requiem-model"]),
    ("requiem-operator", &["requiem-model", "requiem-config", "requiem-crds", "requiem-proof"]),
    (
        "requiem-executor",
        &["requiem-model", "requiem-config", "requiem-cas", "requiem-sandbox", "requiem-proof"],
    ),
    (
        "requiem-cli",
        &[
            "requiem-model",
            "requiem-cas",
            "requiem-sandbox",
            "requiem-proof",
            "requiem-config",
            "requiem-crds",
            "requiem-executor",
        ],
    ),
    ("requiem-xtask", &[]),
    ("requiem-tests", ALL),
    ("requiem-benches", ALL),
];

const ALL: &[&str] = &[
    "requiem-model",
    "requiem-cas",
    "requiem-sandbox",
    "requiem-proof",
    "requiem-config",
    "requiem-crds",
    "requiem-operator",
    "requiem-executor",
    "requiem-cli",
    "requiem-xtask",
    "requiem-benches",
];

/// Libraries that a room must never see: (room, dependency, why).
const BANS: [(&str, &str, &str); 8] = [
    ("requiem-model", "kube", "the nouns know nothing of Kubernetes"),
    ("requiem-model", "tokio", "the nouns are pure"),
    ("requiem-model", "libc", "the nouns are pure"),
    ("requiem-proof", "libc", "proofs verify on any OS"),
    ("requiem-cas", "kube", "the store knows nothing of Kubernetes"),
    ("requiem-sandbox", "kube", "the sandbox knows nothing of Kubernetes"),
    ("requiem-executor", "kube", "an executor holds no Kubernetes client"),
    ("requiem-operator", "nix", "the operator starts no process"),
];

/// The only folder with `unsafe`.
const UNSAFE_FOLDER: &str = "crates/sandbox/src/sys/";
/// Longest file, its tests not counted.
const MAX_LINES: usize = 600;
/// Longest file that is nothing but tests.
const MAX_TEST_LINES: usize = 800;

#[test]
fn rooms_depend_only_on_what_the_house_allows() {
    assert_eq!(forbidden_edges(&metadata()), Vec::<String>::new());
}

#[test]
fn unsafe_stays_in_its_folder() {
    assert_eq!(misplaced_unsafe(&sources()), Vec::<String>::new());
}

#[test]
fn every_room_inherits_the_lints_or_forbids_as_much() {
    let own: Vec<String> = members()
        .into_iter()
        .filter(|folder| !read(&folder.join("Cargo.toml")).contains("[lints]\nworkspace = true"))
        .map(|folder| folder.display().to_string())
        .filter(|folder| !folder.ends_with("crates/sandbox"))
        .collect();
    assert_eq!(own, Vec::<String>::new());
}

#[test]
fn files_stay_readable() {
    assert_eq!(long_files(&sources()), Vec::<String>::new());
}

#[test]
fn generated_files_are_up_to_date() {
    let stale: Vec<String> = requiem_crds::generate::files()
        .unwrap()
        .into_iter()
        .filter(|file| fs::read_to_string(root().join(&file.path)).ok().as_ref() != Some(&file.content))
        .map(|file| file.path)
        .collect();
    assert_eq!(stale, Vec::<String>::new(), "run `cargo xtask generate` and commit the result");
    let metrics = fs::read_to_string(root().join(requiem_tests::figures::PAGE)).unwrap_or_default();
    assert!(metrics == requiem_tests::figures::page().unwrap(), "metrics: run `cargo xtask generate`");
}

// === the rules can fail ===

#[test]
fn a_forbidden_edge_is_found() {
    let package = |name: &str, needs: &[&str]| {
        let needs: Vec<Value> = needs.iter().map(|need| serde_json::json!({ "name": need })).collect();
        serde_json::json!({ "name": name, "dependencies": needs })
    };
    let check = |packages: &[Value]| forbidden_edges(&serde_json::json!({ "packages": packages })).len();
    assert_eq!(check(&[package("requiem-operator", &["requiem-cas"])]), 1);
    assert_eq!(check(&[package("requiem-executor", &["kube"])]), 1);
    assert_eq!(check(&[package("requiem-new-room", &[])]), 1);
    assert_eq!(check(&[package("requiem-operator", &["requiem-proof", "kube"])]), 0);
}

#[test]
fn misplaced_unsafe_and_long_files_are_found() {
    let file = |path: &str, text: &str| BTreeMap::from([(path.to_owned(), text.to_owned())]);
    let unsafe_code = "fn f() { unsafe { g() } } // fine\n";
    assert_eq!(misplaced_unsafe(&file("crates/cas/src/lib.rs", unsafe_code)).len(), 1);
    assert_eq!(misplaced_unsafe(&file("crates/sandbox/src/lib.rs", unsafe_code)).len(), 1);
    assert!(misplaced_unsafe(&file("crates/sandbox/src/sys/mod.rs", unsafe_code)).is_empty());
    assert!(
        misplaced_unsafe(&file("crates/cas/src/lib.rs", "// no unsafe here\n#![deny(unsafe_code)]\n"))
            .is_empty()
    );
    let long = "fn f() {}\n".repeat(MAX_LINES + 1);
    assert_eq!(long_files(&file("executor/src/a.rs", &long)).len(), 1);
    assert!(long_files(&file("executor/tests/a.rs", &long)).is_empty());
    assert_eq!(long_files(&file("executor/tests/a.rs", &long.repeat(2))).len(), 1);
    let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert!(long_files(&file("executor/src/a.rs", &tested)).is_empty());
}

// === rules ===

fn forbidden_edges(metadata: &Value) -> Vec<String> {
    let allowed = BTreeMap::from(EDGES);
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(rooms) = allowed.get(name) else {
            found.push(format!("{name} is not in the table of rooms"));
            continue;
        };
        let needs: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|need| need["name"].as_str())
            .collect();
        let ours = needs.iter().filter(|need| need.starts_with("requiem-") && !rooms.contains(need));
        found.extend(ours.map(|need| format!("{name} must not depend on {need}")));
        let bans = BANS.iter().filter(|(room, library, _)| *room == name && needs.contains(library));
        found.extend(bans.map(|(_, library, why)| format!("{name} must not depend on {library}: {why}")));
    }
    found
}

fn misplaced_unsafe(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| !path.starts_with(UNSAFE_FOLDER)) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            // The word as Rust writes it: a block, a function, an impl, an extern block, an attribute.
            let opens = words.any(|word| word == "unsafe")
                && ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe("]
                    .iter()
                    .any(|use_| code.contains(use_));
            if opens {
                found.push(format!("{path}:{}", number + 1));
            }
        }
    }
    // This file has to write the word to look for it.
    found.retain(|place| !place.starts_with("tests/architecture/"));
    found
}

fn long_files(sources: &BTreeMap<String, String>) -> Vec<String> {
    let length =
        |text: &str| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count();
    let limit = |path: &str| {
        let only_tests =
            path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("_tests.rs");
        if only_tests { MAX_TEST_LINES } else { MAX_LINES }
    };
    let long =
        sources.iter().map(|(path, text)| (path, length(text))).filter(|(path, lines)| *lines > limit(path));
    long.map(|(path, lines)| format!("{path}: {lines} lines")).collect()
}

// === what they look at ===

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn members() -> Vec<PathBuf> {
    let manifest = |package: &Value| PathBuf::from(package["manifest_path"].as_str().unwrap());
    let packages = metadata();
    packages["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| manifest(each).parent().unwrap().to_path_buf())
        .collect()
}

/// Every Rust file of every room, by its path below the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = members();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.insert(name, read(&path));
            }
        }
    }
    assert!(found.len() > 50, "the rooms were not found: {} files", found.len());
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
