//! The store: who may change it, whether it can be used, and whether what it holds is what it says.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use requiem_cas::{BlobReader, StoreError, TenantStore};
use requiem_model::BlobDigest;

use super::{Check, Finding};
use crate::error::CommandError;
use crate::{random, store};

/// Corrupt objects that are named; the others are counted.
const NAMED: usize = 10;

/// One object.
type Object = (String, BlobDigest);

/// Looks at the store in `folder`, of whose objects `sample` are read; what turns out corrupt goes to the quarantine, as at every read.
pub(crate) fn look(folder: &Path, sample: usize) -> Result<Check, CommandError> {
    let place = folder.display();
    let Ok(meta) = fs::metadata(folder) else {
        return Ok(Check::of("store", format!("{place}: there is none yet")));
    };
    let access = access(&meta, folder);
    if let Err(error) = store::open(Some(folder), "default") {
        let unusable = Finding::error("StoreUnusable", error.message, error.hint);
        return Ok(Check::of("store", format!("{place}: cannot be used")).with(access).with([unusable]));
    }
    let (objects, kept_bad) = walk(folder).map_err(|error| store::cannot("read", folder, &error))?;
    let total = objects.len();
    let chosen = random::choose(objects, sample)?;
    let seen = format!("{place}: {} of {total} objects read", chosen.len());
    let quarantine = (kept_bad > 0).then(|| {
        let message = format!("{kept_bad} objects were found corrupt before, and lie in the quarantine");
        Finding::warning(
            "StoreQuarantine",
            message,
            "check the disk, put them again, then remove tenants/*/quarantine/*",
        )
    });
    Ok(Check::of("store", seen).with(access).with(quarantine).with(read(folder, &chosen)?))
}

fn access(meta: &fs::Metadata, folder: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = folder.display();
    if meta.mode() & 0o022 != 0 {
        findings.push(Finding::error(
            "StoreOpenToOthers",
            format!("others may write to {place}: its mode is {:o}", meta.mode() & 0o7777),
            format!("chmod go-w {place}"),
        ));
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own {
        findings.push(Finding::warning(
            "StoreOfAnother",
            format!("{place} belongs to user {}, and this is user {own}", meta.uid()),
            "use a store of your own (--cas DIR), or be that user",
        ));
    }
    findings
}

/// Every object of every tenant, and how many lie in quarantines.
fn walk(folder: &Path) -> io::Result<(Vec<Object>, usize)> {
    let (mut objects, mut quarantined) = (Vec::new(), 0);
    for tenant in fs::read_dir(folder.join("tenants"))? {
        let tenant = tenant?;
        let Ok(name) = tenant.file_name().into_string() else { continue };
        quarantined += fs::read_dir(tenant.path().join("quarantine"))?.count();
        for fan_out in fs::read_dir(tenant.path().join("objects"))? {
            for object in fs::read_dir(fan_out?.path())? {
                let file = object?.file_name();
                let hex = file.to_str().map(|file| file.trim_end_matches(".zst"));
                let digest = hex.and_then(|hex| format!("blake3:{hex}").parse().ok());
                objects.extend(digest.map(|digest| (name.clone(), digest)));
            }
        }
    }
    Ok((objects, quarantined))
}

fn read(folder: &Path, chosen: &[Object]) -> Result<Vec<Finding>, CommandError> {
    let mut findings = Vec::new();
    let mut corrupt = 0_usize;
    for (tenant, digest) in chosen {
        let objects = store::open(Some(folder), tenant)?;
        match read_one(&objects, digest) {
            // One that was removed meanwhile is not corrupt.
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => {
                corrupt += 1;
                if corrupt <= NAMED {
                    let message = format!("tenant {tenant}: {error}");
                    findings.push(Finding::error("ObjectCorrupt", message, error.hint()));
                }
            }
        }
    }
    if corrupt > NAMED {
        let message = format!("{} more objects are corrupt", corrupt - NAMED);
        findings.push(Finding::error("ObjectCorrupt", message, "check the disk before anything else"));
    }
    Ok(findings)
}

fn read_one(objects: &TenantStore, digest: &BlobDigest) -> Result<(), StoreError> {
    let mut reader = objects.open_blob(digest)?;
    io::copy(&mut reader, &mut io::sink()).map(drop).map_err(BlobReader::store_error)
}
