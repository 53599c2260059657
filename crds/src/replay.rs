//! Replays: what an Execution asks for, and what its ProofBundle keeps of them.

use kube::KubeSchema;
use requiem_model::{BundleRoot, ExecutionRoot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{immutable, monotonic, refusing};
use crate::schema;

/// Replays that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySpec {
    /// How many further runs of the request are compared with the first, 1 to 8.
    #[schemars(range(min = 1, max = 8))]
    pub count: u32,
    /// Whether each run, the first one included, takes place on another node. Of executors at fixed addresses the operator
    /// does not know the node: each counts as one of its own.
    #[serde(default)]
    pub distinct_nodes: bool,
}

/// Later runs of the same request, and what they say. A divergence is never outweighed.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = immutable(&["wanted", "distinctNodes"], &["executor", "node"]),
    validation = monotonic(&["replayed", "agreed"]),
    validation = refusing(
        "self.replayed - self.agreed >= oldSelf.replayed - oldSelf.agreed",
        "'a divergence is never taken back'"
    ),
    validation = refusing("oldSelf.phase != 'Done' || self == oldSelf", "'replays are immutable once phase is Done'")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplaysStatus {
    /// Whether they are under way (Running) or over (Done).
    pub phase: ReplayPhase,
    /// How many runs are to be compared with the first.
    #[schemars(range(max = 8))]
    pub wanted: u32,
    /// Whether each takes place on another node.
    #[serde(default)]
    pub distinct_nodes: bool,
    /// How many were compared.
    #[schemars(range(max = 8))]
    pub replayed: u32,
    /// How many of these have the execution root of the first run.
    #[schemars(range(max = 8))]
    pub agreed: u32,
    /// The first item in which the first of the others differs: engine, exit, stdout, stderr, or an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1100))]
    pub first_divergence: Option<String>,
    /// The executor of the first run, as its pool calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub executor: Option<String>,
    /// Its node, if it was a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Every run that was begun and has ended, with its whole proof as the receipt, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub runs: Vec<ReplayRun>,
}

/// One later run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRun {
    /// Its number, from 1. It is a part of the UID in its proof: UID of the ProofBundle, `-replay-`, number.
    #[schemars(range(min = 1, max = 16))]
    pub number: u32,
    /// What came of it.
    pub outcome: ReplayOutcome,
    /// The executor, as its pool calls it.
    #[schemars(length(max = 253))]
    pub executor: String,
    /// Its node, if it is a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Why there is no result to compare, as one stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The same, or the first item that differs, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1100))]
    pub message: Option<String>,
    /// Root over what every honest re-run must reproduce, as this one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub execution_root: Option<ExecutionRoot>,
    /// Root over all claims of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub bundle_root: Option<BundleRoot>,
    /// The receipt: the exact canonical bytes of this run's bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub body: Option<String>,
}

/// Whether replays are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplayPhase {
    /// They are not.
    Running,
    /// They are.
    Done,
}

/// What came of one later run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplayOutcome {
    /// Its execution root is that of the first run.
    Agrees,
    /// It is another one.
    Diverges,
    /// There is nothing to compare: it says neither yes nor no.
    Failed,
}

impl ReplayOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Agrees, Self::Diverges, Self::Failed];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agrees => "Agrees",
            Self::Diverges => "Diverges",
            Self::Failed => "Failed",
        }
    }
}
