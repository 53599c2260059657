//! Asking for the kernel's Landlock version.

use nix::errno::Errno;

/// LANDLOCK_CREATE_RULESET_VERSION of the kernel's interface.
const VERSION: libc::c_ulong = 1;

/// The version of the kernel's Landlock interface. ENOSYS where it is not built in, EOPNOTSUPP where it is switched
/// off. (The landlock crate knows too, but tells only when a process has been restricted.)
pub(crate) fn abi() -> nix::Result<i32> {
    let none: libc::c_ulong = 0;
    // SAFETY: with the version flag the kernel demands a null pointer and size 0, reads no memory, creates no
    // descriptor and answers with a small number.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, none, VERSION) };
    Errno::result(answer).map(|version| i32::try_from(version).unwrap_or(i32::MAX))
}
