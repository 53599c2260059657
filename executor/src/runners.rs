//! The runner: where it comes from, whether it is there, and what its probe run has shown.
//!
//! On a host of its own the executor starts the runner and starts another one when it has died. In a pod the runner
//! lives in the workload container and comes by itself; whenever one has come, a probe run shows what it can do, and
//! only then it is given work. A runner that stays away for long fails what waits for it, so that nothing hangs.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use requiem_model::{Failure, SandboxReport, result::FailureReason};
use requiem_sandbox::{Runner, RunnerConfig, RunnerNews, probe};
use tokio::sync::watch;

use crate::daemon::StartupError;

/// How long work waits for a runner that is not there. The kubelet restarts a container that died within seconds; one
/// that dies again and again it leaves alone for minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The runner and what is known of it.
pub struct Runners {
    runner: Runner,
    place: Place,
    seen: Mutex<Seen>,
    changed: Condvar,
    restarts: AtomicU64,
    wants_to_stop: watch::Sender<bool>,
}

/// Where the runner lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is a child of this process.
    Here,
    /// In a container of its own.
    Apart,
}

/// What is known of the runner.
struct Seen {
    stage: Stage,
    last_pid: u32,
    closed: bool,
}

/// How far it is.
enum Stage {
    /// It takes work; this is what its probe run showed.
    Ready(Arc<SandboxReport>),
    /// It does not.
    Absent { since: Instant, why: String },
}

/// What a slot may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Run things.
    Ready,
    /// Wait: the runner has not been away for long.
    Waiting,
    /// Fail things: it has.
    GivenUp,
}

impl Runners {
    /// Starts the runner and probes it.
    ///
    /// # Errors
    /// It cannot be started here, or nothing can be run in it.
    pub fn start(config: RunnerConfig) -> Result<Arc<Self>, StartupError> {
        let runner = Runner::spawn(config)?;
        let report = Arc::new(probe(&runner)?);
        Ok(Arc::new(Self::new(runner, Place::Here, Stage::Ready(report))))
    }

    /// Listens for a runner at `socket`. `seen` hears what each probe run showed.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(
        socket: &Path,
        spares: usize,
        seen: impl Fn(&SandboxReport) + Send + 'static,
    ) -> Result<Arc<Self>, StartupError> {
        let (sender, news) = channel();
        let runner = Runner::listen(socket, spares, sender)?;
        let why = "no runner has connected yet; is the workload container running?".to_owned();
        let absent = Stage::Absent { since: Instant::now(), why };
        let runners = Arc::new(Self::new(runner, Place::Apart, absent));
        let watching = Arc::clone(&runners);
        std::thread::Builder::new()
            .name("runner-news".to_owned())
            .spawn(move || watching.follow(&news, &seen))
            .map_err(|source| StartupError::System { what: "start a thread", source })?;
        Ok(runners)
    }

    fn new(runner: Runner, place: Place, stage: Stage) -> Self {
        let seen = Mutex::new(Seen { stage, last_pid: runner.pid(), closed: false });
        let (wants_to_stop, _nobody) = watch::channel(false);
        let restarts = AtomicU64::new(0);
        Self { runner, place, seen, changed: Condvar::new(), restarts, wants_to_stop }
    }

    /// The runner, for a run.
    pub const fn runner(&self) -> &Runner {
        &self.runner
    }

    /// Where the runner lives.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// What its probe run showed.
    ///
    /// # Errors
    /// Why there is none.
    pub fn report(&self) -> Result<Arc<SandboxReport>, String> {
        match &self.lock().stage {
            Stage::Ready(report) => Ok(Arc::clone(report)),
            Stage::Absent { why, .. } => Err(why.clone()),
        }
    }

    /// Makes sure that there is a runner which takes work.
    ///
    /// # Errors
    /// There is none, and why.
    pub fn check(&self) -> Result<(), String> {
        self.report()?;
        if self.place == Place::Apart || is_alive(self.runner.pid()) {
            return Ok(());
        }
        tracing::warn!("the runner died; another one is started");
        probe(&self.runner).map(|_report| ()).map_err(|error| error.to_string())
    }

    /// Whether work may be taken on now.
    pub fn readiness(&self) -> Readiness {
        self.lock().readiness()
    }

    /// Waits until work may be taken on or failed, or the executor ends.
    pub fn await_readiness(&self) {
        let mut seen = self.lock();
        while seen.readiness() == Readiness::Waiting && !seen.closed {
            let left = seen.patience_left();
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets everybody go who waits for a runner: the executor ends.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Turns true when the runner's container is told to end.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.wants_to_stop.subscribe()
    }

    /// The failure of work for which no runner came.
    pub fn failure(&self) -> Failure {
        let why = self.report().err().unwrap_or_else(|| "the runner has come after all".to_owned());
        let message = format!("no runner for more than {} s: {why}", PATIENCE.as_secs());
        let hint =
            "look at the workload container of the executor's pod: its state, its log, its memory limit";
        Failure::new(FailureReason::SandboxError, message, hint)
    }

    /// How often the runner was replaced since the start.
    pub fn restarts(&self) -> u64 {
        if self.place == Place::Here {
            let now = self.runner.pid();
            let mut seen = self.lock();
            if std::mem::replace(&mut seen.last_pid, now) != now {
                self.restarts.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.restarts.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Every field is replaced as a whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a runner apart, as its thread hears it.
    fn follow(&self, news: &Receiver<RunnerNews>, seen: &dyn Fn(&SandboxReport)) {
        while let Ok(news) = news.recv() {
            match news {
                RunnerNews::Connected { uid, pid } => {
                    tracing::info!(uid, pid, "a runner has connected");
                    self.try_out(seen);
                }
                RunnerNews::Stopping => {
                    tracing::info!("the runner's container is told to end");
                    self.wants_to_stop.send_replace(true);
                }
                RunnerNews::Gone => {
                    tracing::warn!("the runner has gone");
                    self.restarts.fetch_add(1, Ordering::AcqRel);
                    self.miss("the runner has gone; the next one is waited for");
                }
                RunnerNews::Refused { why } => {
                    tracing::error!(why, "a runner was refused");
                    self.miss(&why);
                }
            }
        }
    }

    fn try_out(&self, seen: &dyn Fn(&SandboxReport)) {
        match probe(&self.runner) {
            Ok(report) => {
                seen(&report);
                self.lock().stage = Stage::Ready(Arc::new(report));
                self.changed.notify_all();
            }
            // If it is because the runner has gone, that comes next.
            Err(error) => {
                tracing::error!(%error, "nothing can be run in the sandbox");
                self.miss(&format!("its probe run failed: {error}"));
            }
        }
    }

    /// Notes that there is no runner to work with; since when stays as it was.
    fn miss(&self, why: &str) {
        let mut seen = self.lock();
        let since = match &seen.stage {
            Stage::Absent { since, .. } => *since,
            Stage::Ready(_) => Instant::now(),
        };
        seen.stage = Stage::Absent { since, why: why.to_owned() };
    }
}

impl Seen {
    fn readiness(&self) -> Readiness {
        match &self.stage {
            Stage::Ready(_) => Readiness::Ready,
            Stage::Absent { since, .. } if since.elapsed() < PATIENCE => Readiness::Waiting,
            Stage::Absent { .. } => Readiness::GivenUp,
        }
    }

    fn patience_left(&self) -> Duration {
        match &self.stage {
            Stage::Ready(_) => Duration::ZERO,
            Stage::Absent { since, .. } => PATIENCE.saturating_sub(since.elapsed()),
        }
    }
}

/// Whether `pid`, a child of ours that nobody else waits for, has not ended: an ended one stays as a zombie.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the state is the first word after it.
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}
