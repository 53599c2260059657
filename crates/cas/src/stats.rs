//! Figures of a store, counted anew from its folders each time: there is no index that could be wrong.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::atomic::AtomicBool;

use requiem_model::digest::BlobDigest;

use crate::error::StoreError;
use crate::examine::{Damage, Sizes, sizes};
use crate::object::Encoding;
use crate::shelves::{Item, Shelf, Shelves, Stray};
use crate::tenant::Tenant;

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Objects.
    pub objects: u64,
    /// Those that are kept compressed.
    pub compressed: u64,
    /// Bytes of their content; of a compressed one, as its frame states it.
    pub plain_bytes: u64,
    /// Bytes of their files.
    pub stored_bytes: u64,
    /// The largest by content, largest first.
    pub largest: Vec<Largest>,
    /// Objects whose size cannot be told: not in the figures above.
    pub unreadable: Vec<Unreadable>,
    /// What is no object.
    pub strays: Vec<Stray>,
    /// Files in the quarantine.
    pub quarantined: u64,
    /// Bytes of those that are plain files.
    pub quarantined_bytes: u64,
    /// Files and folders that were written out to be mounted.
    pub copies: u64,
    /// Pins.
    pub pins: u64,
}

/// One of the largest objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Largest {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub digest: BlobDigest,
    /// How large.
    pub sizes: Sizes,
}

/// An object whose size cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub digest: BlobDigest,
    /// Code of the [`Damage`].
    pub code: &'static str,
    /// What it is.
    pub why: String,
}

/// Plain size, stored size, tenant, digest: smallest on top.
type Ranked = Reverse<(u64, u64, usize, BlobDigest)>;

#[derive(Default)]
struct Part {
    stats: Stats,
    largest: BinaryHeap<Ranked>,
}

// === impl Shelves ===

impl Shelves {
    /// Counts the objects of `tenants`, with the `top` largest.
    ///
    /// # Errors
    /// A folder of the store cannot be read, or leads out of it.
    pub fn stats(&self, tenants: &[Tenant], top: usize, threads: usize) -> Result<Stats, StoreError> {
        let parts =
            self.each(tenants, threads, &AtomicBool::new(false), |part: &mut Part, owner, shelf| {
                part.take(owner, shelf, top);
                Ok(())
            })?;
        let mut whole = Part::default();
        parts.into_iter().for_each(|part| whole.merge(part, top));
        let mut stats = whole.stats;
        let ranked = whole.largest.into_sorted_vec();
        stats.largest = ranked.into_iter().map(|Reverse(rank)| Largest::of(rank, tenants)).collect();
        stats.strays.sort_by(|one, other| one.path.cmp(&other.path));
        for tenant in tenants {
            self.count_beside(tenant, &mut stats)?;
        }
        Ok(stats)
    }

    /// Files in the quarantine of `tenant`, which were found corrupt, and their bytes.
    ///
    /// # Errors
    /// The folder cannot be read, or leads out of the store.
    pub fn quarantined(&self, tenant: &Tenant) -> Result<(u64, u64), StoreError> {
        let quarantine = format!("tenants/{tenant}/quarantine");
        let (mut files, mut all_bytes) = (0, 0);
        for named in self.list(&quarantine)? {
            files += 1;
            let way = format!("{quarantine}/{}", named.name.to_string_lossy());
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            let bytes =
                nix::sys::stat::fstatat(self.root(), way.as_str(), flags).map_or(0, |stat| stat.st_size);
            all_bytes += u64::try_from(bytes).unwrap_or(0);
        }
        Ok((files, all_bytes))
    }

    /// Counts what a tenant has beside objects.
    fn count_beside(&self, tenant: &Tenant, stats: &mut Stats) -> Result<(), StoreError> {
        let (files, bytes) = self.quarantined(tenant)?;
        stats.quarantined += files;
        stats.quarantined_bytes += bytes;
        for kind in ["blobs", "trees"] {
            stats.copies += self.list(&format!("tenants/{tenant}/materialised/{kind}"))?.len() as u64;
        }
        stats.pins += self.pins(tenant)?.len() as u64;
        Ok(())
    }
}

impl Part {
    fn take(&mut self, owner: usize, mut shelf: Shelf, top: usize) {
        self.stats.strays.extend(shelf.take_strays());
        let mut seen: BTreeSet<BlobDigest> = BTreeSet::new();
        for item in shelf.items() {
            // An object under both of its names is one object; the compressed form is the one that is read.
            let twin = item.encoding == Encoding::Raw
                && shelf.items().binary_search(&Item { encoding: Encoding::Zstd, ..*item }).is_ok();
            match size_on(&shelf, *item) {
                Ok(Some(sizes)) if twin => self.stats.stored_bytes += sizes.stored,
                Ok(Some(sizes)) => self.count(owner, *item, sizes, top),
                Ok(None) => {}
                Err(damage) if seen.insert(item.digest) => {
                    self.stats.unreadable.push(Unreadable::of(shelf.tenant(), item.digest, &damage));
                }
                Err(_) => {}
            }
        }
    }

    fn count(&mut self, owner: usize, item: Item, sizes: Sizes, top: usize) {
        let stats = &mut self.stats;
        stats.objects += 1;
        stats.compressed += u64::from(item.encoding == Encoding::Zstd);
        stats.plain_bytes += sizes.plain;
        stats.stored_bytes += sizes.stored;
        self.rank(Reverse((sizes.plain, sizes.stored, owner, item.digest)), top);
    }

    fn rank(&mut self, rank: Ranked, top: usize) {
        self.largest.push(rank);
        if self.largest.len() > top {
            self.largest.pop();
        }
    }

    fn merge(&mut self, other: Self, top: usize) {
        let (into, from) = (&mut self.stats, other.stats);
        into.objects += from.objects;
        into.compressed += from.compressed;
        into.plain_bytes += from.plain_bytes;
        into.stored_bytes += from.stored_bytes;
        into.unreadable.extend(from.unreadable);
        into.strays.extend(from.strays);
        other.largest.into_iter().for_each(|rank| self.rank(rank, top));
    }
}

impl Largest {
    fn of((plain, stored, owner, digest): (u64, u64, usize, BlobDigest), tenants: &[Tenant]) -> Self {
        let tenant = tenants.get(owner).cloned().unwrap_or_default();
        Self { tenant, digest, sizes: Sizes { plain, stored } }
    }
}

impl Unreadable {
    pub(crate) fn of(tenant: &Tenant, digest: BlobDigest, damage: &Damage) -> Self {
        Self { tenant: tenant.clone(), digest, code: damage.code(), why: damage.to_string() }
    }
}

/// Sizes of an object: a raw one by its inode alone, a compressed one by the header of its frame.
fn size_on(shelf: &Shelf, item: Item) -> Result<Option<Sizes>, Damage> {
    let spot = shelf.spot(item);
    match item.encoding {
        Encoding::Raw => {
            let stat = spot.stat().map_err(|errno| Damage::Unreadable(errno.into()))?;
            let bytes = stat.map(|stat| u64::try_from(stat.st_size).unwrap_or(0));
            Ok(bytes.map(|bytes| Sizes { plain: bytes, stored: bytes }))
        }
        Encoding::Zstd => match spot.open()? {
            Some((file, meta)) => sizes(&file, &meta, item.encoding).map(Some),
            None => Ok(None),
        },
    }
}
