//! `requiem cas get`: verified bytes to standard output or to a new file, or a whole folder.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use requiem_cas::{BlobReader, Node, TenantStore};
use requiem_model::{BlobDigest, TreeDigest};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::CasGet;
use crate::error::CommandError;
use crate::report::{Report, no_stdout};
use crate::schema;
use crate::store::{self, CopyError, cannot, copy, copy_new};
use crate::text::shown;

/// What was written where.
#[derive(Serialize, JsonSchema)]
pub(super) struct Got<'a> {
    ok: bool,
    kind: &'static str,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    /// For reading: a byte that is not UTF-8 shows as U+FFFD.
    path: Cow<'a, str>,
}

/// Runs the command.
pub(crate) fn run(arguments: &CasGet) -> Result<Report, CommandError> {
    let CasGet { digest, out, tree, store: place, whose } = arguments;
    let store = store::open(place.cas.as_deref(), &whose.tenant)?;
    let Some(path) = out else {
        to_stdout(&store, digest)?;
        return Ok(Report::silent());
    };
    let kind = if *tree {
        get_new_tree(&store, &TreeDigest::from_bytes(*digest.as_bytes()), path)?;
        "tree"
    } else {
        get_blob(&store, digest, path)?;
        "blob"
    };
    let got = Got { ok: true, kind, digest: *digest, path: path.to_string_lossy() };
    Ok(Report::new(&got, format!("wrote {}", shown(path)), true))
}

/// Standard output gets bytes as they come; a corrupt large object is told at its end, by error and exit code.
fn to_stdout(store: &TenantStore, digest: &BlobDigest) -> Result<(), CommandError> {
    let mut reader = store.open_blob(digest)?;
    let mut out = io::stdout().lock();
    match copy(&mut reader, &mut out) {
        Err(CopyError::Target(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(CopyError::Target(error)) => Err(no_stdout(&error)),
        Err(CopyError::Source(error)) => Err(BlobReader::store_error(error).into()),
        Ok(()) => Ok(()),
    }
}

fn get_blob(store: &TenantStore, digest: &BlobDigest, path: &Path) -> Result<(), CommandError> {
    let mut reader = store.open_blob(digest)?;
    copy_new(path, &mut reader).map_err(|error| match error {
        CopyError::Target(error) => cannot("write", path, &error),
        CopyError::Source(error) => BlobReader::store_error(error).into(),
    })
}

/// Restores a file with its executable bit.
pub(crate) fn get_file(
    store: &TenantStore,
    digest: &BlobDigest,
    executable: bool,
    path: &Path,
) -> Result<(), CommandError> {
    get_blob(store, digest, path)?;
    if !executable {
        return Ok(());
    }
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).map_err(|error| cannot("set mode of", path, &error))
}

/// Restores a folder, or leaves nothing of it.
pub(crate) fn get_new_tree(
    store: &TenantStore,
    digest: &TreeDigest,
    path: &Path,
) -> Result<(), CommandError> {
    // What is no folder is told before one is made.
    store.manifest(digest)?;
    fs::create_dir(path).map_err(|error| cannot("make folder", path, &error))?;
    fill(store, digest, path).inspect_err(|_| {
        // The first error is the one to tell.
        let _half_a_folder = fs::remove_dir_all(path);
    })
}

/// Every folder is made anew, so nothing that was there is followed or replaced.
fn fill(store: &TenantStore, digest: &TreeDigest, path: &Path) -> Result<(), CommandError> {
    let manifest = store.manifest(digest)?;
    for entry in manifest.entries() {
        let path = path.join(OsStr::from_bytes(&entry.name));
        match &entry.node {
            Node::Tree { digest } => {
                fs::create_dir(&path).map_err(|error| cannot("make folder", &path, &error))?;
                fill(store, digest, &path)?;
            }
            Node::Symlink { target } => {
                symlink(OsStr::from_bytes(target), &path)
                    .map_err(|error| cannot("make link", &path, &error))?;
            }
            Node::Blob { digest, executable, .. } => {
                get_file(store, digest, *executable, &path)?;
            }
        }
    }
    Ok(())
}
