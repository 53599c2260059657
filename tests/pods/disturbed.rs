//! What real life does to nodes and pods while Executions run: each ends in a state that is documented, nothing is lost, and
//! nothing has two results.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node as NodeObject, Pod, Secret};
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use requiem_crds::{Execution, ExecutorPool};
use requiem_executor::journal::{Journal, JournalOptions, Phase};
use requiem_operator::certificates::{AUTHORITY_SECRET, Authority, EXECUTOR_SECRET, server_name};
use requiem_tests::Failure;
use requiem_xtask::cluster::Node;
use requiem_xtask::images::payload;
use serde_json::{Value, json};

use crate::bed::nodes;
use crate::pools::{in_pool, pods};
use crate::site::{OWN_NAMESPACE, Site, ask, attempts, is_over, label, message, policy, reason, reason_of};

/// How long a node is away.
const CUT: Duration = Duration::from_secs(120);
/// How long a kubelet is away.
const STOPPED: Duration = Duration::from_secs(60);
/// A label of the node on which a pod may start now.
pub(crate) const HERE: &str = "requiem.dev/here";

/// An Execution with a pod of its own on nodes with these labels.
fn own(selector: Value) -> Result<Value, Failure> {
    let pod =
        json!({"image": payload::NAME, "imagePullPolicy": "Never", "tier": "T3", "nodeSelector": selector});
    Ok(json!({"policy": policy("t3")?, "executor": {"pod": pod}}))
}

fn pooled(pool: &str) -> Result<Value, Failure> {
    Ok(in_pool(pool, json!({"policy": policy("t3")?})))
}

fn on(node: &Node) -> Value {
    json!({"kubernetes.io/hostname": node.name()})
}

pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn runs(execution: &Execution) -> bool {
    message(execution).contains("runs on")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

pub(crate) async fn patch_node(site: &Site, node: &Node, patch: Value) -> Result<(), Failure> {
    let objects: Api<NodeObject> = Api::all(site.bed.client.clone());
    objects.patch(node.name(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Says on which of the nodes pods that want [`HERE`] may start.
pub(crate) async fn here(site: &Site, yes: &Node, no: &Node) -> Result<(), Failure> {
    patch_node(site, no, json!({"metadata": {"labels": {HERE: null}}})).await?;
    patch_node(site, yes, json!({"metadata": {"labels": {HERE: "yes"}}})).await
}

/// The pod of an Execution of its own that is there now.
async fn own_pod(site: &Site, execution: &str) -> Result<Pod, Failure> {
    let dedicated = ListParams::default().labels("requiem.dev/dedicated=true");
    let all = site.bed.pods.list(&dedicated).await?.items;
    let owned = |pod: &Pod| pod.owner_references().iter().any(|owner| owner.name == execution);
    all.into_iter().find(owned).ok_or_else(|| format!("{execution} has no pod").into())
}

/// How many results the executors of this namespace's pods on `node` have written down, by UID. What runs there is not
/// disturbed: copies of journals are read.
fn results(site: &Site, node: &Node) -> Result<BTreeMap<String, usize>, Failure> {
    let mut results = BTreeMap::new();
    let mark = format!("{}_", site.bed.namespace);
    for entry in std::fs::read_dir(node.var().join("log/pods"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(uid) = name.strip_prefix(&mark).and_then(|rest| rest.rsplit('_').next()) else { continue };
        let volumes = node.var().join(format!("lib/kubelet/pods/{uid}/volumes"));
        let journal = volumes.join("kubernetes.io~empty-dir/store/journal");
        if journal.exists() {
            count(&journal, &mut results)?;
        }
    }
    Ok(results)
}

fn count(journal: &Path, results: &mut BTreeMap<String, usize>) -> Result<(), Failure> {
    let copy = tempfile::tempdir()?;
    for entry in std::fs::read_dir(journal)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
        }
    }
    let (_journal, replay) = Journal::open(copy.path(), JournalOptions::default(), Box::new(|_| Ok(())))?;
    for (key, logged) in replay.attempts {
        *results.entry(key.uid).or_default() += usize::from(matches!(logged.phase, Phase::Sealed { .. }));
    }
    Ok(())
}

/// Two nodes: one is cut off for two minutes, and in that time the other one's kubelet is away for one.
struct TwoMinutes {
    site: Site,
    cut: Node,
    left: Node,
    began: Instant,
    /// The Execution that runs in the pool of both nodes, on the one that is cut off.
    moves: String,
}

impl TwoMinutes {
    /// Work on the node that will be cut off: of a pool and of pods of their own, to be waited for and to be moved.
    async fn set() -> Result<Self, Failure> {
        let site = Site::alone("two-minutes", "restricted").await?;
        let mut both = nodes()?;
        let (cut, left) = (both.remove(1), both.remove(0));
        here(&site, &cut, &left).await?;
        site.pool("moves", json!({"replicas": 2, "drainSeconds": 0})).await?;
        site.pool("waits", json!({"nodeSelector": on(&cut)})).await?;
        site.settled("moves", 2).await?;
        site.settled("waits", 1).await?;
        for pair in ["pair-0", "pair-1"] {
            site.execute(pair, "sleep 20; echo done", pooled("moves")?).await?;
        }
        site.execute("waits", "sleep 20; echo done", pooled("waits")?).await?;
        site.execute("own-waits", "sleep 20; echo done", own(on(&cut))?).await?;
        site.execute("own-moves", "sleep 20; echo done", own(json!({HERE: "yes"}))?).await?;
        for name in ["pair-0", "pair-1", "waits", "own-waits", "own-moves"] {
            site.watch(name, runs).await?;
        }
        let away = pods(&site, "moves").await?.into_iter().find(|pod| node_of(pod) == cut.name());
        let away = away.ok_or("no pod of the pool is on the node")?.name_any();
        let first = site.executions.get("pair-0").await?;
        let moves = if message(&first).contains(&away) { "pair-0" } else { "pair-1" }.to_owned();
        cut.cut()?;
        Ok(Self { site, cut, left, began: Instant::now(), moves })
    }

    /// Everybody who may be on the silent node waits; what is deleted moves when its grace and half a minute are over.
    async fn wait_and_move(&self) -> Result<(), Failure> {
        let site = &self.site;
        let silent = |object: &Execution| {
            reason_of(object) == "ExecutorUnavailable" && message(object).contains("goes on when it answers")
        };
        for name in [self.moves.as_str(), "waits", "own-waits", "own-moves"] {
            assert_eq!(attempts(&site.watch(name, silent).await?), 1, "{name}");
        }
        here(site, &self.left, &self.cut).await?;
        let pool = pods(site, "moves").await?;
        let pod = pool.iter().find(|pod| node_of(pod) == self.cut.name()).ok_or("its pod is gone")?;
        let own = own_pod(site, "own-moves").await?;
        for pod in [pod, &own] {
            let grace = DeleteParams::default().grace_period(5);
            site.bed.pods.delete(&pod.name_any(), &grace).await?;
        }
        assert_eq!(attempts(&site.success(&self.moves).await?), 2, "it moves to the other pod of its pool");
        let moved = |object: &Execution| attempts(object) == 2 && runs(object);
        site.watch("own-moves", moved).await?;
        for name in ["waits", "own-waits"] {
            assert_eq!(attempts(&site.watch(name, silent).await?), 1, "{name} was started elsewhere");
        }
        Ok(())
    }

    /// What runs, and what is begun, ends without a kubelet: the operator speaks to executors, and needs nobody between.
    async fn without_a_kubelet(&self) -> Result<(), Failure> {
        let site = &self.site;
        self.left.stop_kubelet()?;
        let stopped = Instant::now();
        site.execute("unwatched", "sleep 5; echo done", pooled("moves")?).await?;
        assert_eq!(attempts(&site.success("unwatched").await?), 1);
        assert_eq!(attempts(&site.success("own-moves").await?), 2);
        // Its pod has had its order, and goes when there is a kubelet to end it.
        let name = own_pod(site, "own-moves").await?.name_any();
        site.bed.until(&name, |pod| pod.metadata.deletion_timestamp.is_some()).await?;
        // How long they are away is the point of this test.
        let rest = STOPPED.saturating_sub(stopped.elapsed()).max(CUT.saturating_sub(self.began.elapsed()));
        tokio::time::sleep(rest).await;
        self.count()
    }

    /// The executors' own books, while both nodes still have them.
    fn count(&self) -> Result<(), Failure> {
        let (cut, left) = (results(&self.site, &self.cut)?, results(&self.site, &self.left)?);
        assert!(!cut.is_empty() && !left.is_empty(), "no journal was found: {cut:?} {left:?}");
        for (uid, count) in cut.iter().chain(&left) {
            assert!(*count <= 1, "an executor has {count} results of {uid}");
        }
        Ok(())
    }

    async fn uid(&self, name: &str) -> Result<String, Failure> {
        Ok(self.site.executions.get(name).await?.uid().unwrap_or_default())
    }

    /// What waited has its first and only result; everything has one proof.
    async fn close(self) -> Result<(), Failure> {
        let site = &self.site;
        for name in ["waits", "own-waits"] {
            assert_eq!(attempts(&site.success(name).await?), 1, "{name} ran on while nobody could ask");
        }
        let books = results(site, &self.cut)?;
        let waits = self.uid("waits").await?;
        assert_eq!(
            books.get(&waits),
            Some(&1),
            "the one result of the Execution that was waited for: {books:?}"
        );
        let mut proofs: BTreeMap<String, usize> = BTreeMap::new();
        for bundle in site.bundles.list(&ListParams::default()).await?.items {
            *proofs.entry(bundle.spec.execution_ref.name).or_default() += 1;
        }
        let all = ["pair-0", "pair-1", "waits", "own-waits", "own-moves", "unwatched"];
        assert_eq!(proofs, all.map(|name| (name.to_owned(), 1)).into());
        site.settled("moves", 2).await?;
        site.settled("waits", 1).await?;
        patch_node(site, &self.left, json!({"metadata": {"labels": {HERE: null}}})).await?;
        self.site.close().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_minutes_without_a_node_and_one_without_a_kubelet_lose_nothing() -> Result<(), Failure> {
    let test = TwoMinutes::set().await?;
    let care = Care { cut: test.cut.clone(), left: test.left.clone() };
    test.wait_and_move().await?;
    test.without_a_kubelet().await?;
    drop(care);
    test.close().await
}

/// Mends both nodes, also when a test fails: others use them, too.
struct Care {
    cut: Node,
    left: Node,
}

impl Drop for Care {
    fn drop(&mut self) {
        // Whoever needs the nodes next says what is wrong with them.
        let _unmended = (self.cut.mend(), self.left.start_kubelet());
    }
}

fn check(holds: bool, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// An eviction with this grace, or the pod's own. (`Api::evict` has no grace: its options are misspelt on the wire.)
async fn evict(site: &Site, pod: &Pod, grace: Option<i64>) -> Result<(), Failure> {
    let name = pod.name_any();
    let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        delete_options: Some(options),
    };
    let _status: Value =
        site.bed.pods.create_subresource("eviction", &name, &PostParams::default(), &eviction).await?;
    Ok(())
}

/// Asks every pod of the namespace on `node` to go, as `kubectl drain` does.
async fn evict_all(site: &Site, node: &Node) -> Result<Vec<Pod>, Failure> {
    let selector = ListParams::default().fields(&format!("spec.nodeName={}", node.name()));
    let there = site.bed.pods.list(&selector).await?.items;
    for pod in &there {
        evict(site, pod, None).await?;
    }
    Ok(there)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_drained_is_left_when_its_work_is_done() -> Result<(), Failure> {
    let site = Site::alone("drained", "restricted").await?;
    let node = nodes()?.remove(1);
    site.pool("default", json!({"replicas": 2, "drainSeconds": 60})).await?;
    site.settled("default", 2).await?;
    for name in ["one", "two"] {
        site.execute(name, "sleep 6; echo done", pooled("default")?).await?;
    }
    site.execute("own", "sleep 6; echo done", own(on(&node))?).await?;
    for name in ["one", "two", "own"] {
        site.watch(name, runs).await?;
    }
    patch_node(&site, &node, json!({"spec": {"unschedulable": true}})).await?;
    let drained = async {
        let evicted = evict_all(&site, &node).await?;
        check(evicted.len() == 2, "not one pod of the pool and one pod of its own were there")?;
        for name in ["one", "two", "own"] {
            check(attempts(&site.success(name).await?) == 1, name)?;
        }
        for pod in &evicted {
            site.bed.gone(pod).await?;
        }
        site.settled("default", 2).await?;
        let left = pods(&site, "default").await?;
        check(left.iter().all(|pod| node_of(pod) != node.name()), "a pod is on the drained node")
    };
    let drained = drained.await;
    patch_node(&site, &node, json!({"spec": {"unschedulable": null}})).await?;
    drained?;
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_its_own_that_is_evicted_ends_what_it_can_and_the_rest_runs_again() -> Result<(), Failure> {
    let site = Site::start("evicted", "restricted").await?;
    for (name, script) in [("short", "sleep 8; echo done"), ("long", "sleep 25; echo done")] {
        site.execute(name, script, own(json!({}))?).await?;
    }
    // A pod of its own has 25 s to end, unless somebody gives it less.
    let mut evicted = Vec::new();
    for (name, grace) in [("short", None), ("long", Some(3))] {
        site.watch(name, runs).await?;
        let pod = own_pod(&site, name).await?;
        evict(&site, &pod, grace).await?;
        evicted.push(pod);
    }
    assert_eq!(attempts(&site.success("short").await?), 1, "it had time enough");
    let long = site.success("long").await?;
    assert_eq!(attempts(&long), 2);
    let executor = long.status.and_then(|status| status.executor);
    assert_ne!(executor, Some(evicted[1].name_any()), "another pod ran it");
    assert_eq!(site.bundles.list(&ListParams::default()).await?.items.len(), 2, "one result each");
    for pod in &evicted {
        site.bed.gone(pod).await?;
    }
    let log = site.operator_log()?;
    assert!(log.contains("another attempt follows"), "{log}");
    site.close().await
}

/// Writes so much that an executor with little memory does not survive it.
const FLOOD: &str = "head -c 16000000 /dev/urandom & head -c 16000000 /dev/urandom >&2; wait";

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_runs_out_of_memory_says_so_and_can_be_helped() -> Result<(), Failure> {
    let site = Site::start("executor-oom", "restricted").await?;
    let resources = |executor: &str| json!({"executor": {"limits": {"memory": executor}}, "workload": {"limits": {"memory": "512Mi"}}});
    site.pool("small", json!({"resources": resources("24Mi")})).await?;
    site.settled("small", 1).await?;
    let limits = json!({"memory": "128Mi", "output": "64Mi"});
    let mut flood = pooled("small")?;
    flood["limits"] = limits.clone();
    site.execute("pooled", FLOOD, flood).await?;
    let mut alone = own(json!({}))?;
    alone["limits"] = limits;
    alone["executor"]["pod"]["resources"] = resources("24Mi");
    site.execute("own", FLOOD, alone).await?;
    let said = |pool: &ExecutorPool| reason(pool, "Ready") == "ExecutorOutOfMemory";
    let pool = site.until("small", said).await?;
    let told = json!(pool.status).to_string();
    assert!(told.contains("spec.pods.resources.executor"), "{told}");
    site.change("small", json!({"resources": resources("256Mi")})).await?;
    let pooled = site.success("pooled").await?;
    assert!(attempts(&pooled) >= 2, "nothing was lost");
    site.settled("small", 1).await?;
    // Nobody can help this one: its spec is what it is. It says why it is tried again and again.
    let why = |object: &Execution| message(object).contains("spec.executor.pod.resources.executor");
    site.watch("own", why).await?;
    let cancel = json!({"spec": {"cancel": true}});
    site.executions.patch("own", &PatchParams::default(), &Patch::Merge(&cancel)).await?;
    assert_eq!(reason_of(&site.watch("own", is_over).await?), "Cancelled");
    site.close().await
}

/// Puts a certificate in place of the executors' own that ran out ten days ago.
async fn let_expire(site: &Site) -> Result<(), Failure> {
    let secrets = |namespace: &str| Api::<Secret>::namespaced(site.bed.client.clone(), namespace);
    let stored = secrets(OWN_NAMESPACE).get(AUTHORITY_SECRET).await?.data.unwrap_or_default();
    let text = |name: &str| {
        let bytes = stored.get(name).map(|bytes| bytes.0.clone()).unwrap_or_default();
        String::from_utf8(bytes)
    };
    let authority = Authority::parse(&text("ca.crt")?, &text("ca.key")?, &text("notAfter")?)?;
    let past = Timestamp::now() - SignedDuration::from_hours(40 * 24);
    let issued = authority.server(&server_name(&site.bed.namespace), past)?;
    let files = json!({"stringData": {"tls.crt": issued.certificate, "tls.key": issued.key}});
    let own = secrets(&site.bed.namespace);
    own.patch(EXECUTOR_SECRET, &PatchParams::default(), &Patch::Merge(&files)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_whose_certificate_has_run_out_serve_again_when_the_operator_is_back() -> Result<(), Failure>
{
    let mut site = Site::start("expired", "restricted").await?;
    site.pool("default", json!({})).await?;
    site.settled("default", 1).await?;
    // An operator that is away for longer than a certificate lasts.
    site.kill_operator()?;
    let_expire(&site).await?;
    let pod = pods(&site, "default").await?.remove(0);
    let unready = site.bed.until(&pod.name_any(), |pod| !is_ready(pod)).await?;
    let lines = ask(&unready, "/readyz")?;
    assert!(lines.contains("certificate: it expired"), "{lines}");
    let executor = LogParams { container: Some("executor".to_owned()), ..LogParams::default() };
    let log = site.bed.pods.logs(&pod.name_any(), &executor).await?;
    assert!(log.contains("\"message\":\"not ready\"") && log.contains("it expired"), "{log}");
    site.execute("waits", "echo done", pooled("default")?).await?;
    site.start_operator().await?;
    let told = |pool: &ExecutorPool| {
        reason(pool, "Ready") == "NoExecutor"
            && json!(pool.status).to_string().contains("invalid peer certificate")
    };
    site.until("default", told).await?;
    assert_eq!(attempts(&site.success("waits").await?), 1);
    site.settled("default", 1).await?;
    let same = pods(&site, "default").await?.remove(0);
    assert_eq!(same.uid(), pod.uid(), "no pod had to be replaced for it");
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_a_folder_of_a_node_outlives_its_pods() -> Result<(), Failure> {
    let site = Site::start("host-path", "baseline").await?;
    let (namespace, node) = (site.bed.namespace.clone(), nodes()?.remove(0));
    let folder = node.var().join(&namespace);
    let store = json!({"hostPath": {"path": format!("/var/{namespace}")}});
    site.pool("default", json!({"store": store, "nodeSelector": on(&node)})).await?;
    let said = site.says("default", "PodRefused").await?;
    assert!(said.contains("hostPath") && said.contains("privileged"), "{said}");
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    label(&site.bed.client, &namespace, "pod-security.kubernetes.io/enforce", "privileged").await?;
    site.settled("default", 1).await?;
    let mut keeps = pooled("default")?;
    keeps["outputs"] = json!(["kept"]);
    site.execute("writes", "echo for later > kept", keeps).await?;
    let status = site.success("writes").await?.status.ok_or("no status")?;
    let digest = serde_json::to_value(&status.outputs)?[0]["blob"].clone();
    let pod = pods(&site, "default").await?.remove(0);
    site.bed.pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
    site.bed.gone(&pod).await?;
    let mut reads = pooled("default")?;
    reads["inputs"] = json!([{"path": "kept", "blob": digest}]);
    site.execute("reads", "cat kept", reads).await?;
    assert_eq!(crate::site::tail(&site.success("reads").await?), "for later\n");
    assert!(folder.join(pod.name_any()).join("journal").exists(), "the store is not in the node's folder");
    site.close().await?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
