//! What was counted, as figures with names, meanings and labels; and the same in the text format of Prometheus, and as a page of all names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use requiem_executor::metrics::{STATUSES, reasons};
use requiem_model::Layer;
use requiem_model::dual::Category;
use schemars::JsonSchema;
use serde::Serialize;

use super::{ENGINE, STEPS, Spread, Totals};

/// One metric.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: &'static str,
    pub(crate) help: &'static str,
    pub(crate) series: Vec<Series>,
}

/// The values of labels, by their names.
type Labels = BTreeMap<&'static str, &'static str>;

/// One of its series.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Series {
    /// Of a counter or a gauge.
    Number {
        /// What sets it apart.
        labels: Labels,
        /// The number.
        value: u64,
    },
    /// Of a histogram.
    Times {
        /// What sets it apart.
        labels: Labels,
        /// How many took at most so many seconds; those of the buckets before are among them.
        buckets: Vec<Bucket>,
        /// All times together, in seconds.
        sum: f64,
        /// How many there are.
        count: u64,
    },
}

impl Series {
    pub(crate) const fn labels(&self) -> &Labels {
        match self {
            Self::Number { labels, .. } | Self::Times { labels, .. } => labels,
        }
    }
}

/// One bucket of a histogram.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Bucket {
    /// Seconds, or `+Inf`.
    pub(crate) le: String,
    pub(crate) count: u64,
}

/// The store as it is now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreFigures {
    pub(crate) objects: u64,
    pub(crate) content_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) size_bytes: u64,
    pub(crate) free_bytes: u64,
}

/// All figures, each with every series that it may have, at zero where nothing was counted.
pub(crate) fn all(totals: &Totals, store: &StoreFigures) -> Vec<Figure> {
    let reasons = reasons().chain([ENGINE]);
    let mut figures = vec![
        counts(
            "attempts_total",
            "Attempts that ended, by the reason of their end.",
            "reason",
            reasons,
            &totals.attempts,
        ),
        counts(
            "replays_total",
            "Replays, by whether they came to the same execution root.",
            "result",
            ["agrees", "differs"].into_iter(),
            &totals.replays,
        ),
        counts(
            "trials_total",
            "Candidates beside a primary, by verdict.",
            "verdict",
            ["agrees", "candidate_failed", "differs", "not_sampled"].into_iter(),
            &totals.trials,
        ),
        counts(
            "mismatches_total",
            "Items in which a candidate differed from its primary.",
            "category",
            Category::ALL.into_iter().map(Category::as_str),
            &totals.mismatches,
        ),
        counts(
            "store_puts_total",
            "Texts and streams of attempts that the store took, or had already.",
            "result",
            ["known", "new"].into_iter(),
            &totals.puts,
        ),
        one(
            "counter",
            "stored_bytes_total",
            "New bytes of texts and streams that attempts put into the store.",
            totals.stored_bytes,
        ),
    ];
    figures.extend(STEPS.iter().map(|step| times(step, totals.steps.get(step.name))));
    figures.push(layers(&totals.layers));
    figures.extend([
        one("gauge", "store_objects", "Objects in the store.", store.objects),
        one("gauge", "store_content_bytes", "Bytes of all objects.", store.content_bytes),
        one("gauge", "store_disk_bytes", "What the objects take in the store, compressed.", store.disk_bytes),
        one("gauge", "store_size_bytes", "Size of the file system with the store.", store.size_bytes),
        one(
            "gauge",
            "store_free_bytes",
            "What may still be written to the file system of the store.",
            store.free_bytes,
        ),
    ]);
    figures
}

fn figure(kind: &'static str, name: &str, help: &'static str, series: Vec<Series>) -> Figure {
    Figure { name: format!("requiem_cli_{name}"), kind, help, series }
}

fn one(kind: &'static str, name: &str, help: &'static str, value: u64) -> Figure {
    let series = Series::Number { labels: Labels::new(), value };
    figure(kind, name, help, vec![series])
}

fn counts(
    name: &str,
    help: &'static str,
    label: &'static str,
    values: impl Iterator<Item = &'static str>,
    counted: &BTreeMap<String, u64>,
) -> Figure {
    let series = |value: &'static str| Series::Number {
        labels: Labels::from([(label, value)]),
        value: counted.get(value).copied().unwrap_or_default(),
    };
    figure("counter", name, help, values.map(series).collect())
}

fn times(step: &requiem_executor::metrics::Step, spread: Option<&Spread>) -> Figure {
    let bounds = step.bounds();
    let counted = spread.filter(|spread| spread.counts.len() == bounds.len() + 1);
    let names = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    let mut count = 0_u64;
    let buckets = names.enumerate().map(|(index, le)| {
        count = count.saturating_add(counted.map_or(0, |spread| spread.counts[index]));
        Bucket { le, count }
    });
    let buckets: Vec<Bucket> = buckets.collect();
    #[expect(clippy::cast_precision_loss, reason = "a sum for people and scrapers, exact up to centuries")]
    let sum = counted.map_or(0, |spread| spread.sum_us) as f64 / 1e6;
    let series = Series::Times { labels: Labels::new(), buckets, sum, count };
    figure("histogram", step.name, step.help, vec![series])
}

fn layers(last: &BTreeMap<String, String>) -> Figure {
    let mut series = Vec::new();
    for layer in Layer::ALL {
        for (_, status) in STATUSES {
            let is = last.get(layer.name()).is_some_and(|seen| seen == status);
            let labels = Labels::from([("layer", layer.name()), ("status", status)]);
            series.push(Series::Number { labels, value: u64::from(is) });
        }
    }
    figure("gauge", "layer_status", "1 for the status of each layer in the last run by the sandbox.", series)
}

/// The text format of Prometheus, version 0.0.4. No value of a label needs an escape.
pub(crate) fn prometheus(figures: &[Figure]) -> String {
    let mut text = String::new();
    for Figure { name, kind, help, series } in figures {
        // Writing to a String cannot fail, here and below.
        let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for one in series {
            match one {
                Series::Number { labels, value } => {
                    let _infallible = writeln!(text, "{name}{} {value}", braced(labels));
                }
                Series::Times { buckets, sum, count, labels: _ } => {
                    for Bucket { le, count } in buckets {
                        let _infallible = writeln!(text, "{name}_bucket{{le=\"{le}\"}} {count}");
                    }
                    let _infallible = write!(text, "{name}_sum {sum}\n{name}_count {count}\n");
                }
            }
        }
    }
    text
}

fn braced(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// The page about all of them.
pub(crate) fn markdown() -> String {
    let mut page = "<!-- Generated by `cargo xtask generate` from crates/cli/src/metrics. Do not edit. -->\n\
        # Metrics of `requiem`\n\n\
        What `requiem metrics` shows of the runs on this machine: [command line](../cli.md#metrics). What both count has the same name, meaning and \
        buckets as at the [executor](metrics.md), with `requiem_cli_` in front; a run does not wait here, so its slot is its beginning. All values of labels are listed; each is shown from the start, at zero.\n\n\
        | metric | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    let mut figures = all(&Totals::default(), &StoreFigures::default());
    figures.sort_by(|one, other| one.name.cmp(&other.name));
    for Figure { name, kind, help, series } in figures {
        let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in series.iter().flat_map(Series::labels) {
            let values = labels.entry(key).or_default();
            if !values.contains(value) {
                values.push(value);
            }
        }
        let cells: Vec<String> =
            labels.iter().map(|(key, values)| format!("**{key}**: `{}`", values.join("` `"))).collect();
        let _infallible = writeln!(page, "| `{name}` | {kind} | {} | {help} |", cells.join("<br>"));
    }
    page
}
