//! The commands of docs/engines.md and docs/dual-run.md do what the pages say. Not beside docs/bench.md, which measures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/page.rs"]
#[allow(dead_code, reason = "patterns are tested where docs.rs is")]
mod page;

use std::path::Path;

use common::{Desk, repository};
use page::{Followed, Place};

fn follow(page: &str) -> Followed {
    let desk = Desk::new();
    let program = Path::new(env!("CARGO_BIN_EXE_requiem")).parent().unwrap().to_owned();
    let engines = repository("config/engines").canonicalize().unwrap();
    let place = Place {
        folder: desk.path("."),
        programs: vec![program],
        variables: vec![("XDG_DATA_HOME", desk.path("data")), ("ENGINES", engines)],
    };
    place.follow(&repository(page))
}

#[test]
fn engines() {
    let followed = follow("docs/engines.md");
    assert!(followed.scripts >= 5 && followed.lines >= 14, "{followed:?}");
}

#[test]
fn a_cut_over() {
    let followed = follow("docs/dual-run.md");
    assert!(followed.scripts >= 4 && followed.lines >= 12, "{followed:?}");
}
