//! Step 5: what was recorded of replays, and the condition that says it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use requiem_crds::condition::{ConditionStatus, ConditionType, Reason, Wanted, conditions};
use requiem_crds::replay::{ReplayPhase, ReplayRun, ReplaysStatus};
use requiem_crds::{ProofBundle, ProofBundleStatus};
use requiem_proof::replays::{self, Replays, Tally};
use requiem_proof::{Sealed, Verified};

use super::decide::{MAX_OBJECT_BYTES, too_large};
use super::observe::Case;
use crate::context::Context;
use crate::kubeapi::ApiError;

/// Longest text of an item.
const MAX_ITEM: usize = 1100;

/// What is recorded after `run`. One whose receipt has no room, or does not count beside the others, is recorded without a result.
pub fn recorded(case: &Case, run: &ReplayRun) -> ReplaysStatus {
    let whole = added(case, run.clone());
    match whole {
        Ok(whole) if fits(&case.bundle, &whole) => whole,
        _ => {
            let replays = added(case, too_large(run));
            replays.unwrap_or_else(|_| ReplaysStatus { phase: ReplayPhase::Done, ..case.replays.clone() })
        }
    }
}

fn added(case: &Case, run: ReplayRun) -> Result<ReplaysStatus, replays::ReplayError> {
    let runs: Vec<ReplayRun> = case.replays.runs.iter().cloned().chain([run]).collect();
    let tally = tally(&case.original, &runs)?;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let enough = count(tally.replayed) >= case.replays.wanted;
    Ok(ReplaysStatus {
        phase: if enough { ReplayPhase::Done } else { ReplayPhase::Running },
        replayed: count(tally.replayed),
        agreed: count(tally.agreed),
        first_divergence: tally
            .first_divergence
            .map(|item| item.to_string().chars().take(MAX_ITEM).collect()),
        runs,
        ..case.replays.clone()
    })
}

/// The receipts among `runs`, counted by the code that counts them anywhere else.
fn tally(original: &Verified, runs: &[ReplayRun]) -> Result<Tally, replays::ReplayError> {
    let receipt = |run: &ReplayRun| {
        let body = run.body.clone()?;
        Some(Sealed { body, execution_root: run.execution_root?, bundle_root: run.bundle_root? })
    };
    let receipts: Vec<Sealed> = runs.iter().filter_map(receipt).collect();
    Replays::of(original).and(&receipts).tally(original)
}

fn fits(bundle: &ProofBundle, replays: &ReplaysStatus) -> bool {
    let bytes = |value: serde_json::Result<Vec<u8>>| value.map_or(usize::MAX, |bytes| bytes.len());
    let spec = bytes(serde_json::to_vec(&bundle.spec));
    spec.saturating_add(bytes(serde_json::to_vec(replays))) <= MAX_OBJECT_BYTES
}

/// The condition `Replayed`. `why` says what holds replays up, or kept the rest from being run.
pub fn condition(replays: &ReplaysStatus, why: Option<(Reason, &str)>) -> Wanted {
    let ReplaysStatus { wanted, replayed, agreed, .. } = *replays;
    let counted = format!("replayed {replayed} of {wanted} times, {agreed} agree");
    let more = why.map(|(_, why)| format!("; {why}")).unwrap_or_default();
    let want =
        |status, reason: Reason, message| Wanted::new(ConditionType::Replayed, status, reason, message);
    // What stands here is the confidence in the result: nothing that agrees, and nothing that waits, outweighs a divergence.
    if let Some(item) = &replays.first_divergence {
        let message = format!("{counted}; the first divergence is in {item}{more}");
        return want(ConditionStatus::False, Reason::ReplayDiverged, message);
    }
    match replays.phase {
        ReplayPhase::Running => {
            let reason = why.map_or(Reason::Replaying, |(reason, _)| reason);
            want(ConditionStatus::Unknown, reason, format!("{counted}{more}"))
        }
        ReplayPhase::Done if replayed >= wanted => {
            let message = format!(
                "{counted}; the receipts are in status.replays, and requiem proof verify counts them anew"
            );
            want(ConditionStatus::True, Reason::ReplaysAgree, message)
        }
        ReplayPhase::Done => {
            want(ConditionStatus::False, Reason::ReplaysIncomplete, format!("{counted}{more}"))
        }
    }
}

/// `previous` with `wanted` in place of the condition of that type.
pub fn with(previous: &[Condition], wanted: &Wanted, generation: i64, now: &Time) -> Vec<Condition> {
    let new = conditions(std::slice::from_ref(wanted), previous, generation, now);
    let others = previous.iter().filter(|condition| condition.type_ != wanted.kind.as_str());
    others.cloned().chain(new).collect()
}

/// Writes what is recorded, and the condition; `false` if the bundle is gone or somebody else was faster. Nothing is written that
/// stands there.
///
/// # Errors
/// The API server did not take it.
pub async fn write(
    context: &Context,
    bundle: &ProofBundle,
    replays: ReplaysStatus,
    wanted: &Wanted,
) -> Result<bool, ApiError> {
    let previous = bundle.status.clone().unwrap_or_default();
    let says = |condition: &Condition| {
        condition.type_ == wanted.kind.as_str()
            && condition.reason == wanted.reason
            && condition.message == wanted.message
    };
    if previous.replays.as_ref() == Some(&replays) && previous.conditions.iter().any(says) {
        return Ok(true);
    }
    let now = Timestamp::now();
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let generation = bundle.metadata.generation.unwrap_or(0);
    let conditions = with(&previous.conditions, wanted, generation, &now);
    let status = ProofBundleStatus { conditions, replays: Some(replays), ..previous };
    match context.writer.replace_status::<ProofBundle>(&bundle.metadata, &status).await {
        Ok(_) => Ok(true),
        Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
