//! Opening a store and its tenants; the folders and who may change them.
//!
//! Flow of [`Store::open`]: make the folder → lock it → check or write `format` → remove what dead processes left →
//! begin a session → unlock. After that no lock is held: putting is safe by itself (see [`crate::put`]); only taking
//! an object's name away from it (replacement, quarantine) takes the tenant's lock.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use requiem_model::digest::BlobDigest;

use crate::durable::SyncState;
use crate::error::{At, StoreError};
use crate::materialise::Stamps;
use crate::session::{Session, check_folder, make_folder};
use crate::tenant::Tenant;

/// Content of the file `format`. Any other content is refused.
pub const FORMAT: &str = "requiem-store/1\n";

/// Most digests that a process remembers as good; beyond it forgets and verifies anew.
const MAX_KNOWN: usize = 1 << 16;

/// An open store. Clones share everything; the session ends with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    tenants: Arc<Mutex<HashMap<Tenant, TenantStore>>>,
}

/// The objects of one tenant. Clones share everything. All calls block on the disk.
#[derive(Debug, Clone)]
pub struct TenantStore {
    pub(crate) inner: Arc<TenantInner>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    /// Open since the store is, so that the kernel reports every write-back error since then to `syncfs`.
    pub(crate) root_fd: File,
    pub(crate) session: Session,
    pub(crate) sync: SyncState,
}

#[derive(Debug)]
pub(crate) struct TenantInner {
    pub(crate) folder: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) known: Known,
    pub(crate) stamps: Stamps,
    /// Set once the folders above the objects were synced by this process.
    pub(crate) ancestors: OnceLock<()>,
}

/// Objects that this process wrote or verified. Bound to the inode: what another process put in its place is unknown.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<BlobDigest, Good>>);

#[derive(Debug, Clone, Copy)]
struct Good {
    inode: u64,
    synced: bool,
}

// === impl Store ===

impl Store {
    /// Opens the store in `root`, making it if the folder is absent or empty.
    ///
    /// # Errors
    /// [`StoreError::Format`] for a folder that is something else or of another format version.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        make_root(root)?;
        let root_fd = File::open(root).at("open", root)?;
        // A lock of its own open file, released when it is closed at the end of this function.
        let guard = File::open(root).at("open", root)?;
        guard.lock().at("lock", root)?;
        check_format(root)?;
        make_folder(&root.join("tenants"))?;
        let session = Session::begin(&root.join("tmp"))?;
        let sync = SyncState::default();
        let shared = Arc::new(Shared { root: root.to_owned(), root_fd, session, sync });
        Ok(Self { shared, tenants: Arc::default() })
    }

    /// As [`Store::open`] for a store that must be there already.
    ///
    /// # Errors
    /// [`StoreError::NoStore`]; else as [`Store::open`].
    pub fn open_existing(root: &Path) -> Result<Self, StoreError> {
        check_existing(root)?;
        Self::open(root)
    }

    /// The objects of `tenant`, whose folder is made on first use.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn tenant(&self, tenant: &Tenant) -> Result<TenantStore, StoreError> {
        let mut tenants = locked(&self.tenants);
        if let Some(open) = tenants.get(tenant) {
            return Ok(open.clone());
        }
        let folder = self.shared.root.join("tenants").join(tenant.as_str());
        if folder.symlink_metadata().is_ok() {
            check_folder(&folder)?;
        } else {
            make_tenant(&self.shared.session, &folder)?;
        }
        let inner = TenantInner {
            folder,
            shared: Arc::clone(&self.shared),
            known: Known::default(),
            stamps: Stamps::default(),
            ancestors: OnceLock::new(),
        };
        let open = TenantStore { inner: Arc::new(inner) };
        tenants.insert(tenant.clone(), open.clone());
        Ok(open)
    }

    /// Makes everything durable that was put before this call, whatever its receipt said, in all tenants.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`], now and from then on.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.shared.sync.file_system(&self.shared.root_fd, &self.shared.root)
    }
}

// === impl TenantStore ===

impl TenantStore {
    /// As [`Store::sync`].
    ///
    /// # Errors
    /// As [`Store::sync`].
    pub fn sync(&self) -> Result<(), StoreError> {
        let shared = &self.inner.shared;
        shared.sync.file_system(&shared.root_fd, &shared.root)
    }

    /// The folder that holds the object's name.
    pub(crate) fn fan_out(&self, digest: &BlobDigest) -> PathBuf {
        let mut path = self.inner.folder.join("objects");
        path.push(&digest.to_hex()[..2]);
        path
    }

    /// Locks out other processes and threads that would take a name away from an object. Closing the file unlocks.
    pub(crate) fn lock_names(&self) -> Result<File, StoreError> {
        let path = self.inner.folder.join("lock");
        let lock = File::open(&path).at("open", &path)?;
        lock.lock().at("lock", &path)?;
        Ok(lock)
    }

    /// Moves `path` to the quarantine if it is still the inode that was found bad: between the finding and this call
    /// somebody may have put a good object in its place. Says whether there was something to move.
    pub(crate) fn move_aside(&self, path: &Path, inode: u64) -> Result<bool, StoreError> {
        let _lock = self.lock_names()?;
        self.move_aside_locked(path, inode)
    }

    /// [`TenantStore::move_aside`] for a caller that holds the lock.
    pub(crate) fn move_aside_locked(&self, path: &Path, inode: u64) -> Result<bool, StoreError> {
        match path.symlink_metadata() {
            Ok(meta) if meta.ino() == inode => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).at("examine", path),
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let target = self.inner.folder.join("quarantine").join(format!("{name}.{inode}"));
        fs::rename(path, &target).at("move to the quarantine", path)?;
        tracing::error!(path = %path.display(), quarantine = %target.display(), "corrupt: moved to the quarantine");
        Ok(true)
    }

    /// Syncs, once per process, the folders that lead to the objects: whoever made them may not have.
    pub(crate) fn sync_ancestors(&self) -> Result<(), StoreError> {
        if self.inner.ancestors.get().is_some() {
            return Ok(());
        }
        let shared = &self.inner.shared;
        for folder in [&self.inner.folder.join("objects"), &self.inner.folder, &shared.root.join("tenants")] {
            shared.sync.folder(folder)?;
        }
        shared.sync.folder(&shared.root)?;
        // Two threads may both have synced: once too often does no harm.
        self.inner.ancestors.get_or_init(|| ());
        Ok(())
    }
}

// === impl Known ===

impl Known {
    /// Whether the object in `inode` is known to be good, and if so whether this process synced it.
    pub(crate) fn get(&self, digest: &BlobDigest, inode: u64) -> Option<bool> {
        let good = locked(&self.0).get(digest).copied();
        good.filter(|good| good.inode == inode).map(|good| good.synced)
    }

    /// Whether this process synced the object, if it still is in the same inode.
    pub(crate) fn may_be_synced(&self, digest: &BlobDigest) -> bool {
        locked(&self.0).get(digest).is_some_and(|good| good.synced)
    }

    /// Remembers a good object. What was synced stays synced.
    pub(crate) fn insert(&self, digest: BlobDigest, inode: u64, synced: bool) {
        let mut known = locked(&self.0);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        let before = known.get(&digest).is_some_and(|good| good.inode == inode && good.synced);
        known.insert(digest, Good { inode, synced: synced || before });
    }

    /// Forgets an object that turned out bad or absent.
    pub(crate) fn remove(&self, digest: &BlobDigest) {
        locked(&self.0).remove(digest);
    }
}

/// None of our locks guards an invariant that a panic could break halfway.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_root(root: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> = root.ancestors().take_while(|folder| !is_folder(folder)).collect();
    for folder in missing.into_iter().rev() {
        make_folder(folder)?;
        let parent = parent_of(folder);
        File::open(parent).and_then(|parent| parent.sync_all()).at("sync", parent)?;
    }
    Ok(())
}

/// The empty path, parent of a relative name, is the working directory.
fn is_folder(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.is_dir()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A store is a folder with a file `format`; whether it is of this format is found out when it is opened.
pub(crate) fn check_existing(root: &Path) -> Result<(), StoreError> {
    match root.join("format").symlink_metadata() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(StoreError::NoStore { path: root.to_owned() })
        }
        other => other.map(drop).at("examine", &root.join("format")),
    }
}

/// The caller holds the root's lock.
pub(crate) fn check_format(root: &Path) -> Result<(), StoreError> {
    let path = root.join("format");
    match fs::read_to_string(&path) {
        Ok(found) if found == FORMAT => Ok(()),
        Ok(found) => {
            let found: String = found.chars().take(40).collect();
            let why = format!("its format is {found:?}, this version knows {FORMAT:?}");
            Err(StoreError::Format { path: root.to_owned(), why })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_format(root, &path),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(StoreError::Format { path: root.to_owned(), why: "its format file is not text".to_owned() })
        }
        Err(error) => Err(error).at("read", &path),
    }
}

/// Only an empty folder becomes a store; `lost+found` is what a fresh volume holds, `format.new` what an interrupted
/// first open leaves.
fn write_format(root: &Path, path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(root).at("list", root)? {
        let name = entry.at("list", root)?.file_name();
        if name != "lost+found" && name != "format.new" {
            let why = format!("it has no format file, yet holds {}", name.to_string_lossy());
            return Err(StoreError::Format { path: root.to_owned(), why });
        }
    }
    let new = root.join("format.new");
    fs::write(&new, FORMAT).at("write", &new)?;
    File::open(&new).and_then(|file| file.sync_all()).at("sync", &new)?;
    fs::rename(&new, path).at("rename", &new)?;
    File::open(root).and_then(|folder| folder.sync_all()).at("sync", root)
}

/// Made aside and renamed into place, so that a tenant's folder is complete or absent. Fan-out folders are made here
/// and not later, so that syncing one folder suffices to make a name durable.
fn make_tenant(session: &Session, folder: &Path) -> Result<(), StoreError> {
    let temp = session.folder()?;
    let make = |name: &str| make_folder(&temp.path.join(name));
    for name in ["objects", "quarantine", "materialised", "materialised/blobs", "materialised/trees"] {
        make(name)?;
    }
    for byte in 0..=u8::MAX {
        make(&format!("objects/{byte:02x}"))?;
    }
    let lock = temp.path.join("lock");
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock).at("make", &lock)?;
    match fs::rename(&temp.path, folder) {
        // Another process was faster; ours goes away with `temp`.
        Err(_) if folder.is_dir() => Ok(()),
        other => other.at("rename", &temp.path),
    }
}
