//! What can go wrong in the store, with stable codes and the next step for each.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use requiem_model::FailureReason;
use requiem_model::digest::BlobDigest;

use crate::tree::ManifestError;

/// Why the store could not do what it was asked. [`StoreError::code`] is stable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space, no inodes or no quota left. Nothing of the object was kept.
    #[error("the store is full: cannot {step} {}: {source}", path.display())]
    Full {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The store does not hold this object.
    #[error("{digest} is not in the store")]
    NotFound {
        /// What was looked for.
        digest: BlobDigest,
    },
    /// The stored bytes do not have their digest. They are moved to the quarantine and never served.
    #[error("object {digest} is corrupt: {why}")]
    Corrupt {
        /// What was looked for.
        digest: BlobDigest,
        /// How it showed, and what became of the bytes.
        why: String,
    },
    /// The object is larger than the caller allows.
    #[error("{digest} has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What was looked for.
        digest: BlobDigest,
        /// Its size.
        bytes: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// The digest names an object that is not a folder manifest of this format.
    #[error("{digest} is not a folder manifest: {source}")]
    Manifest {
        /// The object.
        digest: BlobDigest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A tree goes beyond the bounds of what is materialised.
    #[error("tree {digest} has more than {limit} {what}")]
    TreeBounds {
        /// Root of the tree.
        digest: BlobDigest,
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A sync failed, now or before. The kernel may have dropped data, so nothing durable can be promised any more.
    #[error("the store takes no more writes since a sync failed: {why}")]
    SyncFailed {
        /// The first failure.
        why: String,
    },
    /// The folder is not a store, or one of another format.
    #[error("{} is not a store of this format: {why}", path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A tenant name is outside its grammar.
    #[error("tenant {0:?} is not a lower-case DNS label of at most 63 characters")]
    Tenant(String),
    /// The data to be put could not be read.
    #[error("the data to store cannot be read: {source}")]
    Source {
        /// The reader's error.
        source: io::Error,
    },
    /// There is no store where one is to be looked at.
    #[error("there is no store at {}", path.display())]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// Other processes use the store, or one is collecting its garbage.
    #[error("the store at {} is in use by {by}", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// By whom, as far as is known.
        by: String,
    },
    /// Something lies in the store's folders that the store did not put there.
    #[error("{} {why}", path.display())]
    Stray {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A pin cannot be read.
    #[error("{} is not a pin: {why}", path.display())]
    Pin {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The name of a pin is outside its rules.
    #[error("pin name {0:?} is not one line of 1 to 200 bytes")]
    PinName(String),
    /// Writing went on after an error.
    #[error("the object was abandoned when an earlier write of it failed")]
    Abandoned,
    /// Anything else that the file system refuses.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Why a path could not be collected. Where [`IngestError::is_fault_of_output`] says so, the text depends on the
/// collected tree alone, because it becomes part of a result that re-runs must reproduce. [`IngestError::code`] is
/// stable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// There is nothing at the path.
    #[error("{path}: absent")]
    Absent {
        /// Path as given.
        path: String,
    },
    /// The path itself, or a folder on the way to it, is a symbolic link. Links are never followed.
    #[error("{path}: is or leads through a symbolic link")]
    Link {
        /// Path as given.
        path: String,
    },
    /// A device, socket or FIFO.
    #[error("{path}: is a {kind}")]
    Special {
        /// The entry.
        path: String,
        /// `device`, `socket` or `FIFO`.
        kind: &'static str,
    },
    /// Another file system is mounted there.
    #[error("{path}: is on another file system")]
    OtherFileSystem {
        /// The entry.
        path: String,
    },
    /// Permissions forbid reading it.
    #[error("{path}: permissions forbid reading it")]
    Unreadable {
        /// The entry.
        path: String,
    },
    /// More entries than allowed.
    #[error("{path}: more than {limit} entries")]
    TooManyEntries {
        /// Path as given.
        path: String,
        /// The bound.
        limit: u64,
    },
    /// Folders are nested too deeply.
    #[error("{path}: more than {limit} folders deep")]
    TooDeep {
        /// Path as given.
        path: String,
        /// The bound.
        limit: u64,
    },
    /// More bytes than allowed.
    #[error("{path}: more than {limit} bytes")]
    TooManyBytes {
        /// Path as given.
        path: String,
        /// The bound.
        limit: u64,
    },
    /// The manifest of one folder would be larger than a reader accepts.
    #[error("{path}: the folder's manifest would exceed {limit} bytes")]
    ManifestTooLarge {
        /// The folder.
        path: String,
        /// The bound.
        limit: u64,
    },
    /// The entry changed while it was read.
    #[error("{path}: changed while it was read")]
    Changed {
        /// The entry.
        path: String,
    },
    /// Anything else that the kernel refuses: no descriptors left, an unreadable disk.
    #[error("{path}: cannot {step}: {source}")]
    Io {
        /// The entry.
        path: String,
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The store could not keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Attaches step and path to an input/output error.
pub(crate) trait At<T> {
    /// Turns the error into a [`StoreError`]; running out of space becomes [`StoreError::Full`].
    fn at(self, step: &'static str, path: &Path) -> Result<T, StoreError>;
}

// === impl StoreError ===

impl StoreError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "StoreFull",
            Self::NotFound { .. } => "NotFound",
            Self::Corrupt { .. } => "Corrupt",
            Self::TooLarge { .. } => "TooLarge",
            Self::Manifest { .. } => "BadManifest",
            Self::TreeBounds { .. } => "TreeBounds",
            Self::SyncFailed { .. } => "SyncFailed",
            Self::Format { .. } => "UnknownFormat",
            Self::Tenant(_) => "BadTenant",
            Self::Source { .. } => "SourceUnreadable",
            Self::NoStore { .. } => "NoStore",
            Self::InUse { .. } => "StoreInUse",
            Self::Stray { .. } => "UnknownEntry",
            Self::Pin { .. } => "BadPin",
            Self::PinName(_) => "BadPinName",
            Self::Abandoned => "Abandoned",
            Self::Io { .. } => "StoreIo",
        }
    }

    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Full { .. } => {
                "make room on the store's file system (see df and df -i), raise the quota, or use another folder"
            }
            Self::NotFound { .. } => "put the object into this tenant of the store first",
            Self::Corrupt { .. } => {
                "put the object again; check the disk; see quarantine/ in the tenant's folder"
            }
            Self::TooLarge { .. } => "read it as a stream or raise the limit",
            Self::Manifest { .. } => "give the digest of a tree that this store made",
            Self::TreeBounds { .. } => "split the tree, or pack it into one archive",
            Self::SyncFailed { .. } => "check the disk and the kernel log, then restart the process",
            Self::Format { .. } => "name an empty folder, or a store made by this version",
            Self::Tenant(_) => "use the name of a Kubernetes namespace, or \"default\"",
            Self::Source { .. } => "check the file or pipe that the data comes from",
            Self::NoStore { .. } => "name the folder of a store with --cas DIR",
            Self::InUse { .. } => {
                "stop the executors (scale their pool to 0) and commands that use it, then try again"
            }
            Self::Stray { .. } => "see what it is, and move it out of the store's folder",
            Self::Pin { .. } => "see what it is, move it out of the store's folder, and pin the object again",
            Self::PinName(_) => "give a shorter name without control characters",
            Self::Abandoned => "see the error of the earlier write",
            Self::Io { .. } => {
                "check that the folder is a writable local file system with hard links and flock"
            }
        }
    }

    /// The reason that a failed attempt carries for this error.
    pub const fn failure_reason(&self) -> FailureReason {
        match self {
            Self::Full { .. } => FailureReason::StoreFull,
            Self::NotFound { .. } => FailureReason::InputMissing,
            Self::Corrupt { .. } => FailureReason::InputCorrupt,
            Self::Manifest { .. } | Self::TreeBounds { .. } | Self::TooLarge { .. } => {
                FailureReason::InvalidRequest
            }
            _ => FailureReason::StoreError,
        }
    }

    /// The store's error inside an error of [`std::io::Write`] or [`std::io::Read`], if it is one.
    pub(crate) fn from_stream(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(source) => Self::Source { source },
        }
    }

    /// For the traits of [`std::io`]; [`StoreError::from_stream`] is the way back.
    pub(crate) fn into_stream(self) -> io::Error {
        let kind = match &self {
            Self::Full { .. } => io::ErrorKind::StorageFull,
            Self::Corrupt { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

impl IngestError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "Absent",
            Self::Link { .. } => "Link",
            Self::Special { .. } => "Special",
            Self::OtherFileSystem { .. } => "OtherFileSystem",
            Self::Unreadable { .. } => "Unreadable",
            Self::TooManyEntries { .. } => "TooManyEntries",
            Self::TooDeep { .. } => "TooDeep",
            Self::TooManyBytes { .. } => "TooManyBytes",
            Self::ManifestTooLarge { .. } => "ManifestTooLarge",
            Self::Changed { .. } => "Changed",
            Self::Io { .. } => "IngestIo",
            Self::Store(error) => error.code(),
        }
    }

    /// Whether the collected tree is at fault, not the store or the host: the output is then missing, but the run has
    /// a result that every re-run reproduces.
    pub const fn is_fault_of_output(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Io { .. })
    }
}

// === impl At ===

impl<T> At<T> for io::Result<T> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| {
            let path = path.to_owned();
            if is_full(&source) {
                StoreError::Full { step, path, source }
            } else {
                StoreError::Io { step, path, source }
            }
        })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(io::Error::from).at(step, path)
    }
}

/// Space, inodes and quota all mean the same to the caller.
pub(crate) fn is_full(error: &io::Error) -> bool {
    [Errno::ENOSPC, Errno::EDQUOT].into_iter().any(|full| error.raw_os_error() == Some(full as i32))
}
