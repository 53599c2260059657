//! `requiem digest`: the digest of published test vectors and of the store, and a verdict in the exit code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::Desk;

/// BLAKE3 of nothing, from its published test vectors.
const NOTHING: &str = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
/// BLAKE3 of the bytes 0, 1 … 250 repeated to 102400 bytes, from the same vectors.
const LONG: &str = "blake3:bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085";

fn long() -> Vec<u8> {
    (0_u8..251).cycle().take(102_400).collect()
}

#[test]
fn a_digest_is_that_of_the_published_vectors_and_of_the_store() {
    let desk = Desk::new();
    desk.write("empty", "");
    desk.write("long", long());
    assert_eq!(desk.requiem(&["digest", "file", "empty"]).stdout.trim(), NOTHING);
    assert_eq!(desk.requiem(&["digest", "file", "long"]).stdout.trim(), LONG);
    assert_eq!(desk.requiem_with(&["digest", "file", "-"], &long()).stdout.trim(), LONG);
    let json = desk.requiem(&["digest", "file", "long", "--json"]).json();
    assert_eq!((&json["ok"], &json["digest"], &json["bytes"]), (&true.into(), &LONG.into(), &102_400.into()));
    // Digesting needs no store and makes none.
    assert!(!desk.path("data").exists());
    assert_eq!(desk.requiem(&["cas", "put", "long"]).stdout.trim(), LONG);
}

#[test]
fn another_digest_is_a_finding() {
    let desk = Desk::new();
    desk.write("long", long());
    assert_eq!(desk.requiem(&["digest", "verify", "long", LONG]).code, 0);
    let said = desk.requiem(&["digest", "verify", "long", NOTHING, "--json"]);
    let json = said.json();
    assert_eq!((said.code, &json["ok"]), (1, &false.into()), "{said:?}");
    assert_eq!((&json["digest"], &json["expected"]), (&LONG.into(), &NOTHING.into()));
}

#[test]
fn what_cannot_be_judged_is_no_finding() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("folder")).unwrap();
    for arguments in [["absent", NOTHING], ["folder", NOTHING], ["folder", "blake3:AF"]] {
        let said = desk.requiem(&["digest", "verify", arguments[0], arguments[1]]);
        assert!(said.code == 2 && !said.stderr.is_empty(), "{said:?}");
    }
}
