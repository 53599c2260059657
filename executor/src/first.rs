//! The first process of a container, which stays in the namespaces that the container was made with.
//!
//! `serve` enters a user namespace of its own, in which it has no root, and a container runtime that executes something in a
//! container (`kubectl exec`, a lifecycle hook) joins the namespaces of the container's first process and wants to become root
//! there. So the first process starts the executor as its child, hands signals on, and ends as the child ends.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// What a container is told to end with.
const HANDED_ON: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Whether this process is the first of a container.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs this program again with the same arguments, and returns its exit code, 128 + N where signal N ended it.
pub fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        tracing_subscriber::fmt().json().with_writer(io::stderr).init();
        tracing::error!(%error, "the executor cannot be started beside the first process of the container");
        ExitCode::from(2)
    })
}

/// Undoes, in the child, what it has inherited from the first process. Call it while there is one thread.
pub fn take_signals() {
    // There is nothing that the kernel could refuse.
    let _done = signals().thread_unblock();
}

fn signals() -> SigSet {
    HANDED_ON.into_iter().chain([Signal::SIGCHLD]).collect()
}

fn run() -> io::Result<ExitCode> {
    let signals = signals();
    // Before the child is there: from now on its end, too, waits until it is asked for.
    signals.thread_block()?;
    let mut child = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(code(status));
        }
        hand_on(&child, signals.wait()?)?;
    }
}

fn hand_on(child: &Child, signal: Signal) -> io::Result<()> {
    if signal == Signal::SIGCHLD {
        return Ok(());
    }
    let child = i32::try_from(child.id()).map_err(io::Error::other)?;
    // It has not been waited for, so this is still its number.
    Ok(kill(Pid::from_raw(child), signal)?)
}

fn code(status: ExitStatus) -> ExitCode {
    let killed = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(killed).and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_end_is_that_of_the_executor() {
        let ended = |raw| format!("{:?}", code(ExitStatus::from_raw(raw)));
        assert_eq!(ended(0), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(ended(2 << 8), format!("{:?}", ExitCode::from(2)));
        assert_eq!(ended(9), format!("{:?}", ExitCode::from(137)));
    }
}
