//! `requiem proof verify`: recompute, compare, and say what was and what was not verified. Reads the file, and what the user names
//! beside it: a trust file, receipts, a store. No network.

use std::path::Path;

use requiem_model::{BundleRoot, ExecutionRoot, RequestDigest, ResultDigest};
use requiem_proof::envelope::Bound;
use requiem_proof::replays::{MAX_REPLAYS_BYTES, Replays, Tally};
use requiem_proof::trust::{MAX_TRUST_BYTES, Trust};
use requiem_proof::{Engine, OutputFile, Verified};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ProofVerify;
use crate::error::CommandError;
use crate::proof_input::{self, Bundle, Input};
use crate::report::Report;
use crate::result::{AppliedSandbox, ReportedConfidence};
use crate::schema;
use crate::text::{printable, table};
use crate::verdict::{Findings, FindingsDocument, signers};
use crate::{proof_store, proof_text, store};

/// The document of a verified bundle.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Verdict<'a> {
    ok: bool,
    #[serde(flatten)]
    findings: FindingsDocument,
    #[schemars(schema_with = "schema::digest")]
    execution_root: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    bundle_root: BundleRoot,
    #[schemars(schema_with = "schema::digest")]
    request_digest: RequestDigest,
    #[schemars(schema_with = "schema::digest")]
    result_digest: ResultDigest,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    attempt: u32,
    termination_reason: &'static str,
    #[schemars(schema_with = "schema::engine")]
    engine: &'a Engine,
    sandbox_applied: AppliedSandbox,
    determinism_confidence: ReportedConfidence,
}

/// The document of one output that is shown to be under its roots.
#[derive(Serialize, JsonSchema)]
pub(super) struct OutputVerdict<'a> {
    ok: bool,
    #[serde(flatten)]
    findings: FindingsDocument,
    #[schemars(schema_with = "schema::digest")]
    execution_root: ExecutionRoot,
    #[schemars(schema_with = "schema::digest")]
    bundle_root: BundleRoot,
    path: &'a str,
    #[schemars(schema_with = "schema::content")]
    content: requiem_model::result::OutputContent,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProofVerify) -> Result<Report, CommandError> {
    match proof_input::read(&arguments.file)? {
        Input::Bundle(bundle) => whole(arguments, &bundle),
        Input::Output { file, signatures } => alone(arguments, &file, &signatures),
    }
}

/// Judges a bundle as the arguments say.
pub(crate) fn whole(arguments: &ProofVerify, bundle: &Bundle) -> Result<Report, CommandError> {
    let verified = &bundle.verified;
    let mut findings = signed(arguments, &bundle.signatures)?;
    findings.tally = tally(arguments, bundle)?;
    if let Some(cas) = &arguments.cas {
        let tenant = arguments.tenant.as_ref().unwrap_or(&verified.body.run.identity.namespace);
        findings.objects = Some(proof_store::check(verified, cas, tenant)?);
    }
    for requirement in &arguments.require {
        requirement.check(&findings, Some(verified))?;
    }
    Ok(Report::new(&document(&findings, verified), text(&findings, verified), true))
}

/// What was found, and what was not looked at, for people.
pub(crate) fn text(findings: &Findings, verified: &Verified) -> String {
    format!(
        "{}: the bundle is unchanged and its facts agree with one another\n{}not checked: {}\n\n{}",
        findings.verdict(),
        findings.notes(),
        findings.not_checked(),
        proof_text::bundle(verified),
    )
}

/// The same as a document.
pub(crate) fn document<'a>(findings: &Findings, verified: &'a Verified) -> Verdict<'a> {
    let run = &verified.body.run;
    Verdict {
        ok: true,
        findings: findings.document(),
        execution_root: verified.execution_root,
        bundle_root: verified.bundle_root,
        request_digest: verified.request_digest,
        result_digest: verified.result_digest,
        namespace: &run.identity.namespace,
        name: &run.identity.name,
        uid: &run.identity.uid,
        attempt: run.identity.attempt,
        termination_reason: verified.body.execution.result.reason(),
        engine: &verified.body.execution.engine,
        sandbox_applied: AppliedSandbox::from(&run.sandbox),
        determinism_confidence: ReportedConfidence::from(&run.confidence),
    }
}

fn alone(arguments: &ProofVerify, file: &OutputFile, signatures: &[Bound]) -> Result<Report, CommandError> {
    let hint = "give the bundle that it was taken from, or leave the option out";
    for (given, option) in [(arguments.cas.is_some(), "--cas"), (arguments.receipts.is_some(), "--receipts")]
    {
        if given {
            let message = format!("{option} is about a whole bundle, and this is the proof of one output");
            return Err(CommandError::unusable("Usage", message, hint));
        }
    }
    let findings = signed(arguments, signatures)?;
    for requirement in &arguments.require {
        requirement.check(&findings, None)?;
    }
    let (path, kind, digest, bytes) = proof_text::output(&file.output.path, &file.output.content);
    let row = |name: &str, value: String| [name.to_owned(), value];
    let rows = [
        row("output", format!("{path}  {kind}  {bytes} bytes  {digest}")),
        row("execution root", file.execution_root.to_string()),
        row("bundle root", file.bundle_root.to_string()),
    ];
    let text = format!(
        "{}: the output lies under both roots\n{}not checked: the rest of the bundle, which is not here; {}\n\n{}",
        findings.verdict(),
        findings.notes(),
        findings.not_checked(),
        table(&rows),
    );
    let document = OutputVerdict {
        ok: true,
        findings: findings.document(),
        execution_root: file.execution_root,
        bundle_root: file.bundle_root,
        path: file.output.path.as_str(),
        content: file.output.content,
    };
    Ok(Report::new(&document, text, true))
}

fn signed(arguments: &ProofVerify, signatures: &[Bound]) -> Result<Findings, CommandError> {
    let mut findings = Findings { signatures: signatures.len(), ..Findings::default() };
    if let Some(path) = &arguments.trust {
        findings.signers = Some(signers(&read_trust(path)?, signatures)?);
    }
    Ok(findings)
}

/// Reads a trust file.
pub(super) fn read_trust(path: &Path) -> Result<Trust, CommandError> {
    Trust::parse(&store::read(path, MAX_TRUST_BYTES as u64)?).map_err(|error| {
        let hint = "its form stands in docs/format/signatures.md";
        CommandError::unusable(error.code(), printable(&error.to_string()), hint)
    })
}

/// The receipts that the object brings along, and those of a file: each run counts once, wherever it lies.
fn tally(arguments: &ProofVerify, bundle: &Bundle) -> Result<Option<Tally>, CommandError> {
    let Bundle { verified, file, .. } = bundle;
    let within = &file.receipts;
    let receipts = match &arguments.receipts {
        Some(path) => Replays::parse(&store::read(path, MAX_REPLAYS_BYTES as u64)?),
        None if within.is_empty() => return Ok(None),
        None => Ok(Replays::of(verified)),
    };
    let receipts = receipts.map(|receipts| receipts.and(within));
    let tally = receipts.and_then(|receipts| receipts.tally(verified)).map_err(|error| {
        let hint = "do not rely on these receipts; replay the bundle: requiem exec replay --bundle FILE";
        CommandError::finding(error.code(), error.to_string(), hint)
    })?;
    Ok(Some(tally))
}
