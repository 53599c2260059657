//! Having a store to oneself.
//!
//! Every process that has a store open holds the lock of its own folder in `tmp/` for as long, and takes the lock of the root while it
//! opens. Who holds the root's lock and finds no living folder in `tmp/` is therefore alone, and stays alone until it lets go: others
//! wait in [`Store::open`](crate::Store::open). This needs no lock that an older version would not know of.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::{At, StoreError};
use crate::session::{self, Session};
use crate::shelves::Shelves;
use crate::store::{check_existing, check_format};

/// How often and how long apart a lock is asked for: others hold it for as long as it takes to open a store, or are just ending.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A store that nobody else has open.
#[derive(Debug)]
pub struct Exclusive {
    pub(crate) path: PathBuf,
    pub(crate) session: Session,
    pub(crate) shelves: Shelves,
    /// Held, never read: dropped last, when this process's folder is gone.
    _root: File,
}

// === impl Exclusive ===

impl Exclusive {
    /// Takes the store at `root`, which must exist.
    ///
    /// # Errors
    /// [`StoreError::NoStore`], [`StoreError::InUse`], [`StoreError::Format`].
    pub fn take(root: &Path) -> Result<Self, StoreError> {
        check_existing(root)?;
        let lock = lock(root)?;
        check_format(root)?;
        let tmp = root.join("tmp");
        match session::living(&tmp)? {
            0 => {}
            one @ 1 => return Err(in_use(root, format!("{one} other process"))),
            more => return Err(in_use(root, format!("{more} other processes"))),
        }
        let session = Session::begin(&tmp)?;
        let shelves = Shelves::open(root)?;
        Ok(Self { path: root.to_owned(), session, shelves, _root: lock })
    }

    /// The store's folders.
    pub const fn shelves(&self) -> &Shelves {
        &self.shelves
    }
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let file = File::open(root).at("open", root)?;
    if lock_soon(&file).at("lock", root)? {
        return Ok(file);
    }
    Err(in_use(root, "another process that opens it or collects its garbage".to_owned()))
}

/// Takes the exclusive lock of an open file, if whoever has it lets go within a second; says whether it did.
///
/// # Errors
/// The file system knows no locks.
pub fn lock_soon(file: &File) -> io::Result<bool> {
    for last in (0..LOCK_TRIES).rev() {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            // A lock cannot be waited for with a limit, so this asks again.
            Err(TryLockError::WouldBlock) if last > 0 => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

fn in_use(path: &Path, by: String) -> StoreError {
    StoreError::InUse { path: path.to_owned(), by }
}
