//! The document under the roots: facts that a re-run must reproduce, and the claims of one run.

use requiem_model::attempt::Identity;
use requiem_model::confidence::Confidence;
use requiem_model::result::Usage;
use requiem_model::{BlobDigest, ExecutionRequest, RunResult, SandboxReport};
use serde::{Deserialize, Serialize};

/// The schema that this crate seals and verifies; every other one is refused.
pub const SCHEMA: &str = "requiem-bundle/1";

/// Everything that a bundle says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleBody {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What every honest re-run must reproduce.
    pub execution: ExecutionFacts,
    /// What only this run can say.
    pub run: RunClaims,
}

/// What every honest re-run must reproduce: nothing from clock, node, identity or retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecutionFacts {
    /// What was to be run.
    pub request: ExecutionRequest,
    /// By which engine.
    pub engine: Engine,
    /// What came out.
    pub result: RunResult,
}

/// An engine by its meaning, not by its build: equal versions agree on equal requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Engine {
    /// Name: lower-case letters, digits and hyphens.
    pub name: String,
    /// Version.
    pub version: String,
}

/// What only this run can say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunClaims {
    /// Whose attempt it was.
    pub identity: Identity,
    /// Which isolation was in force.
    pub sandbox: SandboxReport,
    /// What the report says about determinism; recomputed by every verifier.
    pub confidence: Confidence,
    /// Who ran it.
    pub executor: ExecutorClaim,
    /// Start, RFC 3339 in UTC with milliseconds: `2026-11-22T20:15:00.000Z`.
    pub started_at: String,
    /// End, in the same form, not before the start.
    pub completed_at: String,
    /// What the run used.
    pub usage: Usage,
    /// How safely the results lay when the bundle was sealed: `volatile`, `batched` or `strict`.
    pub durability: String,
}

/// Who ran it, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecutorClaim {
    /// Name of the executor.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of its binary.
    pub binary: BlobDigest,
    /// Kernel release.
    pub kernel: String,
    /// Processor architecture.
    pub arch: String,
}
