//! `requiem proof show`: what a bundle says, after it was judged: what ran, how it ended, which isolation was in force.

use requiem_proof::BundleBody;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ProofFileArgument;
use crate::error::CommandError;
use crate::proof_input;
use crate::proof_text;
use crate::report::Report;
use crate::schema;
use crate::verdict::{Findings, FindingsDocument};

/// The whole body, typed, beside what was recomputed from it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Shown<'a> {
    ok: bool,
    #[serde(flatten)]
    findings: FindingsDocument,
    execution_root: String,
    bundle_root: String,
    request_digest: String,
    result_digest: String,
    #[schemars(schema_with = "schema::body")]
    body: &'a BundleBody,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProofFileArgument) -> Result<Report, CommandError> {
    let bundle = proof_input::read_bundle(&arguments.file)?;
    let verified = &bundle.verified;
    let findings = Findings { signatures: bundle.signatures.len(), ..Findings::default() };
    let shown = Shown {
        ok: true,
        findings: findings.document(),
        execution_root: verified.execution_root.to_string(),
        bundle_root: verified.bundle_root.to_string(),
        request_digest: verified.request_digest.to_string(),
        result_digest: verified.result_digest.to_string(),
        body: &verified.body,
    };
    let text = format!("{}not checked: {}\n", proof_text::bundle(verified), findings.not_checked());
    Ok(Report::new(&shown, text, true))
}
