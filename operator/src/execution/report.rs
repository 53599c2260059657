//! Step 5: one patch that says everything: observedGeneration, all conditions, all fields.
//!
//! The status is a pure function of what was applied. The patch names UID and resourceVersion, so a status that
//! was computed from an old object is refused by the API server; so is every change of a terminal field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use requiem_crds::condition::{ConditionStatus, ConditionType, Reason, Wanted, conditions};
use requiem_crds::status::{EngineStatus, ProofBundleRef, ResultReason, StreamStatus};
use requiem_crds::{Execution, ExecutionStatus};
use serde_json::json;

use super::apply::Settled;
use super::decide::{Progress, Proof};
use super::validate::InvalidSpec;
use crate::context::Context;
use crate::kubeapi::ApiError;
use crate::queue::Key;

/// How often a terminal status is written anew because the object changed in between.
const MAX_TRIES: u32 = 5;
const MAX_MESSAGE_CHARS: usize = 1000;

/// What became of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was written.
    Yes,
    /// It was there already.
    Unchanged,
    /// The object is gone, over, or newer than ours: its next event decides.
    Superseded,
}

/// The status of an Execution that is not over.
pub fn unfinished(
    progress: &Progress,
    previous: &ExecutionStatus,
    generation: i64,
    now: &Time,
) -> ExecutionStatus {
    let Progress { reason, message, attempts } = progress;
    let message = clip(message);
    let want = |kind, status| Wanted::new(kind, status, *reason, message.clone());
    let state =
        if *reason == Reason::Suspended { ConditionType::Suspended } else { ConditionType::Reconciling };
    let wanted = [
        want(ConditionType::Ready, ConditionStatus::False),
        want(ConditionType::Succeeded, ConditionStatus::Unknown),
        want(state, ConditionStatus::True),
    ];
    ExecutionStatus {
        observed_generation: generation.max(previous.observed_generation),
        conditions: conditions(&wanted, &previous.conditions, generation, now),
        attempts: previous.attempts.max(*attempts),
        ..previous.clone()
    }
}

/// The status of an Execution that is over.
pub fn terminal(
    settled: &Settled,
    previous: &ExecutionStatus,
    generation: i64,
    now: &Time,
) -> ExecutionStatus {
    let end = &settled.end;
    let mut status = ended(end.result, &end.message, previous, generation, now);
    status.attempts = previous.attempts.max(end.attempts);
    if let Some(proof) = &end.proof {
        prove(&mut status, proof);
    }
    status.proof_bundle_ref =
        settled.bundle.as_ref().map(|bundle| ProofBundleRef { name: bundle.key.name.clone() });
    status
}

fn ended(
    result: ResultReason,
    message: &str,
    previous: &ExecutionStatus,
    generation: i64,
    now: &Time,
) -> ExecutionStatus {
    let message = clip(message);
    let want = |kind, status| Wanted::new(kind, status, result, message.clone());
    let succeeded = result == ResultReason::Succeeded;
    let mut wanted =
        vec![want(ConditionType::Ready, succeeded.into()), want(ConditionType::Succeeded, succeeded.into())];
    if !succeeded {
        wanted.push(want(ConditionType::Stalled, ConditionStatus::True));
    }
    ExecutionStatus {
        observed_generation: generation.max(previous.observed_generation),
        conditions: conditions(&wanted, &previous.conditions, generation, now),
        result: Some(result),
        terminal: true,
        attempts: previous.attempts,
        ..ExecutionStatus::default()
    }
}

fn prove(status: &mut ExecutionStatus, proof: &Proof) {
    let Proof { verified, sealed } = proof;
    let (facts, run) = (&verified.body.execution, &verified.body.run);
    status.set_result(&facts.result);
    // The tails are claims beside the proof; the digests in the status are what was proven.
    status.stdout = Some(StreamStatus::new(&facts.result.stdout, &sealed.stdout_tail));
    status.stderr = Some(StreamStatus::new(&facts.result.stderr, &sealed.stderr_tail));
    status.set_duration(run.usage.wall_us / 1000);
    (status.start_time, status.completion_time) =
        (micro_time(&run.started_at), micro_time(&run.completed_at));
    status.request_digest = Some(verified.request_digest);
    status.result_digest = Some(verified.result_digest);
    status.sandbox = Some((&run.sandbox).into());
    status.determinism_confidence = Some((&run.confidence).into());
    status.execution_root = Some(verified.execution_root);
    status.proof_root = Some(verified.bundle_root);
    let engine = &facts.engine;
    status.engine = Some(EngineStatus { name: engine.name.clone(), version: engine.version.clone() });
    status.executor = Some(run.executor.name.clone());
}

/// Says how far it is, unless the status says so already.
///
/// # Errors
/// The API server did not take it.
pub async fn progress(
    context: &Context,
    object: &Execution,
    progress: &Progress,
) -> Result<Written, ApiError> {
    let previous = object.status.clone().unwrap_or_default();
    let status = unfinished(progress, &previous, object.metadata.generation.unwrap_or(0), &now());
    if status == previous {
        return Ok(Written::Unchanged);
    }
    match patch(context, &object.metadata, &status).await {
        Ok(()) => Ok(Written::Yes),
        Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(Written::Superseded),
        Err(error) => Err(error),
    }
}

/// Says how it ended. When the object changed in between, the same end is said about the newer object.
///
/// # Errors
/// The API server did not take it.
pub async fn end(context: &Context, object: &Execution, settled: &Settled) -> Result<Written, ApiError> {
    let status = |object: &Execution| {
        let previous = object.status.clone().unwrap_or_default();
        terminal(settled, &previous, object.metadata.generation.unwrap_or(0), &now())
    };
    let mut fenced = match patch(context, &object.metadata, &status(object)).await {
        Ok(()) => return Ok(Written::Yes),
        Err(ApiError::Gone { .. }) => return Ok(Written::Superseded),
        Err(error @ ApiError::Fenced { .. }) => error,
        Err(error) => return Err(error),
    };
    for _ in 1..MAX_TRIES {
        let live = match context.writer.get::<Execution>(&Key::of(object)).await {
            Ok(live) if live.uid() == object.uid() => live,
            Ok(_) | Err(ApiError::Gone { .. }) => return Ok(Written::Superseded),
            Err(error) => return Err(error),
        };
        if live.status.as_ref().is_some_and(|status| status.terminal) {
            return Ok(Written::Superseded);
        }
        match patch(context, &live.metadata, &status(&live)).await {
            Ok(()) => return Ok(Written::Yes),
            Err(ApiError::Gone { .. }) => return Ok(Written::Superseded),
            Err(error @ ApiError::Fenced { .. }) => fenced = error,
            Err(error) => return Err(error),
        }
    }
    Err(fenced)
}

/// Says that the spec cannot be run.
///
/// # Errors
/// The API server did not take it.
pub async fn invalid(
    context: &Context,
    meta: &ObjectMeta,
    previous: &ExecutionStatus,
    refusal: &InvalidSpec,
) -> Result<Written, ApiError> {
    let generation = meta.generation.unwrap_or(0);
    let status = ended(ResultReason::InvalidSpec, &refusal.0, previous, generation, &now());
    match patch(context, meta, &status).await {
        Ok(()) => Ok(Written::Yes),
        Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(Written::Superseded),
        Err(error) => Err(error),
    }
}

async fn patch(context: &Context, meta: &ObjectMeta, status: &ExecutionStatus) -> Result<(), ApiError> {
    let key = Key {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    };
    let body = json!({
        "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
        "status": status,
    });
    context.writer.patch_status::<Execution>(&key, &body).await.map(drop)
}

fn micro_time(text: &str) -> Option<MicroTime> {
    text.parse::<Timestamp>().ok().map(MicroTime)
}

fn now() -> Time {
    // Conditions have seconds; a finer time would not survive the round trip and look like a change.
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn clip(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message.to_owned(),
    }
}
