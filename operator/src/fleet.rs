//! The executors of every pool, as everybody who dispatches sees them: where they are, whether they take new work,
//! how many slots they have. [`crate::executor_pool`] writes it when a pool or a pod changes; decisions read it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use requiem_model::attempt::Capabilities;

use crate::dispatch::Endpoint;
use crate::queue::Key;

/// The executors of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roster {
    /// They are pods, which were not listed yet.
    Unlisted,
    /// They are pods, and the operator does not see pods; this is why.
    Unwatched(String),
    /// These. Whoever is not here does not count.
    Known(Vec<Post>),
}

/// One executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Whether it is given new attempts. One that is not may still have some.
    pub takes: bool,
    /// Why it cannot be asked now, though it may have attempts.
    pub absent: Option<String>,
    /// Its node, if it is a pod that was placed.
    pub node: Option<String>,
}

/// All pools. Clones share them.
#[derive(Clone, Default)]
pub struct Fleet {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    rosters: HashMap<Key, Arc<Roster>>,
    slots: HashMap<Endpoint, u32>,
}

impl Fleet {
    /// The executors of `pool`; `None` if there is no such pool, or none that can be read.
    pub fn roster(&self, pool: &Key) -> Option<Arc<Roster>> {
        self.lock().rosters.get(pool).cloned()
    }

    /// These are all pools now. Says which of them changed, came or went.
    pub fn replace(&self, rosters: HashMap<Key, Roster>) -> Vec<Key> {
        let mut state = self.lock();
        let mut next = HashMap::new();
        let mut changed = Vec::new();
        for (key, roster) in rosters {
            let old = state.rosters.remove(&key);
            if old.as_deref() != Some(&roster) {
                changed.push(key.clone());
            }
            next.insert(key, old.filter(|old| **old == roster).unwrap_or_else(|| Arc::new(roster)));
        }
        changed.extend(state.rosters.drain().map(|(key, _)| key));
        state.rosters = next;
        let used = state.endpoints();
        state.slots.retain(|endpoint, _| used.contains(endpoint));
        changed
    }

    /// Every endpoint that can be asked.
    pub fn endpoints(&self) -> HashSet<Endpoint> {
        self.lock().endpoints()
    }

    /// The pools that `endpoint` is in.
    pub fn pools_of(&self, endpoint: &Endpoint) -> Vec<Key> {
        let state = self.lock();
        let holds = |roster: &Roster| roster.posts().iter().any(|post| post.endpoint == *endpoint);
        state.rosters.iter().filter(|(_, roster)| holds(roster)).map(|(key, _)| key.clone()).collect()
    }

    /// Notes what `endpoint` said about itself.
    pub fn learned(&self, endpoint: &Endpoint, capabilities: &Capabilities) {
        let slots = if capabilities.draining { 0 } else { capabilities.slots };
        self.lock().slots.insert(endpoint.clone(), slots);
    }

    /// Attempts that `endpoint` said it runs at the same time; none before it has said anything.
    pub fn slots(&self, endpoint: &Endpoint) -> u32 {
        self.lock().slots.get(endpoint).copied().unwrap_or(0)
    }

    /// Slots of all endpoints.
    pub fn all_slots(&self) -> u64 {
        self.lock().slots.values().map(|slots| u64::from(*slots)).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn endpoints(&self) -> HashSet<Endpoint> {
        let posts = self.rosters.values().flat_map(|roster| roster.posts());
        posts.filter(|post| post.absent.is_none()).map(|post| post.endpoint.clone()).collect()
    }
}

impl Roster {
    /// Those who are known.
    pub fn posts(&self) -> &[Post] {
        match self {
            Self::Unlisted | Self::Unwatched(_) => &[],
            Self::Known(posts) => posts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "ns".into(), name: name.into() }
    }

    fn post(name: &str) -> Post {
        let endpoint =
            Endpoint { name: name.into(), url: format!("https://{name}:1"), ..Endpoint::default() };
        Post { endpoint, takes: true, absent: None, node: None }
    }

    fn pools(of: &[(&str, Roster)]) -> HashMap<Key, Roster> {
        of.iter().map(|(name, roster)| (key(name), roster.clone())).collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let fleet = Fleet::default();
        let (a, b) = (Roster::Known(vec![post("a")]), Roster::Known(vec![post("b")]));
        let changes = |of: &[(&str, Roster)]| {
            let mut changed: Vec<String> = fleet.replace(pools(of)).into_iter().map(|key| key.name).collect();
            changed.sort();
            changed
        };
        assert_eq!(changes(&[("p", a.clone()), ("q", b.clone())]), ["p", "q"]);
        assert_eq!(changes(&[("p", a.clone()), ("q", b.clone())]), [""; 0]);
        assert_eq!(changes(&[("p", a.clone()), ("q", a.clone())]), ["q"]);
        assert_eq!(changes(&[("p", a.clone())]), ["q"]);
        assert_eq!(fleet.roster(&key("q")), None);
        assert_eq!(fleet.pools_of(&post("a").endpoint), [key("p")]);
    }

    #[test]
    fn an_executor_without_an_address_is_known_and_not_called() {
        let fleet = Fleet::default();
        let absent = Post { absent: Some("why".into()), ..post("a") };
        fleet.replace(pools(&[("p", Roster::Known(vec![absent, post("b")]))]));
        assert_eq!(fleet.endpoints(), HashSet::from([post("b").endpoint]));
        assert_eq!(fleet.roster(&key("p")).unwrap().posts().len(), 2);
    }
}
