//! `requiem cas`: what is put comes back the same, and nothing else does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::Desk;
use requiem_model::BlobDigest;

#[test]
fn a_file_and_standard_input_have_the_digest_of_b3sum() {
    let desk = Desk::new();
    desk.write("hello.txt", "hello");
    let expected = format!("{}\n", BlobDigest::of(b"hello"));
    let said = desk.requiem(&["cas", "put", "hello.txt"]);
    assert_eq!((said.code, &said.stdout), (0, &expected), "{said:?}");
    assert_eq!(desk.requiem_with(&["cas", "put", "-"], b"hello").stdout, expected);
    let json = desk.requiem(&["cas", "put", "hello.txt", "--json"]).json();
    assert_eq!((json["kind"].as_str(), json["bytes"].as_u64()), (Some("blob"), Some(5)));
    assert_eq!(json["durability"], "strict");
    let got = desk.requiem(&["cas", "get", expected.trim()]);
    assert_eq!((got.code, got.stdout.as_str()), (0, "hello"));
}

#[test]
fn a_folder_comes_back_with_modes_and_links() {
    let desk = Desk::new();
    desk.write("in/sub/run.sh", "#!/bin/sh\n");
    desk.write("in/data", "1234");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(desk.path("in/sub/run.sh"), mode).unwrap();
    symlink("../nowhere", desk.path("in/link")).unwrap();
    let put = desk.requiem(&["cas", "put", "in", "--cas", "store"]);
    assert_eq!(put.code, 0, "{put:?}");
    let digest = put.stdout.trim();
    let got = desk.requiem(&["cas", "get", digest, "--tree", "--out", "out", "--cas", "store"]);
    assert_eq!(got.code, 0, "{got:?}");
    assert_eq!(desk.read("out/data"), "1234");
    let executable = |name| std::fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o111 != 0;
    assert!(executable("out/sub/run.sh") && !executable("out/data"));
    assert_eq!(std::fs::read_link(desk.path("out/link")).unwrap(), std::path::Path::new("../nowhere"));
    // Putting it again is the same tree: nothing was lost or added.
    assert_eq!(desk.requiem(&["cas", "put", "out", "--cas", "store"]).stdout.trim(), digest);
    // And it never writes over what is there.
    let again = desk.requiem(&["cas", "get", digest, "--tree", "--out", "out", "--cas", "store"]);
    assert_eq!(again.code, 2, "{again:?}");
}

#[test]
fn a_file_is_written_whole_and_never_over_another() {
    let desk = Desk::new();
    desk.write("a", "one");
    desk.write("there", "mine");
    let digest = desk.requiem(&["cas", "put", "a"]).stdout;
    let said = desk.requiem(&["cas", "get", digest.trim(), "--out", "there"]);
    assert_eq!((said.code, desk.read("there").as_str()), (2, "mine"), "{said:?}");
    assert_eq!(desk.requiem(&["cas", "get", digest.trim(), "--out", "new"]).code, 0);
    assert_eq!(desk.read("new"), "one");
    let entries = std::fs::read_dir(desk.path(".")).unwrap();
    let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn what_is_not_there_is_said_so() {
    let desk = Desk::new();
    let absent = BlobDigest::of(b"absent").to_string();
    let said = desk.requiem(&["cas", "get", &absent, "--json"]);
    assert_eq!((said.code, said.json()["error_code"].as_str()), (2, Some("NotFound")), "{said:?}");
    assert_eq!(desk.requiem(&["cas", "put", "nowhere"]).code, 2);
    let blob = desk.requiem_with(&["cas", "put", "-"], b"no manifest").stdout;
    let said = desk.requiem(&["cas", "get", blob.trim(), "--tree", "--out", "x"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(!desk.path("x").exists());
}

#[test]
fn tenants_do_not_see_one_another() {
    let desk = Desk::new();
    let digest = desk.requiem_with(&["cas", "put", "-", "--tenant", "team-a"], b"secret").stdout;
    assert_eq!(desk.requiem(&["cas", "get", digest.trim(), "--tenant", "team-a"]).stdout, "secret");
    assert_eq!(desk.requiem(&["cas", "get", digest.trim(), "--tenant", "team-b"]).code, 2);
    let said = desk.requiem(&["cas", "get", digest.trim(), "--tenant", "../team-a"]);
    assert!(said.code == 2 && said.stderr.contains("tenant"), "{said:?}");
}

#[test]
fn without_a_home_the_store_must_be_named() {
    let desk = Desk::new();
    let mut command = desk.command(&["cas", "put", "-"]);
    let output = command.env_remove("XDG_DATA_HOME").env_remove("HOME").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--cas DIR"));
}

#[test]
fn a_path_that_is_not_utf8_is_written_and_told() {
    let desk = Desk::new();
    let digest = desk.requiem_with(&["cas", "put", "-"], b"hello").stdout;
    let name = OsStr::from_bytes(b"caf\xe9\x1b");
    let get = |name: &OsStr, more: &[&str]| {
        desk.command(&["cas", "get", digest.trim()]).args(more).arg("--out").arg(name).output().unwrap()
    };
    let json = get(name, &["--json"]);
    assert_eq!(json.status.code(), Some(0), "{json:?}");
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["path"], "caf\u{fffd}\u{1b}");
    assert_eq!(std::fs::read(desk.path(".").join(name)).unwrap(), b"hello");
    // A terminal is told the name, not given its control characters.
    let text = get(OsStr::from_bytes(b"second\xe9\x1b"), &[]);
    assert!(text.status.success() && !text.stdout.contains(&0x1b), "{text:?}");
}
