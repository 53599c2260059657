//! The runs of a benchmark: the same request again and again, by one executor, some at a time.
//!
//! Nothing of a run is kept but what it took: its streams and outputs lie in the store without being synced, and its
//! bundle, which is judged like any other, is let go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use requiem_cas::TenantStore;
use requiem_executor::Keep;
use requiem_model::attempt::Identity;
use requiem_model::{ExecutionRequest, SandboxReport};

use super::document::{FailedRun, RUN_FAILED, Sample};
use super::environment::layers;
use crate::error::{CommandError, ErrorKind};
use crate::interrupt::Interrupt;
use crate::local::{LocalExecutor, random_id};
use crate::meter;

/// What the runs share.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) executor: &'a LocalExecutor,
    pub(crate) objects: &'a TenantStore,
    /// Tenant of the store.
    pub(crate) namespace: &'a str,
    pub(crate) request: &'a ExecutionRequest,
    pub(crate) interrupt: &'a Interrupt,
    /// Runs that are not counted, before those that are.
    pub(crate) warmup: u64,
    /// Runs that are counted; at least one.
    pub(crate) repeats: u64,
    /// Runs at a time; at least one.
    pub(crate) concurrency: u64,
}

/// What came of all runs that count.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Those that succeeded, in the order in which they ended.
    pub(crate) samples: Vec<Sample>,
    /// How many ended how, by reason.
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) first_failure: Option<FailedRun>,
    /// Name and version of the engine.
    pub(crate) engine: String,
    /// Which isolation was in force in all of them.
    pub(crate) sandbox: SandboxReport,
}

/// One run that came to an end.
#[derive(Debug)]
struct Ended {
    sample: Sample,
    reason: &'static str,
    /// In words, if it did not succeed.
    failed: Option<String>,
    engine: String,
    sandbox: SandboxReport,
}

/// How far a benchmark is.
#[derive(Debug, Default)]
struct Progress {
    ended: AtomicU64,
    /// A run came to no end: the others stop.
    broken: AtomicBool,
}

impl Bench<'_> {
    /// Runs everything. Shows how far it is on standard error, if that is a terminal.
    ///
    /// # Errors
    /// A run that came to no end, with its own reason; `Interrupted`; `RunFailed`: a run of the warm-up did not succeed;
    /// `SandboxChanged`: not every run had the same layers in force.
    pub(crate) fn measure(&self) -> Result<Measured, CommandError> {
        let total = self.warmup + self.repeats;
        let progress = Progress::default();
        let line = || format!("{} of {total} runs", progress.ended.load(Ordering::Relaxed));
        let ended = meter::during(&line, || {
            let warm = self.batch(self.warmup, &progress)?;
            if let Some(failed) = warm.iter().find_map(|run| run.failed.as_deref()) {
                let message = format!("a run of the warm-up failed: {failed}");
                return Err(CommandError::finding(RUN_FAILED, message, "see what it says: requiem exec run"));
            }
            self.batch(self.repeats, &progress)
        });
        ended.and_then(Measured::of).map_err(|error| self.broken_off(error, &progress))
    }

    /// So many runs, in the order in which they ended.
    fn batch(&self, count: u64, progress: &Progress) -> Result<Vec<Ended>, CommandError> {
        let begun = AtomicU64::new(0);
        let workers = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.concurrency.min(count))
                .map(|_| scope.spawn(|| self.work(count, &begun, progress)))
                .collect();
            workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
        });
        let mut ended = Vec::new();
        for worker in workers {
            ended.extend(worker.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        ended.sort_unstable_by_key(|(place, _)| *place);
        Ok(ended.into_iter().map(|(_, run)| run).collect())
    }

    /// One run after the other, until all have begun; each with its place among those that have ended.
    fn work(
        &self,
        count: u64,
        begun: &AtomicU64,
        progress: &Progress,
    ) -> Result<Vec<(u64, Ended)>, CommandError> {
        let mut ended = Vec::new();
        while !progress.broken.load(Ordering::Relaxed) && begun.fetch_add(1, Ordering::Relaxed) < count {
            let run = self.once().inspect_err(|_| progress.broken.store(true, Ordering::Relaxed))?;
            ended.push((progress.ended.fetch_add(1, Ordering::Relaxed), run));
        }
        Ok(ended)
    }

    fn once(&self) -> Result<Ended, CommandError> {
        let identity = Identity {
            namespace: self.namespace.to_owned(),
            name: "bench".to_owned(),
            uid: random_id()?,
            generation: 1,
            attempt: 1,
        };
        let ran =
            self.executor.execute(self.objects, Keep::Volatile, &identity, self.request, self.interrupt)?;
        let (facts, run) = (ran.verified.body.execution, ran.verified.body.run);
        let result = facts.result;
        let failed = if result.outcome.is_success() {
            let missing = result.missing_outputs.first();
            missing.map(|missing| format!("output {} is missing: {}", missing.path, missing.why))
        } else {
            Some(result.outcome.to_string())
        };
        Ok(Ended {
            sample: Sample::from(&run.usage),
            reason: result.reason(),
            failed,
            engine: format!("{} {}", facts.engine.name, facts.engine.version),
            sandbox: run.sandbox,
        })
    }

    fn broken_off(&self, error: CommandError, progress: &Progress) -> CommandError {
        let ErrorKind::Interrupted(signal) = error.kind else { return error };
        let (ended, total) = (progress.ended.load(Ordering::Relaxed), self.warmup + self.repeats);
        let message =
            format!("interrupted by signal {signal} after {ended} of {total} runs; there is no result");
        CommandError::interrupted(signal, message)
    }
}

impl Measured {
    fn of(ended: Vec<Ended>) -> Result<Self, CommandError> {
        let mut measured = Self {
            samples: Vec::new(),
            outcomes: BTreeMap::new(),
            first_failure: None,
            engine: String::new(),
            sandbox: SandboxReport::default(),
        };
        for (place, run) in (1..).zip(ended) {
            if place == 1 {
                (measured.engine, measured.sandbox) = (run.engine, run.sandbox);
            } else if layers(&run.sandbox) != layers(&measured.sandbox) {
                let message = format!("run {place} had other layers of the sandbox in force than the first");
                return Err(CommandError::finding(
                    "SandboxChanged",
                    message,
                    "see requiem sandbox probe, and run it again",
                ));
            }
            *measured.outcomes.entry(run.reason.to_owned()).or_default() += 1;
            match run.failed {
                None => measured.samples.push(run.sample),
                Some(message) if measured.first_failure.is_none() => {
                    measured.first_failure =
                        Some(FailedRun { run: place, reason: run.reason.to_owned(), message });
                }
                Some(_) => {}
            }
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use requiem_model::report::{LayerReport, Proof};
    use requiem_model::{Layer, Requirement};

    use super::*;

    fn ended(wall_us: u64, failed: Option<&str>, mechanism: Option<&str>) -> Ended {
        let row =
            |mechanism| LayerReport::enforced(Layer::Seccomp, Requirement::Required, mechanism, Proof::Probe);
        Ended {
            sample: Sample { wall_us, user_us: 0, system_us: 0, peak_memory_bytes: 0 },
            reason: if failed.is_some() { "NonZeroExit" } else { "Succeeded" },
            failed: failed.map(str::to_owned),
            engine: "requiem 0.1.0".to_owned(),
            sandbox: SandboxReport { layers: mechanism.map(row).into_iter().collect(), sources: Vec::new() },
        }
    }

    #[test]
    fn a_failed_run_is_counted_and_is_no_sample() {
        let runs = vec![
            ended(5, None, None),
            ended(1, Some("exit code 7"), None),
            ended(1, Some("exit code 8"), None),
            ended(6, None, None),
        ];
        let measured = Measured::of(runs).unwrap();
        assert_eq!(measured.samples.iter().map(|sample| sample.wall_us).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(
            measured.outcomes,
            BTreeMap::from([("NonZeroExit".to_owned(), 2), ("Succeeded".to_owned(), 2)])
        );
        let first = FailedRun { run: 2, reason: "NonZeroExit".to_owned(), message: "exit code 7".to_owned() };
        assert_eq!(measured.first_failure, Some(first));
    }

    #[test]
    fn a_sandbox_that_changes_is_a_finding() {
        let error =
            Measured::of(vec![ended(1, None, Some("a")), ended(1, None, Some("b")), ended(1, None, None)])
                .unwrap_err();
        assert_eq!((error.error_code.as_str(), error.exit_code()), ("SandboxChanged", 1));
        assert!(error.message.starts_with("run 3 "), "{}", error.message);
    }
}
