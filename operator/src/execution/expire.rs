//! `spec.ttlAfterFinished`: some time after the end the status is shortened, or the Execution deleted.
//!
//! ```text
//! watch (ended, with a TTL, not shortened) ─▶ fate: pure ─┬▶ wait
//!                                                         ├▶ observe   a new generation: say so, or clients see it in progress
//!                                                         ├▶ compact   one status patch
//!                                                         └▶ delete
//! ```
//!
//! The time runs from the moment at which the operator wrote the end, by the operator's clock: what an executor says
//! about time cannot shorten the life of evidence. It stands in the status, so it survives every restart.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use requiem_crds::Execution;
use requiem_crds::condition::ConditionType;
use requiem_crds::execution::TtlAction;
use requiem_crds::keeper::{self, Keeper};

use super::report;
use crate::context::{Context, Guarded, kinds};
use crate::kubeapi::ApiError;
use crate::queue::{Key, Verdict};

/// Nobody sleeps longer than this: clocks are set, and timers are not.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// What to do with an Execution now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing, ever.
    Nothing,
    /// Look again after this time.
    Wait(Duration),
    /// Its metadata or TTL changed: state the conditions for the new generation.
    Observe,
    /// Shorten the status; the keeper is why it is not deleted, if it should have been.
    Compact(Option<Keeper>),
    /// Delete it.
    Delete,
}

/// What to do with `object` at the time `now`.
pub fn fate(object: &Execution, now: Timestamp) -> Fate {
    let (Some(status), Some(ttl)) = (&object.status, &object.spec.ttl_after_finished) else {
        return Fate::Nothing;
    };
    let ended = status.conditions.iter().find(|c| c.type_ == ConditionType::Succeeded.as_str());
    let Some(ended) = ended.filter(|_| status.terminal && !status.compacted) else { return Fate::Nothing };
    let unseen = object.metadata.generation.unwrap_or(0) != status.observed_generation;
    if object.metadata.deletion_timestamp.is_some() {
        return if unseen { Fate::Observe } else { Fate::Nothing };
    }
    let age = now.as_second().saturating_sub(ended.last_transition_time.0.as_second());
    match u64::try_from(i64::from(ttl.seconds).saturating_sub(age)) {
        Ok(left) if left > 0 && unseen => Fate::Observe,
        Ok(left) if left > 0 => Fate::Wait(Duration::from_secs(left).min(LONGEST_WAIT)),
        Ok(_) | Err(_) => match (ttl.action, keeper::of(&object.metadata)) {
            (TtlAction::Delete, None) => Fate::Delete,
            (TtlAction::Delete, keeper) => Fate::Compact(keeper),
            (TtlAction::Compact, _) => Fate::Compact(None),
        },
    }
}

/// Notes an Execution that the watch of ended ones shows.
pub fn seen(context: &Context, object: &Guarded<Execution>) {
    let Ok(execution) = &object.0 else { return };
    match fate(execution, Timestamp::now()) {
        Fate::Nothing => {}
        Fate::Wait(wait) => context.expiry_queue.push_later(Key::of(execution), wait),
        Fate::Observe | Fate::Compact(_) | Fate::Delete => context.expiry_queue.push(Key::of(execution)),
    }
}

/// Does what is due for the Execution called `key`.
pub async fn reconcile(context: Context, key: Key) -> Verdict {
    let failed = |error: ApiError| {
        tracing::warn!(execution = %key, %error, "ttlAfterFinished is not carried out yet");
        error.retry_after()
    };
    context.reconciled(kinds::ENDED, drive(&context, &key), failed).await
}

async fn drive(context: &Context, key: &Key) -> Result<Verdict, ApiError> {
    let object = match context.writer.get::<Execution>(key).await {
        Ok(object) => object,
        Err(ApiError::Gone { .. }) => return Ok(Verdict::Done),
        Err(error) => return Err(error),
    };
    let (done, what) = match fate(&object, Timestamp::now()) {
        Fate::Nothing => return Ok(Verdict::Done),
        Fate::Wait(wait) => return Ok(Verdict::Again(wait)),
        Fate::Observe => (report::restate(context, &object).await, "observed"),
        Fate::Compact(keeper) => (report::compact(context, &object, keeper).await, "compacted"),
        Fate::Delete => {
            let (uid, version) = (object.uid().unwrap_or_default(), object.resource_version());
            (context.writer.delete::<Execution>(key, &uid, version.as_deref()).await, "deleted")
        }
    };
    match done {
        Ok(()) => {
            context.metrics.expired(what);
            tracing::debug!(execution = object.name_any(), what, "ttlAfterFinished");
            // The watch shows what was written; after a deletion there is nothing to see.
            Ok(Verdict::Done)
        }
        // It changed meanwhile, and the watch tells how.
        Err(ApiError::Gone { .. }) => Ok(Verdict::Done),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use requiem_crds::ExecutionStatus;
    use requiem_crds::condition::{ConditionStatus, Wanted, conditions};
    use requiem_crds::execution::TtlSpec;
    use requiem_crds::status::ResultReason;

    use super::super::samples::execution;
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Ended at second 100, with ten seconds to live.
    fn ended(action: TtlAction) -> Execution {
        let mut object = execution();
        object.spec.ttl_after_finished = Some(TtlSpec { seconds: 10, action });
        let succeeded =
            Wanted::new(ConditionType::Succeeded, ConditionStatus::True, ResultReason::Succeeded, "");
        object.status = Some(ExecutionStatus {
            observed_generation: 3,
            terminal: true,
            conditions: conditions(&[succeeded], &[], 3, &Time(second(100))),
            ..ExecutionStatus::default()
        });
        object
    }

    #[test]
    fn time_decides() {
        let object = ended(TtlAction::Compact);
        assert_eq!(fate(&object, second(100)), Fate::Wait(Duration::from_secs(10)));
        assert_eq!(fate(&object, second(109)), Fate::Wait(Duration::from_secs(1)));
        assert_eq!(fate(&object, second(110)), Fate::Compact(None));
        assert_eq!(fate(&ended(TtlAction::Delete), second(110)), Fate::Delete);
        let mut long = ended(TtlAction::Delete);
        long.spec.ttl_after_finished = Some(TtlSpec { seconds: u32::MAX, action: TtlAction::Delete });
        assert_eq!(fate(&long, second(110)), Fate::Wait(LONGEST_WAIT));
    }

    #[test]
    fn what_a_tool_tracks_is_never_deleted() {
        let mut object = ended(TtlAction::Delete);
        object.metadata.labels = Some([("kustomize.toolkit.fluxcd.io/name".into(), "apps".into())].into());
        assert_eq!(fate(&object, second(110)), Fate::Compact(Some(Keeper::Flux)));
    }

    #[test]
    fn nothing_happens_to_what_runs_is_shortened_or_has_no_ttl() {
        let check = |change: fn(&mut Execution)| {
            let mut object = ended(TtlAction::Delete);
            change(&mut object);
            assert_eq!(fate(&object, second(999)), Fate::Nothing);
        };
        check(|object| object.spec.ttl_after_finished = None);
        check(|object| object.status.as_mut().unwrap().terminal = false);
        check(|object| object.status.as_mut().unwrap().compacted = true);
        check(|object| object.status = None);
        check(|object| object.metadata.deletion_timestamp = Some(Time(second(105))));
    }

    #[test]
    fn a_new_generation_is_observed() {
        let mut object = ended(TtlAction::Delete);
        object.metadata.generation = Some(4);
        assert_eq!(fate(&object, second(101)), Fate::Observe);
        assert_eq!(fate(&object, second(110)), Fate::Delete);
        object.metadata.deletion_timestamp = Some(Time(second(105)));
        assert_eq!(fate(&object, second(110)), Fate::Observe);
    }
}
