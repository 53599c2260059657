//! The journal: what the executor promised, in one append-only file that survives its death.
//!
//! Flow: `append(Started)` → run → `append_durable(Sealed | Failed)` → the state is shown to others →
//! `append(Acked)` → some later compaction leaves the attempt out.
//!
//! - A durable append returns after one fdatasync that covers it. One thread syncs; everybody whose
//!   record was written before a sync began is released by it (group commit).
//! - A failed fdatasync is final: the kernel may have dropped the pages, so nothing is promised any more
//!   until the file is opened and read again. A full disk is not final: the half-written record is cut off.
//! - `Started` is not synced. If a power failure takes it, the run is gone with it, and the attempt is
//!   unknown rather than lost: asked again, it runs for the first time as far as anybody can tell. A killed
//!   process takes nothing: what was written stays in the page cache.
//!
//! Format: `docs/format/journal.md`.

mod file;
mod frame;
mod record;
mod replay;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

use requiem_model::CanonError;

pub use file::{Found, read_only as read};
pub use record::{Asked, AttemptKey, Content, InlineBlob, Record};
pub use replay::{Logged, Phase, Replay, cancelled, lost};

/// Takes over what a compaction is about to leave out; only then it is left out.
pub type Retire = Box<dyn Fn(&[Logged]) -> Result<(), String> + Send + Sync>;

/// When and what a compaction leaves out.
#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// Acknowledged attempts that stay, newest first.
    pub keep_acked: usize,
    /// Size below which a running journal is not compacted.
    pub compact_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { keep_acked: 1024, compact_bytes: 64 << 20 }
    }
}

/// Why the journal did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Another executor uses the store.
    #[error("{} is locked: another executor uses this store", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file is not a journal of this version.
    #[error("{} is not a journal of this version, or its header is damaged", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// An authentic record cannot be understood: a newer executor wrote it.
    #[error("{} holds a record that this version cannot read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CanonError,
    },
    /// The disk is full; what was there before is intact.
    #[error("the journal's disk is full: {source}")]
    Full {
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// Operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
    /// An earlier sync failed; nothing can be promised until the journal is opened anew.
    #[error("the journal stopped after a failed write or sync: {why}")]
    Stopped {
        /// The first failure.
        why: String,
    },
    /// The record has no canonical form or is too large.
    #[error("the record cannot be written: {0}")]
    Encode(#[from] CanonError),
    /// What a compaction would leave out could not be kept elsewhere.
    #[error("finished attempts could not be archived: {0}")]
    Archive(String),
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub struct JournalStats {
    /// Syncs done.
    pub fsyncs: AtomicU64,
    /// Length of the file.
    pub bytes: AtomicU64,
}

/// The open journal of one store.
pub struct Journal {
    shared: Arc<Shared>,
    syncer: Mutex<Option<JoinHandle<()>>>,
    // The lock lasts as long as its descriptor.
    _lock: File,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Somebody waits for a sync.
    work: Condvar,
    /// A sync ended.
    done: Condvar,
    stats: JournalStats,
    /// The first failure after which nothing is promised. Beside the lock: who only asks never waits for a compaction.
    stopped: OnceLock<String>,
    dir: PathBuf,
    options: JournalOptions,
    retire: Retire,
}

struct Inner {
    file: Arc<File>,
    seed: frame::Seed,
    len: u64,
    /// Records written, wanted durable, and durable, counted since the open.
    written: u64,
    wanted: u64,
    synced: u64,
    compact_at: u64,
    closing: bool,
}

impl Journal {
    /// Opens or creates the journal below `dir`, writes the missing ends of attempts that a dead executor
    /// left behind, and gives back every attempt it knows.
    ///
    /// # Errors
    /// The store is in use, the file is not ours, or the disk fails.
    pub fn open(dir: &Path, options: JournalOptions, retire: Retire) -> Result<(Self, Replay), JournalError> {
        let lock = file::lock(dir)?;
        let (opened, replay) = file::open(dir, &options, &retire)?;
        let inner = Inner {
            len: opened.len,
            seed: opened.seed,
            file: Arc::new(opened.file),
            written: 0,
            wanted: 0,
            synced: 0,
            compact_at: compact_at(&options, opened.len),
            closing: false,
        };
        let stats = JournalStats::default();
        stats.bytes.store(opened.len, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            done: Condvar::new(),
            stats,
            stopped: OnceLock::new(),
            dir: dir.to_owned(),
            options,
            retire,
        });
        let syncer = {
            let shared = Arc::clone(&shared);
            let spawned =
                thread::Builder::new().name("journal-sync".into()).spawn(move || shared.sync_loop());
            spawned.map_err(|error| io_error("start the sync thread for", dir, error))?
        };
        Ok((Self { shared, syncer: Mutex::new(Some(syncer)), _lock: lock }, replay))
    }

    /// Writes `record`. It survives the death of this process, not a power failure.
    ///
    /// # Errors
    /// The disk is full, or the journal has stopped.
    pub fn append(&self, record: &Record) -> Result<(), JournalError> {
        self.shared.write(record).map(|_sequence| ())
    }

    /// Writes `record` and returns when it is on stable storage.
    ///
    /// # Errors
    /// The disk is full, or the journal has stopped. The record must then be taken as not written.
    pub fn append_durable(&self, record: &Record) -> Result<(), JournalError> {
        let sequence = self.shared.write(record)?;
        self.shared.wait_durable(sequence)
    }

    /// Why the journal takes no more records, if that is so.
    pub fn stopped(&self) -> Option<String> {
        self.shared.stopped.get().cloned()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> &JournalStats {
        &self.shared.stats
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        let syncer = self.syncer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_panic)) = syncer.map(JoinHandle::join) {
            tracing::error!("the journal's sync thread panicked");
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), JournalError> {
        self.stopped.get().map_or(Ok(()), |why| Err(JournalError::Stopped { why: why.clone() }))
    }

    /// Promises nothing from now on. Called with the lock held, so that nobody begins to wait in between.
    fn stop(&self, why: String) {
        let first = self.stopped.get_or_init(|| why);
        tracing::error!(why = first, "the journal stopped; restart the executor");
        self.done.notify_all();
    }

    fn write(&self, record: &Record) -> Result<u64, JournalError> {
        let payload = record.encode()?;
        let mut inner = self.lock();
        self.check()?;
        let bytes = frame::frame(&inner.seed, inner.len, &payload);
        if let Err(error) = inner.file.write_all_at(&bytes, inner.len) {
            return Err(self.undo(&mut inner, error));
        }
        inner.len += bytes.len() as u64;
        inner.written += 1;
        self.stats.bytes.store(inner.len, Ordering::Relaxed);
        Ok(inner.written)
    }

    /// Cuts off what was written of a frame that is not to be. If all of it got there, nobody may find it later.
    fn undo(&self, inner: &mut Inner, error: io::Error) -> JournalError {
        if let Err(cut) = inner.file.set_len(inner.len) {
            self.stop(format!("{error}, and then {cut}"));
        }
        io_error("write", &self.dir.join(file::NAME), error)
    }

    fn wait_durable(&self, sequence: u64) -> Result<(), JournalError> {
        let mut inner = self.lock();
        inner.wanted = inner.wanted.max(sequence);
        self.work.notify_one();
        while inner.synced < sequence {
            self.check()?;
            inner = self.done.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Body of the sync thread: one fdatasync per round, until the journal is closed.
    fn sync_loop(&self) {
        let mut inner = self.lock();
        loop {
            while inner.wanted <= inner.synced && !inner.closing {
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            if self.stopped.get().is_some() || (inner.closing && inner.written <= inner.synced) {
                return;
            }
            inner = self.sync_round(inner);
            if self.stopped.get().is_none() && inner.len > inner.compact_at {
                self.compact(&mut inner);
            }
        }
    }

    fn sync_round<'a>(&'a self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let (file, covered) = (Arc::clone(&inner.file), inner.written);
        drop(inner);
        let synced = file.sync_data();
        self.stats.fsyncs.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        match synced {
            Ok(()) => inner.synced = inner.synced.max(covered),
            Err(error) => self.stop(format!("fdatasync: {error}")),
        }
        self.done.notify_all();
        inner
    }

    /// Rewrites the file without what is retired. A failure leaves the old file in use, and the next try
    /// waits until it has doubled again.
    fn compact(&self, inner: &mut Inner) {
        match file::compact(&self.dir, &self.options, &self.retire) {
            Ok(opened) => {
                inner.file = Arc::new(opened.file);
                (inner.seed, inner.len) = (opened.seed, opened.len);
                inner.synced = inner.written;
                self.done.notify_all();
            }
            Err(error) => tracing::warn!(%error, "the journal was not compacted"),
        }
        inner.compact_at = compact_at(&self.options, inner.len);
        self.stats.bytes.store(inner.len, Ordering::Relaxed);
    }
}

/// Twice what is left after a compaction, so that the work is in proportion to what was appended.
fn compact_at(options: &JournalOptions, len: u64) -> u64 {
    options.compact_bytes.max(len.saturating_mul(2))
}

pub(crate) fn io_error(what: &'static str, path: &Path, error: io::Error) -> JournalError {
    let source = Arc::new(error);
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        JournalError::Full { source }
    } else {
        JournalError::Io { what, path: path.to_owned(), source }
    }
}
