//! Every attempt this executor knows, keyed by (UID, attempt), and the only way its state changes.
//!
//! Flow: `start` (admission, table, queue) → a worker takes the [`Job`] → `begin` (journal: started) →
//! `finish` (journal: sealed or failed, synced; only then anybody sees the end) → `acknowledge`.
//! The journal is written before the state that it backs is shown.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use requiem_model::attempt::{AttemptState, SealedAttempt, StartAttempt};
use requiem_model::result::FailureReason;
use requiem_model::{BundleRoot, ExecutionRequest, Failure, RequestDigest};
use requiem_sandbox::Cancel;
use tokio::sync::{Notify, watch};

use crate::admission::{Admission, Known, Stage, admit};
use crate::journal::{Asked, AttemptKey, InlineBlob, Journal, JournalError, Record, Replay, cancelled, lost};
use crate::live::Live;
use crate::queue::Queue;

/// One attempt.
pub struct Entry {
    /// Who asked for what.
    pub asked: Asked,
    state: watch::Sender<Arc<AttemptState>>,
    run: Mutex<Run>,
}

/// The run of an attempt. What it holds (a descriptor, the ends of streams) lives no longer than the run.
#[derive(Default)]
struct Run {
    begun: Option<Begun>,
    /// Somebody wants it to end, whether it has begun or not.
    cancel_wanted: bool,
}

/// A run that has begun.
#[derive(Clone)]
pub struct Begun {
    /// Ends it when triggered.
    pub cancel: Cancel,
    /// Shows what it writes.
    pub live: Arc<Live>,
}

/// An attempt that waits for a worker.
pub struct Job {
    /// The attempt.
    pub entry: Arc<Entry>,
    /// What to run.
    pub request: ExecutionRequest,
    /// Texts to be put into the store first.
    pub inline: Vec<String>,
    /// Since when it waits.
    pub queued: Instant,
}

/// How an attempt ended.
pub enum End {
    /// With a result; the streams are those that only the journal makes durable.
    Sealed(Box<SealedAttempt>, Vec<InlineBlob>),
    /// Without one.
    Failed(Failure),
}

/// Why an attempt does not start.
#[derive(Debug, PartialEq, Eq)]
pub enum StartError {
    /// The attempt with this number is about something else.
    Conflict(u32),
    /// The attempt with this number has not ended.
    Busy(u32),
    /// The attempt with this number is later and exists already.
    Superseded(u32),
    /// No slot and no place.
    QueueFull,
    /// The executor ends.
    ShuttingDown,
    /// Nothing can be promised.
    JournalStopped(String),
}

/// Why an attempt was not acknowledged or cancelled.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nobody has heard of it.
    #[error("attempt {0} is not known here")]
    Unknown(AttemptKey),
    /// It has not ended.
    #[error("attempt {0} has not ended")]
    NotFinal(AttemptKey),
    /// The change cannot be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The registry.
pub struct Attempts {
    table: Mutex<Table>,
    queue: Queue<Job>,
    journal: Journal,
    keep_acked: usize,
    /// Runs are being ended because the executor ends.
    abandoned: AtomicBool,
    /// Takes attempts of one Execution only.
    once: bool,
    /// Somebody acknowledged an attempt, or one ended.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    by_uid: BTreeMap<String, BTreeMap<u32, Arc<Entry>>>,
    acked: VecDeque<AttemptKey>,
    draining: bool,
}

// === impl Attempts ===

impl Attempts {
    /// The registry over `journal`, with what it says about earlier attempts. As many acknowledged ones
    /// stay known as the journal keeps.
    pub fn new(journal: Journal, replay: &Replay, queue: usize, keep_acked: usize) -> Self {
        let mut table = Table::default();
        let mut acked: Vec<(u64, &AttemptKey)> = Vec::new();
        for (key, logged) in &replay.attempts {
            table.insert(Entry::new(logged.asked.clone(), logged.state()));
            acked.extend(logged.acked.map(|rank| (rank, key)));
        }
        acked.sort_unstable();
        table.acked = acked.into_iter().map(|(_, key)| key.clone()).collect();
        Self {
            table: Mutex::new(table),
            queue: Queue::new(queue),
            journal,
            keep_acked,
            abandoned: AtomicBool::new(false),
            once: false,
            changed: Notify::new(),
        }
    }

    /// The same for an executor that serves one Execution and then ends.
    #[must_use]
    pub fn once(self, once: bool) -> Self {
        Self { once, ..self }
    }

    /// Starts the attempt, or adopts the one that is known already.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(&self, call: StartAttempt, digest: RequestDigest) -> Result<Arc<Entry>, StartError> {
        let asked = Asked { identity: call.identity, request_digest: digest };
        let mut table = self.lock();
        match admit(&table.known(&asked), asked.identity.attempt) {
            Admission::Adopt(attempt) => {
                let key = AttemptKey { uid: asked.identity.uid, attempt };
                return table.get(&key).ok_or(StartError::Superseded(attempt));
            }
            Admission::Conflict(attempt) => return Err(StartError::Conflict(attempt)),
            Admission::Busy(attempt) => return Err(StartError::Busy(attempt)),
            Admission::Superseded(attempt) => return Err(StartError::Superseded(attempt)),
            Admission::Start if table.draining || (self.once && table.serves_another(&asked)) => {
                return Err(StartError::ShuttingDown);
            }
            Admission::Start => {}
        }
        if let Some(why) = self.journal.stopped() {
            return Err(StartError::JournalStopped(why));
        }
        let key = AttemptKey::of(&asked.identity);
        let entry = table.insert(Entry::new(asked, AttemptState::Queued));
        let (request, inline) = (call.request, call.inline);
        let job = Job { entry: Arc::clone(&entry), request, inline, queued: Instant::now() };
        if self.queue.push(key.clone(), job).is_err() {
            table.remove(&key);
            return Err(StartError::QueueFull);
        }
        Ok(entry)
    }

    /// The attempt with `key`, if it is known.
    pub fn get(&self, key: &AttemptKey) -> Option<Arc<Entry>> {
        self.lock().get(key)
    }

    /// The next attempt to run; `None` when there will be none.
    pub fn next(&self) -> Option<Job> {
        self.queue.pop()
    }

    /// Takes back what [`Self::next`] gave too early. An executor that drains forgets it, like everything that waits.
    pub fn put_back(&self, job: Job) {
        let key = AttemptKey::of(&job.entry.asked.identity);
        if job.entry.lock_run().cancel_wanted {
            // Whoever cancelled it found it in no queue.
            self.finish(&job.entry, End::Failed(cancelled()));
        } else if let Err(job) = self.queue.put_back(key.clone(), job) {
            self.lock().remove(&key);
            drop(job);
        }
    }

    /// Writes down that the attempt runs now, and shows it.
    ///
    /// # Errors
    /// The reason to end it instead.
    pub fn begin(&self, entry: &Entry) -> Result<Begun, Failure> {
        let begun = entry.prepare_run()?;
        let at = requiem_proof::rfc3339_millis(unix_millis());
        self.journal
            .append(&Record::Started { asked: entry.asked.clone(), at })
            .map_err(|error| failure(&error))?;
        entry.show(AttemptState::Running);
        Ok(begun)
    }

    /// Writes the end down, durably, and then shows it. A result that cannot be written down is none.
    pub fn finish(&self, entry: &Entry, end: End) -> Arc<AttemptState> {
        let state = match end {
            End::Sealed(sealed, blobs) => self.write_sealed(entry, sealed, blobs),
            End::Failed(failure) => self.write_failed(entry, failure),
        };
        entry.lock_run().begun = None;
        let state = entry.show(state);
        self.changed.notify_waiters();
        state
    }

    /// Ends a queued or running attempt; leaves an ended one as it is. The wish survives a crash.
    ///
    /// # Errors
    /// An unknown attempt, or a journal that takes nothing.
    pub fn cancel(&self, key: &AttemptKey) -> Result<Arc<AttemptState>, ChangeError> {
        let entry = self.get(key).ok_or_else(|| ChangeError::Unknown(key.clone()))?;
        if entry.state().is_final() {
            return Ok(entry.state());
        }
        if self.queue.remove(key).is_some() {
            entry.lock_run().cancel_wanted = true;
            return Ok(self.finish(&entry, End::Failed(cancelled())));
        }
        let written = self.journal.append_durable(&Record::Cancelled { asked: entry.asked.clone() });
        // A full disk does not keep anybody from ending a run; the caller learns that the wish is not durable.
        let mut run = entry.lock_run();
        run.cancel_wanted = true;
        run.end();
        drop(run);
        written?;
        Ok(entry.state())
    }

    /// Takes note that the end is safe elsewhere.
    ///
    /// # Errors
    /// An unknown attempt, one that has not ended, or a journal that takes nothing.
    pub fn acknowledge(&self, key: &AttemptKey) -> Result<(), ChangeError> {
        let entry = self.get(key).ok_or_else(|| ChangeError::Unknown(key.clone()))?;
        if !entry.state().is_final() {
            return Err(ChangeError::NotFinal(key.clone()));
        }
        if self.lock().acked.contains(key) {
            return Ok(());
        }
        // Without the lock on the table: the disk may be slow. Two records of one acknowledgement mean one.
        self.journal.append(&Record::Acked { key: key.clone() })?;
        let mut table = self.lock();
        if !table.acked.contains(key) {
            table.acked.push_back(key.clone());
        }
        self.changed.notify_waiters();
        if table.acked.len() > self.keep_acked
            && let Some(oldest) = table.acked.pop_front()
        {
            table.remove(&oldest);
        }
        Ok(())
    }

    /// The sealed attempt of `namespace` with this bundle root, if it is still known.
    pub fn sealed_by_root(&self, namespace: &str, root: &BundleRoot) -> Option<Box<SealedAttempt>> {
        let table = self.lock();
        let entries = table.by_uid.values().flat_map(BTreeMap::values);
        entries.filter(|entry| entry.asked.identity.namespace == namespace).find_map(|entry| {
            match entry.state().as_ref() {
                AttemptState::Sealed { sealed } if sealed.bundle_root == *root => Some(sealed.clone()),
                _ => None,
            }
        })
    }

    /// Returns when every known attempt has ended and is acknowledged; for an executor that serves one Execution only
    /// when there was one.
    pub async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no notification is missed.
            changed.as_mut().enable();
            if self.lock().is_settled(self.once) {
                return;
            }
            changed.await;
        }
    }

    /// Whether it takes nothing new any more.
    pub fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// Sealed attempts, the newest of each Execution.
    pub fn results(&self) -> Vec<(AttemptKey, Arc<AttemptState>)> {
        let table = self.lock();
        let newest = table.by_uid.values().filter_map(|attempts| attempts.values().next_back());
        let sealed = newest.filter(|entry| matches!(*entry.state(), AttemptState::Sealed { .. }));
        sealed.map(|entry| (AttemptKey::of(&entry.asked.identity), entry.state())).collect()
    }

    /// Attempts that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.queue.depth()
    }

    /// The journal, for its figures and its health.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Starts nothing new from now on. Attempts that still wait are forgotten: they have not begun, so
    /// they may begin elsewhere, and whoever waits for them is told to ask again.
    pub fn drain(&self) {
        let mut table = self.lock();
        table.draining = true;
        for job in self.queue.close() {
            table.remove(&AttemptKey::of(&job.entry.asked.identity));
        }
    }

    /// Ends every run because the executor ends.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        let table = self.lock();
        let entries = table.by_uid.values().flat_map(BTreeMap::values);
        entries.filter(|entry| !entry.state().is_final()).for_each(|entry| entry.lock_run().end());
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_sealed(
        &self,
        entry: &Entry,
        sealed: Box<SealedAttempt>,
        blobs: Vec<InlineBlob>,
    ) -> AttemptState {
        let record = Record::Sealed { asked: entry.asked.clone(), sealed: sealed.clone(), blobs };
        match self.journal.append_durable(&record) {
            Ok(()) => AttemptState::Sealed { sealed },
            Err(error) => self.write_failed(entry, failure(&error)),
        }
    }

    fn write_failed(&self, entry: &Entry, failure: Failure) -> AttemptState {
        let failure = if failure.reason == FailureReason::Cancelled && !entry.lock_run().cancel_wanted {
            // Nobody cancelled it: either we end all runs, or the sandbox's processes were ended from outside.
            if self.abandoned.load(Ordering::Acquire) { lost() } else { torn_down() }
        } else {
            failure
        };
        let record = Record::Failed { asked: entry.asked.clone(), failure: failure.clone() };
        if let Err(error) = self.journal.append_durable(&record) {
            // Without the record a restart calls the attempt lost: also an end without a result.
            tracing::error!(attempt = %AttemptKey::of(&entry.asked.identity), %error, "a failure was not written down");
        }
        AttemptState::Failed { failure }
    }
}

// === impl Table ===

impl Table {
    fn insert(&mut self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let identity = &entry.asked.identity;
        let attempts = self.by_uid.entry(identity.uid.clone()).or_default();
        attempts.insert(identity.attempt, Arc::clone(&entry));
        entry
    }

    fn get(&self, key: &AttemptKey) -> Option<Arc<Entry>> {
        self.by_uid.get(&key.uid)?.get(&key.attempt).cloned()
    }

    fn remove(&mut self, key: &AttemptKey) {
        if let Some(attempts) = self.by_uid.get_mut(&key.uid) {
            attempts.remove(&key.attempt);
            if attempts.is_empty() {
                self.by_uid.remove(&key.uid);
            }
        }
    }

    fn serves_another(&self, asked: &Asked) -> bool {
        self.by_uid.keys().any(|uid| *uid != asked.identity.uid)
    }

    fn is_settled(&self, once: bool) -> bool {
        let mut entries = self.by_uid.values().flat_map(BTreeMap::values).peekable();
        // An acknowledged attempt may have been forgotten by now; then it is in no list.
        (!once || entries.peek().is_some())
            && entries.all(|entry| self.acked.contains(&AttemptKey::of(&entry.asked.identity)))
    }

    fn known(&self, asked: &Asked) -> Vec<Known> {
        let attempts = self.by_uid.get(&asked.identity.uid).into_iter().flat_map(BTreeMap::values);
        attempts.map(|entry| entry.seen_from(asked)).collect()
    }
}

// === impl Entry ===

impl Entry {
    fn new(asked: Asked, state: AttemptState) -> Self {
        let (state, _receiver) = watch::channel(Arc::new(state));
        Self { asked, state, run: Mutex::default() }
    }

    /// The state now.
    pub fn state(&self) -> Arc<AttemptState> {
        Arc::clone(&self.state.borrow())
    }

    /// Learns of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<AttemptState>> {
        self.state.subscribe()
    }

    /// What it writes, while it runs.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.lock_run().begun.as_ref().map(|begun| Arc::clone(&begun.live))
    }

    fn show(&self, state: AttemptState) -> Arc<AttemptState> {
        let state = Arc::new(state);
        self.state.send_replace(Arc::clone(&state));
        state
    }

    fn lock_run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the run cancellable, unless it is not wanted any more.
    fn prepare_run(&self) -> Result<Begun, Failure> {
        let mut run = self.lock_run();
        if run.cancel_wanted {
            return Err(cancelled());
        }
        let cancel = Cancel::new().map_err(|error| {
            let hint = "raise the limit of open files of the executor";
            Failure::new(FailureReason::SandboxError, error.to_string(), hint)
        })?;
        let begun = Begun { cancel, live: Arc::default() };
        run.begun = Some(begun.clone());
        Ok(begun)
    }

    fn seen_from(&self, asked: &Asked) -> Known {
        // Not the generation: editing `suspend` raises it, and the attempt stays the same.
        let (ours, theirs) = (&self.asked.identity, &asked.identity);
        let same_object = ours.namespace == theirs.namespace && ours.name == theirs.name;
        Known {
            attempt: ours.attempt,
            same_request: same_object && self.asked.request_digest == asked.request_digest,
            stage: match self.state().as_ref() {
                AttemptState::Queued | AttemptState::Running => Stage::Open,
                AttemptState::Sealed { .. } => Stage::Sealed,
                AttemptState::Failed { .. } => Stage::Failed,
            },
        }
    }
}

// === impl Run ===

impl Run {
    fn end(&self) {
        if let Some(begun) = &self.begun {
            begun.cancel.cancel();
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn torn_down() -> Failure {
    let message = "the processes of the sandbox were ended from outside";
    Failure::new(FailureReason::SandboxError, message, "see the node's log: its memory may have run out")
}

fn failure(error: &JournalError) -> Failure {
    let (reason, hint) = match error {
        JournalError::Full { .. } => (FailureReason::StoreFull, "make room on the executor's volume"),
        JournalError::Encode(_) => (FailureReason::InvalidRequest, "make the request smaller"),
        _ => (FailureReason::StoreError, "check the executor's volume and restart the executor"),
    };
    Failure::new(reason, format!("the end of the attempt could not be written down: {error}"), hint)
}
