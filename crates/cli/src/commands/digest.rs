//! `requiem digest`: plain BLAKE3 of a file, what `b3sum` prints and the store uses. Needs no store.

use std::fs::File;
use std::io;
use std::path::Path;

use requiem_model::BlobDigest;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{DigestFile, DigestVerify};
use crate::error::CommandError;
use crate::report::Report;
use crate::schema;
use crate::store::cannot;

/// The digest of a file.
#[derive(Serialize, JsonSchema)]
pub(super) struct Digested {
    ok: bool,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    bytes: u64,
}

/// The digest of a file beside the one it should have.
#[derive(Serialize, JsonSchema)]
pub(super) struct Verified {
    ok: bool,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    #[schemars(schema_with = "schema::digest")]
    expected: BlobDigest,
    bytes: u64,
}

/// Runs `requiem digest file`.
pub(crate) fn file(arguments: &DigestFile) -> Result<Report, CommandError> {
    let (digest, bytes) = digest(&arguments.path)?;
    Ok(Report::new(&Digested { ok: true, digest, bytes }, digest.to_string(), true))
}

/// Runs `requiem digest verify`. Another digest is a finding, not an error.
pub(crate) fn verify(arguments: &DigestVerify) -> Result<Report, CommandError> {
    let expected = arguments.digest;
    let (digest, bytes) = digest(&arguments.path)?;
    let ok = digest == expected;
    let text = if ok { format!("ok {digest}") } else { format!("differs: {digest}, expected {expected}") };
    Ok(Report::new(&Verified { ok, digest, expected, bytes }, text, ok))
}

/// Digest and size, in constant memory.
fn digest(path: &Path) -> Result<(BlobDigest, u64), CommandError> {
    let mut hasher = blake3::Hasher::new();
    let read = if path == Path::new("-") {
        hasher.update_reader(io::stdin().lock()).map(|_| ())
    } else {
        File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()))
    };
    read.map_err(|error| cannot("read", path, &error))?;
    Ok((BlobDigest::from_bytes(*hasher.finalize().as_bytes()), hasher.count()))
}
