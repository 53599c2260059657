//! Two runs beside one another, for people and as a document: what `exec replay` and `drift analyze` say.

use requiem_model::SandboxReport;
use requiem_model::result::OutputContent;
use requiem_proof::Verified;
use requiem_proof::compare::{Divergence, divergences};
use schemars::JsonSchema;
use serde::Serialize;

use crate::text::printable;

/// One item in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Difference {
    /// `request`, `engine`, `exit`, `stdout`, `stderr`, `output PATH`, `sandbox LAYER` or `source NAME`.
    pub(crate) item: String,
    /// What the first run has there.
    pub(crate) one: String,
    /// What the other has.
    pub(crate) other: String,
}

/// Everything that an honest re-run must reproduce and that differs. Empty exactly if the execution roots are equal.
pub(crate) fn of_execution(one: &Verified, other: &Verified) -> Vec<Difference> {
    let found = divergences(&one.body.execution, &other.body.execution);
    let difference = |item: &Divergence| Difference {
        item: item.to_string(),
        one: shown(item, one),
        other: shown(item, other),
    };
    found.iter().map(difference).collect()
}

/// Layers and sources of differences that were in another state.
pub(crate) fn of_sandbox(one: &SandboxReport, other: &SandboxReport) -> Vec<Difference> {
    let found = requiem_model::dual::of_sandbox(one, other).into_iter();
    found.map(|(item, one, other)| Difference { item, one, other }).collect()
}

/// What a run has at an item.
fn shown(item: &Divergence, of: &Verified) -> String {
    let (facts, result) = (&of.body.execution, &of.body.execution.result);
    match item {
        Divergence::Request => of.request_digest.to_string(),
        Divergence::Engine => printable(&format!("{} {}", facts.engine.name, facts.engine.version)),
        Divergence::Exit => result.outcome.to_string(),
        Divergence::Stdout => result.stdout.digest.to_string(),
        Divergence::Stderr => result.stderr.digest.to_string(),
        Divergence::Output(path) => {
            let found = result.outputs.iter().find(|output| output.path == *path);
            found.map_or("missing".to_owned(), |output| match &output.content {
                OutputContent::Blob { digest, .. } => digest.to_string(),
                OutputContent::Tree { digest, .. } => digest.to_string(),
            })
        }
    }
}
