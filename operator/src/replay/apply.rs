//! Step 4: does what was decided, and notes what came of it.

use std::time::Duration;

use kube::Resource;
use requiem_crds::condition::Reason;
use requiem_crds::replay::{ReplayOutcome, ReplayPhase, ReplaysStatus};

use super::decide::{Ended, Step, lost};
use super::memory::Place;
use super::observe::{Case, Obstacle};
use super::{ReplayError, forget, post_of, report};
use crate::backoff;
use crate::context::Context;
use crate::dispatch::{DispatchError, Endpoint, Refusal};
use crate::execution::validate::Plan;
use crate::fleet::{Post, Roster};
use crate::queue::{Key, Verdict};

/// How long the call that starts a replay waits for its end.
const START_WAIT: Duration = Duration::from_secs(2);
/// How long one poll waits for it. After each, bundle and Execution are read anew.
const POLL: Duration = Duration::from_secs(30);
/// When an executor without room is asked again, if it does not say.
const FULL: Duration = Duration::from_secs(1);

/// What came of a step.
#[derive(Debug)]
pub enum Applied {
    /// Something new is known: decide again.
    Again,
    /// Nothing more now.
    Rest(Verdict),
}

const DONE: Applied = Applied::Rest(Verdict::Done);
const LATER: Applied = Applied::Rest(Verdict::Failed { at_least: None });

/// Does one step.
///
/// # Errors
/// What has to be tried again later.
pub async fn apply(context: &Context, key: &Key, case: &Case, step: Step) -> Result<Applied, ReplayError> {
    match (step, &case.plan) {
        (Step::Finish(obstacle), _) => finish(context, key, case, &obstacle).await,
        (Step::Rest(again), _) => Ok(Applied::Rest(Verdict::Again(again))),
        (Step::Hold { reason, message, again }, _) => hold(context, case, reason, &message, again).await,
        (Step::Record(ended), _) => record(context, key, case, *ended).await,
        (Step::Ask(endpoints), Ok(plan)) => ask(context, key, case, plan, &endpoints).await,
        (Step::Start(endpoint), Ok(plan)) => start(context, key, case, plan, endpoint).await,
        (Step::Wait(endpoint), Ok(plan)) => wait(context, key, case, plan, endpoint).await,
        // Without a plan nothing is decided but the end.
        (Step::Ask(_) | Step::Start(_) | Step::Wait(_), Err(_)) => Ok(LATER),
    }
}

/// Ends the replays before all have run.
async fn finish(context: &Context, key: &Key, case: &Case, why: &Obstacle) -> Result<Applied, ReplayError> {
    let replays = ReplaysStatus { phase: ReplayPhase::Done, ..case.replays.clone() };
    let why = format!("{}: {}", why.reason, why.message);
    let told = report::condition(&replays, Some((Reason::ReplaysIncomplete, &why)));
    if !report::write(context, &case.bundle, replays, &told).await? {
        return Ok(LATER);
    }
    context.events.warn(case.bundle.object_ref(&()), "Replay", &told.reason, &told.message);
    forget(context, key);
    Ok(DONE)
}

async fn hold(
    context: &Context,
    case: &Case,
    reason: Reason,
    message: &str,
    again: Duration,
) -> Result<Applied, ReplayError> {
    let told = report::condition(&case.replays, Some((reason, message)));
    let written = report::write(context, &case.bundle, case.replays.clone(), &told).await?;
    Ok(if written { Applied::Rest(Verdict::Again(again)) } else { LATER })
}

/// Writes down a run that has ended. Only then its executor may forget it, and the next number may begin.
async fn record(context: &Context, key: &Key, case: &Case, ended: Ended) -> Result<Applied, ReplayError> {
    let replays = report::recorded(case, &ended.run);
    let Some(run) = replays.runs.last().cloned() else { return Ok(LATER) };
    let told = report::condition(&replays, None);
    let phase = replays.phase;
    if !report::write(context, &case.bundle, replays, &told).await? {
        return Ok(LATER);
    }
    context.metrics.replay(run.outcome.as_str());
    // Nobody else can have begun the next one: it did not exist before this write.
    context.replays.put(key, run.number.saturating_add(1), Place::Nowhere);
    if let Some(endpoint) = ended.forget {
        acknowledge(context, vec![(endpoint, case.uid(run.number))]);
    }
    if run.outcome == ReplayOutcome::Diverges {
        context.events.warn(case.bundle.object_ref(&()), "Replay", &told.reason, &told.message);
    }
    if phase == ReplayPhase::Done {
        forget(context, key);
        return Ok(DONE);
    }
    Ok(match run.outcome {
        ReplayOutcome::Failed => Applied::Rest(Verdict::Again(backoff::delay(&key.to_string(), run.number))),
        ReplayOutcome::Agrees | ReplayOutcome::Diverges => Applied::Again,
    })
}

/// Best effort: what is not acknowledged only stays in the journal for longer.
fn acknowledge(context: &Context, attempts: Vec<(Endpoint, String)>) {
    let context = context.clone();
    tokio::spawn(async move {
        for (endpoint, uid) in attempts {
            if let Err(error) = context.dispatcher.ack(&endpoint, &uid, 1).await {
                tracing::debug!(%endpoint, uid, %error, "acknowledgement was not taken");
            }
        }
    });
}

/// Asks everybody at once. The run is nowhere only if all of them say so.
async fn ask(
    context: &Context,
    key: &Key,
    case: &Case,
    plan: &Plan,
    endpoints: &[Endpoint],
) -> Result<Applied, ReplayError> {
    let before = context.replays.place(key, case.number());
    if before == Some(Place::Unknown) {
        // The operator that recorded these may have died before it said so.
        let posts = posts(context, plan);
        let recorded = case.replays.runs.iter().filter(|run| run.body.is_some());
        let attempts =
            recorded.filter_map(|run| Some((post_of(&posts, &run.executor)?.clone(), case.uid(run.number))));
        acknowledge(context, attempts.collect());
    }
    let calls = endpoints.iter().map(|endpoint| context.dispatcher.ask(endpoint, &plan.uid, 1));
    let answers = futures::future::join_all(calls).await;
    let mut place = Place::Nowhere;
    let mut trouble = None;
    for (endpoint, answer) in endpoints.iter().zip(answers) {
        match answer {
            Ok(Some(state)) => place = Place::At(endpoint.clone(), Box::new(state)),
            Ok(None) => {}
            Err(error) => trouble = Some((endpoint, error)),
        }
    }
    match (place, trouble, before) {
        (Place::Nowhere, Some((endpoint, error)), _) => trouble_with(context, case, endpoint, &error).await,
        (Place::Nowhere, None, Some(Place::At(endpoint, _))) => {
            forgotten(context, key, case, plan, &endpoint).await
        }
        (place, ..) => Ok(put(context, key, case, place)),
    }
}

async fn start(
    context: &Context,
    key: &Key,
    case: &Case,
    plan: &Plan,
    endpoint: Endpoint,
) -> Result<Applied, ReplayError> {
    if !context.replays.put(key, case.number(), Place::Sent(endpoint.clone())) {
        return Ok(DONE);
    }
    let call = plan.start(1);
    let answer = context.dispatcher.start(&endpoint, &call, START_WAIT);
    let Some(answer) = context.replays.unless_released(key, answer).await else { return Ok(DONE) };
    match answer {
        Ok(state) => Ok(put(context, key, case, Place::At(endpoint, Box::new(state)))),
        Err(error) if error.is_draining() => {
            // It adopts what it has even then, so it does not have this one.
            context.health.failed(&endpoint, &error);
            Ok(put(context, key, case, Place::Nowhere))
        }
        Err(DispatchError::Refused { refusal: Refusal::QueueFull, retry_after, .. }) => {
            context.replays.put(key, case.number(), Place::Nowhere);
            let message = format!("executor {endpoint} has no free slot and no place in its queue");
            hold(context, case, Reason::ExecutorsBusy, &message, retry_after.unwrap_or(FULL).max(FULL)).await
        }
        Err(error) => {
            if !error.is_absence() {
                // Refused, so not started by this call; but somebody else's may be the reason.
                context.replays.put(key, case.number(), Place::Unknown);
            }
            trouble_with(context, case, &endpoint, &error).await
        }
    }
}

async fn wait(
    context: &Context,
    key: &Key,
    case: &Case,
    plan: &Plan,
    endpoint: Endpoint,
) -> Result<Applied, ReplayError> {
    // What held it up before does not any more.
    let told = report::condition(&case.replays, None);
    if !report::write(context, &case.bundle, case.replays.clone(), &told).await? {
        return Ok(LATER);
    }
    let answer = context.dispatcher.wait(&endpoint, &plan.uid, 1, POLL);
    let Some(answer) = context.replays.unless_released(key, answer).await else { return Ok(DONE) };
    match answer {
        Ok(Some(state)) => Ok(put(context, key, case, Place::At(endpoint, Box::new(state)))),
        Ok(None) => forgotten(context, key, case, plan, &endpoint).await,
        Err(error) if error.is_draining() => {
            // It had not begun, and will not begin there.
            context.health.failed(&endpoint, &error);
            Ok(put(context, key, case, Place::Unknown))
        }
        Err(error) => trouble_with(context, case, &endpoint, &error).await,
    }
}

fn put(context: &Context, key: &Key, case: &Case, place: Place) -> Applied {
    let runs = match &place {
        Place::At(endpoint, state) if !state.is_final() => Some(endpoint.clone()),
        _ => None,
    };
    if context.replays.put(key, case.number(), place) {
        return Applied::Again;
    }
    // The bundle went while the call was under way.
    if let Some(endpoint) = runs {
        let (context, uid) = (context.clone(), case.uid(case.number()));
        tokio::spawn(async move { context.dispatcher.cancel(&endpoint, &uid, 1).await });
    }
    DONE
}

/// The executor had it, and knows nothing of it any more: it may have run, and is not run again under this number.
async fn forgotten(
    context: &Context,
    key: &Key,
    case: &Case,
    plan: &Plan,
    endpoint: &Endpoint,
) -> Result<Applied, ReplayError> {
    let why = "the executor knows nothing of it any more: its journal was lost";
    let run = lost(case, &posts(context, plan), endpoint, why);
    record(context, key, case, Ended { run, forget: None }).await
}

fn posts(context: &Context, plan: &Plan) -> Vec<Post> {
    let roster = context.fleet.roster(&plan.pool);
    roster.as_deref().map_or_else(Vec::new, |roster| Roster::posts(roster).to_vec())
}

/// No answer: the probe says when there is one. An answer that makes no sense is told.
async fn trouble_with(
    context: &Context,
    case: &Case,
    endpoint: &Endpoint,
    error: &DispatchError,
) -> Result<Applied, ReplayError> {
    if error.is_absence() {
        context.health.failed(endpoint, error);
        return Ok(if context.health.outage(endpoint).is_some() { Applied::Again } else { LATER });
    }
    tracing::warn!(%endpoint, %error, "executor refused a replay");
    hold(context, case, Reason::ExecutorUnavailable, &error.to_string(), Duration::ZERO).await?;
    Ok(Applied::Rest(Verdict::Failed { at_least: error.retry_after() }))
}
