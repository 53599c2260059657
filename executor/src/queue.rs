//! Work that waits for a worker: bounded, first in first out, removable by key.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::journal::AttemptKey;

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A bounded queue between the registry and the workers.
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    ready: Condvar,
    capacity: usize,
}

struct Inner<T> {
    waiting: VecDeque<(AttemptKey, T)>,
    /// Workers inside [`Queue::pop`]: each takes one job without making it wait.
    idle: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// A queue in which at most `capacity` jobs wait while every worker is busy.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner { waiting: VecDeque::new(), idle: 0, closed: false };
        Self { inner: Mutex::new(inner), ready: Condvar::new(), capacity }
    }

    /// Adds a job.
    ///
    /// # Errors
    /// [`Full`] when `capacity` jobs wait already, or the queue is closed.
    pub fn push(&self, key: AttemptKey, job: T) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.closed || inner.waiting.len() >= self.capacity.saturating_add(inner.idle) {
            return Err(Full);
        }
        inner.waiting.push_back((key, job));
        drop(inner);
        self.ready.notify_one();
        Ok(())
    }

    /// The next job, as soon as there is one; `None` once the queue is closed.
    pub fn pop(&self) -> Option<T> {
        let mut inner = self.lock();
        inner.idle += 1;
        loop {
            if inner.closed {
                return None;
            }
            if let Some((_key, job)) = inner.waiting.pop_front() {
                inner.idle -= 1;
                return Some(job);
            }
            inner = self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts a job that was taken too early back to the head, whatever the capacity.
    ///
    /// # Errors
    /// The job, if the queue is closed.
    pub fn put_back(&self, key: AttemptKey, job: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(job);
        }
        inner.waiting.push_front((key, job));
        drop(inner);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes the job of `key` out again, if no worker has it yet.
    pub fn remove(&self, key: &AttemptKey) -> Option<T> {
        let mut inner = self.lock();
        let at = inner.waiting.iter().position(|(waiting, _)| waiting == key)?;
        inner.waiting.remove(at).map(|(_key, job)| job)
    }

    /// Jobs that wait.
    pub fn depth(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Lets every worker go and gives back what no worker took.
    pub fn close(&self) -> Vec<T> {
        let mut inner = self.lock();
        inner.closed = true;
        let left = inner.waiting.drain(..).map(|(_key, job)| job).collect();
        drop(inner);
        self.ready.notify_all();
        left
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uid: &str) -> AttemptKey {
        AttemptKey { uid: uid.into(), attempt: 1 }
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_its_order() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(key("a"), 1), Ok(()));
        assert_eq!(queue.push(key("b"), 2), Ok(()));
        assert_eq!(queue.push(key("c"), 3), Err(Full));
        assert_eq!((queue.pop(), queue.pop(), queue.depth()), (Some(1), Some(2), 0));
        assert_eq!(queue.push(key("c"), 3), Ok(()));
    }

    #[test]
    fn what_is_put_back_comes_first_again() {
        let queue = Queue::new(1);
        queue.push(key("a"), 1).unwrap();
        let first = queue.pop().unwrap();
        queue.push(key("b"), 2).unwrap();
        assert_eq!(queue.put_back(key("a"), first), Ok(()));
        assert_eq!((queue.pop(), queue.pop()), (Some(1), Some(2)));
        assert!(queue.close().is_empty());
        assert_eq!(queue.put_back(key("a"), 1), Err(1));
    }

    #[test]
    fn a_queue_without_places_feeds_idle_workers_only() {
        let queue = std::sync::Arc::new(Queue::new(0));
        assert_eq!(queue.push(key("a"), 1), Err(Full));
        let worker = {
            let queue = std::sync::Arc::clone(&queue);
            std::thread::spawn(move || queue.pop())
        };
        while queue.push(key("a"), 1).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(worker.join().unwrap(), Some(1));
        assert_eq!(queue.push(key("b"), 2), Err(Full));
    }

    #[test]
    fn closing_gives_back_what_waits_and_releases_workers() {
        let queue = Queue::new(2);
        queue.push(key("a"), 1).unwrap();
        queue.push(key("b"), 2).unwrap();
        assert_eq!(queue.remove(&key("a")), Some(1));
        assert_eq!(queue.remove(&key("a")), None);
        assert_eq!(queue.close(), [2]);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.push(key("c"), 3), Err(Full));
    }
}
