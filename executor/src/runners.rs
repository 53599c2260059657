//! The runner process, and whether it lives. A run that finds it dead starts another by itself; an idle
//! daemon notices when it is asked for its health, and does the same then.

use std::fs;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use requiem_model::SandboxReport;
use requiem_sandbox::{RunError, Runner, RunnerConfig, SandboxError, probe};

/// The runner and the memory of its restarts.
pub struct Runners {
    runner: Runner,
    last_pid: AtomicU32,
    restarts: AtomicU64,
}

impl Runners {
    /// Starts the runner.
    ///
    /// # Errors
    /// It cannot be started here.
    pub fn start(config: RunnerConfig) -> Result<Self, SandboxError> {
        let runner = Runner::spawn(config)?;
        let last_pid = AtomicU32::new(runner.pid());
        Ok(Self { runner, last_pid, restarts: AtomicU64::new(0) })
    }

    /// The runner, for a run.
    pub const fn runner(&self) -> &Runner {
        &self.runner
    }

    /// What this host can enforce, by a real run.
    ///
    /// # Errors
    /// Nothing can be run.
    pub fn probe(&self) -> Result<SandboxReport, RunError> {
        probe(&self.runner)
    }

    /// Makes sure that a runner lives.
    ///
    /// # Errors
    /// It died and no other one can be started.
    pub fn check(&self) -> Result<(), RunError> {
        if is_alive(self.runner.pid()) {
            return Ok(());
        }
        tracing::warn!("the runner died; another one is started");
        self.probe().map(|_report| ())
    }

    /// How often the runner was replaced since the start.
    pub fn restarts(&self) -> u64 {
        let now = self.runner.pid();
        if self.last_pid.swap(now, Ordering::AcqRel) != now {
            self.restarts.fetch_add(1, Ordering::AcqRel);
        }
        self.restarts.load(Ordering::Acquire)
    }
}

/// Whether `pid`, a child of ours that nobody else waits for, has not ended: an ended one stays as a zombie.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the state is the first word after it.
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}
