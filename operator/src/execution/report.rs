//! Step 5: one write that says everything: observedGeneration, all conditions, all fields.
//!
//! The status is a pure function of what was applied. The write names UID and resourceVersion, so a status that
//! was computed from an old object is refused by the API server; so is every change of a terminal field.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use requiem_crds::condition::{ConditionStatus, ConditionType, Reason, Wanted, conditions};
use requiem_crds::status::{EngineStatus, ProofBundleRef, ResultReason, StreamStatus};
use requiem_crds::{Execution, ExecutionStatus};

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
    match context.writer.replace_status::<Execution>(&object.metadata, &status).await {
        Ok(mut written) => {
            written.metadata.managed_fields = None;
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            context.tracker.with(uid, |live| live.written = Some(Arc::new(written)));
            Ok(Written::Yes)
        }
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
    let mut fenced = match context.writer.replace_status::<Execution>(&object.metadata, &status(object)).await
    {
        Ok(_) => return Ok(Written::Yes),
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
        match context.writer.replace_status::<Execution>(&live.metadata, &status(&live)).await {
            Ok(_) => return Ok(Written::Yes),
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
    match context.writer.replace_status::<Execution>(meta, &status).await {
        Ok(_) => Ok(Written::Yes),
        Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(Written::Superseded),
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use requiem_model::Outcome;
    use requiem_proof::{Expect, verify};

    use super::super::decide::Final;
    use super::super::samples::{body, planned, sealed};
    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn settled(outcome: Outcome) -> Settled {
        let sealed = sealed(&body(&planned(), 1, outcome));
        let verified = verify(&sealed.body, &Expect::default()).unwrap();
        let end = Final {
            result: (&verified.body.execution.result).into(),
            message: "why".into(),
            attempts: 1,
            verdict: Some("Verified"),
            proof: Some(Proof { verified, sealed }),
            endpoint: None,
        };
        Settled { end, bundle: None }
    }

    fn without_proof(result: ResultReason) -> Settled {
        let end =
            Final { result, message: "why".into(), attempts: 2, proof: None, verdict: None, endpoint: None };
        Settled { end, bundle: None }
    }

    fn progress(reason: Reason) -> ExecutionStatus {
        let progress = Progress { reason, message: "why".into(), attempts: 1 };
        unfinished(&progress, &ExecutionStatus::default(), 3, &at(1))
    }

    fn state(status: &ExecutionStatus) -> String {
        let words = status.conditions.iter().map(|c| format!("{}={}", c.type_, c.status));
        words.collect::<Vec<_>>().join(" ")
    }

    /// What kstatus makes of it (its order of rules, for an object that is not being deleted).
    fn kstatus(status: &ExecutionStatus, generation: i64) -> &'static str {
        let is =
            |kind: &str, value: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == value);
        match () {
            () if status.observed_generation != generation => "InProgress",
            () if is("Reconciling", "True") => "InProgress",
            () if is("Stalled", "True") => "Failed",
            () if is("Ready", "True") => "Current",
            () if is("Ready", "False") || is("Ready", "Unknown") => "InProgress",
            () => "Current",
        }
    }

    #[test]
    fn every_state_reads_right_for_gitops_clients() {
        let unfinished =
            [Reason::Queued, Reason::Running, Reason::Retrying, Reason::Suspended, Reason::PoolNotFound];
        for status in unfinished.map(progress) {
            assert_eq!(kstatus(&status, 3), "InProgress", "{}", state(&status));
            assert!(!status.terminal && status.result.is_none());
        }
        assert_eq!(state(&progress(Reason::Running)), "Ready=False Succeeded=Unknown Reconciling=True");
        assert_eq!(state(&progress(Reason::Suspended)), "Ready=False Succeeded=Unknown Suspended=True");
        for result in ResultReason::ALL {
            let status = terminal(&without_proof(result), &progress(Reason::Running), 3, &at(2));
            let expect = if result == ResultReason::Succeeded {
                ("Current", "Ready=True Succeeded=True")
            } else {
                ("Failed", "Ready=False Succeeded=False Stalled=True")
            };
            assert_eq!((kstatus(&status, 3), state(&status).as_str()), expect);
            assert!(status.terminal && status.result == Some(result));
        }
    }

    #[test]
    fn a_verified_bundle_is_told_in_full() {
        let settled = settled(Outcome::Exited { code: 0 });
        let status = terminal(&settled, &progress(Reason::Running), 3, &at(2));
        let proof = settled.end.proof.as_ref().unwrap();
        assert_eq!(status.exit_code, Some(0));
        assert_eq!(status.proof_root, Some(proof.sealed.bundle_root));
        assert_eq!(status.execution_root, Some(proof.sealed.execution_root));
        assert_eq!(status.request_digest, Some(planned().request_digest));
        assert_eq!(status.duration.as_deref(), Some("12ms"));
        assert_eq!(status.executor.as_deref(), Some("a"));
        assert_eq!(status.stdout.as_ref().unwrap().tail, "hi\n");
        assert_eq!(status.outputs.len(), 1);
        assert!(status.start_time.is_some() && status.completion_time > status.start_time);
        let bytes = serde_json::to_vec(&status).unwrap().len();
        assert!(bytes <= 8 * 1024, "{bytes} bytes");
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let first = progress(Reason::Running);
        let again = Progress { reason: Reason::Running, message: "why".into(), attempts: 1 };
        assert_eq!(unfinished(&again, &first, 3, &at(99)), first);
    }

    #[test]
    fn counters_never_go_back() {
        let later = ExecutionStatus { attempts: 7, observed_generation: 9, ..ExecutionStatus::default() };
        let again = Progress { reason: Reason::Running, message: "why".into(), attempts: 1 };
        let status = unfinished(&again, &later, 3, &at(1));
        assert_eq!((status.attempts, status.observed_generation), (7, 9));
        let status = terminal(&settled(Outcome::TimedOut), &later, 3, &at(1));
        assert_eq!((status.attempts, status.observed_generation), (7, 9));
    }

    #[test]
    fn messages_are_clipped() {
        let progress = Progress { reason: Reason::Queued, message: "é".repeat(5000), attempts: 1 };
        let status = unfinished(&progress, &ExecutionStatus::default(), 1, &at(1));
        assert!(status.conditions.iter().all(|c| c.message.chars().count() <= 1001));
    }
}
