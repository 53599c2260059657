//! What this process knows about live Executions beyond what the API server says. Nothing here is needed to be
//! right, only to be quick: after a restart it is empty, and executors are asked again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use requiem_crds::Execution;
use requiem_model::attempt::AttemptState;
use tokio::task::AbortHandle;

use crate::dispatch::Endpoint;
use crate::queue::Key;

/// Where the current attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Unknown: an earlier process may have started it.
    Unknown,
    /// Nowhere: every endpoint said so, or nobody can have started it yet.
    Nowhere,
    /// A start was sent to this endpoint and its answer is not known.
    Sent(Endpoint),
    /// This endpoint has it.
    At(Endpoint, Box<AttemptState>),
    /// It is over and the status says so.
    Finished,
}

/// One live Execution.
#[derive(Debug)]
pub struct Live {
    /// Its name.
    pub key: Key,
    /// When this process saw it first.
    pub seen: Instant,
    /// Whether it came into being while this process watched, untouched by any operator.
    pub fresh: bool,
    /// Number of the current attempt; zero before it is known.
    pub attempt: u32,
    /// Where the current attempt is.
    pub place: Place,
    /// Attempts that were lost with their executor.
    pub losses: u32,
    /// Attempts that failed otherwise and may be repeated.
    pub failures: u32,
    /// Refusals in a row for want of room.
    pub refusals: u32,
    /// The next start is not before this.
    pub not_before: Option<Instant>,
    /// Whether the executor was told to end the attempt.
    pub cancelling: bool,
    /// Whether no earlier result answers it, and it is its turn to run.
    pub unanswered: bool,
    /// Whether it has waited for an identical Execution.
    pub waited: bool,
    /// The object as the API server answered our last write: the cache may lag behind it.
    pub written: Option<Arc<Execution>>,
    follower: Option<Follower>,
}

/// The task that waits for one attempt.
#[derive(Debug)]
struct Follower {
    attempt: u32,
    endpoint: Endpoint,
    task: AbortHandle,
}

/// A copy of what [`Live`] says that matters for the next decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// See [`Live::attempt`].
    pub attempt: u32,
    /// See [`Live::place`].
    pub place: Place,
    /// See [`Live::losses`].
    pub losses: u32,
    /// See [`Live::failures`].
    pub failures: u32,
    /// How long the next start has to wait.
    pub wait: Duration,
    /// See [`Live::cancelling`].
    pub cancelling: bool,
    /// See [`Live::unanswered`].
    pub unanswered: bool,
}

/// What is left of an Execution that is gone: whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Endpoint that has, or may have, the attempt.
    pub endpoint: Endpoint,
    /// UID of the Execution.
    pub uid: String,
    /// Number of the attempt.
    pub attempt: u32,
}

/// All live Executions by UID. Clones share them.
#[derive(Clone, Default)]
pub struct Tracker {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lives: HashMap<String, Live>,
    /// Attempts that each endpoint has, or may have, and that have not ended.
    load: HashMap<Endpoint, u32>,
}

impl Tracker {
    /// Notes an Execution that was seen for the first time; one that is known stays as it is.
    pub fn see(&self, uid: &str, key: Key, fresh: bool) {
        self.lock().lives.entry(uid.to_owned()).or_insert_with(|| Live {
            key,
            seen: Instant::now(),
            fresh,
            attempt: 0,
            place: if fresh { Place::Nowhere } else { Place::Unknown },
            losses: 0,
            failures: 0,
            refusals: 0,
            not_before: None,
            cancelling: false,
            unanswered: false,
            waited: false,
            written: None,
            follower: None,
        });
    }

    /// What is known about `uid`; at least attempt `first`.
    pub fn known(&self, uid: &str, first: u32) -> Option<Known> {
        self.with(uid, |live| {
            live.attempt = live.attempt.max(first);
            Known {
                attempt: live.attempt,
                place: live.place.clone(),
                losses: live.losses,
                failures: live.failures,
                wait: live
                    .not_before
                    .map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now())),
                cancelling: live.cancelling,
                unanswered: live.unanswered,
            }
        })
    }

    /// Changes what is known about `uid`; `None` if it is not known any more.
    pub fn with<T>(&self, uid: &str, change: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut state = self.lock();
        let State { lives, load } = &mut *state;
        let live = lives.get_mut(uid)?;
        let before = live.holder().cloned();
        let answer = change(live);
        if before.as_ref() != live.holder() {
            lighten(load, before.as_ref());
            if let Some(holder) = live.holder() {
                *load.entry(holder.clone()).or_default() += 1;
            }
        }
        Some(answer)
    }

    /// How many attempts `endpoint` has, or may have, that have not ended.
    pub fn load(&self, endpoint: &Endpoint) -> u32 {
        self.lock().load.get(endpoint).copied().unwrap_or(0)
    }

    /// The newer of `cached` and what the API server answered our last write.
    pub fn freshest(&self, cached: &Execution) -> Execution {
        let uid = cached.metadata.uid.as_deref().unwrap_or_default();
        let written = self.with(uid, |live| live.written.clone()).flatten();
        match written.filter(|written| version(written) > version(cached)) {
            Some(written) => (*written).clone(),
            None => cached.clone(),
        }
    }

    /// Whether the status of `uid` is known to be terminal, whatever a lagging cache says.
    pub fn is_finished(&self, uid: &str) -> bool {
        self.lock().lives.get(uid).is_some_and(|live| live.place == Place::Finished)
    }

    /// Whether an attempt of `uid` runs, or may be running for all that is known. Of one that has not been seen yet, as just
    /// after a restart, nothing is known.
    pub fn may_run(&self, uid: &str) -> bool {
        let lives = self.lock();
        lives.lives.get(uid).is_none_or(|live| !matches!(live.place, Place::Nowhere | Place::Finished))
    }

    /// Forgets `uid`. If its attempt may still be running, says where.
    pub fn forget(&self, uid: &str) -> Option<Orphan> {
        self.lock().forget(uid)
    }

    /// Forgets everybody of whom `stays` says no.
    pub fn retain(&self, stays: impl Fn(&str) -> bool) -> Vec<Orphan> {
        let mut state = self.lock();
        let gone: Vec<String> = state.lives.keys().filter(|uid| !stays(uid)).cloned().collect();
        gone.into_iter().filter_map(|uid| state.forget(&uid)).collect()
    }

    /// Makes `follow` the only task that waits for `uid`, unless one waits for the same attempt at the same place already.
    pub fn follow(&self, uid: &str, attempt: u32, endpoint: &Endpoint, follow: impl FnOnce() -> AbortHandle) {
        self.with(uid, |live| {
            let follows = |old: &Follower| {
                old.attempt == attempt && old.endpoint == *endpoint && !old.task.is_finished()
            };
            if live.follower.as_ref().is_some_and(follows) {
                return;
            }
            if let Some(old) = &live.follower {
                old.task.abort();
            }
            live.follower = Some(Follower { attempt, endpoint: endpoint.clone(), task: follow() });
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, uid: &str) -> Option<Orphan> {
        let live = self.lives.remove(uid)?;
        lighten(&mut self.load, live.holder());
        live.orphan(uid)
    }
}

/// `holder` has one attempt less.
fn lighten(load: &mut HashMap<Endpoint, u32>, holder: Option<&Endpoint>) {
    let Some(holder) = holder else { return };
    let left = load.get(holder).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        load.remove(holder);
    } else {
        load.insert(holder.clone(), left);
    }
}

impl Live {
    /// Who has, or may have, an attempt that has not ended.
    fn holder(&self) -> Option<&Endpoint> {
        match &self.place {
            Place::Sent(endpoint) => Some(endpoint),
            Place::At(endpoint, state) if !state.is_final() => Some(endpoint),
            Place::At(..) | Place::Unknown | Place::Nowhere | Place::Finished => None,
        }
    }

    fn orphan(self, uid: &str) -> Option<Orphan> {
        if let Some(follower) = &self.follower {
            follower.task.abort();
        }
        let endpoint = self.holder()?.clone();
        Some(Orphan { endpoint, uid: uid.to_owned(), attempt: self.attempt })
    }
}

/// Resource versions of one kind are numbers that rise (since Kubernetes 1.35 by contract, before by habit).
fn version(object: &Execution) -> Option<u64> {
    object.metadata.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint { name: "a".into(), url: "https://a:1".into(), ..Endpoint::default() }
    }

    fn tracker(place: Place) -> Tracker {
        let tracker = Tracker::default();
        tracker.see("uid", Key { namespace: "ns".into(), name: "n".into() }, true);
        tracker.with("uid", |live| (live.attempt, live.place) = (2, place));
        tracker
    }

    #[test]
    fn only_what_may_run_is_an_orphan() {
        let orphan = Some(Orphan { endpoint: endpoint(), uid: "uid".into(), attempt: 2 });
        let running = Place::At(endpoint(), Box::new(AttemptState::Running));
        assert_eq!(tracker(Place::Sent(endpoint())).forget("uid"), orphan);
        assert_eq!(tracker(running).forget("uid"), orphan);
        for place in [Place::Unknown, Place::Nowhere, Place::Finished] {
            assert_eq!(tracker(place).forget("uid"), None);
        }
    }

    #[test]
    fn the_load_of_an_endpoint_is_what_has_not_ended_there() {
        let tracker = tracker(Place::Nowhere);
        let put = |place| tracker.with("uid", |live| live.place = place);
        assert_eq!(tracker.load(&endpoint()), 0);
        for (place, load) in [
            (Place::Sent(endpoint()), 1),
            (Place::At(endpoint(), Box::new(AttemptState::Queued)), 1),
            (Place::At(endpoint(), Box::new(AttemptState::Running)), 1),
            (Place::Unknown, 0),
            (Place::Sent(endpoint()), 1),
            (Place::Finished, 0),
            (Place::Sent(endpoint()), 1),
        ] {
            put(place.clone());
            assert_eq!(tracker.load(&endpoint()), load, "{place:?}");
        }
        tracker.see("other", Key { namespace: "ns".into(), name: "m".into() }, true);
        tracker.with("other", |live| live.place = Place::Sent(endpoint()));
        assert_eq!(tracker.load(&endpoint()), 2);
        tracker.forget("uid");
        tracker.retain(|_| false);
        assert_eq!(tracker.load(&endpoint()), 0);
        assert!(tracker.lock().load.is_empty());
    }

    #[tokio::test]
    async fn a_follower_of_an_attempt_that_is_over_makes_room_for_the_next() {
        let tracker = tracker(Place::Nowhere);
        let wait = || tokio::spawn(std::future::pending::<()>()).abort_handle();
        let other = Endpoint { name: "b".into(), ..endpoint() };
        let (first, second) = (wait(), wait());
        tracker.follow("uid", 1, &endpoint(), || first.clone());
        tracker.follow("uid", 1, &endpoint(), || panic!("two tasks follow one attempt"));
        tracker.follow("uid", 2, &other, || second.clone());
        tokio::task::yield_now().await;
        assert!(first.is_finished() && !second.is_finished());
    }

    #[test]
    fn a_second_sight_changes_nothing() {
        let tracker = tracker(Place::Finished);
        tracker.see("uid", Key { namespace: "ns".into(), name: "n".into() }, false);
        assert!(tracker.is_finished("uid"));
    }

    #[test]
    fn the_attempt_never_goes_back() {
        let tracker = tracker(Place::Nowhere);
        assert_eq!(tracker.known("uid", 1).unwrap().attempt, 2);
        assert_eq!(tracker.known("uid", 5).unwrap().attempt, 5);
        assert_eq!(tracker.known("uid", 1).unwrap().attempt, 5);
    }

    #[test]
    fn the_newer_object_counts() {
        let tracker = tracker(Place::Nowhere);
        let object = |version: &str| {
            let mut object = super::super::samples::execution();
            object.metadata.uid = Some("uid".into());
            object.metadata.resource_version = Some(version.into());
            object
        };
        let version = |object: Execution| object.metadata.resource_version.unwrap();
        assert_eq!(version(tracker.freshest(&object("9"))), "9");
        tracker.with("uid", |live| live.written = Some(Arc::new(object("10"))));
        assert_eq!(version(tracker.freshest(&object("9"))), "10");
        assert_eq!(version(tracker.freshest(&object("11"))), "11");
    }
}
