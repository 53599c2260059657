//! What must agree inside a body. Each rule is about facts that the roots cover but could still contradict
//! one another: a forger can always compute fresh roots over nonsense.

use requiem_model::attempt::Identity;
use requiem_model::canon::{self, MAX_BYTES};
use requiem_model::report::{Evidence, LayerReport, Source, SourceState, Status};
use requiem_model::result::{OutputContent, RunResult, Stream};
use requiem_model::{
    BlobDigest, ExecutionRequest, Layer, RelPath, Requirement, SandboxPolicy, SandboxReport, confidence,
};

use crate::body::{BundleBody, Engine, ExecutorClaim, RunClaims};
use crate::error::VerifyError;
use crate::time::is_rfc3339_millis;

/// Longest reason why an output is missing, in bytes.
pub const MAX_WHY_BYTES: usize = 200;
/// Longest mechanism of a report row, in bytes.
pub const MAX_MECHANISM_BYTES: usize = 128;
/// Longest detail of a report row, in bytes.
pub const MAX_DETAIL_BYTES: usize = 1024;
/// Longest claim about the executor, in bytes.
pub const MAX_CLAIM_BYTES: usize = 256;

/// What report, claims and fixed parts of a body may take at most; see [`check_fits`].
const RESERVED_BYTES: usize = 56 * 1024;

/// Checks every rule.
///
/// # Errors
/// The first rule that is broken.
pub fn check(body: &BundleBody) -> Result<(), VerifyError> {
    let request = &body.execution.request;
    check_request(request)?;
    check_engine(&body.execution.engine)?;
    check_result(request, &body.execution.result)?;
    check_claims(&body.run)?;
    check_report(&request.policy, &body.run.sandbox)?;
    check_disclosure(request, &body.run.sandbox)?;
    check_seen(&body.execution.engine, &body.run.sandbox)?;
    check_confidence(&body.execution.engine, &body.run)
}

/// Whether a bundle about `request` fits into its bounds however the run ends. To be asked before the run: a
/// result that cannot be sealed would be lost.
///
/// # Errors
/// [`VerifyError::DoesNotFit`], or a request without canonical form.
pub fn check_fits(request: &ExecutionRequest) -> Result<(), VerifyError> {
    // An output is listed once more in the result: its path as JSON, and either its digest, size and kind or
    // the reason why it is missing, of which JSON may escape every character.
    let per_output = 2 * MAX_WHY_BYTES + 64;
    let outputs = canon::to_vec(&request.outputs)?.len() + request.outputs.len() * per_output;
    let bytes = canon::to_vec(request)?.len() + outputs + RESERVED_BYTES;
    if bytes > MAX_BYTES { Err(VerifyError::DoesNotFit { bytes, limit: MAX_BYTES }) } else { Ok(()) }
}

fn check_request(request: &ExecutionRequest) -> Result<(), VerifyError> {
    if request.clone().normalise()? == *request { Ok(()) } else { Err(VerifyError::RequestNotNormal) }
}

fn check_engine(engine: &Engine) -> Result<(), VerifyError> {
    let Engine { name, version } = engine;
    let mut bytes = name.bytes();
    let named = name.len() <= 63
        && bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !named {
        return Err(VerifyError::Claim { field: "engine.name", why: "is not [a-z][a-z0-9-]{0,62}" });
    }
    check_text("engine.version", version)
}

fn check_result(request: &ExecutionRequest, result: &RunResult) -> Result<(), VerifyError> {
    check_stream("stdout", &result.stdout, request.limits.max_output_bytes)?;
    check_stream("stderr", &result.stderr, request.limits.max_output_bytes)?;
    let found: Vec<&RelPath> = result.outputs.iter().map(|output| &output.path).collect();
    let missing: Vec<&RelPath> = result.missing_outputs.iter().map(|output| &output.path).collect();
    check_order("outputs", &found)?;
    check_order("missingOutputs", &missing)?;
    check_declared(request, &found, &missing)?;
    for output in &result.outputs {
        if let OutputContent::Blob { digest, bytes, executable: _ } = &output.content {
            check_size(output.path.as_str(), digest, *bytes)?;
        }
    }
    for output in &result.missing_outputs {
        let why = &output.why;
        if why.is_empty() || why.len() > MAX_WHY_BYTES || why.chars().any(char::is_control) {
            let path = output.path.to_string();
            return Err(VerifyError::Outputs { path, why: "the reason is empty, too long or no plain text" });
        }
    }
    Ok(())
}

fn check_stream(name: &str, stream: &Stream, limit: u64) -> Result<(), VerifyError> {
    let refuse = |why| Err(VerifyError::Content { name: name.to_owned(), why });
    if stream.bytes > limit {
        return refuse("more bytes were kept than limits.maxOutputBytes");
    }
    if stream.truncated && stream.bytes < limit {
        return refuse("it was truncated below limits.maxOutputBytes");
    }
    check_size(name, &stream.digest, stream.bytes)
}

/// The only content that is known by its digest is the empty one.
fn check_size(name: &str, digest: &BlobDigest, bytes: u64) -> Result<(), VerifyError> {
    if (bytes == 0) == (*digest == BlobDigest::of(b"")) {
        Ok(())
    } else {
        Err(VerifyError::Content {
            name: name.to_owned(),
            why: "size and digest do not agree about emptiness",
        })
    }
}

fn check_order(list: &str, paths: &[&RelPath]) -> Result<(), VerifyError> {
    match paths.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(VerifyError::Outputs {
            path: format!("{list}: {}", pair[1]),
            why: "is not in order or twice",
        }),
        None => Ok(()),
    }
}

fn check_declared(
    request: &ExecutionRequest,
    found: &[&RelPath],
    missing: &[&RelPath],
) -> Result<(), VerifyError> {
    let refuse = |path: &RelPath, why| Err(VerifyError::Outputs { path: path.to_string(), why });
    // All three lists are sorted: that was checked before.
    let declares = |path: &RelPath| request.outputs.binary_search(path).is_ok();
    if let Some(path) = found.iter().chain(missing).find(|path| !declares(path)) {
        return refuse(path, "is not an output that the request declares");
    }
    for path in &request.outputs {
        match (found.binary_search(&path).is_ok(), missing.binary_search(&path).is_ok()) {
            (true, true) => return refuse(path, "is called both found and missing"),
            (false, false) => return refuse(path, "is declared, but neither found nor missing"),
            _ => {}
        }
    }
    Ok(())
}

fn check_claims(run: &RunClaims) -> Result<(), VerifyError> {
    check_identity(&run.identity)?;
    let ExecutorClaim { name, version, binary: _, kernel, arch } = &run.executor;
    check_text("executor.name", name)?;
    check_text("executor.version", version)?;
    check_text("executor.kernel", kernel)?;
    check_text("executor.arch", arch)?;
    for (field, value) in [("startedAt", &run.started_at), ("completedAt", &run.completed_at)] {
        if !is_rfc3339_millis(value) {
            let value = value.chars().take(40).collect();
            return Err(VerifyError::Time { field, value, why: "is not like 2026-11-22T20:15:00.000Z" });
        }
    }
    if run.completed_at < run.started_at {
        let value = run.completed_at.clone();
        return Err(VerifyError::Time { field: "completedAt", value, why: "lies before startedAt" });
    }
    if !matches!(run.durability.as_str(), "volatile" | "batched" | "strict") {
        return Err(VerifyError::Claim { field: "durability", why: "is not volatile, batched or strict" });
    }
    Ok(())
}

fn check_identity(identity: &Identity) -> Result<(), VerifyError> {
    let Identity { namespace, name, uid, generation: _, attempt } = identity;
    let refuse = |field, why| Err(VerifyError::Identity { field, why });
    if !is_dns_label(namespace) {
        return refuse("namespace", "is not a DNS label of at most 63 characters");
    }
    if name.len() > 253 || !name.split('.').all(is_dns_label) {
        return refuse("name", "is not a DNS subdomain name of at most 253 characters");
    }
    let uid_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if uid.is_empty() || uid.len() > 128 || !uid.bytes().all(uid_byte) {
        return refuse("uid", "is not [A-Za-z0-9._-]{1,128}");
    }
    if *attempt == 0 {
        return refuse("attempt", "is 0; attempts count from 1");
    }
    Ok(())
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn check_text(field: &'static str, text: &str) -> Result<(), VerifyError> {
    if text.is_empty() || text.len() > MAX_CLAIM_BYTES || text.chars().any(char::is_control) {
        return Err(VerifyError::Claim {
            field,
            why: "is empty, longer than 256 bytes or holds control characters",
        });
    }
    Ok(())
}

fn check_report(policy: &SandboxPolicy, report: &SandboxReport) -> Result<(), VerifyError> {
    if !report.layers.iter().map(|row| row.layer).eq(Layer::ALL) {
        return Err(VerifyError::Report { row: "layers".to_owned(), why: "not one row per layer in order" });
    }
    if !report.sources.iter().map(|row| row.source).eq(Source::ALL) {
        return Err(VerifyError::Report {
            row: "sources".to_owned(),
            why: "not one row per source in order",
        });
    }
    for row in &report.layers {
        check_row(policy.requirement(row.layer), row)?;
    }
    Ok(())
}

/// Whether the report owns up to values that the body does not hold, and to no others.
fn check_disclosure(request: &ExecutionRequest, report: &SandboxReport) -> Result<(), VerifyError> {
    for row in &report.sources {
        let withheld = row.source == Source::Environment && !request.env_refs.is_empty();
        if withheld != (row.state == SourceState::Undisclosed) {
            return Err(VerifyError::Report {
                row: "sources".to_owned(),
                why: "environment is undisclosed exactly where the request refers to values, and nothing else is",
            });
        }
    }
    Ok(())
}

/// Whether the report claims nothing that this engine could not have seen: only the sandbox looks from inside.
fn check_seen(engine: &Engine, report: &SandboxReport) -> Result<(), VerifyError> {
    if engine.name == confidence::SANDBOX {
        return Ok(());
    }
    let proven = |row: &&LayerReport| matches!(row.status, Status::Enforced | Status::Partial);
    if let Some(row) = report.layers.iter().find(proven) {
        let why = "only the engine requiem proves layers from inside, and another one ran this";
        return Err(VerifyError::Evidence { layer: row.layer, why });
    }
    if report.sources.iter().any(|row| row.state == SourceState::Fixed) {
        let why = "only the engine requiem proves sources fixed, and another one ran this";
        return Err(VerifyError::Report { row: "sources".to_owned(), why });
    }
    Ok(())
}

fn check_row(requirement: Requirement, row: &LayerReport) -> Result<(), VerifyError> {
    let refuse = |why| Err(VerifyError::Report { row: row.layer.to_string(), why });
    if row.requested != requirement {
        return refuse("it claims another requirement than the policy has");
    }
    if row.mechanism.is_empty() || row.mechanism.len() > MAX_MECHANISM_BYTES {
        return refuse("the mechanism is empty or longer than 128 bytes");
    }
    let detail = row.detail.as_deref().unwrap_or_default();
    if detail.len() > MAX_DETAIL_BYTES || row.mechanism.chars().chain(detail.chars()).any(char::is_control) {
        return refuse("the detail is longer than 1024 bytes, or there are control characters");
    }
    if row.status != Status::Enforced && detail.is_empty() {
        return refuse("it is not enforced and does not say why");
    }
    if row.status == Status::Disabled && requirement != Requirement::Off {
        return refuse("it is called disabled, but it was asked for");
    }
    check_evidence(row)?;
    let in_force = matches!(row.status, Status::Enforced | Status::Delegated);
    if requirement == Requirement::Required && !in_force {
        return Err(VerifyError::RequiredLayer(row.layer));
    }
    Ok(())
}

fn check_evidence(row: &LayerReport) -> Result<(), VerifyError> {
    let refuse = |why| Err(VerifyError::Evidence { layer: row.layer, why });
    match (row.status, row.evidence) {
        (Status::Enforced, Evidence::Probe | Evidence::Readback) => Ok(()),
        (Status::Enforced, _) => refuse("enforced needs a probe or a read-back from inside"),
        (Status::Delegated, Evidence::AssertedByOuter) => Ok(()),
        (Status::Delegated, _) => refuse("delegated needs somebody outside who vouches for it"),
        _ => Ok(()),
    }
}

fn check_confidence(engine: &Engine, run: &RunClaims) -> Result<(), VerifyError> {
    let computed = confidence::assess_of(&engine.name, &run.sandbox);
    let claimed = &run.confidence;
    let rows = [
        (
            claimed.formula == computed.formula,
            "another formula than that of its engine (dc/1 for requiem, else dc/2)",
        ),
        (claimed.level == computed.level, "the level is another one"),
        (claimed.score == computed.score, "the score is another one"),
        (claimed.reasons == computed.reasons, "the reasons are others"),
    ];
    match rows.into_iter().find(|(same, _)| !same) {
        Some((_, why)) => Err(VerifyError::Confidence(why)),
        None => Ok(()),
    }
}
