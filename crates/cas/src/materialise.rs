//! Objects as files and folders that can be mounted: made once, verified once per process, then handed out by `stat`.
//!
//! # Where they are
//! A raw blob of 16 MiB or more is used in place. Everything else is written to `materialised/`: `blobs/<hex>` (mode
//! 0444), `blobs/<hex>.x` (0555), `trees/<hex>/root` (folders and executables 0555, files 0444, links as they are).
//! Every time is the epoch. Never give a writer access: mount them read-only.
//!
//! # When they are believed
//! - Made by this process: verified while written, moved into place complete.
//! - Found there: on first use in a process everything is read and compared, content, names, modes and times. What
//!   differs goes to the quarantine and is made anew. A power failure may leave a torn copy, and this finds it.
//! - Later in the same process: device, inode, size and change time of the file, or of the tree's root folder, are as
//!   remembered. This does not see a change *inside* a tree by somebody who may write into the store.
//!
//! Making is under one of a few locks, chosen by digest, so that threads do not make the same copy twice; of two
//! processes both may, and one copy wins.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use requiem_model::digest::{BlobDigest, TreeDigest};

use crate::error::{At, StoreError};
use crate::object::{CHUNK, Encoding, RAW_FROM, hash_file};
use crate::put::seal;
use crate::session::TempFile;
use crate::stage;
use crate::store::{TenantStore, locked};

/// Most remembered copies; beyond it they are verified anew.
const MAX_STAMPS: usize = 1 << 16;
const MAX_ROUNDS: usize = 8;
const LOCKS: usize = 64;

/// A file or folder with the content of an object, read-only by convention and by mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Materialised {
    /// Where it is. Valid as long as the store is open: that keeps garbage collection out.
    pub path: PathBuf,
    /// How it came there.
    pub how: How,
}

/// How a materialised object came to be where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is the object itself.
    InPlace,
    /// A copy that was there.
    Cached,
    /// A copy that this call made.
    Made,
}

/// What a process remembers about the copies that it verified.
#[derive(Debug)]
pub(crate) struct Stamps {
    seen: Mutex<HashMap<Key, Stamp>>,
    making: [Mutex<()>; LOCKS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    digest: [u8; 32],
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    InPlace,
    Plain,
    Executable,
    Tree,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

// === impl TenantStore ===

impl TenantStore {
    /// The blob as a file.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Corrupt`], [`StoreError::Full`].
    pub fn materialise_blob(
        &self,
        digest: &BlobDigest,
        executable: bool,
    ) -> Result<Materialised, StoreError> {
        if !executable && let Some(path) = self.in_place(digest)? {
            return Ok(Materialised { path, how: How::InPlace });
        }
        let (form, suffix, mode) =
            if executable { (Form::Executable, ".x", 0o555) } else { (Form::Plain, "", 0o444) };
        let key = Key { digest: *digest.as_bytes(), form };
        let path = self.inner.folder.join("materialised/blobs").join(digest.to_hex() + suffix);
        self.cached_or_made(key, &path, &|| self.blob_is_good(digest, &path, mode), &|| {
            self.make_blob(digest, &path, mode)
        })
    }

    /// The tree as a folder.
    ///
    /// # Errors
    /// As [`TenantStore::materialise_blob`], and [`StoreError::Manifest`], [`StoreError::TreeBounds`].
    pub fn materialise_tree(&self, digest: &TreeDigest) -> Result<Materialised, StoreError> {
        let key = Key { digest: *digest.as_bytes(), form: Form::Tree };
        let outer = self.inner.folder.join("materialised/trees").join(digest.to_hex());
        let path = outer.join("root");
        self.cached_or_made(key, &path, &|| self.tree_is_good(digest, &outer), &|| {
            self.make_tree(digest, &outer)
        })
    }

    /// The order of things: remembered? → (lock) remembered meanwhile? → there and good? → make it.
    fn cached_or_made(
        &self,
        key: Key,
        path: &Path,
        is_good: &dyn Fn() -> Result<bool, StoreError>,
        make: &dyn Fn() -> Result<bool, StoreError>,
    ) -> Result<Materialised, StoreError> {
        let stamps = &self.inner.stamps;
        let done = |how| Ok(Materialised { path: path.to_owned(), how });
        if stamps.matches(&key, path) {
            return done(How::Cached);
        }
        let _making = stamps.lock(&key);
        if stamps.matches(&key, path) {
            return done(How::Cached);
        }
        for _ in 0..MAX_ROUNDS {
            // Stamped before it is verified: a change in between shows as another stamp.
            let before = stamp(path);
            if is_good()? {
                stamps.insert(key, before);
                return done(How::Cached);
            }
            if make()? {
                stamps.insert(key, stamp(path));
                return done(How::Made);
            }
        }
        Err(io::Error::other("its place is taken by a copy that keeps going bad")).at("materialise", path)
    }

    /// The object's own file, if it can be mounted as it is.
    fn in_place(&self, digest: &BlobDigest) -> Result<Option<PathBuf>, StoreError> {
        let path = self.object_path(digest, Encoding::Raw);
        let key = Key { digest: *digest.as_bytes(), form: Form::InPlace };
        let stamps = &self.inner.stamps;
        if stamps.matches(&key, &path) {
            return Ok(Some(path));
        }
        let _making = stamps.lock(&key);
        if stamps.matches(&key, &path) {
            return Ok(Some(path));
        }
        match self.find(digest)? {
            Some(found) if found.encoding == Encoding::Raw && found.meta.len() >= RAW_FROM => {
                self.verify(digest, &found)?;
                stamps.insert(key, Some(Stamp::of(&found.meta)));
                Ok(Some(path))
            }
            _ => Ok(None),
        }
    }

    fn blob_is_good(&self, digest: &BlobDigest, path: &Path, mode: u32) -> Result<bool, StoreError> {
        let Ok(meta) = path.symlink_metadata() else { return Ok(false) };
        let looks_right = meta.is_file() && meta.mode() & 0o7777 == mode && meta.mtime() == 0;
        if looks_right {
            match File::open(path).and_then(|file| hash_file(&file)) {
                Ok(found) if found == *digest => return Ok(true),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("read", path),
                _ => {}
            }
        }
        self.move_aside(path, meta.ino())?;
        Ok(false)
    }

    /// Writes the copy and gives it its name; false if another process was faster.
    fn make_blob(&self, digest: &BlobDigest, path: &Path, mode: u32) -> Result<bool, StoreError> {
        let mut source = self.open_blob(digest)?;
        let mut temp = self.inner.shared.session.file()?;
        let TempFile { file, path: temp_path } = &mut temp;
        copy(&mut source, file, temp_path)?;
        seal(&temp, mode)?;
        match fs::hard_link(&temp.path, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.at("link", path).map(|()| true),
        }
    }

    fn tree_is_good(&self, digest: &TreeDigest, outer: &Path) -> Result<bool, StoreError> {
        let Ok(meta) = outer.symlink_metadata() else { return Ok(false) };
        if meta.is_dir() && stage::is_intact(self, digest, &outer.join("root"))? {
            return Ok(true);
        }
        self.move_aside(outer, meta.ino())?;
        Ok(false)
    }

    /// The outer folder exists because a folder can be renamed only by who may write into it, and `root` is 0555.
    fn make_tree(&self, digest: &TreeDigest, outer: &Path) -> Result<bool, StoreError> {
        stage::measure(self, digest)?;
        let temp = self.inner.shared.session.folder()?;
        stage::build(self, digest, &temp.path.join("root"))?;
        match fs::rename(&temp.path, outer) {
            Err(_) if outer.is_dir() => Ok(false),
            other => other.at("rename", outer).map(|()| true),
        }
    }
}

// === impl Stamps ===

impl Default for Stamps {
    fn default() -> Self {
        Self { seen: Mutex::default(), making: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Stamps {
    /// Whether what is at `path` is what was verified.
    fn matches(&self, key: &Key, path: &Path) -> bool {
        let remembered = locked(&self.seen).get(key).copied();
        remembered.is_some() && remembered == stamp(path)
    }

    fn insert(&self, key: Key, stamp: Option<Stamp>) {
        let Some(stamp) = stamp else { return };
        let mut seen = locked(&self.seen);
        if seen.len() >= MAX_STAMPS {
            seen.clear();
        }
        seen.insert(key, stamp);
    }

    fn lock(&self, key: &Key) -> MutexGuard<'_, ()> {
        locked(&self.making[usize::from(key.digest[0]) % LOCKS])
    }
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        let changed = (meta.ctime(), meta.ctime_nsec());
        Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed }
    }
}

// === impl How ===

impl How {
    /// The name that documents use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InPlace => "in-place",
            Self::Cached => "cached",
            Self::Made => "made",
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    path.symlink_metadata().ok().map(|meta| Stamp::of(&meta))
}

/// Copies to the end, which for the store's readers means: verified. Returns the number of bytes.
pub(crate) fn copy(source: &mut impl Read, target: &mut File, path: &Path) -> Result<u64, StoreError> {
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let read = source.read(&mut chunk).map_err(StoreError::from_stream)?;
        if read == 0 {
            return Ok(bytes);
        }
        target.write_all(&chunk[..read]).at("write", path)?;
        bytes += read as u64;
    }
}
