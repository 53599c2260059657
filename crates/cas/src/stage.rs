//! Writing a tree out as a folder, and comparing a folder with a tree.
//!
//! Both walk manifests with a stack of their own and touch the disk only relative to the descriptor of the folder
//! they are in, by names that [`crate::tree`] has checked: one component, never `.` or `..`. Folders are made, never
//! found, and files are made with `O_EXCL`, so no entry of a forged manifest can lead anywhere else.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::vec;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::symlinkat;
use requiem_model::digest::{BlobDigest, TreeDigest};

use crate::error::{At, StoreError};
use crate::fd;
use crate::materialise::copy;
use crate::object::hash_file;
use crate::store::TenantStore;
use crate::tree::{Entry, MAX_MANIFEST_BYTES, Manifest, Node, TreeLimits};

const EPOCH: TimeSpec = TimeSpec::new(0, 0);
const FOLDER_MODE: Mode = Mode::from_bits_truncate(0o555);

/// A folder that is being walked, with what is still to be done in it.
struct Folder {
    fd: OwnedFd,
    rest: vec::IntoIter<Entry>,
}

/// Counts down what a tree may hold.
struct Budget {
    root: TreeDigest,
    limits: TreeLimits,
    entries: u64,
    bytes: u64,
}

impl TenantStore {
    /// Reads and checks one folder's manifest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Corrupt`], [`StoreError::Manifest`].
    pub fn manifest(&self, digest: &TreeDigest) -> Result<Manifest, StoreError> {
        let blob = BlobDigest::from_bytes(*digest.as_bytes());
        let bytes = self.get_bytes(&blob, MAX_MANIFEST_BYTES as u64)?;
        Manifest::decode(&bytes).map_err(|source| StoreError::Manifest { digest: blob, source })
    }
}

/// Writes the tree to `path`, which must not exist. Every byte is verified on its way.
pub(crate) fn build(store: &TenantStore, digest: &TreeDigest, path: &Path) -> Result<(), StoreError> {
    let mut budget = Budget::new(*digest);
    let root = make_folder(&AT_FDCWD, path.as_os_str().as_bytes(), path)?;
    let mut stack = vec![budget.enter(store, digest, root, 0)?];
    while let Some(folder) = stack.last_mut() {
        let Some(entry) = folder.rest.next() else {
            finish_folder(folder).at("finish a folder of", path)?;
            stack.pop();
            continue;
        };
        match entry.node {
            Node::Blob { digest, bytes, executable } => {
                budget.take_bytes(bytes)?;
                write_file(store, folder, &entry.name, &digest, bytes, executable, path)?;
            }
            Node::Symlink { target } => {
                write_link(folder, &entry.name, &target).at("make a link in", path)?
            }
            Node::Tree { digest } => {
                let child = make_folder(&folder.fd, &entry.name, path)?;
                let depth = stack.len() as u64;
                stack.push(budget.enter(store, &digest, child, depth)?);
            }
        }
    }
    Ok(())
}

/// Whether the folder at `path` is exactly what [`build`] makes of the tree.
///
/// # Errors
/// Only of the store (its manifests are read); whatever is wrong with the folder is `false`.
pub(crate) fn is_intact(store: &TenantStore, digest: &TreeDigest, path: &Path) -> Result<bool, StoreError> {
    let mut budget = Budget::new(*digest);
    let Ok(root) = open_folder(&AT_FDCWD, path.as_os_str().as_bytes()) else { return Ok(false) };
    let mut stack = vec![budget.enter(store, digest, root, 0)?];
    if !stack.iter().all(Folder::looks_right) {
        return Ok(false);
    }
    while let Some(folder) = stack.last_mut() {
        let Some(entry) = folder.rest.next() else {
            stack.pop();
            continue;
        };
        let good = match entry.node {
            Node::Blob { digest, bytes, executable } => {
                file_is_good(folder, &entry.name, &digest, bytes, executable).unwrap_or(false)
            }
            Node::Symlink { target } => readlinkat(&folder.fd, entry.name.as_slice())
                .is_ok_and(|found| found.as_bytes() == target.as_slice()),
            Node::Tree { digest } => match open_folder(&folder.fd, &entry.name) {
                Ok(child) => {
                    let depth = stack.len() as u64;
                    let child = budget.enter(store, &digest, child, depth)?;
                    let good = child.looks_right();
                    stack.push(child);
                    good
                }
                Err(_) => false,
            },
        };
        if !good {
            return Ok(false);
        }
    }
    Ok(true)
}

// === impl Budget ===

impl Budget {
    const fn new(root: TreeDigest) -> Self {
        Self { root, limits: TreeLimits::INPUT, entries: 0, bytes: 0 }
    }

    /// Reads the manifest of a folder that is at `depth`.
    fn enter(
        &mut self,
        store: &TenantStore,
        digest: &TreeDigest,
        fd: OwnedFd,
        depth: u64,
    ) -> Result<Folder, StoreError> {
        if depth >= self.limits.depth {
            return Err(self.exceeded("folders deep", self.limits.depth));
        }
        let entries = store.manifest(digest)?.into_entries();
        self.entries = self.entries.saturating_add(entries.len() as u64);
        if self.entries > self.limits.entries {
            return Err(self.exceeded("entries", self.limits.entries));
        }
        Ok(Folder { fd, rest: entries.into_iter() })
    }

    fn take_bytes(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes {
            return Err(self.exceeded("bytes", self.limits.bytes));
        }
        Ok(())
    }

    const fn exceeded(&self, what: &'static str, limit: u64) -> StoreError {
        StoreError::TreeBounds { digest: BlobDigest::from_bytes(*self.root.as_bytes()), what, limit }
    }
}

// === impl Folder ===

impl Folder {
    /// Mode, time and names, before any entry was taken.
    fn looks_right(&self) -> bool {
        let entries = self.rest.as_slice();
        let Ok(stat) = fstat(&self.fd) else { return false };
        let Ok(mut names) = fd::names(&self.fd, entries.len()) else { return false };
        names.sort_unstable();
        has(&stat, SFlag::S_IFDIR, 0o555)
            && names.len() == entries.len()
            && names.iter().zip(entries).all(|(name, entry)| name.to_bytes() == entry.name)
    }
}

/// Kind, permission bits and the fixed time.
fn has(stat: &FileStat, kind: SFlag, mode: u32) -> bool {
    fd::kind(stat) == kind && stat.st_mode & 0o7777 == mode && (stat.st_mtime, stat.st_mtime_nsec) == (0, 0)
}

const fn file_mode(executable: bool) -> u32 {
    if executable { 0o555 } else { 0o444 }
}

fn make_folder(parent: &impl std::os::fd::AsFd, name: &[u8], path: &Path) -> Result<OwnedFd, StoreError> {
    mkdirat(parent, name, Mode::S_IRWXU).at("make a folder in", path)?;
    open_folder(parent, name).at("open a folder in", path)
}

fn open_folder(parent: &impl std::os::fd::AsFd, name: &[u8]) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Last, because making entries changes the folder's time.
fn finish_folder(folder: &Folder) -> nix::Result<()> {
    fchmod(&folder.fd, FOLDER_MODE)?;
    futimens(&folder.fd, &EPOCH, &EPOCH)
}

fn write_link(folder: &Folder, name: &[u8], target: &[u8]) -> nix::Result<()> {
    symlinkat(target, &folder.fd, name)?;
    utimensat(&folder.fd, name, &EPOCH, &EPOCH, UtimensatFlags::NoFollowSymlink)
}

fn write_file(
    store: &TenantStore,
    folder: &Folder,
    name: &[u8],
    digest: &BlobDigest,
    bytes: u64,
    executable: bool,
    path: &Path,
) -> Result<(), StoreError> {
    let mut source = store.open_blob(digest)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(&folder.fd, name, flags, Mode::S_IRUSR).at("make a file in", path)?);
    let written = copy(&mut source, &mut file, path)?;
    if written != bytes {
        let why = format!("a manifest says {bytes} bytes, it has {written}");
        return Err(StoreError::Corrupt { digest: *digest, why });
    }
    let mode = Mode::from_bits_truncate(file_mode(executable));
    fchmod(&file, mode).and_then(|()| futimens(&file, &EPOCH, &EPOCH)).at("finish a file of", path)
}

fn file_is_good(
    folder: &Folder,
    name: &[u8],
    digest: &BlobDigest,
    bytes: u64,
    executable: bool,
) -> nix::Result<bool> {
    let flags = fd::read_flags() | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(openat(&folder.fd, name, flags, Mode::empty())?);
    let stat = fstat(&file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if !has(&stat, SFlag::S_IFREG, file_mode(executable)) || size != bytes {
        return Ok(false);
    }
    let found = hash_file(&file).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    Ok(found == *digest)
}
