//! The slots: threads that take attempts from the queue, run them, and write their ends down.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{io, panic};

use requiem_cas::{Store, Tenant};
use requiem_model::Failure;
use requiem_model::result::FailureReason;
use requiem_proof::ExecutorClaim;

use crate::attempts::{Attempts, Begun, End, Job};
use crate::engine::Sandbox;
use crate::execute::{Deps, Keep, SealedRun, execute};
use crate::journal::AttemptKey;
use crate::live::Followed;
use crate::metrics::Metrics;
use crate::runners::{Readiness, Runners};
use crate::steps::store_failure;

/// What every worker shares.
pub(crate) struct Workshop {
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) store: Store,
    pub(crate) runners: Arc<Runners>,
    pub(crate) claim: ExecutorClaim,
    pub(crate) metrics: Arc<Metrics>,
}

/// Starts `slots` workers. They end when the queue is closed.
pub(crate) fn start(workshop: &Arc<Workshop>, slots: usize) -> io::Result<Vec<JoinHandle<()>>> {
    let one = |number| {
        let workshop = Arc::clone(workshop);
        thread::Builder::new().name(format!("slot-{number}")).spawn(move || workshop.work())
    };
    (0..slots).map(one).collect()
}

impl Workshop {
    fn work(&self) {
        loop {
            // What waits in the queue can be cancelled, and taken elsewhere when this executor drains.
            self.runners.await_readiness();
            let Some(job) = self.attempts.next() else { return };
            match self.runners.readiness() {
                Readiness::Waiting => self.attempts.put_back(job),
                Readiness::Ready | Readiness::GivenUp => {
                    self.metrics.running.inc();
                    self.attempt(&job);
                    self.metrics.running.dec();
                }
            }
        }
    }

    /// One attempt, whatever happens in it: the slot lives on and the attempt gets an end.
    fn attempt(&self, job: &Job) {
        let begun = Instant::now();
        self.metrics.begun(job.queued.elapsed());
        let run = panic::catch_unwind(panic::AssertUnwindSafe(|| self.run(job)));
        let run = run.unwrap_or_else(|_payload| Err(defect()));
        let (mut reason, end, timings) = match run {
            Ok(run) => {
                self.metrics.stored(&run.stored);
                let end = End::Sealed(Box::new(run.sealed), run.blobs);
                (run.body.execution.result.reason(), end, Some(run.timings))
            }
            Err(failure) => (failure.reason.as_str(), End::Failed(failure), None),
        };
        let state = self.attempts.finish(&job.entry, end);
        if let Some(timings) = timings {
            self.metrics.observe(&timings, begun.elapsed().as_secs_f64());
        }
        if let requiem_model::attempt::AttemptState::Failed { failure } = state.as_ref() {
            reason = failure.reason.as_str();
            let attempt = AttemptKey::of(&job.entry.asked.identity);
            tracing::info!(%attempt, reason, message = failure.message, "an attempt ended without a result");
        }
        self.metrics.ended(reason);
    }

    fn run(&self, job: &Job) -> Result<SealedRun, Failure> {
        if self.runners.readiness() == Readiness::GivenUp {
            return Err(self.runners.failure());
        }
        let Begun { cancel, live } = self.attempts.begin(&job.entry)?;
        let identity = &job.entry.asked.identity;
        let tenant = Tenant::parse(&identity.namespace).and_then(|tenant| self.store.tenant(&tenant));
        let store = tenant.map_err(|error| store_failure("cannot open the tenant's store", &error))?;
        let engine = Followed { engine: Sandbox(self.runners.runner()), live };
        let deps =
            Deps { store: &store, results: &store, engine: &engine, claim: &self.claim, keep: Keep::Journal };
        Ok(execute(&deps, identity, &job.request, &job.inline, &cancel)?)
    }
}

fn defect() -> Failure {
    let message = "the executor failed an assertion of its own; its log has the place";
    Failure::new(FailureReason::SandboxError, message, "please report it")
}
