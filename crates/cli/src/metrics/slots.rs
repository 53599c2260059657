//! The file: two slots of fixed size, each with a number, a digest and the totals. Whoever counts locks the file, reads both, and writes over the
//! older one. A write that is torn by a kill, a full disk or a power cut damages one slot; the other holds everything but the last
//! count. Nothing is synced: after a power cut the last counts may be gone, and a run does not wait for a disk.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Totals;

/// The file's name in the store.
const NAME: &str = "metrics";
/// Where the second slot begins, and how long one may be. The totals have a bounded number of names.
const SLOT: usize = 16 * 1024;
/// What each slot begins with.
const FORMAT: &str = "requiem-metrics/1";
/// How long one waits for another that counts, which takes it less than a millisecond.
const PATIENCE: Duration = Duration::from_millis(200);

/// Changes what is counted. The store's folder must be there.
pub(super) fn update(folder: &Path, change: impl FnOnce(&mut Totals)) -> io::Result<()> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o644);
    let file = options.custom_flags(no_follow()).open(folder.join(NAME))?;
    lock(&file)?;
    let [one, other] = both(&file)?;
    let number = |slot: &Option<Slot>| slot.as_ref().map_or(0, |slot| slot.number);
    let (at, next) = if number(&one) > number(&other) { (SLOT, number(&one)) } else { (0, number(&other)) };
    let mut totals = newest(one, other);
    change(&mut totals);
    let slot = Slot { number: next.saturating_add(1), totals }.write()?;
    file.write_all_at(&slot, at as u64)
}

/// What is counted; nothing, if nobody has counted.
pub(super) fn read(folder: &Path) -> io::Result<Totals> {
    let file = match File::options().read(true).custom_flags(no_follow()).open(folder.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Totals::default()),
        opened => opened?,
    };
    lock(&file)?;
    let [one, other] = both(&file)?;
    Ok(newest(one, other))
}

const fn no_follow() -> i32 {
    // The same bits as the system's, which are a C int.
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// Locks the file, or gives up: there is no event to wait for that also ends the wait.
fn lock(file: &File) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The totals at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    number: u64,
    totals: Totals,
}

fn both(file: &File) -> io::Result<[Option<Slot>; 2]> {
    let mut content = vec![0; 2 * SLOT];
    let mut read = 0;
    while read < content.len() {
        match file.read_at(&mut content[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    let (one, other) = content.split_at(SLOT);
    Ok([Slot::read(one), Slot::read(other)])
}

fn newest(one: Option<Slot>, other: Option<Slot>) -> Totals {
    let newest = [one, other].into_iter().flatten().max_by_key(|slot| slot.number);
    newest.map(|slot| slot.totals).unwrap_or_default()
}

impl Slot {
    /// `FORMAT NUMBER LENGTH DIGEST`, and on the next line the totals.
    fn write(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::to_string(&self.totals)?;
        let digest = blake3::hash(body.as_bytes()).to_hex();
        let slot = format!("{FORMAT} {} {} {digest}\n{body}\n", self.number, body.len()).into_bytes();
        if slot.len() > SLOT {
            return Err(io::Error::other("the totals do not fit"));
        }
        Ok(slot)
    }

    /// None if there is no whole slot.
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let words: Vec<&str> = str::from_utf8(&bytes[..end]).ok()?.split(' ').collect();
        let [FORMAT, number, length, digest] = words[..] else { return None };
        let body = bytes[end + 1..].get(..length.parse().ok()?)?;
        if blake3::hash(body).to_hex().as_str() != digest {
            return None;
        }
        Some(Self { number: number.parse().ok()?, totals: serde_json::from_slice(body).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn count(folder: &Path) {
        update(folder, |totals| totals.stored_bytes += 1).unwrap();
    }

    fn counted(folder: &Path) -> u64 {
        read(folder).unwrap().stored_bytes
    }

    #[test]
    fn a_torn_write_loses_the_last_count_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (place, path) = (folder.path(), folder.path().join(NAME));
        assert_eq!(counted(place), 0);
        for expected in 1..=5 {
            count(place);
            assert_eq!(counted(place), expected);
        }
        let whole = fs::read(&path).unwrap();
        // The fifth count lies in the first slot. However much of it reached the disk, four are left, and one more is five.
        let length = whole[..SLOT].iter().rposition(|byte| *byte == b'\n').unwrap();
        for torn in [0, 1, 20, length / 2, length - 1] {
            let mut damaged = whole.clone();
            damaged[torn..SLOT].fill(0);
            fs::write(&path, damaged).unwrap();
            assert_eq!(counted(place), 4, "{torn}");
            count(place);
            assert_eq!(counted(place), 5, "{torn}");
        }
        // The same where the file ends early, and where a digit was changed.
        fs::write(&path, &whole[..length - 1]).unwrap();
        assert_eq!(counted(place), 0, "the other slot is gone with it");
        let mut changed = whole.clone();
        changed[length - 2] ^= 1;
        fs::write(&path, changed).unwrap();
        assert_eq!(counted(place), 4);
        fs::write(&path, [b'x'; 100]).unwrap();
        count(place);
        assert_eq!(counted(place), 1, "what is no file of ours is begun anew");
    }

    #[test]
    fn everybody_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..25).for_each(|_| count(folder.path())));
            }
        });
        assert_eq!(counted(folder.path()), 200);
    }

    #[test]
    fn nobody_waits_for_long_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        count(folder.path());
        let held = File::open(folder.path().join(NAME)).unwrap();
        held.lock().unwrap();
        assert!(update(folder.path(), |totals| totals.stored_bytes += 1).is_err());
        drop(held);
        assert_eq!(counted(folder.path()), 1);
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("x"), elsewhere.path().join(NAME)).unwrap();
        assert!(update(elsewhere.path(), |_| ()).is_err() && !elsewhere.path().join("x").exists());
        assert!(update(&elsewhere.path().join("none"), |_| ()).is_err());
    }

    #[test]
    fn the_largest_totals_fit() {
        let mut totals = Totals::default();
        let names = requiem_executor::metrics::reasons().chain(["EngineFault"]);
        totals.attempts = names.map(|name| (name.to_owned(), u64::MAX)).collect();
        for counts in [&mut totals.replays, &mut totals.trials, &mut totals.mismatches, &mut totals.puts] {
            *counts = (0..6).map(|index| (format!("a_name_as_long_as_any_{index}"), u64::MAX)).collect();
        }
        for step in super::super::STEPS {
            let spread = super::super::Spread { counts: vec![u64::MAX; 13], sum_us: u64::MAX };
            totals.steps.insert(step.name.to_owned(), spread);
        }
        totals.layers = requiem_model::Layer::ALL
            .into_iter()
            .map(|layer| (layer.name().to_owned(), "unsupported".to_owned()))
            .collect();
        let slot = Slot { number: u64::MAX, totals };
        let written = slot.write().unwrap();
        assert!(written.len() < SLOT / 2, "{}", written.len());
        assert_eq!(Slot::read(&written), Some(slot));
    }
}
