//! `requiem cas gc`: what nothing names any more. A dry run, unless told to delete.
//!
//! Flow: have the store alone → journal and archive say which results there are → plan → (with --delete) sweep.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use requiem_cas::Exclusive;
use requiem_cas::gc::{Count, Plan, Root, Swept};
use requiem_executor::retained::{Place, Retained};
use requiem_model::BlobDigest;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cas_arguments::CasGc;
use crate::error::CommandError;
use crate::interrupt::Stop;
use crate::named::objects_of;
use crate::report::Report;
use crate::schema;
use crate::text::{bytes, count, table};
use crate::{meter, store};

/// Objects that people are shown; `--json` has all.
const SHOWN: usize = 100;

/// What goes, what stays, and why.
#[derive(Serialize, JsonSchema)]
pub(super) struct Collected {
    ok: bool,
    deleted: bool,
    older_than_seconds: u64,
    /// What went, or would.
    remove: Amount,
    /// Materialised copies that went, or would.
    remove_copies: u64,
    keep: Amount,
    keep_named: Amount,
    keep_young: Amount,
    pins: u64,
    results: Results,
    /// Objects that results name and the store does not have.
    missing: Vec<Named>,
    /// What went, or would, one by one.
    objects: Vec<Named>,
}

#[derive(Serialize, JsonSchema)]
struct Amount {
    objects: u64,
    stored_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
struct Results {
    journal: usize,
    archive: usize,
}

#[derive(Serialize, JsonSchema)]
struct Named {
    tenant: String,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(arguments: &CasGc) -> Result<Report, CommandError> {
    let folder = store::folder(arguments.store.cas.as_deref())?;
    let stop = Stop::watch()?;
    let exclusive = Exclusive::take(&folder)?;
    let retained = Retained::read(&folder)?;
    let young_from =
        SystemTime::now().checked_sub(arguments.older_than.duration).unwrap_or(SystemTime::UNIX_EPOCH);
    let looking = || "looking at the store".to_owned();
    let mut plan = meter::during(&looking, || exclusive.plan(&roots(&retained), &objects_of, young_from))?;
    // The next executor puts those back from its journal.
    plan.missing.retain(|missing| !retained.carried.contains(missing));
    if arguments.delete {
        let removed = AtomicU64::new(0);
        let line = || {
            format!(
                "removed {} of {}",
                removed.load(Ordering::Relaxed),
                count(plan.remove.len() as u64, "object", "objects")
            )
        };
        let mut step = |swept: &Swept| {
            removed.store(swept.objects.objects, Ordering::Relaxed);
            if stop.flag().load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let swept = meter::during(&line, || exclusive.sweep(&plan, &mut step))?;
        if swept.interrupted {
            let Count { objects, bytes: size } = swept.objects;
            let message =
                format!("broken off after removing {}, {}", count(objects, "object", "objects"), bytes(size));
            return Err(stop.broken_off(message));
        }
    }
    let collected = Collected::of(&plan, &retained, arguments);
    Ok(Report::new(&collected, text(&collected, arguments), true))
}

/// Everything that results name.
fn roots(retained: &Retained) -> Vec<Root> {
    let mut roots = Vec::new();
    for result in &retained.results {
        let by = match &result.place {
            Place::Journal(key) => format!("attempt {key} of the journal"),
            Place::Archive(root) => format!("bundle {root}"),
        };
        let tenant = &result.tenant;
        roots.extend(result.objects.iter().map(|object| Root {
            tenant: tenant.clone(),
            object: *object,
            by: by.clone(),
        }));
    }
    roots
}

impl Collected {
    fn of(plan: &Plan, retained: &Retained, arguments: &CasGc) -> Self {
        let journal =
            retained.results.iter().filter(|result| matches!(result.place, Place::Journal(_))).count();
        let doomed: u64 = plan.remove.iter().map(|doomed| doomed.bytes).sum();
        let objects = plan.remove.iter().map(|doomed| Named {
            tenant: doomed.tenant.to_string(),
            digest: doomed.digest(),
            stored_bytes: Some(doomed.bytes),
        });
        let missing = plan.missing.iter().map(|(tenant, digest)| Named {
            tenant: tenant.to_string(),
            digest: *digest,
            stored_bytes: None,
        });
        Self {
            ok: true,
            deleted: arguments.delete,
            older_than_seconds: arguments.older_than.duration.as_secs(),
            remove: Amount { objects: plan.remove.len() as u64, stored_bytes: doomed },
            remove_copies: plan.copies.len() as u64,
            keep: plan.kept.into(),
            keep_named: plan.named.into(),
            keep_young: plan.young.into(),
            pins: plan.pins,
            results: Results { journal, archive: retained.results.len() - journal },
            missing: missing.collect(),
            objects: objects.collect(),
        }
    }
}

impl From<Count> for Amount {
    fn from(count: Count) -> Self {
        Self { objects: count.objects, stored_bytes: count.bytes }
    }
}

impl Amount {
    fn text(&self) -> String {
        format!("{}, {}", count(self.objects, "object", "objects"), bytes(self.stored_bytes))
    }
}

fn text(collected: &Collected, arguments: &CasGc) -> String {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let shown = collected.objects.iter().take(SHOWN);
    let mut out: String = shown
        .map(|object| {
            format!("{}  {}  {}\n", object.digest, bytes(object.stored_bytes.unwrap_or(0)), object.tenant)
        })
        .collect();
    if collected.objects.len() > SHOWN {
        out += &format!("… and {} more; --json has them all\n", collected.objects.len() - SHOWN);
    }
    let copies = match collected.remove_copies {
        0 => String::new(),
        number => format!(", and {}", count(number, "materialised copy", "materialised copies")),
    };
    let results = (collected.results.journal + collected.results.archive) as u64;
    let by = format!(
        "named by {} and {}",
        count(collected.pins, "pin", "pins"),
        count(results, "result", "results")
    );
    out += &table(&[
        row(if collected.deleted { "removed" } else { "would remove" }, collected.remove.text() + &copies),
        row(
            if collected.deleted { "kept" } else { "would keep" },
            format!("{}, {by}", collected.keep_named.text()),
        ),
        row("", format!("{}, put less than {} ago", collected.keep_young.text(), arguments.older_than.text)),
    ]);
    for missing in &collected.missing {
        out += &format!("missing: {} of {}, which a result names\n", missing.digest, missing.tenant);
    }
    if !collected.deleted {
        out += "nothing was removed: this was a dry run; --delete removes\n";
    }
    out
}
