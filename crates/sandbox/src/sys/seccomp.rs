//! Reading the seccomp mode and making calls that must be refused.

use nix::errno::Errno;

/// A call that a filter should refuse. Every one has arguments that make it fail by itself, too, with another error:
/// no pointer is ever passed, descriptors are -1, flags contain bits that the kernel does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// `clone3` with no argument structure.
    Clone3,
    /// `unshare` of a user namespace, with an unknown flag beside it.
    UnshareUser,
    /// A vsock socket of an impossible type.
    VsockSocket,
    /// A Unix socket of an impossible type.
    UnixSocket,
    /// An IP socket of an impossible type.
    InetSocket,
    /// TIOCSTI on no descriptor, with a bit set above the 32 that count.
    PushTerminalInput,
    /// An unknown `keyctl` operation.
    Keyring,
    /// `setns` on no descriptor.
    JoinNamespace,
    /// `mount_setattr` on no descriptor with unknown flags.
    ChangeMount,
    /// An unknown `ptrace` request on no process.
    Trace,
    /// `io_uring_setup` without parameters.
    Ring,
}

impl Attempt {
    /// Number and arguments.
    fn call(self) -> (libc::c_long, [libc::c_long; 5]) {
        const NONE: libc::c_long = -1;
        match self {
            Self::Clone3 => (libc::SYS_clone3, [0; 5]),
            Self::UnshareUser => {
                (libc::SYS_unshare, [libc::c_long::from(libc::CLONE_NEWUSER) | 1, 0, 0, 0, 0])
            }
            Self::VsockSocket => (libc::SYS_socket, [libc::c_long::from(libc::AF_VSOCK), NONE, 0, 0, 0]),
            Self::UnixSocket => (libc::SYS_socket, [libc::c_long::from(libc::AF_UNIX), NONE, 0, 0, 0]),
            Self::InetSocket => (libc::SYS_socket, [libc::c_long::from(libc::AF_INET), NONE, 0, 0, 0]),
            Self::PushTerminalInput => (libc::SYS_ioctl, [NONE, (1 << 32) | 0x5412, 0, 0, 0]),
            Self::Keyring => (libc::SYS_keyctl, [NONE, 0, 0, 0, 0]),
            Self::JoinNamespace => (libc::SYS_setns, [NONE, 0, 0, 0, 0]),
            Self::ChangeMount => (libc::SYS_mount_setattr, [NONE, 0, NONE, 0, 0]),
            Self::Trace => (libc::SYS_ptrace, [NONE, NONE, 0, 0, 0]),
            Self::Ring => (libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        }
    }
}

/// Makes the call. The error it fails with; `UnknownErrno` (0) should it succeed.
pub(crate) fn attempt(attempt: Attempt) -> Errno {
    let (number, [a, b, c, d, e]) = attempt.call();
    // SAFETY: the arguments come from `Attempt::call` alone. None is a valid address, so the kernel can neither read
    // nor write memory of ours; none is a valid descriptor, process or complete set of flags, so no state changes.
    // A forbidden `clone3` or `unshare` that slipped through would still fail on its own arguments.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e) };
    if answer == -1 { Errno::last() } else { Errno::UnknownErrno }
}

/// 0 none, 1 strict, 2 filter; -1 where the kernel has no seccomp.
pub(crate) fn mode() -> i32 {
    // SAFETY: PR_GET_SECCOMP takes no further argument and only reads the calling thread's state. (In strict mode
    // the kernel would kill us for it; nothing here ever enters that mode, and no outer process can impose it.)
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) }
}
