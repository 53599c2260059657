//! What reconcilers share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use requiem_crds::{Execution, ExecutorPool};

use crate::certificates::Certificates;
use crate::dispatch::Dispatcher;
use crate::events::Events;
use crate::execution::flights::Flights;
use crate::execution::policy::{Policies, Reach};
use crate::execution::tracker::Tracker;
use crate::executor_pool::memory::Memory;
use crate::executor_pool::observe::Pods;
use crate::fleet::Fleet;
use crate::gates::Gates;
use crate::health::Health;
use crate::kubeapi::Writer;
use crate::metrics::Metrics;
use crate::queue::{Key, Queue, Verdict};
use crate::replay::memory::Replays;

/// An object of which it is not sure that it can be read: one malformed object must not hide the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// What reconcilers share. Clones share it too.
#[derive(Clone)]
pub struct Context {
    /// Cache of Executions without a terminal status.
    pub executions: Store<Guarded<Execution>>,
    /// Cache of pools.
    pub pools: Store<Guarded<ExecutorPool>>,
    /// Which Executions are run at all.
    pub policies: Policies,
    /// Executor pods.
    pub pods: Pods,
    /// Executors of every pool.
    pub fleet: Fleet,
    /// What pools remember of refusals and deaths of pods.
    pub memory: Memory,
    /// Certificates of executors in pods.
    pub certificates: Certificates,
    /// Image of executors whose pool names none.
    pub executor_image: Option<String>,
    /// Executions to look at.
    pub execution_queue: Queue,
    /// Pools to look at.
    pub pool_queue: Queue,
    /// ProofBundles to look at.
    pub bundle_queue: Queue,
    /// Ended Executions to look at.
    pub expiry_queue: Queue,
    /// ProofBundles whose replays to look at.
    pub replay_queue: Queue,
    /// What is known about replays.
    pub replays: Replays,
    /// Writes to the API server.
    pub writer: Writer,
    /// Calls to executors.
    pub dispatcher: Dispatcher,
    /// Which executors are away.
    pub health: Health,
    /// Who waits for a full executor.
    pub gates: Gates,
    /// What is known about live Executions.
    pub tracker: Tracker,
    /// Which identical Executions wait for one another.
    pub flights: Flights,
    /// ProofBundles whose verdict is being written by the flow that created them.
    pub own_bundles: OwnBundles,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
}

/// ProofBundles whose verdict is being written by the flow that created them.
#[derive(Clone, Default)]
pub struct OwnBundles {
    keys: Arc<Mutex<HashSet<Key>>>,
}

impl OwnBundles {
    /// From now on the caller writes the verdict of `key`.
    pub fn claim(&self, key: &Key) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
    }

    /// The caller is done with `key`, or has given up.
    pub fn release(&self, key: &Key) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Whether somebody writes the verdict of `key`.
    pub fn is_claimed(&self, key: &Key) -> bool {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

impl Context {
    /// Times and counts one reconcile of `kind`. What failed is tried again; `failed` tells it, and says for how long to wait at least.
    pub async fn reconciled<E>(
        &self,
        kind: &'static str,
        drive: impl Future<Output = Result<Verdict, E>>,
        failed: impl FnOnce(E) -> Option<Duration>,
    ) -> Verdict {
        let started = Instant::now();
        let (verdict, result) = match drive.await {
            Ok(verdict @ Verdict::Done) => (verdict, "done"),
            Ok(verdict) => (verdict, "waiting"),
            Err(error) => (Verdict::Failed { at_least: failed(error) }, "error"),
        };
        self.metrics.reconciled(kind, result, started.elapsed());
        verdict
    }

    /// The Execution as the cache has it.
    pub fn execution(&self, key: &Key) -> Option<Arc<Guarded<Execution>>> {
        self.executions.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// The pool as the cache has it.
    pub fn pool(&self, key: &Key) -> Option<Arc<Guarded<ExecutorPool>>> {
        self.pools.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// Looks again at every replay: few wait, and each costs two reads.
    pub fn push_replays(&self) {
        self.replays.keys().into_iter().for_each(|key| self.replay_queue.push(key));
    }

    /// Looks again at every Execution that goes to `pool`, and at replays.
    pub fn push_executions_of(&self, pool: &Key) {
        self.push_replays();
        for object in self.executions.state() {
            let Ok(execution) = &object.0 else { continue };
            let key = Key::of(execution);
            if key.namespace == pool.namespace && execution.spec.executor.pool_ref.name == pool.name {
                self.execution_queue.push(key);
            }
        }
    }

    /// Looks again at every Execution that a change of policies concerns, and at replays.
    pub fn push_executions_in(&self, reach: &Reach) {
        self.push_replays();
        for object in self.executions.state() {
            let key = Key::of(&*object);
            let concerned = match reach {
                Reach::Everywhere => true,
                Reach::Namespace(namespace) => key.namespace == *namespace,
            };
            if concerned {
                self.execution_queue.push(key);
            }
        }
    }

    /// Has the reconciler of ProofBundles look at `key`, whose verdict nobody else writes now.
    pub fn hand_over_bundle(&self, key: &Key) {
        self.own_bundles.release(key);
        self.bundle_queue.push(key.clone());
    }
}

/// Names of kinds for metrics.
pub mod kinds {
    /// Execution.
    pub const EXECUTION: &str = "Execution";
    /// Execution that has ended and has a TTL.
    pub const ENDED: &str = "EndedExecution";
    /// ExecutorPool.
    pub const POOL: &str = "ExecutorPool";
    /// Pod.
    pub const POD: &str = "Pod";
    /// ProofBundle.
    pub const BUNDLE: &str = "ProofBundle";
    /// ProofBundle whose replays are not over.
    pub const REPLAY: &str = "Replay";
}
