//! `requiem proof verify`: recompute, compare, and say what was and what was not verified. Reads nothing but the file.

use requiem_model::report::{SandboxReport, Status};
use requiem_model::result::{Output, OutputContent, RunResult, Stream};
use requiem_model::{BundleRoot, ExecutionRoot, RequestDigest, ResultDigest};
use requiem_proof::file::MAX_FILE_BYTES;
use requiem_proof::{ProofFile, ProofFileError, Verified, VerifyError};
use serde::Serialize;

use crate::arguments::ProofVerify;
use crate::error::CommandError;
use crate::report::Report;
use crate::result::{AppliedSandbox, ReportedConfidence, outcome_in_words};
use crate::store;
use crate::text::{indented, printable, table};

/// What is said in one word, and what that word does not say.
const VERDICT: &str = "integrity only";
const NOT_CHECKED: &str = "who made it (no signature was checked); whether a re-run agrees (nothing was run)";

/// The document of a verified bundle.
#[derive(Serialize)]
pub(crate) struct Verdict<'a> {
    ok: bool,
    verdict: &'static str,
    not_checked: &'static str,
    execution_root: ExecutionRoot,
    bundle_root: BundleRoot,
    request_digest: RequestDigest,
    result_digest: ResultDigest,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    attempt: u32,
    termination_reason: &'static str,
    sandbox_applied: AppliedSandbox,
    determinism_confidence: ReportedConfidence,
}

/// Runs the command.
pub(crate) fn run(arguments: &ProofVerify) -> Result<Report, CommandError> {
    let content = store::read(&arguments.file, MAX_FILE_BYTES as u64)?;
    let verified = verify(&content)?;
    Ok(Report::new(&document(&verified), text(&verified), true))
}

/// Recomputes the bundle in `content`.
pub(crate) fn verify(content: &[u8]) -> Result<Verified, CommandError> {
    let file = ProofFile::parse(content).map_err(|error| no_proof(&error))?;
    file.verify().map_err(|error| refused(&error))
}

fn no_proof(error: &ProofFileError) -> CommandError {
    let hint = match error {
        ProofFileError::NotJson(_) => {
            "give JSON: kubectl get proofbundle NAME -o json, or the file of exec run --proof"
        }
        ProofFileError::OtherKind { kind, .. } if kind == "List" => {
            "name one bundle: kubectl get proofbundle NAME -o json"
        }
        _ => "give a ProofBundle (kubectl get proofbundle NAME -o json) or the file of exec run --proof",
    };
    CommandError::unusable(error.code(), error.to_string(), hint)
}

fn refused(error: &VerifyError) -> CommandError {
    let hint = match error {
        VerifyError::Version { .. } => "verify it with the version of requiem that knows this schema",
        VerifyError::IdentityBinding { .. } => {
            "the object names another Execution than its body; get it from its source again"
        }
        _ => "do not rely on this bundle; get it from its source again",
    };
    CommandError::finding(error.code(), format!("the bundle is refused: {error}"), hint)
}

/// The document of a verified bundle.
pub(crate) fn document(verified: &Verified) -> Verdict<'_> {
    let identity = &verified.body.run.identity;
    Verdict {
        ok: true,
        verdict: VERDICT,
        not_checked: NOT_CHECKED,
        execution_root: verified.execution_root,
        bundle_root: verified.bundle_root,
        request_digest: verified.request_digest,
        result_digest: verified.result_digest,
        namespace: &identity.namespace,
        name: &identity.name,
        uid: &identity.uid,
        attempt: identity.attempt,
        termination_reason: verified.body.execution.result.reason(),
        sandbox_applied: AppliedSandbox::from(&verified.body.run.sandbox),
        determinism_confidence: ReportedConfidence::from(&verified.body.run.confidence),
    }
}

/// The same for people.
pub(crate) fn text(verified: &Verified) -> String {
    let (facts, run) = (&verified.body.execution, &verified.body.run);
    let identity = &run.identity;
    let command: Vec<String> = facts.request.argv.iter().map(|argument| printable(argument)).collect();
    let row = |name: &str, value: String| [name.to_owned(), value];
    let rows = [
        row("bundle root", verified.bundle_root.to_string()),
        row("execution root", verified.execution_root.to_string()),
        row("request digest", verified.request_digest.to_string()),
        row("result digest", verified.result_digest.to_string()),
        row(
            "execution",
            format!(
                "{}/{} uid {} attempt {}",
                identity.namespace, identity.name, identity.uid, identity.attempt
            ),
        ),
        row("command", clip(&command.join(" "))),
        row("result", result_line(&facts.result)),
        row("engine", format!("{} {}", facts.engine.name, printable(&facts.engine.version))),
        row(
            "claimed by",
            printable(&format!(
                "{} {} ({}, Linux {})",
                run.executor.name, run.executor.version, run.executor.arch, run.executor.kernel
            )),
        ),
        row("claimed time", format!("{} to {}", run.started_at, run.completed_at)),
    ];
    format!(
        "{VERDICT}: the bundle is unchanged and its facts agree with one another\nnot checked: {NOT_CHECKED}\n\n{}\noutputs\n{}\nsandbox: {}\n{}\n{}",
        table(&rows),
        outputs(&facts.result),
        sandbox_line(&run.sandbox),
        indented(&sandbox_rows(&run.sandbox)),
        ReportedConfidence::from(&run.confidence).text(),
    )
}

fn result_line(result: &RunResult) -> String {
    let stream = |stream: &Stream| match stream.truncated {
        true => format!("{} bytes (truncated)", stream.bytes),
        false => format!("{} bytes", stream.bytes),
    };
    format!(
        "{}: {}; stdout {}, stderr {}",
        result.reason(),
        outcome_in_words(&result.outcome),
        stream(&result.stdout),
        stream(&result.stderr)
    )
}

fn outputs(result: &RunResult) -> String {
    let found = result.outputs.iter().map(|Output { path, content }| {
        let (kind, digest, bytes) = match content {
            OutputContent::Blob { digest, bytes, .. } => ("file", digest.to_string(), bytes),
            OutputContent::Tree { digest, bytes, .. } => ("folder", digest.to_string(), bytes),
        };
        [printable(path.as_str()), kind.to_owned(), format!("{bytes} bytes"), digest]
    });
    let missing = result.missing_outputs.iter().map(|missing| {
        [printable(missing.path.as_str()), "missing".to_owned(), printable(&missing.why), String::new()]
    });
    let rows: Vec<[String; 4]> = found.chain(missing).collect();
    if rows.is_empty() { "  none declared\n".to_owned() } else { indented(&table(&rows)) }
}

/// How many layers there are of each status.
pub(crate) fn sandbox_line(report: &SandboxReport) -> String {
    let count = |status, word: &str| match report.names(status).len() {
        0 => None,
        count => Some(format!("{count} {word}")),
    };
    let parts = [
        count(Status::Enforced, "enforced"),
        count(Status::Partial, "partial"),
        count(Status::Unsupported, "unsupported"),
        count(Status::Delegated, "delegated"),
        count(Status::Disabled, "disabled"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// One row per layer: its name, status, evidence and mechanism, and why it falls short.
pub(crate) fn sandbox_rows(report: &SandboxReport) -> String {
    let word = |value: Result<serde_json::Value, _>| {
        value.ok().and_then(|value: serde_json::Value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let head = ["LAYER", "STATUS", "EVIDENCE", "MECHANISM", "DETAIL"].map(str::to_owned);
    let rows = report.layers.iter().map(|row| {
        [
            row.layer.name().to_owned(),
            word(serde_json::to_value(row.status)),
            word(serde_json::to_value(row.evidence)),
            printable(&row.mechanism),
            printable(row.detail.as_deref().unwrap_or_default()),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
