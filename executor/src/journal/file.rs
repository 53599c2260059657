//! The journal's file as a whole: lock, open, read, rewrite.
//!
//! `lock` is held by the executor that uses the store; `attempts.log` is the journal; `attempts.log.new`
//! exists only while it is rewritten; `damaged-N.log` is what an unreadable stretch was found in.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use requiem_cas::exclusive::lock_soon;

use super::frame::{self, Seed};
use super::record::Record;
use super::replay::{Logged, Replay};
use super::{JournalError, JournalOptions, Retire, io_error};

/// Name of the journal proper.
pub(crate) const NAME: &str = "attempts.log";

/// A journal file, positioned by its length.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) seed: Seed,
    pub(crate) len: u64,
}

/// What a journal that nobody is to change says.
#[derive(Debug)]
pub struct Found {
    /// Its attempts.
    pub replay: Replay,
    /// Whether every byte of it could be read.
    pub is_clean: bool,
}

/// What a file says.
struct Content {
    seed: Seed,
    replay: Replay,
    sound: u64,
    torn: bool,
    damaged: bool,
}

/// Takes the exclusive lock of the store's executor. A predecessor that is just ending is waited for: a killed one holds it until the
/// kernel has taken it apart, and a process that it was just starting holds a copy until its exec.
pub(crate) fn lock(dir: &Path) -> Result<File, JournalError> {
    fs::create_dir_all(dir).map_err(|error| io_error("create", dir, error))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| io_error("open", &path, error))?;
    if lock_soon(&file).map_err(|error| io_error("lock", &path, error))? {
        return Ok(file);
    }
    Err(JournalError::Locked { path })
}

/// Reads the journal below `dir` and changes nothing; nothing if there is none.
///
/// # Errors
/// The file is not ours, or the disk fails.
pub fn read_only(dir: &Path) -> Result<Option<Found>, JournalError> {
    let content = read(&dir.join(NAME))?;
    Ok(content.map(|content| Found { is_clean: !content.torn && !content.damaged, replay: content.replay }))
}

/// Opens the journal, ends what has no end, and leaves out what is retired.
pub(crate) fn open(
    dir: &Path,
    options: &JournalOptions,
    retire: &Retire,
) -> Result<(Opened, Replay), JournalError> {
    let path = dir.join(NAME);
    let Some(content) = read(&path)? else {
        return Ok((rewrite(dir, &[])?, Replay::default()));
    };
    let Content { seed, mut replay, sound, torn, damaged } = content;
    let ends: Vec<Record> = replay.attempts.values().filter_map(Logged::missing_end).collect();
    ends.iter().for_each(|end| replay.apply(end.clone()));
    let retired = retire_old(&mut replay, options, retire)?;
    if damaged {
        set_aside(dir, &path)?;
    }
    let opened = if damaged || retired {
        rewrite(dir, &replay.records())?
    } else {
        continue_file(&path, seed, sound, torn, &ends)?
    };
    Ok((opened, replay))
}

/// Rewrites the journal without what is retired.
pub(crate) fn compact(dir: &Path, options: &JournalOptions, retire: &Retire) -> Result<Opened, JournalError> {
    let mut replay = read(&dir.join(NAME))?.map(|content| content.replay).unwrap_or_default();
    retire_old(&mut replay, options, retire)?;
    rewrite(dir, &replay.records())
}

fn retire_old(replay: &mut Replay, options: &JournalOptions, retire: &Retire) -> Result<bool, JournalError> {
    let keys = replay.retired(options.keep_acked);
    let gone: Vec<Logged> = keys.iter().filter_map(|key| replay.attempts.get(key).cloned()).collect();
    if gone.is_empty() {
        return Ok(false);
    }
    retire(&gone).map_err(JournalError::Archive)?;
    replay.attempts.retain(|key, _| !keys.contains(key));
    Ok(true)
}

fn read(path: &Path) -> Result<Option<Content>, JournalError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path, error)),
    };
    // The header was synced before the file got its name; less than a header holds no record.
    if bytes.len() < frame::HEADER_BYTES {
        return Ok(None);
    }
    let seed = frame::seed_of(&bytes).ok_or_else(|| JournalError::Foreign { path: path.to_owned() })?;
    let scan = frame::scan(&seed, &bytes);
    let mut replay = Replay::default();
    for payload in &scan.payloads {
        let record = Record::decode(payload);
        replay.apply(record.map_err(|source| JournalError::Unreadable { path: path.to_owned(), source })?);
    }
    let torn = scan.sound < bytes.len();
    Ok(Some(Content { seed, replay, sound: scan.sound as u64, torn, damaged: scan.damaged }))
}

/// Goes on with a sound file: cuts a torn tail off and adds the missing ends.
fn continue_file(
    path: &Path,
    seed: Seed,
    sound: u64,
    torn: bool,
    ends: &[Record],
) -> Result<Opened, JournalError> {
    let fail = |what| move |error| io_error(what, path, error);
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(fail("open"))?;
    if torn {
        tracing::warn!(path = %path.display(), at = sound, "a torn record was cut off the journal");
        file.set_len(sound).map_err(fail("truncate"))?;
    }
    let mut tail = Vec::new();
    for end in ends {
        let offset = sound + tail.len() as u64;
        tail.extend(frame::frame(&seed, offset, &end.encode()?));
    }
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(sound)).map_err(fail("seek"))?;
    file.write_all(&tail).map_err(fail("write"))?;
    file.sync_all().map_err(fail("sync"))?;
    Ok(Opened { file, seed, len: sound + tail.len() as u64 })
}

/// Writes a new journal beside the old one and puts it in its place: at every moment one of them is whole.
fn rewrite(dir: &Path, records: &[Record]) -> Result<Opened, JournalError> {
    let (path, temp) = (dir.join(NAME), dir.join("attempts.log.new"));
    let fail = |what| move |error| io_error(what, dir, error);
    let seed = random_seed().map_err(fail("read random bytes for"))?;
    let mut bytes = frame::header(&seed);
    for record in records {
        let offset = bytes.len() as u64;
        bytes.extend(frame::frame(&seed, offset, &record.encode()?));
    }
    let options = OpenOptions::new().create(true).truncate(true).read(true).write(true).to_owned();
    let mut file = options.open(&temp).map_err(fail("create a journal in"))?;
    file.write_all(&bytes).map_err(fail("write a journal in"))?;
    file.sync_all().map_err(fail("sync a journal in"))?;
    fs::rename(&temp, &path).map_err(fail("rename a journal in"))?;
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(fail("sync"))?;
    Ok(Opened { file, seed, len: bytes.len() as u64 })
}

/// Keeps the bytes of a damaged journal for people to look at.
fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, JournalError> {
    let free = (1u32..).map(|number| dir.join(format!("damaged-{number}.log"))).find(|name| !name.exists());
    let aside = free.unwrap_or_else(|| dir.join("damaged.log"));
    fs::copy(path, &aside).map_err(|error| io_error("copy", path, error))?;
    tracing::error!(
        copy = %aside.display(),
        "the journal is damaged before its end; every readable record is kept, the rest is in the copy"
    );
    Ok(aside)
}

fn random_seed() -> std::io::Result<Seed> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
