//! Descriptors: taking ownership of what the kernel hands out, and closing all the others.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// The descriptor that a raw system call returned, or its error.
pub(super) fn owned(answer: libc::c_long) -> nix::Result<OwnedFd> {
    let number = RawFd::try_from(Errno::result(answer)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just created this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The descriptors that arrived with a message of a socket.
pub(crate) fn received(numbers: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: `recvmsg` installed each of these numbers for this message, and the only caller gives each
    // control message to this function once.
    numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

/// Takes over standard input as an ordinary descriptor.
pub(crate) fn take_stdin() -> nix::Result<OwnedFd> {
    // SAFETY: plain descriptor arguments; the kernel touches no memory of ours.
    let answer = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    owned(libc::c_long::from(answer))
}

/// Closes every descriptor from `first` to `last`. Only for a process that is about to exec or exit: any
/// owner of one of them in this process is left with a dead number.
pub(crate) fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: plain numbers; the caller owns the whole process and uses none of these descriptors again.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(answer).map(drop)
}

/// The flags of descriptor `number`, which need not be open.
pub(crate) fn flags(number: RawFd) -> nix::Result<libc::c_int> {
    // SAFETY: F_GETFD takes no pointer and a dead number only yields `EBADF`.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })
}
