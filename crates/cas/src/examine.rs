//! Looking at objects without believing, moving or changing them: what [`crate::audit`] and [`crate::gc`] do to a store
//! that they must not touch. Reads do not count as accesses where the kernel lets us say so.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use requiem_model::digest::BlobDigest;

use crate::error::{At, StoreError};
use crate::fd::{open_beneath, read_flags};
use crate::object::{BITE, Encoding, RAW_FROM, frame_content, hash_file_by};
use crate::shelves::{Item, Shelf, Shelves, Spot, on_threads};
use crate::tenant::Tenant;
use crate::tree::{MAX_MANIFEST_BYTES, Manifest, Node};

/// How every manifest begins: canonical JSON sorts the names of members.
const MANIFEST_BEGINS: &[u8] = b"{\"entries\":[";
/// Larger than any frame of content that may be compressed.
const MAX_FRAME: u64 = RAW_FROM + RAW_FROM / 64;
/// Unit of work when several threads hash one file. A power of two, as the tree of BLAKE3 demands.
const SEGMENT: u64 = 8 * 1024 * 1024;

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers { bite: Vec::new(), frame: Vec::new(), content: Vec::new() }) };
}

struct Buffers {
    bite: Vec<u8>,
    frame: Vec<u8>,
    content: Vec<u8>,
}

/// What is wrong with an object's file. [`Damage::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The disk or the permissions forbid reading it.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// A folder, link, device, FIFO or socket has its name.
    #[error("it is not a regular file")]
    NotAFile,
    /// It is not one zstd frame as the store writes them.
    #[error("its frame is bad: {0}")]
    Frame(String),
    /// Its bytes have another digest.
    #[error("its bytes have the digest {0}")]
    Digest(BlobDigest),
}

/// What an object is to readers of trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Blob,
    /// Bytes that are a folder manifest. Whether somebody put a folder, or these bytes, nobody can tell.
    Tree,
}

/// Sizes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Of its content; for a compressed object as its frame states it.
    pub plain: u64,
    /// Of its file.
    pub stored: u64,
}

/// What the store knows of one object.
#[derive(Debug)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// How large.
    pub sizes: Sizes,
    /// Whether it is kept compressed.
    pub compressed: bool,
    /// When its file was made, where the file system keeps that.
    pub created: Option<SystemTime>,
    /// When somebody last put it.
    pub put: SystemTime,
    /// When its file was last read.
    pub read: LastRead,
}

/// When a file was last read, as far as the file system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastRead {
    /// The file system keeps no access times.
    NotKept,
    /// Not since it was last put.
    NotSincePut,
    /// At this time; where the file system keeps access times to the day (`relatime`), perhaps again within a day after it.
    At {
        /// The access time.
        time: SystemTime,
        /// Whether it is kept to the day only.
        to_the_day: bool,
    },
}

// === impl Damage ===

impl Damage {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::NotAFile => "NotAFile",
            Self::Frame(_) => "BadFrame",
            Self::Digest(_) => "WrongDigest",
        }
    }
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

// === impl Kind ===

impl Kind {
    /// The name that documents use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
        }
    }
}

// === impl Shelves ===

impl Shelves {
    /// What the store knows of an object; nothing if it does not have it. Its bytes are not verified, unless it looks like a tree.
    ///
    /// # Errors
    /// The store cannot be read, or the object is damaged.
    pub fn facts(&self, tenant: &Tenant, digest: &BlobDigest) -> Result<Option<Facts>, StoreError> {
        let Some(spot) = self.find(tenant, digest)? else { return Ok(None) };
        let corrupt = |damage: Damage| StoreError::Corrupt { digest: *digest, why: damage.to_string() };
        let Some((file, meta)) = spot.open().map_err(corrupt)? else { return Ok(None) };
        let sizes = sizes(&file, &meta, spot.item.encoding).map_err(corrupt)?;
        let Some(kind) = spot.kind().map_err(corrupt)? else { return Ok(None) };
        let flags = fstatvfs(self.root()).at("examine", self.path())?.flags();
        Ok(Some(Facts {
            kind,
            sizes,
            compressed: spot.item.encoding == Encoding::Zstd,
            created: meta.created().ok(),
            put: changed(&meta),
            read: LastRead::of(&meta, flags),
        }))
    }

    /// The verified content of an object of at most `limit` bytes; nothing if it is larger or not there. A damaged one stays where it is.
    ///
    /// # Errors
    /// The store cannot be read, or the object is damaged.
    pub fn read(
        &self,
        tenant: &Tenant,
        digest: &BlobDigest,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(spot) = self.find(tenant, digest)? else { return Ok(None) };
        spot.content(limit).map_err(|damage| StoreError::Corrupt { digest: *digest, why: damage.to_string() })
    }

    /// The trees of `tenant` that name the object as an entry, in order, and how many objects could not be read to find out.
    ///
    /// # Errors
    /// A folder of the store cannot be listed, or leads out of it.
    pub fn trees_naming(
        &self,
        tenant: &Tenant,
        digest: &BlobDigest,
        threads: usize,
    ) -> Result<(Vec<BlobDigest>, u64), StoreError> {
        let names = |manifest: &Manifest| {
            manifest.entries().iter().any(|entry| match &entry.node {
                Node::Blob { digest: named, .. } => named == digest,
                Node::Tree { digest: named } => named.as_bytes() == digest.as_bytes(),
                Node::Symlink { .. } => false,
            })
        };
        type Part = (Vec<BlobDigest>, u64);
        let tenants = std::slice::from_ref(tenant);
        let parts = self.each(tenants, threads, &AtomicBool::new(false), |part: &mut Part, _, shelf| {
            for item in shelf.items() {
                match shelf.spot(*item).manifest() {
                    Ok(Some(Some(manifest))) if names(&manifest) => part.0.push(item.digest),
                    Ok(_) => {}
                    Err(_) => part.1 += 1,
                }
            }
            Ok(())
        })?;
        let unread = parts.iter().map(|(_, unread)| unread).sum();
        let mut trees: Vec<BlobDigest> = parts.into_iter().flat_map(|(trees, _)| trees).collect();
        trees.sort_unstable();
        trees.dedup();
        Ok((trees, unread))
    }
}

impl Shelf {
    /// What an object of this shelf is; nothing if it is gone. Its bytes are not verified, unless they look like a manifest.
    ///
    /// # Errors
    /// It is damaged.
    pub fn look(&self, item: Item) -> Result<Option<(Kind, Sizes)>, Damage> {
        let spot = self.spot(item);
        let Some((file, meta)) = spot.open()? else { return Ok(None) };
        let sizes = sizes(&file, &meta, item.encoding)?;
        Ok(spot.kind()?.map(|kind| (kind, sizes)))
    }
}

impl LastRead {
    fn of(meta: &Metadata, flags: FsFlags) -> Self {
        let read = time(meta.atime(), meta.atime_nsec());
        if flags.intersects(FsFlags::ST_NOATIME | FsFlags::ST_RDONLY) {
            Self::NotKept
        } else if read <= changed(meta) {
            Self::NotSincePut
        } else {
            Self::At { time: read, to_the_day: flags.contains(FsFlags::ST_RELATIME) }
        }
    }
}

// === impl Spot ===

impl Spot<'_> {
    /// Opens the file; nothing if it is gone: another process replaced it, or moved it to the quarantine.
    pub(crate) fn open(&self) -> Result<Option<(File, Metadata)>, Damage> {
        let with = |flags| open_beneath(self.folder, self.way.as_str(), read_flags() | flags);
        let opened = match with(OFlag::O_NOATIME) {
            // Only the owner may ask for that.
            Err(Errno::EPERM) => with(OFlag::empty()),
            other => other,
        };
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP | Errno::ENXIO | Errno::ENODEV | Errno::EXDEV) => return Err(Damage::NotAFile),
            Err(errno) => return Err(Damage::Unreadable(errno.into())),
        };
        let meta = file.metadata()?;
        if meta.is_file() { Ok(Some((file, meta))) } else { Err(Damage::NotAFile) }
    }

    /// Reads and hashes everything; gives back the sizes that were found. Nothing if the object is gone, or if `stop` was set
    /// meanwhile. Larger files than a segment are read by `threads` if they are several.
    pub(crate) fn check(&self, threads: usize, stop: &AtomicBool) -> Result<Option<Sizes>, Damage> {
        let Some((file, meta)) = self.open()? else { return Ok(None) };
        let stored = meta.len();
        let (found, plain) = match self.item.encoding {
            Encoding::Zstd => BUFFERS.with_borrow_mut(|buffers| {
                buffers.decompress(&file, &meta)?;
                Ok::<_, Damage>((BlobDigest::of(&buffers.content), buffers.content.len() as u64))
            })?,
            Encoding::Raw if stored > SEGMENT => match hash_wide(&file, stored, threads, stop)? {
                Some(found) => (found, stored),
                None => return Ok(None),
            },
            Encoding::Raw => {
                (BUFFERS.with_borrow_mut(|buffers| hash_file_by(&file, &mut buffers.bite))?, stored)
            }
        };
        self.has(found)?;
        Ok(Some(Sizes { plain, stored }))
    }

    /// The verified content, if it is not longer than `limit`.
    pub(crate) fn content(&self, limit: u64) -> Result<Option<Vec<u8>>, Damage> {
        let Some((file, meta)) = self.open()? else { return Ok(None) };
        if sizes(&file, &meta, self.item.encoding)?.plain > limit {
            return Ok(None);
        }
        let content = match self.item.encoding {
            Encoding::Raw => {
                let mut content = Vec::new();
                // No more than was allowed, should it grow.
                (&file).take(limit).read_to_end(&mut content)?;
                content
            }
            Encoding::Zstd => BUFFERS.with_borrow_mut(|buffers| {
                buffers.decompress(&file, &meta)?;
                Ok::<_, Damage>(buffers.content.clone())
            })?,
        };
        self.has(BlobDigest::of(&content))?;
        Ok(Some(content))
    }

    /// Whether the bytes are a folder manifest; nothing if the object is gone. Reads a few bytes of most objects.
    pub(crate) fn kind(&self) -> Result<Option<Kind>, Damage> {
        let manifest = self.manifest()?;
        Ok(manifest.map(|manifest| if manifest.is_some() { Kind::Tree } else { Kind::Blob }))
    }

    /// The manifest that the bytes are, if they are one; nothing at all if the object is gone.
    pub(crate) fn manifest(&self) -> Result<Option<Option<Manifest>>, Damage> {
        let Some((file, meta)) = self.open()? else { return Ok(None) };
        let largest = MAX_MANIFEST_BYTES as u64;
        if sizes(&file, &meta, self.item.encoding)?.plain > largest || !begins_as_manifest(&file, self.item)?
        {
            return Ok(Some(None));
        }
        let content = self.content(largest)?;
        Ok(content.map(|content| Manifest::decode(&content).ok()))
    }

    /// As [`Spot::manifest`], but every byte of anything that is not too large for a manifest is verified, so that a damaged manifest is
    /// not taken for a blob.
    pub(crate) fn verified_manifest(&self) -> Result<Option<Option<Manifest>>, Damage> {
        let Some((file, meta)) = self.open()? else { return Ok(None) };
        let largest = MAX_MANIFEST_BYTES as u64;
        if sizes(&file, &meta, self.item.encoding)?.plain > largest {
            return Ok(Some(None));
        }
        let content = self.content(largest)?;
        let decode = |content: Vec<u8>| {
            content.starts_with(MANIFEST_BEGINS).then(|| Manifest::decode(&content).ok()).flatten()
        };
        Ok(content.map(decode))
    }

    fn has(&self, found: BlobDigest) -> Result<(), Damage> {
        if found == self.item.digest { Ok(()) } else { Err(Damage::Digest(found)) }
    }
}

/// Sizes of an open object.
pub(crate) fn sizes(file: &File, meta: &Metadata, encoding: Encoding) -> Result<Sizes, Damage> {
    let stored = meta.len();
    let plain = match encoding {
        Encoding::Raw => stored,
        Encoding::Zstd => {
            // Longest header of a frame, RFC 8878, section 3.1.1.1.
            let mut header = [0; 18];
            let read = read_up_to(file, &mut header)?;
            frame_content(&header[..read]).map_err(|why| Damage::Frame(why.to_owned()))? as u64
        }
    };
    Ok(Sizes { plain, stored })
}

fn begins_as_manifest(file: &File, item: Item) -> Result<bool, Damage> {
    let mut begin = [0; MANIFEST_BEGINS.len()];
    let read = match item.encoding {
        Encoding::Raw => read_up_to(file, &mut begin)?,
        Encoding::Zstd => {
            let bad = |error: io::Error| Damage::Frame(error.to_string());
            let source = io::BufReader::with_capacity(4096, file);
            let mut frame = zstd::stream::read::Decoder::with_buffer(source).map_err(bad)?;
            match frame.read_exact(&mut begin) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                other => other.map(|()| begin.len()).map_err(bad)?,
            }
        }
    };
    Ok(&begin[..read] == MANIFEST_BEGINS)
}

/// Fills the buffer from the start of the file as far as it goes.
fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

impl Buffers {
    /// Puts the content of a compressed object into the buffer.
    fn decompress(&mut self, file: &File, meta: &Metadata) -> Result<(), Damage> {
        if meta.len() > MAX_FRAME {
            return Err(Damage::Frame("it is longer than any that the store writes".to_owned()));
        }
        self.frame.clear();
        let mut source = file;
        source.by_ref().take(MAX_FRAME).read_to_end(&mut self.frame)?;
        let bytes = frame_content(&self.frame).map_err(|why| Damage::Frame(why.to_owned()))?;
        self.content.resize(bytes, 0);
        let written = zstd::bulk::decompress_to_buffer(&self.frame, &mut self.content);
        match written {
            Ok(written) if written == bytes => Ok(()),
            Ok(_) => Err(Damage::Frame("it holds less than it states".to_owned())),
            Err(error) => Err(Damage::Frame(error.to_string())),
        }
    }
}

/// BLAKE3 of a file of `bytes` bytes by several threads: each hashes segments, which are subtrees of BLAKE3's tree, and their
/// parents are made at the end. Nothing if `stop` was set before the end.
///
/// Source: the BLAKE3 paper, section 2.1 (the shape of the tree).
fn hash_wide(file: &File, bytes: u64, threads: usize, stop: &AtomicBool) -> io::Result<Option<BlobDigest>> {
    let segments = bytes.div_ceil(SEGMENT);
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut done, mut bite) = (Vec::new(), vec![0; BITE]);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let begin = number as u64 * SEGMENT;
            if begin >= bytes || stop.load(Ordering::Relaxed) {
                return Ok(done);
            }
            done.push((number, segment(file, begin, bytes.min(begin + SEGMENT), &mut bite)?));
        }
    };
    let parts: Vec<io::Result<Vec<(usize, ChainingValue)>>> = on_threads(threads, work);
    let mut values = parts.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
    if (values.len() as u64) < segments {
        return Ok(None);
    }
    values.sort_unstable_by_key(|(number, _)| *number);
    let values: Vec<ChainingValue> = values.into_iter().map(|(_, value)| value).collect();
    let (left, right) = values.split_at(left_of(values.len()));
    let root = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    Ok(Some(BlobDigest::from_bytes(*root.as_bytes())))
}

fn segment(file: &File, begin: u64, end: u64, bite: &mut [u8]) -> io::Result<ChainingValue> {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(begin);
    let mut at = begin;
    while at < end {
        let want = bite.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match file.read_at(&mut bite[..want], at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                hasher.update(&bite[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finalize_non_root())
}

fn subtree(values: &[ChainingValue]) -> ChainingValue {
    if let [only] = values {
        return *only;
    }
    let (left, right) = values.split_at(left_of(values.len()));
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// The largest power of two below `count`, which is at least two.
const fn left_of(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// When the file system last changed anything about the file but its bytes: for an object, when somebody last put it.
pub(crate) fn changed(meta: &Metadata) -> SystemTime {
    time(meta.ctime(), meta.ctime_nsec())
}

pub(crate) fn time(seconds: i64, nanos: i64) -> SystemTime {
    let nanos = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { SystemTime::UNIX_EPOCH - whole } else { SystemTime::UNIX_EPOCH + whole };
    base + nanos
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn several_threads_find_the_digest_that_one_finds() {
        let mut file = tempfile::tempfile().unwrap();
        let mut content = vec![0; usize::try_from(SEGMENT).unwrap() * 5 + 12_345];
        blake3::Hasher::new().update(b"wide").finalize_xof().fill(&mut content);
        file.write_all(&content).unwrap();
        let segment = usize::try_from(SEGMENT).unwrap();
        let lengths =
            [segment + 1, segment * 2, segment * 3, segment * 3 + 1024, segment * 4 + 1, content.len()];
        for length in lengths {
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(&content[..length]).unwrap();
            for threads in [1, 2, 5] {
                let found = hash_wide(&file, length as u64, threads, &AtomicBool::new(false)).unwrap();
                assert_eq!(
                    found,
                    Some(BlobDigest::of(&content[..length])),
                    "{length} bytes, {threads} threads"
                );
            }
        }
        assert_eq!(hash_file_by(&file, &mut Vec::new()).unwrap(), BlobDigest::of(&content));
        let shrunk = hash_wide(&file, content.len() as u64 + 1, 2, &AtomicBool::new(false));
        assert!(shrunk.is_err(), "a file that shrank");
        assert_eq!(hash_wide(&file, content.len() as u64, 2, &AtomicBool::new(true)).unwrap(), None);
    }

    #[test]
    fn a_manifest_begins_as_it_is_encoded() {
        assert!(Manifest::default().encode().unwrap().starts_with(MANIFEST_BEGINS));
    }
}
