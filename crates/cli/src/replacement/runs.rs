//! Runs everything that is to be compared, by one engine.
//!
//! ```text
//! open → each fixture N times → golden vectors → the payload that looks → Runs
//! ```
//!
//! A run without a result is not tried again. An engine that has to be ended too often is given up: whoever hangs everywhere would hold
//! up the report for an hour.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use requiem_cas::TenantStore;
use requiem_executor::Keep;
use requiem_model::ExecutionRequest;
use requiem_model::attempt::Identity;
use requiem_proof::{Engine, Verified};

use super::probe::Probe;
use super::vectors::Vectors;
use crate::error::{CommandError, ErrorKind};
use crate::interrupt::Interrupt;
use crate::local::{LocalExecutor, random_id};
use crate::meter;
use crate::trial::{GRACE, ended, within};

/// How often an engine is ended before it is asked nothing more.
const PATIENCE: u32 = 3;

/// A run that came to a result, or why it did not.
pub(crate) type Outcome = Result<Verified, CommandError>;

/// What is run by both engines.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) fixtures: Vec<(String, ExecutionRequest)>,
    pub(crate) repeats: u32,
    pub(crate) vectors: Vectors,
    pub(crate) probe: Probe,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// Who ran it, as every result says.
    pub(crate) engine: Option<Engine>,
    /// By fixture: its runs, one after the other. None: the engine had been given up.
    pub(crate) fixtures: Vec<Vec<Outcome>>,
    pub(crate) vectors: Option<Outcome>,
    /// With what the payload said.
    pub(crate) probe: Option<Result<(Verified, String), CommandError>>,
    /// How many runs were begun.
    pub(crate) begun: u64,
}

/// An engine at work.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) executor: &'a LocalExecutor,
    /// Of which inputs come.
    pub(crate) inputs: &'a TenantStore,
    /// Where results go.
    pub(crate) results: &'a TenantStore,
    /// Whose they are: a tenant of the results' store.
    pub(crate) side: &'static str,
    /// How long one run may take, if not its own limit and some seconds.
    pub(crate) deadline: Option<Duration>,
    pub(crate) interrupt: &'a Interrupt,
    /// Runs that were begun.
    pub(crate) begun: AtomicU64,
    /// How often the engine had to be ended.
    pub(crate) late: AtomicU32,
}

impl Runs {
    /// Those of an engine that never ran.
    pub(crate) fn none_of(plan: &Plan) -> Self {
        Self { fixtures: plan.fixtures.iter().map(|_| Vec::new()).collect(), ..Self::default() }
    }
}

impl Work<'_> {
    /// Runs all of it. Shows how far it is, if standard error is a terminal.
    ///
    /// # Errors
    /// A signal.
    pub(crate) fn run(&self, plan: &Plan) -> Result<Runs, CommandError> {
        let most = plan.fixtures.len() as u64 * u64::from(plan.repeats) + 2;
        let line = || format!("{}: {} of {most} runs", self.side, self.begun.load(Ordering::Relaxed));
        meter::during(&line, || self.all(plan))
    }

    fn all(&self, plan: &Plan) -> Result<Runs, CommandError> {
        let mut runs = Runs::default();
        for (_, request) in &plan.fixtures {
            let ended = self.repeated(request, plan.repeats)?;
            runs.fixtures.push(ended);
        }
        runs.vectors = self.once(&plan.vectors.request)?;
        runs.probe = match self.once(&plan.probe.request)? {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(verified)) => Some(self.said(verified)),
        };
        runs.begun = self.begun.load(Ordering::Relaxed);
        let ended = runs.fixtures.iter().flatten().chain(&runs.vectors).flatten().next();
        runs.engine = ended.map(|verified| verified.body.execution.engine.clone());
        Ok(runs)
    }

    fn repeated(&self, request: &ExecutionRequest, times: u32) -> Result<Vec<Outcome>, CommandError> {
        let mut outcomes = Vec::new();
        for _ in 0..times {
            let Some(outcome) = self.once(request)? else { break };
            let has_result = outcome.is_ok();
            outcomes.push(outcome);
            if !has_result {
                break;
            }
        }
        Ok(outcomes)
    }

    /// One run; none if the engine has been given up.
    fn once(&self, request: &ExecutionRequest) -> Result<Option<Outcome>, CommandError> {
        if self.late.load(Ordering::Relaxed) >= PATIENCE {
            return Ok(None);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        let identity = Identity {
            namespace: self.side.to_owned(),
            name: "validation".to_owned(),
            uid: random_id()?,
            generation: 1,
            attempt: 1,
        };
        let deadline = self.deadline.unwrap_or(Duration::from_millis(request.limits.timeout_ms) + GRACE);
        let interrupt = self.interrupt.next_run()?;
        let (inputs, results) = (self.inputs, self.results);
        let (ran, late) = within(deadline, &interrupt, || {
            self.executor.execute_into(inputs, results, Keep::Volatile, &identity, request, &interrupt)
        });
        let error = match ran {
            Ok(ran) => return Ok(Some(Ok(ran.verified))),
            Err(error) if matches!(error.kind, ErrorKind::Interrupted(_)) => return Err(error),
            Err(_) if late => ended(deadline),
            Err(error) => error,
        };
        if error.error_code == "E_ENGINE_DEADLINE" {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Some(Err(error)))
    }

    /// A run with its standard output.
    fn said(&self, verified: Verified) -> Result<(Verified, String), CommandError> {
        let stream = &verified.body.execution.result.stdout;
        let bytes = self.results.get_bytes(&stream.digest, stream.bytes)?;
        Ok((verified, String::from_utf8_lossy(&bytes).into_owned()))
    }
}
