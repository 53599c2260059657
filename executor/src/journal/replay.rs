//! From records to states: a pure fold, and the pure choice of what a compaction may leave out.

use std::collections::{BTreeMap, BTreeSet};

use requiem_model::Failure;
use requiem_model::attempt::{AttemptState, SealedAttempt};
use requiem_model::result::FailureReason;

use super::record::{Asked, AttemptKey, InlineBlob, Record};

/// How far an attempt got, as the journal knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It began; nothing says how it ended.
    Started,
    /// It began and somebody wanted it to end.
    Cancelled,
    /// It has a result.
    Sealed {
        /// The result.
        sealed: Box<SealedAttempt>,
        /// Streams that the record carried.
        blobs: Vec<InlineBlob>,
    },
    /// It has none and will have none.
    Failed(Failure),
}

/// One attempt in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Who asked for what.
    pub asked: Asked,
    /// How far it got.
    pub phase: Phase,
    /// Rank among the acknowledged, oldest first; `None` while it is not acknowledged.
    pub acked: Option<u64>,
}

/// All attempts of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// By key.
    pub attempts: BTreeMap<AttemptKey, Logged>,
    acks: u64,
}

impl Logged {
    /// What an executor that opens this journal answers. A run that did not end has been lost with the
    /// process that ran it; if its end was wanted, that is what happened.
    pub fn state(&self) -> AttemptState {
        match &self.phase {
            Phase::Sealed { sealed, .. } => AttemptState::Sealed { sealed: sealed.clone() },
            Phase::Failed(failure) => AttemptState::Failed { failure: failure.clone() },
            Phase::Cancelled => AttemptState::Failed { failure: cancelled() },
            Phase::Started => AttemptState::Failed { failure: lost() },
        }
    }

    /// The record that an open must add so that the end of this attempt is written down.
    pub fn missing_end(&self) -> Option<Record> {
        let failure = match &self.phase {
            Phase::Started => lost(),
            Phase::Cancelled => cancelled(),
            Phase::Sealed { .. } | Phase::Failed(_) => return None,
        };
        Some(Record::Failed { asked: self.asked.clone(), failure })
    }

    fn record(&self) -> Record {
        let asked = self.asked.clone();
        match &self.phase {
            Phase::Started => Record::Started { asked, at: String::new() },
            Phase::Cancelled => Record::Cancelled { asked },
            Phase::Sealed { sealed, blobs } => {
                Record::Sealed { asked, sealed: sealed.clone(), blobs: blobs.clone() }
            }
            Phase::Failed(failure) => Record::Failed { asked, failure: failure.clone() },
        }
    }
}

impl Replay {
    /// Takes one record. The first end of an attempt stands: there is never a second result.
    pub fn apply(&mut self, record: Record) {
        let (asked, phase) = match record {
            Record::Acked { key } => return self.acknowledge(&key),
            Record::Started { asked, .. } => (asked, Phase::Started),
            Record::Cancelled { asked } => (asked, Phase::Cancelled),
            Record::Sealed { asked, sealed, blobs } => (asked, Phase::Sealed { sealed, blobs }),
            Record::Failed { asked, failure } => (asked, Phase::Failed(failure)),
        };
        let key = AttemptKey::of(&asked.identity);
        let logged = self.attempts.entry(key).or_insert(Logged { asked, phase: Phase::Started, acked: None });
        if rank(&phase) > rank(&logged.phase) {
            logged.phase = phase;
        }
    }

    /// Keys that a compaction leaves out: ended, acknowledged, and not among the `keep` acknowledged last.
    pub fn retired(&self, keep: usize) -> BTreeSet<AttemptKey> {
        let mut acked: Vec<(u64, &AttemptKey)> =
            self.attempts.iter().filter_map(|(key, logged)| Some((logged.acked?, key))).collect();
        acked.sort_unstable();
        let old = acked.len().saturating_sub(keep);
        acked.into_iter().take(old).map(|(_, key)| key.clone()).collect()
    }

    /// The shortest sequence of records with the same meaning.
    pub fn records(&self) -> Vec<Record> {
        let mut acked: Vec<(u64, AttemptKey)> =
            self.attempts.iter().filter_map(|(key, logged)| Some((logged.acked?, key.clone()))).collect();
        acked.sort_unstable();
        let ends = self.attempts.values().map(Logged::record);
        ends.chain(acked.into_iter().map(|(_, key)| Record::Acked { key })).collect()
    }

    fn acknowledge(&mut self, key: &AttemptKey) {
        let Some(logged) = self.attempts.get_mut(key) else { return };
        let ended = matches!(logged.phase, Phase::Sealed { .. } | Phase::Failed(_));
        if ended && logged.acked.is_none() {
            logged.acked = Some(self.acks);
            self.acks += 1;
        }
    }
}

const fn rank(phase: &Phase) -> u8 {
    match phase {
        Phase::Started => 0,
        Phase::Cancelled => 1,
        Phase::Sealed { .. } | Phase::Failed(_) => 2,
    }
}

/// The failure of a run whose executor ended.
pub fn lost() -> Failure {
    Failure::new(
        FailureReason::ExecutorLost,
        "the executor ended while the attempt was running; its processes ended with it and no result was kept",
        "start the next attempt",
    )
}

/// The failure of a run that was cancelled.
pub fn cancelled() -> Failure {
    Failure::new(
        FailureReason::Cancelled,
        "the attempt was cancelled",
        "create a new Execution to run it again",
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use requiem_model::attempt::Identity;
    use requiem_model::{BundleRoot, ExecutionRoot, RequestDigest};

    use super::*;

    pub(crate) fn asked(uid: &str, attempt: u32) -> Asked {
        let identity = Identity {
            namespace: "team-a".into(),
            name: "job".into(),
            uid: uid.into(),
            generation: 1,
            attempt,
        };
        Asked { identity, request_digest: RequestDigest::from_bytes([1; 32]) }
    }

    pub(crate) fn started(uid: &str, attempt: u32) -> Record {
        Record::Started { asked: asked(uid, attempt), at: "2026-01-01T00:00:00.000Z".into() }
    }

    pub(crate) fn sealed(uid: &str, attempt: u32, body: &str) -> Record {
        let sealed = SealedAttempt {
            body: body.into(),
            execution_root: ExecutionRoot::from_bytes([2; 32]),
            bundle_root: BundleRoot::from_bytes([3; 32]),
            stdout_tail: String::new(),
            stderr_tail: String::new(),
        };
        Record::Sealed { asked: asked(uid, attempt), sealed: Box::new(sealed), blobs: vec![] }
    }

    pub(crate) fn acked(uid: &str, attempt: u32) -> Record {
        Record::Acked { key: AttemptKey { uid: uid.into(), attempt } }
    }

    pub(crate) fn replay(records: Vec<Record>) -> Replay {
        let mut replay = Replay::default();
        records.into_iter().for_each(|record| replay.apply(record));
        replay
    }

    fn only(replay: &Replay) -> &Logged {
        assert_eq!(replay.attempts.len(), 1);
        replay.attempts.values().next().unwrap()
    }

    #[test]
    fn a_start_without_an_end_is_a_lost_run() {
        let replay = replay(vec![started("u", 1)]);
        let AttemptState::Failed { failure } = only(&replay).state() else { panic!() };
        assert_eq!(failure.reason, FailureReason::ExecutorLost);
        assert!(only(&replay).missing_end().is_some());
    }

    #[test]
    fn a_wanted_end_without_an_end_is_a_cancelled_run() {
        let cancel = Record::Cancelled { asked: asked("u", 1) };
        for records in [vec![started("u", 1), cancel.clone()], vec![cancel, started("u", 1)]] {
            let AttemptState::Failed { failure } = only(&replay(records)).state() else { panic!() };
            assert_eq!(failure.reason, FailureReason::Cancelled);
        }
    }

    #[test]
    fn the_first_end_stands() {
        let failed = Record::Failed { asked: asked("u", 1), failure: lost() };
        let first = replay(vec![started("u", 1), sealed("u", 1, "{}"), failed.clone(), started("u", 1)]);
        assert!(matches!(only(&first).phase, Phase::Sealed { .. }));
        let second = replay(vec![failed, sealed("u", 1, "{}")]);
        assert!(matches!(only(&second).phase, Phase::Failed(_)));
    }

    #[test]
    fn only_old_acknowledged_ends_are_retired() {
        let replay = replay(vec![
            sealed("a", 1, "{}"),
            sealed("b", 1, "{}"),
            sealed("c", 1, "{}"),
            started("d", 1),
            acked("b", 1),
            acked("a", 1),
            acked("a", 1),
            acked("d", 1),
            acked("nobody", 1),
        ]);
        let uids = |keep| replay.retired(keep).into_iter().map(|key| key.uid).collect::<Vec<_>>();
        assert_eq!(uids(0), ["a", "b"]);
        assert_eq!(uids(1), ["b"]);
        assert_eq!(uids(2), Vec::<String>::new());
    }

    #[test]
    fn compacted_records_mean_the_same() {
        let before = replay(vec![
            started("a", 1),
            sealed("a", 1, "{}"),
            started("b", 1),
            sealed("c", 1, "{}"),
            acked("c", 1),
            acked("a", 1),
        ]);
        assert_eq!(replay(before.records()), before);
    }
}
