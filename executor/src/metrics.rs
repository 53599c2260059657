//! What a scraper sees. Every label has a bounded set of values: reasons, layers, statuses; never names, UIDs or paths.
//!
//! Every count is there from the start, at zero, for each value that its labels may have: `rate` and `increase` see only what moved
//! between two scrapes, so a count that first appears at 1 would hide its first case. `docs/reference/metrics.md` is made from that.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use requiem_model::SandboxReport;
use requiem_model::policy::Layer;
use requiem_model::report::Status;
use requiem_model::result::FailureReason;

use crate::execute::{Stored, Timings};
use crate::journal::JournalStats;

/// A step of an attempt whose times are counted, here and by the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The histogram's name, without what stands before all of a program.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// The first bound, in seconds.
    first: f64,
}

impl Step {
    /// Upper bounds of the buckets, in seconds: twelve, each three times the one before.
    pub fn bounds(&self) -> Vec<f64> {
        std::iter::successors(Some(self.first), |bound| Some(bound * 3.0)).take(12).collect()
    }
}

/// Waiting for a slot.
pub const QUEUE: Step =
    Step { name: "queue_seconds", help: "Time that an attempt waited for a slot.", first: 50e-6 };
/// Texts and inputs.
pub const FETCH: Step = Step {
    name: "fetch_seconds",
    help: "Time to put texts of the call and to look for inputs.",
    first: 50e-6,
};
/// Inputs made mountable.
pub const STAGE: Step = Step { name: "stage_seconds", help: "Time to make inputs mountable.", first: 50e-6 };
/// Inputs brought into the sandbox; part of [`RUN`].
pub const MOUNT: Step =
    Step { name: "mount_seconds", help: "Time to bring staged inputs into the sandbox.", first: 10e-6 };
/// The sandbox.
pub const RUN: Step =
    Step { name: "run_seconds", help: "Time in the sandbox, set-up and tear-down included.", first: 0.001 };
/// Outputs put into the store.
pub const COLLECT: Step =
    Step { name: "collect_seconds", help: "Time to put outputs into the store.", first: 50e-6 };
/// The bundle.
pub const SEAL: Step = Step { name: "seal_seconds", help: "Time to seal the bundle.", first: 50e-6 };
/// All of it.
pub const ATTEMPT: Step =
    Step { name: "attempt_seconds", help: "Time from slot to durable end.", first: 0.001 };

/// All metrics of one executor.
pub struct Metrics {
    registry: Registry,
    attempts: IntCounterVec,
    /// Attempts that wait for a slot.
    pub queue_depth: IntGauge,
    /// Attempts in a slot.
    pub running: IntGauge,
    /// Attempts that may be in a slot at the same time.
    pub slots: IntGauge,
    queue: Histogram,
    fetch: Histogram,
    stage: Histogram,
    mount: Histogram,
    run: Histogram,
    collect: Histogram,
    seal: Histogram,
    total: Histogram,
    store: StoreFigures,
    /// Calls refused because the queue was full.
    pub refused: IntCounter,
    /// Connections to the local socket.
    pub readers: IntCounter,
    /// When the endpoint's certificate expires.
    pub certificate_expiry: IntGauge,
    /// Whether a runner takes work.
    pub runner_connected: IntGauge,
    /// Whether nothing new is taken.
    pub draining: IntGauge,
    runner_restarts: IntCounter,
    fsyncs: IntCounter,
    journal_bytes: IntGauge,
    layers: IntGaugeVec,
}

/// What attempts put into the store, and the room that is left.
struct StoreFigures {
    bytes: IntCounter,
    puts: IntCounterVec,
    size: IntGauge,
    free: IntGauge,
}

/// The file system of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Its size, in bytes.
    pub size: u64,
    /// What this process may still write, in bytes.
    pub free: u64,
}

impl StoreFigures {
    fn new(reg: &Registry) -> Result<Self, prometheus::Error> {
        let puts = IntCounterVec::new(
            opts("store_puts_total", "Texts and streams of attempts that the store took, or had already."),
            &["result"],
        );
        Ok(Self {
            bytes: keep(
                reg,
                counter(
                    "stored_bytes_total",
                    "New bytes of texts and streams that attempts put into the store.",
                ),
            )?,
            puts: keep(reg, puts)?,
            size: keep(reg, gauge("store_size_bytes", "Size of the file system with the store."))?,
            free: keep(
                reg,
                gauge(
                    "store_free_bytes",
                    "What the executor may still write to the file system of the store.",
                ),
            )?,
        })
    }
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Two metrics of the same name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self::empty()?;
        metrics.begin();
        Ok(metrics)
    }

    /// Shows every count at zero.
    fn begin(&self) {
        for reason in reasons() {
            self.attempts.with_label_values(&[reason]);
        }
        for result in [NEW, KNOWN] {
            self.store.puts.with_label_values(&[result]);
        }
        // No layer is in any state before the probe run has been seen.
        for layer in Layer::ALL {
            for (_, status) in STATUSES {
                self.layers.with_label_values(&[layer.name(), status]);
            }
        }
    }

    fn empty() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reg = &registry;
        Ok(Self {
            attempts: keep(
                reg,
                IntCounterVec::new(
                    opts("attempts_total", "Attempts that ended, by the reason of their end."),
                    &["reason"],
                ),
            )?,
            queue_depth: keep(reg, gauge("queue_depth", "Attempts that wait for a slot."))?,
            running: keep(reg, gauge("running", "Attempts in a slot."))?,
            slots: keep(reg, gauge("slots", "Attempts that may be in a slot at the same time."))?,
            queue: keep(reg, histogram(&QUEUE))?,
            fetch: keep(reg, histogram(&FETCH))?,
            stage: keep(reg, histogram(&STAGE))?,
            mount: keep(reg, histogram(&MOUNT))?,
            run: keep(reg, histogram(&RUN))?,
            collect: keep(reg, histogram(&COLLECT))?,
            seal: keep(reg, histogram(&SEAL))?,
            total: keep(reg, histogram(&ATTEMPT))?,
            store: StoreFigures::new(reg)?,
            refused: keep(reg, counter("refused_total", "Attempts refused because the queue was full."))?,
            readers: keep(
                reg,
                counter("readers_total", "Connections to the local socket (`kubectl requiem`)."),
            )?,
            certificate_expiry: keep(
                reg,
                gauge(
                    "certificate_expiry_timestamp_seconds",
                    "Last second of the certificate in use, since 1970.",
                ),
            )?,
            runner_connected: keep(reg, gauge("runner_connected", "1 while a runner takes work."))?,
            draining: keep(reg, gauge("draining", "1 while no new attempts are taken."))?,
            runner_restarts: keep(reg, counter("runner_restarts_total", "Restarts of the runner process."))?,
            fsyncs: keep(reg, counter("journal_fsyncs_total", "Syncs of the journal."))?,
            journal_bytes: keep(reg, gauge("journal_bytes", "Length of the journal."))?,
            layers: keep(
                reg,
                IntGaugeVec::new(
                    opts("layer_status", "1 for the status of each layer in the probe run."),
                    &["layer", "status"],
                ),
            )?,
            registry,
        })
    }

    /// Counts an attempt that ended.
    pub fn ended(&self, reason: &str) {
        self.attempts.with_label_values(&[reason]).inc();
    }

    /// Takes the times of one attempt that came to a result.
    pub fn observe(&self, timings: &Timings, total_seconds: f64) {
        let Timings { fetch, stage, mount, run, collect, seal } = timings;
        self.fetch.observe(fetch.as_secs_f64());
        self.stage.observe(stage.as_secs_f64());
        self.mount.observe(mount.as_secs_f64());
        self.run.observe(run.as_secs_f64());
        self.collect.observe(collect.as_secs_f64());
        self.seal.observe(seal.as_secs_f64());
        self.total.observe(total_seconds);
    }

    /// An attempt leaves the queue for a slot.
    pub fn begun(&self, waited: Duration) {
        self.queue.observe(waited.as_secs_f64());
    }

    /// What an attempt put into the store.
    pub fn stored(&self, stored: &Stored) {
        let Stored { bytes, new, known } = stored;
        self.store.bytes.inc_by(*bytes);
        self.store.puts.with_label_values(&[NEW]).inc_by(*new);
        self.store.puts.with_label_values(&[KNOWN]).inc_by(*known);
    }

    /// The room that is left for the store.
    pub fn room(&self, room: &Room) {
        let Room { size, free } = room;
        self.store.size.set(i64::try_from(*size).unwrap_or(i64::MAX));
        self.store.free.set(i64::try_from(*free).unwrap_or(i64::MAX));
    }

    /// All that may ever be served, for the catalogue: nothing has happened yet.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn catalogue() -> Result<String, prometheus::Error> {
        Ok(Self::new()?.text(&JournalStats::default(), 0))
    }

    /// Shows what the probe run observed.
    pub fn show_layers(&self, report: &SandboxReport) {
        for layer in Layer::ALL {
            for (status, name) in STATUSES {
                let is = report.layer(layer).is_some_and(|row| row.status == status);
                self.layers.with_label_values(&[layer.name(), name]).set(i64::from(is));
            }
        }
    }

    /// The text form, with the figures of journal and runner as they are now.
    pub fn text(&self, journal: &JournalStats, runner_restarts: u64) -> String {
        self.runner_restarts.inc_by(runner_restarts.saturating_sub(self.runner_restarts.get()));
        let fsyncs = journal.fsyncs.load(Ordering::Relaxed);
        self.fsyncs.inc_by(fsyncs.saturating_sub(self.fsyncs.get()));
        self.journal_bytes.set(i64::try_from(journal.bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# metrics cannot be encoded: {error}\n"),
        }
    }
}

/// Every reason for which an attempt may end.
pub fn reasons() -> impl Iterator<Item = &'static str> {
    RESULTS.into_iter().chain(FailureReason::ALL.map(FailureReason::as_str))
}

/// Reasons of attempts that have a result.
const RESULTS: [&str; 6] =
    ["Succeeded", "NonZeroExit", "Signalled", "TimedOut", "OutOfMemory", "OutputMissing"];
/// The store took new bytes.
const NEW: &str = "new";
/// The store had the object.
const KNOWN: &str = "known";

/// What may be said of a layer, with the word for it.
pub const STATUSES: [(Status, &str); 5] = [
    (Status::Enforced, "enforced"),
    (Status::Partial, "partial"),
    (Status::Unsupported, "unsupported"),
    (Status::Delegated, "delegated"),
    (Status::Disabled, "disabled"),
];

fn keep<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("requiem").subsystem("executor")
}

fn counter(name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    IntCounter::with_opts(opts(name, help))
}

fn gauge(name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    IntGauge::with_opts(opts(name, help))
}

fn histogram(step: &Step) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts { common_opts: opts(step.name, step.help), buckets: step.bounds() })
}

#[cfg(test)]
mod tests {
    use requiem_model::result::Outcome;

    use super::*;

    fn series(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
    }

    #[test]
    fn what_happens_is_counted_where_it_was_shown_at_zero() {
        let metrics = Metrics::new().unwrap();
        let before = metrics.text(&JournalStats::default(), 0);
        assert!(before.contains("requiem_executor_attempts_total{reason=\"TimedOut\"} 0\n"), "{before}");
        assert!(before.contains("requiem_executor_queue_seconds_count 0\n"), "{before}");
        for outcome in [
            Outcome::Exited { code: 0 },
            Outcome::Exited { code: 1 },
            Outcome::Signalled { signal: 9 },
            Outcome::TimedOut,
            Outcome::OutOfMemory,
        ] {
            metrics.ended(outcome.reason());
        }
        metrics.ended(FailureReason::StoreFull.as_str());
        metrics.begun(Duration::from_millis(1));
        metrics.observe(&Timings::default(), 0.1);
        metrics.stored(&Stored { bytes: 7, new: 1, known: 2 });
        metrics.room(&Room { size: 10, free: 3 });
        let after = metrics.text(&JournalStats::default(), 3);
        assert_eq!(series(&before), series(&after));
        for line in [
            "attempts_total{reason=\"TimedOut\"} 1",
            "queue_seconds_count 1",
            "stored_bytes_total 7",
            "store_puts_total{result=\"known\"} 2",
            "store_puts_total{result=\"new\"} 1",
            "store_free_bytes 3",
            "runner_restarts_total 3",
        ] {
            assert!(after.contains(&format!("requiem_executor_{line}\n")), "{line}: {after}");
        }
    }
}
