//! What operator and executor say to one another. Every call is idempotent and keyed by (UID, attempt).
//!
//! `PUT /v1/attempts/{uid}/{n}` start or adopt · `GET …?waitMs=` read, waiting for a change ·
//! `DELETE …` cancel · `POST …/ack` the result is safe elsewhere · `GET …/stdout`, `…/stderr` ·
//! `GET /v1/blobs/{digest}?namespace=` · `GET /v1/capabilities`.

use serde::{Deserialize, Serialize};

use crate::digest::{BundleRoot, ExecutionRoot};
use crate::report::SandboxReport;
use crate::request::ExecutionRequest;
use crate::result::Failure;

/// Whose attempt it is. In the bundle, never in the request digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// Namespace; also the tenant of the store.
    pub namespace: String,
    /// Name of the Execution.
    pub name: String,
    /// UID of the Execution.
    pub uid: String,
    /// Generation of the spec that was converted.
    pub generation: u64,
    /// Attempt, from 1.
    pub attempt: u32,
}

/// Body of the PUT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartAttempt {
    /// Whose attempt it is; must agree with the path.
    pub identity: Identity,
    /// What to run.
    pub request: ExecutionRequest,
    /// Texts that the request refers to by digest and that are put into the store first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inline: Vec<String>,
}

/// Answer to PUT and GET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", deny_unknown_fields)]
pub enum AttemptState {
    /// Accepted; waits for a slot.
    Queued,
    /// The payload is running.
    Running,
    /// The result is durable, as far as the bundle says.
    Sealed {
        /// The result.
        sealed: Box<SealedAttempt>,
    },
    /// There is no result and there will be none for this attempt.
    Failed {
        /// Why.
        failure: Failure,
    },
}

impl AttemptState {
    /// Whether the state can no longer change.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Sealed { .. } | Self::Failed { .. })
    }
}

/// A finished attempt as the executor claims it. The receiver recomputes the roots from `body`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealedAttempt {
    /// The bundle's exact canonical bytes.
    pub body: String,
    /// Claimed root over what every re-run must reproduce.
    pub execution_root: ExecutionRoot,
    /// Claimed root over this run's claims.
    pub bundle_root: BundleRoot,
    /// Last bytes of standard output, at most 1 KiB, lossy UTF-8.
    pub stdout_tail: String,
    /// Last bytes of standard error, at most 1 KiB, lossy UTF-8.
    pub stderr_tail: String,
}

/// Answer of `GET /v1/capabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    /// Name of the executor.
    pub executor: String,
    /// Its version.
    pub version: String,
    /// Attempts that run at the same time.
    pub slots: u32,
    /// What a probe run observed with every layer preferred.
    pub sandbox: SandboxReport,
    /// It takes no new attempts and will end; what it has may still be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// Body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorBody {
    /// Stable code: `QueueFull`, `UnknownAttempt`, `IdentityMismatch`, `RequestConflict`, `Malformed`,
    /// `NotFound`, `ShuttingDown`, `StoreUnavailable`, `RunnerMissing`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: String,
}
