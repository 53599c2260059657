//! Two runs of one request beside one another: where they differ, item by item.

use requiem_model::RelPath;
use requiem_model::result::{MissingOutput, Output};

use crate::body::ExecutionFacts;

/// One item in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Divergence {
    /// They are not runs of one request.
    Request,
    /// Another engine or version ran it.
    Engine,
    /// It ended otherwise.
    Exit,
    /// Other bytes on standard output.
    Stdout,
    /// Other bytes on standard error.
    Stderr,
    /// An output has other content, or is there in one of the two only.
    Output(RelPath),
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Request => out.write_str("request"),
            Self::Engine => out.write_str("engine"),
            Self::Exit => out.write_str("exit"),
            Self::Stdout => out.write_str("stdout"),
            Self::Stderr => out.write_str("stderr"),
            Self::Output(path) => write!(out, "output {path}"),
        }
    }
}

/// Every item in which the two differ, what they were asked first. Empty exactly if their execution roots are equal.
pub fn divergences(one: &ExecutionFacts, other: &ExecutionFacts) -> Vec<Divergence> {
    let rows = [
        (one.request != other.request, Divergence::Request),
        (one.engine != other.engine, Divergence::Engine),
        (one.result.outcome != other.result.outcome, Divergence::Exit),
        (one.result.stdout != other.result.stdout, Divergence::Stdout),
        (one.result.stderr != other.result.stderr, Divergence::Stderr),
    ];
    let mut found: Vec<Divergence> =
        rows.into_iter().filter(|(differs, _)| *differs).map(|(_, item)| item).collect();
    found.extend(outputs(one, other).into_iter().map(Divergence::Output));
    found
}

fn outputs(one: &ExecutionFacts, other: &ExecutionFacts) -> Vec<RelPath> {
    let mut paths: Vec<&RelPath> = one.request.outputs.iter().chain(&other.request.outputs).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().filter(|path| seen(one, path) != seen(other, path)).cloned().collect()
}

/// What a run says about a declared output.
fn seen<'a>(facts: &'a ExecutionFacts, path: &RelPath) -> (Option<&'a Output>, Option<&'a MissingOutput>) {
    let found = facts.result.outputs.iter().find(|output| output.path == *path);
    (found, facts.result.missing_outputs.iter().find(|output| output.path == *path))
}
