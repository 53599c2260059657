//! Ctrl-C and its kin: what is under way is told to end in good order, and the exit code names the signal.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io, thread};

use requiem_executor::engine::EngineError;
use requiem_model::result::FailureReason;
use requiem_sandbox::Cancel;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CommandError;
use crate::sandbox;

/// A run that signals cancel.
#[derive(Debug)]
pub(crate) struct Interrupt {
    cancel: Cancel,
    came: Arc<AtomicU8>,
    /// What the first signal cancels.
    current: Arc<Mutex<Cancel>>,
}

impl Interrupt {
    /// Watches from now on. A second signal ends the process at once; the runner then cleans up when it sees that nobody
    /// is left to hear it.
    pub(crate) fn watch() -> Result<Self, CommandError> {
        let cancel = sandbox::cancel()?;
        let current = Arc::new(Mutex::new(cancel.clone()));
        let theirs = Arc::clone(&current);
        let came = watch(move || theirs.lock().unwrap_or_else(PoisonError::into_inner).cancel())?;
        Ok(Self { cancel, came, current })
    }

    /// For the next of several runs: signals cancel it from now on, and no longer the one before. One that came already has.
    pub(crate) fn next_run(&self) -> Result<Self, CommandError> {
        let (cancel, came, current) = (sandbox::cancel()?, Arc::clone(&self.came), Arc::clone(&self.current));
        *current.lock().unwrap_or_else(PoisonError::into_inner) = cancel.clone();
        // A signal notes itself before it cancels: it is seen here, or it sees what was put there.
        if came.load(Ordering::SeqCst) > 0 {
            cancel.cancel();
        }
        Ok(Self { cancel, came, current })
    }

    /// What cancels the run.
    pub(crate) const fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// The error of a run that came to no end, which may be that it was interrupted.
    pub(crate) fn explain(&self, error: EngineError) -> CommandError {
        let cancelled =
            matches!(&error, EngineError::Failure(failure) if failure.reason == FailureReason::Cancelled);
        match self.came.load(Ordering::SeqCst) {
            number if number > 0 && cancelled => {
                let message = format!("interrupted by signal {number}; the run was ended and has no result");
                CommandError::interrupted(number, message)
            }
            _ => error.into(),
        }
    }
}

/// Work on a whole store, which signals break off.
#[derive(Debug)]
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    came: Arc<AtomicU8>,
}

impl Stop {
    /// Watches from now on.
    pub(crate) fn watch() -> Result<Self, CommandError> {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&flag);
        let came = watch(move || theirs.store(true, Ordering::SeqCst))?;
        Ok(Self { flag, came })
    }

    /// Set by the first signal.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// The error of work that was broken off; `message` says how far it came.
    pub(crate) fn broken_off(&self, message: String) -> CommandError {
        CommandError::interrupted(self.came.load(Ordering::SeqCst), message)
    }
}

/// Watches for signals that ask this process to end, in a thread of its own: `first` is called at the first one, whose number
/// then stands in the result, and the second one ends the process. What the caller ignores (`nohup`, `&` in a script)
/// stays ignored.
fn watch(first: impl Fn() + Send + 'static) -> Result<Arc<AtomicU8>, CommandError> {
    let (runtime, signals) = listen().map_err(|error| {
        let message = format!("cannot watch for signals: {error}");
        CommandError::unusable("Environment", message, "see the limits of this process: ulimit -a")
    })?;
    let came = Arc::new(AtomicU8::new(0));
    let theirs = Arc::clone(&came);
    thread::spawn(move || {
        runtime.block_on(async {
            let [mut hangup, mut interrupt, mut terminate] = signals;
            loop {
                let number = tokio::select! {
                    true = next(&mut hangup) => 1,
                    true = next(&mut interrupt) => 2,
                    true = next(&mut terminate) => 15,
                    else => return,
                };
                if theirs.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                    std::process::exit(128 + i32::from(number));
                }
                first();
            }
        });
    });
    Ok(came)
}

/// Hang-up, interrupt and termination, in this order; none for one that is ignored.
fn listen() -> io::Result<(Runtime, [Option<Signal>; 3])> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let ignored = ignored()?;
    let guard = runtime.enter();
    let heard = |kind: SignalKind| {
        let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
        if is_ignored { Ok(None) } else { signal(kind).map(Some) }
    };
    let signals =
        [heard(SignalKind::hangup())?, heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?];
    drop(guard);
    Ok((runtime, signals))
}

/// The set of ignored signals, as a mask.
fn ignored() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).map_err(io::Error::other)
}

/// Whether a signal came; false if it never will.
async fn next(signal: &mut Option<Signal>) -> bool {
    match signal {
        Some(signal) => signal.recv().await.is_some(),
        None => false,
    }
}
