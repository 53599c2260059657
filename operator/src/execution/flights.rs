//! Single flight: of identical Executions of one namespace that may answer one another, one runs, the others wait.
//!
//! ```text
//! join ─▶ turn ─┬▶ Go    nobody else runs, or may be running: look for an answer, else run
//!               └▶ Wait  for the one that runs
//! leave (with an answer: everybody goes on and takes it · without: the next one goes)
//! ```
//!
//! Nothing here is needed to be right after a crash: every member of a flight is live at the API server, a new process
//! sees all of them before it looks at the first, and one of which it is not yet known whether it runs is waited for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use requiem_model::RequestDigest;

use crate::queue::{Key, Queue};

/// What members of one flight have in common. The pool names the namespace; another pool may be without an executor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where they run.
    pub pool: Key,
    /// What they ask for.
    pub request: RequestDigest,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The caller's. If an answer has just come, the name of its ProofBundle.
    Go(Option<String>),
    /// That of this Execution.
    Wait(Key),
}

/// All flights. Clones share them.
#[derive(Clone)]
pub struct Flights {
    state: Arc<Mutex<State>>,
    queue: Queue,
}

#[derive(Default)]
struct State {
    flights: HashMap<Route, Flight>,
    routes: HashMap<String, Route>,
    /// Over, and about to leave with what they found.
    landing: HashSet<String>,
}

#[derive(Default)]
struct Flight {
    members: HashMap<String, Key>,
    stage: Stage,
}

#[derive(Default)]
enum Stage {
    /// Nobody runs.
    #[default]
    Free,
    /// The member with this UID runs, or is about to.
    Held(String),
    /// The ProofBundle of this name answers.
    Landed(String),
}

impl Flights {
    /// No flights; who may go on is pushed into `queue`.
    pub fn new(queue: Queue) -> Self {
        Self { state: Arc::default(), queue }
    }

    /// The Execution `uid` wants to go `route`. Saying so twice changes nothing.
    pub fn join(&self, uid: &str, key: &Key, route: Route) {
        let mut state = self.lock();
        if state.routes.get(uid).is_some_and(|known| *known == route) {
            return;
        }
        state.routes.insert(uid.to_owned(), route.clone());
        state.flights.entry(route).or_default().members.insert(uid.to_owned(), key.clone());
    }

    /// Whether the Execution `uid` may go on. `may_run` says of another one whether it runs, or may be running.
    pub fn turn(&self, uid: &str, may_run: impl Fn(&str) -> bool) -> Turn {
        let mut state = self.lock();
        let State { flights, routes, landing } = &mut *state;
        let Some(flight) = routes.get(uid).and_then(|route| flights.get_mut(route)) else {
            return Turn::Go(None);
        };
        match &flight.stage {
            Stage::Landed(bundle) => return Turn::Go(Some(bundle.clone())),
            Stage::Held(holder) if holder != uid => {
                if let Some(key) = flight.members.get(holder) {
                    return Turn::Wait(key.clone());
                }
            }
            Stage::Held(_) | Stage::Free => {}
        }
        // Who is landing has an answer that cannot be found yet.
        let busy = |other: &String| other != uid && (landing.contains(other) || may_run(other));
        let other = flight.members.iter().find(|(other, _)| busy(other));
        let holder = other.map_or(uid, |(other, _)| other).to_owned();
        let turn = other.map_or(Turn::Go(None), |(_, key)| Turn::Wait(key.clone()));
        flight.stage = Stage::Held(holder);
        turn
    }

    /// The Execution `uid` is over; what it found is said by [`Flights::leave`]. Until then its object may vanish.
    pub fn landing(&self, uid: &str) {
        let mut state = self.lock();
        if state.routes.contains_key(uid) {
            state.landing.insert(uid.to_owned());
        }
    }

    /// The end of `uid` could not be written; it is tried again.
    pub fn aborted(&self, uid: &str) {
        self.lock().landing.remove(uid);
    }

    /// The object of `uid` is gone. Nothing changes while it is landing.
    pub fn vanished(&self, uid: &str) {
        if !self.lock().landing.contains(uid) {
            self.leave(uid, None);
        }
    }

    /// Everybody of whom `stays` says no has vanished.
    pub fn retain(&self, stays: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.lock().routes.keys().filter(|uid| !stays(uid)).cloned().collect();
        gone.iter().for_each(|uid| self.vanished(uid));
    }

    /// The Execution `uid` does not run any more, or does not want to. `answer` is the ProofBundle that answers others.
    pub fn leave(&self, uid: &str, answer: Option<&str>) {
        let mut state = self.lock();
        state.landing.remove(uid);
        let Some(route) = state.routes.remove(uid) else { return };
        let Some(flight) = state.flights.get_mut(&route) else { return };
        flight.members.remove(uid);
        let held = match &flight.stage {
            Stage::Held(holder) => holder == uid,
            Stage::Free | Stage::Landed(_) => false,
        };
        let woken: Vec<Key> = match answer {
            Some(bundle) => {
                flight.stage = Stage::Landed(bundle.to_owned());
                flight.members.values().cloned().collect()
            }
            None if held => {
                flight.stage = Stage::Free;
                flight.members.values().next().cloned().into_iter().collect()
            }
            None => Vec::new(),
        };
        if flight.members.is_empty() {
            state.flights.remove(&route);
        }
        drop(state);
        woken.into_iter().for_each(|key| self.queue.push(key));
    }

    /// A newer result answers those who go `route`.
    pub fn renew(&self, route: &Route, bundle: &str) {
        if let Some(Flight { stage: Stage::Landed(answers), .. }) = self.lock().flights.get_mut(route) {
            bundle.clone_into(answers);
        }
    }

    /// What answered the members of the flight of `uid` does not any more: they decide anew whose turn it is.
    pub fn unanswered(&self, uid: &str) {
        let mut state = self.lock();
        let State { flights, routes, .. } = &mut *state;
        let Some(flight) = routes.get(uid).and_then(|route| flights.get_mut(route)) else { return };
        if matches!(flight.stage, Stage::Landed(_)) {
            flight.stage = Stage::Free;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "ns".into(), name: name.into() }
    }

    fn route(pool: &str) -> Route {
        Route { pool: key(pool), request: RequestDigest::from_bytes([7; 32]) }
    }

    fn flights(members: &[&str]) -> (Flights, Queue) {
        let queue = Queue::default();
        let flights = Flights::new(queue.clone());
        members.iter().for_each(|uid| flights.join(uid, &key(uid), route("p")));
        (flights, queue)
    }

    const NOBODY: fn(&str) -> bool = |_| false;

    #[test]
    fn one_goes_and_its_answer_is_for_all() {
        let (flights, queue) = flights(&["a", "b", "c"]);
        assert_eq!(flights.turn("b", NOBODY), Turn::Go(None));
        assert_eq!(flights.turn("b", NOBODY), Turn::Go(None));
        assert_eq!(flights.turn("a", NOBODY), Turn::Wait(key("b")));
        flights.leave("b", Some("proof"));
        assert_eq!(queue.depth(), 2);
        assert_eq!(flights.turn("a", NOBODY), Turn::Go(Some("proof".into())));
        flights.renew(&route("p"), "newer");
        assert_eq!(flights.turn("c", NOBODY), Turn::Go(Some("newer".into())));
        flights.unanswered("c");
        assert_eq!(flights.turn("c", NOBODY), Turn::Go(None));
        assert_eq!(flights.turn("a", NOBODY), Turn::Wait(key("c")));
    }

    #[test]
    fn who_is_landing_is_waited_for_though_nobody_saw_it_run() {
        let (flights, queue) = flights(&["a", "b"]);
        flights.landing("a");
        assert_eq!(flights.turn("b", NOBODY), Turn::Wait(key("a")));
        flights.leave("a", Some("proof"));
        assert_eq!(queue.depth(), 1);
        assert_eq!(flights.turn("b", NOBODY), Turn::Go(Some("proof".into())));
    }

    #[test]
    fn after_a_failure_the_next_one_goes_and_only_that_one_is_woken() {
        let (flights, queue) = flights(&["a", "b", "c"]);
        assert_eq!(flights.turn("a", NOBODY), Turn::Go(None));
        flights.leave("a", None);
        assert_eq!(queue.depth(), 1);
        // Whoever comes first, woken or not.
        assert_eq!(flights.turn("c", NOBODY), Turn::Go(None));
        assert_eq!(flights.turn("b", NOBODY), Turn::Wait(key("c")));
        flights.leave("b", None);
        assert_eq!(queue.depth(), 1, "one that waited gave up: nobody's turn has come");
    }

    #[test]
    fn who_may_be_running_is_waited_for() {
        let (flights, _) = flights(&["a", "b"]);
        assert_eq!(flights.turn("a", |uid| uid == "b"), Turn::Wait(key("b")));
        assert_eq!(flights.turn("b", NOBODY), Turn::Go(None));
        // The holder is not alone either.
        assert_eq!(flights.turn("b", |uid| uid == "a"), Turn::Wait(key("a")));
    }

    #[test]
    fn one_that_is_landing_is_not_lost_before_it_tells() {
        let (flights, queue) = flights(&["a", "b"]);
        assert_eq!(flights.turn("a", NOBODY), Turn::Go(None));
        flights.landing("a");
        flights.vanished("a");
        flights.retain(|uid| uid == "b");
        assert_eq!(flights.turn("b", NOBODY), Turn::Wait(key("a")));
        flights.leave("a", Some("proof"));
        assert_eq!(flights.turn("b", NOBODY), Turn::Go(Some("proof".into())));
        assert_eq!(queue.depth(), 1);
    }

    #[test]
    fn a_vanished_holder_frees_the_way_and_other_pools_are_other_flights() {
        let (flights, queue) = flights(&["a", "b"]);
        flights.join("x", &key("x"), route("other"));
        assert_eq!(flights.turn("a", NOBODY), Turn::Go(None));
        assert_eq!(flights.turn("x", |_| true), Turn::Go(None));
        flights.vanished("a");
        assert_eq!(queue.depth(), 1);
        assert_eq!(flights.turn("b", NOBODY), Turn::Go(None));
        flights.leave("b", None);
        flights.leave("x", None);
        assert!(flights.lock().flights.is_empty() && flights.lock().routes.is_empty(), "something is left");
    }
}
