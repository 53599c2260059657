//! Step 1: the bundle as it is now.

use requiem_crds::proof_bundle::Origin;
use requiem_crds::replay::ReplaysStatus;
use requiem_crds::{Execution, ProofBundle};

use super::is_unjudged;
use crate::context::Context;
use crate::execution::validate;
use crate::kubeapi::ApiError;
use crate::queue::Key;
use crate::replay;

/// The bundle, if it is there and has no verdict.
///
/// # Errors
/// The API server did not answer.
pub async fn unjudged(context: &Context, key: &Key) -> Result<Option<ProofBundle>, ApiError> {
    match context.writer.get::<ProofBundle>(key).await {
        Ok(bundle) => Ok(is_unjudged(&bundle).then_some(bundle)),
        Err(ApiError::Gone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where `bundle` comes from, and which replays of it are wanted, when its verdict was not written by the flow that created it. The status of its Execution
/// knows, and only this operator writes that one.
///
/// # Errors
/// The API server did not answer.
pub async fn origin(
    context: &Context,
    bundle: &ProofBundle,
) -> Result<(Origin, Option<ReplaysStatus>), ApiError> {
    let reference = &bundle.spec.execution_ref;
    let key = Key { namespace: Key::of(bundle).namespace, name: reference.name.clone() };
    let execution = match context.writer.get::<Execution>(&key).await {
        Ok(execution) => execution,
        Err(ApiError::Gone { .. }) => return Ok((Origin::Imported, None)),
        Err(error) => return Err(error),
    };
    let same = execution.metadata.uid.as_deref() == Some(reference.uid.as_str());
    let named = execution.status.as_ref().is_some_and(|status| {
        let name = status.proof_bundle_ref.as_ref().map(|bundle| bundle.name.as_str());
        name == bundle.metadata.name.as_deref() && status.proof_root == Some(bundle.spec.bundle_root)
    });
    if !(same && named) {
        return Ok((Origin::Imported, None));
    }
    let executor = execution.status.as_ref().and_then(|status| status.executor.as_deref());
    let plan = validate::plan(&execution).ok();
    let replays = plan.and_then(|plan| replay::wanted(context, &plan, executor));
    Ok((Origin::Executed, replays))
}
