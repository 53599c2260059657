//! What an executor's folder beside the objects still names: the results in its journal and the bundles in its archive. Whoever
//! collects garbage in the store needs all of them, so whatever cannot be read is an error and not left out.
//!
//! Nothing is repaired here. A journal that an executor would repair at its start is refused until one has done that.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use requiem_cas::Tenant;
use requiem_cas::exclusive::lock_soon;
use requiem_cas::gc::Object;
use requiem_model::request::InputSource;
use requiem_model::result::OutputContent;
use requiem_model::{BlobDigest, BundleRoot};
use requiem_proof::{BundleBody, Expect, verify};

use crate::journal::{self, AttemptKey, JournalError, Phase};

/// Largest archived bundle: the largest body that is verified.
const MAX_BODY: u64 = 1 << 20;

/// Where a result is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the journal.
    Journal(AttemptKey),
    /// In the archive.
    Archive(BundleRoot),
}

/// One result with the objects that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptResult {
    /// Whose.
    pub tenant: Tenant,
    /// Where it is.
    pub place: Place,
    /// What it names.
    pub objects: Vec<Object>,
}

/// Everything that a store's folder names.
#[derive(Debug, Default)]
pub struct Retained {
    /// Results, those of the journal first.
    pub results: Vec<KeptResult>,
    /// Streams that the journal carries: the next executor puts them back if the store lacks them.
    pub carried: BTreeSet<(Tenant, BlobDigest)>,
    /// The journal's lock, if there is a journal: no executor can begin to use it.
    _lock: Option<File>,
}

/// Why it is not known what is named. [`RetainedError::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum RetainedError {
    /// The journal is in use, or not ours.
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] JournalError),
    /// The journal has an end that was not completely written, or is damaged.
    #[error("{} has a part that cannot be read", path.display())]
    Unclean {
        /// The file.
        path: PathBuf,
    },
    /// A file is no bundle of the archive.
    #[error("{} is not an archived bundle: {why}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something lies where only journal and archive should be.
    #[error("{} is nothing that an executor puts there", path.display())]
    Unknown {
        /// Where.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

// === impl Retained ===

impl Retained {
    /// Reads the journal and the archive of the store at `store`, and keeps executors out of the journal as long as it lives.
    ///
    /// # Errors
    /// Anything that cannot be read or is not known.
    pub fn read(store: &Path) -> Result<Self, RetainedError> {
        let mut retained = Self::default();
        retained.read_journal(&store.join("journal"))?;
        retained.read_archive(&store.join("proofs"))?;
        Ok(retained)
    }

    /// As [`Retained::read`] beside a running executor: an end that is being written is not an error, and nobody is kept out.
    ///
    /// # Errors
    /// Anything else that cannot be read or is not known.
    pub fn peek(store: &Path) -> Result<Self, RetainedError> {
        let mut retained = Self::default();
        if let Some(found) = journal::read(&store.join("journal"))? {
            retained.take_journal(&found, &store.join("journal"))?;
        }
        retained.read_archive(&store.join("proofs"))?;
        Ok(retained)
    }

    fn read_journal(&mut self, folder: &Path) -> Result<(), RetainedError> {
        let known = |name: &str| {
            let damaged = name.strip_prefix("damaged").and_then(|rest| rest.strip_suffix(".log"));
            damaged.is_some() || ["lock", "attempts.log", "attempts.log.new", "ready.probe"].contains(&name)
        };
        let mut found = false;
        for (name, path, is_folder) in list(folder)? {
            found = true;
            if is_folder || !known(&name) {
                return Err(RetainedError::Unknown { path });
            }
        }
        if !found {
            return Ok(());
        }
        self._lock = Some(lock(&folder.join("lock"))?);
        let Some(found) = journal::read(folder)? else { return Ok(()) };
        if !found.is_clean {
            return Err(RetainedError::Unclean { path: folder.join("attempts.log") });
        }
        self.take_journal(&found, folder)
    }

    fn take_journal(&mut self, found: &journal::Found, folder: &Path) -> Result<(), RetainedError> {
        for (key, logged) in &found.replay.attempts {
            let Phase::Sealed { sealed, blobs } = &logged.phase else { continue };
            let bad = |why: String| RetainedError::Bundle {
                path: folder.join("attempts.log"),
                why: format!("attempt {key}: {why}"),
            };
            let body: BundleBody =
                serde_json::from_str(&sealed.body).map_err(|error| bad(error.to_string()))?;
            let tenant =
                Tenant::parse(&logged.asked.identity.namespace).map_err(|error| bad(error.to_string()))?;
            self.carried.extend(blobs.iter().map(|blob| (tenant.clone(), blob.digest)));
            self.results.push(KeptResult {
                tenant,
                place: Place::Journal(key.clone()),
                objects: named(&body),
            });
        }
        Ok(())
    }

    /// `proofs/<namespace>/<aa>/<bundle root>.json`, and `.new` where a writer was killed.
    fn read_archive(&mut self, folder: &Path) -> Result<(), RetainedError> {
        for (namespace, path, is_folder) in list(folder)? {
            let Some(tenant) = Tenant::parse(&namespace).ok().filter(|_| is_folder) else {
                return Err(RetainedError::Unknown { path });
            };
            for (_, path, is_folder) in list(&path)? {
                if !is_folder {
                    return Err(RetainedError::Unknown { path });
                }
                for (name, path, is_folder) in list(&path)? {
                    if is_folder {
                        return Err(RetainedError::Unknown { path });
                    }
                    if !name.ends_with(".new") {
                        self.results.push(archived(&tenant, &name, &path)?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The objects that a bundle names: inputs, standard input, streams and outputs.
pub fn named(body: &BundleBody) -> Vec<Object> {
    let (request, result) = (&body.execution.request, &body.execution.result);
    let inputs = request.inputs.iter().map(|input| match &input.source {
        InputSource::Blob { digest, .. } => Object::Blob(*digest),
        InputSource::Tree { digest } => Object::Tree(*digest),
    });
    let streams = [result.stdout.digest, result.stderr.digest].map(Object::Blob);
    let outputs = result.outputs.iter().map(|output| match &output.content {
        OutputContent::Blob { digest, .. } => Object::Blob(*digest),
        OutputContent::Tree { digest, .. } => Object::Tree(*digest),
    });
    inputs.chain(request.stdin.map(Object::Blob)).chain(streams).chain(outputs).collect()
}

fn archived(tenant: &Tenant, name: &str, path: &Path) -> Result<KeptResult, RetainedError> {
    let bad = |why: &str| RetainedError::Bundle { path: path.to_owned(), why: why.to_owned() };
    let root = name.strip_suffix(".json").and_then(|hex| BundleRoot::from_hex(hex.as_bytes()));
    let root = root.ok_or_else(|| RetainedError::Unknown { path: path.to_owned() })?;
    let expect = Expect { bundle_root: Some(root), ..Expect::default() };
    let verified = verify(&read_text(path)?, &expect).map_err(|error| bad(&error.to_string()))?;
    if verified.body.run.identity.namespace != tenant.as_str() {
        return Err(bad("it is of another namespace"));
    }
    Ok(KeptResult { tenant: tenant.clone(), place: Place::Archive(root), objects: named(&verified.body) })
}

fn read_text(path: &Path) -> Result<String, RetainedError> {
    let io = |source| RetainedError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    open(path).map_err(io)?.take(MAX_BODY + 1).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// Opens a file without following a link or waiting for a peer.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(requiem_cas::CAREFUL).open(path)
}

/// Every entry: its name, path, and whether it is a folder. Nothing if the folder is not there; links are neither files nor folders.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf, bool)>, RetainedError> {
    let io = |path: &Path, source| RetainedError::Io { path: path.to_owned(), source };
    match folder.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(RetainedError::Unknown { path: folder.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(folder, error)),
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| io(folder, error))? {
        let entry = entry.map_err(|error| io(folder, error))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(|error| io(folder, error))?);
        let Some(name) =
            entry.file_name().to_str().map(str::to_owned).filter(|_| kind.is_file() || kind.is_dir())
        else {
            return Err(RetainedError::Unknown { path });
        };
        found.push((name, path, kind.is_dir()));
    }
    found.sort();
    Ok(found)
}

fn lock(path: &Path) -> Result<File, RetainedError> {
    let io = |source| RetainedError::Io { path: path.to_owned(), source };
    let file = match open(path) {
        // An executor makes it before anything else.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RetainedError::Unknown { path: path.to_owned() });
        }
        other => other.map_err(io)?,
    };
    if lock_soon(&file).map_err(io)? {
        return Ok(file);
    }
    Err(JournalError::Locked { path: path.to_owned() }.into())
}

// === impl RetainedError ===

impl RetainedError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Journal(JournalError::Locked { .. }) => "StoreInUse",
            Self::Journal(_) | Self::Unclean { .. } => "BadJournal",
            Self::Bundle { .. } => "BadBundle",
            Self::Unknown { .. } => "UnknownEntry",
            Self::Io { .. } => "StoreIo",
        }
    }

    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Journal(JournalError::Locked { .. }) => {
                "stop the executor (scale its pool to 0), then try again"
            }
            Self::Journal(_) => "use the version of requiem that the executor has",
            Self::Unclean { .. } => "start and stop the executor on this store: it repairs its journal",
            Self::Bundle { .. } => {
                "see what it is; move it out of the store's folder if its result is not needed"
            }
            Self::Unknown { .. } => "see what it is, and move it out of the store's folder",
            Self::Io { .. } => "check the disk and the permissions of the store's folder",
        }
    }
}
