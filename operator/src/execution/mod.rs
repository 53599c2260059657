//! Executions: from the object to its terminal status.
//!
//! ```text
//! 1 observe   caches, memory, outages                 reads the cluster's caches
//! 2 validate  object → plan                           pure
//! 3 decide    plan × observed → step                  pure
//! 4 apply     calls executors, creates the ProofBundle   client
//! 5 report    one status write                        client
//! ```
//!
//! The warm way: watch event → start and wait in one call → the proof is recomputed → ProofBundle → one status
//! write → acknowledgement. A run that outlives two seconds gets one more status, and a background task that
//! waits for its end.

pub mod apply;
pub mod decide;
pub mod expire;
pub mod flights;
pub mod follow;
pub mod judge;
pub mod observe;
pub mod policy;
pub mod recall;
pub mod report;
#[cfg(test)]
pub(crate) mod samples;
pub mod tracker;
pub mod validate;

use std::time::Duration;

use kube::Resource;
use requiem_crds::execution::CacheMode;
use requiem_crds::status::ResultReason;
use requiem_crds::{Execution, ExecutionStatus};

use crate::context::{Context, Guarded, kinds};
use crate::dedicated;
use crate::kubeapi::ApiError;
use crate::proof_bundle;
use crate::queue::{Key, Verdict};
use crate::replay;
use apply::{Applied, ApplyError, Settled};
use decide::Progress;
use report::Written;
use tracker::Orphan;
use validate::{InvalidSpec, Plan};

/// Steps in one go. Twenty lost attempts in a row need about three steps each.
const MAX_STEPS: usize = 100;

/// Why a reconcile is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A step could not be done.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A status could not be written.
    #[error("the status could not be written: {0}")]
    Report(#[from] ApiError),
    /// The steps led nowhere.
    #[error("no end after {MAX_STEPS} steps")]
    Endless,
}

impl ReconcileError {
    fn at_least(&self) -> Option<Duration> {
        match self {
            Self::Apply(ApplyError::Api(error)) | Self::Report(error) => error.retry_after(),
            Self::Apply(ApplyError::Dispatch(error)) => error.retry_after(),
            Self::Endless => None,
        }
    }
}

/// Brings the Execution called `key` as far as it can go now.
pub async fn reconcile(context: Context, key: Key) -> Verdict {
    let failed = |error: ReconcileError| {
        tracing::warn!(execution = %key, %error, "reconcile failed and is tried again");
        error.at_least()
    };
    context.reconciled(kinds::EXECUTION, drive(&context, &key), failed).await
}

async fn drive(context: &Context, key: &Key) -> Result<Verdict, ReconcileError> {
    let Some(object) = observe::object(context, key) else {
        dedicated::sweep(context, key).await;
        return Ok(Verdict::Done);
    };
    let object = match &object.0 {
        Ok(object) => &context.tracker.freshest(object),
        Err(malformed) => {
            let refusal =
                InvalidSpec(format!("the stored object cannot be read: {}; create it anew", malformed.error));
            return refuse(context, &malformed.metadata, &ExecutionStatus::default(), &refusal).await;
        }
    };
    let plan = match validate::plan(object) {
        Ok(plan) => plan,
        Err(refusal) => {
            let previous = object.status.clone().unwrap_or_default();
            return refuse(context, object.meta(), &previous, &refusal).await;
        }
    };
    if let Err(trouble) = dedicated::introduce(context, &plan).await {
        let progress = Progress { reason: trouble.reason, message: trouble.message, attempts: 0 };
        report::progress(context, object, &progress).await?;
        return Ok(Verdict::Failed { at_least: None });
    }
    for _ in 0..MAX_STEPS {
        let Some(seen) = observe::observe(context, &plan) else { return Ok(Verdict::Done) };
        if is_idle(&plan, &seen.known.place) {
            context.flights.leave(&plan.uid, None);
        }
        match apply::apply(context, &plan, decide::next(&plan, &seen)).await? {
            Applied::Again => {}
            Applied::Rest(verdict) => return Ok(verdict),
            Applied::Report(progress, verdict) => {
                report::progress(context, object, &progress).await?;
                return Ok(verdict);
            }
            Applied::End(settled) => return conclude(context, object, &plan, *settled).await,
        }
    }
    Err(ReconcileError::Endless)
}

/// Writes the end; then, and only then, the executor may forget the attempt.
async fn conclude(
    context: &Context,
    object: &Execution,
    plan: &Plan,
    settled: Settled,
) -> Result<Verdict, ReconcileError> {
    // Asked first: as soon as the status is terminal, the watch reports the object as gone.
    let seen = context.tracker.with(&plan.uid, |live| live.seen);
    context.flights.landing(&plan.uid);
    let written = match report::end(context, object, &settled).await {
        Ok(written) => written,
        Err(error) => {
            context.flights.aborted(&plan.uid);
            return Err(error.into());
        }
    };
    let Settled { end, bundle, recalled, violations, .. } = settled;
    let wanted = replay::wanted(context, plan, end.endpoint.as_ref().map(|endpoint| endpoint.name.as_str()));
    context.tracker.with(&plan.uid, |live| live.place = tracker::Place::Finished);
    if written == Written::Yes {
        let took = seen.map(|seen| seen.elapsed()).unwrap_or_default();
        announce(context, object, end.result, &end.message, took);
        for violation in &violations {
            context.metrics.policy_refusal(violation.kind.as_str(), violation.rule);
        }
    }
    if let Some(endpoint) = end.endpoint {
        context.gates.room(&endpoint);
        let orphan = Orphan { endpoint, uid: plan.uid.clone(), attempt: end.attempts };
        tokio::spawn(release(context.clone(), Some(orphan), plan.clone()));
    } else if end.result != ResultReason::ProofRejected {
        // The journal of an executor whose proof was refused is evidence, and stays with its pod.
        tokio::spawn(release(context.clone(), None, plan.clone()));
    }
    // After the status, which somebody waits for: two writes at once make each other slower.
    let published = match bundle {
        Some(bundle) => proof_bundle::conclude(context, bundle, wanted).await,
        None => None,
    };
    if recalled.is_some() && written == Written::Yes {
        context.metrics.cache("hit");
    }
    let answer = recalled.map(|recalled| recalled.original.bundle).or(published);
    land(context, plan, answer.filter(|_| end.result == ResultReason::Succeeded));
    Ok(Verdict::Done)
}

/// Tells those who asked for the same. Only now: the mark by which a bundle answers is written last.
fn land(context: &Context, plan: &Plan, answer: Option<String>) {
    context.flights.leave(&plan.uid, answer.as_deref());
    if let (CacheMode::Refresh, Some(route), Some(bundle)) = (plan.cache, plan.route(), &answer) {
        context.flights.renew(&route, bundle);
    }
}

/// Whether nothing of it runs and it does not want to: identical ones do not wait for it.
fn is_idle(plan: &Plan, place: &tracker::Place) -> bool {
    (plan.suspend || plan.cancel) && *place == tracker::Place::Nowhere
}

async fn refuse(
    context: &Context,
    meta: &kube::api::ObjectMeta,
    previous: &ExecutionStatus,
    refusal: &InvalidSpec,
) -> Result<Verdict, ReconcileError> {
    report::invalid(context, meta, previous, refusal).await?;
    let uid = meta.uid.clone().unwrap_or_default();
    context.tracker.with(&uid, |live| live.place = tracker::Place::Finished);
    context.flights.leave(&uid, None);
    context.metrics.finished(ResultReason::InvalidSpec.as_str(), false, Duration::ZERO);
    Ok(Verdict::Done)
}

fn announce(context: &Context, object: &Execution, result: ResultReason, message: &str, took: Duration) {
    let succeeded = result == ResultReason::Succeeded;
    context.metrics.finished(result.as_str(), succeeded, took);
    if !succeeded {
        context.events.warn(object.object_ref(&()), "Run", result.as_str(), message);
    }
}

/// The result is safe: the executor may forget it, and a pod that was made for it goes.
async fn release(context: Context, attempt: Option<Orphan>, plan: Plan) {
    if let Some(attempt) = attempt {
        acknowledge(context.clone(), attempt).await;
    }
    if plan.pod.is_some() {
        dedicated::clear(&context, &plan.key, &plan.uid).await;
    }
}

/// Best effort: what is not acknowledged only stays in the journal for longer.
async fn acknowledge(context: Context, attempt: Orphan) {
    let Orphan { endpoint, uid, attempt } = attempt;
    for attempt in 1..=attempt {
        if let Err(error) = context.dispatcher.ack(&endpoint, &uid, attempt).await {
            tracing::debug!(%endpoint, uid, attempt, %error, "acknowledgement was not taken");
        }
    }
}

/// An Execution was deleted while its attempt may be running: tells the executor, best effort.
pub fn abandon(context: &Context, orphan: Orphan) {
    let context = context.clone();
    tokio::spawn(async move {
        let Orphan { endpoint, uid, attempt } = orphan;
        match context.dispatcher.cancel(&endpoint, &uid, attempt).await {
            Ok(()) => tracing::info!(%endpoint, uid, attempt, "attempt of a deleted Execution was ended"),
            Err(error) => {
                tracing::warn!(%endpoint, uid, attempt, %error, "attempt of a deleted Execution runs on")
            }
        }
        context.gates.room(&endpoint);
    });
}

/// Notes an Execution that the watch shows, and has it looked at.
pub fn seen(context: &Context, object: &Guarded<Execution>, live: bool) {
    let meta = object.meta();
    let untouched = match &object.0 {
        Ok(execution) => execution.status.as_ref().is_none_or(|status| status.observed_generation < 0),
        Err(_) => false,
    };
    let key = Key::of(object);
    context.tracker.see(meta.uid.as_deref().unwrap_or_default(), key.clone(), live && untouched);
    enlist(context, object);
    context.execution_queue.push(key);
}

/// Notes that an Execution wants what others may want too. After a restart this is done for all of them before any is
/// looked at.
pub fn enlist(context: &Context, object: &Guarded<Execution>) {
    let Ok(execution) = &object.0 else { return };
    // Whoever does not ask for it pays no more than this.
    if requiem_crds::keeper::cache_mode(execution) != CacheMode::Use {
        return;
    }
    let Ok(plan) = validate::plan(execution) else { return };
    let Some(route) = plan.route() else { return };
    let place = context.tracker.with(&plan.uid, |live| live.place.clone());
    match place {
        Some(place) if is_idle(&plan, &place) || place == tracker::Place::Finished => {}
        _ => context.flights.join(&plan.uid, &plan.key, route),
    }
}
