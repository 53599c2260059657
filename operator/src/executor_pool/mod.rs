//! ExecutorPools: who is there, what can they do, and which pods are to be made, replaced or drained?
//!
//! ```text
//! 1 observe   pods from the cache; executors are asked for their capabilities
//! 2 validate  spec → what pods are made from           pure
//! 3 decide    pods → make, end                          pure
//! 4 apply     certificates, pods                        client
//! 5 report    answers and pods → one status write, only when something changed
//! ```
//!
//! A pool is looked at when its spec changes, when one of its pods does, when an executor goes or comes back, and every
//! half minute. Which executors count is worked out by [`roster`] at every such change, at once, and read by everybody
//! who dispatches through [`crate::fleet`].

mod apply;
pub mod decide;
pub mod member;
pub mod memory;
pub mod observe;
pub mod pod;
pub mod report;
pub mod roster;
pub mod trouble;
pub mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use requiem_crds::condition::Reason;
use requiem_crds::executor_pool::PodsSpec;
use requiem_crds::{ExecutorPool, ExecutorPoolStatus};

use crate::context::{Context, kinds};
use crate::dedicated;
use crate::dispatch::Endpoint;
use crate::fleet::Roster;
use crate::kubeapi::ApiError;
use crate::queue::{Key, Verdict};
use decide::{Action, Wish};
use member::{Member, Stage};
use observe::Unseen;
use report::Crew;
use trouble::Trouble;
use validate::Plan;

/// How often an idle pool is looked at. Nothing is written when nothing changed.
const INTERVAL: Duration = Duration::from_secs(30);

/// Brings the pool called `key` up to date, and its status.
pub async fn reconcile(context: Context, key: Key) -> Verdict {
    let started = Instant::now();
    let (verdict, result) = match drive(&context, &key).await {
        Ok(verdict) => (verdict, "done"),
        Err(error) => {
            tracing::warn!(pool = %key, %error, "reconcile failed and is tried again");
            (Verdict::Failed { at_least: error.retry_after() }, "error")
        }
    };
    context.metrics.reconciled(kinds::POOL, result, started.elapsed());
    verdict
}

async fn drive(context: &Context, key: &Key) -> Result<Verdict, ApiError> {
    refresh(context);
    let Some(object) = context.pool(key) else {
        context.memory.forget(key);
        return Ok(Verdict::Done);
    };
    let pool = match &object.0 {
        Ok(pool) => pool,
        Err(malformed) => {
            tracing::warn!(pool = %key, error = malformed.error, "stored pool cannot be read; create it anew");
            return Ok(Verdict::Done);
        }
    };
    match &pool.spec.pods {
        Some(pods) => of_pods(context, pool, pods).await,
        None => {
            // Pods that an earlier spec wanted.
            let left = context.pods.of(pool).unwrap_or_default();
            apply::retire(context, key, &left).await;
            let answers = observe::ask(context, posts(context, key).posts()).await;
            report(context, pool, |previous, generation, now| {
                report::of_endpoints(&answers, previous, generation, now)
            })
            .await?;
            Ok(Verdict::Again(INTERVAL))
        }
    }
}

async fn of_pods(context: &Context, pool: &ExecutorPool, pods: &PodsSpec) -> Result<Verdict, ApiError> {
    let key = Key::of(pool);
    let mut crew =
        Crew { pool: &key.name, replicas: pods.replicas, persists: pods.store.persists(), ..Crew::default() };
    let members = match context.pods.of(pool) {
        Ok(members) => members,
        // As soon as they are listed, every pool is looked at.
        Err(Unseen::Yet) => return Ok(Verdict::Done),
        Err(Unseen::Because(message)) => {
            crew.troubles.push(Trouble { reason: Reason::PodRefused, message });
            crew.unseen = true;
            Vec::new()
        }
    };
    let plan = Plan::of(pool, pods, context.executor_image.as_deref());
    let template = plan.as_ref().map(|plan| pod::fingerprint(&plan.template())).unwrap_or_default();
    let mut brake = None;
    match plan {
        // Pods of a pool that is being deleted go with it.
        _ if pool.metadata.deletion_timestamp.is_some() => {}
        Err(trouble) => crew.troubles.push(trouble),
        Ok(_) if crew.unseen => {}
        Ok(plan) => {
            brake = steer(context, &plan, &template, &members, &mut crew.troubles).await;
        }
    }
    let roster = posts(context, &key);
    let answers = observe::ask(context, roster.posts()).await;
    (crew.members, crew.template) = (&members, &template);
    report(context, pool, |previous, generation, now| {
        report::of_pods(&crew, &answers, previous, generation, now)
    })
    .await?;
    Ok(Verdict::Again(next_look(&members, brake)))
}

/// Decides and does. Returns how long no pods may be made.
async fn steer(
    context: &Context,
    plan: &Plan,
    template: &str,
    members: &[Member],
    troubles: &mut Vec<Trouble>,
) -> Option<Duration> {
    let brake = context.memory.brake(&plan.key, template, members, Timestamp::now());
    let mut wish = Wish {
        replicas: plan.pods.replicas,
        template: template.to_owned(),
        persists: plan.pods.store.persists(),
        may_create: brake.is_none(),
    };
    let mut actions = decide::actions(&wish, members);
    let certificate = wants_certificate(&actions, members);
    if let Err(error) = context.certificates.ensure(&plan.key.namespace, certificate).await {
        tracing::warn!(pool = %plan.key, %error, "executors have no certificates");
        troubles.push(Trouble { reason: Reason::CertificateUnavailable, message: error.to_string() });
        // A pod without its Secret would never start.
        wish.may_create = false;
        actions = decide::actions(&wish, members);
    }
    apply::apply(context, plan, actions).await;
    troubles.extend(context.memory.refusal(&plan.key));
    context.memory.brake(&plan.key, template, members, Timestamp::now())
}

/// Whether somebody is about to need the certificate: a new pod, or one that is not ready. Its certificate may have run out, or
/// somebody may have replaced it; it may be something else, too, and then it is written for nothing.
fn wants_certificate(actions: &[Action], members: &[Member]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Create { .. }))
        || members.iter().any(|member| member.stage == Stage::Faltering)
}

/// When a pool of pods is looked at again, if nothing happens.
fn next_look(members: &[Member], brake: Option<Duration>) -> Duration {
    let now = Timestamp::now();
    let ends = members.iter().filter_map(|member| member.deadline).map(|deadline| {
        let left = (deadline + roster::SLACK).duration_since(now);
        Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1)
    });
    ends.chain(brake).chain([INTERVAL]).min().unwrap_or(INTERVAL).max(Duration::from_millis(100))
}

async fn report(
    context: &Context,
    pool: &ExecutorPool,
    make: impl FnOnce(&ExecutorPoolStatus, i64, &Time) -> ExecutorPoolStatus,
) -> Result<(), ApiError> {
    let meta = &pool.metadata;
    let previous = pool.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let status = make(&previous, meta.generation.unwrap_or(0), &now);
    if status == previous {
        return Ok(());
    }
    match context.writer.replace_status::<ExecutorPool>(meta, &status).await {
        // When the pool is gone or newer than ours, its next event decides.
        Ok(_) | Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn posts(context: &Context, pool: &Key) -> Arc<Roster> {
    context.fleet.roster(pool).unwrap_or_else(|| Roster::Known(Vec::new()).into())
}

/// Works out anew which executors count. Executions of pools where that changed are looked at again; only executors of
/// pools are probed.
pub fn refresh(context: &Context) {
    let mut rosters = HashMap::new();
    for pool in context.pools.state() {
        if let Ok(pool) = &pool.0 {
            rosters.insert(Key::of(pool), observe::executors(context, pool));
        }
    }
    let now = Timestamp::now();
    for (execution, member) in context.pods.dedicated() {
        let post = roster::post(&execution, &member, false).filter(|_| roster::counts(&member, now));
        let key = dedicated::fleet_key(&execution);
        let known = rosters.entry(key).or_insert_with(|| Roster::Known(Vec::new()));
        if let (Roster::Known(posts), Some(post)) = (known, post) {
            posts.push(post);
        }
    }
    let changed = context.fleet.replace(rosters);
    context.health.in_use(context.fleet.endpoints());
    changed.iter().for_each(|key| look_again(context, key));
}

/// Something about pods is known now that was not: whoever has pods is looked at.
pub fn pods_seen(context: &Context) {
    refresh(context);
    for (execution, _) in context.pods.dedicated() {
        context.execution_queue.push(execution);
    }
    for object in context.executions.state() {
        if let Ok(execution) = &object.0
            && execution.spec.executor.pod.is_some()
        {
            context.execution_queue.push(Key::of(execution));
        }
    }
    for pool in context.pools.state() {
        if let Ok(pool) = &pool.0
            && pool.spec.pods.is_some()
        {
            let key = Key::of(pool);
            context.push_executions_of(&key);
            context.pool_queue.push(key);
        }
    }
}

/// An endpoint is back: whoever waited for it goes on.
pub fn is_back(context: &Context, endpoint: &Endpoint) {
    for key in context.fleet.pools_of(endpoint) {
        look_again(context, &key);
        if dedicated::execution_of_fleet_key(&key).is_none() {
            context.pool_queue.push(key);
        }
    }
}

/// Looks again at every Execution that goes to the pool `key`, or has a pod of its own under that name.
fn look_again(context: &Context, key: &Key) {
    match dedicated::execution_of_fleet_key(key) {
        Some(execution) => context.execution_queue.push(execution),
        None => context.push_executions_of(key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::member::samples::{POOL, container, pod, serving};
    use super::*;

    #[test]
    fn a_certificate_is_wanted_by_new_pods_and_by_those_that_are_not_ready() {
        let member = |status| Member::of(POOL, &pod(0, &status, None));
        let unready = json!({
            "phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [container("workload", json!({"running": {}}), json!({}), 0)],
        });
        assert!(!wants_certificate(&[], &[member(serving()), member(json!({"phase": "Pending"}))]));
        assert!(wants_certificate(&[], &[member(serving()), member(unready)]));
        assert!(wants_certificate(&[Action::Create { ordinal: 0 }], &[]));
    }
}
