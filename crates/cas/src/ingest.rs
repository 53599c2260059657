//! Collecting files and folders into the store, by descriptor.
//!
//! The path comes from a request, the tree from a payload that is dead but was hostile. So every open goes through
//! `openat2` beneath the folder above it, without links and without crossing mounts; the kind of an entry is known
//! before it is opened, and again after; nothing waits on a FIFO; the walk keeps its own stack and has bounds. What a
//! tree cannot hold (devices, sockets, FIFOs) refuses the whole output, with the entry named. Links inside a tree are
//! kept as links. Owners, times, extended attributes and hard-link identity are dropped.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use requiem_model::RelPath;
use requiem_model::digest::TreeDigest;
use requiem_model::result::OutputContent;

use crate::durable::{Durability, Receipt};
use crate::error::{IngestError, StoreError};
use crate::fd::{self, open_beneath};
use crate::object::RAW_FROM;
use crate::store::TenantStore;
use crate::tree::{Entry, MAX_MANIFEST_BYTES, Manifest, ManifestError, Node, TreeLimits, escape};

/// Objects of one tree that are synced one by one; a larger tree is synced as a whole at its end.
const SYNC_SINGLY: u32 = 64;

/// What was collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// The file or folder.
    pub content: OutputContent,
    /// The weakest durability among its objects.
    pub durability: Durability,
}

/// One walk.
struct Collector<'a> {
    store: &'a TenantStore,
    top: &'a str,
    limits: &'a TreeLimits,
    wish: Durability,
    entries: u64,
    bytes: u64,
    sync_singly: u32,
    /// Whether objects were put unsynced in spite of the wish, because there are many.
    sync_at_end: bool,
    weakest: Durability,
}

/// A folder that is being walked.
struct Folder {
    fd: OwnedFd,
    name: CString,
    /// Still to be done, greatest first.
    names: Vec<CString>,
    done: Vec<Entry>,
}

// === impl TenantStore ===

impl TenantStore {
    /// Collects the file or folder at `path` below `dir`. Call it when nothing can change the tree any more.
    ///
    /// # Errors
    /// See [`IngestError::is_fault_of_output`]. After any error nothing refers to what was stored so far.
    pub fn ingest(
        &self,
        dir: BorrowedFd<'_>,
        path: &RelPath,
        limits: &TreeLimits,
        wish: Durability,
    ) -> Result<Ingested, IngestError> {
        let mut collector = Collector::new(self, path.as_str(), limits, wish);
        let fault = |errno| collector.fault(None, "open", errno);
        let peek = open_beneath(dir, path.as_str(), OFlag::O_PATH).map_err(fault)?;
        let seen = fstat(&peek).map_err(fault)?;
        match fd::kind(&seen) {
            SFlag::S_IFREG => collector.single_file(dir, path.as_str(), &seen),
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                let folder = open_beneath(dir, path.as_str(), flags).map_err(fault)?;
                collector.tree(folder)
            }
            other => Err(collector.special(None, other)),
        }
    }

    /// Puts a folder of a user who is trusted with its content: the same walk from a path that may lead through links.
    ///
    /// # Errors
    /// As [`TenantStore::ingest`].
    pub fn put_tree(
        &self,
        path: &Path,
        limits: &TreeLimits,
        wish: Durability,
    ) -> Result<Ingested, IngestError> {
        let text = path.to_string_lossy();
        let mut collector = Collector::new(self, &text, limits, wish);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder =
            open(path, flags, Mode::empty()).map_err(|errno| collector.fault(None, "open", errno))?;
        collector.tree(folder)
    }
}

// === impl Collector ===

impl<'a> Collector<'a> {
    const fn new(store: &'a TenantStore, top: &'a str, limits: &'a TreeLimits, wish: Durability) -> Self {
        let weakest = Durability::Strict;
        let (entries, bytes, sync_singly, sync_at_end) = (0, 0, SYNC_SINGLY, false);
        Self { store, top, limits, wish, entries, bytes, sync_singly, sync_at_end, weakest }
    }

    fn single_file(
        mut self,
        dir: BorrowedFd<'_>,
        path: &str,
        seen: &FileStat,
    ) -> Result<Ingested, IngestError> {
        let node = self.file(dir, path, None, seen)?;
        match node {
            Node::Blob { digest, bytes, executable } => {
                let content = OutputContent::Blob { digest, bytes, executable };
                Ok(Ingested { content, durability: self.weakest })
            }
            Node::Tree { .. } | Node::Symlink { .. } => Err(self.changed(None)),
        }
    }

    /// Walks depth first with a stack of its own.
    fn tree(&mut self, root: OwnedFd) -> Result<Ingested, IngestError> {
        let mut stack = vec![self.enter(root, CString::default(), &[])?];
        loop {
            let Some(folder) = stack.last_mut() else { return Err(self.changed(None)) };
            if let Some(name) = folder.names.pop() {
                if let Some(child) = self.entry(&mut stack, name)? {
                    stack.push(child);
                }
                continue;
            }
            let Some(folder) = stack.pop() else { return Err(self.changed(None)) };
            let digest = self.manifest(folder.done, &stack, &folder.name)?;
            match stack.last_mut() {
                Some(parent) => {
                    parent.done.push(Entry { name: folder.name.into_bytes(), node: Node::Tree { digest } });
                }
                None => return self.finish(digest),
            }
        }
    }

    /// Handles one entry of the innermost folder; a folder is returned to be walked.
    fn entry(&mut self, stack: &mut [Folder], name: CString) -> Result<Option<Folder>, IngestError> {
        let trail = trail(stack, &name);
        let at = Some(trail.as_str());
        let depth = stack.len() as u64;
        let Some(folder) = stack.last_mut() else { return Err(self.changed(at)) };
        let seen = fstatat(&folder.fd, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| self.fault(at, "examine", errno))?;
        let node = match fd::kind(&seen) {
            SFlag::S_IFREG => self.file(folder.fd.as_fd(), name.as_c_str(), at, &seen)?,
            SFlag::S_IFLNK => {
                let target = readlinkat(&folder.fd, name.as_c_str());
                let target = target.map_err(|errno| self.fault(at, "read", errno))?.into_vec();
                Node::Symlink { target }
            }
            SFlag::S_IFDIR if depth >= self.limits.depth => {
                return Err(IngestError::TooDeep { path: self.top.to_owned(), limit: self.limits.depth });
            }
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                let child = open_beneath(&folder.fd, name.as_c_str(), flags);
                let child = child.map_err(|errno| self.fault(at, "open", errno))?;
                return self.enter(child, name, stack).map(Some);
            }
            other => return Err(self.special(at, other)),
        };
        folder.done.push(Entry { name: name.into_bytes(), node });
        Ok(None)
    }

    /// Lists a folder, within what is left of the entry limit.
    fn enter(&mut self, fd: OwnedFd, name: CString, stack: &[Folder]) -> Result<Folder, IngestError> {
        let left = usize::try_from(self.limits.entries - self.entries).unwrap_or(usize::MAX);
        let mut names = fd::names(&fd, left).map_err(|errno| match errno {
            Errno::E2BIG => {
                IngestError::TooManyEntries { path: self.top.to_owned(), limit: self.limits.entries }
            }
            other => self.fault(Some(&trail(stack, &name)), "list", other),
        })?;
        self.entries += names.len() as u64;
        names.sort_unstable_by(|one, other| other.cmp(one));
        let done = Vec::with_capacity(names.len());
        Ok(Folder { fd, name, names, done })
    }

    /// Stores one file. `seen` is what its name stood for before it was opened.
    fn file<P: ?Sized + NixPath>(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &P,
        at: Option<&str>,
        seen: &FileStat,
    ) -> Result<Node, IngestError> {
        let opened = open_beneath(dir, name, fd::read_flags());
        let file = File::from(opened.map_err(|errno| self.fault(at, "open", errno))?);
        let before = fstat(&file).map_err(|errno| self.fault(at, "examine", errno))?;
        if !same(seen, &before) || fd::kind(&before) != SFlag::S_IFREG {
            return Err(self.changed(at));
        }
        let bytes = u64::try_from(before.st_size).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes {
            return Err(IngestError::TooManyBytes { path: self.top.to_owned(), limit: self.limits.bytes });
        }
        let receipt = self.store_file(&file, bytes, at)?;
        let after = fstat(&file).map_err(|errno| self.fault(at, "examine", errno))?;
        if receipt.bytes != bytes || !same(&before, &after) {
            return Err(self.changed(at));
        }
        let executable = before.st_mode & Mode::S_IXUSR.bits() != 0;
        Ok(Node::Blob { digest: receipt.digest, bytes, executable })
    }

    /// Reads one byte more than there should be, so that growth shows as a wrong size.
    fn store_file(&mut self, file: &File, bytes: u64, at: Option<&str>) -> Result<Receipt, IngestError> {
        let wish = self.next_wish();
        let mut source = file.take(bytes.saturating_add(1));
        let stored = if bytes < RAW_FROM {
            let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0) + 1);
            let read = source.read_to_end(&mut content);
            read.map_err(|source| StoreError::Source { source })
                .and_then(|_| self.store.put_bytes(&content, wish))
        } else {
            self.store.put_sized(source, bytes, wish)
        };
        match stored {
            Ok(receipt) => {
                self.weakest = self.weakest.min(receipt.durability);
                Ok(receipt)
            }
            Err(StoreError::Source { source }) => {
                Err(self.fault(at, "read", Errno::from_raw(source.raw_os_error().unwrap_or(0))))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn manifest(
        &mut self,
        entries: Vec<Entry>,
        above: &[Folder],
        name: &CStr,
    ) -> Result<TreeDigest, IngestError> {
        let encoded = Manifest::new(entries).and_then(|manifest| manifest.encode());
        let bytes = encoded.map_err(|error| match error {
            ManifestError::Canon(_) => {
                IngestError::ManifestTooLarge { path: trail(above, name), limit: MAX_MANIFEST_BYTES as u64 }
            }
            // Two readings of one folder cannot give a name twice; a changing folder can.
            _ => IngestError::Changed { path: trail(above, name) },
        })?;
        let wish = self.next_wish();
        let receipt = self.store.put_bytes(&bytes, wish)?;
        self.weakest = self.weakest.min(receipt.durability);
        Ok(TreeDigest::from_bytes(*receipt.digest.as_bytes()))
    }

    /// Few objects are synced singly; of many, one sync of the file system is cheaper.
    const fn next_wish(&mut self) -> Durability {
        match (self.wish, self.sync_singly) {
            (Durability::Volatile, _) => Durability::Volatile,
            (Durability::Strict, 0) => {
                self.sync_at_end = true;
                Durability::Volatile
            }
            (Durability::Strict, _) => {
                self.sync_singly -= 1;
                Durability::Strict
            }
        }
    }

    fn finish(&mut self, digest: TreeDigest) -> Result<Ingested, IngestError> {
        if self.sync_at_end {
            self.store.sync()?;
            self.weakest = Durability::Strict;
        }
        let content = OutputContent::Tree { digest, bytes: self.bytes, entries: self.entries };
        Ok(Ingested { content, durability: self.weakest })
    }

    // --- faults of the tree

    fn path(&self, at: Option<&str>) -> String {
        match at {
            Some(below) if !below.is_empty() => format!("{}/{below}", self.top),
            _ => self.top.to_owned(),
        }
    }

    fn fault(&self, at: Option<&str>, step: &'static str, errno: Errno) -> IngestError {
        let path = self.path(at);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR if at.is_none() => IngestError::Absent { path },
            Errno::ENOENT | Errno::ENOTDIR => IngestError::Changed { path },
            Errno::ELOOP => IngestError::Link { path },
            Errno::EXDEV => IngestError::OtherFileSystem { path },
            Errno::EACCES | Errno::EPERM => IngestError::Unreadable { path },
            source => IngestError::Io { path, step, source },
        }
    }

    fn special(&self, at: Option<&str>, kind: SFlag) -> IngestError {
        let path = self.path(at);
        match kind {
            SFlag::S_IFLNK => IngestError::Link { path },
            SFlag::S_IFIFO => IngestError::Special { path, kind: "FIFO" },
            SFlag::S_IFSOCK => IngestError::Special { path, kind: "socket" },
            _ => IngestError::Special { path, kind: "device" },
        }
    }

    fn changed(&self, at: Option<&str>) -> IngestError {
        IngestError::Changed { path: self.path(at) }
    }
}

/// Whether two looks saw the same file in the same state.
const fn same(one: &FileStat, other: &FileStat) -> bool {
    one.st_dev == other.st_dev
        && one.st_ino == other.st_ino
        && one.st_size == other.st_size
        && one.st_mtime == other.st_mtime
        && one.st_mtime_nsec == other.st_mtime_nsec
        && one.st_ctime == other.st_ctime
        && one.st_ctime_nsec == other.st_ctime_nsec
}

/// The path of an entry below the top, in the spelling of manifests.
fn trail(stack: &[Folder], name: &CStr) -> String {
    let above = stack.iter().skip(1).map(|folder| folder.name.as_c_str());
    let parts: Vec<String> = above.chain([name]).map(|part| escape(part.to_bytes())).collect();
    parts.join("/")
}
