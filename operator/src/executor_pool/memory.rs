//! What a pool remembers between two looks: refusals, and pods that died at once. Lost with the process, and then
//! learned again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use super::member::{Member, Stage};
use super::trouble::Trouble;
use crate::backoff;
use crate::queue::Key;

/// A pod that ends within this time of its making has died at once.
const YOUNG: Duration = Duration::from_secs(120);
/// Deaths longer ago than this are forgotten.
const FORGIVEN: Duration = Duration::from_secs(300);
/// Longest wait before a refused pod is tried again: somebody may have mended the cause.
const SLOWEST: Duration = Duration::from_secs(15);

/// All pools. Clones share it.
#[derive(Clone, Default)]
pub struct Memory {
    pools: Arc<Mutex<HashMap<Key, Remembered>>>,
}

#[derive(Default)]
struct Remembered {
    template: String,
    deaths: u32,
    counted: HashSet<String>,
    last_death: Option<Instant>,
    refusals: u32,
    refusal: Option<Trouble>,
    not_before: Option<Instant>,
}

impl Memory {
    /// Takes note of pods that died; says how long no new ones may be made.
    pub fn brake(&self, pool: &Key, template: &str, members: &[Member], now: Timestamp) -> Option<Duration> {
        self.with(pool, |memory| {
            if memory.template != template {
                // What is made now is something else: earlier failures say nothing about it.
                *memory = Remembered { template: template.to_owned(), ..Remembered::default() };
            }
            if memory.last_death.is_some_and(|last| last.elapsed() > FORGIVEN) {
                (memory.deaths, memory.last_death) = (0, None);
            }
            memory.counted.retain(|uid| members.iter().any(|member| member.uid == *uid));
            for member in members.iter().filter(|member| died_young(member, now)) {
                if memory.counted.insert(member.uid.clone()) {
                    memory.deaths += 1;
                    memory.last_death = Some(Instant::now());
                    let wait = backoff::delay(&pool.to_string(), memory.deaths + 2);
                    memory.not_before = Instant::now().checked_add(wait);
                }
            }
            memory
                .not_before
                .map(|at| at.saturating_duration_since(Instant::now()))
                .filter(|left| !left.is_zero())
        })
    }

    /// The API server refused a pod. Says whether that is news.
    pub fn refused(&self, pool: &Key, trouble: Trouble) -> bool {
        self.with(pool, |memory| {
            memory.refusals += 1;
            let wait = backoff::delay(&pool.to_string(), memory.refusals + 1).min(SLOWEST);
            memory.not_before = Instant::now().checked_add(wait);
            memory.refusal.replace(trouble.clone()).as_ref() != Some(&trouble)
        })
    }

    /// The API server took a pod.
    pub fn accepted(&self, pool: &Key) {
        self.with(pool, |memory| (memory.refusals, memory.refusal) = (0, None));
    }

    /// The refusal that has not been followed by a success.
    pub fn refusal(&self, pool: &Key) -> Option<Trouble> {
        self.with(pool, |memory| memory.refusal.clone())
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, pool: &Key) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
    }

    fn with<T>(&self, pool: &Key, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        change(pools.entry(pool.clone()).or_default())
    }
}

fn died_young(member: &Member, now: Timestamp) -> bool {
    let young = member.created.is_none_or(|created| now.duration_since(created).unsigned_abs() < YOUNG);
    member.stage == Stage::Over && young
}

#[cfg(test)]
mod tests {
    use requiem_crds::condition::Reason;
    use serde_json::json;

    use super::super::member::samples::{POOL, pod};
    use super::*;

    fn key() -> Key {
        Key { namespace: "ns".into(), name: POOL.into() }
    }

    fn dead(ordinal: u32) -> Member {
        let mut member = Member::of(POOL, &pod(ordinal, &json!({"phase": "Failed"}), None));
        member.created = Some("2026-11-27T19:00:00Z".parse().unwrap());
        member
    }

    fn now() -> Timestamp {
        "2026-11-27T19:00:05Z".parse().unwrap()
    }

    #[test]
    fn pods_that_die_at_once_are_made_again_slower_and_slower() {
        let memory = Memory::default();
        assert_eq!(memory.brake(&key(), "t", &[], now()), None);
        let first = memory.brake(&key(), "t", &[dead(0)], now()).unwrap();
        let again = memory.brake(&key(), "t", &[dead(0)], now()).unwrap();
        assert!(again <= first, "one death was counted twice");
        let more = memory.brake(&key(), "t", &[dead(0), dead(1), dead(2)], now()).unwrap();
        assert!(more > first, "{more:?} after three deaths, {first:?} after one");
        assert_eq!(memory.brake(&key(), "mended", &[], now()), None);
    }

    #[test]
    fn a_pod_that_has_lived_does_not_count() {
        let old = "2026-11-27T20:00:00Z".parse().unwrap();
        assert_eq!(Memory::default().brake(&key(), "t", &[dead(0)], old), None);
    }

    #[test]
    fn a_refusal_is_told_until_a_pod_is_taken() {
        let memory = Memory::default();
        let trouble = Trouble { reason: Reason::QuotaExceeded, message: "m".into() };
        memory.brake(&key(), "t", &[], now());
        assert!(memory.refused(&key(), trouble.clone()));
        assert!(!memory.refused(&key(), trouble.clone()), "the same again is no news");
        assert!(memory.brake(&key(), "t", &[], now()).unwrap() <= SLOWEST);
        assert_eq!(memory.refusal(&key()), Some(trouble));
        memory.accepted(&key());
        assert_eq!(memory.refusal(&key()), None);
    }
}
