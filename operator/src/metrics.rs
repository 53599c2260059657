//! What the operator counts. Labels are bounded: kinds, verbs, stable codes; never names, UIDs or endpoints.
//!
//! Every count is there from the start, at zero, for each value that its labels may have: `rate` and `increase` see only what moved
//! between two scrapes, so a count that first appears at 1 would hide its first case. `docs/reference/metrics.md` is made from that.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use requiem_crds::admission::{Kind, RULES};
use requiem_crds::replay::ReplayOutcome;
use requiem_crds::status::ResultReason;
use requiem_proof::VerifyError;

use crate::context::kinds;
use crate::dispatch::DispatchError;
use crate::health::Census;
use crate::kubeapi::ApiError;

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
    verdicts: Verdicts,
    events: IntCounterVec,
    cache: IntCounterVec,
    expired: IntCounterVec,
    policy_refusals: IntCounterVec,
    queue_depth: IntGaugeVec,
    live: IntGaugeVec,
    election: Election,
    crew: Crew,
}

/// What was recomputed.
#[derive(Clone)]
struct Verdicts {
    proofs: IntCounterVec,
    replays: IntCounterVec,
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
    executors: IntGaugeVec,
}

/// What reconciles end with.
const RECONCILED: [&str; 3] = ["done", "waiting", "error"];
/// Kinds that have a queue and are reconciled.
const RECONCILED_KINDS: [&str; 5] =
    [kinds::EXECUTION, kinds::ENDED, kinds::POOL, kinds::BUNDLE, kinds::REPLAY];
/// Methods of calls to executors.
const METHODS: [&str; 4] = ["GET", "PUT", "POST", "DELETE"];
/// What the operator writes: (verb, kind).
const WRITES: [(&str, &str); 8] = [
    ("update", "Execution"),
    ("delete", "Execution"),
    ("update", "ExecutorPool"),
    ("create", "ProofBundle"),
    ("update", "ProofBundle"),
    ("create", "Pod"),
    ("delete", "Pod"),
    ("apply", "Secret"),
];
/// What happens to executor pods: (action, reason).
const PODS: [(&str, &str); 8] = [
    ("created", "Missing"),
    ("created", "Dedicated"),
    ("deleted", "Over"),
    ("deleted", "Surplus"),
    ("deleted", "Outdated"),
    ("deleted", "Finished"),
    ("refused", "QuotaExceeded"),
    ("refused", "PodRefused"),
];

impl Verdicts {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            proofs: counter(registry, "proof_verdicts_total", "Bundles recomputed, by code.", &["code"])?,
            replays: counter(
                registry,
                "replays_total",
                "Replays that have ended, by outcome.",
                &["outcome"],
            )?,
        })
    }
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
            executors: gauge(
                registry,
                "executors",
                "Executors that pools name or have as pods, by whether they take work, drain, or are away.",
                &["state"],
            )?,
        })
    }
}

impl Metrics {
    /// Metrics in a registry of their own.
    ///
    /// # Errors
    /// Never for the names in this file; the type of the registry is passed on.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self::empty()?;
        metrics.begin();
        Ok(metrics)
    }

    fn empty() -> Result<Self, prometheus::Error> {
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
            verdicts: Verdicts::new(&registry)?,
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

    /// Shows every count at zero.
    fn begin(&self) {
        for kind in RECONCILED_KINDS {
            zero(&self.reconciles, RECONCILED.map(|result| [kind, result]));
            self.reconcile_seconds.with_label_values(&[kind]);
        }
        zero(&self.finished, ResultReason::ALL.map(|reason| [reason.as_str()]));
        for result in ["succeeded", "failed"] {
            self.finish_seconds.with_label_values(&[result]);
        }
        zero(&self.dispatch_errors, DispatchError::CODES.map(|code| [code]));
        for method in METHODS {
            self.dispatch_seconds.with_label_values(&[method]);
        }
        for (verb, kind) in WRITES {
            zero(
                &self.api_writes,
                ["ok"].into_iter().chain(ApiError::CODES).map(|result| [verb, kind, result]),
            );
        }
        let verdicts = ["Verified", "Unpublished"].into_iter().chain(VerifyError::CODES);
        zero(&self.verdicts.proofs, verdicts.map(|code| [code]));
        zero(&self.events, ["published", "dropped", "refused", "timeout"].map(|result| [result]));
        zero(&self.cache, ["hit", "miss", "wait"].map(|result| [result]));
        zero(&self.expired, ["compacted", "deleted", "observed"].map(|action| [action]));
        for kind in [Kind::Namespaced, Kind::Cluster] {
            zero(&self.policy_refusals, RULES.map(|rule| [kind.as_str(), rule]));
        }
        zero(&self.verdicts.replays, ReplayOutcome::ALL.map(|outcome| [outcome.as_str()]));
        zero(&self.election.changes, [["leader"], ["standby"]]);
        zero(&self.crew.pods, PODS.map(|(action, reason)| [action, reason]));
    }

    /// All that may ever be served, for the catalogue: as [`Metrics::render`] when nothing has happened, and what the operator knows
    /// only later besides.
    ///
    /// # Errors
    /// As [`Metrics::new`] and [`Metrics::render`].
    pub fn catalogue() -> Result<Vec<u8>, prometheus::Error> {
        let metrics = Self::new()?;
        let cached = [kinds::POD, Kind::Namespaced.as_str(), Kind::Cluster.as_str()];
        for kind in RECONCILED_KINDS.into_iter().chain(cached) {
            metrics.backlog(kind, 0, 0);
        }
        for of in ["authority", "operator", "executor"] {
            metrics.certificate(of, 0);
        }
        metrics.crew(0, &Census::default());
        metrics.leads(false);
        metrics.render()
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
        self.verdicts.proofs.with_label_values(&[code]).inc();
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

    /// A replay has ended and was recorded.
    pub fn replay(&self, outcome: &str) {
        self.verdicts.replays.with_label_values(&[outcome]).inc();
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

    /// Slots of all executors, and how many of them there are.
    pub fn crew(&self, slots: u64, census: &Census) {
        self.crew.slots.with_label_values::<&str>(&[]).set(i64::try_from(slots).unwrap_or(i64::MAX));
        let Census { present, draining, away } = *census;
        for (state, count) in [("present", present), ("draining", draining), ("away", away)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.crew.executors.with_label_values(&[state]).set(count);
        }
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

/// Shows a count at zero for each of these values of its labels.
fn zero<const N: usize>(counts: &IntCounterVec, values: impl IntoIterator<Item = [&'static str; N]>) {
    for labels in values {
        counts.with_label_values(&labels);
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

    fn lines(text: Vec<u8>) -> Vec<String> {
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_count_is_there_before_anything_happens() {
        let served = lines(Metrics::new().unwrap().render().unwrap());
        let catalogue = lines(Metrics::catalogue().unwrap());
        let families = |lines: &[String]| lines.iter().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(families(&catalogue), 21, "{catalogue:#?}");
        for counts in catalogue.iter().filter(|line| line.ends_with(" counter")) {
            assert!(served.contains(counts), "{counts}");
        }
        for zero in [
            "executions_finished_total{reason=\"ProofRejected\"} 0",
            "dispatch_errors_total{code=\"Unreachable\"} 0",
            "api_writes_total{kind=\"Execution\",result=\"Refused\",verb=\"update\"} 0",
            "execution_seconds_count{result=\"succeeded\"} 0",
        ] {
            assert!(served.contains(&name(zero)), "{zero}");
        }
        // A date that is not known yet must not look like one that is long past.
        assert!(!served.iter().any(|line| line.contains("certificate_expiry")), "{served:#?}");
    }

    #[test]
    fn what_happens_is_counted_where_it_was_shown_at_zero() {
        let metrics = Metrics::new().unwrap();
        let series = |text: Vec<u8>| -> Vec<String> {
            lines(text).iter().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        let before = series(metrics.render().unwrap());
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
        metrics.pod("created", "Missing");
        metrics.replay("Diverges");
        assert_eq!(series(metrics.render().unwrap()), before);
        let text = lines(metrics.render().unwrap());
        for one in ["cache_total{result=\"hit\"} 1", "dispatch_errors_total{code=\"Timeout\"} 1"] {
            assert!(text.contains(&name(one)), "{one}");
        }
    }
}
