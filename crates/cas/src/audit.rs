//! Verifying a store: every object, or a random sample, is read again and hashed. Nothing is moved, repaired or believed.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use requiem_model::digest::BlobDigest;

use crate::error::{At, StoreError};
use crate::examine::Damage;
use crate::shelves::{Item, Shelves, Spot, Stray, on_threads};
use crate::store::locked;
use crate::tenant::Tenant;

/// Objects from this size on are read one after another, each by all threads.
const WIDE_FROM: u64 = 64 * 1024 * 1024;

/// How much is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every object.
    All,
    /// So many, drawn at random without replacement; all if there are no more.
    Sample(u64),
}

/// How far a verification is, for whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects read.
    pub objects: AtomicU64,
    /// Bytes of files read.
    pub bytes: AtomicU64,
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Audit {
    /// Objects in the store when they were listed. Of an interrupted verification of everything, only those of the folders begun.
    pub total: u64,
    /// Objects that were read and hashed, the damaged ones included.
    pub checked: u64,
    /// Bytes of content that were hashed and are right.
    pub plain_bytes: u64,
    /// Objects that went away before they were read: replaced, or moved to the quarantine by another process.
    pub gone: u64,
    /// What is not what its name says.
    pub damaged: Vec<Damaged>,
    /// What is no object.
    pub strays: Vec<Stray>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

/// An object that is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Whose.
    pub tenant: Tenant,
    /// What it should be.
    pub digest: BlobDigest,
    /// Its file.
    pub path: PathBuf,
    /// Code of the [`Damage`].
    pub code: &'static str,
    /// What it is.
    pub why: String,
}

/// One verification under way.
struct Run<'a> {
    shelves: &'a Shelves,
    tenants: &'a [Tenant],
    threads: usize,
    progress: &'a Progress,
    stop: &'a AtomicBool,
    /// Large objects, for later.
    wide: Mutex<Vec<(usize, Item)>>,
}

// === impl Shelves ===

impl Shelves {
    /// Reads and hashes objects of `tenants` until done or `stop`.
    ///
    /// # Errors
    /// A folder of the store cannot be listed, or leads out of it. Damaged objects are no errors, they are what was looked for.
    pub fn audit(
        &self,
        tenants: &[Tenant],
        extent: Extent,
        threads: usize,
        progress: &Progress,
        stop: &AtomicBool,
    ) -> Result<Audit, StoreError> {
        let run = Run { shelves: self, tenants, threads, progress, stop, wide: Mutex::default() };
        let mut audit = match extent {
            Extent::All => run.all()?,
            Extent::Sample(size) => run.sample(size)?,
        };
        audit.interrupted = stop.load(Ordering::Relaxed);
        audit.strays.sort_by(|one, other| one.path.cmp(&other.path));
        audit.damaged.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(audit)
    }
}

// === impl Run ===

impl Run<'_> {
    fn all(&self) -> Result<Audit, StoreError> {
        let parts = self.shelves.each(
            self.tenants,
            self.threads,
            self.stop,
            |audit: &mut Audit, owner, mut shelf| {
                audit.strays.extend(shelf.take_strays());
                audit.total += shelf.items().len() as u64;
                for item in shelf.items() {
                    if !self.stop.load(Ordering::Relaxed) {
                        self.check(audit, owner, &shelf.spot(*item));
                    }
                }
                Ok(())
            },
        )?;
        let mut audit = Audit::default();
        parts.into_iter().for_each(|part| audit.merge(part));
        self.wide(&mut audit);
        Ok(audit)
    }

    fn sample(&self, size: u64) -> Result<Audit, StoreError> {
        type Listed = (Vec<(usize, Item)>, Vec<Stray>);
        let parts = self.shelves.each(
            self.tenants,
            self.threads,
            self.stop,
            |listed: &mut Listed, owner, mut shelf| {
                listed.1.extend(shelf.take_strays());
                listed.0.extend(shelf.items().iter().map(|item| (owner, *item)));
                Ok(())
            },
        )?;
        let (mut items, mut audit) = (Vec::new(), Audit::default());
        for (found, strays) in parts {
            items.extend(found);
            audit.strays.extend(strays);
        }
        audit.total = items.len() as u64;
        let drawn = draw(items.len(), usize::try_from(size).unwrap_or(usize::MAX))?;
        let chosen: Vec<_> = drawn.into_iter().filter_map(|index| items.get(index).copied()).collect();
        drop(items);
        self.chosen(&chosen, &mut audit);
        self.wide(&mut audit);
        Ok(audit)
    }

    fn chosen(&self, chosen: &[(usize, Item)], audit: &mut Audit) {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut part = Audit::default();
            while let Some((owner, item)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                if let Some(tenant) = self.tenants.get(*owner) {
                    self.check(&mut part, *owner, &self.shelves.spot(tenant, *item));
                }
            }
            part
        };
        on_threads(self.threads, work).into_iter().for_each(|part| audit.merge(part));
    }

    /// Checks one object, or keeps it for later if it is worth all threads.
    fn check(&self, audit: &mut Audit, owner: usize, spot: &Spot<'_>) {
        let large = spot.stat().ok().flatten().is_some_and(|stat| stat.st_size.unsigned_abs() >= WIDE_FROM);
        if large {
            locked(&self.wide).push((owner, spot.item));
        } else {
            self.judge(audit, owner, spot, 1);
        }
    }

    fn wide(&self, audit: &mut Audit) {
        for (owner, item) in std::mem::take(&mut *locked(&self.wide)) {
            match self.tenants.get(owner) {
                Some(tenant) if !self.stop.load(Ordering::Relaxed) => {
                    self.judge(audit, owner, &self.shelves.spot(tenant, item), self.threads);
                }
                _ => {}
            }
        }
    }

    fn judge(&self, audit: &mut Audit, owner: usize, spot: &Spot<'_>, threads: usize) {
        match spot.check(threads, self.stop) {
            Ok(None) if self.stop.load(Ordering::Relaxed) => return,
            Ok(None) => {
                audit.gone += 1;
                return;
            }
            Ok(Some(sizes)) => {
                audit.plain_bytes += sizes.plain;
                self.progress.bytes.fetch_add(sizes.stored, Ordering::Relaxed);
            }
            Err(damage) => audit.damaged.push(self.damaged(owner, spot.item, &damage)),
        }
        audit.checked += 1;
        self.progress.objects.fetch_add(1, Ordering::Relaxed);
    }

    fn damaged(&self, owner: usize, item: Item, damage: &Damage) -> Damaged {
        let tenant = self.tenants.get(owner).cloned().unwrap_or_default();
        let path = self.shelves.path().join(self.shelves.spot(&tenant, item).way);
        Damaged { tenant, digest: item.digest, path, code: damage.code(), why: damage.to_string() }
    }
}

impl Audit {
    fn merge(&mut self, other: Self) {
        self.total += other.total;
        self.checked += other.checked;
        self.plain_bytes += other.plain_bytes;
        self.gone += other.gone;
        self.damaged.extend(other.damaged);
        self.strays.extend(other.strays);
    }
}

/// `count` different numbers below `total`, every such set equally likely, in order.
///
/// Source: R. W. Floyd, in J. Bentley, "Programming Pearls: A Sample of Brilliance", CACM 30 (1987), 754–757.
fn draw(total: usize, count: usize) -> Result<Vec<usize>, StoreError> {
    let mut random = Random::seeded()?;
    let mut drawn = HashSet::new();
    for last in total - count.min(total)..total {
        let number = random.up_to(last);
        if !drawn.insert(number) {
            drawn.insert(last);
        }
    }
    let mut drawn: Vec<usize> = drawn.into_iter().collect();
    drawn.sort_unstable();
    Ok(drawn)
}

/// Numbers from a seed that the kernel gave.
struct Random(blake3::OutputReader);

impl Random {
    fn seeded() -> Result<Self, StoreError> {
        let (path, mut seed) = (Path::new("/dev/urandom"), [0; 32]);
        File::open(path).and_then(|mut source| source.read_exact(&mut seed)).at("read", path)?;
        Ok(Self(blake3::Hasher::new_keyed(&seed).finalize_xof()))
    }

    /// A number from 0 to `last`, every one equally likely.
    fn up_to(&mut self, last: usize) -> usize {
        let mask = usize::MAX.checked_shr(last.leading_zeros()).unwrap_or(0);
        loop {
            let mut bytes = [0; 8];
            self.0.fill(&mut bytes);
            // The low bits, on a machine with shorter words.
            let word = u64::from_le_bytes(bytes) & mask as u64;
            if let Ok(number) = usize::try_from(word)
                && number <= last
            {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_a_set_of_the_size_asked_for_and_every_one_is_drawn() {
        assert_eq!(draw(5, 9).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!((draw(0, 3).unwrap(), draw(3, 0).unwrap()), (vec![], vec![]));
        let mut often = [0u32; 10];
        for _ in 0..3000 {
            let drawn = draw(10, 3).unwrap();
            assert!(drawn.len() == 3 && drawn.windows(2).all(|pair| pair[0] < pair[1]), "{drawn:?}");
            drawn.into_iter().for_each(|index| often[index] += 1);
        }
        // 900 each, with a deviation of 25: eight of those are not by chance.
        assert!(often.iter().all(|count| (700..1100).contains(count)), "{often:?}");
    }
}
