//! Step 5: one write that says everything: observedGeneration, all conditions, all fields.
//!
//! The status is a pure function of what was applied. The write names UID and resourceVersion, so a status that
//! was computed from an old object is refused by the API server; so is every change of a terminal field.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use requiem_crds::condition::{ConditionStatus, ConditionType, Reason, Wanted, conditions};
use requiem_crds::keeper::Keeper;
use requiem_crds::status::{EngineStatus, ProofBundleRef, ResultReason, StreamStatus};
use requiem_crds::{Execution, ExecutionStatus};
use requiem_proof::Verified;

use super::apply::Settled;
use super::decide::Progress;
use super::validate::InvalidSpec;
use crate::context::Context;
use crate::kubeapi::ApiError;
use crate::queue::Key;

/// How often a terminal status is written anew because the object changed in between.
const MAX_TRIES: u32 = 5;
const MAX_MESSAGE_CHARS: usize = 1000;
/// Of a message that was shortened together with its status.
const MAX_COMPACT_CHARS: usize = 120;

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

/// What the API server says about the object that a status is written for, and when.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Its generation.
    pub generation: i64,
    /// Whether it is being deleted, and somebody's finalizer holds it.
    pub deleting: bool,
    /// The time, in whole seconds.
    pub now: Time,
}

impl Scene {
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            generation: meta.generation.unwrap_or(0),
            deleting: meta.deletion_timestamp.is_some(),
            now: now(),
        }
    }

    fn conditions(&self, wanted: &[Wanted], previous: &ExecutionStatus) -> (i64, Vec<Condition>) {
        let generation = self.generation.max(previous.observed_generation);
        (generation, conditions(wanted, &previous.conditions, self.generation, &self.now))
    }
}

/// The status of an Execution that is not over.
pub fn unfinished(progress: &Progress, previous: &ExecutionStatus, scene: &Scene) -> ExecutionStatus {
    let Progress { reason, message, attempts } = progress;
    let (reason, message) = if scene.deleting {
        (Reason::Terminating, clip(&format!("is being deleted: {message}"), MAX_MESSAGE_CHARS))
    } else {
        (*reason, clip(message, MAX_MESSAGE_CHARS))
    };
    let want = |kind, status| Wanted::new(kind, status, reason, message.clone());
    let state =
        if reason == Reason::Suspended { ConditionType::Suspended } else { ConditionType::Reconciling };
    let wanted = [
        want(ConditionType::Ready, ConditionStatus::False),
        want(ConditionType::Succeeded, ConditionStatus::Unknown),
        want(state, ConditionStatus::True),
    ];
    let (observed_generation, conditions) = scene.conditions(&wanted, previous);
    ExecutionStatus {
        observed_generation,
        conditions,
        attempts: previous.attempts.max(*attempts),
        ..previous.clone()
    }
}

/// The status of an Execution that is over.
pub fn terminal(settled: &Settled, previous: &ExecutionStatus, scene: &Scene) -> ExecutionStatus {
    let Settled { end, bundle, recalled, cache, violations: _ } = settled;
    let mut status = ended(end.result, &end.message, previous, scene);
    status.attempts = previous.attempts.max(end.attempts);
    status.cache = cache.clone();
    if let Some(proof) = &end.proof {
        let run = &proof.verified.body.run;
        prove(&mut status, &proof.verified);
        // The tails are claims beside the proof; the digests in the status are what was proven.
        let streams = &proof.verified.body.execution.result;
        status.stdout = Some(StreamStatus::new(&streams.stdout, &proof.sealed.stdout_tail));
        status.stderr = Some(StreamStatus::new(&streams.stderr, &proof.sealed.stderr_tail));
        status.set_duration(run.usage.wall_us / 1000);
        (status.start_time, status.completion_time) =
            (micro_time(&run.started_at), micro_time(&run.completed_at));
        status.executor = Some(run.executor.name.clone());
    }
    let mut name = bundle.as_ref().map(|bundle| bundle.key.name.clone());
    if let Some(recalled) = recalled {
        // Nothing ran: no times, no executor, no tails. What was proven is told, and whose it was.
        prove(&mut status, &recalled.verified);
        name = Some(recalled.original.bundle.clone());
    }
    status.proof_bundle_ref = name.map(|name| ProofBundleRef { name });
    status
}

/// The conditions of an end. One that is being deleted is not Ready, whatever came of it.
fn end_conditions(result: ResultReason, message: &str, deleting: bool) -> Vec<Wanted> {
    let want = |kind, status| Wanted::new(kind, status, result, message);
    let succeeded = result == ResultReason::Succeeded;
    let ready = if deleting {
        let message = format!("is being deleted; {result}: {message}");
        Wanted::new(ConditionType::Ready, ConditionStatus::False, Reason::Terminating, message)
    } else {
        want(ConditionType::Ready, succeeded.into())
    };
    let mut wanted = vec![ready, want(ConditionType::Succeeded, succeeded.into())];
    if !succeeded {
        wanted.push(want(ConditionType::Stalled, ConditionStatus::True));
    }
    wanted
}

fn ended(result: ResultReason, message: &str, previous: &ExecutionStatus, scene: &Scene) -> ExecutionStatus {
    let wanted = end_conditions(result, &clip(message, MAX_MESSAGE_CHARS), scene.deleting);
    let (observed_generation, conditions) = scene.conditions(&wanted, previous);
    ExecutionStatus {
        observed_generation,
        conditions,
        result: Some(result),
        terminal: true,
        attempts: previous.attempts,
        ..ExecutionStatus::default()
    }
}

/// What a proof says, whoever's it is.
fn prove(status: &mut ExecutionStatus, verified: &Verified) {
    let (facts, run) = (&verified.body.execution, &verified.body.run);
    status.set_result(&facts.result);
    status.request_digest = Some(verified.request_digest);
    status.result_digest = Some(verified.result_digest);
    status.sandbox = Some((&run.sandbox).into());
    status.determinism_confidence = Some((&run.confidence).into());
    status.execution_root = Some(verified.execution_root);
    status.proof_root = Some(verified.bundle_root);
    let engine = &facts.engine;
    status.engine = Some(EngineStatus { name: engine.name.clone(), version: engine.version.clone() });
}

/// The same end, told about the object as it is now: for a new generation, and for one that is being deleted.
pub fn restated(previous: &ExecutionStatus, scene: &Scene, message: Option<String>) -> ExecutionStatus {
    let Some(result) = previous.result else { return previous.clone() };
    let told = previous.conditions.iter().find(|c| c.type_ == ConditionType::Succeeded.as_str());
    let message = message.or_else(|| told.map(|told| told.message.clone())).unwrap_or_default();
    let wanted = end_conditions(result, &message, scene.deleting);
    let (observed_generation, conditions) = scene.conditions(&wanted, previous);
    ExecutionStatus { observed_generation, conditions, ..previous.clone() }
}

/// The shortened status of an end; `keeper` is who would create the object again if it were deleted.
pub fn compacted(previous: &ExecutionStatus, keeper: Option<Keeper>, scene: &Scene) -> ExecutionStatus {
    let told = previous.conditions.iter().find(|c| c.type_ == ConditionType::Succeeded.as_str());
    let told = told.map(|told| clip(&told.message, MAX_COMPACT_CHARS)).unwrap_or_default();
    let why = keeper
        .map(|keeper| format!(" instead of deleted, because {} would create it again", keeper.as_str()));
    let message = format!("{told} (status compacted by ttlAfterFinished{})", why.unwrap_or_default());
    let mut status = restated(previous, scene, Some(message));
    status.compact();
    status
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
    let status = unfinished(progress, &previous, &Scene::of(&object.metadata));
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
        terminal(settled, &previous, &Scene::of(&object.metadata))
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
    let status = ended(ResultReason::InvalidSpec, &refusal.0, previous, &Scene::of(meta));
    match context.writer.replace_status::<Execution>(meta, &status).await {
        Ok(_) => Ok(Written::Yes),
        Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(Written::Superseded),
        Err(error) => Err(error),
    }
}

/// Tells the same end about the object as it is now.
///
/// # Errors
/// The API server did not take it.
pub async fn restate(context: &Context, object: &Execution) -> Result<(), ApiError> {
    let previous = object.status.clone().unwrap_or_default();
    let status = restated(&previous, &Scene::of(&object.metadata), None);
    context.writer.replace_status::<Execution>(&object.metadata, &status).await.map(drop)
}

/// Shortens the status of an end.
///
/// # Errors
/// The API server did not take it.
pub async fn compact(context: &Context, object: &Execution, keeper: Option<Keeper>) -> Result<(), ApiError> {
    let previous = object.status.clone().unwrap_or_default();
    let status = compacted(&previous, keeper, &Scene::of(&object.metadata));
    context.writer.replace_status::<Execution>(&object.metadata, &status).await.map(drop)
}

fn micro_time(text: &str) -> Option<MicroTime> {
    text.parse::<Timestamp>().ok().map(MicroTime)
}

fn now() -> Time {
    // Conditions have seconds; a finer time would not survive the round trip and look like a change.
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn clip(message: &str, limit: usize) -> String {
    match message.char_indices().nth(limit) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use requiem_model::Outcome;
    use requiem_proof::{Expect, verify};

    use super::super::decide::{Final, Proof};
    use super::super::samples::{body, planned, sealed};
    use super::*;

    fn at(generation: i64, second: i64) -> Scene {
        let now = Time(Timestamp::from_second(second).unwrap());
        Scene { generation, deleting: false, now }
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
        Settled { end, bundle: None, recalled: None, cache: None, violations: vec![] }
    }

    fn without_proof(result: ResultReason) -> Settled {
        let end =
            Final { result, message: "why".into(), attempts: 2, proof: None, verdict: None, endpoint: None };
        Settled { end, bundle: None, recalled: None, cache: None, violations: vec![] }
    }

    fn progress(reason: Reason) -> ExecutionStatus {
        let progress = Progress { reason, message: "why".into(), attempts: 1 };
        unfinished(&progress, &ExecutionStatus::default(), &at(3, 1))
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
            let status = terminal(&without_proof(result), &progress(Reason::Running), &at(3, 2));
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
        let status = terminal(&settled, &progress(Reason::Running), &at(3, 2));
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
        assert_eq!(unfinished(&again, &first, &at(3, 99)), first);
    }

    #[test]
    fn counters_never_go_back() {
        let later = ExecutionStatus { attempts: 7, observed_generation: 9, ..ExecutionStatus::default() };
        let again = Progress { reason: Reason::Running, message: "why".into(), attempts: 1 };
        let status = unfinished(&again, &later, &at(3, 1));
        assert_eq!((status.attempts, status.observed_generation), (7, 9));
        let status = terminal(&settled(Outcome::TimedOut), &later, &at(3, 1));
        assert_eq!((status.attempts, status.observed_generation), (7, 9));
    }

    #[test]
    fn what_is_being_deleted_is_never_ready() {
        let deleting = Scene { deleting: true, ..at(4, 9) };
        let running = unfinished(
            &Progress { reason: Reason::Running, message: "why".into(), attempts: 1 },
            &ExecutionStatus::default(),
            &deleting,
        );
        assert_eq!(state(&running), "Ready=False Succeeded=Unknown Reconciling=True");
        assert_eq!(running.conditions[0].reason, "Terminating");
        let done = terminal(&settled(Outcome::Exited { code: 0 }), &progress(Reason::Running), &at(3, 2));
        let status = restated(&done, &deleting, None);
        assert_eq!(state(&status), "Ready=False Succeeded=True");
        assert_eq!((status.conditions[0].reason.as_str(), status.observed_generation), ("Terminating", 4));
        let (before, after) = (&done.conditions[1], &status.conditions[1]);
        assert_eq!((&before.reason, &before.message), (&after.reason, &after.message));
        assert_eq!(before.last_transition_time, after.last_transition_time, "the time of the end moved");
    }

    #[test]
    fn a_compacted_status_says_what_it_said() {
        let mut settled = settled(Outcome::Exited { code: 3 });
        settled.end.message = "m".repeat(900);
        let done = terminal(&settled, &progress(Reason::Running), &at(3, 2));
        assert!(!done.missing_outputs.is_empty() && !done.sandbox.as_ref().unwrap().enforced.is_empty());
        let short = compacted(&done, Some(Keeper::Flux), &at(3, 99));
        assert_eq!((kstatus(&short, 3), state(&short)), ("Failed", state(&done)));
        assert!(short.conditions[0].message.ends_with("because Flux would create it again)"));
        assert!(short.conditions.iter().all(|c| c.message.len() < 250));
        assert_eq!((short.unlisted_outputs, short.missing_outputs.len()), (Some(1), 0));
        assert_eq!(short.stdout.as_ref().unwrap().digest, done.stdout.as_ref().unwrap().digest);
        assert!(short.stdout.as_ref().unwrap().tail.is_empty());
        let same = ["result", "exitCode", "proofRoot", "executionRoot", "requestDigest", "resultDigest"];
        let (before, after) = (serde_json::json!(done), serde_json::json!(short));
        assert!(same.iter().all(|field| before[field] == after[field] && !after[field].is_null()));
        for gone in ["/stdout/tail", "/missingOutputs", "/sandbox/enforced"] {
            assert!(before.pointer(gone).is_some() && after.pointer(gone).is_none(), "{gone}");
        }
    }

    #[test]
    fn an_answer_claims_no_run() {
        use super::super::recall::Recalled;
        use requiem_crds::status::{CacheStatus, OriginalStatus};
        let original =
            OriginalStatus { name: "first".into(), uid: "uid".into(), bundle: "first-uid-1".into() };
        let Settled { end, .. } = settled(Outcome::Exited { code: 0 });
        let verified = end.proof.clone().unwrap().verified;
        let hit = Settled {
            end: Final { proof: None, attempts: 0, ..end },
            bundle: None,
            recalled: Some(Box::new(Recalled { original: original.clone(), verified: verified.clone() })),
            cache: Some(CacheStatus { hit: true, original: Some(original) }),
            violations: vec![],
        };
        let status = terminal(&hit, &ExecutionStatus::default(), &at(1, 2));
        assert_eq!((status.attempts, status.exit_code), (0, Some(0)));
        assert_eq!(status.proof_root, Some(verified.bundle_root));
        assert_eq!(status.proof_bundle_ref.unwrap().name, "first-uid-1");
        assert!(status.start_time.is_none() && status.completion_time.is_none());
        assert!(status.duration.is_none() && status.executor.is_none());
        assert!(status.stdout.unwrap().tail.is_empty());
    }

    #[test]
    fn messages_are_clipped() {
        let progress = Progress { reason: Reason::Queued, message: "é".repeat(5000), attempts: 1 };
        let status = unfinished(&progress, &ExecutionStatus::default(), &at(1, 1));
        assert!(status.conditions.iter().all(|c| c.message.chars().count() <= 1001));
    }
}
