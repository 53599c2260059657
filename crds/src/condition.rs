//! Condition types and reasons, and the one function that makes a list of conditions.
//!
//! The contract with GitOps clients: every writer states *all* conditions of an object at once, in one patch
//! with `observedGeneration`. Unfinished is Reconciling True with Ready False or Unknown; success is Ready
//! and Succeeded True; final failure is Stalled True with Ready and Succeeded False. Reconciling and Stalled
//! are never both there, and are left out when they do not hold.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::status::ResultReason;

/// Longest message, in characters.
const MAX_MESSAGE: usize = 2048;

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object has reached what it was made for. Of an Execution: the command succeeded.
    Ready,
    /// Of an Execution: the command succeeded (True), finally failed (False), or has not ended (Unknown).
    Succeeded,
    /// Work goes on; the state will change by itself.
    Reconciling,
    /// It failed, and nothing will change by itself.
    Stalled,
    /// Of an Execution: it waits because `spec.suspend` is true.
    Suspended,
    /// Of a ProofBundle: the body has the roots that the spec names.
    Sealed,
    /// Of a ProofBundle: every claim that can be recomputed holds.
    Verified,
    /// Of a ProofBundle whose Execution asks for replays: all of them have run and agree (True); one diverges, or they cannot
    /// all be had (False); they are not over (Unknown).
    Replayed,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

/// Why, where no result and no verification error is the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An executor has accepted the Execution, and it waits there for a free slot.
    Queued,
    /// The command is running.
    Running,
    /// An attempt ended without a result; another one follows.
    Retrying,
    /// `spec.suspend` is true.
    Suspended,
    /// The user cancelled it, and the executor has been told.
    Cancelling,
    /// The object is being deleted.
    Terminating,
    /// The policies of the namespace cannot be read, and nothing is started without them.
    PolicyUnavailable,
    /// The ExecutorPool that the Execution names does not exist.
    PoolNotFound,
    /// No executor of the pool answers.
    NoExecutor,
    /// Every executor of the pool has a full queue.
    ExecutorsBusy,
    /// The executor that has, or may have, the attempt does not answer.
    ExecutorUnavailable,
    /// An identical Execution runs; its result will answer this one too.
    WaitingForIdentical,
    /// The ProofBundle could not be created.
    PublishFailed,
    /// Of a pool: every executor answers.
    ExecutorsReady,
    /// Of a pool: some executors answer, some do not.
    SomeExecutorsReady,
    /// Of a pool: it names no executor.
    NoEndpoints,
    /// Of a pool: pods are being made, replaced or drained, as the spec wants it.
    PodsChanging,
    /// Of an Execution: its own pod starts.
    PodStarting,
    /// Of a pool: an image of its pods cannot be had.
    ImageUnavailable,
    /// Of an Execution: a Secret or ConfigMap from which its pod takes a value, or the key in it, is not there.
    ValueUnavailable,
    /// Of a pool: the seccomp profile is not on the node.
    ProfileMissing,
    /// Of a pool: no node takes a pod.
    Unschedulable,
    /// Of a pool: a quota of the namespace does not allow its pods.
    QuotaExceeded,
    /// Of a pool: the API server refuses its pods, or the operator has no right to handle them.
    PodRefused,
    /// Of a pool: its pods start and end again.
    ExecutorCrashing,
    /// Of a pool: the executor's container ran out of memory.
    ExecutorOutOfMemory,
    /// Of a pool: its executors have no certificates.
    CertificateUnavailable,
    /// Of a ProofBundle: every root was recomputed and agrees. Nobody signed it, nobody re-ran it.
    IntegrityOnly,
    /// Of a ProofBundle: its replays run.
    Replaying,
    /// Of a ProofBundle: no executor of the pool is on a node where nothing of it ran yet.
    NotEnoughNodes,
    /// Of a ProofBundle: every replay that was wanted ran, and all agree.
    ReplaysAgree,
    /// Of a ProofBundle: a replay had another result.
    ReplayDiverged,
    /// Of a ProofBundle: its replays are over, and not all that were wanted have run.
    ReplaysIncomplete,
}

/// One condition as a writer wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is about.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one stable word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// The complete list of conditions of an object. A condition that is not wanted any more is left out; the
/// transition time of one whose status is unchanged is kept.
pub fn conditions(wanted: &[Wanted], previous: &[Condition], generation: i64, now: &Time) -> Vec<Condition> {
    let make = |want: &Wanted| {
        let kept = previous
            .iter()
            .find(|old| old.type_ == want.kind.as_str() && old.status == want.status.as_str())
            .map(|old| old.last_transition_time.clone());
        Condition {
            type_: want.kind.as_str().to_owned(),
            status: want.status.as_str().to_owned(),
            reason: want.reason.clone(),
            message: want.message.chars().take(MAX_MESSAGE).collect(),
            observed_generation: Some(generation),
            last_transition_time: kept.unwrap_or_else(|| now.clone()),
        }
    };
    wanted.iter().map(make).collect()
}

// === impl Wanted ===

impl Wanted {
    /// A condition for a [`Reason`], a [`ResultReason`], or the code of a verification error.
    pub fn new(
        kind: ConditionType,
        status: ConditionStatus,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status, reason: reason.into(), message: message.into() }
    }
}

// === names ===

impl ConditionType {
    /// Every type.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Succeeded,
        Self::Reconciling,
        Self::Stalled,
        Self::Suspended,
        Self::Sealed,
        Self::Verified,
        Self::Replayed,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Succeeded => "Succeeded",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Suspended => "Suspended",
            Self::Sealed => "Sealed",
            Self::Verified => "Verified",
            Self::Replayed => "Replayed",
        }
    }
}

impl ConditionStatus {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 33] = [
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Suspended,
        Self::Cancelling,
        Self::Terminating,
        Self::PolicyUnavailable,
        Self::PoolNotFound,
        Self::NoExecutor,
        Self::ExecutorsBusy,
        Self::ExecutorUnavailable,
        Self::WaitingForIdentical,
        Self::PublishFailed,
        Self::ExecutorsReady,
        Self::SomeExecutorsReady,
        Self::NoEndpoints,
        Self::PodsChanging,
        Self::PodStarting,
        Self::ImageUnavailable,
        Self::ValueUnavailable,
        Self::ProfileMissing,
        Self::Unschedulable,
        Self::QuotaExceeded,
        Self::PodRefused,
        Self::ExecutorCrashing,
        Self::ExecutorOutOfMemory,
        Self::CertificateUnavailable,
        Self::IntegrityOnly,
        Self::Replaying,
        Self::NotEnoughNodes,
        Self::ReplaysAgree,
        Self::ReplayDiverged,
        Self::ReplaysIncomplete,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Running => "Running",
            Self::Retrying => "Retrying",
            Self::Suspended => "Suspended",
            Self::Cancelling => "Cancelling",
            Self::Terminating => "Terminating",
            Self::PolicyUnavailable => "PolicyUnavailable",
            Self::PoolNotFound => "PoolNotFound",
            Self::NoExecutor => "NoExecutor",
            Self::ExecutorsBusy => "ExecutorsBusy",
            Self::ExecutorUnavailable => "ExecutorUnavailable",
            Self::WaitingForIdentical => "WaitingForIdentical",
            Self::PublishFailed => "PublishFailed",
            Self::ExecutorsReady => "ExecutorsReady",
            Self::SomeExecutorsReady => "SomeExecutorsReady",
            Self::NoEndpoints => "NoEndpoints",
            Self::PodsChanging => "PodsChanging",
            Self::PodStarting => "PodStarting",
            Self::ImageUnavailable => "ImageUnavailable",
            Self::ValueUnavailable => "ValueUnavailable",
            Self::ProfileMissing => "ProfileMissing",
            Self::Unschedulable => "Unschedulable",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::PodRefused => "PodRefused",
            Self::ExecutorCrashing => "ExecutorCrashing",
            Self::ExecutorOutOfMemory => "ExecutorOutOfMemory",
            Self::CertificateUnavailable => "CertificateUnavailable",
            Self::IntegrityOnly => "IntegrityOnly",
            Self::Replaying => "Replaying",
            Self::NotEnoughNodes => "NotEnoughNodes",
            Self::ReplaysAgree => "ReplaysAgree",
            Self::ReplayDiverged => "ReplayDiverged",
            Self::ReplaysIncomplete => "ReplaysIncomplete",
        }
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

impl From<ResultReason> for String {
    fn from(reason: ResultReason) -> Self {
        reason.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn ready(status: ConditionStatus, reason: Reason) -> Wanted {
        Wanted::new(ConditionType::Ready, status, reason, "")
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = conditions(&[ready(ConditionStatus::False, Reason::Queued)], &[], 1, &at(10));
        let second = conditions(&[ready(ConditionStatus::False, Reason::Running)], &first, 2, &at(20));
        let third = conditions(&[ready(ConditionStatus::True, Reason::Running)], &second, 2, &at(30));
        assert_eq!(second[0].last_transition_time, at(10));
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("Running", Some(2)));
        assert_eq!(third[0].last_transition_time, at(30));
    }

    #[test]
    fn what_is_not_wanted_is_gone() {
        let reconciling =
            Wanted::new(ConditionType::Reconciling, ConditionStatus::True, Reason::Running, "started");
        let before = conditions(&[reconciling, ready(false.into(), Reason::Running)], &[], 1, &at(1));
        let after = conditions(&[ready(true.into(), Reason::Running)], &before, 1, &at(2));
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].type_, "Ready");
    }
}
