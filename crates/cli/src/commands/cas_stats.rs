//! `requiem cas stats`: what the store holds, counted from its folders each time.

use requiem_cas::stats::Stats;
use requiem_model::BlobDigest;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cas_arguments::CasStats;
use crate::error::CommandError;
use crate::report::Report;
use crate::schema;
use crate::text::{bytes, count, printable, table};
use crate::{meter, store};

/// What was counted.
#[derive(Serialize, JsonSchema)]
pub(super) struct Counted {
    ok: bool,
    tenants: u64,
    objects: u64,
    compressed_objects: u64,
    bytes: u64,
    stored_bytes: u64,
    /// Plain bytes for each stored one; nothing in an empty store.
    #[serde(skip_serializing_if = "Option::is_none")]
    compression_ratio: Option<f64>,
    largest: Vec<Large>,
    pins: u64,
    materialised_copies: u64,
    quarantined: u64,
    quarantined_bytes: u64,
    unreadable: Vec<Unreadable>,
    unknown_entries: Vec<Unknown>,
}

#[derive(Serialize, JsonSchema)]
struct Large {
    tenant: String,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
struct Unreadable {
    tenant: String,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    error_code: &'static str,
    why: String,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Unknown {
    path: String,
    why: &'static str,
}

/// Runs the command. Objects whose size cannot be told, and what is no object, are findings.
pub(crate) fn run(arguments: &CasStats) -> Result<Report, CommandError> {
    let looked = store::look(arguments.store.cas.as_deref())?;
    let tenants = looked.tenants(arguments.tenant.as_deref())?;
    let counting = || "counting".to_owned();
    let stats = meter::during(&counting, || looked.shelves.stats(&tenants, arguments.top, store::threads()))?;
    let counted = Counted::of(stats, &tenants, looked.shelves.strays());
    Ok(Report::new(&counted, text(&counted), counted.ok))
}

impl Counted {
    fn of(stats: Stats, tenants: &[requiem_cas::Tenant], strays: &[requiem_cas::shelves::Stray]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = (stats.stored_bytes > 0).then(|| stats.plain_bytes as f64 / stats.stored_bytes as f64);
        let unknown_entries: Vec<Unknown> = strays.iter().chain(&stats.strays).map(Unknown::of).collect();
        let largest = stats.largest.into_iter().map(|object| Large {
            tenant: object.tenant.to_string(),
            digest: object.digest,
            bytes: object.sizes.plain,
            stored_bytes: object.sizes.stored,
        });
        let unreadable = stats.unreadable.into_iter().map(|object| Unreadable {
            tenant: object.tenant.to_string(),
            digest: object.digest,
            error_code: object.code,
            why: object.why,
        });
        let unreadable: Vec<Unreadable> = unreadable.collect();
        Self {
            ok: unreadable.is_empty() && unknown_entries.is_empty(),
            tenants: tenants.len() as u64,
            objects: stats.objects,
            compressed_objects: stats.compressed,
            bytes: stats.plain_bytes,
            stored_bytes: stats.stored_bytes,
            compression_ratio: ratio.map(|ratio| (ratio * 1000.0).round() / 1000.0),
            largest: largest.collect(),
            pins: stats.pins,
            materialised_copies: stats.copies,
            quarantined: stats.quarantined,
            quarantined_bytes: stats.quarantined_bytes,
            unreadable,
            unknown_entries,
        }
    }
}

impl Unknown {
    pub(crate) fn of(stray: &requiem_cas::shelves::Stray) -> Self {
        Self { path: stray.path.to_string_lossy().into_owned(), why: stray.why }
    }

    pub(crate) fn line(&self) -> String {
        format!("UnknownEntry  {} {}\n", printable(&self.path), self.why)
    }
}

fn text(counted: &Counted) -> String {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let objects = count(counted.objects, "object", "objects");
    let tenants = count(counted.tenants, "tenant", "tenants");
    let ratio = counted.compression_ratio.map_or(String::new(), |ratio| format!(", {ratio:.2} to 1"));
    let mut rows = vec![
        row("objects", format!("{objects} of {tenants}, {} of them compressed", counted.compressed_objects)),
        row("content", bytes(counted.bytes)),
        row("stored", bytes(counted.stored_bytes) + &ratio),
        row("pins", counted.pins.to_string()),
        row("materialised", count(counted.materialised_copies, "copy", "copies")),
    ];
    if counted.quarantined > 0 {
        let files = count(counted.quarantined, "file", "files");
        rows.push(row("quarantine", format!("{files}, {}", bytes(counted.quarantined_bytes))));
    }
    for object in &counted.largest {
        let size = format!("{}, stored {}", bytes(object.bytes), bytes(object.stored_bytes));
        rows.push(row("largest", format!("{}  {size}  {}", object.digest, object.tenant)));
    }
    let unreadable = counted.unreadable.iter();
    let unreadable = unreadable.map(|object| {
        format!("{}  {}  {}: {}\n", object.error_code, object.digest, object.tenant, printable(&object.why))
    });
    let unknown = counted.unknown_entries.iter().map(Unknown::line);
    table(&rows) + &unreadable.chain(unknown).collect::<String>()
}
