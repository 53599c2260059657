//! Every status that the operator writes, and every transition between them, before judges that we did not write.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::{WatchEvent, WatchParams};
use requiem_crds::ExecutionStatus;
use requiem_crds::condition::Reason;
use requiem_model::Outcome;
use requiem_operator::execution::apply::Settled;
use requiem_operator::execution::decide::{Final, Progress};
use requiem_operator::execution::report::{self, Scene};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::judges::{self, Said};
use super::*;

// === what the clients must say ===

/// What they must say of `object`, by nothing but whether it is over, how it ended, and what the API server knows.
fn expected(object: &Value) -> Said {
    let (meta, status) = (&object["metadata"], &object["status"]);
    let condition = |kind: &str| {
        let all = status["conditions"].as_array().into_iter().flatten();
        all.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    if meta["deletionTimestamp"].is_string() {
        return Said::of("Terminating", "InProgress", "Progressing");
    }
    if status["observedGeneration"] != meta["generation"] {
        return Said::of("InProgress", "InProgress", "Progressing");
    }
    let (done, good) = match object["kind"].as_str().unwrap() {
        "Execution" => (status["terminal"] == true, status["result"] == "Succeeded"),
        "ProofBundle" => (true, status["verifiedRoot"].is_string()),
        _ => (!condition("Reconciling"), status["capacity"] != 0),
    };
    match (done, good) {
        (false, _) if condition("Suspended") => Said::of("InProgress", "InProgress", "Suspended"),
        (false, _) => Said::of("InProgress", "InProgress", "Progressing"),
        (true, true) => Said::of("Current", "Current", "Healthy"),
        (true, false) => Said::of("Failed", "Failed", "Degraded"),
    }
}

fn check(objects: &[Value]) {
    for (object, said) in objects.iter().zip(judges::ask(objects)) {
        assert_eq!(said, expected(object), "{}", serde_json::to_string_pretty(object).unwrap());
    }
}

// === every status ===

#[test]
fn every_status_that_can_be_written_reads_right() {
    let now = Time(Timestamp::from_second(1_800_000_000).unwrap());
    let scene = |deleting| Scene { generation: 2, deleting, now: now.clone() };
    let mut statuses = Vec::new();
    for deleting in [false, true] {
        for reason in Reason::ALL {
            let progress = Progress { reason, message: "why".into(), attempts: 1 };
            let fresh = ExecutionStatus::default();
            statuses.push((deleting, report::unfinished(&progress, &fresh, &scene(deleting))));
        }
        for result in ResultReason::ALL {
            let end = Final {
                result,
                message: "why".into(),
                attempts: 1,
                proof: None,
                verdict: None,
                endpoint: None,
            };
            let settled = Settled { end, bundle: None, recalled: None, cache: None, violations: vec![] };
            let running = statuses[1].1.clone();
            let done = report::terminal(&settled, &running, &scene(deleting));
            statuses.push((deleting, report::compacted(&done, None, &scene(deleting))));
            statuses.push((deleting, report::restated(&done, &scene(deleting), None)));
            statuses.push((deleting, done));
        }
    }
    statuses.push((false, ExecutionStatus::default()));
    let object = |(deleting, status): &(bool, ExecutionStatus)| {
        let mut object = bare("Execution");
        object["status"] = json!(status);
        if *deleting {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-22T20:15:00Z");
        }
        object
    };
    let objects: Vec<Value> = statuses.iter().map(object).collect();
    assert!(objects.len() > 100);
    // Whoever looks at Ready alone must not take what is going for done either.
    let ready =
        |status: &ExecutionStatus| status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    assert!(!statuses.iter().any(|(deleting, status)| *deleting && ready(status)));
    check(&objects);
}

fn bare(kind: &str) -> Value {
    json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "n", "namespace": "ns", "generation": 2}, "spec": {},
    })
}

/// Why `status` has a default: without it kstatus takes an object that nobody has looked at for finished.
#[test]
fn a_status_that_is_not_there_is_healthy_for_kstatus_alone() {
    for kind in ["Execution", "ProofBundle", "ExecutorPool"] {
        let mut default = bare(kind);
        default["status"] = json!({"observedGeneration": -1});
        let said = judges::ask(&[bare(kind), default]);
        assert_eq!(said[0], Said::of("Current", "Unknown", "Progressing"), "{kind}");
        assert_eq!(said[1], Said::of("InProgress", "InProgress", "Progressing"), "{kind}");
    }
}

// === every transition ===

/// All states of all objects of a kind, as a client that watches sees them.
#[derive(Clone, Default)]
struct Record {
    states: Arc<Mutex<Vec<Value>>>,
    news: Arc<tokio::sync::Notify>,
}

impl Record {
    async fn start<K>(&self, api: &Api<K>, tasks: &mut JoinSet<()>)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
        K: Send + 'static,
    {
        let (api, record) = (api.clone(), self.clone());
        let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        tasks.spawn(async move {
            let mut events = api.watch(&WatchParams::default(), &version).await.unwrap().boxed();
            while let Ok(Some(event)) = events.try_next().await {
                if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                    record.states.lock().unwrap().push(json!(object));
                    record.news.notify_one();
                }
            }
        });
    }

    fn states(&self) -> Vec<Value> {
        self.states.lock().unwrap().clone()
    }

    /// Reasons of Ready and Replayed so far.
    fn reasons(&self) -> BTreeSet<String> {
        let states = self.states();
        let conditions =
            states.iter().flat_map(|state| state["status"]["conditions"].as_array().into_iter().flatten());
        let told = conditions
            .filter(|condition| ["Ready", "Replayed"].iter().any(|kind| condition["type"] == *kind));
        told.filter_map(|condition| condition["reason"].as_str().map(str::to_owned)).collect()
    }
}

/// Answers by the name of the Execution: `exit-3`, `fail-StoreFull`, `retry`, `forged`; any other succeeds.
fn by_name(call: Call) -> puppet::Answer {
    let Call::Start(start) = call else { return puppet::seals(call) };
    let name = start.identity.name.clone();
    let sealed_as = |outcome| {
        let mut body = honest(&start);
        body.execution.result.outcome = outcome;
        puppet::state(&AttemptState::Sealed { sealed: Box::new(sealed(&body)) })
    };
    let failed =
        |reason| puppet::state(&AttemptState::Failed { failure: Failure::new(reason, "why", "what to do") });
    match name.split_once('-').unwrap_or((&name, "")) {
        ("diverging", _) if start.identity.uid.contains("-replay-") => sealed_as(Outcome::Exited { code: 3 }),
        ("exit", _) => sealed_as(Outcome::Exited { code: 3 }),
        ("signal", _) => sealed_as(Outcome::Signalled { signal: 9 }),
        ("timeout", _) => sealed_as(Outcome::TimedOut),
        ("oom", _) => sealed_as(Outcome::OutOfMemory),
        ("store", _) => failed(FailureReason::StoreFull),
        ("input", _) => failed(FailureReason::InputMissing),
        ("layer", _) => failed(FailureReason::LayerUnavailable),
        ("retry", _) if start.identity.attempt == 1 => failed(FailureReason::StoreError),
        ("forged", _) => {
            let mut forged = sealed(&honest(&start));
            forged.body = forged.body.replacen("12345", "12346", 1);
            puppet::state(&AttemptState::Sealed { sealed: Box::new(forged) })
        }
        _ => puppet::seals(Call::Start(start)),
    }
}

fn in_pool(name: &str) -> Value {
    json!({"executor": {"poolRef": {"name": name}}})
}

#[tokio::test]
async fn every_transition_reads_right() {
    let rig = Rig::start("health").await;
    let (record, mut tasks) = (Record::default(), JoinSet::new());
    record.start(&rig.executions, &mut tasks).await;
    record.start(&rig.bundles, &mut tasks).await;
    record.start(&rig.pools, &mut tasks).await;
    let puppet = rig.puppet(by_name).await;
    rig.pool(&[("a", &puppet.server)]).await;
    ends_of_every_kind(&rig).await;
    waiting_in_every_way(&rig, &puppet).await;
    finished_ones_that_go(&rig).await;
    unverified_bundles(&rig).await;
    an_executor_that_is_gone(&rig).await;
    let wanted = "Cancelled E_ROOT ExecutorUnavailable ExecutorsReady InputMissing IntegrityOnly InvalidSpec \
                  LayerUnavailable NoEndpoints NoExecutor NonZeroExit OutOfMemory PoolNotFound ProofRejected ReplayDiverged Replaying ReplaysAgree Retrying \
                  Running Signalled StoreFull Succeeded Suspended Terminating TimedOut";
    let missing =
        || wanted.split(' ').filter(|reason| !record.reasons().contains(*reason)).collect::<Vec<_>>();
    let told = async {
        while !missing().is_empty() {
            record.news.notified().await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, told).await;
    assert!(all.is_ok(), "never seen: {:?}", missing());
    let states = record.states();
    let seen = |what: fn(&Value) -> bool| states.iter().any(what);
    assert!(seen(|state| state["status"]["compacted"] == true));
    assert!(seen(|state| state["status"]["cache"]["hit"] == true));
    check(&states);
}

async fn ends_of_every_kind(rig: &Rig) {
    let ends = ["exit", "signal", "timeout", "oom", "store", "input", "layer", "forged", "fine", "retry"];
    for name in ends {
        let retries = u32::from(name == "retry");
        rig.create_with(name, json!({}), json!({"retry": {"limit": retries}})).await;
    }
    for name in ["agreeing", "diverging"] {
        rig.create_with(name, json!({}), json!({"replay": {"count": 1}})).await;
    }
    rig.create("invalid", |spec| spec.outputs = vec!["a".into(), "a/b".into()]).await;
    for name in ends.iter().chain(&["invalid"]) {
        rig.ended(name).await;
    }
    // All of them ask for the same, and one has succeeded.
    let short = json!({"cache": "Use", "ttlAfterFinished": {"seconds": 0}});
    rig.create_with("answered", json!({}), short).await;
    rig.until("answered", "compacted", |object: Option<&Execution>| {
        object.and_then(|object| object.status.as_ref()).is_some_and(|status| status.compacted)
    })
    .await;
}

async fn waiting_in_every_way(rig: &Rig, puppet: &Puppet) {
    let slow = rig.puppet(puppet::runs).await;
    let (mut stuck, mut doomed) = (rig.puppet(puppet::runs).await, rig.puppet(puppet::runs).await);
    for (name, puppet) in [("running", &slow), ("cancelled", &stuck), ("dying", &doomed)] {
        rig.pool_called(name, &[("a", &puppet.server)]).await;
        let hold = if name == "dying" { vec!["tests.requiem.dev/hold"] } else { vec![] };
        rig.create_with(name, json!({"finalizers": hold}), in_pool(name)).await;
    }
    rig.create_with("late", json!({}), in_pool("late")).await;
    rig.create("held", |spec| spec.suspend = true).await;
    for name in ["running", "cancelled", "dying"] {
        rig.says(name, "Running").await;
    }
    slow.finish();
    rig.edit("cancelled", json!({"cancel": true})).await;
    stuck.until(|call| matches!(call, Call::Cancel)).await;
    rig.executions.delete("dying", &DeleteParams::default()).await.unwrap();
    doomed.until(|call| matches!(call, Call::Cancel)).await;
    rig.says("held", "Suspended").await;
    rig.edit("held", json!({"suspend": false})).await;
    rig.says("late", "PoolNotFound").await;
    rig.pool_called("late", &[]).await;
    rig.says("late", "NoEndpoints").await;
    let endpoints = json!({"spec": {"endpoints": [{"name": "a", "url": puppet.server.endpoint("a").url}]}});
    rig.pools.patch("late", &PatchParams::default(), &Patch::Merge(endpoints)).await.unwrap();
    for name in ["late", "held", "running", "cancelled", "dying"] {
        rig.ended(name).await;
    }
}

/// It takes its pool with it.
async fn an_executor_that_is_gone(rig: &Rig) {
    let gone = rig.puppet(puppet::seals).await;
    let endpoint = json!({"name": "a", "url": gone.server.endpoint("a").url});
    drop(gone);
    let pool = json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": {"name": "gone"},
        "spec": {"endpoints": [endpoint]},
    });
    rig.pools.create(&PostParams::default(), &serde_json::from_value(pool).unwrap()).await.unwrap();
    rig.create_with("stranded", json!({}), in_pool("gone")).await;
    rig.says("stranded", "ExecutorUnavailable").await;
}

/// Finished, then deleted while somebody's finalizer holds it: with a TTL, which the operator looks at, and without.
async fn finished_ones_that_go(rig: &Rig) {
    let hold = json!({"finalizers": ["tests.requiem.dev/hold"]});
    rig.create_with("going", hold.clone(), json!({})).await;
    rig.create_with("observed", hold, json!({"ttlAfterFinished": {"seconds": 3600}})).await;
    for name in ["going", "observed"] {
        rig.ended(name).await;
        rig.executions.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let observed = rig.says("observed", "Terminating").await;
    let told = conditions(&observed);
    assert_eq!((told["Ready"].0.as_str(), told["Succeeded"].0.as_str()), ("False", "True"));
    assert_eq!(observed.status.unwrap().observed_generation, observed.metadata.generation.unwrap());
    let going = rig.executions.get("going").await.unwrap();
    assert!(going.status.unwrap().observed_generation < going.metadata.generation.unwrap());
    for name in ["going", "observed", "dying"] {
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        rig.executions.patch(name, &PatchParams::default(), &free).await.unwrap();
    }
}

async fn unverified_bundles(rig: &Rig) {
    let start = puppet::start_of(&rig.namespace, "elsewhere");
    let good = sealed(&honest(&start));
    let spec = ProofBundleSpec {
        body: good.body.replacen("12345", "12346", 1),
        execution_root: good.execution_root,
        bundle_root: good.bundle_root,
        execution_ref: ExecutionRef { name: "elsewhere".into(), uid: start.identity.uid },
    };
    rig.bundles.create(&PostParams::default(), &ProofBundle::new("broken", spec)).await.unwrap();
    rig.bundle("broken", "Verified").await;
}

// === what users copy ===

/// Every block of the page is part of a file that the tests above use.
#[test]
fn the_page_shows_what_was_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/gitops.md")).unwrap();
    let mut sources = Vec::new();
    for folder in ["config/gitops", "config/samples"] {
        read_all(&root.join(folder), &mut sources);
    }
    let mut blocks = 0;
    for language in ["yaml", "lua"] {
        for rest in page.split(&format!("```{language}\n")).skip(1) {
            let block = rest.split("```").next().unwrap();
            assert!(sources.iter().any(|source| source.contains(block)), "not from a file:\n{block}");
            blocks += 1;
        }
    }
    assert!(blocks >= 4, "{blocks} blocks");
}

fn read_all(folder: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, texts);
        } else {
            texts.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The component puts each script under the key that Argo CD reads.
#[test]
fn the_component_merges_into_the_config_map_of_argo_cd() {
    let folder = tempfile::tempdir().unwrap();
    let mut copy = std::process::Command::new("cp");
    copy.arg("-r").arg(judges::config().join("argocd")).arg(folder.path());
    assert!(copy.status().unwrap().success());
    let base = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argocd-cm}\ndata: {url: x}\n";
    std::fs::write(folder.path().join("argocd-cm.yaml"), base).unwrap();
    let overlay = "namespace: argocd\nresources: [argocd-cm.yaml]\ncomponents: [argocd]\n";
    std::fs::write(folder.path().join("kustomization.yaml"), overlay).unwrap();
    let kubectl = std::env::var_os("REQUIEM_TEST_KUBECTL").expect("REQUIEM_TEST_KUBECTL names a kubectl");
    let built = std::process::Command::new(kubectl).arg("kustomize").arg(folder.path()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let map: Value = serde_norway::from_slice(&built.stdout).unwrap();
    assert_eq!(
        (map["metadata"]["name"].as_str(), map["data"]["url"].as_str()),
        (Some("argocd-cm"), Some("x"))
    );
    for kind in ["Execution", "ExecutorPool", "ProofBundle"] {
        let script =
            std::fs::read_to_string(judges::config().join(format!("argocd/{kind}/health.lua"))).unwrap();
        let key = format!("resource.customizations.health.requiem.dev_{kind}");
        assert_eq!(map["data"][&key].as_str(), Some(script.as_str()), "{kind}");
    }
}
