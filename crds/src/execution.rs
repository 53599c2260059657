//! `Execution`: one command to run once. The spec is what the user asked for, as text; [`crate::convert`]
//! is the only place where it becomes a request.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use requiem_model::{Layer, Requirement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::executor_pool::DedicatedPod;
use crate::quantity::ByteQuantity;
use crate::replay::ReplaySpec;
use crate::rules::{all_valid, immutable, refusing, valid};
use crate::status::ExecutionStatus;
use crate::{DEFAULT_POOL, schema};

/// What to run, with what, within which bounds. Everything but `suspend`, `cancel` and `ttlAfterFinished` is
/// immutable: an Execution is the record of one run.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "requiem.dev",
    version = "v1alpha1",
    kind = "Execution",
    namespaced,
    status = "ExecutionStatus",
    shortname = "exn",
    category = "requiem",
    derive = "PartialEq",
    doc = "Execution runs one command in a sandbox and records what happened, which isolation was really in \
           force, how far its determinism can be trusted, and the root of a proof.",
    validation = refusing(
        "!has(oldSelf.status) || !oldSelf.status.terminal || (self.spec.suspend == oldSelf.spec.suspend \
         && self.spec.cancel == oldSelf.spec.cancel)",
        "'suspend and cancel are immutable once status.terminal is true: the Execution has ended'"
    ),
    validation = refusing(
        "!has(oldSelf.status) || !oldSelf.status.terminal || !has(oldSelf.spec.ttlAfterFinished) \
         || has(self.spec.ttlAfterFinished)",
        "'ttlAfterFinished can be changed, but not removed, once status.terminal is true: raise its seconds'"
    ),
    validation = refusing(
        "!has(oldSelf.status) || !has(oldSelf.status.compacted) || !has(oldSelf.spec.ttlAfterFinished) \
         || self.spec.ttlAfterFinished == oldSelf.spec.ttlAfterFinished",
        "'ttlAfterFinished is immutable once status.compacted is true: it has been carried out'"
    ),
    selectable = ".spec.executor.poolRef.name",
    selectable = ".spec.ttlAfterFinished.action",
    selectable = ".status.terminal",
    selectable = ".status.result",
    selectable = ".status.compacted",
    printcolumn(
        name = "Engine",
        type_ = "string",
        json_path = ".status.engine.name",
        description = "Engine that ran the command"
    ),
    printcolumn(
        name = "Result",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "How it ended, or how far it is"
    ),
    printcolumn(
        name = "Exit",
        type_ = "integer",
        json_path = ".status.exitCode",
        description = "Exit status of the command"
    ),
    printcolumn(
        name = "Determinism",
        type_ = "string",
        json_path = ".status.determinismConfidence.level",
        description = "How far a re-run can be trusted to give the same"
    ),
    printcolumn(
        name = "Sandbox",
        type_ = "string",
        json_path = ".status.sandbox.summary",
        description = "Layers of isolation that were proven in force"
    ),
    printcolumn(
        name = "Duration",
        type_ = "string",
        json_path = ".status.duration",
        description = "Time between start and end of the command"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Proof",
        type_ = "string",
        json_path = ".status.proofRoot",
        description = "Root of the proof",
        priority = 1
    ),
    printcolumn(
        name = "Executor",
        type_ = "string",
        json_path = ".status.executor",
        description = "Executor that ran the command",
        priority = 1
    ),
    printcolumn(
        name = "Cache",
        type_ = "boolean",
        json_path = ".status.cache.hit",
        description = "Whether the proof of an earlier run answered it",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "Why, in words",
        priority = 1
    )
)]
#[x_kube(
    validation = immutable(
        &["command", "timeoutSeconds", "limits", "executor", "retry", "proof"],
        &["args", "workingDir", "env", "stdin", "inputs", "outputs", "nonce", "policy", "cache", "replay"]
    ),
    validation = refusing(
        "!oldSelf.cancel || self.cancel",
        "'cancel is immutable once true: a cancelled run cannot be resumed'"
    ),
    validation = all_valid(&[
        (
            "!has(self.env) || has(self.executor.pod) || !self.env.exists(e, has(e.valueFrom))",
            "env with valueFrom needs executor.pod: a value reaches a command in a pod of its own only, by the kubelet"
        ),
        (
            "!has(self.env) || !has(self.cache) || self.cache == \"Never\" || !self.env.exists(e, has(e.valueFrom))",
            "env with valueFrom and cache Use or Refresh exclude one another: the proof does not hold the value"
        ),
        (
            "!has(self.replay) || self.proof.publish == \"Always\"",
            "replay needs proof.publish Always: the receipts of replays are kept in the ProofBundle"
        ),
        (
            "!has(self.replay) || !has(self.executor.pod)",
            "replay needs a pool: other executors cannot run what executor.pod, and valueFrom with it, describes"
        ),
        (
            "!has(self.replay) || !has(self.cache) || self.cache != \"Use\"",
            "replay and cache Use exclude one another: what is answered by an earlier proof does not run; use Refresh"
        ),
    ])
)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionSpec {
    /// Program and its first arguments, executed as they are, without a shell. The first item is an absolute
    /// path (the workspace is /workspace) or a name that is looked up in the fixed PATH.
    #[schemars(schema_with = "schema::arguments", length(min = 1))]
    pub command: Vec<String>,
    /// Further arguments, appended to `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub args: Vec<String>,
    /// Folder below the workspace in which the command starts; the workspace itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub working_dir: Option<String>,
    /// The whole environment of the command, besides PATH, HOME, LANG and TZ. Nothing is inherited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVarSpec>,
    /// Standard input of the command; empty if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<StdinSpec>,
    /// Read-only files and folders that the command finds in its workspace. No path lies within another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub inputs: Vec<InputSpec>,
    /// Files and folders of the workspace that are kept when the command ends. One that is missing then
    /// makes the result OutputMissing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::paths")]
    pub outputs: Vec<String>,
    /// Makes otherwise equal requests different, so that they have different digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub nonce: Option<String>,
    /// Wall-clock limit in seconds, at most one week. The whole process tree is killed when it is reached.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 604_800))]
    pub timeout_seconds: u32,
    /// Bounds on what the command may use. Every bound is finite.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// Isolation that is asked for. Every layer that is not named is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySpec>,
    /// Where the command runs.
    #[serde(default)]
    pub executor: ExecutorSpec,
    /// What happens when the infrastructure fails. A command that ran to its end is never run again.
    #[serde(default)]
    pub retry: RetrySpec,
    /// What happens to the proof.
    #[serde(default)]
    pub proof: ProofSpec,
    /// Whether the proof of an earlier run of the same request, in this namespace, may answer instead of a run:
    /// Never; Use (answered if there is one, and identical Executions run once); Refresh (run, and answer others
    /// from then on). Absent means Use for an object that a GitOps tool or Helm tracks, and Never for any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheMode>,
    /// Runs the same request again after the result is published, and compares. The ProofBundle holds what came of it. An
    /// Execution with it always runs: `cache` absent then means Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplaySpec>,
    /// What becomes of the Execution some time after it has ended; it stays as it is if absent. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<TtlSpec>,
    /// While true, an Execution that has not been handed to an executor waits.
    #[serde(default)]
    pub suspend: bool,
    /// Ends the Execution: a running command is killed, one that waits never starts. Cannot be taken back.
    #[serde(default)]
    pub cancel: bool,
}

/// One environment variable.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = valid(
    "!has(self.valueFrom) || !has(self.value) || self.value == ''",
    "value and valueFrom exclude one another: remove one of them"
))]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSpec {
    /// Name of the variable.
    #[schemars(schema_with = "schema::variable_name")]
    pub name: String,
    /// Value of the variable; empty if absent.
    #[serde(default)]
    #[schemars(schema_with = "schema::text")]
    pub value: String,
    /// Where the value stands instead, for an Execution with `executor.pod`. The kubelet brings it to the command; it is in no
    /// digest, proof, status or log, so the result is never more than best_effort and answers nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFromSpec>,
}

/// Where a value stands: exactly one of its fields.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(
    validation = valid(
        "has(self.secretKeyRef) != has(self.configMapKeyRef)",
        "exactly one of secretKeyRef and configMapKeyRef must be given"
    ),
    validation = valid(
        "!has(self.secretKeyRef) || !(self.secretKeyRef.name in ['requiem-ca', 'requiem-executor-tls'])",
        "requiem-ca and requiem-executor-tls hold the keys of executors, which no command may have"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ValueFromSpec {
    /// A key of a Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A key of a ConfigMap in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of an object in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// The key within it.
    #[schemars(schema_with = "schema::data_key")]
    pub key: String,
}

/// Standard input: exactly one of its fields.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = valid("has(self.inline) != has(self.blob)", "exactly one of inline and blob must be given"))]
#[serde(rename_all = "camelCase")]
pub struct StdinSpec {
    /// The text itself, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub inline: Option<String>,
    /// Digest of a file in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub blob: Option<String>,
}

/// One input: a path and exactly one of inline, blob and tree. An item of another Execution's
/// `status.outputs` can be pasted here without its `bytes` and `entries`.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = valid(
        "[has(self.inline), has(self.blob), has(self.tree)].filter(given, given).size() == 1",
        "exactly one of inline, blob and tree must be given"
    ),
    validation = valid("!has(self.tree) || !self.executable", "executable does not apply to a tree: its files have their own bits")
)]
#[serde(rename_all = "camelCase")]
pub struct InputSpec {
    /// Path below the workspace at which the input appears.
    #[schemars(schema_with = "schema::path")]
    pub path: String,
    /// The text of a file, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub inline: Option<String>,
    /// Digest of a file in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub blob: Option<String>,
    /// Digest of a folder in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub tree: Option<String>,
    /// Whether the file may be executed.
    #[serde(default)]
    pub executable: bool,
}

/// Bounds on what one run may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Bytes that are kept of standard output, and of standard error. The rest is read and dropped, and the
    /// stream is marked truncated.
    #[serde(default = "default_output")]
    pub output: ByteQuantity,
    /// Memory of the whole process tree, workspace and /tmp included.
    #[serde(default = "default_memory")]
    pub memory: ByteQuantity,
    /// Processes and threads of the whole tree.
    #[serde(default = "default_pids")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub pids: u32,
    /// Bytes that workspace and /tmp together may hold.
    #[serde(default = "default_scratch")]
    pub scratch: ByteQuantity,
    /// Files and folders that workspace and /tmp together may hold.
    #[serde(default = "default_scratch_inodes")]
    #[schemars(range(min = 16, max = 1_073_741_824))]
    pub scratch_inodes: u32,
    /// Files that one process may have open.
    #[serde(default = "default_open_files")]
    #[schemars(range(min = 8, max = 1_048_576))]
    pub open_files: u32,
}

/// Isolation that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// How much each layer of the sandbox is wanted: required (without it the run does not start), preferred
    /// (where the executor's host can), disabled (do not apply it). The status says what was in force.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::layers")]
    pub layers: BTreeMap<Layer, LayerRequirement>,
}

/// How much a layer is wanted. The word for "off" is `disabled`, because YAML reads a bare `off` as false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LayerRequirement {
    /// Without it the run does not start.
    Required,
    /// Applied where the host can.
    Preferred,
    /// Not applied.
    Disabled,
}

/// Where the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutorSpec {
    /// The pool whose executors may take it; not looked at where `pod` is given.
    #[serde(default)]
    pub pool_ref: PoolRef,
    /// A pod for this Execution alone, in an image of your choice, instead of a pool. Slower than a pool by the start of a
    /// pod; its inputs must be inline, since a new pod has an empty store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<DedicatedPod>,
}

/// An ExecutorPool in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// Name of the ExecutorPool.
    #[serde(default = "default_pool")]
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// What happens when the infrastructure fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// How many times the command is handed out again after a failure that may pass by itself: store full,
    /// store error, sandbox not set up. The loss of an executor does not count; it is made good up to 20 times.
    #[serde(default = "default_retries")]
    #[schemars(range(max = 10))]
    pub limit: u32,
}

/// What happens to the proof.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProofSpec {
    /// Whether a ProofBundle object is created: Always, or Never (the proof stays in the executor's store,
    /// and the roots still stand in the status).
    #[serde(default)]
    pub publish: Publish,
    /// How long the ProofBundle lives: WithExecution (deleted together with the Execution), or Keep (until somebody
    /// deletes it). Absent means Keep for an object that a GitOps tool or Helm tracks, and WithExecution for any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// How long a ProofBundle lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// It is deleted together with its Execution.
    WithExecution,
    /// It lives until somebody deletes it.
    Keep,
}

/// Whether the proof of an earlier run may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CacheMode {
    /// The command runs.
    Never,
    /// An earlier result of the same request answers, and identical Executions run once.
    Use,
    /// The command runs, and its result answers others from then on.
    Refresh,
}

/// What becomes of an Execution some time after it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TtlSpec {
    /// How long after the end, in seconds, at most ten years. Counted from the moment at which the operator wrote the end.
    #[schemars(range(max = 315_360_000))]
    pub seconds: u32,
    /// What then happens: Compact (the status keeps result, digests, roots and conditions, and loses the rest) or
    /// Delete. An object that a GitOps tool or Helm tracks is compacted instead of deleted, because the tool would
    /// create it again.
    #[serde(default)]
    pub action: TtlAction,
}

/// What happens when the time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TtlAction {
    /// The status is shortened.
    #[default]
    Compact,
    /// The object is deleted.
    Delete,
}

/// Whether a proof becomes an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Publish {
    /// A ProofBundle is created for every result.
    #[default]
    Always,
    /// The proof stays in the store.
    Never,
}

// === impl ExecutionSpec ===

impl ExecutionSpec {
    /// A spec that runs `command` with defaults everywhere else.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            stdin: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            nonce: None,
            timeout_seconds: default_timeout(),
            limits: LimitsSpec::default(),
            policy: None,
            executor: ExecutorSpec::default(),
            retry: RetrySpec::default(),
            proof: ProofSpec::default(),
            cache: None,
            replay: None,
            ttl_after_finished: None,
            suspend: false,
            cancel: false,
        }
    }
}

// === impl LayerRequirement ===

impl LayerRequirement {
    /// Every level, the strictest first.
    pub const ALL: [Self; 3] = [Self::Required, Self::Preferred, Self::Disabled];

    /// The word that users write.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Preferred => "preferred",
            Self::Disabled => "disabled",
        }
    }
}

impl From<LayerRequirement> for Requirement {
    fn from(level: LayerRequirement) -> Self {
        match level {
            LayerRequirement::Required => Self::Required,
            LayerRequirement::Preferred => Self::Preferred,
            LayerRequirement::Disabled => Self::Off,
        }
    }
}

// === defaults ===

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            output: default_output(),
            memory: default_memory(),
            pids: default_pids(),
            scratch: default_scratch(),
            scratch_inodes: default_scratch_inodes(),
            open_files: default_open_files(),
        }
    }
}

impl Default for PoolRef {
    fn default() -> Self {
        Self { name: default_pool() }
    }
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { limit: default_retries() }
    }
}

// The values below are those of `model::Limits::default()`; a test holds them together.

const fn default_timeout() -> u32 {
    300
}

fn default_output() -> ByteQuantity {
    ByteQuantity::text("4Mi")
}

fn default_memory() -> ByteQuantity {
    ByteQuantity::text("1Gi")
}

const fn default_pids() -> u32 {
    256
}

fn default_scratch() -> ByteQuantity {
    ByteQuantity::text("512Mi")
}

const fn default_scratch_inodes() -> u32 {
    100_000
}

const fn default_open_files() -> u32 {
    1024
}

fn default_pool() -> String {
    DEFAULT_POOL.to_owned()
}

const fn default_retries() -> u32 {
    3
}
