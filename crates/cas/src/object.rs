//! One object on disk: its name, its encoding, and the only way to believe its bytes.
//!
//! An object is `objects/<first 2 hex digits>/<64 hex digits>` (the bytes themselves) or the same name with `.zst`
//! (one zstd frame that states its content size). The name says everything, there is no header: a raw object can be
//! mounted in place, and `b3sum` or `zstd -dc | b3sum` checks any object by hand.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use requiem_model::digest::BlobDigest;

use crate::error::{At, StoreError};
use crate::fd::CAREFUL;
use crate::store::TenantStore;

/// Objects of this size and larger are kept raw, so that they can be mounted in place.
pub const RAW_FROM: u64 = 16 * 1024 * 1024;

/// Unit of streaming: large enough for the hash's widest code path, small enough for many streams.
pub(crate) const CHUNK: usize = 1024 * 1024;
/// Unit of hashing a file: it stays in the processor's caches meanwhile. Four times as much costs five times the copying.
pub(crate) const BITE: usize = 64 * 1024;

/// Shorter content cannot save enough to be worth a frame.
const MIN_COMPRESS: usize = 128;
/// Content from this size on is judged by samples before all of it is compressed.
const PROBE_FROM: usize = 256 * 1024;
const PROBE: usize = 64 * 1024;

/// How the bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Encoding {
    Raw,
    Zstd,
}

/// An object's file, open, its content not yet believed.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) meta: Metadata,
    pub(crate) encoding: Encoding,
}

thread_local! {
    /// A zstd context is a megabyte to set up, a small object a few microseconds to compress.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

// === impl Encoding ===

impl Encoding {
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Raw => "",
            Self::Zstd => ".zst",
        }
    }

    /// The encoding that pays for `content`, and the bytes to write.
    pub(crate) fn choose(content: &[u8]) -> (Self, Cow<'_, [u8]>) {
        let worth =
            content.len() >= MIN_COMPRESS && (content.len() as u64) < RAW_FROM && samples_shrink(content);
        match worth.then(|| compress(content)).flatten() {
            Some(frame) => (Self::Zstd, Cow::Owned(frame)),
            None => (Self::Raw, Cow::Borrowed(content)),
        }
    }
}

/// At least 5 % smaller, or not worth the reader's time.
const fn pays(before: usize, after: usize) -> bool {
    after <= before - before / 20
}

/// The frame at level 1, if it pays. A compressor that fails costs space, not correctness: the object stays raw.
fn compress(content: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(1).ok();
        }
        slot.as_mut()?.compress(content).ok().filter(|frame| pays(content.len(), frame.len()))
    })
}

fn samples_shrink(content: &[u8]) -> bool {
    let middle = content.len() / 2;
    content.len() < PROBE_FROM
        || compress(&content[..PROBE]).is_some()
        || compress(&content[middle..middle + PROBE]).is_some()
}

// === impl TenantStore ===

impl TenantStore {
    /// Where the object is, or would be.
    pub(crate) fn object_path(&self, digest: &BlobDigest, encoding: Encoding) -> PathBuf {
        self.fan_out(digest).join(digest.to_hex() + encoding.suffix())
    }

    /// Opens the object, under whichever name it has.
    pub(crate) fn find(&self, digest: &BlobDigest) -> Result<Option<Found>, StoreError> {
        for encoding in [Encoding::Zstd, Encoding::Raw] {
            let path = self.object_path(digest, encoding);
            match open_regular(&path) {
                Ok(Some((file, meta))) => return Ok(Some(Found { file, path, meta, encoding })),
                Ok(None) => {}
                Err(NotRegular::Kind(inode)) => {
                    return Err(self.condemn_path(digest, &path, inode, "not a file"));
                }
                Err(NotRegular::Io(error)) => return Err(error).at("open", &path),
            }
        }
        Ok(None)
    }

    /// The verified content of an object that was found, whole in memory.
    pub(crate) fn load(&self, digest: &BlobDigest, found: &Found, limit: u64) -> Result<Vec<u8>, StoreError> {
        let content = match found.encoding {
            Encoding::Raw => {
                check_limit(digest, found.meta.len(), limit)?;
                read_whole(found)?
            }
            Encoding::Zstd => {
                let frame = read_whole(found)?;
                let bytes = match frame_content(&frame) {
                    Ok(bytes) => bytes,
                    Err(why) => return Err(self.condemn(digest, found, why)),
                };
                check_limit(digest, bytes as u64, limit)?;
                match zstd::bulk::decompress(&frame, bytes) {
                    Ok(content) => content,
                    Err(error) => {
                        return Err(self.condemn(digest, found, &format!("its frame is bad: {error}")));
                    }
                }
            }
        };
        if BlobDigest::of(&content) == *digest {
            self.inner.known.insert(*digest, found.meta.ino(), false);
            Ok(content)
        } else {
            Err(self.condemn(digest, found, "its bytes have another digest"))
        }
    }

    /// Verifies an object that was found, without keeping its content.
    pub(crate) fn verify(&self, digest: &BlobDigest, found: &Found) -> Result<(), StoreError> {
        if found.encoding == Encoding::Zstd || found.meta.len() < RAW_FROM {
            return self.load(digest, found, u64::MAX).map(drop);
        }
        if hash_file(&found.file).at("read", &found.path)? == *digest {
            self.inner.known.insert(*digest, found.meta.ino(), false);
            Ok(())
        } else {
            Err(self.condemn(digest, found, "its bytes have another digest"))
        }
    }

    /// Moves a bad object to the quarantine and makes the error that says so.
    pub(crate) fn condemn(&self, digest: &BlobDigest, found: &Found, why: &str) -> StoreError {
        self.condemn_path(digest, &found.path, found.meta.ino(), why)
    }

    fn condemn_path(&self, digest: &BlobDigest, path: &Path, inode: u64, why: &str) -> StoreError {
        self.inner.known.remove(digest);
        let fate = match self.move_aside(path, inode) {
            Ok(true) => "moved to the quarantine".to_owned(),
            Ok(false) => "it was replaced meanwhile".to_owned(),
            Err(error) => format!("it could not be moved to the quarantine: {error}"),
        };
        StoreError::Corrupt { digest: *digest, why: format!("{why}; {fate}") }
    }
}

enum NotRegular {
    /// Something that is not a regular file, with its inode.
    Kind(u64),
    Io(io::Error),
}

impl From<io::Error> for NotRegular {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens a regular file; links are not followed, FIFOs and devices not waited for.
fn open_regular(path: &Path) -> Result<Option<(File, Metadata)>, NotRegular> {
    let file = match OpenOptions::new().read(true).custom_flags(CAREFUL).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link, a socket, a device without a driver.
        Err(error) if [Errno::ELOOP, Errno::ENXIO, Errno::ENODEV].iter().any(|e| is(&error, *e)) => {
            return Err(NotRegular::Kind(path.symlink_metadata()?.ino()));
        }
        Err(error) => return Err(error.into()),
    };
    let meta = file.metadata()?;
    if meta.is_file() { Ok(Some((file, meta))) } else { Err(NotRegular::Kind(meta.ino())) }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

const fn check_limit(digest: &BlobDigest, bytes: u64, limit: u64) -> Result<(), StoreError> {
    if bytes > limit { Err(StoreError::TooLarge { digest: *digest, bytes, limit }) } else { Ok(()) }
}

fn read_whole(found: &Found) -> Result<Vec<u8>, StoreError> {
    let size = usize::try_from(found.meta.len()).unwrap_or(0);
    let mut content = Vec::with_capacity(size);
    (&found.file).read_to_end(&mut content).at("read", &found.path)?;
    Ok(content)
}

/// The content size that a frame states, if it is one that we would have written: a forged header must not make us
/// reserve memory.
pub(crate) fn frame_content(frame: &[u8]) -> Result<usize, &'static str> {
    match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(bytes)) if bytes < RAW_FROM => usize::try_from(bytes).map_err(|_| "its frame is too large"),
        Ok(Some(_)) => Err("its frame is too large"),
        Ok(None) => Err("its frame states no content size"),
        Err(_) => Err("it does not begin with a zstd frame"),
    }
}

/// BLAKE3 of a whole file, from its start, without moving the file's position.
pub(crate) fn hash_file(file: &File) -> io::Result<BlobDigest> {
    hash_file_by(file, &mut Vec::new())
}

/// [`hash_file`] with a buffer of the caller's.
pub(crate) fn hash_file_by(file: &File, bite: &mut Vec<u8>) -> io::Result<BlobDigest> {
    bite.resize(BITE, 0);
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    loop {
        match file.read_at(bite, at) {
            Ok(0) => return Ok(BlobDigest::from_bytes(*hasher.finalize().as_bytes())),
            Ok(read) => {
                hasher.update(&bite[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_that_shrinks_is_compressed() {
        let random: Vec<u8> = (0..4096u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        let check = |content: &[u8], encoding| assert_eq!(Encoding::choose(content).0, encoding);
        check(b"", Encoding::Raw);
        check(&[b'a'; MIN_COMPRESS - 1], Encoding::Raw);
        check(&[b'a'; MIN_COMPRESS], Encoding::Zstd);
        check(&random, Encoding::Raw);
        check(&vec![b'a'; 1 << 20], Encoding::Zstd);
        check(&random.repeat(1), Encoding::Raw);
    }

    #[test]
    fn a_frame_cannot_claim_more_than_we_write() {
        let frame = zstd::bulk::compress(&vec![0; 17 << 20], 1).unwrap();
        assert_eq!(frame_content(&frame), Err("its frame is too large"));
        assert_eq!(frame_content(&zstd::bulk::compress(&[0; 1000], 1).unwrap()), Ok(1000));
        assert!(frame_content(b"plain").is_err() && frame_content(b"").is_err());
    }

    #[test]
    fn five_percent_is_the_border() {
        assert!(pays(1000, 950) && !pays(1000, 951));
    }
}
