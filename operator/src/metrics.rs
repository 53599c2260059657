//! What the operator counts. Labels are bounded: kinds, verbs, stable codes; never names, UIDs or endpoints.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Seconds; from a fast warm run to a long command.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// All metrics. Clones count into the same registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    finished: IntCounterVec,
    finish_seconds: HistogramVec,
    dispatch_errors: IntCounterVec,
    dispatch_seconds: HistogramVec,
    api_writes: IntCounterVec,
    proof_verdicts: IntCounterVec,
    events: IntCounterVec,
    cache: IntCounterVec,
    expired: IntCounterVec,
    policy_refusals: IntCounterVec,
    queue_depth: IntGaugeVec,
    live: IntGaugeVec,
    election: Election,
    crew: Crew,
}

/// Which of several operators works.
#[derive(Clone)]
struct Election {
    leader: IntGaugeVec,
    changes: IntCounterVec,
}

/// Executors in pods.
#[derive(Clone)]
struct Crew {
    pods: IntCounterVec,
    certificates: IntGaugeVec,
    slots: IntGaugeVec,
}

impl Election {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            leader: gauge(registry, "leader", "Whether this operator holds the Lease.", &[])?,
            changes: counter(
                registry,
                "leader_changes_total",
                "Leases won, and lost or given back.",
                &["to"],
            )?,
        })
    }
}

impl Crew {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            pods: counter(
                registry,
                "pods_total",
                "Executor pods made, ended and refused, by reason.",
                &["action", "reason"],
            )?,
            certificates: gauge(
                registry,
                "certificate_expiry_timestamp_seconds",
                "Last second of the authority, of the operator's own certificate, and of the executors' first to end.",
                &["of"],
            )?,
            slots: gauge(registry, "executor_slots", "Slots of all executors that answered last.", &[])?,
        })
    }
}

impl Metrics {
    /// Metrics in a registry of their own.
    ///
    /// # Errors
    /// Never for the names in this file; the type of the registry is passed on.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        Ok(Self {
            reconciles: counter(
                &registry,
                "reconciles_total",
                "Reconciles by kind and result.",
                &["kind", "result"],
            )?,
            reconcile_seconds: histogram(
                &registry,
                "reconcile_seconds",
                "Time of one reconcile.",
                &["kind"],
            )?,
            finished: counter(
                &registry,
                "executions_finished_total",
                "Terminal statuses written, by reason.",
                &["reason"],
            )?,
            finish_seconds: histogram(
                &registry,
                "execution_seconds",
                "From the first sight of an Execution to its terminal status.",
                &["result"],
            )?,
            dispatch_errors: counter(
                &registry,
                "dispatch_errors_total",
                "Failed calls to executors, by code.",
                &["code"],
            )?,
            dispatch_seconds: histogram(
                &registry,
                "dispatch_seconds",
                "Time of calls to executors, waiting included.",
                &["method"],
            )?,
            api_writes: counter(
                &registry,
                "api_writes_total",
                "Writes sent to the API server, by verb, kind and result.",
                &["verb", "kind", "result"],
            )?,
            proof_verdicts: counter(
                &registry,
                "proof_verdicts_total",
                "Bundles recomputed, by code.",
                &["code"],
            )?,
            events: counter(&registry, "events_total", "Events by fate.", &["result"])?,
            cache: counter(
                &registry,
                "cache_total",
                "Executions that asked for an earlier result, by what came of it.",
                &["result"],
            )?,
            expired: counter(
                &registry,
                "expired_total",
                "Writes for ttlAfterFinished, by action.",
                &["action"],
            )?,
            policy_refusals: counter(
                &registry,
                "policy_refusals_total",
                "Rules of policies that an Execution was refused for.",
                &["kind", "rule"],
            )?,
            queue_depth: gauge(&registry, "queue_depth", "Objects that wait for a worker.", &["kind"])?,
            live: gauge(&registry, "live_objects", "Objects in the cache.", &["kind"])?,
            election: Election::new(&registry)?,
            crew: Crew::new(&registry)?,
            registry,
        })
    }

    /// One reconcile ended.
    pub fn reconciled(&self, kind: &str, result: &str, took: Duration) {
        self.reconciles.with_label_values(&[kind, result]).inc();
        self.reconcile_seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
    }

    /// An Execution got its terminal status `took` after it was first seen.
    pub fn finished(&self, reason: &str, succeeded: bool, took: Duration) {
        self.finished.with_label_values(&[reason]).inc();
        let result = if succeeded { "succeeded" } else { "failed" };
        self.finish_seconds.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    /// A call to an executor failed.
    pub fn dispatch_error(&self, code: &str) {
        self.dispatch_errors.with_label_values(&[code]).inc();
    }

    /// A call to an executor ended, well or not.
    pub fn dispatch_call(&self, method: &str, took: Duration) {
        self.dispatch_seconds.with_label_values(&[method]).observe(took.as_secs_f64());
    }

    /// A write was sent to the API server.
    pub fn api_write(&self, verb: &str, kind: &str, result: &str) {
        self.api_writes.with_label_values(&[verb, kind, result]).inc();
    }

    /// A bundle was recomputed; `code` is `Verified` or the reason why not.
    pub fn proof_verdict(&self, code: &str) {
        self.proof_verdicts.with_label_values(&[code]).inc();
    }

    /// An Event was published, dropped by the rate limit, or refused.
    pub fn event(&self, result: &str) {
        self.events.with_label_values(&[result]).inc();
    }

    /// An Execution asked for an earlier result: `hit`, `miss`, or `wait` for an identical one.
    pub fn cache(&self, result: &str) {
        self.cache.with_label_values(&[result]).inc();
    }

    /// `ttlAfterFinished` had an Execution compacted, deleted, or observed anew.
    pub fn expired(&self, action: &str) {
        self.expired.with_label_values(&[action]).inc();
    }

    /// An Execution was refused for this rule of a policy of this kind.
    pub fn policy_refusal(&self, kind: &str, rule: &str) {
        self.policy_refusals.with_label_values(&[kind, rule]).inc();
    }

    /// The present length of a queue and of its cache.
    pub fn backlog(&self, kind: &str, waiting: usize, live: usize) {
        self.queue_depth.with_label_values(&[kind]).set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.live.with_label_values(&[kind]).set(i64::try_from(live).unwrap_or(i64::MAX));
    }

    /// An executor pod was created, deleted or refused.
    pub fn pod(&self, action: &str, reason: &str) {
        self.crew.pods.with_label_values(&[action, reason]).inc();
    }

    /// The end of a certificate: `authority`, `operator` or `executor`.
    pub fn certificate(&self, of: &str, not_after: i64) {
        self.crew.certificates.with_label_values(&[of]).set(not_after);
    }

    /// Slots of all executors.
    pub fn slots(&self, slots: u64) {
        self.crew.slots.with_label_values::<&str>(&[]).set(i64::try_from(slots).unwrap_or(i64::MAX));
    }

    /// This operator has won the Lease, or has it no more.
    pub fn leads(&self, leads: bool) {
        let gauge = self.election.leader.with_label_values::<&str>(&[]);
        if leads || gauge.get() == 1 {
            self.election.changes.with_label_values(&[if leads { "leader" } else { "standby" }]).inc();
        }
        gauge.set(i64::from(leads));
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// A metric that cannot be written as text.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn name(short: &str) -> String {
    format!("requiem_operator_{short}")
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(
    registry: &Registry,
    short: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name(short), help), labels)?)
}

fn gauge(
    registry: &Registry,
    short: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(Opts::new(name(short), help), labels)?)
}

fn histogram(
    registry: &Registry,
    short: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(name(short), help).buckets(BUCKETS.to_vec());
    registered(registry, HistogramVec::new(opts, labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_shows_once_it_is_used() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled("Execution", "done", Duration::from_millis(3));
        metrics.finished("Succeeded", true, Duration::from_millis(12));
        metrics.dispatch_error("Timeout");
        metrics.dispatch_call("PUT", Duration::from_millis(2));
        metrics.api_write("update", "Execution", "ok");
        metrics.proof_verdict("Verified");
        metrics.event("published");
        metrics.cache("hit");
        metrics.expired("compacted");
        metrics.policy_refusal("ExecutionPolicy", "maxLimits");
        metrics.backlog("Execution", 1, 2);
        metrics.pod("created", "Missing");
        metrics.certificate("authority", 1);
        metrics.slots(4);
        metrics.leads(true);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let families = text.lines().filter(|line| line.starts_with("# TYPE requiem_operator_")).count();
        assert_eq!(families, 19, "{text}");
        assert!(text.contains(
            "requiem_operator_api_writes_total{kind=\"Execution\",result=\"ok\",verb=\"update\"} 1"
        ));
    }
}
