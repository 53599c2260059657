//! Signals to a process named by descriptor, without the risk that its number has been given to another.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// Sends a signal to that very process; ESRCH once it is gone.
pub(crate) fn signal(process: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let no_info: libc::c_long = 0;
    let no_flags: libc::c_uint = 0;
    // SAFETY: the descriptor is open for the length of the borrow; a null siginfo is allowed and means "as kill(2)",
    // so the kernel reads no memory of ours.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as libc::c_int,
            no_info,
            no_flags,
        )
    };
    Errno::result(answer).map(drop)
}
