//! Steps 1 and 2: bundle and Execution as they are now, and the plan of the replay that is next.

use requiem_crds::replay::{ReplayPhase, ReplaysStatus};
use requiem_crds::{Execution, ProofBundle};
use requiem_proof::{Expect, Verified, verify};

use super::decide::{Crew, Seen};
use super::uid;
use crate::context::Context;
use crate::execution::validate::{self, Plan};
use crate::fleet::Roster;
use crate::health::Outage;
use crate::kubeapi::ApiError;
use crate::queue::Key;

/// A bundle with replays that are not over.
#[derive(Debug)]
pub struct Case {
    /// The object.
    pub bundle: ProofBundle,
    /// What was recorded.
    pub replays: ReplaysStatus,
    /// The first run, recomputed.
    pub original: Verified,
    /// The plan of the next replay, or why there can be none.
    pub plan: Result<Plan, Obstacle>,
}

/// Why nothing more can be replayed: a stable word, and the same for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Case {
    /// Number of the next replay.
    pub fn number(&self) -> u32 {
        next_number(&self.replays)
    }

    /// UID of replay `number`.
    pub fn uid(&self, number: u32) -> String {
        uid(self.bundle.metadata.uid.as_deref().unwrap_or_default(), number)
    }
}

/// The bundle `key`, if it is there, is to stay, and has replays that are not over.
///
/// # Errors
/// The API server did not answer.
pub async fn case(context: &Context, key: &Key) -> Result<Option<Case>, ApiError> {
    let bundle = match context.writer.get::<ProofBundle>(key).await {
        Ok(bundle) if bundle.metadata.deletion_timestamp.is_none() => bundle,
        Ok(_) | Err(ApiError::Gone { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let replays = bundle.status.as_ref().and_then(|status| status.replays.clone());
    let Some(replays) = replays.filter(|replays| replays.phase == ReplayPhase::Running) else {
        return Ok(None);
    };
    // Nobody can have broken it: it was judged before, and its spec cannot change.
    let Ok(original) = verify(&bundle.spec.body, &Expect::default()) else { return Ok(None) };
    let execution = Key { namespace: key.namespace.clone(), name: bundle.spec.execution_ref.name.clone() };
    let plan = match context.writer.get::<Execution>(&execution).await {
        Ok(execution) => plan(&bundle, &replays, &original, &execution),
        Err(ApiError::Gone { .. }) => Err(gone()),
        Err(error) => return Err(error),
    };
    Ok(Some(Case { bundle, replays, original, plan }))
}

/// The plan of the next replay: the Execution's own, under a UID of its own.
///
/// # Errors
/// Nobody wants it any more, or it would not be the same request.
pub fn plan(
    bundle: &ProofBundle,
    replays: &ReplaysStatus,
    original: &Verified,
    execution: &Execution,
) -> Result<Plan, Obstacle> {
    let same = execution.metadata.uid.as_deref() == Some(bundle.spec.execution_ref.uid.as_str());
    if !same || validate::wants_end(execution) {
        return Err(gone());
    }
    let changed = |message: String| Obstacle { reason: "RequestChanged", message };
    let plan = validate::plan(execution).map_err(|error| changed(error.to_string()))?;
    if plan.request_digest != original.request_digest {
        return Err(changed(
            "this operator makes another request of the spec than the one that was proven; create the Execution anew"
                .to_owned(),
        ));
    }
    let uid = uid(bundle.metadata.uid.as_deref().unwrap_or_default(), next_number(replays));
    Ok(Plan { uid, generation: 1, first_attempt: 1, owner: None, ..plan })
}

fn next_number(replays: &ReplaysStatus) -> u32 {
    u32::try_from(replays.runs.len()).unwrap_or(u32::MAX).saturating_add(1)
}

fn gone() -> Obstacle {
    let message = "its Execution was deleted or cancelled, and with it the wish for replays".to_owned();
    Obstacle { reason: "Cancelled", message }
}

/// What is known besides; `None` if the bundle went meanwhile.
pub fn observe(context: &Context, key: &Key, case: &Case) -> Option<Seen> {
    let place = context.replays.place(key, case.number())?;
    let crew = case.plan.as_ref().map_or(Crew::Unlisted, |plan| crew(context, plan));
    let admission = case.plan.as_ref().ok().map(|plan| context.policies.judge(plan));
    let outages = outages(context, &crew);
    let free = |endpoint| context.tracker.load(endpoint) < context.fleet.slots(endpoint);
    let free = crew.posts().iter().map(|post| &post.endpoint).filter(|one| free(one)).cloned().collect();
    Some(Seen { place, crew, admission, outages, free })
}

fn crew(context: &Context, plan: &Plan) -> Crew {
    match context.fleet.roster(&plan.pool).as_deref() {
        None => Crew::Missing,
        Some(Roster::Unlisted) => Crew::Unlisted,
        Some(Roster::Unwatched(why)) => Crew::Unwatched(why.clone()),
        Some(Roster::Known(posts)) => Crew::Posts(posts.clone()),
    }
}

fn outages(context: &Context, crew: &Crew) -> Vec<Outage> {
    crew.posts().iter().filter_map(|post| context.health.outage(&post.endpoint)).collect()
}
