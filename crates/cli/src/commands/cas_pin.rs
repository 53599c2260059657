//! `requiem cas pin`: objects that are never collected, with everything that they name.

use std::collections::HashSet;
use std::time::SystemTime;

use requiem_cas::gc::Object;
use requiem_cas::{Node, Pin, StoreError, Tenant, TenantStore};
use requiem_model::{BlobDigest, TreeDigest};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cas_arguments::{CasLs, CasPin, CasPinOne};
use crate::error::CommandError;
use crate::named::objects_of;
use crate::report::Report;
use crate::schema;
use crate::store;
use crate::text::{count, printable, table};

/// Largest object that may be a document: the largest result document.
const MAX_DOCUMENT: u64 = 16 << 20;

/// One pin.
#[derive(Serialize, JsonSchema)]
struct Row {
    tenant: String,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    pinned_at: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Pins {
    ok: bool,
    pins: Vec<Row>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Added {
    ok: bool,
    tenant: String,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The pinned object and what it names.
    objects: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &CasPin) -> Result<Report, CommandError> {
    match arguments {
        CasPin::Add(arguments) => add(arguments),
        CasPin::Rm(arguments) => remove(arguments),
        CasPin::Ls(arguments) => list(arguments),
    }
}

/// Pins what is there completely, or nothing.
fn add(arguments: &CasPinOne) -> Result<Report, CommandError> {
    let (objects, tenant) = tenant(arguments)?;
    let digest = arguments.digest;
    let there = closure(&objects, &digest)?;
    objects.pin(&digest, arguments.name.as_deref(), &store::rfc3339(SystemTime::now()))?;
    let added =
        Added { ok: true, tenant: tenant.to_string(), digest, name: arguments.name.clone(), objects: there };
    let text = match there - 1 {
        0 => format!("pinned {digest}"),
        below => format!("pinned {digest} and {} that it names", count(below, "object", "objects")),
    };
    Ok(Report::new(&added, text, true))
}

/// To let go of what is not pinned is a finding: it may be a mistyped digest.
fn remove(arguments: &CasPinOne) -> Result<Report, CommandError> {
    let (objects, _) = tenant(arguments)?;
    let removed = objects.unpin(&arguments.digest, arguments.name.as_deref())?;
    if removed.is_empty() {
        let named = arguments.name.as_ref().map_or(String::new(), |name| format!(" under the name {name:?}"));
        let message = format!("{} is not pinned{named}", arguments.digest);
        return Err(CommandError::finding("NotPinned", message, "see requiem cas pin ls"));
    }
    let text: String = removed.iter().map(|pin| format!("let go of {}\n", line(pin))).collect();
    Ok(Report::new(&Pins { ok: true, pins: removed.into_iter().map(Row::from).collect() }, text, true))
}

fn list(arguments: &CasLs) -> Result<Report, CommandError> {
    let looked = store::look(arguments.store.cas.as_deref())?;
    let mut pins: Vec<Row> = Vec::new();
    for tenant in looked.tenants(arguments.tenant.as_deref())? {
        pins.extend(looked.shelves.pins(&tenant)?.into_iter().map(Row::from));
    }
    let rows: Vec<[String; 4]> = pins
        .iter()
        .map(|pin| {
            let name = printable(pin.name.as_deref().unwrap_or(""));
            [pin.digest.to_string(), pin.pinned_at.clone(), pin.tenant.clone(), name]
        })
        .collect();
    Ok(Report::new(&Pins { ok: true, pins }, table(&rows), true))
}

fn tenant(arguments: &CasPinOne) -> Result<(TenantStore, Tenant), CommandError> {
    let looked = store::look(arguments.store.cas.as_deref())?;
    let tenant = looked.tenants(Some(&arguments.whose.tenant))?.remove(0);
    Ok((looked.store.tenant(&tenant)?, tenant))
}

/// How many objects the pin keeps, after each was found to be there.
fn closure(objects: &TenantStore, digest: &BlobDigest) -> Result<u64, CommandError> {
    let mut seen: HashSet<BlobDigest> = HashSet::from([*digest]);
    let mut trees = Vec::new();
    match objects.manifest(&TreeDigest::from_bytes(*digest.as_bytes())) {
        Ok(_) => trees.push(*digest),
        // Too large for a manifest, or none.
        Err(StoreError::TooLarge { .. } | StoreError::Manifest { .. }) => {
            for object in document(objects, digest)? {
                match object {
                    Object::Blob(digest) => there(objects, &mut seen, digest)?,
                    Object::Tree(digest) => trees.push(BlobDigest::from_bytes(*digest.as_bytes())),
                }
            }
        }
        Err(error) => return Err(error.into()),
    }
    let mut walked = HashSet::new();
    while let Some(tree) = trees.pop() {
        if !walked.insert(tree) {
            continue;
        }
        seen.insert(tree);
        for entry in objects.manifest(&TreeDigest::from_bytes(*tree.as_bytes()))?.entries() {
            match &entry.node {
                Node::Blob { digest, .. } => there(objects, &mut seen, *digest)?,
                Node::Tree { digest } => trees.push(BlobDigest::from_bytes(*digest.as_bytes())),
                Node::Symlink { .. } => {}
            }
        }
    }
    Ok(seen.len() as u64)
}

fn document(objects: &TenantStore, digest: &BlobDigest) -> Result<Vec<Object>, CommandError> {
    match objects.get_bytes(digest, MAX_DOCUMENT) {
        Ok(bytes) => Ok(objects_of(&bytes)),
        Err(StoreError::TooLarge { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn there(
    objects: &TenantStore,
    seen: &mut HashSet<BlobDigest>,
    digest: BlobDigest,
) -> Result<(), CommandError> {
    if seen.insert(digest) && !objects.contains(&digest)? {
        return Err(StoreError::NotFound { digest }.into());
    }
    Ok(())
}

fn line(pin: &Pin) -> String {
    let name = pin.name.as_ref().map_or(String::new(), |name| format!("  {}", printable(name)));
    format!("{}{name}", pin.digest)
}

impl From<Pin> for Row {
    fn from(pin: Pin) -> Self {
        let Pin { tenant, digest, name, pinned_at } = pin;
        Self { tenant: tenant.to_string(), digest, name, pinned_at }
    }
}
