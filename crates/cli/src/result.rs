//! The result document of a run, with the field names of the command line.

use std::collections::BTreeMap;

use requiem_model::confidence::{Confidence, Level, SANDBOX};
use requiem_model::report::{SandboxReport, Status};
use requiem_model::result::{MissingOutput, Outcome, OutputContent, Usage};
use requiem_model::{BlobDigest, BundleRoot, ExecutionRoot, Layer, RequestDigest, Requirement, ResultDigest};
use requiem_proof::{Engine, Verified};
use schemars::JsonSchema;
use serde::Serialize;

use crate::schema;
use crate::text::printable;

/// A run that has a result. Fields are only ever added.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunDocument {
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_code: Option<&'static str>,
    pub(crate) termination_reason: &'static str,
    /// Text; bytes that are not UTF-8 are replaced. The exact bytes are in the store under the digest.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) stdout_truncated: bool,
    pub(crate) stderr_truncated: bool,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) request_digest: RequestDigest,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) stdout_digest: BlobDigest,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) stderr_digest: BlobDigest,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) result_digest: ResultDigest,
    pub(crate) output_digests: BTreeMap<String, String>,
    #[schemars(schema_with = "schema::missing_outputs")]
    pub(crate) missing_outputs: Vec<MissingOutput>,
    #[schemars(schema_with = "schema::layers")]
    pub(crate) policy_applied: BTreeMap<Layer, Requirement>,
    pub(crate) sandbox_applied: AppliedSandbox,
    pub(crate) determinism_confidence: ReportedConfidence,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) execution_root: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) bundle_root: BundleRoot,
    #[schemars(schema_with = "schema::engine")]
    pub(crate) engine: Engine,
    pub(crate) durability: String,
    pub(crate) request_id: String,
    pub(crate) tenant_id: String,
    pub(crate) start_timestamp: String,
    pub(crate) end_timestamp: String,
    pub(crate) duration_ms: u64,
    pub(crate) metrics: Metrics,
    /// The exact bytes under the roots, from which everything above but the text of the streams follows.
    pub(crate) proof_body: String,
}

/// Names of the layers by what the report says of them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AppliedSandbox {
    enforced: Vec<&'static str>,
    partial: Vec<&'static str>,
    unsupported: Vec<&'static str>,
    delegated: Vec<&'static str>,
    disabled: Vec<&'static str>,
}

/// How far determinism can be trusted, and why not further.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReportedConfidence {
    formula: String,
    #[schemars(schema_with = "schema::level")]
    level: Level,
    score: u8,
    reasons: Vec<String>,
}

/// What the run used.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Metrics {
    wall_us: u64,
    user_us: u64,
    system_us: u64,
    peak_memory_bytes: u64,
}

/// An engine, in words that keep the sandbox and the others apart.
pub(crate) fn engine_in_words(engine: &Engine) -> String {
    let told = format!("{} {}", engine.name, printable(&engine.version));
    if engine.name == SANDBOX {
        told
    } else {
        format!("{told}, which is not the sandbox: nothing proves isolation")
    }
}

impl RunDocument {
    /// The document of a verified run with the text of its streams and its bundle's bytes.
    pub(crate) fn new(verified: &Verified, stdout: String, stderr: String, proof_body: String) -> Self {
        let (facts, run) = (&verified.body.execution, &verified.body.run);
        let result = &facts.result;
        let (exit_code, signal) = match result.outcome {
            Outcome::Exited { code } => (Some(code), None),
            Outcome::Signalled { signal } => (None, Some(signal)),
            Outcome::TimedOut | Outcome::OutOfMemory => (None, None),
        };
        let digest = |content: &OutputContent| match content {
            OutputContent::Blob { digest, .. } => digest.to_string(),
            OutputContent::Tree { digest, .. } => digest.to_string(),
        };
        Self {
            ok: result.is_success(),
            exit_code,
            signal,
            error_code: (!result.is_success()).then(|| result.reason()),
            termination_reason: result.reason(),
            stdout,
            stderr,
            stdout_truncated: result.stdout.truncated,
            stderr_truncated: result.stderr.truncated,
            request_digest: verified.request_digest,
            stdout_digest: result.stdout.digest,
            stderr_digest: result.stderr.digest,
            result_digest: verified.result_digest,
            output_digests: result
                .outputs
                .iter()
                .map(|out| (out.path.to_string(), digest(&out.content)))
                .collect(),
            missing_outputs: result.missing_outputs.clone(),
            policy_applied: facts.request.policy.layers.clone(),
            sandbox_applied: AppliedSandbox::from(&run.sandbox),
            determinism_confidence: ReportedConfidence::from(&run.confidence),
            execution_root: verified.execution_root,
            bundle_root: verified.bundle_root,
            engine: facts.engine.clone(),
            durability: run.durability.clone(),
            request_id: run.identity.uid.clone(),
            tenant_id: run.identity.namespace.clone(),
            start_timestamp: run.started_at.clone(),
            end_timestamp: run.completed_at.clone(),
            duration_ms: run.usage.wall_us / 1000,
            metrics: Metrics::from(&run.usage),
            proof_body,
        }
    }
}

impl From<&SandboxReport> for AppliedSandbox {
    fn from(report: &SandboxReport) -> Self {
        Self {
            enforced: report.names(Status::Enforced),
            partial: report.names(Status::Partial),
            unsupported: report.names(Status::Unsupported),
            delegated: report.names(Status::Delegated),
            disabled: report.names(Status::Disabled),
        }
    }
}

impl AppliedSandbox {
    /// For people: the layers that are not fully in force. Nothing if all are.
    pub(crate) fn shortfalls(&self) -> String {
        let rows = [
            ("partial", &self.partial),
            ("unsupported", &self.unsupported),
            ("delegated", &self.delegated),
            ("disabled", &self.disabled),
        ];
        let told = rows.into_iter().filter(|(_, layers)| !layers.is_empty());
        let parts: String = told.map(|(word, layers)| format!("; {word}: {}", layers.join(", "))).collect();
        format!("sandbox: {} layers enforced{parts}\n", self.enforced.len())
    }
}

impl From<&Confidence> for ReportedConfidence {
    fn from(confidence: &Confidence) -> Self {
        let Confidence { formula, level, score, reasons } = confidence.clone();
        Self { formula, level, score, reasons }
    }
}

impl ReportedConfidence {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let head = format!("determinism: {}, {} of 100 ({})", self.level.as_str(), self.score, self.formula);
        if self.reasons.is_empty() {
            return head + "\n";
        }
        format!("{head}\n  not higher because of: {}\n", self.reasons.join(", "))
    }
}

impl From<&Usage> for Metrics {
    fn from(usage: &Usage) -> Self {
        let Usage { wall_us, user_us, system_us, peak_memory_bytes } = *usage;
        Self { wall_us, user_us, system_us, peak_memory_bytes }
    }
}
