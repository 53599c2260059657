//! Processes: fork, and descriptors of processes.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, Pid};

/// Forks the calling process, which must be single-threaded.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the processes of the runner never start a thread (`runner_main` refuses to work if it finds
    // itself in a process with more than one), so no lock can be held by a thread that the child lacks.
    unsafe { nix::unistd::fork() }
}

/// Forks the calling process, which must be single-threaded, into a new process-id namespace.
///
/// `unshare` and `fork` would do the same once, but leave the caller unable to fork outside that namespace again.
pub(crate) fn fork_into_new_pid_namespace() -> nix::Result<ForkResult> {
    let flags = libc::CLONE_NEWPID | libc::SIGCHLD;
    let null: libc::c_long = 0;
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child goes on with a copy of everything.
    // The runner has no other thread whose locks it could lack. The C library does not learn the child's thread id,
    // which only `raise` and locks with owners use; init needs neither.
    let answer = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), null, null, null, null) };
    match i32::try_from(Errno::result(answer)?).map_err(|_| Errno::EOVERFLOW)? {
        0 => Ok(ForkResult::Child),
        child => Ok(ForkResult::Parent { child: Pid::from_raw(child) }),
    }
}

/// A descriptor of `pid`, which must be a child that has not been waited for.
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers; the kernel touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    super::fd::owned(answer)
}

/// Lets the kernel reap the children of the calling process.
pub(crate) fn ignore_children() -> nix::Result<()> {
    // SAFETY: no handler is installed, so no code of ours runs in a signal context.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) }.map(drop)
}

/// Gives `signal` its default action, which exec hands on.
pub(crate) fn default_action(signal: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed, so no code of ours runs in a signal context.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.map(drop)
}
