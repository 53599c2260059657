//! Fair waiting before an executor whose queue is full.
//!
//! An executor that refuses one start for want of room would refuse the next thousand. So after a refusal
//! everybody who wants to start there lines up here, in order, and is let in again one by one: one when an
//! attempt is accepted or has ended there, and one when the time that the executor named has passed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dispatch::Endpoint;
use crate::queue::{Key, Queue};

/// When a full executor is asked again, if it does not say.
const PAUSE: Duration = Duration::from_secs(1);

/// The lines before all endpoints. Clones share them.
#[derive(Clone)]
pub struct Gates {
    lines: Arc<Mutex<HashMap<Endpoint, Line>>>,
    queue: Queue,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Key>,
    members: HashSet<Key>,
    /// Called up and on their way.
    called: HashSet<Key>,
    ticking: bool,
}

impl Gates {
    /// Open gates; whoever is called up is pushed into `queue`.
    pub fn new(queue: Queue) -> Self {
        Self { lines: Arc::default(), queue }
    }

    /// Whether `key` may try to start at `endpoint` now. If not, it has a place in the line.
    pub fn admits(&self, endpoint: &Endpoint, key: &Key) -> bool {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(endpoint) else { return true };
        if line.called.remove(key) || line.waiting.is_empty() {
            line.leave(key);
            return true;
        }
        line.join(key, false);
        false
    }

    /// `key` was refused for want of room: it waits first in line.
    pub fn refused(&self, endpoint: &Endpoint, key: &Key, retry_after: Option<Duration>) {
        let mut lines = self.lock();
        let line = lines.entry(endpoint.clone()).or_default();
        line.join(key, true);
        if !line.ticking {
            line.ticking = true;
            tokio::spawn(tick(self.clone(), endpoint.clone(), retry_after.unwrap_or(PAUSE).max(PAUSE)));
        }
    }

    /// An attempt was accepted or has ended at `endpoint`: there may be room for one.
    pub fn room(&self, endpoint: &Endpoint) {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(endpoint) else { return };
        let called = line.call_up();
        drop(lines);
        if let Some(key) = called {
            self.queue.push(key);
        }
    }

    /// `key` has ended, or is gone, and does not start any more: it stands in no line, and where it was called up the next one is.
    pub fn forget(&self, key: &Key) {
        let mut called = Vec::new();
        for line in self.lock().values_mut() {
            line.leave(key);
            if line.called.remove(key) {
                called.extend(line.call_up());
            }
        }
        called.into_iter().for_each(|key| self.queue.push(key));
    }

    /// Whether nobody waits any more; then the line is closed.
    fn closed(&self, endpoint: &Endpoint) -> bool {
        let mut lines = self.lock();
        let empty = lines.get(endpoint).is_none_or(|line| line.waiting.is_empty());
        if empty {
            lines.remove(endpoint);
        }
        empty
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Endpoint, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn join(&mut self, key: &Key, first: bool) {
        if !self.members.insert(key.clone()) {
            return;
        }
        if first {
            self.waiting.push_front(key.clone());
        } else {
            self.waiting.push_back(key.clone());
        }
    }

    fn leave(&mut self, key: &Key) {
        if self.members.remove(key) {
            self.waiting.retain(|waiting| waiting != key);
        }
    }

    fn call_up(&mut self) -> Option<Key> {
        let key = self.waiting.pop_front()?;
        self.members.remove(&key);
        self.called.insert(key.clone());
        Some(key)
    }
}

async fn tick(gates: Gates, endpoint: Endpoint, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        gates.room(&endpoint);
        if gates.closed(&endpoint) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "ns".into(), name: name.into() }
    }

    fn endpoint() -> Endpoint {
        Endpoint { name: "a".into(), url: "https://a:1".into(), ..Endpoint::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_ended_in_line_keeps_nobody_waiting() {
        let queue = Queue::default();
        let (gates, at) = (Gates::new(queue.clone()), endpoint());
        gates.refused(&at, &key("a"), None);
        for name in ["b", "c", "d"] {
            assert!(!gates.admits(&at, &key(name)));
        }
        gates.forget(&key("b"));
        gates.room(&at);
        assert_eq!(queue.depth(), 1);
        // It was called up, and ended before it came.
        gates.forget(&key("a"));
        assert_eq!(queue.depth(), 2);
        assert!(!gates.admits(&at, &key("d")), "d overtook");
        assert!(gates.admits(&at, &key("c")));
        gates.forget(&key("nobody"));
        assert_eq!(queue.depth(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_refused_first_starts_first_and_newcomers_wait() {
        let queue = Queue::default();
        let (gates, at) = (Gates::new(queue.clone()), endpoint());
        assert!(gates.admits(&at, &key("a")));
        gates.refused(&at, &key("a"), None);
        assert!(!gates.admits(&at, &key("b")));
        assert!(!gates.admits(&at, &key("c")));
        assert_eq!(queue.depth(), 0);
        gates.room(&at);
        assert_eq!(queue.depth(), 1);
        assert!(!gates.admits(&at, &key("b")), "b overtook");
        assert!(gates.admits(&at, &key("a")));
        gates.refused(&at, &key("a"), None);
        gates.room(&at);
        assert!(gates.admits(&at, &key("a")), "the refused one lost its place");
        gates.room(&at);
        assert!(gates.admits(&at, &key("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn time_alone_lets_everybody_in() {
        let queue = Queue::default();
        let (gates, at) = (Gates::new(queue.clone()), endpoint());
        gates.refused(&at, &key("a"), Some(Duration::from_secs(2)));
        for name in ["b", "c"] {
            assert!(!gates.admits(&at, &key(name)));
        }
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(queue.depth(), 3);
        assert!(["a", "b", "c"].iter().all(|name| gates.admits(&at, &key(name))));
    }
}
