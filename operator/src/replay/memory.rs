//! What this process knows about replays beyond what statuses say. Nothing here is needed to be right, only to be quick.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use requiem_model::attempt::AttemptState;
use tokio::sync::watch;

use super::uid;
use crate::dispatch::Endpoint;
use crate::queue::Key;

/// Where the present replay of a bundle is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Unknown: an earlier process may have started it.
    Unknown,
    /// Nowhere: every executor said so, or nobody can have started it yet.
    Nowhere,
    /// A start was sent to this executor, and its answer is not known.
    Sent(Endpoint),
    /// This executor has it.
    At(Endpoint, Box<AttemptState>),
}

/// A replay that nobody wants any more: whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Who has it, or may have it.
    pub endpoint: Endpoint,
    /// Its UID.
    pub uid: String,
}

/// Bundles with replays that are not over. Clones share them.
#[derive(Clone)]
pub struct Replays {
    lives: Arc<Mutex<HashMap<Key, Live>>>,
    /// Counts departures; waiters look again at each.
    departures: watch::Sender<u64>,
    stop: watch::Receiver<bool>,
}

struct Live {
    bundle: String,
    number: u32,
    place: Place,
}

impl Replays {
    /// None yet. When `stop` turns true nobody waits for a run any more.
    pub fn new(stop: watch::Receiver<bool>) -> Self {
        Self { lives: Arc::default(), departures: watch::Sender::new(0), stop }
    }

    /// Notes the bundle `key` with this UID; one that is known stays as it is. `fresh`: nobody can have started anything yet.
    pub fn see(&self, key: &Key, bundle: &str, fresh: bool) {
        let mut lives = self.lock();
        if lives.get(key).is_some_and(|live| live.bundle == bundle) {
            return;
        }
        let place = if fresh { Place::Nowhere } else { Place::Unknown };
        lives.insert(key.clone(), Live { bundle: bundle.to_owned(), number: 1, place });
    }

    /// Where replay `number` of `key` is; `None` if the bundle is not known any more.
    pub fn place(&self, key: &Key, number: u32) -> Option<Place> {
        let mut lives = self.lock();
        let live = lives.get_mut(key)?;
        if live.number != number {
            // Somebody else has recorded the ones before, and may have begun this one.
            (live.number, live.place) = (number, Place::Unknown);
        }
        Some(live.place.clone())
    }

    /// Notes where replay `number` of `key` is. `false` if the bundle is not known any more.
    pub fn put(&self, key: &Key, number: u32, place: Place) -> bool {
        let mut lives = self.lock();
        let Some(live) = lives.get_mut(key) else { return false };
        (live.number, live.place) = (number, place);
        true
    }

    /// Forgets `key`. If something of it may still be running, says where.
    pub fn forget(&self, key: &Key) -> Option<Orphan> {
        let live = self.lock().remove(key);
        self.departures.send_modify(|count| *count = count.wrapping_add(1));
        live?.orphan()
    }

    /// Every bundle that is known.
    pub fn keys(&self) -> Vec<Key> {
        self.lock().keys().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `call` answers; nothing if `key` is not known any more before it does, or the operator stops. What runs then is told to end
    /// by who forgets it, or left to the next operator.
    pub async fn unless_released<T>(&self, key: &Key, call: impl Future<Output = T>) -> Option<T> {
        let (mut departures, mut stop) = (self.departures.subscribe(), self.stop.clone());
        tokio::select! {
            biased;
            _ = departures.wait_for(|_| !self.lock().contains_key(key)) => None,
            Ok(_) = stop.wait_for(|stop| *stop) => None,
            answer = call => Some(answer),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Live>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn orphan(self) -> Option<Orphan> {
        let uid = uid(&self.bundle, self.number);
        match self.place {
            Place::Sent(endpoint) => Some(Orphan { endpoint, uid }),
            Place::At(endpoint, state) if !state.is_final() => Some(Orphan { endpoint, uid }),
            Place::At(..) | Place::Unknown | Place::Nowhere => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::samples::endpoint;

    fn replays() -> Replays {
        Replays::new(watch::channel(false).1)
    }

    fn key() -> Key {
        Key { namespace: "ns".into(), name: "b".into() }
    }

    #[test]
    fn only_what_may_run_is_told_to_end() {
        let orphan = |place| {
            let replays = replays();
            replays.see(&key(), "uid", true);
            assert!(replays.put(&key(), 3, place));
            replays.forget(&key())
        };
        let told = Some(Orphan { endpoint: endpoint("a"), uid: "uid-replay-3".into() });
        assert_eq!(orphan(Place::Sent(endpoint("a"))), told);
        assert_eq!(orphan(Place::At(endpoint("a"), Box::new(AttemptState::Running))), told);
        assert_eq!(orphan(Place::Nowhere), None);
        assert_eq!(orphan(Place::Unknown), None);
        assert!(!replays().put(&key(), 1, Place::Nowhere));
    }

    #[test]
    fn what_somebody_else_recorded_makes_the_next_one_unknown() {
        let replays = replays();
        replays.see(&key(), "uid", true);
        replays.see(&key(), "uid", false);
        assert_eq!(replays.place(&key(), 1), Some(Place::Nowhere));
        assert_eq!(replays.place(&key(), 2), Some(Place::Unknown));
        // A bundle of the same name that was created anew.
        replays.see(&key(), "other", true);
        assert_eq!(replays.place(&key(), 1), Some(Place::Nowhere));
    }

    #[tokio::test]
    async fn who_waits_learns_that_the_bundle_went_or_the_operator_goes() {
        let (stop, stopped) = watch::channel(false);
        for released in [true, false] {
            let replays = Replays::new(stopped.clone());
            replays.see(&key(), "uid", true);
            assert_eq!(replays.unless_released(&key(), async { 7 }).await, Some(7));
            let there = replays.clone();
            let waiting =
                tokio::spawn(
                    async move { there.unless_released(&key(), std::future::pending::<()>()).await },
                );
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if released {
                replays.forget(&key());
            } else {
                stop.send_replace(true);
            }
            let waited = tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await;
            assert_eq!(waited.unwrap().unwrap(), None);
        }
    }
}
