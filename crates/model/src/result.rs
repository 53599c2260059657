//! What came out: outcome, streams, outputs, usage, and the failures that leave no result.

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, RequestDigest, ResultDigest, TreeDigest, context, derive};
use crate::names::RelPath;
use crate::policy::Layer;
use crate::{CanonError, canon};

/// How the payload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Outcome {
    /// It exited by itself.
    Exited {
        /// Exit status, 0 to 255.
        code: u8,
    },
    /// A signal ended it.
    Signalled {
        /// Signal number.
        signal: u8,
    },
    /// The wall-clock limit was reached.
    TimedOut,
    /// The memory limit of the tree was reached and the kernel killed it.
    OutOfMemory,
}

impl Outcome {
    /// Whether the payload ended by itself with status 0.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }

    /// Stable reason code, as conditions use it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Exited { code: 0 } => "Succeeded",
            Self::Exited { .. } => "NonZeroExit",
            Self::Signalled { .. } => "Signalled",
            Self::TimedOut => "TimedOut",
            Self::OutOfMemory => "OutOfMemory",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { code } => write!(out, "exit code {code}"),
            Self::Signalled { signal } => write!(out, "ended by signal {signal}"),
            Self::TimedOut => out.write_str("killed at the time limit"),
            Self::OutOfMemory => out.write_str("killed at the memory limit"),
        }
    }
}

/// One captured stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stream {
    /// Content that was kept.
    pub digest: BlobDigest,
    /// Bytes that were kept.
    pub bytes: u64,
    /// Whether more was written than was kept.
    pub truncated: bool,
}

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum OutputContent {
    /// One file.
    Blob {
        /// Its content.
        digest: BlobDigest,
        /// Its size.
        bytes: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory tree.
    Tree {
        /// Its root manifest.
        digest: TreeDigest,
        /// Bytes of all files together.
        bytes: u64,
        /// Number of files, links and folders in it.
        entries: u64,
    },
}

/// One declared output that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    /// Path below the workspace.
    pub path: RelPath,
    /// Content.
    pub content: OutputContent,
}

/// What was found besides: entries that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MissingOutput {
    /// Declared path.
    pub path: RelPath,
    /// Why there is nothing to keep: absent, a device, a socket, too many entries.
    pub why: String,
}

/// What every honest re-run must reproduce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunResult {
    /// How the payload ended.
    pub outcome: Outcome,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// Outputs, sorted by path.
    pub outputs: Vec<Output>,
    /// Declared outputs that could not be kept, sorted by path.
    pub missing_outputs: Vec<MissingOutput>,
}

impl RunResult {
    /// Digest of the canonical form, bound to the request.
    ///
    /// # Errors
    /// A value outside canonical JSON's bounds.
    pub fn digest(&self, request: &RequestDigest) -> Result<ResultDigest, CanonError> {
        Ok(ResultDigest::from_bytes(derive(context::RESULT, &[request.as_bytes(), &canon::to_vec(self)?])))
    }

    /// Whether the payload succeeded and every declared output is there.
    pub const fn is_success(&self) -> bool {
        self.outcome.is_success() && self.missing_outputs.is_empty()
    }

    /// Stable reason code of the whole result.
    pub const fn reason(&self) -> &'static str {
        if self.outcome.is_success() && !self.missing_outputs.is_empty() {
            "OutputMissing"
        } else {
            self.outcome.reason()
        }
    }
}

/// What the run used. Claims of this run, in no reproducible digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Usage {
    /// Wall-clock time between exec and the end of the tree, in microseconds.
    pub wall_us: u64,
    /// Processor time in user mode, in microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, in microseconds.
    pub system_us: u64,
    /// Highest memory use, in bytes: of the tree by cgroup, else of its largest process.
    pub peak_memory_bytes: u64,
}

/// Why an attempt ended without a result. The payload either never started or its result could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}: {message}")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// Stable reason.
    pub reason: FailureReason,
    /// What happened, with the values concerned; at most 1 KiB.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Stable reasons of failures without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureReason {
    /// The request breaks a rule that only the executor can check.
    InvalidRequest,
    /// A digest that the request names is not in the store.
    InputMissing,
    /// An object in the store does not have its digest.
    InputCorrupt,
    /// A required layer cannot be had on this host.
    LayerUnavailable,
    /// The program could not be started: not found, not executable.
    CommandNotRunnable,
    /// The store is full.
    StoreFull,
    /// The store failed otherwise.
    StoreError,
    /// The sandbox could not be set up for a reason that is not a missing layer.
    SandboxError,
    /// The user cancelled the run.
    Cancelled,
    /// The executor ended while the run was going on.
    ExecutorLost,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::InvalidRequest,
        Self::InputMissing,
        Self::InputCorrupt,
        Self::LayerUnavailable,
        Self::CommandNotRunnable,
        Self::StoreFull,
        Self::StoreError,
        Self::SandboxError,
        Self::Cancelled,
        Self::ExecutorLost,
    ];

    /// The reason as conditions, events and metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "InvalidRequest",
            Self::InputMissing => "InputMissing",
            Self::InputCorrupt => "InputCorrupt",
            Self::LayerUnavailable => "LayerUnavailable",
            Self::CommandNotRunnable => "CommandNotRunnable",
            Self::StoreFull => "StoreFull",
            Self::StoreError => "StoreError",
            Self::SandboxError => "SandboxError",
            Self::Cancelled => "Cancelled",
            Self::ExecutorLost => "ExecutorLost",
        }
    }

    /// Whether another attempt may end differently without anybody changing the Execution.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::ExecutorLost | Self::StoreFull | Self::StoreError | Self::SandboxError)
    }
}

impl std::fmt::Display for FailureReason {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Failure {
    /// A failure with message and hint.
    pub fn new(reason: FailureReason, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason, message: clip(message.into()), hint: clip(hint.into()) }
    }

    /// The refusal of a run whose required layer is missing.
    pub fn layer_unavailable(layer: Layer, why: &str) -> Self {
        Self::new(
            FailureReason::LayerUnavailable,
            format!("required layer {layer} cannot be enforced here: {why}"),
            format!("run it on an executor that has {layer}, or set policy.layers.{layer} to preferred"),
        )
    }
}

fn clip(text: String) -> String {
    match text.char_indices().nth(1000) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_output_is_not_a_success() {
        let stream = Stream { digest: BlobDigest::of(b""), bytes: 0, truncated: false };
        let mut result = RunResult {
            outcome: Outcome::Exited { code: 0 },
            stdout: stream,
            stderr: stream,
            outputs: vec![],
            missing_outputs: vec![],
        };
        assert!(result.is_success());
        let path = RelPath::parse("out").unwrap();
        result.missing_outputs.push(MissingOutput { path, why: "absent".into() });
        assert!(!result.is_success());
        assert_eq!(result.reason(), "OutputMissing");
    }

    #[test]
    fn long_messages_are_clipped_at_a_character() {
        let failure = Failure::new(FailureReason::StoreError, "é".repeat(5000), "");
        assert!(failure.message.chars().count() <= 1001);
    }
}
