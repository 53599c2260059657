//! Kubernetes Events, on failure only, at a bounded rate, never in the way of a status.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::metrics::Metrics;

/// Events that may come at once.
const BURST: f64 = 50.0;
/// Events per second in the long run.
const RATE: f64 = 5.0;
const DEADLINE: Duration = Duration::from_secs(10);

/// Publishes Events. Clones share the rate.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    bucket: Arc<Mutex<Bucket>>,
    metrics: Metrics,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Events {
    /// Events in the name of `controller`.
    pub fn new(client: Client, controller: &str, metrics: Metrics) -> Self {
        let recorder = Recorder::new(client, Reporter::from(controller));
        let bucket = Bucket { tokens: BURST, filled: Instant::now() };
        Self { recorder, bucket: Arc::new(Mutex::new(bucket)), metrics }
    }

    /// Publishes a warning about `regarding` in the background, or drops it when there were too many.
    pub fn warn(&self, regarding: ObjectReference, action: &'static str, reason: &str, note: &str) {
        let allowed = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if !allowed {
            self.metrics.event("dropped");
            return;
        }
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        let events = self.clone();
        tokio::spawn(async move {
            let published = events.recorder.publish(&event, &regarding);
            match tokio::time::timeout(DEADLINE, published).await {
                Ok(Ok(())) => events.metrics.event("published"),
                Ok(Err(error)) => {
                    events.metrics.event("refused");
                    tracing::warn!(%error, reason = event.reason, "event was not published");
                }
                Err(_elapsed) => events.metrics.event("timeout"),
            }
        });
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * RATE;
        self.tokens = (self.tokens + gained).min(BURST);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: start };
        let at_once = (0..1000).filter(|_| bucket.take(start)).count();
        assert_eq!(at_once, 50);
        let later = start + Duration::from_secs(4);
        assert_eq!((0..1000).filter(|_| bucket.take(later)).count(), 20);
    }
}
