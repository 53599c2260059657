//! Step 4: makes and ends pods, as was decided.

use super::decide::{Action, Why};
use super::member::Member;
use super::pod;
use super::trouble;
use super::validate::Plan;
use crate::context::Context;
use crate::kubeapi::ApiError;
use crate::queue::Key;

/// Does what was decided. After the first pod that is refused no other is tried: it would be refused, too.
pub(super) async fn apply(context: &Context, plan: &Plan, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Create { ordinal } => {
                if create(context, plan, ordinal).await.is_err() {
                    return;
                }
            }
            Action::Delete { name, uid, why } => delete(context, &plan.key, name, &uid, why).await,
        }
    }
}

/// Ends all pods of a pool that wants none any more.
pub(super) async fn retire(context: &Context, pool: &Key, members: &[Member]) {
    for member in members.iter().filter(|member| member.deadline.is_none()) {
        delete(context, pool, member.name.clone(), &member.uid, Why::Surplus).await;
    }
}

async fn create(context: &Context, plan: &Plan, ordinal: u32) -> Result<(), ApiError> {
    let pod = pod::build(&plan.template(), ordinal);
    let key = Key::of(&pod);
    match context.writer.create(&pod).await {
        Ok(_) => {
            tracing::info!(pod = %key, "made an executor pod");
            context.metrics.pod("created", "Missing");
        }
        // Somebody who sees the same was faster, or the cache lags.
        Err(ApiError::Exists { .. }) if is_ours(context, plan, &key).await => {}
        Err(error) => {
            refused(context, &plan.key, &key, &error);
            return Err(error);
        }
    }
    context.memory.accepted(&plan.key);
    Ok(())
}

/// Whether the pod that has the name already is one of this pool, or is about to free the name: its pool was deleted and
/// made anew.
async fn is_ours(context: &Context, plan: &Plan, key: &Key) -> bool {
    let owner = plan.template().owner.map(|owner| owner.uid.clone());
    match context.writer.get::<k8s_openapi::api::core::v1::Pod>(key).await {
        Ok(pod) => {
            let owners = pod.metadata.owner_references.unwrap_or_default();
            let leaves = pod.metadata.deletion_timestamp.is_some();
            leaves || owners.iter().any(|one| Some(&one.uid) == owner.as_ref())
        }
        // It has just gone, or nobody knows: the next look will tell.
        Err(_) => true,
    }
}

async fn delete(context: &Context, pool: &Key, name: String, uid: &str, why: Why) {
    let key = Key { namespace: pool.namespace.clone(), name };
    match context.writer.delete::<k8s_openapi::api::core::v1::Pod>(&key, uid, None).await {
        Ok(()) => {
            tracing::info!(pod = %key, why = why.as_str(), "ends an executor pod");
            context.metrics.pod("deleted", why.as_str());
        }
        Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => {}
        Err(error) => {
            refused(context, pool, &key, &error);
        }
    }
}

fn refused(context: &Context, pool: &Key, pod: &Key, error: &ApiError) {
    let trouble = trouble::refusal(error);
    context.metrics.pod("refused", trouble.reason.as_str());
    if context.memory.refused(pool, trouble) {
        tracing::warn!(%pod, %error, "an executor pod is refused, and will be tried again");
    }
}
