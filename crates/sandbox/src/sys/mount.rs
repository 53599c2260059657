//! The mount API by descriptors (Linux 5.2 and 5.12), which nix does not wrap.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

/// Attributes that are set on a mount; never cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes(u64);

impl Attributes {
    /// No writes, no set-id bits, no devices: inputs and system folders.
    pub(crate) const READ_ONLY: Self =
        Self(libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
    /// No writes, but devices work: single device nodes.
    pub(crate) const DEVICE: Self = Self(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC);
}

/// A detached copy of the mount that `path` (relative to `dir`) lies on, with `path` as its root.
pub(crate) fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let depth = if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH as libc::c_uint
        | libc::AT_SYMLINK_NOFOLLOW as libc::c_uint
        | depth;
    // SAFETY: `path` is a NUL-terminated string that outlives the call; the kernel writes to no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) };
    super::fd::owned(answer)
}

/// Adds `attributes` to the mount behind `mount`, and to those below it if `recursive`.
pub(crate) fn restrict(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> nix::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes.0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    set_attributes(mount, flags, &attr)
}

/// Takes the read-only attribute off the mount at `path`: what a hostile payload would try.
pub(crate) fn make_writable(path: &CStr) -> nix::Result<()> {
    let attr =
        libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    // SAFETY: both pointers are to values that outlive the call, and the size given is that of `attr`;
    // an absolute path makes the descriptor argument irrelevant.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            0,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(answer).map(drop)
}

fn set_attributes(mount: BorrowedFd<'_>, flags: libc::c_int, attr: &libc::mount_attr) -> nix::Result<()> {
    // SAFETY: the path is a static NUL-terminated string, `attr` outlives the call and its size is given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(answer).map(drop)
}

/// Attaches the detached mount `mount` at the open directory or file `target`.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are static NUL-terminated strings; the kernel writes to no memory of ours.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    Errno::result(answer).map(drop)
}
