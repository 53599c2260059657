//! Capability sets: capget, capset and the prctl calls around them. nix wraps none of them.

use nix::errno::Errno;

/// Highest capability number that is tried; the kernel answers `EINVAL` above its own last one.
pub(crate) const LAST: u8 = 63;

/// `_LINUX_CAPABILITY_VERSION_3`: two 32-bit words per set.
const VERSION_3: u32 = 0x2008_0522;

/// Header of capget and capset.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// One word of the three sets.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sets {
    /// What it can use now.
    pub(crate) effective: u64,
    /// What it may put into the effective set.
    pub(crate) permitted: u64,
    /// What survives exec of a file that has it too.
    pub(crate) inheritable: u64,
}

/// The sets of the calling thread.
pub(crate) fn get() -> nix::Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: version 3 makes the kernel write exactly two words, which is what `words` has room for; both
    // pointers are valid for the call.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    Errno::result(answer)?;
    let join = |pick: fn(&Word) -> u32| u64::from(pick(&words[0])) | (u64::from(pick(&words[1])) << 32);
    Ok(Sets {
        effective: join(|word| word.effective),
        permitted: join(|word| word.permitted),
        inheritable: join(|word| word.inheritable),
    })
}

/// Empties the three sets of the calling thread.
pub(crate) fn clear() -> nix::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let words = [Word::default(); 2];
    // SAFETY: version 3 makes the kernel read exactly the two words that are given.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(answer).map(drop)
}

/// Removes `capability` from the bounding set.
pub(crate) fn drop_bounding(capability: u8) -> nix::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0).map(drop)
}

/// Whether `capability` is in the bounding set; `EINVAL` above the kernel's last capability.
pub(crate) fn in_bounding(capability: u8) -> nix::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0).map(|answer| answer == 1)
}

/// Empties the ambient set.
pub(crate) fn clear_ambient() -> nix::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0).map(drop)
}

/// Whether `capability` is in the ambient set.
pub(crate) fn in_ambient(capability: u8) -> nix::Result<bool> {
    let question = libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong;
    prctl(libc::PR_CAP_AMBIENT, question, libc::c_ulong::from(capability)).map(|answer| answer == 1)
}

/// Sets the secure bits of the calling thread.
pub(crate) fn set_securebits(bits: u32) -> nix::Result<()> {
    prctl(libc::PR_SET_SECUREBITS, libc::c_ulong::from(bits), 0).map(drop)
}

/// The secure bits of the calling thread.
pub(crate) fn securebits() -> nix::Result<u32> {
    let bits = prctl(libc::PR_GET_SECUREBITS, 0, 0)?;
    u32::try_from(bits).map_err(|_| Errno::EOVERFLOW)
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> nix::Result<libc::c_int> {
    // SAFETY: none of the options used in this file takes a pointer; unused arguments are zero as the
    // kernel demands.
    let answer = unsafe { libc::prctl(option, first, second, 0, 0) };
    Errno::result(answer)
}
