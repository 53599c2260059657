//! `requiem cas info`: what the store knows of one object, and what names it. What cannot be known is said to be unknown.

use requiem_cas::examine::{Facts, LastRead};
use requiem_cas::gc::Object;
use requiem_cas::{StoreError, Tenant};
use requiem_executor::retained::{Place, Retained};
use requiem_model::BlobDigest;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cas_arguments::CasInfo;
use crate::error::CommandError;
use crate::meter;
use crate::named::objects_of;
use crate::report::Report;
use crate::schema;
use crate::store::{self, Looked, rfc3339};
use crate::text::{bytes, count, printable, table};

/// Largest pinned document that is looked into.
const MAX_DOCUMENT: u64 = 16 << 20;

/// What is known.
#[derive(Serialize, JsonSchema)]
pub(super) struct Info {
    ok: bool,
    tenant: String,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    kind: &'static str,
    bytes: u64,
    stored_bytes: u64,
    compressed: bool,
    /// When its file was made; absent where the file system does not keep that.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    /// When somebody last put it, to ten minutes.
    last_put: String,
    /// When its file was last read; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_read: Option<String>,
    last_read_note: &'static str,
    referenced_by: References,
    /// What could not be looked at, so that references may be missing.
    unknown: Vec<String>,
}

#[derive(Default, Serialize, JsonSchema)]
struct References {
    pins: Vec<PinName>,
    #[schemars(schema_with = "schema::digests")]
    pinned_documents: Vec<BlobDigest>,
    /// Attempts in the journal.
    results: Vec<String>,
    /// Bundle roots in the archive.
    bundles: Vec<String>,
    #[schemars(schema_with = "schema::digests")]
    trees: Vec<BlobDigest>,
}

/// A pin, which need not have a name.
#[derive(Serialize, JsonSchema)]
struct PinName {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &CasInfo) -> Result<Report, CommandError> {
    let looked = store::look(arguments.store.cas.as_deref())?;
    let tenant = looked.tenants(Some(&arguments.whose.tenant))?.remove(0);
    let digest = arguments.digest;
    let facts = looked.shelves.facts(&tenant, &digest)?.ok_or(StoreError::NotFound { digest })?;
    let (referenced_by, unknown) = references(&looked, &tenant, &digest)?;
    let (last_read, last_read_note) = last_read(facts.read);
    let Facts { kind, sizes, compressed, created, put, .. } = facts;
    let info = Info {
        ok: true,
        tenant: tenant.to_string(),
        digest,
        kind: kind.as_str(),
        bytes: sizes.plain,
        stored_bytes: sizes.stored,
        compressed,
        created: created.map(rfc3339),
        last_put: rfc3339(put),
        last_read,
        last_read_note,
        referenced_by,
        unknown,
    };
    Ok(Report::new(&info, text(&info), true))
}

fn last_read(read: LastRead) -> (Option<String>, &'static str) {
    match read {
        LastRead::NotKept => (None, "unknown: the file system keeps no access times"),
        LastRead::NotSincePut => (None, "not since it was last put"),
        LastRead::At { time, to_the_day: true } => (Some(rfc3339(time)), "or within a day after that"),
        LastRead::At { time, to_the_day: false } => (Some(rfc3339(time)), ""),
    }
}

fn references(
    looked: &Looked,
    tenant: &Tenant,
    digest: &BlobDigest,
) -> Result<(References, Vec<String>), CommandError> {
    let (mut found, mut unknown) = (References::default(), Vec::new());
    for pin in looked.shelves.pins(tenant)? {
        if pin.digest == *digest {
            found.pins.push(PinName { name: pin.name });
        } else {
            match looked.shelves.read(tenant, &pin.digest, MAX_DOCUMENT) {
                Ok(Some(document)) if names(&objects_of(&document), digest) => {
                    found.pinned_documents.push(pin.digest)
                }
                Ok(_) => {}
                Err(error) => unknown.push(error.to_string()),
            }
        }
    }
    match Retained::peek(&looked.folder) {
        Ok(retained) => {
            for result in retained
                .results
                .iter()
                .filter(|result| result.tenant == *tenant && names(&result.objects, digest))
            {
                match &result.place {
                    Place::Journal(key) => found.results.push(key.to_string()),
                    Place::Archive(root) => found.bundles.push(root.to_string()),
                }
            }
        }
        Err(error) => unknown.push(error.to_string()),
    }
    let reading = || "reading folder manifests".to_owned();
    let (trees, unread) =
        meter::during(&reading, || looked.shelves.trees_naming(tenant, digest, store::threads()))?;
    found.trees = trees;
    if unread > 0 {
        unknown.push(format!("{} cannot be read", count(unread, "object", "objects")));
    }
    found.pinned_documents.dedup();
    Ok((found, unknown))
}

fn names(objects: &[Object], digest: &BlobDigest) -> bool {
    objects.iter().any(|object| match object {
        Object::Blob(named) => named == digest,
        Object::Tree(named) => named.as_bytes() == digest.as_bytes(),
    })
}

fn text(info: &Info) -> String {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let how = if info.compressed { "compressed" } else { "as it is" };
    let read = match &info.last_read {
        Some(time) => format!("{time} {}", info.last_read_note),
        None => info.last_read_note.to_owned(),
    };
    let mut rows = vec![
        row("digest", info.digest.to_string()),
        row("tenant", info.tenant.clone()),
        row("kind", info.kind.to_owned()),
        row("size", format!("{} ({})", bytes(info.bytes), info.bytes)),
        row("stored", format!("{} ({}), {how}", bytes(info.stored_bytes), info.stored_bytes)),
        row(
            "created",
            info.created.clone().unwrap_or_else(|| "unknown: the file system does not keep it".to_owned()),
        ),
        row("last put", info.last_put.clone()),
        row("last read", read),
    ];
    let named = &info.referenced_by;
    rows.extend(
        named.pins.iter().map(|pin| row("pin", printable(pin.name.as_deref().unwrap_or("without a name")))),
    );
    rows.extend(named.pinned_documents.iter().map(|digest| row("pinned document", digest.to_string())));
    rows.extend(
        named.results.iter().map(|key| row("result", format!("attempt {} in the journal", printable(key)))),
    );
    rows.extend(named.bundles.iter().map(|root| row("bundle", root.clone())));
    rows.extend(named.trees.iter().map(|digest| row("tree", digest.to_string())));
    if rows.len() == 8 {
        rows.push(row("referenced", "by nothing in this store".to_owned()));
    }
    rows.extend(info.unknown.iter().map(|why| row("unknown", printable(why))));
    table(&rows)
}
