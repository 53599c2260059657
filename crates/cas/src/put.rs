//! Putting: one pass, one name at the end.
//!
//! Flow: hash (and, from 16 MiB on, write) while the bytes come in → does the store have it? → temporary file →
//! content sync if the wish is [`Durability::Strict`] → hard link to the object's name → folder sync. A link never
//! replaces: of several writers one wins and the others find the object there.
//!
//! # When is an object a duplicate?
//! A name in the folder is not enough: after a power failure a volatile object may have its size but not its bytes.
//! - A file (that very inode) that this process wrote or verified since it opened the store counts, at the price of
//!   one `open`.
//! - Any other is read and verified first; if it is bad it goes to the quarantine and the new bytes are stored.
//! - For a strict put it must also have been *synced by this process*. Otherwise the put writes and syncs its own copy
//!   and renames it over the old one: relying on a sync of pages that another process wrote would miss write-back
//!   errors that were already reported to that process.

use std::fs::{self, FileTimes, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use requiem_model::digest::BlobDigest;

use crate::durable::{Durability, Receipt};
use crate::error::{At, StoreError};
use crate::examine::changed;
use crate::object::{CHUNK, Encoding, Found, RAW_FROM};
use crate::session::TempFile;
use crate::store::TenantStore;

/// Rounds of "it is there" and "it was bad and is gone" before giving up; two suffice unless somebody corrupts
/// objects as fast as we write them.
const MAX_ROUNDS: usize = 8;

/// An object that was put so lately needs no note that it was put again.
const FRESH: Duration = Duration::from_secs(600);

const IN_MEMORY: usize = 16 * CHUNK;
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Takes bytes and stores them as one object. Keeps at most 16 MiB in memory. Dropped without
/// [`BlobWriter::finish`] it leaves nothing behind.
#[derive(Debug)]
#[must_use = "nothing is stored before finish"]
pub struct BlobWriter {
    tenant: TenantStore,
    wish: Durability,
    buffer: Vec<u8>,
    spill: Option<Spill>,
    failed: bool,
}

/// The part of a large object that has left memory.
#[derive(Debug)]
struct Spill {
    temp: TempFile,
    hasher: blake3::Hasher,
    bytes: u64,
}

// === impl TenantStore ===

impl TenantStore {
    /// Stores `content`. Known duplicates cost no write.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::SyncFailed`], [`StoreError::Io`]; then nothing is promised about `content`.
    pub fn put_bytes(&self, content: &[u8], wish: Durability) -> Result<Receipt, StoreError> {
        self.inner.shared.sync.check()?;
        let digest = BlobDigest::of(content);
        let bytes = content.len() as u64;
        if let Some(receipt) = self.duplicate(&digest, bytes, wish)? {
            return Ok(receipt);
        }
        let (encoding, encoded) = Encoding::choose(content);
        let mut temp = self.inner.shared.session.file()?;
        temp.file.write_all(&encoded).at("write", &temp.path)?;
        self.publish(&temp, &digest, bytes, encoding, wish)
    }

    /// Stores everything that `source` yields.
    ///
    /// # Errors
    /// [`StoreError::Source`] when reading fails; else as [`TenantStore::put_bytes`].
    pub fn put_reader(&self, source: impl Read, wish: Durability) -> Result<Receipt, StoreError> {
        self.put_sized(source, 0, wish)
    }

    /// [`TenantStore::put_reader`] for a source of about `bytes` bytes: large ones skip the buffer.
    pub(crate) fn put_sized(
        &self,
        mut source: impl Read,
        bytes: u64,
        wish: Durability,
    ) -> Result<Receipt, StoreError> {
        let mut writer = self.writer(wish);
        if bytes >= RAW_FROM {
            writer.drain()?;
        }
        let mut chunk = vec![0; CHUNK / 4];
        loop {
            match source.read(&mut chunk) {
                Ok(0) => return writer.finish(),
                Ok(read) => writer.push(&chunk[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::from_stream(error)),
            }
        }
    }

    /// A writer for bytes that come piecemeal.
    pub fn writer(&self, wish: Durability) -> BlobWriter {
        BlobWriter { tenant: self.clone(), wish, buffer: Vec::new(), spill: None, failed: false }
    }

    /// Whether the store has the object under its name. Its bytes are verified when they are read.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Corrupt`] for a name that is not a file.
    pub fn contains(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        Ok(self.find(digest)?.is_some())
    }

    /// The receipt of a put that has nothing to do, see the module's rules.
    fn duplicate(
        &self,
        digest: &BlobDigest,
        bytes: u64,
        wish: Durability,
    ) -> Result<Option<Receipt>, StoreError> {
        if wish == Durability::Strict && !self.inner.known.may_be_synced(digest) {
            return Ok(None);
        }
        let Some(found) = self.find_good(digest, bytes)? else { return Ok(None) };
        freshen(&found, FRESH)?;
        let synced = self.inner.known.get(digest, found.meta.ino()) == Some(true);
        let durability = if synced { Durability::Strict } else { Durability::Volatile };
        let receipt = Receipt { digest: *digest, bytes, durability, deduplicated: true };
        Ok((durability >= wish).then_some(receipt))
    }

    /// The object, if it is there and known or found to be good. A bad one is gone afterwards.
    fn find_good(&self, digest: &BlobDigest, bytes: u64) -> Result<Option<Found>, StoreError> {
        let checked = self.find(digest).and_then(|found| {
            let Some(found) = found else { return Ok(None) };
            if found.encoding == Encoding::Raw && found.meta.len() != bytes {
                return Err(self.condemn(digest, &found, "its size is wrong"));
            }
            if self.inner.known.get(digest, found.meta.ino()).is_none() {
                self.verify(digest, &found)?;
            }
            Ok(Some(found))
        });
        match checked {
            Err(StoreError::Corrupt { .. }) => Ok(None),
            Ok(None) => {
                self.inner.known.remove(digest);
                Ok(None)
            }
            other => other,
        }
    }

    /// Gives a complete temporary file its object's name.
    fn publish(
        &self,
        temp: &TempFile,
        digest: &BlobDigest,
        bytes: u64,
        encoding: Encoding,
        wish: Durability,
    ) -> Result<Receipt, StoreError> {
        let sync = &self.inner.shared.sync;
        if encoding == Encoding::Raw && bytes >= RAW_FROM {
            seal(temp, 0o444)?;
        }
        if wish == Durability::Strict {
            sync.content(&temp.file, &temp.path)?;
        }
        let target = self.object_path(digest, encoding);
        if let Some(receipt) = self.link(temp, &target, digest, bytes, wish)? {
            return Ok(receipt);
        }
        if wish == Durability::Strict {
            self.drop_other_name(digest, encoding)?;
            sync.folder(&self.fan_out(digest))?;
            self.sync_ancestors()?;
        }
        let inode = temp.file.metadata().at("examine", &target)?.ino();
        self.inner.known.insert(*digest, inode, wish == Durability::Strict);
        Ok(Receipt { digest: *digest, bytes, durability: wish, deduplicated: false })
    }

    /// Links the file to its name; a receipt if another's object is kept instead.
    fn link(
        &self,
        temp: &TempFile,
        target: &Path,
        digest: &BlobDigest,
        bytes: u64,
        wish: Durability,
    ) -> Result<Option<Receipt>, StoreError> {
        for _ in 0..MAX_ROUNDS {
            match fs::hard_link(&temp.path, target) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at("link", target);
                }
                Err(_) => {}
            }
            if let Some(receipt) = self.duplicate(digest, bytes, wish)? {
                return Ok(Some(receipt));
            }
            if wish == Durability::Strict {
                self.replace(temp, target)?;
                return Ok(None);
            }
        }
        Err(io::Error::other("its name is taken by an object that keeps going bad")).at("link", target)
    }

    /// Renames the synced file over an object that this process did not sync. Under the lock, because a concurrent
    /// quarantine must not take away the new object for the old one's fault.
    fn replace(&self, temp: &TempFile, target: &Path) -> Result<(), StoreError> {
        let _lock = self.lock_names()?;
        if let Ok(meta) = target.symlink_metadata()
            && meta.is_dir()
        {
            self.move_aside_locked(target, meta.ino())?;
        }
        fs::rename(&temp.path, target).at("rename", target)
    }

    /// An object may have both names, made by versions that chose differently. What a strict receipt promises must
    /// not be hidden by an unsynced copy under the other one.
    fn drop_other_name(&self, digest: &BlobDigest, encoding: Encoding) -> Result<(), StoreError> {
        let other = match encoding {
            Encoding::Raw => self.object_path(digest, Encoding::Zstd),
            Encoding::Zstd => self.object_path(digest, Encoding::Raw),
        };
        match fs::remove_file(&other) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &other),
            _ => Ok(()),
        }
    }
}

/// Notes that the object was put again, in the time of its inode's last change: [`crate::gc`] keeps what was put lately.
fn freshen(found: &Found, fresh: Duration) -> Result<(), StoreError> {
    let is_fresh = SystemTime::now().duration_since(changed(&found.meta)).is_ok_and(|age| age < fresh);
    if is_fresh {
        return Ok(());
    }
    // The mode that it has: this changes nothing but that time.
    found.file.set_permissions(found.meta.permissions()).at("set the mode of", &found.path)
}

/// Fixes mode and time: what is mounted in place looks the same on every host.
pub(crate) fn seal(temp: &TempFile, mode: u32) -> Result<(), StoreError> {
    let times = FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH).set_modified(SystemTime::UNIX_EPOCH);
    temp.file.set_times(times).at("set the times of", &temp.path)?;
    temp.file.set_permissions(Permissions::from_mode(mode)).at("set the mode of", &temp.path)
}

// === impl BlobWriter ===

impl BlobWriter {
    /// Takes more bytes.
    ///
    /// # Errors
    /// As [`TenantStore::put_bytes`]. After an error the writer is useless.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.check()?;
        while !bytes.is_empty() {
            let capacity = if self.spill.is_some() { CHUNK } else { IN_MEMORY };
            let (now, later) = bytes.split_at(bytes.len().min(capacity - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == capacity {
                self.drain()?;
            }
        }
        Ok(())
    }

    /// Stores the object under its digest.
    ///
    /// # Errors
    /// As [`TenantStore::put_bytes`], also when an earlier write had failed.
    pub fn finish(mut self) -> Result<Receipt, StoreError> {
        self.check()?;
        if self.spill.is_some() {
            self.drain()?;
        }
        match self.spill.take() {
            Some(spill) => spill.finish(&self.tenant, self.wish),
            None => self.tenant.put_bytes(&self.buffer, self.wish),
        }
    }

    /// After a failed write the object would have a hole.
    const fn check(&self) -> Result<(), StoreError> {
        if self.failed { Err(StoreError::Abandoned) } else { Ok(()) }
    }

    /// Moves the buffer to the temporary file, which is made on first use.
    fn drain(&mut self) -> Result<(), StoreError> {
        self.try_drain().inspect_err(|_| {
            // The disk may be full: give back what was written of the object at once.
            self.failed = true;
            self.spill = None;
            self.buffer = Vec::new();
        })
    }

    fn try_drain(&mut self) -> Result<(), StoreError> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => {
                self.tenant.inner.shared.sync.check()?;
                let temp = self.tenant.inner.shared.session.file()?;
                self.spill.insert(Spill { temp, hasher: blake3::Hasher::new(), bytes: 0 })
            }
        };
        for chunk in self.buffer.chunks(CHUNK) {
            spill.write(chunk)?;
        }
        self.buffer.clear();
        self.buffer.shrink_to(CHUNK);
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(StoreError::into_stream)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Spill ===

impl Spill {
    /// Hashes and writes; a chunk of zeros becomes a hole, so that sparse files stay sparse.
    fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        if chunk.len() == CHUNK && chunk == ZEROS {
            self.temp.file.seek(SeekFrom::Start(self.bytes)).at("write", &self.temp.path)?;
            return Ok(());
        }
        self.temp.file.write_all(chunk).at("write", &self.temp.path)
    }

    fn finish(self, tenant: &TenantStore, wish: Durability) -> Result<Receipt, StoreError> {
        // For the case that it ends with a hole.
        self.temp.file.set_len(self.bytes).at("write", &self.temp.path)?;
        let digest = BlobDigest::from_bytes(*self.hasher.finalize().as_bytes());
        if let Some(receipt) = tenant.duplicate(&digest, self.bytes, wish)? {
            return Ok(receipt);
        }
        tenant.publish(&self.temp, &digest, self.bytes, Encoding::Raw, wish)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{Store, Tenant};

    #[test]
    fn putting_an_old_object_again_is_noted_in_its_inode_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap().tenant(&Tenant::default()).unwrap();
        let digest = store.put_bytes(b"again", Durability::Volatile).unwrap().digest;
        let found = || store.find(&digest).unwrap().unwrap();
        let before = found().meta;
        // A kept note would be made with the next tick of the file system's clock, which this waits for.
        let begin = Instant::now();
        while changed(&found().meta) == changed(&before) && begin.elapsed() < Duration::from_secs(10) {
            freshen(&found(), Duration::ZERO).unwrap();
        }
        let after = found().meta;
        let same =
            |meta: &fs::Metadata| (meta.ino(), meta.mode(), meta.len(), meta.mtime(), meta.mtime_nsec());
        assert_eq!(same(&after), same(&before));
        assert!(changed(&after) > changed(&before));
        freshen(&found(), FRESH).unwrap();
        assert_eq!(changed(&found().meta), changed(&after), "noted again within ten minutes");
    }
}
