//! The store: who may change it, whether it can be used, and whether what it holds is what it says.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use requiem_cas::audit::{Audit, Extent, Progress};
use requiem_cas::{Shelves, StoreError};

use super::{Check, Finding};
use crate::error::CommandError;
use crate::store;

/// Corrupt objects that are named; the others are counted.
const NAMED: usize = 10;

/// Looks at the store in `folder`, of whose objects `sample` are read. Nothing is changed.
pub(crate) fn look(folder: &Path, sample: u64) -> Result<Check, CommandError> {
    let place = folder.display();
    let none_yet = Check::of("store", format!("{place}: there is none yet"));
    let Ok(meta) = fs::metadata(folder) else { return Ok(none_yet) };
    let access = access(&meta, folder);
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(none_yet.with(access));
    }
    // It is opened as for work, which shows whether this user may work there.
    let looked = store::look(Some(folder)).and_then(|looked| Ok((quarantined(&looked.shelves)?, looked)));
    let (kept_bad, looked) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            let unusable = Finding::error("StoreUnusable", error.message, error.hint);
            return Ok(Check::of("store", format!("{place}: cannot be used")).with(access).with([unusable]));
        }
    };
    let (extent, progress) = (Extent::Sample(sample), Progress::default());
    let nobody_stops = AtomicBool::new(false);
    let tenants = looked.shelves.tenants();
    let audit = looked.shelves.audit(tenants, extent, store::threads(), &progress, &nobody_stops)?;
    let seen = format!("{place}: {} of {} objects read", audit.checked, audit.total);
    let quarantine = (kept_bad > 0).then(|| {
        let message = format!("{kept_bad} objects were found corrupt before, and lie in the quarantine");
        Finding::warning(
            "StoreQuarantine",
            message,
            "check the disk, put them again, then remove tenants/*/quarantine/*",
        )
    });
    Ok(Check::of("store", seen).with(access).with(quarantine).with(corrupt(&audit)))
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

/// How many objects lie in quarantines.
fn quarantined(shelves: &Shelves) -> Result<u64, StoreError> {
    shelves.tenants().iter().map(|tenant| shelves.quarantined(tenant).map(|(files, _bytes)| files)).sum()
}

fn corrupt(audit: &Audit) -> Vec<Finding> {
    let remedy = "put it again; check the disk; requiem cas verify --all reads everything";
    let named = audit.damaged.iter().take(NAMED).map(|damaged| {
        let message = format!("tenant {}: {} {}", damaged.tenant, damaged.digest, damaged.why);
        Finding::error("ObjectCorrupt", message, remedy)
    });
    let more = audit.damaged.len().saturating_sub(NAMED);
    let rest = (more > 0)
        .then(|| Finding::error("ObjectCorrupt", format!("{more} more objects are corrupt"), remedy));
    named.chain(rest).collect()
}
