//! Writing a tree out as a folder, and comparing a folder with a tree.
//!
//! Both walk manifests with a stack of their own and touch the disk only relative to the descriptor of the folder
//! they are in, by names that [`crate::tree`] has checked: one component, never `.` or `..`. Folders are made, never
//! found, and files are made with `O_EXCL`, so no entry of a forged manifest can lead anywhere else.

use std::collections::HashMap;
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

/// What a tree holds altogether.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    entries: u64,
    bytes: u64,
    height: u64,
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

/// Refuses a tree beyond [`TreeLimits::INPUT`] before anything is written. Every manifest counts once, however often it
/// is named: a few hundred bytes can name 2^60 folders.
pub(crate) fn measure(store: &TenantStore, root: &TreeDigest) -> Result<(), StoreError> {
    let limits = TreeLimits::INPUT;
    let mut known: HashMap<TreeDigest, Extent> = HashMap::new();
    let mut stack = vec![*root];
    while let Some(digest) = stack.last().copied() {
        if known.contains_key(&digest) {
            stack.pop();
            continue;
        }
        let manifest = store.manifest(&digest)?;
        let before = stack.len();
        stack.extend(manifest.entries().iter().filter_map(|entry| match &entry.node {
            Node::Tree { digest } if !known.contains_key(digest) => Some(*digest),
            _ => None,
        }));
        if stack.len() == before {
            let extent = Extent::of(&manifest, &known);
            extent.check(root, &limits)?;
            known.insert(digest, extent);
            stack.pop();
        }
    }
    Ok(())
}

/// Writes the tree to `path`, which must not exist. Every byte is verified on its way.
pub(crate) fn build(store: &TenantStore, digest: &TreeDigest, path: &Path) -> Result<(), StoreError> {
    let root = make_folder(&AT_FDCWD, path.as_os_str().as_bytes(), path)?;
    let mut stack = vec![Folder::enter(store, digest, root)?];
    while let Some(folder) = stack.last_mut() {
        let Some(entry) = folder.rest.next() else {
            finish_folder(folder).at("finish a folder of", path)?;
            stack.pop();
            continue;
        };
        match entry.node {
            Node::Blob { digest, bytes, executable } => {
                write_file(store, folder, &entry.name, &digest, bytes, executable, path)?;
            }
            Node::Symlink { target } => {
                write_link(folder, &entry.name, &target).at("make a link in", path)?
            }
            Node::Tree { digest } => {
                let child = make_folder(&folder.fd, &entry.name, path)?;
                stack.push(Folder::enter(store, &digest, child)?);
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
    let Ok(root) = open_folder(&AT_FDCWD, path.as_os_str().as_bytes()) else { return Ok(false) };
    let mut stack = vec![Folder::enter(store, digest, root)?];
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
                    let child = Folder::enter(store, &digest, child)?;
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

// === impl Extent ===

impl Extent {
    /// Adds up a folder, its sub-folders being known.
    fn of(manifest: &Manifest, known: &HashMap<TreeDigest, Self>) -> Self {
        let mut sum = Self { height: 1, ..Self::default() };
        for entry in manifest.entries() {
            sum.entries = sum.entries.saturating_add(1);
            match &entry.node {
                Node::Blob { bytes, .. } => sum.bytes = sum.bytes.saturating_add(*bytes),
                Node::Symlink { .. } => {}
                Node::Tree { digest } => {
                    let below = known.get(digest).copied().unwrap_or_default();
                    sum.entries = sum.entries.saturating_add(below.entries);
                    sum.bytes = sum.bytes.saturating_add(below.bytes);
                    sum.height = sum.height.max(below.height + 1);
                }
            }
        }
        sum
    }

    fn check(&self, root: &TreeDigest, limits: &TreeLimits) -> Result<(), StoreError> {
        let bounds = [
            ("entries", self.entries, limits.entries),
            ("folders deep", self.height, limits.depth),
            ("bytes", self.bytes, limits.bytes),
        ];
        match bounds.into_iter().find(|(_, value, limit)| value > limit) {
            Some((what, _, limit)) => {
                Err(StoreError::TreeBounds { digest: BlobDigest::from_bytes(*root.as_bytes()), what, limit })
            }
            None => Ok(()),
        }
    }
}

// === impl Folder ===

impl Folder {
    fn enter(store: &TenantStore, digest: &TreeDigest, fd: OwnedFd) -> Result<Self, StoreError> {
        Ok(Self { fd, rest: store.manifest(digest)?.into_entries().into_iter() })
    }

    /// Mode, time and number of entries, before any was taken. That every entry is found under its name, and that
    /// there are no more of them, makes the names equal.
    fn looks_right(&self) -> bool {
        let expected = self.rest.len();
        let Ok(stat) = fstat(&self.fd) else { return false };
        let Ok(names) = fd::names(&self.fd, expected) else { return false };
        has(&stat, SFlag::S_IFDIR, 0o555) && names.len() == expected
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
