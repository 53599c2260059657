//! Every object of a store, found by walking its folders.
//!
//! The walk goes by descriptor and follows nothing: a folder is opened beneath the one above it, without links and
//! without crossing mounts, so a forged store leads nowhere else. What is not an object by name and kind is a
//! [`Stray`]; the caller judges it.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use requiem_model::digest::BlobDigest;

use crate::error::{At, StoreError};
use crate::fd::{self, open_beneath};
use crate::object::Encoding;
use crate::store::Store;
use crate::tenant::Tenant;

/// Folders that a tenant's objects are spread over.
const FAN_OUT: usize = 256;
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

/// The folders of a store, open for walking.
#[derive(Debug)]
pub struct Shelves {
    root: OwnedFd,
    path: PathBuf,
    tenants: Vec<Tenant>,
    strays: Vec<Stray>,
}

/// One of the 256 folders that hold a tenant's objects.
#[derive(Debug)]
pub struct Shelf {
    tenant: Tenant,
    fd: OwnedFd,
    items: Vec<Item>,
    strays: Vec<Stray>,
}

/// One object's file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    pub(crate) digest: BlobDigest,
    pub(crate) encoding: Encoding,
}

/// Where an object's file is: a folder and the way from there. Opened without following anything.
#[derive(Debug)]
pub struct Spot<'a> {
    pub(crate) folder: BorrowedFd<'a>,
    pub(crate) way: String,
    pub(crate) item: Item,
}

/// Something in the store's folders that the store did not put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: &'static str,
}

/// One entry of a folder.
pub(crate) struct Named {
    pub(crate) name: CString,
    pub(crate) kind: SFlag,
}

// === impl Store ===

impl Store {
    /// Opens the store's folders for walking. Keep the store open meanwhile: that keeps garbage collection out.
    ///
    /// # Errors
    /// A folder cannot be opened, or leads out of the store.
    pub fn shelves(&self) -> Result<Shelves, StoreError> {
        Shelves::open(&self.shared.root)
    }
}

// === impl Shelves ===

impl Shelves {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let root = open(path, FOLDER | OFlag::O_CLOEXEC, Mode::empty()).at("open", path)?;
        let mut shelves = Self { root, path: path.to_owned(), tenants: Vec::new(), strays: Vec::new() };
        for Named { name, kind } in shelves.list("tenants")? {
            let tenant = name.to_str().ok().and_then(|name| Tenant::parse(name).ok());
            match tenant {
                Some(tenant) if kind == SFlag::S_IFDIR => shelves.tenants.push(tenant),
                Some(_) => shelves.stray("tenants", &name, "is not a folder"),
                None => shelves.stray("tenants", &name, "is not the name of a tenant"),
            }
        }
        shelves.tenants.sort();
        Ok(shelves)
    }

    /// Every tenant, in order.
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// What is among the tenants and is none.
    pub fn strays(&self) -> &[Stray] {
        &self.strays
    }

    /// The shelf of `tenant` for digests that begin with `byte`, listed, in order.
    ///
    /// # Errors
    /// It cannot be read, or leads out of the store.
    pub fn shelf(&self, tenant: &Tenant, byte: u8) -> Result<Shelf, StoreError> {
        let way = way(tenant, byte);
        let fd = self.folder(&way)?;
        let (mut items, mut strays) = (Vec::new(), Vec::new());
        let mut stray = |name: &CStr, why| strays.push(Stray { path: self.at(&way, name), why });
        for Named { name, kind } in listed(&fd).at("list", &self.path.join(&way))? {
            match Item::parse(byte, name.to_bytes()) {
                Some(item) if kind == SFlag::S_IFREG => items.push(item),
                Some(_) => stray(&name, "is not a regular file"),
                None => stray(&name, "is not the name of an object of this folder"),
            }
        }
        items.sort_unstable();
        Ok(Shelf { tenant: tenant.clone(), fd, items, strays })
    }

    /// Gives every shelf of `tenants` to one of `threads`, each with a state of its own, until all are done or `stop`.
    pub(crate) fn each<T: Default + Send>(
        &self,
        tenants: &[Tenant],
        threads: usize,
        stop: &AtomicBool,
        work: impl Fn(&mut T, usize, Shelf) -> Result<(), StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        let next = AtomicUsize::new(0);
        let run = || {
            let mut state = T::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(tenant) = tenants.get(number / FAN_OUT) else { return Ok(state) };
                if stop.load(Ordering::Relaxed) {
                    return Ok(state);
                }
                let byte = u8::try_from(number % FAN_OUT).unwrap_or_default();
                work(&mut state, number / FAN_OUT, self.shelf(tenant, byte)?)?;
            }
        };
        on_threads(threads, run).into_iter().collect()
    }

    /// Where the item is, from the root of the store.
    pub(crate) fn spot(&self, tenant: &Tenant, item: Item) -> Spot<'_> {
        let way = format!("{}/{}", way(tenant, item.digest.as_bytes()[0]), item.name());
        Spot { folder: self.root.as_fd(), way, item }
    }

    /// Where the object is, if the store has it.
    pub(crate) fn find(&self, tenant: &Tenant, digest: &BlobDigest) -> Result<Option<Spot<'_>>, StoreError> {
        for encoding in [Encoding::Zstd, Encoding::Raw] {
            let spot = self.spot(tenant, Item { digest: *digest, encoding });
            match fstatat(spot.folder, spot.way.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(_) => return Ok(Some(spot)),
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(error).at("examine", &self.path.join(&spot.way)),
            }
        }
        Ok(None)
    }

    /// Opens a folder of the store.
    pub(crate) fn folder(&self, way: &str) -> Result<OwnedFd, StoreError> {
        beneath(&self.root, way, FOLDER, &self.path.join(way))
    }

    /// Entries of a folder of the store.
    pub(crate) fn list(&self, way: &str) -> Result<Vec<Named>, StoreError> {
        let fd = self.folder(way)?;
        listed(&fd).at("list", &self.path.join(way))
    }

    /// [`Shelves::list`] of a folder that need not be there.
    pub(crate) fn list_if_there(&self, way: &str) -> Result<Vec<Named>, StoreError> {
        match fstatat(&self.root, way, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(Vec::new()),
            _ => self.list(way),
        }
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn at(&self, way: &str, name: &CStr) -> PathBuf {
        self.path.join(way).join(OsStr::from_bytes(name.to_bytes()))
    }

    fn stray(&mut self, way: &str, name: &CStr, why: &'static str) {
        self.strays.push(Stray { path: self.at(way, name), why });
    }
}

// === impl Shelf ===

impl Shelf {
    /// Whose objects they are.
    pub const fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The files of objects, in order of their digests.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The objects, in order of their digests: of one that has both names, the form that is read.
    pub fn objects(&self) -> impl Iterator<Item = Item> {
        let next = self.items.iter().skip(1).map(Some).chain([None]);
        // The compressed form is the later one.
        let pairs = self.items.iter().zip(next);
        pairs.filter(|(item, next)| next.is_none_or(|next| next.digest != item.digest)).map(|(item, _)| *item)
    }

    /// What is no object.
    pub fn strays(&self) -> &[Stray] {
        &self.strays
    }

    /// Where the item is.
    pub fn spot(&self, item: Item) -> Spot<'_> {
        Spot { folder: self.fd.as_fd(), way: item.name(), item }
    }

    pub(crate) fn take_strays(&mut self) -> Vec<Stray> {
        std::mem::take(&mut self.strays)
    }
}

// === impl Spot ===

impl Spot<'_> {
    /// What the file system says of the file; nothing if it is gone.
    pub(crate) fn stat(&self) -> nix::Result<Option<FileStat>> {
        match fstatat(self.folder, self.way.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }
}

// === impl Item ===

impl Item {
    /// The digest in its name.
    pub const fn digest(&self) -> BlobDigest {
        self.digest
    }

    pub(crate) fn name(&self) -> String {
        self.digest.to_hex() + self.encoding.suffix()
    }

    /// Reads the name of an object on the shelf of `byte`.
    fn parse(byte: u8, name: &[u8]) -> Option<Self> {
        let (hex, encoding) = match name.len() {
            64 => (name, Encoding::Raw),
            _ => (name.strip_suffix(b".zst")?, Encoding::Zstd),
        };
        let digest = BlobDigest::from_hex(hex)?;
        (digest.as_bytes()[0] == byte).then_some(Self { digest, encoding })
    }
}

impl fmt::Display for Stray {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.path.display(), self.why)
    }
}

/// Does `work` on so many threads, this one alone if it is one; a panic of one goes on here.
pub(crate) fn on_threads<T: Send>(threads: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    if threads <= 1 {
        return vec![work()];
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let joined = |thread: thread::ScopedJoinHandle<'_, T>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().map(joined).collect()
    })
}

fn way(tenant: &Tenant, byte: u8) -> String {
    format!("tenants/{tenant}/objects/{byte:02x}")
}

/// Opens something of the store; a link or a mount on the way is said to be one.
pub(crate) fn beneath(root: &OwnedFd, way: &str, flags: OFlag, path: &Path) -> Result<OwnedFd, StoreError> {
    open_beneath(root, way, flags).map_err(|errno| match errno {
        Errno::ELOOP => {
            StoreError::Stray { path: path.to_owned(), why: "is or leads through a symbolic link" }
        }
        Errno::EXDEV => StoreError::Stray { path: path.to_owned(), why: "is on another file system" },
        Errno::ENOTDIR => StoreError::Stray { path: path.to_owned(), why: "is not a folder" },
        other => {
            let failed: Result<(), StoreError> = Err(other).at("open", path);
            failed.err().unwrap_or(StoreError::Abandoned)
        }
    })
}

/// Every entry of a folder with its kind.
pub(crate) fn listed(folder: &OwnedFd) -> nix::Result<Vec<Named>> {
    let mut found = Vec::new();
    fd::each_entry(folder, |entry| {
        let name = entry.file_name();
        let kind = match entry.file_type() {
            Some(Type::File) => SFlag::S_IFREG,
            Some(Type::Directory) => SFlag::S_IFDIR,
            Some(_) => SFlag::S_IFLNK,
            // Some file systems do not say.
            None => fd::kind(&fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?),
        };
        found.push(Named { name: name.to_owned(), kind });
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_store_gives_are_objects() {
        let hex = BlobDigest::of(b"hello").to_hex();
        let byte = BlobDigest::of(b"hello").as_bytes()[0];
        let check = |name: &str, is_object: bool| {
            assert_eq!(Item::parse(byte, name.as_bytes()).is_some(), is_object, "{name:?}");
        };
        check(&hex, true);
        check(&format!("{hex}.zst"), true);
        for bad in ["", ".zst", &hex[1..], &format!("{hex}.zstd"), &format!("{hex}0"), &hex.to_uppercase()] {
            check(bad, false);
        }
        assert_eq!(Item::parse(byte ^ 1, hex.as_bytes()), None);
        let item = Item::parse(byte, hex.as_bytes()).unwrap();
        assert_eq!((item.digest(), item.name()), (BlobDigest::of(b"hello"), hex));
    }
}
