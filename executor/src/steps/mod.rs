//! The five steps of an attempt, one file each: fetch → stage → run → collect → seal.
//!
//! What can be decided without the store, the kernel or a clock is a function without them, with its own tests.

pub(crate) mod collect;
pub(crate) mod fetch;
pub(crate) mod run;
pub(crate) mod seal;
pub(crate) mod stage;

use requiem_cas::StoreError;
use requiem_model::Failure;

/// `text` as one line of at most `max` bytes.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    while line.len() > max {
        line.pop();
    }
    line
}

/// The failure of an attempt for which the store did not do its part; `what` says which part.
pub(crate) fn store_failure(what: &str, error: &StoreError) -> Failure {
    Failure::new(error.failure_reason(), format!("{what}: {error}"), error.hint())
}
