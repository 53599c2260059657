//! The few calls on folder descriptors that collecting, staging and cleaning share. Nothing here follows a link.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, Entry};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag};

/// Flags of open(2) for files that may be forged: follow no link, wait for no peer, take no terminal.
pub const CAREFUL: i32 = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).bits();

/// Opens `path` below `folder`: no link, no `..` above it, no other mount.
pub(crate) fn open_beneath<P: ?Sized + nix::NixPath>(
    folder: impl AsFd,
    path: &P,
    flags: OFlag,
) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(folder, path, OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(resolve))
}

/// Flags to read a file of unknown kind without ever waiting for a peer or taking a terminal.
pub(crate) fn read_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

/// Names in a folder without `.` and `..`, in no order; `E2BIG` when there are more than `limit`.
pub(crate) fn names(folder: &OwnedFd, limit: usize) -> nix::Result<Vec<CString>> {
    let mut names = Vec::new();
    each_entry(folder, |entry| {
        if names.len() == limit {
            return Err(Errno::E2BIG);
        }
        names.push(CStr::to_owned(entry.file_name()));
        Ok(())
    })?;
    Ok(names)
}

/// Hands every entry of a folder but `.` and `..` to `take`, in no order, until that fails.
pub(crate) fn each_entry(
    folder: &OwnedFd,
    mut take: impl FnMut(&Entry) -> nix::Result<()>,
) -> nix::Result<()> {
    // A second open, not a duplicate: a duplicate would share the read position.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut reader = Dir::openat(folder, c".", flags, nix::sys::stat::Mode::empty())?;
    for entry in reader.iter() {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            take(&entry)?;
        }
    }
    Ok(())
}

/// The kind bits of a file's mode.
pub(crate) const fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}
