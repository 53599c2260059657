//! `ExecutionPolicy` and `ClusterExecutionPolicy`: what an Execution must be like to be run.
//!
//! A policy changes nothing: an Execution is run as it was asked for, or it is refused and says why. So the digest of a
//! request never depends on who may look at it. There is a rule for what an Execution asks for today, and for nothing else.

use kube::{CustomResource, KubeSchema};
use requiem_model::Layer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::executor_pool::Tier;
use crate::quantity::ByteQuantity;
use crate::rules::valid;
use crate::schema;

/// A policy without a rule is a slip of the pen: every field is optional, and a misspelt one is dropped.
const RULES: &str = "has(self.pools) || has(self.ownPods) || has(self.images) || has(self.tiers) || \
                     has(self.requiredLayers) || has(self.maxLimits) || has(self.envFromSecrets) || \
                     has(self.earlierResults) || has(self.unpublishedProofs)";
const NO_RULE: &str = "at least one rule must be given, such as maxLimits or requiredLayers";

/// What Executions of this namespace must be like.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "requiem.dev",
    version = "v1alpha1",
    kind = "ExecutionPolicy",
    plural = "executionpolicies",
    namespaced,
    shortname = "expol",
    category = "requiem",
    derive = "PartialEq",
    doc = "ExecutionPolicy says what the Executions of its namespace must be like to be run. One that breaks a rule \
           ends with the result PolicyViolation before anything is started; where several policies speak of a \
           namespace, all of them must be satisfied.",
    printcolumn(
        name = "Generation",
        type_ = "integer",
        json_path = ".metadata.generation",
        description = "Counts the changes of the rules; a refusal names it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = valid(RULES, NO_RULE))]
#[serde(rename_all = "camelCase")]
pub struct ExecutionPolicySpec {
    /// The rules.
    #[serde(flatten)]
    pub rules: PolicyRules,
}

/// What Executions of some namespaces must be like.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "requiem.dev",
    version = "v1alpha1",
    kind = "ClusterExecutionPolicy",
    plural = "clusterexecutionpolicies",
    shortname = "cexpol",
    category = "requiem",
    derive = "PartialEq",
    doc = "ClusterExecutionPolicy says what the Executions of the namespaces that it names must be like to be run. It \
           is an ExecutionPolicy for many namespaces, and is added to those that the namespaces have themselves.",
    printcolumn(
        name = "Namespaces",
        type_ = "string",
        json_path = ".spec.namespaces",
        description = "Namespaces that it speaks of"
    ),
    printcolumn(
        name = "Generation",
        type_ = "integer",
        json_path = ".metadata.generation",
        description = "Counts the changes of the rules; a refusal names it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = valid(RULES, NO_RULE))]
#[serde(rename_all = "camelCase")]
pub struct ClusterExecutionPolicySpec {
    /// Namespaces that it speaks of: names, in which a * stands for any text. A lone * is every namespace.
    #[schemars(schema_with = "schema::name_patterns")]
    pub namespaces: Vec<String>,
    /// Namespaces that it does not speak of, though `namespaces` names them; written in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::name_patterns")]
    pub except_namespaces: Vec<String>,
    /// The rules.
    #[serde(flatten)]
    pub rules: PolicyRules,
}

/// The rules of a policy. What is absent is not restricted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRules {
    /// Pools that an Execution may name in executor.poolRef: names, in which a * stands for any text. It does not speak of
    /// Executions with a pod of their own; ownPods does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::name_patterns")]
    pub pools: Vec<String>,
    /// Whether an Execution may have a pod of its own (executor.pod): Allowed, which is no rule, or Forbidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::permission")]
    pub own_pods: Option<Permission>,
    /// Images that executor.pod may name, in which a * stands for any text, also with slashes. They are compared as they
    /// are written: busybox and docker.io/library/busybox are two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::image_patterns")]
    pub images: Vec<String>,
    /// Tiers that executor.pod may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tiers")]
    pub tiers: Vec<Tier>,
    /// Layers of the sandbox that an Execution must require: its policy.layers may not call them preferred or disabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::layer_set")]
    pub required_layers: Vec<Layer>,
    /// The most that an Execution may ask for. Its defaults count as asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_limits: Option<MaxLimits>,
    /// Whether env may take values from Secrets (valueFrom.secretKeyRef): Allowed or Forbidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::permission")]
    pub env_from_secrets: Option<Permission>,
    /// Whether the proof of an earlier run may answer (cache: Use, also where it is the default): Allowed or Forbidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::permission")]
    pub earlier_results: Option<Permission>,
    /// Whether a proof may stay unpublished (proof.publish: Never): Allowed or Forbidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::permission")]
    pub unpublished_proofs: Option<Permission>,
}

/// Whether something may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// This policy has nothing against it.
    Allowed,
    /// An Execution that asks for it is refused.
    Forbidden,
}

/// The most that an Execution may ask for: at least one of the fields.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = valid(
    "has(self.timeoutSeconds) || has(self.output) || has(self.memory) || has(self.pids) || has(self.scratch) || \
     has(self.scratchInodes) || has(self.openFiles)",
    "at least one limit must be given"
))]
#[serde(rename_all = "camelCase")]
pub struct MaxLimits {
    /// The most that spec.timeoutSeconds may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub timeout_seconds: Option<u32>,
    /// The most that spec.limits.output may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<ByteQuantity>,
    /// The most that spec.limits.memory may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteQuantity>,
    /// The most that spec.limits.pids may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub pids: Option<u32>,
    /// The most that spec.limits.scratch may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<ByteQuantity>,
    /// The most that spec.limits.scratchInodes may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_073_741_824))]
    pub scratch_inodes: Option<u32>,
    /// The most that spec.limits.openFiles may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 1_048_576))]
    pub open_files: Option<u32>,
}
