//! A folder of a cgroup file system, held open: works after the mount has gone out of sight.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

/// An open folder.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

impl Dir {
    /// Opens `path` in the file system as it is now.
    pub(super) fn open(path: &Path) -> nix::Result<Self> {
        openat(AT_FDCWD, path, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map(Self)
    }

    /// Opens a folder below.
    pub(super) fn child(&self, name: &str) -> nix::Result<Self> {
        openat(&self.0, name, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map(Self)
    }

    /// Makes a group below, and opens it.
    pub(super) fn make(&self, name: &str) -> nix::Result<Self> {
        mkdirat(&self.0, name, Mode::from_bits_truncate(0o755))?;
        self.child(name)
    }

    /// Removes an empty group below.
    pub(super) fn unmake(&self, name: &str) -> nix::Result<()> {
        unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)
    }

    /// Opens a file below.
    pub(super) fn file(&self, name: &str, how: OFlag) -> nix::Result<File> {
        openat(&self.0, name, how | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
    }

    /// The text of a file.
    pub(super) fn read(&self, name: &str) -> nix::Result<String> {
        let mut text = String::new();
        self.file(name, OFlag::O_RDONLY)?.read_to_string(&mut text).map_err(|error| errno(&error))?;
        Ok(text)
    }

    /// Writes a file in one call, as the kernel demands.
    pub(super) fn write(&self, name: &str, value: &str) -> nix::Result<()> {
        self.file(name, OFlag::O_WRONLY)?.write_all(value.as_bytes()).map_err(|error| errno(&error))
    }

    /// The one number in a file; `max` is the highest.
    pub(super) fn number(&self, name: &str) -> nix::Result<u64> {
        number(&self.read(name)?).ok_or(Errno::EINVAL)
    }

    /// The number after `key` in a file of `key number` lines.
    pub(super) fn keyed(&self, name: &str, key: &str) -> nix::Result<u64> {
        keyed(&self.read(name)?, key).ok_or(Errno::ENODATA)
    }

    /// Names of the groups below.
    pub(super) fn names(&self) -> nix::Result<Vec<String>> {
        let mut listing = nix::dir::Dir::openat(
            &self.0,
            ".",
            OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let names =
            listing.iter().filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
        Ok(names.collect())
    }

    /// Processes in the group, as this process's namespace numbers them. Those it cannot see are left out.
    pub(super) fn members(&self) -> nix::Result<Vec<Pid>> {
        let text = self.read("cgroup.procs")?;
        let pids = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0);
        Ok(pids.map(Pid::from_raw).collect())
    }
}

/// A number as these files have it.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// The number after `key` in `key number` lines.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// The error number inside; text that is not UTF-8 has none.
fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EILSEQ, Errno::from_raw)
}
