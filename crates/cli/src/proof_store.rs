//! Whether the objects that a bundle names are in a store, intact and of the claimed size.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use requiem_cas::{BlobReader, Node, StoreError, TenantStore};
use requiem_model::request::InputSource;
use requiem_model::result::{OutputContent, RunResult};
use requiem_model::{BlobDigest, ExecutionRequest, TreeDigest};
use requiem_proof::Verified;

use crate::error::CommandError;
use crate::store;

/// Deepest tree that is followed; the store itself keeps none deeper than 64.
const MAX_DEPTH: usize = 64;

/// What a tree holds: bytes and entries.
type Extent = (u64, u64);

/// Looks at every object once.
struct Look<'a> {
    objects: &'a TenantStore,
    blobs: BTreeMap<[u8; 32], u64>,
    trees: BTreeMap<[u8; 32], Extent>,
}

/// Reads every object that the bundle names and gives back how many there are.
pub(crate) fn check(verified: &Verified, cas: &Path, tenant: &str) -> Result<u64, CommandError> {
    if !cas.is_dir() {
        let message = format!("there is no store at {}", cas.display());
        return Err(CommandError::unusable("NoStore", message, "name the folder of a store with --cas DIR"));
    }
    let objects = store::open(Some(cas), tenant)?;
    let mut look = Look::into(&objects);
    look.inputs(&verified.body.execution.request)?;
    look.results(&verified.body.execution.result)?;
    Ok(look.count())
}

/// Reads every object that came out of a run and gives back how many there are.
pub(crate) fn check_results(verified: &Verified, results: &TenantStore) -> Result<u64, CommandError> {
    let mut look = Look::into(results);
    look.results(&verified.body.execution.result)?;
    Ok(look.count())
}

impl<'a> Look<'a> {
    const fn into(objects: &'a TenantStore) -> Self {
        Self { objects, blobs: BTreeMap::new(), trees: BTreeMap::new() }
    }

    fn count(&self) -> u64 {
        (self.blobs.len() + self.trees.len()) as u64
    }

    fn inputs(&mut self, request: &ExecutionRequest) -> Result<(), CommandError> {
        for input in &request.inputs {
            let named = |error| missing(&format!("input {}", input.path), error);
            match &input.source {
                InputSource::Blob { digest, .. } => self.blob(digest).map(drop).map_err(named)?,
                InputSource::Tree { digest } => self.tree(digest, 0).map(drop).map_err(named)?,
            }
        }
        if let Some(digest) = &request.stdin {
            self.blob(digest).map_err(|error| missing("stdin", error))?;
        }
        Ok(())
    }

    fn results(&mut self, result: &RunResult) -> Result<(), CommandError> {
        for (name, stream) in [("stdout", &result.stdout), ("stderr", &result.stderr)] {
            let bytes = self.blob(&stream.digest).map_err(|error| missing(name, error))?;
            same(name, (bytes, 0), (stream.bytes, 0))?;
        }
        for output in &result.outputs {
            let name = format!("output {}", output.path);
            let named = |error| missing(&name, error);
            match &output.content {
                OutputContent::Blob { digest, bytes, .. } => {
                    same(&name, (self.blob(digest).map_err(named)?, 0), (*bytes, 0))?
                }
                OutputContent::Tree { digest, bytes, entries } => {
                    same(&name, self.tree(digest, 0).map_err(named)?, (*bytes, *entries))?;
                }
            }
        }
        Ok(())
    }

    fn blob(&mut self, digest: &BlobDigest) -> Result<u64, StoreError> {
        if let Some(bytes) = self.blobs.get(digest.as_bytes()) {
            return Ok(*bytes);
        }
        let mut reader = self.objects.open_blob(digest)?;
        let bytes = io::copy(&mut reader, &mut io::sink()).map_err(BlobReader::store_error)?;
        self.blobs.insert(*digest.as_bytes(), bytes);
        Ok(bytes)
    }

    fn tree(&mut self, digest: &TreeDigest, depth: usize) -> Result<Extent, StoreError> {
        if let Some(extent) = self.trees.get(digest.as_bytes()) {
            return Ok(*extent);
        }
        if depth > MAX_DEPTH {
            return Err(StoreError::NotFound { digest: BlobDigest::from_bytes(*digest.as_bytes()) });
        }
        let manifest = self.objects.manifest(digest)?;
        let mut extent: Extent = (0, 0);
        for entry in manifest.entries() {
            let (bytes, entries) = match &entry.node {
                Node::Blob { digest, .. } => (self.blob(digest)?, 0),
                Node::Tree { digest } => self.tree(digest, depth + 1)?,
                Node::Symlink { .. } => (0, 0),
            };
            extent = (extent.0.saturating_add(bytes), extent.1.saturating_add(entries).saturating_add(1));
        }
        self.trees.insert(*digest.as_bytes(), extent);
        Ok(extent)
    }
}

fn missing(what: &str, error: StoreError) -> CommandError {
    let hint = "get the object from where the bundle was made, or name another store or --tenant";
    CommandError::finding("E_STORE", format!("{what} is not intact in the store: {error}"), hint)
}

fn same(what: &str, found: Extent, claimed: Extent) -> Result<(), CommandError> {
    if found == claimed {
        return Ok(());
    }
    let message = format!("{what} has {} bytes in the store, not {} as the bundle says", found.0, claimed.0);
    Err(CommandError::finding(
        "E_STORE",
        message,
        "do not rely on this bundle: it is wrong about its own objects",
    ))
}
