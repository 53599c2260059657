//! Replays: the request of a published bundle run again, and its execution root compared.
//!
//! ```text
//! 1 observe   bundle and Execution as they are now, executors of the pool, memory
//! 2 validate  Execution → plan of replay n                          pure
//! 3 decide    what was recorded × plan × observed → step            pure
//! 4 apply     calls executors
//! 5 report    one status write per run that has ended
//! ```
//!
//! A replay is no second result of its Execution: its attempt belongs to a UID of its own, made of the bundle's and its
//! number, and each number is begun once. What was recorded lies in the status of the ProofBundle, so nothing here outlives
//! the process but what executors know: after a restart they are asked first, all of them.

pub mod apply;
pub mod decide;
pub mod memory;
pub mod observe;
pub mod report;

use std::time::Duration;

use requiem_crds::ProofBundle;
use requiem_crds::replay::{ReplayPhase, ReplaysStatus};

use crate::context::{Context, kinds};
use crate::dispatch::{DispatchError, Endpoint};
use crate::execution::validate::Plan;
use crate::fleet::{Post, Roster};
use crate::kubeapi::ApiError;
use crate::queue::{Key, Verdict};

use apply::Applied;

/// Why a reconcile is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The API server did not answer, or did not take the status.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An executor's answer is of no use now.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
}

impl ReplayError {
    const fn at_least(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after(),
            Self::Dispatch(error) => error.retry_after(),
        }
    }
}

/// Brings the replays of the bundle called `key` as far as they can go now. While one runs, this waits for its end.
pub async fn reconcile(context: Context, key: Key) -> Verdict {
    let failed = |error: ReplayError| {
        tracing::warn!(bundle = %key, %error, "replaying failed and is tried again");
        error.at_least()
    };
    context.reconciled(kinds::REPLAY, drive(&context, &key), failed).await
}

async fn drive(context: &Context, key: &Key) -> Result<Verdict, ReplayError> {
    loop {
        let Some(case) = observe::case(context, key).await? else {
            forget(context, key);
            return Ok(Verdict::Done);
        };
        let Some(seen) = observe::observe(context, key, &case) else { return Ok(Verdict::Done) };
        let step = decide::next(&case, &seen);
        match apply::apply(context, key, &case, step).await? {
            Applied::Again => {}
            Applied::Rest(verdict) => return Ok(verdict),
        }
    }
}

/// Notes a bundle that the watch shows, and has it looked at. Who started its replays is not known.
pub fn seen(context: &Context, bundle: &ProofBundle) {
    let key = Key::of(bundle);
    context.replays.see(&key, bundle.metadata.uid.as_deref().unwrap_or_default(), false);
    context.replay_queue.push(key);
}

/// The bundle is gone, or its replays are over. What still runs of them is told to end, best effort.
pub fn forget(context: &Context, key: &Key) {
    let Some(orphan) = context.replays.forget(key) else { return };
    let context = context.clone();
    tokio::spawn(async move {
        let memory::Orphan { endpoint, uid } = orphan;
        if let Err(error) = context.dispatcher.cancel(&endpoint, &uid, 1).await {
            tracing::warn!(%endpoint, uid, %error, "a replay that nobody wants any more runs on");
        }
    });
}

/// Replays as they are before the first: what the Execution of `plan` asks for, which ran on the executor called `executor`, by its pool
/// or by itself. `None` if it asks for none, or was cancelled.
pub fn wanted(context: &Context, plan: &Plan, executor: Option<&str>) -> Option<ReplaysStatus> {
    let wish = plan.replay.filter(|_| !plan.cancel)?;
    let roster = context.fleet.roster(&plan.pool);
    let posts = roster.as_deref().map_or(&[][..], Roster::posts);
    let post = executor.and_then(|executor| first_at(posts, executor));
    let executor = post.map(|post| post.endpoint.name.as_str()).or(executor);
    Some(ReplaysStatus {
        phase: ReplayPhase::Running,
        wanted: wish.count,
        distinct_nodes: wish.distinct_nodes,
        replayed: 0,
        agreed: 0,
        first_divergence: None,
        executor: executor.map(str::to_owned),
        node: post.and_then(|post| post.node.clone()),
        runs: Vec::new(),
    })
}

/// The UID of replay `number` of the bundle with UID `bundle`: no UID of Kubernetes looks so, and no other bundle makes it.
pub fn uid(bundle: &str, number: u32) -> String {
    format!("{bundle}-replay-{number}")
}

/// Where the first run took place. In a pod an executor knows itself by the pod's name alone, which a pool continues with its UID.
fn first_at<'a>(posts: &'a [Post], executor: &str) -> Option<&'a Post> {
    let continues =
        |post: &&Post| post.endpoint.name.strip_prefix(executor).is_some_and(|rest| rest.starts_with('-'));
    let same = posts.iter().find(|post| post.endpoint.name == executor);
    same.or_else(|| posts.iter().filter(|post| post.node.is_some()).find(continues))
}

/// Where the executor called so is, if it is there.
fn post_of<'a>(posts: &'a [Post], executor: &str) -> Option<&'a Endpoint> {
    posts.iter().map(|post| &post.endpoint).find(|endpoint| endpoint.name == executor)
}
