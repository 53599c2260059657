//! Garbage collection: what nothing names, and nobody put lately, goes.
//!
//! Flow: have the store to oneself ([`Exclusive`]) → look at everything in its folders → mark what the roots name → plan → sweep.
//!
//! # What stays
//! - Roots: pins, and what the caller names (results of the executor's journal, archived bundles).
//! - What a root names: the entries of a tree, all the way down; for a pinned document, what the caller's [`Expand`] finds in it.
//! - Objects that were put lately, and if such an object is a tree, what it names: work that has put its inputs and is not done.
//!
//! # What stops it
//! Nothing is removed unless everything was understood: an entry that the store did not put there, a folder that leads elsewhere, a pin
//! or manifest that cannot be read, and a tree that a root names and that is not there are errors of [`Exclusive::plan`].
//!
//! # A crash
//! Only names of objects that no root reaches are removed, one after the other, and no order among them matters: whatever was not
//! removed is garbage of the next collection. A materialised tree is moved to `tmp/` first, which the next open empties.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::SFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};
use requiem_model::digest::{BlobDigest, TreeDigest};

use crate::error::{At, StoreError};
use crate::examine::{Damage, time};
use crate::exclusive::Exclusive;
use crate::pin::Pin;
use crate::session::discard;
use crate::shelves::{Item, Named, Shelves, Stray};
use crate::tenant::Tenant;
use crate::tree::Node;

/// Largest pinned object that is offered to [`Expand`].
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;

/// What lies in the root of a store. `journal` and `proofs` are the executor's; who calls [`Exclusive::plan`] has looked at them. `metrics` are
/// counts of the command line, which name no object.
const ROOT_NAMES: [&CStr; 8] =
    [c"format", c"format.new", c"lost+found", c"tmp", c"tenants", c"journal", c"proofs", c"metrics"];
const TENANT_NAMES: [&CStr; 5] = [c"lock", c"objects", c"quarantine", c"materialised", c"pins"];

/// An object that something names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// Its bytes.
    Blob(BlobDigest),
    /// A folder, with everything in it.
    Tree(TreeDigest),
}

/// Something that must stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Whose.
    pub tenant: Tenant,
    /// What.
    pub object: Object,
    /// What names it, in words.
    pub by: String,
}

/// Says which objects a document names; nothing for bytes that are no document.
pub type Expand<'a> = &'a dyn Fn(&[u8]) -> Vec<Object>;

/// Why nothing is collected. [`GcError::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree or pinned object cannot be read, so what it names is not known.
    #[error("{digest} of tenant {tenant}, kept for {by}, is damaged: {damage}")]
    Damaged {
        /// Whose.
        tenant: Tenant,
        /// Which.
        digest: BlobDigest,
        /// What keeps it.
        by: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A tree or pinned object is not there, so what it names is not known.
    #[error("{digest} of tenant {tenant}, which {by} names, is not in the store")]
    Missing {
        /// Whose.
        tenant: Tenant,
        /// Which.
        digest: BlobDigest,
        /// What names it.
        by: String,
    },
    /// A tree that a root names is no folder manifest.
    #[error("{digest} of tenant {tenant}, which {by} names as a folder, is not a folder manifest")]
    NoManifest {
        /// Whose.
        tenant: Tenant,
        /// Which.
        digest: BlobDigest,
        /// What names it.
        by: String,
    },
}

/// What a sweep removes, and why the rest stays.
#[derive(Debug)]
pub struct Plan {
    /// Object files to remove, by tenant and digest.
    pub remove: Vec<Doomed>,
    /// Materialised copies to remove.
    pub copies: Vec<DoomedCopy>,
    /// Files of objects that stay.
    pub kept: Count,
    /// Of those, the ones that a root reaches.
    pub named: Count,
    /// Of those, the others: put lately, or named by a tree that was.
    pub young: Count,
    /// Pins.
    pub pins: u64,
    /// Blobs that a root reaches and the store does not have: nothing to remove, but somebody may want to know.
    pub missing: Vec<(Tenant, BlobDigest)>,
}

/// How many, how large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Object files.
    pub objects: u64,
    /// Bytes of those files.
    pub bytes: u64,
}

/// An object's file that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Whose.
    pub tenant: Tenant,
    /// Its file.
    pub item: Item,
    /// Bytes of its file.
    pub bytes: u64,
}

/// A materialised copy of an object that does not stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoomedCopy {
    tenant: Tenant,
    name: String,
    is_tree: bool,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Object files and their bytes.
    pub objects: Count,
    /// Materialised copies.
    pub copies: u64,
    /// Whether the caller broke it off.
    pub interrupted: bool,
}

/// An object's file as it was found.
struct Seen {
    owner: usize,
    item: Item,
    bytes: u64,
    is_young: bool,
}

type Key = (usize, BlobDigest);

/// What is reached, tenant by tenant.
struct Marks<'a> {
    shelves: &'a Shelves,
    tenants: &'a [Tenant],
    there: HashSet<Key>,
    live: HashSet<Key>,
    trees: HashSet<Key>,
    missing: Vec<Key>,
}

// === impl Exclusive ===

impl Exclusive {
    /// Finds out what may go: what no root reaches and nobody put since `young_from`. Removes nothing.
    ///
    /// # Errors
    /// Anything in the store that is not understood.
    pub fn plan(&self, roots: &[Root], expand: Expand<'_>, young_from: SystemTime) -> Result<Plan, GcError> {
        let tenants = self.shelves.tenants();
        self.check_names()?;
        let seen = self.census(young_from)?;
        let there = seen.iter().map(|seen| (seen.owner, seen.item.digest)).collect();
        let mut marks = Marks {
            shelves: &self.shelves,
            tenants,
            there,
            live: HashSet::new(),
            trees: HashSet::new(),
            missing: Vec::new(),
        };
        let mut pins = 0;
        for (owner, tenant) in tenants.iter().enumerate() {
            for pin in self.shelves.pins(tenant)? {
                marks.pin(owner, &pin, expand)?;
                pins += 1;
            }
        }
        for root in roots {
            marks.root(root)?;
        }
        let named: HashSet<Key> = marks.live.clone();
        marks.young(&seen)?;
        self.sort_out(&seen, &marks, &named, pins)
    }

    /// Removes what the plan says. Before each removal `step` is asked, with what was done so far, whether to go on.
    ///
    /// # Errors
    /// The file system refuses; what was not removed stays, and the store is as good as before.
    pub fn sweep(
        &self,
        plan: &Plan,
        step: &mut dyn FnMut(&Swept) -> ControlFlow<()>,
    ) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for copy in &plan.copies {
            if step(&swept).is_break() {
                return Ok(Swept { interrupted: true, ..swept });
            }
            self.remove_copy(copy)?;
            swept.copies += 1;
        }
        let mut shelf: Option<(Tenant, u8, OwnedFd)> = None;
        for doomed in &plan.remove {
            if step(&swept).is_break() {
                return Ok(Swept { interrupted: true, ..swept });
            }
            let byte = doomed.item.digest.as_bytes()[0];
            let fd = match shelf.take() {
                Some((tenant, open, fd)) if (&tenant, open) == (&doomed.tenant, byte) => fd,
                _ => self.shelves.folder(&format!("tenants/{}/objects/{byte:02x}", doomed.tenant))?,
            };
            remove(&fd, &doomed.item.name())
                .at("remove", &self.path.join("tenants").join(doomed.tenant.as_str()))?;
            shelf = Some((doomed.tenant.clone(), byte, fd));
            swept.objects.add(doomed.bytes);
        }
        Ok(swept)
    }

    /// Everything that lies in the store's folders must be what the store puts there.
    fn check_names(&self) -> Result<(), StoreError> {
        let shelves = &self.shelves;
        refuse(shelves.strays().first())?;
        self.only("", &ROOT_NAMES)?;
        for tenant in shelves.tenants() {
            let base = format!("tenants/{tenant}");
            self.only(&base, &TENANT_NAMES)?;
            self.only(&format!("{base}/materialised"), &[c"blobs", c"trees"])?;
            let objects = format!("{base}/objects");
            let expected: HashSet<String> = (0..=u8::MAX).map(|byte| format!("{byte:02x}")).collect();
            let stray = shelves.list(&objects)?.into_iter().find(|named| {
                named.kind != SFlag::S_IFDIR || !expected.contains(&*named.name.to_string_lossy())
            });
            refuse_named(shelves, &objects, stray.as_ref(), "is not a folder of objects")?;
        }
        Ok(())
    }

    fn only(&self, way: &str, names: &[&CStr]) -> Result<(), StoreError> {
        let listed = if way.is_empty() {
            crate::shelves::listed(self.shelves.root()).at("list", &self.path)?
        } else {
            self.shelves.list(way)?
        };
        let stray = listed.into_iter().find(|named| !names.contains(&named.name.as_c_str()));
        refuse_named(&self.shelves, way, stray.as_ref(), "is nothing that the store puts there")
    }

    /// Every object's file.
    fn census(&self, young_from: SystemTime) -> Result<Vec<Seen>, StoreError> {
        let shelves = &self.shelves;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let look = |seen: &mut Vec<Seen>, owner: usize, shelf: crate::shelves::Shelf| {
            refuse(shelf.strays().first())?;
            for item in shelf.items() {
                let spot = shelf.spot(*item);
                let stat = spot.stat().at("examine", &shelves.path().join(&spot.way))?;
                // Nobody else is here to take it away.
                let Some(stat) = stat else { continue };
                let is_young = time(stat.st_ctime, stat.st_ctime_nsec) >= young_from;
                seen.push(Seen { owner, item: *item, bytes: stat.st_size.unsigned_abs(), is_young });
            }
            Ok(())
        };
        let parts = shelves.each(shelves.tenants(), threads, &AtomicBool::new(false), look)?;
        let mut seen: Vec<Seen> = parts.into_iter().flatten().collect();
        seen.sort_unstable_by_key(|seen| (seen.owner, seen.item));
        Ok(seen)
    }

    fn sort_out(
        &self,
        seen: &[Seen],
        marks: &Marks<'_>,
        named: &HashSet<Key>,
        pins: u64,
    ) -> Result<Plan, GcError> {
        let tenants = self.shelves.tenants();
        let tenant_of = |owner: usize| tenants.get(owner).cloned().unwrap_or_default();
        let missing = marks.missing.iter().map(|(owner, digest)| (tenant_of(*owner), *digest)).collect();
        let (kept, young) = (Count::default(), Count::default());
        let mut plan = Plan { remove: vec![], copies: vec![], kept, named: young, young, pins, missing };
        for Seen { owner, item, bytes, .. } in seen {
            let key = (*owner, item.digest);
            if !marks.live.contains(&key) {
                plan.remove.push(Doomed { tenant: tenant_of(*owner), item: *item, bytes: *bytes });
                continue;
            }
            plan.kept.add(*bytes);
            let why = if named.contains(&key) { &mut plan.named } else { &mut plan.young };
            why.add(*bytes);
        }
        for (owner, tenant) in tenants.iter().enumerate() {
            self.copies(owner, tenant, marks, &mut plan.copies)?;
        }
        Ok(plan)
    }

    /// Materialised copies of objects that do not stay.
    fn copies(
        &self,
        owner: usize,
        tenant: &Tenant,
        marks: &Marks<'_>,
        doomed: &mut Vec<DoomedCopy>,
    ) -> Result<(), StoreError> {
        for (folder, kind) in [("blobs", SFlag::S_IFREG), ("trees", SFlag::S_IFDIR)] {
            let way = format!("tenants/{tenant}/materialised/{folder}");
            let is_tree = kind == SFlag::S_IFDIR;
            for named in self.shelves.list(&way)? {
                let name = named.name.to_string_lossy().into_owned();
                let hex = if is_tree { &name } else { name.strip_suffix(".x").unwrap_or(&name) };
                match BlobDigest::from_hex(hex.as_bytes()) {
                    Some(digest) if named.kind == kind => {
                        if !marks.live.contains(&(owner, digest)) {
                            doomed.push(DoomedCopy { tenant: tenant.clone(), name, is_tree });
                        }
                    }
                    _ => refuse_named(&self.shelves, &way, Some(&named), "is not a materialised copy")?,
                }
            }
        }
        Ok(())
    }

    fn remove_copy(&self, copy: &DoomedCopy) -> Result<(), StoreError> {
        let DoomedCopy { tenant, name, is_tree } = copy;
        let way = format!("tenants/{tenant}/materialised/{}", if *is_tree { "trees" } else { "blobs" });
        let fd = self.shelves.folder(&way)?;
        let path = self.path.join(&way).join(name);
        if !is_tree {
            return remove(&fd, name).at("remove", &path);
        }
        let aside: PathBuf = self.session.next_path();
        nix::fcntl::renameat(&fd, name.as_str(), AT_FDCWD, &aside).at("move to tmp", &path)?;
        discard(&aside);
        Ok(())
    }
}

// === impl Marks ===

impl Marks<'_> {
    fn root(&mut self, root: &Root) -> Result<(), GcError> {
        let Some(owner) = self.tenants.iter().position(|tenant| *tenant == root.tenant) else {
            // A result of a tenant whose folder is gone: nothing of it is there to be kept.
            return Ok(());
        };
        match root.object {
            Object::Blob(digest) => self.blob(owner, digest),
            Object::Tree(digest) => {
                self.tree(owner, BlobDigest::from_bytes(*digest.as_bytes()), Some(&root.by))?
            }
        }
        Ok(())
    }

    /// A pin is of whatever its object is.
    fn pin(&mut self, owner: usize, pin: &Pin, expand: Expand<'_>) -> Result<(), GcError> {
        let (tenant, digest) = (pin.tenant.clone(), pin.digest);
        let by = pin.name.as_ref().map_or_else(|| "a pin".to_owned(), |name| format!("pin {name:?}"));
        let shelves = self.shelves;
        let damaged = |damage| GcError::Damaged { tenant: tenant.clone(), digest, by: by.clone(), damage };
        let Some(spot) = shelves.find(&tenant, &digest)? else {
            return Err(GcError::Missing { tenant, digest, by });
        };
        self.live.insert((owner, digest));
        if spot.verified_manifest().map_err(damaged)?.flatten().is_some() {
            return self.tree(owner, digest, Some(&by));
        }
        let Some(document) = spot.content(MAX_DOCUMENT).map_err(damaged)? else { return Ok(()) };
        for object in expand(&document) {
            self.root(&Root { tenant: tenant.clone(), object, by: format!("{digest}, pinned,") })?;
        }
        Ok(())
    }

    fn blob(&mut self, owner: usize, digest: BlobDigest) {
        if self.live.insert((owner, digest)) && !self.there.contains(&(owner, digest)) {
            self.missing.push((owner, digest));
        }
    }

    /// Marks a tree and everything below it. `by` names the root; without one the tree is only young, and may be incomplete.
    fn tree(&mut self, owner: usize, root: BlobDigest, by: Option<&str>) -> Result<(), GcError> {
        let Some(tenant) = self.tenants.get(owner) else { return Ok(()) };
        let mut waiting = vec![root];
        while let Some(digest) = waiting.pop() {
            if !self.trees.insert((owner, digest)) {
                continue;
            }
            let (tenant, by_words) = (tenant.clone(), by.unwrap_or("a tree that was put lately").to_owned());
            let Some(spot) = self.shelves.find(&tenant, &digest)? else {
                if by.is_some() {
                    return Err(GcError::Missing { tenant, digest, by: by_words });
                }
                continue;
            };
            self.live.insert((owner, digest));
            let found = spot.verified_manifest();
            let found = found.map_err(|damage| GcError::Damaged {
                tenant: tenant.clone(),
                digest,
                by: by_words.clone(),
                damage,
            })?;
            let Some(manifest) = found.flatten() else {
                if by.is_some() {
                    return Err(GcError::NoManifest { tenant, digest, by: by_words });
                }
                continue;
            };
            for entry in manifest.entries() {
                match &entry.node {
                    Node::Blob { digest, .. } if by.is_some() => self.blob(owner, *digest),
                    Node::Blob { digest, .. } => drop(self.live.insert((owner, *digest))),
                    Node::Tree { digest } => waiting.push(BlobDigest::from_bytes(*digest.as_bytes())),
                    Node::Symlink { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// What was put lately, and what it names if it is a tree.
    fn young(&mut self, seen: &[Seen]) -> Result<(), GcError> {
        let shelves = self.shelves;
        for Seen { owner, item, .. } in seen.iter().filter(|seen| seen.is_young) {
            let Some(tenant) = self.tenants.get(*owner) else { continue };
            self.live.insert((*owner, item.digest));
            if self.trees.contains(&(*owner, item.digest)) {
                continue;
            }
            let found = shelves.spot(tenant, *item).manifest();
            let is_tree = found.map_err(|damage| GcError::Damaged {
                tenant: tenant.clone(),
                digest: item.digest,
                by: "having been put lately".to_owned(),
                damage,
            })?;
            if is_tree.flatten().is_some() {
                self.tree(*owner, item.digest, None)?;
            }
        }
        Ok(())
    }
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

impl Doomed {
    /// Which object.
    pub const fn digest(&self) -> BlobDigest {
        self.item.digest
    }
}

// === impl GcError ===

impl GcError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Damaged { .. } => "Corrupt",
            Self::Missing { .. } => "NotFound",
            Self::NoManifest { .. } => "BadManifest",
        }
    }

    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Store(error) => error.hint(),
            Self::Damaged { .. } | Self::Missing { .. } | Self::NoManifest { .. } => {
                "what it names is not known, so nothing is removed: put the object again, or remove what names it (a pin, or its file in proofs/)"
            }
        }
    }
}

fn refuse(stray: Option<&Stray>) -> Result<(), StoreError> {
    match stray {
        Some(Stray { path, why }) => Err(StoreError::Stray { path: path.clone(), why }),
        None => Ok(()),
    }
}

fn refuse_named(
    shelves: &Shelves,
    way: &str,
    stray: Option<&Named>,
    why: &'static str,
) -> Result<(), StoreError> {
    match stray {
        Some(named) => Err(StoreError::Stray { path: shelves.at(way, &named.name), why }),
        None => Ok(()),
    }
}

fn remove(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
