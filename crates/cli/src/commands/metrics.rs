//! `requiem metrics`: what the runs of this machine came to, and what the store holds.

use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::CommandError;
use crate::metrics::figures::{Figure, Series, StoreFigures, all, markdown, prometheus};
use crate::metrics::{Totals, totals};
use crate::metrics_arguments::{Format, Metrics};
use crate::report::Report;
use crate::store;
use crate::text::{micros, shown, table};

/// The name of the page about all metrics.
const PAGE: &str = "cli-metrics.md";

/// All figures.
#[derive(Serialize, JsonSchema)]
pub(super) struct Figures {
    ok: bool,
    metrics: Vec<Figure>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Metrics, as_json: bool) -> Result<Report, CommandError> {
    if as_json && arguments.format == Format::Prom {
        let message = "--json and --format prom are two forms of one answer";
        return Err(CommandError::unusable("Usage", message, "leave one of them out"));
    }
    if arguments.markdown {
        return page(arguments.out.as_deref());
    }
    let looked = store::look(arguments.store.cas.as_deref())?;
    let counted = totals(&looked.folder)
        .map_err(|error| store::cannot("read the file metrics of the store at", &looked.folder, &error))?;
    let stats = looked.shelves.stats(looked.shelves.tenants(), 0, store::threads())?;
    let room = rustix::fs::statvfs(&looked.folder)
        .map_err(|errno| store::cannot("look at the file system of", &looked.folder, &errno.into()))?;
    let figures = StoreFigures {
        objects: stats.objects,
        content_bytes: stats.plain_bytes,
        disk_bytes: stats.stored_bytes,
        size_bytes: room.f_blocks.saturating_mul(room.f_frsize),
        free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
    };
    let document = Figures { ok: true, metrics: all(&counted, &figures) };
    let text = match arguments.format {
        Format::Text => text(&document.metrics),
        Format::Prom => prometheus(&document.metrics),
        Format::Json => serde_json::to_string_pretty(&document).map_err(|error| store::encoding(&error))?,
    };
    Ok(Report::new(&document, text, true))
}

/// The page, without looking at a store.
fn page(out: Option<&Path>) -> Result<Report, CommandError> {
    let page = markdown();
    let text = match out {
        None => page,
        Some(folder) => {
            fs::create_dir_all(folder).map_err(|error| store::cannot("make folder", folder, &error))?;
            store::write(&folder.join(PAGE), page.as_bytes())?;
            format!("wrote {PAGE} to {}", shown(folder))
        }
    };
    let metrics = all(&Totals::default(), &StoreFigures::default());
    Ok(Report::new(&Figures { ok: true, metrics }, text, true))
}

/// For people: what is not zero.
fn text(figures: &[Figure]) -> String {
    let mut rows = Vec::new();
    for Figure { name, series, .. } in figures {
        for one in series {
            let value = match one {
                Series::Number { value: 0, .. } | Series::Times { count: 0, .. } => continue,
                Series::Number { value, .. } => value.to_string(),
                Series::Times { sum, count, .. } => {
                    format!("{count} times, {} on average", mean(*sum, *count))
                }
            };
            let labels: Vec<&str> = one.labels().values().copied().collect();
            rows.push([name.clone(), labels.join(" "), value]);
        }
    }
    table(&rows)
}

fn mean(sum: f64, count: u64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an average for people"
    )]
    let average = (sum * 1e6 / count as f64) as u64;
    micros(average)
}
