//! The parts of a status, from what the model says of them.

use requiem_model::confidence::Confidence;
use requiem_model::report::Status;
use requiem_model::result::{MissingOutput, Output, OutputContent, RunResult, Stream};
use requiem_model::{Failure, FailureReason, Layer, Outcome, SandboxReport};

use crate::status::{
    ConfidenceStatus, LayerNote, MissingOutputStatus, OutputStatus, ResultReason, SandboxStatus,
    StreamStatus, TAIL_BYTES, TerminationReason,
};

impl StreamStatus {
    /// A stream and the end of its text; of a longer `tail` the last [`TAIL_BYTES`] are kept.
    pub fn new(stream: &Stream, tail: &str) -> Self {
        let Stream { digest, bytes, truncated } = *stream;
        let start =
            (tail.len().saturating_sub(TAIL_BYTES)..=tail.len()).find(|at| tail.is_char_boundary(*at));
        let tail = tail[start.unwrap_or(tail.len())..].to_owned();
        Self { digest, bytes, truncated, tail }
    }
}

impl From<&Output> for OutputStatus {
    fn from(output: &Output) -> Self {
        let path = output.path.as_str().to_owned();
        match output.content {
            OutputContent::Blob { digest, bytes, executable } => {
                Self { path, blob: Some(digest), tree: None, bytes, executable, entries: None }
            }
            OutputContent::Tree { digest, bytes, entries } => Self {
                path,
                blob: None,
                tree: Some(digest),
                bytes,
                executable: false,
                entries: Some(entries),
            },
        }
    }
}

impl From<&MissingOutput> for MissingOutputStatus {
    fn from(missing: &MissingOutput) -> Self {
        Self { path: missing.path.as_str().to_owned(), why: clip(&missing.why, 1024) }
    }
}

impl From<&SandboxReport> for SandboxStatus {
    fn from(report: &SandboxReport) -> Self {
        let names = |status| report.names(status).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let asked_but_not_enforced = |status| !matches!(status, Status::Enforced | Status::Disabled);
        let notes =
            report.layers.iter().filter(|row| asked_but_not_enforced(row.status)).map(|row| LayerNote {
                layer: row.layer.name().to_owned(),
                detail: clip(row.detail.as_deref().unwrap_or(&row.mechanism), 256),
            });
        let enforced = names(Status::Enforced);
        Self {
            summary: format!("{}/{} enforced", enforced.len(), Layer::ALL.len()),
            enforced,
            partial: names(Status::Partial),
            unsupported: names(Status::Unsupported),
            delegated: names(Status::Delegated),
            disabled: names(Status::Disabled),
            notes: notes.take(Layer::ALL.len()).collect(),
        }
    }
}

impl From<&Confidence> for ConfidenceStatus {
    fn from(confidence: &Confidence) -> Self {
        let Confidence { formula, level, score, reasons } = confidence.clone();
        Self { level, score, reasons, formula }
    }
}

impl From<&RunResult> for ResultReason {
    fn from(result: &RunResult) -> Self {
        match result.outcome {
            Outcome::Exited { code: 0 } if !result.missing_outputs.is_empty() => Self::OutputMissing,
            Outcome::Exited { code: 0 } => Self::Succeeded,
            Outcome::Exited { .. } => Self::NonZeroExit,
            Outcome::Signalled { .. } => Self::Signalled,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl From<FailureReason> for ResultReason {
    fn from(reason: FailureReason) -> Self {
        match reason {
            FailureReason::InvalidRequest => Self::InvalidRequest,
            FailureReason::InputMissing => Self::InputMissing,
            FailureReason::InputCorrupt => Self::InputCorrupt,
            FailureReason::LayerUnavailable => Self::LayerUnavailable,
            FailureReason::CommandNotRunnable => Self::CommandNotRunnable,
            FailureReason::StoreFull => Self::StoreFull,
            FailureReason::StoreError => Self::StoreError,
            FailureReason::SandboxError => Self::SandboxError,
            FailureReason::Cancelled => Self::Cancelled,
            FailureReason::ExecutorLost => Self::ExecutorLost,
        }
    }
}

impl From<&Failure> for ResultReason {
    fn from(failure: &Failure) -> Self {
        failure.reason.into()
    }
}

impl From<Outcome> for TerminationReason {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Exited { .. } => Self::Exited,
            Outcome::Signalled { .. } => Self::Signalled,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// The first `limit` characters: bounds of a schema count characters.
fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some(_) => text.chars().take(limit - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}
