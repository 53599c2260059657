//! `ProofBundle`: a sealed proof as an object. It can be carried to another cluster and is verified there
//! the same way; `requiem proof verify` checks it with no cluster at all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use requiem_model::{BundleRoot, ExecutionRoot, RequestDigest, ResultDigest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::replay::ReplaysStatus;
use crate::rules::{immutable, monotonic, refusing};
use crate::schema;

/// The proof. Everything in it is immutable.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "requiem.dev",
    version = "v1alpha1",
    kind = "ProofBundle",
    namespaced,
    status = "ProofBundleStatus",
    shortname = "prf",
    category = "requiem",
    derive = "PartialEq",
    doc = "ProofBundle holds the proof of one run: the exact canonical bytes of its claims and the roots over \
           them. The operator recomputes the roots; anyone else can do so offline.",
    selectable = ".spec.executionRef.uid",
    selectable = ".status.observedGeneration",
    selectable = ".status.origin",
    selectable = ".status.replays.phase",
    printcolumn(
        name = "Execution",
        type_ = "string",
        json_path = ".spec.executionRef.name",
        description = "Execution that was proven"
    ),
    printcolumn(
        name = "Sealed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Sealed")].status"#,
        description = "Whether the body has the roots that the spec names"
    ),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Verified")].status"#,
        description = "Whether every claim that can be recomputed holds"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Verified")].reason"#,
        description = "Why, as one stable word"
    ),
    printcolumn(
        name = "Replayed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Replayed")].reason"#,
        description = "What came of the replays that were asked for"
    ),
    printcolumn(
        name = "Origin",
        type_ = "string",
        json_path = ".status.origin",
        description = "Whether this operator saw it run"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Root",
        type_ = "string",
        json_path = ".spec.bundleRoot",
        description = "Root over all claims of the run",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Verified")].message"#,
        description = "Why, in words",
        priority = 1
    )
)]
#[x_kube(validation = immutable(&["body", "executionRoot", "bundleRoot", "executionRef"], &[]))]
#[serde(rename_all = "camelCase")]
pub struct ProofBundleSpec {
    /// The exact canonical bytes of the bundle, at most 256 KiB. Any change of any byte changes a root.
    #[schemars(length(min = 2, max = 262_144))]
    pub body: String,
    /// Root over what every honest re-run must reproduce.
    #[schemars(schema_with = "schema::digest")]
    pub execution_root: ExecutionRoot,
    /// Root over all claims of this run.
    #[schemars(schema_with = "schema::digest")]
    pub bundle_root: BundleRoot,
    /// The Execution that was proven. It need not exist where the ProofBundle is verified.
    pub execution_ref: ExecutionRef,
}

/// An Execution in the same namespace, now or once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionRef {
    /// Name of the Execution.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// UID of the Execution.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// The verdict.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = monotonic(&["observedGeneration"]),
    validation = refusing(
        "!has(oldSelf.origin) || oldSelf.origin != 'Executed' || (has(self.origin) && self.origin == 'Executed')",
        "'origin is immutable once it is Executed'"
    ),
    validation = refusing("!has(oldSelf.replays) || has(self.replays)", "'replays are never taken back'")
)]
#[serde(rename_all = "camelCase")]
pub struct ProofBundleStatus {
    /// The metadata.generation that this status speaks of; -1 before the operator has looked.
    #[serde(default = "unobserved")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,
    /// Ready, Sealed and Verified; Stalled with the code of the first rule that is broken; Replayed where replays are wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Bundle root that the operator recomputed from the body; absent if the body cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub verified_root: Option<BundleRoot>,
    /// Digest of the request that the body proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub request_digest: Option<RequestDigest>,
    /// Digest of the result that the body proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest")]
    pub result_digest: Option<ResultDigest>,
    /// Where it comes from: Executed (this operator handed the run out, recomputed the answer and created the object)
    /// or Imported (somebody else created it; it proves what it proves, and answers no other Execution).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Later runs of the same request, if `spec.replay` of the Execution asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replays: Option<ReplaysStatus>,
}

/// Where a bundle comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Origin {
    /// The operator handed the run out, recomputed the executor's answer, and created the object.
    Executed,
    /// Somebody else created the object.
    Imported,
}

/// Label of a ProofBundle that proves a success: the first digits of its request's digest.
pub const REQUEST_LABEL: &str = "requiem.dev/request-digest";

/// The value of [`REQUEST_LABEL`] for `digest`: as many hexadecimal digits as a label can hold with room to spare.
/// Whoever finds a bundle by it compares the whole digest.
pub fn request_label(digest: &RequestDigest) -> String {
    let text = digest.to_string();
    let digits = text.rsplit(':').next().unwrap_or_default();
    digits.chars().take(48).collect()
}

impl Default for ProofBundleStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            conditions: Vec::new(),
            verified_root: None,
            request_digest: None,
            result_digest: None,
            origin: None,
            replays: None,
        }
    }
}

const fn unobserved() -> i64 {
    -1
}
