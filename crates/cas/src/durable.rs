//! Durability: what was asked for, what was reached, and the memory of a sync that failed.
//!
//! After a failed `fsync` Linux may mark the lost pages clean, so a second `fsync` succeeds although the data is gone.
//! The store therefore remembers the first failure for the life of the process; every later write is refused.
//! Restarting the process is safe: the store trusts no object that the new process has not verified.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use requiem_model::digest::BlobDigest;

use crate::error::{At, StoreError};

/// What survives what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Survives the end of the process, not a power failure.
    Volatile,
    /// Content, name and folders were synced: survives a power failure, as far as the disk tells the truth.
    Strict,
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Digest of the bytes.
    pub digest: BlobDigest,
    /// How many bytes.
    pub bytes: u64,
    /// What was reached, never more than was synced; may exceed the wish when the object was known to be synced.
    pub durability: Durability,
    /// Whether the store kept an object that it had, instead of new bytes.
    pub deduplicated: bool,
}

/// The first failed sync, if there was one.
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    failed: OnceLock<String>,
}

// === impl Durability ===

impl Durability {
    /// The name that documents and bundles use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::Strict => "strict",
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.as_str())
    }
}

// === impl SyncState ===

impl SyncState {
    /// Refuses when a sync has failed before.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(why) => Err(StoreError::SyncFailed { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Syncs the content of a file that nobody sees yet. Out of space (delayed allocation, network file systems) is
    /// no reason to distrust the rest of the store: the file is dropped, the error is `Full`.
    pub(crate) fn content(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        match file.sync_data().at("sync", path) {
            Err(StoreError::Io { source, .. }) => Err(self.fail(&format!("{}: {source}", path.display()))),
            other => other,
        }
    }

    /// Syncs the names in a folder.
    pub(crate) fn folder(&self, path: &Path) -> Result<(), StoreError> {
        let folder = File::open(path).at("open", path)?;
        folder.sync_all().map_err(|error| self.fail(&format!("{}: {error}", path.display())))
    }

    /// Syncs the whole file system of `root`. The descriptor must have been open since the store was: the kernel
    /// reports to it every write-back error since then (Linux 5.8 and later).
    pub(crate) fn file_system(&self, root: &impl AsFd, path: &Path) -> Result<(), StoreError> {
        self.check()?;
        nix::unistd::syncfs(root.as_fd()).map_err(|error| self.fail(&format!("{}: {error}", path.display())))
    }

    fn fail(&self, why: &str) -> StoreError {
        let first = self.failed.get_or_init(|| why.to_owned());
        tracing::error!(why = %first, "a sync failed: the store takes no more writes");
        StoreError::SyncFailed { why: first.clone() }
    }
}
