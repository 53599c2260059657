//! Which executor endpoints are down, and telling those who wait when one is back.
//!
//! ```text
//! a call fails ─▶ down since t ─▶ probe (50 ms … 1 s apart) ─▶ up ─▶ one wake-up for everybody who waits
//! ```
//!
//! One probe per endpoint replaces one retry per Execution, so ten thousand waiting Executions cost a dead
//! executor one call per second, and all of them go on at the moment it is back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::dispatch::{DispatchError, Dispatcher, Endpoint};

/// How long an endpoint may be down before statuses say so. A restart of an executor is shorter.
pub const GRACE: Duration = Duration::from_secs(3);
const FIRST_PROBE: Duration = Duration::from_millis(50);
const SLOWEST_PROBE: Duration = Duration::from_secs(1);

/// An endpoint that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// How long it has been so.
    pub lasted: Duration,
    /// The latest error.
    pub why: String,
    /// It is there and answers about what it has, but drains and takes nothing new.
    pub draining: bool,
}

/// How many endpoints there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Those that are not known to be away or to drain.
    pub present: usize,
    /// Those that answer and take nothing new.
    pub draining: usize,
    /// Those that do not answer.
    pub away: usize,
}

/// What is known about endpoints. Clones share it.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    dispatcher: Dispatcher,
    state: Mutex<State>,
    /// Counts changes; waiters look again at each.
    changes: watch::Sender<u64>,
    up: mpsc::UnboundedSender<Endpoint>,
}

#[derive(Default)]
struct State {
    down: HashMap<Endpoint, Down>,
    in_use: HashSet<Endpoint>,
}

struct Down {
    since: Instant,
    why: String,
    draining: bool,
}

impl Health {
    /// Health of no endpoint yet, and the stream of endpoints that came back.
    pub fn new(dispatcher: Dispatcher) -> (Self, mpsc::UnboundedReceiver<Endpoint>) {
        let (up, back) = mpsc::unbounded_channel();
        let inner = Inner { dispatcher, state: Mutex::default(), changes: watch::Sender::new(0), up };
        (Self { inner: Arc::new(inner) }, back)
    }

    /// These endpoints are in pools; the others are no longer probed.
    pub fn in_use(&self, endpoints: HashSet<Endpoint>) {
        let mut state = self.lock();
        state.down.retain(|endpoint, _| endpoints.contains(endpoint));
        state.in_use = endpoints;
        drop(state);
        self.changed();
    }

    /// A call to `endpoint` found nobody, or one that drains: it is probed from now on until it is back.
    pub fn failed(&self, endpoint: &Endpoint, error: &DispatchError) {
        self.is_down(endpoint, error.to_string(), error.is_draining());
    }

    fn is_down(&self, endpoint: &Endpoint, why: String, draining: bool) {
        let mut state = self.lock();
        if let Some(down) = state.down.get_mut(endpoint) {
            let turned = down.draining != draining;
            let since = if turned { Instant::now() } else { down.since };
            *down = Down { since, why, draining };
            drop(state);
            if turned {
                self.changed();
            }
            return;
        }
        if !state.in_use.contains(endpoint) {
            return;
        }
        tracing::warn!(%endpoint, why, "executor is away");
        state.down.insert(endpoint.clone(), Down { since: Instant::now(), why, draining });
        drop(state);
        self.changed();
        tokio::spawn(probe(self.clone(), endpoint.clone()));
    }

    /// The outage of `endpoint`, if there is one.
    pub fn outage(&self, endpoint: &Endpoint) -> Option<Outage> {
        let state = self.lock();
        let down = state.down.get(endpoint)?;
        Some(Outage {
            endpoint: endpoint.clone(),
            lasted: down.since.elapsed(),
            why: down.why.clone(),
            draining: down.draining,
        })
    }

    /// How many endpoints of pools there are.
    pub fn census(&self) -> Census {
        let state = self.lock();
        let draining = state.down.values().filter(|down| down.draining).count();
        let present = state.in_use.len().saturating_sub(state.down.len());
        Census { present, draining, away: state.down.len() - draining }
    }

    /// Waits until `endpoint` is not known to be away.
    pub async fn until_up(&self, endpoint: &Endpoint) {
        let mut changes = self.inner.changes.subscribe();
        while self.outage(endpoint).is_some_and(|outage| !outage.draining) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_up(&self, endpoint: &Endpoint) {
        if self.lock().down.remove(endpoint).is_some() {
            tracing::info!(%endpoint, "executor is back");
            self.changed();
            // Nobody listens only during shutdown.
            let _nobody_listens = self.inner.up.send(endpoint.clone());
        }
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn probe(health: Health, endpoint: Endpoint) {
    let mut pause = FIRST_PROBE;
    while health.outage(&endpoint).is_some() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SLOWEST_PROBE);
        match health.inner.dispatcher.capabilities(&endpoint).await {
            Err(error) if error.is_absence() => health.failed(&endpoint, &error),
            Ok(capabilities) if capabilities.draining => {
                health.is_down(&endpoint, format!("executor {endpoint} is draining"), true);
            }
            // It answers, if only to refuse: whoever waits asks for himself.
            Ok(_) | Err(_) => health.is_up(&endpoint),
        }
    }
}
