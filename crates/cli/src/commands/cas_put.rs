//! `requiem cas put`: a file or standard input becomes a blob, a folder becomes a tree. Prints the digest alone, so
//! that a script can use it.

use std::fs::File;
use std::io;
use std::path::Path;

use requiem_cas::{Durability, TreeLimits};
use requiem_model::result::OutputContent;
use serde::Serialize;

use crate::arguments::CasPut;
use crate::error::CommandError;
use crate::report::Report;
use crate::store::{self, cannot};

/// What was put.
#[derive(Serialize)]
struct Put {
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
    let store = store::open(arguments.store.cas.as_deref(), &arguments.tenant)?;
    let path = arguments.path.as_path();
    let put = if path == Path::new("-") {
        blob(&store.put_reader(io::stdin().lock(), Durability::Strict)?)
    } else if path.metadata().map_err(|error| cannot("read", path, &error))?.is_dir() {
        tree(&store.put_tree(path, &TreeLimits::INPUT, Durability::Strict)?)
    } else {
        let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
        blob(&store.put_reader(file, Durability::Strict)?)
    };
    Ok(Report::new(&put, put.digest.clone(), true))
}

fn blob(receipt: &requiem_cas::Receipt) -> Put {
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
