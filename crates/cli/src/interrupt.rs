//! Ctrl-C and its kin during a run: the run is cancelled, everything of it goes, and the exit code names the signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{fs, io, thread};

use requiem_model::Failure;
use requiem_model::result::FailureReason;
use requiem_sandbox::Cancel;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CommandError;
use crate::sandbox;

/// Watches for signals that ask this process to end.
#[derive(Debug)]
pub(crate) struct Interrupt {
    cancel: Cancel,
    /// The first that came; 0 while there is none.
    came: Arc<AtomicU8>,
}

impl Interrupt {
    /// Watches from now on, in a thread of its own. A second signal ends the process at once; the runner then cleans up
    /// when it sees that nobody is left to hear it. What the caller ignores (`nohup`, `&` in a script) stays ignored.
    pub(crate) fn watch() -> Result<Self, CommandError> {
        let cancel = sandbox::cancel()?;
        let came = Arc::new(AtomicU8::new(0));
        let (runtime, signals) = listen().map_err(|error| {
            let message = format!("cannot watch for signals: {error}");
            CommandError::unusable("Environment", message, "see the limits of this process: ulimit -a")
        })?;
        let (theirs, first) = (cancel.clone(), Arc::clone(&came));
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
                    if first.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                        std::process::exit(128 + i32::from(number));
                    }
                    theirs.cancel();
                }
            });
        });
        Ok(Self { cancel, came })
    }

    /// What cancels the run.
    pub(crate) const fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// The error of a run that came to no end, which may be that it was interrupted.
    pub(crate) fn explain(&self, failure: Failure) -> CommandError {
        match self.came.load(Ordering::SeqCst) {
            number if number > 0 && failure.reason == FailureReason::Cancelled => {
                CommandError::interrupted(number)
            }
            _ => failure.into(),
        }
    }
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
