//! Temporary files: one folder per process, told alive by a lock that dies with it.
//!
//! `tmp/<random>/lock` is held with `flock` for the life of the store handle. Whoever opens the store removes the
//! folders whose lock it can take, so what a killed process left behind goes away and what a living one uses stays.
//! Making and removing these folders happens under the lock of the root folder; there is no moment at which a new
//! folder has no lock.

use std::collections::hash_map::RandomState;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::BuildHasher;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod};

use crate::error::{At, StoreError};
use crate::fd;

/// This process's folder for temporary files.
#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    next: AtomicU64,
    /// Held, never read: its lock says that this process lives.
    _lock: File,
}

/// A file that vanishes unless its name is moved elsewhere.
#[derive(Debug)]
pub(crate) struct TempFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

/// A folder that vanishes unless its name is moved elsewhere.
#[derive(Debug)]
pub(crate) struct TempFolder {
    pub(crate) path: PathBuf,
}

// === impl Session ===

impl Session {
    /// Removes what dead processes left in `tmp` and makes a folder for this one. The caller holds the root's lock.
    pub(crate) fn begin(tmp: &Path) -> Result<Self, StoreError> {
        make_folder(tmp)?;
        remove_dead(tmp)?;
        loop {
            let folder = tmp.join(format!("{:016x}", random()));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other.at("make", &folder)?;
                    let lock = lock_new(&folder.join("lock")).inspect_err(|_| discard(&folder))?;
                    return Ok(Self { folder, next: AtomicU64::new(0), _lock: lock });
                }
            }
        }
    }

    /// A new file, open for writing; nobody else ever writes to it.
    pub(crate) fn file(&self) -> Result<TempFile, StoreError> {
        let path = self.next_path();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path);
        Ok(TempFile { file: file.at("make", &path)?, path })
    }

    /// A new folder.
    pub(crate) fn folder(&self) -> Result<TempFolder, StoreError> {
        let path = self.next_path();
        fs::DirBuilder::new().mode(0o755).create(&path).at("make", &path)?;
        Ok(TempFolder { path })
    }

    pub(crate) fn next_path(&self) -> PathBuf {
        self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        discard(&self.folder);
    }
}

// === impl TempFile, TempFolder ===

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; after a link this removes the second name.
        remove_quietly(fs::remove_file(&self.path), &self.path);
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        discard(&self.path);
    }
}

/// Makes a private folder unless it is there. A link to a folder is none: what is removed in `tmp` must be ours.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_folder(path),
        other => other.at("make", path),
    }
}

/// Whether a folder of the store is a folder, and not a link to one elsewhere.
pub(crate) fn check_folder(path: &Path) -> Result<(), StoreError> {
    if path.symlink_metadata().at("examine", path)?.is_dir() {
        Ok(())
    } else {
        Err(StoreError::Stray { path: path.to_owned(), why: "is not a folder" })
    }
}

/// How many processes use the store. The caller holds the root's lock, so that none begins meanwhile.
pub(crate) fn living(tmp: &Path) -> Result<usize, StoreError> {
    let mut living = 0;
    if tmp.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(living);
    }
    check_folder(tmp)?;
    for entry in fs::read_dir(tmp).at("list", tmp)? {
        living += usize::from(is_alive(&entry.at("list", tmp)?.path())?);
    }
    Ok(living)
}

fn remove_dead(tmp: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(tmp).at("list", tmp)? {
        let path = entry.at("list", tmp)?.path();
        if !is_alive(&path)? {
            tracing::info!(folder = %path.display(), "removing what an ended process left behind");
            discard(&path);
        }
    }
    Ok(())
}

/// A folder without a lock file belongs to a process that ended between two steps under the root's lock.
fn is_alive(folder: &Path) -> Result<bool, StoreError> {
    let path = folder.join("lock");
    // A forged lock must neither lead elsewhere nor keep us waiting.
    let lock = match OpenOptions::new().read(true).custom_flags(fd::CAREFUL).open(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => return Ok(false),
        other => other.at("open", &path)?,
    };
    match lock.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).at("lock", &path),
    }
}

fn lock_new(path: &Path) -> Result<File, StoreError> {
    let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).at("make", path)?;
    lock.lock().at("lock", path)?;
    Ok(lock)
}

/// Names need to be unlikely, not secret: they are made with `O_EXCL`.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Removes a file or folder for good, read-only folders included. What cannot be removed is left to the next open.
pub(crate) fn discard(path: &Path) {
    if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        remove_quietly(make_removable(path).map_err(io::Error::from), path);
        remove_quietly(fs::remove_dir_all(path), path);
    } else {
        remove_quietly(fs::remove_file(path), path);
    }
}

/// Without privileges a folder must be writable before its entries can go. Walks by descriptor: the names of a deep
/// tree together may exceed the longest path.
fn make_removable(top: &Path) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let enter = |folder: OwnedFd| -> nix::Result<(OwnedFd, Vec<CString>)> {
        fchmod(&folder, Mode::S_IRWXU)?;
        let names = fd::names(&folder, usize::MAX)?;
        Ok((folder, names))
    };
    let mut stack = vec![enter(open(top, flags, Mode::empty())?)?];
    while let Some((folder, names)) = stack.last_mut() {
        match names.pop() {
            None => drop(stack.pop()),
            Some(name) => match openat(&*folder, name.as_c_str(), flags, Mode::empty()) {
                Ok(child) => stack.push(enter(child)?),
                // Not a folder, or a link: removed by name later.
                Err(Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(error) => return Err(error),
            },
        }
    }
    Ok(())
}

fn remove_quietly(outcome: io::Result<()>, path: &Path) {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a temporary file stays until the store is opened again");
        }
        _ => {}
    }
}
