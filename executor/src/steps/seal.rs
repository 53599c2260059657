//! Seal: facts and claims become one canonical document under two roots.

use requiem_cas::Durability;
use requiem_model::attempt::{Identity, SealedAttempt};
use requiem_model::result::FailureReason;
use requiem_model::{ExecutionRequest, Failure, RunResult, confidence};
use requiem_proof::{BundleBody, ExecutionFacts, RunClaims, SCHEMA, rfc3339_millis};

use super::collect::Collected;
use super::run::Ran;
use crate::execute::{Deps, Keep, Span};

/// Builds the bundle of a run.
pub(crate) fn body(
    deps: &Deps<'_>,
    identity: &Identity,
    request: &ExecutionRequest,
    ran: &Ran,
    collected: Collected,
    span: Span,
) -> BundleBody {
    let Deps { engine, claim, keep, .. } = *deps;
    let engine = engine.identity();
    let durability = durability(keep, ran, collected.durability);
    let result = RunResult {
        outcome: ran.done.outcome,
        stdout: ran.stdout.stream,
        stderr: ran.stderr.stream,
        outputs: collected.outputs,
        missing_outputs: collected.missing,
    };
    let report = ran.done.report.clone();
    let confidence = confidence::assess_of(&engine.name, &report);
    BundleBody {
        schema: SCHEMA.to_owned(),
        execution: ExecutionFacts { request: request.clone(), engine, result },
        run: RunClaims {
            identity: identity.clone(),
            confidence,
            sandbox: report,
            executor: claim.clone(),
            started_at: rfc3339_millis(span.started_ms),
            completed_at: rfc3339_millis(span.completed_ms),
            usage: ran.done.usage,
            durability: durability.to_owned(),
        },
    }
}

/// Seals `body` and adds what a status shows of the streams.
pub(crate) fn seal(
    body: &BundleBody,
    stdout_tail: &str,
    stderr_tail: &str,
) -> Result<SealedAttempt, Failure> {
    let sealed = requiem_proof::seal(body).map_err(|error| {
        let message = format!("the run ended, but its bundle cannot be sealed ({}): {error}", error.code());
        Failure::new(
            FailureReason::SandboxError,
            message,
            "this is a defect of the executor; please report it",
        )
    })?;
    Ok(SealedAttempt {
        body: sealed.body,
        execution_root: sealed.execution_root,
        bundle_root: sealed.bundle_root,
        stdout_tail: stdout_tail.to_owned(),
        stderr_tail: stderr_tail.to_owned(),
    })
}

/// The weakest class among what was kept. What the journal carries is synced with it, in one batch, before
/// anybody is shown the bundle.
fn durability(keep: Keep, ran: &Ran, outputs: Durability) -> &'static str {
    let streams = [&ran.stdout, &ran.stderr];
    let journaled = streams.iter().any(|captured| captured.inline.is_some());
    let loose =
        streams.iter().filter(|captured| captured.inline.is_none()).map(|captured| captured.durability);
    match loose.fold(outputs, Durability::min) {
        Durability::Volatile => Durability::Volatile.as_str(),
        Durability::Strict if journaled && keep == Keep::Journal => "batched",
        Durability::Strict => Durability::Strict.as_str(),
    }
}
