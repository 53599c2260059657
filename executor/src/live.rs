//! What a run has written so far, for whoever follows it: the end of each stream in flat memory.
//!
//! Positions are those of the kept stream, so somebody who followed from the beginning and was never too slow has read exactly what
//! the result's digest is about. What lies beyond the cap of kept bytes is not shown.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use requiem_model::{ExecutionRequest, Failure};
use requiem_sandbox::StdStream;
use tokio::sync::watch;

use crate::engine::{Done, Engine, EngineError, Job};

/// Bytes of each stream that are held for followers.
const WINDOW_BYTES: usize = 64 * 1024;

/// An engine whose runs can be followed.
#[derive(Debug)]
pub(crate) struct Followed<E> {
    pub(crate) engine: E,
    pub(crate) live: Arc<Live>,
}

/// The two streams of one run while it runs.
#[derive(Debug, Default)]
pub struct Live {
    stdout: Shown,
    stderr: Shown,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Shown {
    window: Mutex<VecDeque<u8>>,
    /// Bytes that were shown in all: the position after the window.
    end: watch::Sender<u64>,
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Position of its first byte; later than what was asked for if that is not held any more.
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
}

impl<E: Engine> Engine for Followed<E> {
    fn identity(&self) -> requiem_proof::Engine {
        self.engine.identity()
    }

    fn admit(&self, request: &ExecutionRequest) -> Result<(), Failure> {
        self.engine.admit(request)
    }

    fn run(&self, job: Job<'_>) -> Result<Done, EngineError> {
        let cap = job.request.limits.max_output_bytes;
        let inner = job.sink;
        let mut sink = |stream: StdStream, bytes: &[u8]| {
            inner(stream, bytes);
            self.live.stream(stream).push(bytes, cap);
        };
        self.engine.run(Job { sink: &mut sink, ..job })
    }
}

impl Live {
    /// One of the two.
    pub(crate) const fn stream(&self, stream: StdStream) -> &Shown {
        match stream {
            StdStream::Stdout => &self.stdout,
            StdStream::Stderr => &self.stderr,
        }
    }
}

impl Default for Shown {
    fn default() -> Self {
        Self { window: Mutex::default(), end: watch::Sender::new(0) }
    }
}

impl Shown {
    /// Shows the next bytes, up to `cap` bytes in all.
    pub(crate) fn push(&self, bytes: &[u8], cap: u64) {
        let room = usize::try_from(cap.saturating_sub(*self.end.borrow())).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            return;
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.extend(&bytes[bytes.len().saturating_sub(WINDOW_BYTES)..]);
        let surplus = window.len().saturating_sub(WINDOW_BYTES);
        window.drain(..surplus);
        // Under the lock: the position belongs to this window.
        self.end.send_modify(|end| *end += bytes.len() as u64);
    }

    /// What is held from the position `from` on.
    pub(crate) fn read(&self, from: u64) -> Part {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.end.borrow().saturating_sub(window.len() as u64);
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX).min(window.len());
        Part { start: first + skipped as u64, bytes: window.range(skipped..).copied().collect() }
    }

    /// Returns when there is something after the position `from`.
    pub(crate) async fn beyond(&self, from: u64) {
        // The sender is ours, so this ends only when it holds.
        let mut end = self.end.subscribe();
        let _seen = end.wait_for(|end| *end > from).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_whole_stream() {
        let shown = Shown::default();
        assert_eq!(shown.read(0), Part { start: 0, bytes: vec![] });
        shown.push(b"hello ", 11);
        shown.push(b"world, and what is not kept", 11);
        shown.push(b"nor this", 11);
        assert_eq!(shown.read(6), Part { start: 6, bytes: b"world".to_vec() });
        assert_eq!(shown.read(11), Part { start: 11, bytes: vec![] });
        assert_eq!(shown.read(99), Part { start: 11, bytes: vec![] });
    }

    #[test]
    fn who_is_too_slow_learns_where_he_goes_on() {
        let shown = Shown::default();
        (0..10_u8).for_each(|number| shown.push(&vec![number; 10_000], u64::MAX));
        let part = shown.read(5);
        assert_eq!((part.start, part.bytes.len()), (100_000 - 65_536, WINDOW_BYTES));
        assert_eq!((part.bytes[0], part.bytes[WINDOW_BYTES - 1]), (3, 9));
        shown.push(&vec![b'x'; 3 * WINDOW_BYTES], u64::MAX);
        assert_eq!(shown.read(0).start, 100_000 + 2 * WINDOW_BYTES as u64);
    }

    #[tokio::test]
    async fn a_follower_wakes_at_the_first_byte_that_it_has_not_seen() {
        let shown = Shown::default();
        shown.push(b"ab", 3);
        shown.beyond(1).await;
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), shown.beyond(2)).await;
        assert!(waiting.is_err());
        let (_woken, ()) = tokio::join!(shown.beyond(2), async { shown.push(b"c", 3) });
    }
}
