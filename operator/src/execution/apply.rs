//! Step 4: does what was decided, and notes what came of it.

use std::time::Duration;

use requiem_crds::admission::{self, Violation};
use requiem_crds::condition::Reason;
use requiem_crds::execution::CacheMode;
use requiem_crds::status::{CacheStatus, ResultReason};
use requiem_crds::{Execution, ProofBundle};
use requiem_model::attempt::AttemptState;

use super::decide::{Final, Progress, Proof, Step};
use super::flights::Turn;
use super::follow::{self, Followed};
use super::policy::Admission;
use super::recall::{self, Recalled};
use super::tracker::Place;
use super::validate::{Plan, wants_end};
use crate::context::Context;
use crate::dedicated;
use crate::dispatch::{DispatchError, Endpoint, Refusal};
use crate::kubeapi::ApiError;
use crate::proof_bundle::{self, Published};
use crate::queue::{Key, Verdict};

/// How long the call that starts an attempt waits for its end. Shorter runs cost one call and one status.
const START_WAIT: Duration = Duration::from_secs(2);
/// An Execution that was seen longer ago than this is read again, past the cache, before it is started.
const YOUNG: Duration = Duration::from_secs(2);
/// Waiting in line is ended by an event; this is for the event that never came.
const IN_LINE: Duration = Duration::from_secs(60);

/// What came of a step.
#[derive(Debug)]
pub enum Applied {
    /// Something new is known: decide again.
    Again,
    /// Nothing more now.
    Rest(Verdict),
    /// Say how far it is.
    Report(Progress, Verdict),
    /// Say how it ended. Only this module makes one, after the proof was published.
    End(Box<Settled>),
}

/// An end whose proof lies where the status will say.
#[derive(Debug)]
pub struct Settled {
    /// The end.
    pub end: Final,
    /// The ProofBundle that holds the proof, if it was published.
    pub bundle: Option<Published>,
    /// The earlier result that answers; then nothing ran.
    pub recalled: Option<Box<Recalled>>,
    /// Whether an answer was asked for, and found.
    pub cache: Option<CacheStatus>,
    /// Rules of policies that ended it.
    pub violations: Vec<Violation>,
}

/// Why a step could not be done; it will be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server did not take a write.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The executor's answer is of no use.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
}

/// Does one step.
///
/// # Errors
/// What has to be tried again later.
pub async fn apply(context: &Context, plan: &Plan, step: Step) -> Result<Applied, ApplyError> {
    match step {
        Step::Rest => Ok(Applied::Rest(Verdict::Done)),
        Step::Ask { attempt, endpoints } => ask(context, plan, attempt, &endpoints).await,
        Step::Make { attempt } => Ok(make(context, plan, attempt).await),
        Step::Recall => recall(context, plan).await,
        Step::Start { attempt, endpoint } => start(context, plan, attempt, endpoint).await,
        Step::Cancel { attempt, endpoint } => cancel(context, plan, attempt, &endpoint).await,
        Step::Follow { attempt, endpoint, report, again } => {
            let followed = Followed { key: plan.key.clone(), uid: plan.uid.clone(), attempt, endpoint };
            follow::ensure(context, followed);
            let verdict = again.map_or(Verdict::Done, Verdict::Again);
            Ok(report.map_or(Applied::Rest(verdict), |report| Applied::Report(report, verdict)))
        }
        Step::Advance { attempt, lost, wait, why } => Ok(advance(context, plan, attempt, lost, wait, &why)),
        Step::Hold { report, again } => {
            let verdict = Verdict::Again(again);
            Ok(report.map_or(Applied::Rest(verdict), |report| Applied::Report(report, verdict)))
        }
        Step::Refuse { attempts, violations } => Ok(refuse(plan, attempts, violations)),
        Step::Finish(end) => finish(context, plan, *end).await,
    }
}

/// Asks everybody at once. The attempt is nowhere only if all of them say so.
async fn ask(
    context: &Context,
    plan: &Plan,
    attempt: u32,
    endpoints: &[Endpoint],
) -> Result<Applied, ApplyError> {
    let calls = endpoints.iter().map(|endpoint| context.dispatcher.ask(endpoint, &plan.uid, attempt));
    let answers = futures::future::join_all(calls).await;
    let mut place = Place::Nowhere;
    let mut trouble = None;
    for (endpoint, answer) in endpoints.iter().zip(answers) {
        match answer {
            Ok(Some(state)) => place = Place::At(endpoint.clone(), Box::new(state)),
            Ok(None) => {}
            Err(error) if error.is_absence() => {
                context.health.failed(endpoint, &error);
                trouble = Some(error);
            }
            Err(error) => trouble = Some(error),
        }
    }
    match (place, trouble) {
        (Place::Nowhere, Some(error)) if error.is_absence() => Ok(Applied::Again),
        (Place::Nowhere, Some(error)) => Ok(refused(plan, attempt.saturating_sub(1), &error)),
        (place, _) => {
            context.tracker.with(&plan.uid, |live| live.place = place);
            Ok(Applied::Again)
        }
    }
}

/// The pod's own events bring the Execution back.
async fn make(context: &Context, plan: &Plan, attempt: u32) -> Applied {
    let Some(spec) = &plan.pod else { return Applied::Rest(Verdict::Done) };
    match dedicated::make(context, plan, spec, attempt).await {
        Ok(()) => Applied::Rest(Verdict::Again(IN_LINE)),
        Err(trouble) => {
            let progress =
                Progress { reason: trouble.reason, message: trouble.message, attempts: attempt - 1 };
            Applied::Report(progress, Verdict::Failed { at_least: None })
        }
    }
}

/// Finds an earlier result, or makes sure that no identical Execution runs.
async fn recall(context: &Context, plan: &Plan) -> Result<Applied, ApplyError> {
    if let Some(route) = plan.route() {
        context.flights.join(&plan.uid, &plan.key, route);
    }
    let recalled = match context.flights.turn(&plan.uid, |uid| context.tracker.may_run(uid)) {
        Turn::Wait(holder) => return Ok(waiting(context, plan, &holder)),
        Turn::Go(None) => recall::find(context, plan).await?,
        Turn::Go(Some(bundle)) => {
            let recalled = recall::read(context, plan, &bundle).await?;
            if recalled.is_none() {
                context.flights.unanswered(&plan.uid);
                return Ok(Applied::Again);
            }
            recalled
        }
    };
    match recalled {
        Some(recalled) => Ok(Applied::End(Box::new(answered(recalled)))),
        None => {
            context.metrics.cache("miss");
            context.tracker.with(&plan.uid, |live| live.unanswered = true);
            Ok(Applied::Again)
        }
    }
}

fn answered(recalled: Recalled) -> Settled {
    let original = recalled.original.clone();
    let message = format!(
        "nothing ran: ProofBundle {} of Execution {} ({}) answers the same request",
        original.bundle, original.name, original.uid
    );
    let end = Final {
        result: ResultReason::Succeeded,
        message,
        attempts: 0,
        proof: None,
        verdict: None,
        endpoint: None,
    };
    let cache = Some(CacheStatus { hit: true, original: Some(original) });
    Settled { end, bundle: None, recalled: Some(Box::new(recalled)), cache, violations: vec![] }
}

/// Somebody else runs the same. Said after a while only: most of what is waited for is over sooner.
fn waiting(context: &Context, plan: &Plan, holder: &Key) -> Applied {
    let first = context.tracker.with(&plan.uid, |live| !std::mem::replace(&mut live.waited, true));
    if first == Some(true) {
        context.metrics.cache("wait");
    }
    let age = context.tracker.with(&plan.uid, |live| live.seen.elapsed()).unwrap_or_default();
    if age < YOUNG {
        return Applied::Rest(Verdict::Again(YOUNG - age));
    }
    let message = format!(
        "Execution {holder} runs, or is about to run, the same request; if it succeeds, it answers this one too"
    );
    let progress = Progress { reason: Reason::WaitingForIdentical, message, attempts: 0 };
    Applied::Report(progress, Verdict::Again(IN_LINE))
}

async fn start(
    context: &Context,
    plan: &Plan,
    attempt: u32,
    endpoint: Endpoint,
) -> Result<Applied, ApplyError> {
    if !context.gates.admits(&endpoint, &plan.key) {
        return Ok(in_line(context, plan, attempt, &endpoint));
    }
    if is_outdated(context, plan).await? {
        // Somebody else may have used the place in line.
        context.gates.room(&endpoint);
        return Ok(Applied::Rest(Verdict::Done));
    }
    if is_unadmitted(context, plan, &endpoint) {
        context.gates.room(&endpoint);
        return Ok(Applied::Again);
    }
    context.tracker.with(&plan.uid, |live| live.place = Place::Sent(endpoint.clone()));
    match context.dispatcher.start(&endpoint, &plan.start(attempt), START_WAIT).await {
        Ok(state) => {
            accepted(context, plan, &endpoint, state);
            Ok(Applied::Again)
        }
        Err(error) if error.is_draining() => {
            // It adopts what it has even then, so it does not have this one.
            context.tracker.with(&plan.uid, |live| live.place = Place::Nowhere);
            context.health.failed(&endpoint, &error);
            Ok(Applied::Again)
        }
        Err(error) if error.is_absence() => {
            context.health.failed(&endpoint, &error);
            Ok(Applied::Again)
        }
        Err(DispatchError::Refused { refusal: Refusal::QueueFull, retry_after, .. }) => {
            context
                .tracker
                .with(&plan.uid, |live| (live.place, live.refusals) = (Place::Nowhere, live.refusals + 1));
            context.gates.refused(&endpoint, &plan.key, retry_after);
            Ok(in_line(context, plan, attempt, &endpoint))
        }
        Err(error) => {
            // Refused, so not started by this call; but somebody else's attempt may be the reason.
            context.tracker.with(&plan.uid, |live| live.place = Place::Unknown);
            Ok(refused(plan, attempt, &error))
        }
    }
}

/// Whether policies have come to refuse a start since it was decided. One that was sent before is only repeated.
fn is_unadmitted(context: &Context, plan: &Plan, endpoint: &Endpoint) -> bool {
    let sent = Place::Sent(endpoint.clone());
    let repeated = context.tracker.with(&plan.uid, |live| live.place == sent);
    repeated != Some(true) && context.policies.judge(plan) != Admission::Admitted
}

/// Whether the object is over, gone or changed, though the cache does not know yet. Asked only when the
/// Execution is not new: then a second operator, or this one before its restart, may have finished it.
async fn is_outdated(context: &Context, plan: &Plan) -> Result<bool, ApplyError> {
    let age = context.tracker.with(&plan.uid, |live| live.seen.elapsed());
    if age.is_none_or(|age| age < YOUNG) {
        return Ok(age.is_none());
    }
    match context.writer.get::<Execution>(&plan.key).await {
        Ok(now) => {
            let over = now.status.as_ref().is_some_and(|status| status.terminal);
            let other = now.metadata.uid.as_deref() != Some(plan.uid.as_str());
            // A changed spec is on its way through the watch, and will bring us back.
            Ok(over || other || (wants_end(&now), now.spec.suspend) != (plan.cancel, plan.suspend))
        }
        Err(ApiError::Gone { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn accepted(context: &Context, plan: &Plan, endpoint: &Endpoint, state: AttemptState) {
    context.tracker.with(&plan.uid, |live| {
        live.place = Place::At(endpoint.clone(), Box::new(state));
        live.refusals = 0;
    });
    context.gates.room(endpoint);
}

async fn cancel(
    context: &Context,
    plan: &Plan,
    attempt: u32,
    endpoint: &Endpoint,
) -> Result<Applied, ApplyError> {
    match context.dispatcher.cancel(endpoint, &plan.uid, attempt).await {
        Ok(()) => {
            context.tracker.with(&plan.uid, |live| live.cancelling = true);
            Ok(Applied::Again)
        }
        Err(error) if error.is_absence() => {
            context.health.failed(endpoint, &error);
            Ok(Applied::Again)
        }
        Err(error) => Err(error.into()),
    }
}

fn advance(context: &Context, plan: &Plan, attempt: u32, lost: bool, wait: Duration, why: &str) -> Applied {
    let known = context.tracker.with(&plan.uid, |live| {
        live.attempt = attempt;
        live.place = if live.fresh { Place::Nowhere } else { Place::Unknown };
        live.cancelling = false;
        live.not_before = std::time::Instant::now().checked_add(wait).filter(|_| !wait.is_zero());
        if lost {
            live.losses += 1;
        } else {
            live.failures += 1;
        }
    });
    if known.is_none() {
        return Applied::Rest(Verdict::Done);
    }
    tracing::warn!(execution = %plan.key, attempt, why, "another attempt follows");
    if wait.is_zero() {
        return Applied::Again;
    }
    let message = format!("{why}; attempt {attempt} follows");
    Applied::Report(
        Progress { reason: Reason::Retrying, message, attempts: attempt - 1 },
        Verdict::Again(wait),
    )
}

/// Nothing more will run: the end without a proof.
fn refuse(plan: &Plan, attempts: u32, violations: Vec<Violation>) -> Applied {
    let end = Final {
        result: ResultReason::PolicyViolation,
        message: admission::told(&violations, attempts),
        attempts,
        proof: None,
        verdict: None,
        endpoint: None,
    };
    Applied::End(Box::new(Settled { end, bundle: None, recalled: None, cache: unanswered(plan), violations }))
}

/// Publishes the proof where that is wanted, so that the status can name it.
async fn finish(context: &Context, plan: &Plan, end: Final) -> Result<Applied, ApplyError> {
    if let Some(code) = end.verdict {
        context.metrics.proof_verdict(code);
    }
    let bundle = match &end.proof {
        Some(proof) if plan.publish => match publish(context, plan, proof).await {
            Ok(bundle) => Some(bundle),
            Err(error @ (ApiError::Exists { .. } | ApiError::Refused { .. } | ApiError::Fenced { .. })) => {
                return Ok(unpublished(context, plan, &end, &error));
            }
            Err(error) => return Err(error.into()),
        },
        _ => None,
    };
    let cache = unanswered(plan);
    Ok(Applied::End(Box::new(Settled { end, bundle, recalled: None, cache, violations: vec![] })))
}

/// What an end says of an answer that was asked for, and not found.
fn unanswered(plan: &Plan) -> Option<CacheStatus> {
    (plan.cache != CacheMode::Never).then_some(CacheStatus { hit: false, original: None })
}

async fn publish(context: &Context, plan: &Plan, proof: &Proof) -> Result<Published, ApiError> {
    let bundle: ProofBundle = proof_bundle::object(plan, &proof.verified, &proof.sealed.body);
    proof_bundle::publish(context, bundle, &proof.verified).await
}

/// The result is safe in the executor's journal; only its object could not be made. Somebody has to make room.
fn unpublished(context: &Context, plan: &Plan, end: &Final, error: &ApiError) -> Applied {
    let message = format!(
        "the command has ended ({}), but its ProofBundle could not be created: {error}; free the name or the quota, \
         or set spec.proof.publish to Never in a new Execution",
        end.result
    );
    let again = error.retry_after().unwrap_or(Duration::from_secs(15));
    tracing::warn!(execution = %plan.key, %error, "proof is not published");
    context.metrics.proof_verdict("Unpublished");
    let progress = Progress { reason: Reason::PublishFailed, message, attempts: end.attempts };
    Applied::Report(progress, Verdict::Again(again))
}

fn in_line(context: &Context, plan: &Plan, attempt: u32, endpoint: &Endpoint) -> Applied {
    let verdict = Verdict::Again(IN_LINE);
    let age = context.tracker.with(&plan.uid, |live| live.seen.elapsed()).unwrap_or_default();
    if age < YOUNG {
        return Applied::Rest(Verdict::Again(YOUNG - age));
    }
    let message = format!("executor {endpoint} has no free slot and no place in its queue; waiting in line");
    Applied::Report(Progress { reason: Reason::ExecutorsBusy, message, attempts: attempt - 1 }, verdict)
}

/// An answer that makes no sense now and may make sense later, after somebody has looked.
fn refused(plan: &Plan, attempts: u32, error: &DispatchError) -> Applied {
    tracing::warn!(execution = %plan.key, %error, "executor refused");
    let progress = Progress { reason: Reason::ExecutorUnavailable, message: error.to_string(), attempts };
    Applied::Report(progress, Verdict::Failed { at_least: error.retry_after() })
}
