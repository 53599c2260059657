//! Getting: nothing is believed before its digest is.
//!
//! Objects below 16 MiB are read whole, verified, and only then handed out. Larger ones are hashed while they stream;
//! a mismatch is an error in place of the end, so a reader that saw the end has seen the right bytes. What does not
//! match goes to the quarantine and is served no second time.

use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt;

use requiem_model::digest::BlobDigest;

use crate::error::{At, StoreError};
use crate::object::{Encoding, Found, RAW_FROM};
use crate::store::TenantStore;

/// Reads one object. Until it has returned the end (`Ok(0)`), the bytes of an object of 16 MiB or more are unverified.
#[derive(Debug)]
pub struct BlobReader {
    bytes: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Verified already.
    Whole(Cursor<Vec<u8>>),
    Stream(Box<Stream>),
}

#[derive(Debug)]
struct Stream {
    tenant: TenantStore,
    digest: BlobDigest,
    found: Found,
    hasher: blake3::Hasher,
    verified: bool,
}

// === impl TenantStore ===

impl TenantStore {
    /// The verified content of an object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::TooLarge`], [`StoreError::Corrupt`].
    pub fn get_bytes(&self, digest: &BlobDigest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let found = self.find(digest)?.ok_or(StoreError::NotFound { digest: *digest })?;
        self.load(digest, &found, limit)
    }

    /// Opens an object of any size for reading.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Corrupt`] here for objects below 16 MiB, while reading for larger ones.
    pub fn open_blob(&self, digest: &BlobDigest) -> Result<BlobReader, StoreError> {
        let found = self.find(digest)?.ok_or(StoreError::NotFound { digest: *digest })?;
        if found.encoding == Encoding::Zstd || found.meta.len() < RAW_FROM {
            let content = self.load(digest, &found, u64::MAX)?;
            return Ok(BlobReader {
                bytes: content.len() as u64,
                content: Content::Whole(Cursor::new(content)),
            });
        }
        let bytes = found.meta.len();
        let stream = Stream {
            tenant: self.clone(),
            digest: *digest,
            found,
            hasher: blake3::Hasher::new(),
            verified: false,
        };
        Ok(BlobReader { bytes, content: Content::Stream(Box::new(stream)) })
    }
}

// === impl BlobReader ===

impl BlobReader {
    /// Size of the object.
    pub const fn size(&self) -> u64 {
        self.bytes
    }

    /// The store's error behind an error of [`Read`], if it is one.
    pub fn store_error(error: io::Error) -> StoreError {
        StoreError::from_stream(error)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Whole(content) => content.read(buffer),
            Content::Stream(stream) => stream.read(buffer),
        }
    }
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.found.file.read(buffer);
        let read = read.at("read", &self.found.path).map_err(StoreError::into_stream)?;
        self.hasher.update(&buffer[..read]);
        if read == 0 && !self.verified {
            if self.hasher.finalize().as_bytes() != self.digest.as_bytes() {
                let error = self.tenant.condemn(&self.digest, &self.found, "its bytes have another digest");
                return Err(error.into_stream());
            }
            self.verified = true;
            self.tenant.inner.known.insert(self.digest, self.found.meta.ino(), false);
        }
        Ok(read)
    }
}
