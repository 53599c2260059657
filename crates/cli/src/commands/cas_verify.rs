//! `requiem cas verify`: every object, or a random sample, is read again and hashed. Repairs nothing.

use std::sync::atomic::Ordering;

use requiem_cas::audit::{Audit, Extent, Progress};
use requiem_cas::bound::{CONFIDENCE_PERCENT, most_corrupt};
use requiem_model::BlobDigest;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cas_arguments::CasVerify;
use crate::commands::cas_stats::Unknown;
use crate::error::CommandError;
use crate::interrupt::Stop;
use crate::report::Report;
use crate::schema;
use crate::text::{bytes, count, printable};
use crate::{meter, store};

/// What was found.
#[derive(Serialize, JsonSchema)]
pub(super) struct Verified {
    ok: bool,
    extent: &'static str,
    /// N: objects in the store.
    objects: u64,
    /// n: objects that were read.
    checked: u64,
    /// Bytes of content that were hashed and are right.
    bytes: u64,
    /// Objects that went away before they were read.
    gone: u64,
    damaged: Vec<Damaged>,
    unknown_entries: Vec<Unknown>,
    /// Of a sample only.
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_bound: Option<UpperBound>,
}

#[derive(Serialize, JsonSchema)]
struct Damaged {
    tenant: String,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    path: String,
    error_code: &'static str,
    why: String,
}

/// How many of all objects may be corrupt.
#[derive(Serialize, JsonSchema)]
struct UpperBound {
    confidence_percent: u32,
    method: &'static str,
    objects: u64,
    share: f64,
}

/// Runs the command. Exit code 1 if anything is not what its name says.
pub(crate) fn run(arguments: &CasVerify) -> Result<Report, CommandError> {
    let looked = store::look(arguments.store.cas.as_deref())?;
    let tenants = looked.tenants(arguments.tenant.as_deref())?;
    let extent = arguments.extent.sample.map_or(Extent::All, Extent::Sample);
    let stop = Stop::watch()?;
    let progress = Progress::default();
    let line = || {
        let objects = count(progress.objects.load(Ordering::Relaxed), "object", "objects");
        format!("verified {objects}, {}", bytes(progress.bytes.load(Ordering::Relaxed)))
    };
    let audit = meter::during(&line, || {
        looked.shelves.audit(&tenants, extent, store::threads(), &progress, stop.flag())
    })?;
    if audit.interrupted {
        return Err(broken_off(&stop, &audit));
    }
    let verified = Verified::of(audit, extent, looked.shelves.strays());
    Ok(Report::new(&verified, text(&verified), verified.ok))
}

/// What was found until Ctrl-C is not lost.
fn broken_off(stop: &Stop, audit: &Audit) -> CommandError {
    let bad: Vec<String> =
        audit.damaged.iter().map(|damaged| format!("{} {}", damaged.code, damaged.digest)).collect();
    let found = if bad.is_empty() {
        "none of them is damaged".to_owned()
    } else {
        format!("damaged: {}", bad.join(", "))
    };
    stop.broken_off(format!("broken off after {}: {found}", count(audit.checked, "object", "objects")))
}

impl Verified {
    fn of(audit: Audit, extent: Extent, strays: &[requiem_cas::shelves::Stray]) -> Self {
        let upper_bound = matches!(extent, Extent::Sample(_)).then(|| UpperBound::of(&audit));
        let unknown_entries: Vec<Unknown> = strays.iter().chain(&audit.strays).map(Unknown::of).collect();
        let damaged = audit.damaged.into_iter().map(|damaged| Damaged {
            tenant: damaged.tenant.to_string(),
            digest: damaged.digest,
            path: damaged.path.to_string_lossy().into_owned(),
            error_code: damaged.code,
            why: damaged.why,
        });
        let damaged: Vec<Damaged> = damaged.collect();
        Self {
            ok: damaged.is_empty() && unknown_entries.is_empty(),
            extent: if upper_bound.is_some() { "sample" } else { "all" },
            objects: audit.total,
            checked: audit.checked,
            bytes: audit.plain_bytes,
            gone: audit.gone,
            damaged,
            unknown_entries,
            upper_bound,
        }
    }
}

impl UpperBound {
    fn of(audit: &Audit) -> Self {
        let objects = most_corrupt(audit.total, audit.checked, audit.damaged.len() as u64);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = if audit.total == 0 { 0.0 } else { objects as f64 / audit.total as f64 };
        Self { confidence_percent: CONFIDENCE_PERCENT, method: "hypergeometric", objects, share }
    }
}

fn text(verified: &Verified) -> String {
    let Verified { checked, objects, .. } = verified;
    let bad = verified.damaged.len();
    let judgement = if bad == 0 {
        "all of them are what their names say".to_owned()
    } else {
        format!("{bad} of them damaged")
    };
    let size = bytes(verified.bytes);
    let mut out =
        format!("verified {checked} of {}, {size}: {judgement}\n", count(*objects, "object", "objects"));
    if let Some(UpperBound { confidence_percent, method, objects, share }) = &verified.upper_bound {
        let percent = share * 100.0;
        out += &format!(
            "at most {objects} of all ({percent:.3} %) are damaged, with {confidence_percent} % confidence ({method}; a random sample)\n"
        );
    }
    if verified.gone > 0 {
        out += &format!("{} went away meanwhile: another process replaced or removed them\n", verified.gone);
    }
    for damaged in &verified.damaged {
        let (path, why) = (printable(&damaged.path), printable(&damaged.why));
        out += &format!("{}  {}  {}  {path}: {why}\n", damaged.error_code, damaged.digest, damaged.tenant);
    }
    out + &verified.unknown_entries.iter().map(Unknown::line).collect::<String>()
}
