//! What a scraper sees. Every label has a bounded set of values: reasons, layers, statuses.

use std::sync::atomic::Ordering;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use requiem_model::SandboxReport;
use requiem_model::policy::Layer;
use requiem_model::report::Status;

use crate::execute::Timings;
use crate::journal::JournalStats;

/// All metrics of one executor.
pub struct Metrics {
    registry: Registry,
    attempts: IntCounterVec,
    /// Attempts that wait for a slot.
    pub queue_depth: IntGauge,
    /// Attempts in a slot.
    pub running: IntGauge,
    stage: Histogram,
    mount: Histogram,
    run: Histogram,
    seal: Histogram,
    total: Histogram,
    /// Bytes that attempts put into the store and that were not there before.
    pub stored_bytes: IntCounter,
    /// Calls refused because the queue was full.
    pub refused: IntCounter,
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

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Two metrics of the same name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
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
            stage: keep(reg, histogram("stage_seconds", "Time to make inputs mountable.", 50e-6))?,
            mount: keep(
                reg,
                histogram("mount_seconds", "Time to bring staged inputs into the sandbox.", 10e-6),
            )?,
            run: keep(
                reg,
                histogram("run_seconds", "Time in the sandbox, set-up and tear-down included.", 0.001),
            )?,
            seal: keep(reg, histogram("seal_seconds", "Time to seal the bundle.", 50e-6))?,
            total: keep(reg, histogram("attempt_seconds", "Time from slot to durable end.", 0.001))?,
            stored_bytes: keep(
                reg,
                counter("stored_bytes_total", "New bytes that attempts put into the store."),
            )?,
            refused: keep(reg, counter("refused_total", "Attempts refused because the queue was full."))?,
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
        self.stage.observe(timings.stage.as_secs_f64());
        self.mount.observe(timings.mount.as_secs_f64());
        self.run.observe(timings.run.as_secs_f64());
        self.seal.observe(timings.seal.as_secs_f64());
        self.total.observe(total_seconds);
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

const STATUSES: [(Status, &str); 5] = [
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

/// Twelve buckets, each three times the one before.
fn histogram(name: &str, help: &str, first: f64) -> Result<Histogram, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(first, 3.0, 12)?;
    Histogram::with_opts(HistogramOpts { common_opts: opts(name, help), buckets })
}
