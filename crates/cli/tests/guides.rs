//! The commands of docs/engines.md and docs/dual-run.md do what the pages say. Not beside docs/bench.md, which measures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/guide.rs"]
mod guide;

use common::Desk;
use guide::follow;

#[test]
fn engines() {
    let followed = follow(&Desk::new(), "docs/engines.md");
    assert!(followed.scripts >= 5 && followed.lines >= 14, "{followed:?}");
}

#[test]
fn a_cut_over() {
    let followed = follow(&Desk::new(), "docs/dual-run.md");
    assert!(followed.scripts >= 8 && followed.lines >= 25, "{followed:?}");
}
