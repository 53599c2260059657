//! Which of several operators works: the one that holds the Lease `requiem-operator` in their namespace.
//!
//! ```text
//! look (GET, once a second) ─▶ judge (pure) ─▶ create | take (PATCH) ─▶ lead: PATCH every third of the term
//!        ▲                          │ held                                  │ refused, or no answer for two thirds
//!        └──────────────────────────┘                                       ▼
//!                                                                         lost: the process ends
//! ```
//!
//! No clock of anybody else is read. Who stands by takes the Lease when it has itself seen it unchanged for a whole term;
//! who leads stops when its last successful write was *sent* two thirds of a term ago, both by their own monotonic clock. So the
//! one has stopped before the other begins, as long as their clocks run at about the same speed.
//!
//! Every write names the version that was read, so of two who write at once one is refused. Who stands by watches nothing: what
//! it would have in its caches would be the leader's work, and it could not tell which of it was begun.

mod judge;

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::kubeapi::FIELD_MANAGER;
use crate::metrics::Metrics;
use judge::{Election, Held, Step};

/// Name of the Lease. The operator's rights name it.
pub const LEASE: &str = "requiem-operator";
/// How often one that stands by looks, and how soon one that got no answer asks again.
const LOOK: Duration = Duration::from_secs(1);
/// A call to the API server is given up after this; one for a renewal earlier, if the term ends earlier.
const CALL: Duration = Duration::from_secs(5);

/// The Lease is somebody else's, or was not renewed in time. The process must end at once: another operator may work.
#[derive(Debug, thiserror::Error)]
#[error("the Lease {LEASE} is lost: {0}; another operator may work now, so this one ends")]
pub struct LeaseLost(String);

/// Where this process is in the election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not yet seen the Lease.
    Unknown,
    /// Somebody else holds the Lease, or nobody yet.
    By,
    /// This process holds it.
    Leads,
}

/// What an operator needs to stand for election.
#[derive(Clone)]
pub struct Candidate {
    client: Client,
    namespace: String,
    identity: String,
    term: Duration,
    metrics: Metrics,
}

/// A running election.
#[derive(Debug)]
pub struct Candidacy {
    standing: watch::Receiver<Standing>,
    resign: watch::Sender<bool>,
    task: JoinHandle<Result<(), LeaseLost>>,
}

impl Candidate {
    /// One that stands for election in `namespace`; who holds the Lease and says nothing for `term` has lost it.
    pub fn new(client: Client, namespace: &str, term: Duration, metrics: Metrics) -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
        // A pod whose container was restarted is another candidate than before: random, and not only its name.
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let identity = format!("{host}_{random:016x}");
        Self { client, namespace: namespace.to_owned(), identity, term, metrics }
    }

    /// Stands for election from now on.
    pub fn stand(self) -> Candidacy {
        let (tell, standing) = watch::channel(Standing::Unknown);
        let (resign, resigned) = watch::channel(false);
        let task = tokio::spawn(self.run(tell, resigned));
        Candidacy { standing, resign, task }
    }

    async fn run(
        self,
        tell: watch::Sender<Standing>,
        mut resigned: watch::Receiver<bool>,
    ) -> Result<(), LeaseLost> {
        let mut election = Election::new(self.identity.clone(), self.term);
        let mut step = Step::Look;
        while !*resigned.borrow() {
            step = match step {
                Step::Lost(why) => {
                    self.metrics.leads(false);
                    return Err(LeaseLost(why));
                }
                Step::Wait(time) => {
                    tokio::select! {
                        () = tokio::time::sleep(time) => {}
                        _ = resigned.wait_for(|resigned| *resigned) => {}
                    }
                    election.next(Instant::now())
                }
                step => self.act(&mut election, step).await,
            };
            let standing = election.standing();
            if tell.send_if_modified(|told| std::mem::replace(told, standing) != standing) {
                self.metrics.leads(standing == Standing::Leads);
                tracing::info!(identity = self.identity, ?standing, "election");
            }
        }
        self.release(&election).await;
        Ok(())
    }

    /// One call to the API server, and what follows from its answer.
    async fn act(&self, election: &mut Election, step: Step) -> Step {
        let sent = Instant::now();
        let limit = election.time_left(sent).map_or(CALL, |left| left.min(CALL));
        let looks = step == Step::Look;
        let call = async {
            match step {
                Step::Create => self.create().await.map(Some),
                Step::Take(version, transitions) => self.take(&version, transitions + 1).await.map(Some),
                Step::Renew(version) => self.renew(&version).await.map(Some),
                Step::Look | Step::Wait(_) | Step::Lost(_) => self.api().get_opt(LEASE).await,
            }
        };
        let answer = tokio::time::timeout(limit, call).await;
        let now = Instant::now();
        match answer {
            Ok(Ok(lease)) if looks => election.seen(lease.as_ref().map(held), now),
            Ok(Ok(lease)) => election.wrote(lease.as_ref().map(held), sent, now),
            // Somebody was faster, or it is gone: the next look shows who.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Step::Look,
            Ok(Err(error)) => election.unanswered(&crate::dispatch::chain(&error), now),
            Err(_elapsed) => election.unanswered("no answer in time", now),
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// By server-side apply, so that the right to create can be bound to the name; and under a field manager of this process
    /// alone, so that of two who create at once the second is refused.
    async fn create(&self) -> kube::Result<Lease> {
        let manager = format!("{FIELD_MANAGER}-{}", self.identity.rsplit('_').next().unwrap_or_default());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE, "ownerReferences": self.owner().await},
            "spec": self.spec(Some(1)),
        });
        self.api().patch(LEASE, &PatchParams::apply(&manager), &Patch::Apply(&lease)).await
    }

    async fn take(&self, version: &str, transitions: i32) -> kube::Result<Lease> {
        self.merge(version, self.spec(Some(transitions))).await
    }

    async fn renew(&self, version: &str) -> kube::Result<Lease> {
        self.merge(version, self.spec(None)).await
    }

    /// Gives the Lease back, so that nobody has to wait for its end. Best effort: unreleased, it ends by itself.
    async fn release(&self, election: &Election) {
        let Some(version) = election.version() else { return };
        let nobody = json!({"holderIdentity": null, "renewTime": now()});
        match tokio::time::timeout(LOOK, self.merge(version, nobody)).await {
            Ok(Ok(_)) => tracing::info!("the Lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be given back"),
            Err(_elapsed) => tracing::warn!("the Lease could not be given back in time"),
        }
        self.metrics.leads(false);
    }

    async fn merge(&self, version: &str, spec: Value) -> kube::Result<Lease> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        self.api().patch(LEASE, &params, &Patch::Merge(&patch)).await
    }

    fn spec(&self, taken: Option<i32>) -> Value {
        let mut spec = json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.term.as_secs(),
            "renewTime": now(),
        });
        if let Some(transitions) = taken {
            spec["acquireTime"] = json!(now());
            spec["leaseTransitions"] = json!(transitions);
        }
        spec
    }

    /// Our ServiceAccount, if we have one: the Lease goes with it when Requiem is uninstalled. Everybody may ask who they are.
    async fn owner(&self) -> Value {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
        let user = review.ok().and_then(|review| review.status?.user_info).unwrap_or_default();
        let account = format!("system:serviceaccount:{}:", self.namespace);
        match (user.username.as_deref().and_then(|name| name.strip_prefix(&account)), user.uid) {
            (Some(name), Some(uid)) => {
                json!([{"apiVersion": "v1", "kind": "ServiceAccount", "name": name, "uid": uid}])
            }
            _ => json!([]),
        }
    }
}

impl Candidacy {
    /// How this process stands, now and when that changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Returns when the Lease is lost, and never otherwise.
    pub async fn lost(&mut self) -> LeaseLost {
        match (&mut self.task).await {
            Ok(Err(lost)) => lost,
            Ok(Ok(())) => LeaseLost("it was given back".to_owned()),
            Err(error) => LeaseLost(error.to_string()),
        }
    }

    /// Gives the Lease back, if this process holds it.
    pub async fn resign(self) {
        self.resign.send_replace(true);
        if tokio::time::timeout(CALL + LOOK, self.task).await.is_err() {
            tracing::warn!("the election did not end in time");
        }
    }
}

fn held(lease: &Lease) -> Held {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Held {
        by: spec.holder_identity.filter(|holder| !holder.is_empty()),
        term: seconds.map(Duration::from_secs),
        version: lease.resource_version().unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}
