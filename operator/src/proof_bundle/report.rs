//! Step 5: the verdict, in one write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use requiem_crds::condition::{ConditionStatus, ConditionType, Reason, Wanted, conditions};
use requiem_crds::proof_bundle::Origin;
use requiem_crds::replay::ReplaysStatus;
use requiem_crds::{ProofBundle, ProofBundleStatus};

use super::decide::Judgement;
use crate::context::Context;
use crate::kubeapi::ApiError;
use crate::replay::report::condition;

/// The status that tells `judgement`, and the replays that are wanted.
pub fn status(
    judgement: &Judgement,
    origin: Origin,
    replays: Option<ReplaysStatus>,
    previous: &ProofBundleStatus,
    generation: i64,
    now: &Time,
) -> ProofBundleStatus {
    let (sealed, verified) = match judgement {
        Judgement::Verified { .. } => (true, true),
        Judgement::Broken { .. } => (true, false),
        Judgement::Unsealed { .. } => (false, false),
    };
    let reason = if verified { Reason::IntegrityOnly.as_str() } else { judgement.code() };
    let message = judgement.message();
    let want = |kind, status| Wanted::new(kind, status, reason, message.clone());
    let mut wanted = vec![
        want(ConditionType::Ready, verified.into()),
        want(ConditionType::Sealed, sealed.into()),
        want(ConditionType::Verified, verified.into()),
    ];
    // What was recorded of replays before stands.
    let replays = previous.replays.clone().or(replays);
    wanted.extend(replays.as_ref().map(|replays| condition(replays, None)));
    if !verified {
        wanted.push(want(ConditionType::Stalled, ConditionStatus::True));
    }
    let (verified_root, request_digest, result_digest) = match judgement {
        Judgement::Verified { root, request, result } => (Some(*root), Some(*request), Some(*result)),
        Judgement::Broken { .. } | Judgement::Unsealed { .. } => (None, None, None),
    };
    ProofBundleStatus {
        observed_generation: generation,
        conditions: conditions(&wanted, &previous.conditions, generation, now),
        verified_root,
        request_digest,
        result_digest,
        origin: Some(origin),
        replays,
    }
}

/// Writes the verdict; `false` if the bundle is gone or somebody else was faster.
///
/// # Errors
/// The API server did not take it.
pub async fn report(
    context: &Context,
    bundle: &ProofBundle,
    judgement: &Judgement,
    origin: Origin,
    replays: Option<ReplaysStatus>,
) -> Result<bool, ApiError> {
    let meta = &bundle.metadata;
    let now = Timestamp::now();
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let previous = bundle.status.clone().unwrap_or_default();
    let status = status(judgement, origin, replays, &previous, meta.generation.unwrap_or(0), &now);
    match context.writer.replace_status::<ProofBundle>(meta, &status).await {
        Ok(_) => Ok(true),
        Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
