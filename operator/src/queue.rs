//! A work queue of object names: first in, first out, each name at most once, never two workers on one name.
//!
//! ```text
//! push ─▶ queued ─▶ running ─▶ done ─┬▶ forgotten
//!           ▲          │ push = dirty │
//!           └──────────┴──────────────┴▶ (again after a while, or after a backoff)
//! ```
//!
//! Why not the controller of kube's runtime: its scheduler wakes through a timer wheel of 1 ms steps and takes
//! waiting objects in no order. Here a pushed name is taken at once, in order of arrival.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::backoff;

/// Namespace and name of an object; its kind is known from the queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What a worker says about the object it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do until somebody pushes it again.
    Done,
    /// Look again after this time. Not a failure.
    Again(Duration),
    /// It failed; look again after a backoff, at least after the given time.
    Failed {
        /// What the other side asked for (`Retry-After`).
        at_least: Option<Duration>,
    },
}

/// The queue. Clones are handles to the same queue.
#[derive(Clone, Default)]
pub struct Queue {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    waiting: VecDeque<Key>,
}

#[derive(Default)]
struct Entry {
    phase: Phase,
    failures: u32,
    timer: Option<AbortHandle>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Queued,
    Running,
    /// Pushed while running: runs once more.
    Dirty,
}

impl Key {
    /// The key of `object`.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

impl Queue {
    /// Asks for `key` to be looked at now. A wait that was agreed on for it is over.
    pub fn push(&self, key: Key) {
        let mut state = self.lock();
        let entry = state.entries.entry(key.clone()).or_default();
        if let Some(timer) = entry.timer.take() {
            timer.abort();
        }
        match entry.phase {
            Phase::Idle => {
                entry.phase = Phase::Queued;
                state.waiting.push_back(key);
                drop(state);
                self.inner.ready.notify_one();
            }
            Phase::Running => entry.phase = Phase::Dirty,
            Phase::Queued | Phase::Dirty => {}
        }
    }

    /// Asks for `key` to be looked at after `wait`, in place of any wait that was agreed on for it.
    pub fn push_later(&self, key: Key, wait: Duration) {
        let mut state = self.lock();
        let entry = state.entries.entry(key.clone()).or_default();
        match entry.phase {
            Phase::Idle => {}
            // Its worker may have looked before what this wait is about.
            Phase::Running => {
                entry.phase = Phase::Dirty;
                return;
            }
            Phase::Queued | Phase::Dirty => return,
        }
        if let Some(timer) = entry.timer.replace(self.push_after(key, wait)) {
            timer.abort();
        }
    }

    /// Nobody need look at `key` any more, unless a worker is at it.
    pub fn forget(&self, key: &Key) {
        let mut state = self.lock();
        let idle = state.entries.get(key).is_some_and(|entry| entry.phase == Phase::Idle);
        let entry = idle.then(|| state.entries.remove(key)).flatten();
        if let Some(timer) = entry.and_then(|entry| entry.timer) {
            timer.abort();
        }
    }

    /// Names that wait for a worker now.
    pub fn depth(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Gives names to `work`, at most `concurrency` at a time, until `stop` turns true; then waits for the
    /// workers that still run, at most `grace`.
    pub async fn run<F, W>(
        &self,
        concurrency: usize,
        mut stop: watch::Receiver<bool>,
        grace: Duration,
        work: F,
    ) where
        F: Fn(Key) -> W + Send + Sync + 'static,
        W: Future<Output = Verdict> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(concurrency));
        let mut workers = JoinSet::new();
        loop {
            let next = async { (slots.clone().acquire_owned().await, self.next().await) };
            let (slot, key) = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                next = next => next,
            };
            let mut lease = Lease { queue: self.clone(), key: Some(key.clone()) };
            let running = work(key);
            workers.spawn(async move {
                let verdict = running.await;
                lease.finish(verdict);
                drop(slot);
            });
            while workers.try_join_next().is_some() {}
        }
        let drained = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!("workers were still busy when the grace period ended");
        }
    }

    async fn next(&self) -> Key {
        loop {
            let woken = self.inner.ready.notified();
            if let Some(key) = self.take() {
                return key;
            }
            woken.await;
        }
    }

    fn take(&self) -> Option<Key> {
        let mut state = self.lock();
        let key = state.waiting.pop_front()?;
        state.entries.entry(key.clone()).or_default().phase = Phase::Running;
        Some(key)
    }

    fn done(&self, key: Key, verdict: Verdict) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&key) else { return };
        let dirty = entry.phase == Phase::Dirty;
        entry.phase = Phase::Idle;
        let wait = match verdict {
            Verdict::Done => None,
            Verdict::Again(after) => Some(after),
            Verdict::Failed { at_least } => {
                let wait = backoff::delay(&key.to_string(), entry.failures);
                Some(wait.max(at_least.unwrap_or_default()))
            }
        };
        entry.failures = if matches!(verdict, Verdict::Failed { .. }) { entry.failures + 1 } else { 0 };
        match wait {
            _ if dirty => {
                drop(state);
                self.push(key);
            }
            Some(wait) => entry.timer = Some(self.push_after(key, wait)),
            None => {
                state.entries.remove(&key);
            }
        }
    }

    fn push_after(&self, key: Key, wait: Duration) -> AbortHandle {
        let queue = self.clone();
        let timer = async move {
            tokio::time::sleep(wait).await;
            queue.expire(key);
        };
        tokio::spawn(timer).abort_handle()
    }

    /// Like push, from within the timer's own task: it must not abort itself.
    fn expire(&self, key: Key) {
        if let Some(entry) = self.lock().entries.get_mut(&key) {
            entry.timer = None;
        }
        self.push(key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that can panic: there are none.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the key back even when its worker panics.
struct Lease {
    queue: Queue,
    key: Option<Key>,
}

impl Lease {
    fn finish(&mut self, verdict: Verdict) {
        if let Some(key) = self.key.take() {
            self.queue.done(key, verdict);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.finish(Verdict::Failed { at_least: None });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "ns".into(), name: name.into() }
    }

    struct Rig {
        queue: Queue,
        stop: watch::Sender<bool>,
        seen: mpsc::UnboundedReceiver<String>,
        runner: tokio::task::JoinHandle<()>,
    }

    /// A queue whose worker reports the name and then does what `act` says.
    fn rig<W>(concurrency: usize, act: impl Fn(Key) -> W + Send + Sync + 'static) -> Rig
    where
        W: Future<Output = Verdict> + Send + 'static,
    {
        let queue = Queue::default();
        let (stop, stopped) = watch::channel(false);
        let (tell, seen) = mpsc::unbounded_channel();
        let handle = queue.clone();
        let runner = tokio::spawn(async move {
            let work = move |key: Key| {
                tell.send(key.name.clone()).unwrap();
                act(key)
            };
            handle.run(concurrency, stopped, Duration::from_secs(5), work).await;
        });
        Rig { queue, stop, seen, runner }
    }

    #[tokio::test]
    async fn names_are_served_in_order_and_once() {
        let queue = Queue::default();
        for name in ["c", "a", "b", "a", "c"] {
            queue.push(key(name));
        }
        assert_eq!(queue.depth(), 3);
        let order = [queue.next().await.name, queue.next().await.name, queue.next().await.name];
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_wait_replaces_an_earlier_one_and_can_be_forgotten() {
        let queue = Queue::default();
        queue.push_later(key("a"), Duration::from_secs(1));
        queue.push_later(key("a"), Duration::from_secs(9));
        queue.push_later(key("b"), Duration::from_secs(1));
        queue.forget(&key("b"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(queue.depth(), 0);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(queue.depth(), 1);
        assert_eq!(queue.lock().entries.len(), 1);
        // While its worker is at it, it is looked at once more: the worker may have been too early.
        assert_eq!(queue.next().await, key("a"));
        queue.push_later(key("a"), Duration::from_secs(1));
        queue.done(key("a"), Verdict::Done);
        assert_eq!(queue.depth(), 1);
    }

    #[tokio::test]
    async fn a_name_pushed_while_it_runs_runs_once_more_and_never_twice_at_a_time() {
        let gate = Arc::new(Semaphore::new(0));
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (gate_in, most_in) = (gate.clone(), most.clone());
        let mut rig = rig(8, move |_| {
            let (gate, inside, most) = (gate_in.clone(), inside.clone(), most_in.clone());
            async move {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                inside.fetch_sub(1, Ordering::SeqCst);
                Verdict::Done
            }
        });
        rig.queue.push(key("a"));
        rig.seen.recv().await.unwrap();
        for _ in 0..100 {
            rig.queue.push(key("a"));
        }
        gate.add_permits(10);
        rig.seen.recv().await.unwrap();
        rig.stop.send(true).unwrap();
        rig.runner.await.unwrap();
        assert!(rig.seen.recv().await.is_none(), "a third run");
        assert_eq!(most.load(Ordering::SeqCst), 1);
        assert!(rig.queue.lock().entries.is_empty(), "a finished name is still known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_ends_a_wait() {
        let mut rig = rig(1, |_| async { Verdict::Again(Duration::from_secs(3600)) });
        rig.queue.push(key("a"));
        rig.seen.recv().await.unwrap();
        tokio::task::yield_now().await;
        let before = tokio::time::Instant::now();
        rig.queue.push(key("a"));
        rig.seen.recv().await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(1));
        rig.seen.recv().await.unwrap();
        assert!(before.elapsed() >= Duration::from_secs(3600));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_a_panic_is_a_failure() {
        let mut rig = rig(1, |key| async move {
            assert!(key.name != "panics", "the worker's own failure");
            Verdict::Failed { at_least: None }
        });
        rig.queue.push(key("panics"));
        rig.queue.push(key("fails"));
        let start = tokio::time::Instant::now();
        let mut times: HashMap<String, Vec<Duration>> = HashMap::new();
        for _ in 0..8 {
            times.entry(rig.seen.recv().await.unwrap()).or_default().push(start.elapsed());
        }
        for (name, times) in times {
            assert!(times.len() >= 3, "{name} was tried {} times", times.len());
            assert!(times[2] - times[1] > times[1] - times[0], "{name}: {times:?}");
        }
    }
}
