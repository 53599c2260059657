//! What an Execution's status says. Typed values, so that a writer cannot confuse one digest with another;
//! the rules on the status fence stale writers at the API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::KubeSchema;
use requiem_model::confidence::Level;
use requiem_model::result::RunResult;
use requiem_model::{
    BlobDigest, BundleRoot, ExecutionRoot, Outcome, RequestDigest, ResultDigest, TreeDigest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{all_valid, compactable, fenced, monotonic, refusing, valid};
use crate::schema;

/// Outputs and missing outputs that a status lists at most; the proof holds all of them.
pub const LISTED_OUTPUTS: usize = 32;
/// Bytes of a stream's end that a status shows at most.
pub const TAIL_BYTES: usize = 1024;

/// What happened. Written by the operator alone, in one patch, after it recomputed the proof.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = monotonic(&["observedGeneration", "attempts"]),
    validation = fenced(
        &[
            "terminal", "result", "attempts", "startTime", "completionTime", "durationMs", "duration", "exitCode",
            "signal", "terminationReason", "requestDigest", "resultDigest", "outputs", "determinismConfidence",
            "executionRoot", "proofRoot", "engine", "executor", "cache",
        ],
        &["proofBundleRef", "compacted"]
    ),
    // The one change that a finished status allows: compacted becomes true, and these lose what the proof holds anyway.
    validation = compactable(&[
        ("stdout", "has(self.stdout) && has(oldSelf.stdout) && !has(self.stdout.tail) && self.stdout.digest == \
                    oldSelf.stdout.digest && self.stdout.bytes == oldSelf.stdout.bytes && self.stdout.truncated == \
                    oldSelf.stdout.truncated"),
        ("stderr", "has(self.stderr) && has(oldSelf.stderr) && !has(self.stderr.tail) && self.stderr.digest == \
                    oldSelf.stderr.digest && self.stderr.bytes == oldSelf.stderr.bytes && self.stderr.truncated == \
                    oldSelf.stderr.truncated"),
        ("sandbox", "has(self.sandbox) && has(oldSelf.sandbox) && self.sandbox.summary == oldSelf.sandbox.summary && \
                     !has(self.sandbox.enforced) && !has(self.sandbox.partial) && !has(self.sandbox.unsupported) && \
                     !has(self.sandbox.delegated) && !has(self.sandbox.disabled) && !has(self.sandbox.notes)"),
        ("missingOutputs", "has(oldSelf.missingOutputs) && !has(self.missingOutputs) && has(self.unlistedOutputs) && \
                            self.unlistedOutputs == size(oldSelf.missingOutputs) + \
                            (has(oldSelf.unlistedOutputs) ? oldSelf.unlistedOutputs : 0)"),
        ("unlistedOutputs", "has(oldSelf.missingOutputs) && !has(self.missingOutputs)"),
    ]),
    validation = refusing(
        "!oldSelf.terminal || !has(oldSelf.conditions) || oldSelf.conditions.filter(c, c.type == 'Succeeded').all(o, \
         has(self.conditions) && self.conditions.exists(c, c.type == 'Succeeded' && c.status == o.status && c.reason == o.reason))",
        "'the Succeeded condition is immutable once terminal is true'"
    ),
    validation = all_valid(&[
        ("has(self.result) == self.terminal", "result and terminal are set together"),
        (
            "has(self.proofRoot) == has(self.executionRoot) && has(self.proofRoot) == has(self.resultDigest)",
            "proofRoot, executionRoot and resultDigest are set together"
        ),
        (
            "!has(self.result) || self.result != 'Succeeded' || (has(self.proofRoot) && has(self.exitCode) && self.exitCode == 0)",
            "a result of Succeeded needs exitCode 0 and a proofRoot"
        ),
        ("!has(self.exitCode) || !has(self.signal)", "exitCode and signal exclude one another"),
        ("!has(self.compacted) || (self.compacted && self.terminal)", "compacted is true, after the end, or absent"),
        (
            "!has(self.cache) || (self.cache.hit == has(self.cache.original) && self.terminal)",
            "cache is set together with terminal, and original together with a hit"
        ),
    ])
)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionStatus {
    /// The metadata.generation that this status speaks of; -1 before the operator has looked.
    #[serde(default = "unobserved")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,
    /// Ready, Succeeded, Reconciling, Stalled and Suspended, as far as they apply. Ready is True only when
    /// the command succeeded; Stalled is True when it finally failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How it ended, as one stable word; absent until it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultReason>,
    /// Whether it has ended. From then on the fields below never change.
    #[serde(default)]
    pub terminal: bool,
    /// How many times it was handed to an executor.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub attempts: u32,
    /// When the command started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,
    /// When its whole process tree was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,
    /// Milliseconds between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The same for people: 12ms, 3.4s, 2m5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub duration: Option<String>,
    /// Exit status of the command, if it exited by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Number of the signal that ended the command, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// What ended the command: Exited, Signalled, TimedOut or OutOfMemory. Absent if it never ran to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_reason: Option<TerminationReason>,
    /// Digest of what was asked for. Equal work has an equal digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub request_digest: Option<RequestDigest>,
    /// Digest of what came out, bound to the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub result_digest: Option<ResultDigest>,
    /// Standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StreamStatus>,
    /// Standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamStatus>,
    /// Outputs that were kept, at most 32 of them; the proof lists all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub outputs: Vec<OutputStatus>,
    /// Declared outputs that could not be kept, at most 32 of them; the proof lists all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub missing_outputs: Vec<MissingOutputStatus>,
    /// How many outputs and missing outputs are not listed here, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub unlisted_outputs: Option<u32>,
    /// Which isolation was really in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// How far a re-run can be trusted to give the same, computed from what was proven about this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determinism_confidence: Option<ConfidenceStatus>,
    /// Root over what every honest re-run must reproduce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub execution_root: Option<ExecutionRoot>,
    /// Root over all claims of this run, recomputed by the operator; the bundle root of its ProofBundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub proof_root: Option<BundleRoot>,
    /// The ProofBundle that holds the proof, if it was published. Where an earlier run answered, the bundle of that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_bundle_ref: Option<ProofBundleRef>,
    /// Whether an earlier run answered, and which; absent if that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheStatus>,
    /// Whether ttlAfterFinished has shortened this status: tails, missing outputs and the lists of the sandbox are
    /// gone for good, everything else is as it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compacted: bool,
    /// Engine that ran the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,
    /// Name of the executor that ran the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub executor: Option<String>,
}

/// How an Execution ended, as one stable word: the reason of its conditions, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ResultReason {
    /// The command exited with status 0 and every declared output was kept.
    Succeeded,
    /// The command exited with another status.
    NonZeroExit,
    /// A signal ended the command.
    Signalled,
    /// The wall-clock limit was reached.
    TimedOut,
    /// The memory limit was reached.
    OutOfMemory,
    /// The command succeeded, but a declared output was missing.
    OutputMissing,
    /// The spec breaks a rule that the API server cannot check.
    InvalidSpec,
    /// A policy does not admit it; nothing was started, or not again.
    PolicyViolation,
    /// The executor refused the request as malformed.
    InvalidRequest,
    /// A digest that the spec names is not in the executor's store.
    InputMissing,
    /// An object in the store does not have its digest.
    InputCorrupt,
    /// A required layer of the sandbox cannot be had on the executor's host.
    LayerUnavailable,
    /// The program was not found or is not executable.
    CommandNotRunnable,
    /// The store is full.
    StoreFull,
    /// The store failed otherwise.
    StoreError,
    /// The sandbox could not be set up.
    SandboxError,
    /// The user cancelled it.
    Cancelled,
    /// The executor was lost, and the retries with it.
    ExecutorLost,
    /// The executor's proof does not hold or is not about this Execution.
    ProofRejected,
}

/// What ended the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TerminationReason {
    /// It exited by itself.
    Exited,
    /// A signal.
    Signalled,
    /// The wall-clock limit.
    TimedOut,
    /// The memory limit.
    OutOfMemory,
}

/// One captured stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// Digest of what was kept.
    #[schemars(schema_with = "schema::digest")]
    pub digest: BlobDigest,
    /// Bytes that were kept.
    pub bytes: u64,
    /// Whether more was written than was kept.
    #[serde(default)]
    pub truncated: bool,
    /// The last kept bytes as text, at most 1 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub tail: String,
}

/// One output that was kept: blob for a file, tree for a folder.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = valid("has(self.blob) != has(self.tree)", "exactly one of blob and tree must be given"))]
#[serde(rename_all = "camelCase")]
pub struct OutputStatus {
    /// Path below the workspace.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Digest of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub blob: Option<BlobDigest>,
    /// Digest of the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub tree: Option<TreeDigest>,
    /// Size in bytes; of a folder, of all its files together.
    pub bytes: u64,
    /// Whether the file may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Files, links and folders within the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

/// One declared output that could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingOutputStatus {
    /// Path below the workspace.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Why there is nothing to keep.
    #[schemars(length(max = 1024))]
    pub why: String,
}

/// Which isolation was really in force, by layer. The proof holds mechanism and evidence of each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// In one line: 17/18 enforced.
    #[schemars(length(max = 64))]
    pub summary: String,
    /// Layers in force, proven from inside the finished sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::layer_names")]
    pub enforced: Vec<String>,
    /// Layers in force in part, or without proof.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::layer_names")]
    pub partial: Vec<String>,
    /// Layers that were asked for and that the executor's host does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::layer_names")]
    pub unsupported: Vec<String>,
    /// Layers that somebody outside the sandbox enforces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::layer_names")]
    pub delegated: Vec<String>,
    /// Layers that were not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::layer_names")]
    pub disabled: Vec<String>,
    /// Why a layer that was asked for is not enforced, one note per layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 18))]
    pub notes: Vec<LayerNote>,
}

/// Why a layer is not enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerNote {
    /// The layer.
    #[schemars(length(max = 64))]
    pub layer: String,
    /// What was seen.
    #[schemars(length(max = 256))]
    pub detail: String,
}

/// How far a re-run can be trusted to give the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfidenceStatus {
    /// high: every source of differences was controlled and proven; medium: the main ones were; best_effort:
    /// anything less.
    #[schemars(schema_with = "level")]
    pub level: Level,
    /// Points of 100.
    #[schemars(range(max = 100))]
    pub score: u8,
    /// What keeps the level from being higher.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::reason_codes")]
    pub reasons: Vec<String>,
    /// The published formula by which level and score were computed.
    #[schemars(length(max = 32))]
    pub formula: String,
}

/// The ProofBundle of an Execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProofBundleRef {
    /// Name of the ProofBundle in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// Whether an earlier run answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// True: nothing ran for this Execution, and what stands here is what `original` proved.
    pub hit: bool,
    /// The run that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<OriginalStatus>,
}

/// The run whose proof answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginalStatus {
    /// Name of the Execution that ran; it need not exist any more.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// UID of that Execution.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Name of its ProofBundle, in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub bundle: String,
}

/// The engine that ran a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// Name of the engine.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Its version.
    #[schemars(length(max = 64))]
    pub version: String,
}

// === impl ExecutionStatus ===

impl Default for ExecutionStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            conditions: Vec::new(),
            result: None,
            terminal: false,
            attempts: 0,
            start_time: None,
            completion_time: None,
            duration_ms: None,
            duration: None,
            exit_code: None,
            signal: None,
            termination_reason: None,
            request_digest: None,
            result_digest: None,
            stdout: None,
            stderr: None,
            outputs: Vec::new(),
            missing_outputs: Vec::new(),
            unlisted_outputs: None,
            sandbox: None,
            determinism_confidence: None,
            execution_root: None,
            proof_root: None,
            proof_bundle_ref: None,
            cache: None,
            compacted: false,
            engine: None,
            executor: None,
        }
    }
}

impl ExecutionStatus {
    /// Sets what a run's result says: exit, streams without their tails, outputs.
    pub fn set_result(&mut self, result: &RunResult) {
        self.termination_reason = Some(result.outcome.into());
        (self.exit_code, self.signal) = match result.outcome {
            Outcome::Exited { code } => (Some(code), None),
            Outcome::Signalled { signal } => (None, Some(signal)),
            Outcome::TimedOut | Outcome::OutOfMemory => (None, None),
        };
        self.stdout = Some(StreamStatus::new(&result.stdout, ""));
        self.stderr = Some(StreamStatus::new(&result.stderr, ""));
        self.outputs = result.outputs.iter().take(LISTED_OUTPUTS).map(Into::into).collect();
        self.missing_outputs = result.missing_outputs.iter().take(LISTED_OUTPUTS).map(Into::into).collect();
        let listed = self.outputs.len() + self.missing_outputs.len();
        let unlisted = (result.outputs.len() + result.missing_outputs.len()).saturating_sub(listed);
        self.unlisted_outputs = u32::try_from(unlisted).ok().filter(|count| *count > 0);
    }

    /// Drops what the proof holds anyway, once: the only change that the API server lets a finished status undergo.
    pub fn compact(&mut self) {
        for stream in self.stdout.iter_mut().chain(&mut self.stderr) {
            stream.tail.clear();
        }
        let dropped = u32::try_from(self.missing_outputs.len()).unwrap_or(0);
        self.missing_outputs.clear();
        self.unlisted_outputs =
            Some(self.unlisted_outputs.unwrap_or(0) + dropped).filter(|unlisted| *unlisted > 0);
        if let Some(sandbox) = &mut self.sandbox {
            *sandbox =
                SandboxStatus { summary: std::mem::take(&mut sandbox.summary), ..SandboxStatus::default() };
        }
        self.compacted = true;
    }

    /// Sets the duration in both its forms.
    pub fn set_duration(&mut self, milliseconds: u64) {
        self.duration_ms = Some(milliseconds);
        self.duration = Some(human_duration(milliseconds));
    }
}

const fn unobserved() -> i64 {
    -1
}

fn level(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let words = [Level::High, Level::Medium, Level::BestEffort].map(Level::as_str);
    schemars::json_schema!({ "type": "string", "enum": words })
}

/// A duration for people: `12ms`, `3.4s`, `2m5s`, `3h0m`.
pub fn human_duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds {
        0..1_000 => format!("{milliseconds}ms"),
        1_000..60_000 => format!("{seconds}.{}s", milliseconds % 1000 / 100),
        60_000..3_600_000 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

// === impl ResultReason ===

impl ResultReason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::Succeeded,
        Self::NonZeroExit,
        Self::Signalled,
        Self::TimedOut,
        Self::OutOfMemory,
        Self::OutputMissing,
        Self::InvalidSpec,
        Self::PolicyViolation,
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
        Self::ProofRejected,
    ];

    /// The word, as status, conditions, events and metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::NonZeroExit => "NonZeroExit",
            Self::Signalled => "Signalled",
            Self::TimedOut => "TimedOut",
            Self::OutOfMemory => "OutOfMemory",
            Self::OutputMissing => "OutputMissing",
            Self::InvalidSpec => "InvalidSpec",
            Self::PolicyViolation => "PolicyViolation",
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
            Self::ProofRejected => "ProofRejected",
        }
    }
}

impl std::fmt::Display for ResultReason {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use requiem_model::report::{Evidence, LayerReport, Proof, Status};
    use requiem_model::result::{MissingOutput, Output, OutputContent, Stream};
    use requiem_model::{Layer, RelPath, Requirement, SandboxReport};

    fn result(outcome: Outcome, kept: usize, missing: usize) -> RunResult {
        let stream = Stream { digest: BlobDigest::of(b""), bytes: 0, truncated: false };
        let path = |name: String| RelPath::parse(&name).unwrap();
        let content = OutputContent::Tree { digest: TreeDigest::from_bytes([1; 32]), bytes: 9, entries: 2 };
        RunResult {
            outcome,
            stdout: stream,
            stderr: stream,
            outputs: (0..kept).map(|n| Output { path: path(format!("o{n}")), content }).collect(),
            missing_outputs: (0..missing)
                .map(|n| MissingOutput { path: path(format!("m{n}")), why: "é".repeat(2000) })
                .collect(),
        }
    }

    fn status_of(outcome: Outcome, kept: usize, missing: usize) -> ExecutionStatus {
        let mut status = ExecutionStatus::default();
        status.set_result(&result(outcome, kept, missing));
        status
    }

    #[test]
    fn exit_and_signal_exclude_one_another() {
        let exited = status_of(Outcome::Exited { code: 3 }, 0, 0);
        assert_eq!((exited.exit_code, exited.signal), (Some(3), None));
        let killed = status_of(Outcome::Signalled { signal: 9 }, 0, 0);
        assert_eq!((killed.exit_code, killed.signal), (None, Some(9)));
        let late = status_of(Outcome::TimedOut, 0, 0);
        assert_eq!((late.exit_code, late.signal), (None, None));
        assert_eq!(late.termination_reason, Some(TerminationReason::TimedOut));
    }

    #[test]
    fn a_clipped_list_says_how_much_it_leaves_out() {
        let few = status_of(Outcome::Exited { code: 0 }, 2, 1);
        assert_eq!((few.outputs.len(), few.missing_outputs.len(), few.unlisted_outputs), (2, 1, None));
        assert_eq!((few.outputs[0].entries, few.outputs[0].blob), (Some(2), None));
        let many = status_of(Outcome::Exited { code: 0 }, 40, 33);
        assert_eq!((many.outputs.len(), many.missing_outputs.len()), (LISTED_OUTPUTS, LISTED_OUTPUTS));
        assert_eq!(many.unlisted_outputs, Some(9));
        assert_eq!(many.missing_outputs[0].why.chars().count(), 1024);
    }

    #[test]
    fn every_result_has_the_reason_of_the_model() {
        for (outcome, missing) in [
            (Outcome::Exited { code: 0 }, 0),
            (Outcome::Exited { code: 0 }, 1),
            (Outcome::Exited { code: 1 }, 1),
            (Outcome::Signalled { signal: 9 }, 0),
            (Outcome::TimedOut, 0),
            (Outcome::OutOfMemory, 0),
        ] {
            let result = result(outcome, 0, missing);
            assert_eq!(ResultReason::from(&result).as_str(), result.reason());
        }
    }

    #[test]
    fn a_tail_is_the_end_of_the_text_and_ends_between_characters() {
        let stream = Stream { digest: BlobDigest::of(b""), bytes: 0, truncated: true };
        let text = format!("start{}", "é".repeat(TAIL_BYTES));
        let tail = StreamStatus::new(&stream, &text).tail;
        assert_eq!(tail, "é".repeat(TAIL_BYTES / 2));
        assert_eq!(StreamStatus::new(&stream, &format!("{text}x")).tail.len(), TAIL_BYTES - 1);
        assert_eq!(StreamStatus::new(&stream, "short").tail, "short");
    }

    #[test]
    fn the_sandbox_says_why_a_layer_is_not_enforced() {
        let required = Requirement::Required;
        let lacking = LayerReport::short_of(
            Layer::Cgroup,
            Requirement::Preferred,
            Status::Unsupported,
            "none",
            Evidence::None,
            "read-only",
        );
        let off = LayerReport::short_of(
            Layer::Landlock,
            Requirement::Off,
            Status::Disabled,
            "none",
            Evidence::None,
            "not asked for",
        );
        let kept = LayerReport::enforced(Layer::Seccomp, required, "seccomp", Proof::Probe);
        let report = SandboxReport { layers: vec![lacking, off, kept], sources: vec![] };
        let status = SandboxStatus::from(&report);
        assert_eq!(status.summary, "1/18 enforced");
        assert_eq!((status.enforced, status.unsupported), (vec!["seccomp".into()], vec!["cgroup".into()]));
        assert_eq!(status.disabled, ["landlock"]);
        assert_eq!(status.notes, [LayerNote { layer: "cgroup".into(), detail: "read-only".into() }]);
    }

    #[test]
    fn durations_read_well() {
        for (milliseconds, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (3_450, "3.4s"),
            (125_000, "2m5s"),
            (3_600_000, "1h0m"),
            (7_380_000, "2h3m"),
        ] {
            assert_eq!(human_duration(milliseconds), text);
        }
    }
}
