//! `requiem cas get`: verified bytes to standard output or to a new file, or a whole folder.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use requiem_cas::{BlobReader, Node, TenantStore};
use requiem_model::{BlobDigest, TreeDigest};
use serde::Serialize;

use crate::arguments::CasGet;
use crate::error::CommandError;
use crate::report::Report;
use crate::store::{self, cannot, copy_new};
use crate::text::printable;

/// What was written where.
#[derive(Serialize)]
struct Got<'a> {
    ok: bool,
    kind: &'static str,
    digest: BlobDigest,
    /// For reading: a byte that is not UTF-8 shows as U+FFFD.
    path: Cow<'a, str>,
}

/// Runs the command.
pub(crate) fn run(arguments: &CasGet) -> Result<Report, CommandError> {
    let CasGet { digest, out, tree, store: place, tenant } = arguments;
    let store = store::open(place.cas.as_deref(), tenant)?;
    let Some(path) = out else {
        to_stdout(&store, digest)?;
        return Ok(Report::silent());
    };
    let kind = if *tree {
        get_tree(&store, &TreeDigest::from_bytes(*digest.as_bytes()), path)?;
        "tree"
    } else {
        get_blob(&store, digest, path)?;
        "blob"
    };
    let shown = path.to_string_lossy();
    let text = format!("wrote {}", printable(&shown));
    Ok(Report::new(&Got { ok: true, kind, digest: *digest, path: shown }, text, true))
}

/// Standard output gets bytes as they come; a corrupt large object is told at its end, by error and exit code.
fn to_stdout(store: &TenantStore, digest: &BlobDigest) -> Result<(), CommandError> {
    let mut reader = store.open_blob(digest)?;
    let mut out = io::stdout().lock();
    match io::copy(&mut reader, &mut out).and_then(|_| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(BlobReader::store_error(error).into()),
        Ok(()) => Ok(()),
    }
}

fn get_blob(store: &TenantStore, digest: &BlobDigest, path: &Path) -> Result<(), CommandError> {
    let mut reader = store.open_blob(digest)?;
    copy_new(path, &mut reader).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {
            cannot("write", path, &error)
        }
        _ => BlobReader::store_error(error).into(),
    })
}

/// Restores a folder. Every folder is made anew, so nothing that was there is followed or replaced.
fn get_tree(store: &TenantStore, digest: &TreeDigest, path: &Path) -> Result<(), CommandError> {
    let manifest = store.manifest(digest)?;
    fs::create_dir(path).map_err(|error| cannot("make folder", path, &error))?;
    for entry in manifest.entries() {
        let path = path.join(OsStr::from_bytes(&entry.name));
        match &entry.node {
            Node::Tree { digest } => get_tree(store, digest, &path)?,
            Node::Symlink { target } => {
                symlink(OsStr::from_bytes(target), &path)
                    .map_err(|error| cannot("make link", &path, &error))?;
            }
            Node::Blob { digest, executable, .. } => {
                get_blob(store, digest, &path)?;
                if *executable {
                    let mode = fs::Permissions::from_mode(0o755);
                    fs::set_permissions(&path, mode).map_err(|error| cannot("set mode of", &path, &error))?;
                }
            }
        }
    }
    Ok(())
}
