//! Step 1: what is so now. Caches and memory first; executors are asked when `decide` wants to know.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use requiem_crds::Execution;

use super::decide::{Observed, Pool};
use super::tracker::{Known, Place};
use super::validate::Plan;
use crate::context::{Context, Guarded};
use crate::dedicated::{self, Own};
use crate::dispatch::rendezvous::Candidate;
use crate::executor_pool::observe::Unseen;
use crate::executor_pool::roster;
use crate::fleet::{Post, Roster};
use crate::health::Outage;
use crate::queue::Key;

/// The Execution as the cache has it; `None` if it is gone, or known to be over though the cache lags.
pub fn object(context: &Context, key: &Key) -> Option<Arc<Guarded<Execution>>> {
    let object = context.execution(key)?;
    let (uid, terminal) = match &object.0 {
        Ok(execution) => {
            let terminal = execution.status.as_ref().is_some_and(|status| status.terminal);
            (execution.metadata.uid.clone(), terminal)
        }
        Err(invalid) => (invalid.metadata.uid.clone(), false),
    };
    let over = terminal || context.tracker.is_finished(uid.as_deref().unwrap_or_default());
    (!over).then_some(object)
}

/// Everything that the next decision needs; `None` if the Execution was deleted meanwhile.
pub fn observe(context: &Context, plan: &Plan) -> Option<Observed> {
    let known = context.tracker.known(&plan.uid, plan.first_attempt)?;
    let (pool, own, last_word) = match &plan.pod {
        None => (of_pool(context, plan), None, None),
        Some(_) => of_own_pod(context, plan, known.attempt),
    };
    let outages = outages(context, &pool, &known);
    let admission = context.policies.judge(plan);
    Some(Observed { pool, own, admission, known, outages, last_word })
}

/// The executor in the pod of this attempt, if it has served; how far the pod is; what it says of its end.
fn of_own_pod(context: &Context, plan: &Plan, attempt: u32) -> (Pool, Option<Own>, Option<String>) {
    let members = match context.pods.of_execution(&plan.key, &plan.uid) {
        Ok(members) => members,
        Err(Unseen::Yet) => return (Pool::Unlisted, None, None),
        Err(Unseen::Because(why)) => return (Pool::Unwatched(why), None, None),
    };
    let name = dedicated::name(&plan.key, &plan.uid, attempt);
    let own = dedicated::own(&members, &name);
    let now = Timestamp::now();
    let counts = members.iter().filter(|member| member.name == name && roster::counts(member, now));
    let posts = counts.filter_map(|member| roster::post(&plan.key, member, false));
    let candidate =
        |post: Post| Candidate { free: true, takes: post.takes, absent: None, endpoint: post.endpoint };
    let last_word =
        members.iter().find(|member| member.name == name).and_then(|one| one.last_word.as_deref());
    let last_word = last_word.map(dedicated::in_words_of_executions);
    (Pool::Executors(posts.map(candidate).collect()), Some(own), last_word)
}

fn of_pool(context: &Context, plan: &Plan) -> Pool {
    match context.fleet.roster(&plan.pool) {
        None => Pool::Missing,
        Some(roster) => match &*roster {
            Roster::Unlisted => Pool::Unlisted,
            Roster::Unwatched(why) => Pool::Unwatched(why.clone()),
            Roster::Known(posts) => {
                Pool::Executors(posts.iter().map(|post| candidate(context, post)).collect())
            }
        },
    }
}

fn candidate(context: &Context, post: &Post) -> Candidate {
    let endpoint = post.endpoint.clone();
    let free = context.tracker.load(&endpoint) < context.fleet.slots(&endpoint);
    Candidate { free, takes: post.takes, absent: post.absent.clone(), endpoint }
}

fn outages(context: &Context, pool: &Pool, known: &Known) -> Vec<Outage> {
    let listed = match pool {
        Pool::Executors(candidates) => candidates.as_slice(),
        Pool::Missing | Pool::Unlisted | Pool::Unwatched(_) => &[],
    };
    let holder = match &known.place {
        Place::At(endpoint, _) | Place::Sent(endpoint) => Some(endpoint),
        Place::Unknown | Place::Nowhere | Place::Finished => None,
    };
    let listed = listed.iter().map(|candidate| &candidate.endpoint);
    let extra = holder.filter(|endpoint| !listed.clone().any(|one| one == *endpoint));
    listed.chain(extra).filter_map(|endpoint| context.health.outage(endpoint)).collect()
}
