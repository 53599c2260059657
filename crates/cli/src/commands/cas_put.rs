//! `requiem cas put`: a file or standard input becomes a blob, a folder becomes a tree. Prints the digest alone, so
//! that a script can use it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use requiem_cas::{Durability, Receipt, StoreError, TenantStore, TreeLimits};
use requiem_model::result::OutputContent;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::CasPut;
use crate::error::CommandError;
use crate::report::Report;
use crate::store::{self, cannot};

/// What was put.
#[derive(Serialize, JsonSchema)]
pub(super) struct Put {
    ok: bool,
    kind: &'static str,
    digest: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    durability: &'static str,
}

/// Runs the command.
pub(crate) fn run(arguments: &CasPut) -> Result<Report, CommandError> {
    let store = store::open(arguments.store.cas.as_deref(), &arguments.whose.tenant)?;
    let path = arguments.path.as_path();
    let limit = arguments.max_bytes;
    let put = if path == Path::new("-") {
        blob(&keep(&store, io::stdin().lock(), limit, path)?)
    } else if path.metadata().map_err(|error| cannot("read", path, &error))?.is_dir() {
        let limits = TreeLimits { bytes: limit.min(TreeLimits::INPUT.bytes), ..TreeLimits::INPUT };
        tree(&store.put_tree(path, &limits, Durability::Strict)?)
    } else {
        let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
        blob(&keep(&store, file, limit, path)?)
    };
    Ok(Report::new(&put, put.digest.clone(), true))
}

/// Keeps everything that comes, if it ends within the limit.
fn keep(store: &TenantStore, source: impl Read, limit: u64, path: &Path) -> Result<Receipt, CommandError> {
    store.put_reader(Bounded { source, left: limit }, Durability::Strict).map_err(|error| match error {
        StoreError::Source { source } if source.kind() == io::ErrorKind::FileTooLarge => {
            let message = format!("{} has more than {limit} bytes; nothing was kept", path.display());
            CommandError::unusable("TooLarge", message, "see whether it ends at all, or raise --max-bytes")
        }
        other => other.into(),
    })
}

/// A source that fails once it has given more than `left` bytes.
struct Bounded<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

fn blob(receipt: &Receipt) -> Put {
    Put {
        ok: true,
        kind: "blob",
        digest: receipt.digest.to_string(),
        bytes: receipt.bytes,
        entries: None,
        durability: receipt.durability.as_str(),
    }
}

fn tree(ingested: &requiem_cas::Ingested) -> Put {
    let (kind, digest, bytes, entries) = match ingested.content {
        OutputContent::Blob { digest, bytes, .. } => ("blob", digest.to_string(), bytes, None),
        OutputContent::Tree { digest, bytes, entries } => ("tree", digest.to_string(), bytes, Some(entries)),
    };
    Put { ok: true, kind, digest, bytes, entries, durability: ingested.durability.as_str() }
}
