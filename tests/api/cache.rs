//! `spec.cache` against a real API server: who is answered, by what, and who never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use requiem_crds::proof_bundle::{Origin, REQUEST_LABEL, request_label};
use requiem_model::Outcome;
use serde_json::Value;

use super::*;

/// An executor that counts what it is told to start, and takes its time.
struct Counting {
    puppet: Puppet,
    starts: Arc<AtomicUsize>,
}

impl Counting {
    async fn start(rig: &Rig, takes: Duration, outcome: Outcome) -> Self {
        let starts = Arc::new(AtomicUsize::new(0));
        let count = starts.clone();
        let puppet = rig
            .puppet(move |call| match call {
                Call::Start(start) => {
                    count.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(takes);
                    let mut body = honest(&start);
                    body.execution.result.outcome = outcome;
                    puppet::state(&AttemptState::Sealed { sealed: Box::new(sealed(&body)) })
                }
                call => puppet::seals(call),
            })
            .await;
        Self { puppet, starts }
    }

    fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }
}

const GOOD: Outcome = Outcome::Exited { code: 0 };

fn wants(mode: &str) -> Value {
    json!({"cache": mode})
}

fn is_hit(object: &Execution) -> bool {
    object.status.as_ref().and_then(|status| status.cache.as_ref()).is_some_and(|cache| cache.hit)
}

async fn apply(rig: &Rig, names: &[String], spec: &Value) {
    let created = names.iter().map(|name| rig.create_with(name, json!({}), spec.clone()));
    futures::stream::iter(created).buffer_unordered(32).collect::<Vec<_>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_identical_at_once_run_once() {
    let rig = Rig::start("once").await;
    let executor = Counting::start(&rig, Duration::from_millis(500), GOOD).await;
    rig.pool(&[("a", &executor.puppet.server)]).await;
    let names: Vec<String> = (0..100).map(|n| format!("same-{n}")).collect();
    apply(&rig, &names, &wants("Use")).await;
    let (mut ran, mut attempts) = (Vec::new(), 0);
    for name in &names {
        let object = rig.ended(name).await;
        assert_eq!(result(&object), ResultReason::Succeeded, "{name}: {}", message(&object));
        attempts += object.status.as_ref().unwrap().attempts;
        if !is_hit(&object) {
            ran.push(object);
        }
    }
    assert_eq!((executor.starts(), ran.len(), attempts), (1, 1, 1));
    let first = ran[0].status.clone().unwrap();
    let bundles = rig.bundles.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(bundles.len(), 1);
    for name in names.iter().filter(|name| **name != ran[0].name_any()) {
        let status = rig.executions.get(name).await.unwrap().status.unwrap();
        let original = status.cache.unwrap().original.unwrap();
        assert_eq!(Some(&original.uid), ran[0].metadata.uid.as_ref());
        assert_eq!(original.bundle, bundles[0].name_any());
        assert_eq!((status.proof_root, status.request_digest), (first.proof_root, first.request_digest));
        assert!(status.start_time.is_none() && status.executor.is_none(), "it claims a run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_in_between_starts_nothing_twice() {
    let mut rig = Rig::start("killed").await;
    let mut executor = rig.puppet(puppet::runs).await;
    rig.pool(&[("a", &executor.server)]).await;
    let names: Vec<String> = (0..30).map(|n| format!("same-{n}")).collect();
    apply(&rig, &names, &wants("Use")).await;
    executor.until(|call| matches!(call, Call::Start(_))).await;
    // Everybody says that it waits, but the one that runs.
    let told = |object: &Execution| conditions(object).get("Ready").map(|ready| ready.1.clone());
    let (mut running, mut waiting) = (0, 0);
    for name in &names {
        let object = rig
            .until(name, "running or waiting", |object: Option<&Execution>| {
                let reason = object.and_then(told);
                reason.is_some_and(|reason| ["Running", "WaitingForIdentical"].contains(&reason.as_str()))
            })
            .await;
        running += usize::from(told(&object).as_deref() == Some("Running"));
        waiting += usize::from(told(&object).as_deref() == Some("WaitingForIdentical"));
    }
    assert_eq!((running, waiting), (1, 29));
    rig.kill_operator().await;
    let starts = executor.seen().iter().filter(|call| matches!(call, Call::Start(_))).count();
    assert_eq!(starts, 1);
    executor.finish();
    rig.start_operator().await;
    for name in &names {
        assert_eq!(result(&rig.ended(name).await), ResultReason::Succeeded);
    }
    let again = executor.seen().into_iter().filter(|call| matches!(call, Call::Start(_))).count();
    assert_eq!(again, 0, "an attempt was started again");
    assert_eq!(rig.bundles.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_answers_nobody_and_the_next_one_runs() {
    let rig = Rig::start("failing").await;
    let executor = Counting::start(&rig, Duration::ZERO, Outcome::Exited { code: 3 }).await;
    rig.pool(&[("a", &executor.puppet.server)]).await;
    let names: Vec<String> = (0..5).map(|n| format!("same-{n}")).collect();
    apply(&rig, &names, &wants("Use")).await;
    for name in &names {
        let object = rig.ended(name).await;
        assert_eq!((result(&object), is_hit(&object)), (ResultReason::NonZeroExit, false));
    }
    assert_eq!(executor.starts(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_creates_again_is_answered_without_an_executor() {
    let rig = Rig::start("again").await;
    let executor = Counting::start(&rig, Duration::ZERO, GOOD).await;
    rig.pool(&[("a", &executor.puppet.server)]).await;
    let flux = json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}});
    rig.create_with("job", flux.clone(), json!({})).await;
    let first = rig.ended("job").await;
    assert!(!is_hit(&first));
    let bundle = first.status.as_ref().unwrap().proof_bundle_ref.clone().unwrap().name;
    let kept = rig.bundle(&bundle, "Verified").await;
    assert_eq!(kept.metadata.owner_references, None, "it would go with its Execution");
    assert_eq!(kept.status.unwrap().origin, Some(Origin::Executed));
    rig.executions.delete("job", &DeleteParams::default()).await.unwrap();
    rig.pools.delete("default", &DeleteParams::default()).await.unwrap();
    rig.create_with("job", flux, json!({})).await;
    let second = rig.ended("job").await;
    assert!(is_hit(&second) && second.metadata.uid != first.metadata.uid);
    assert_eq!(second.status.as_ref().unwrap().proof_root, first.status.as_ref().unwrap().proof_root);
    assert!(message(&second).starts_with("nothing ran: "), "{}", message(&second));
    assert_eq!(executor.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_runs_and_answers_from_then_on_and_never_stays_out_of_it() {
    let rig = Rig::start("refresh").await;
    let executor = Counting::start(&rig, Duration::ZERO, GOOD).await;
    rig.pool(&[("a", &executor.puppet.server)]).await;
    let run = async |name: &str, mode: &str| {
        rig.create_with(name, json!({}), wants(mode)).await;
        rig.ended(name).await
    };
    run("plain", "Never").await;
    let original = |object: &Execution| {
        object
            .status
            .as_ref()
            .unwrap()
            .cache
            .as_ref()
            .and_then(|cache| cache.original.clone())
            .map(|o| o.name)
    };
    rig.bundle(&bundle_of(&rig, "plain").await, "Verified").await;
    assert_eq!(original(&run("first", "Use").await).as_deref(), Some("plain"));
    assert_eq!(original(&run("fresh", "Refresh").await), None);
    rig.bundle(&bundle_of(&rig, "fresh").await, "Verified").await;
    assert_eq!(original(&run("second", "Use").await).as_deref(), Some("fresh"));
    let never = run("never", "Never").await;
    assert!(never.status.unwrap().cache.is_none());
    assert_eq!(executor.starts(), 3);
}

async fn bundle_of(rig: &Rig, name: &str) -> String {
    rig.executions.get(name).await.unwrap().status.unwrap().proof_bundle_ref.unwrap().name
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_another_namespace_nor_a_bundle_of_a_users_making_answers() {
    let rig = Rig::start("mine").await;
    let executor = Counting::start(&rig, Duration::ZERO, GOOD).await;
    rig.pool(&[("a", &executor.puppet.server)]).await;
    // A success of the same request elsewhere.
    let other = Rig::start("theirs").await;
    let theirs = Counting::start(&other, Duration::ZERO, GOOD).await;
    other.pool(&[("a", &theirs.puppet.server)]).await;
    other.create_with("there", json!({}), wants("Use")).await;
    let there = other.ended("there").await;
    let digest = there.status.as_ref().unwrap().request_digest.unwrap();
    let honest_there = other.bundle(&bundle_of(&other, "there").await, "Verified").await;
    assert_eq!(honest_there.metadata.labels.unwrap()[REQUEST_LABEL], request_label(&digest));
    // That proof, carried here, with the right label; and one that was forged for this namespace.
    let forged = |body: &requiem_proof::BundleBody, name: &str| {
        let sealed = sealed(body);
        let spec = ProofBundleSpec {
            body: sealed.body,
            execution_root: sealed.execution_root,
            bundle_root: sealed.bundle_root,
            execution_ref: ExecutionRef {
                name: body.run.identity.name.clone(),
                uid: body.run.identity.uid.clone(),
            },
        };
        let mut bundle = ProofBundle::new(name, spec);
        bundle.metadata.labels = Some([(REQUEST_LABEL.to_owned(), request_label(&digest))].into());
        // What a user writes into the status of a new object is dropped by the API server.
        let mut object = json!(bundle);
        object["status"] = json!({"observedGeneration": 1, "origin": "Executed"});
        serde_json::from_value::<ProofBundle>(object).unwrap()
    };
    let body = honest(&puppet::start_of(&rig.namespace, "made-up"));
    assert_eq!(body.execution.request.digest().unwrap(), digest, "it would not be mistaken for an answer");
    rig.bundles.create(&PostParams::default(), &forged(&body, "made-up")).await.unwrap();
    let mut carried = ProofBundle::new("carried", honest_there.spec);
    carried.metadata.labels = Some([(REQUEST_LABEL.to_owned(), request_label(&digest))].into());
    rig.bundles.create(&PostParams::default(), &carried).await.unwrap();
    for (name, verified) in [("made-up", "True"), ("carried", "False")] {
        let status = rig.bundle(name, "Verified").await.status.unwrap();
        assert_eq!(status.origin, Some(Origin::Imported), "{name}");
        let told = status.conditions.iter().find(|c| c.type_ == "Verified").unwrap();
        assert_eq!(told.status, verified, "{name}: {}", told.message);
    }
    rig.create_with("here", json!({}), wants("Use")).await;
    let here = rig.ended("here").await;
    assert_eq!(here.status.as_ref().unwrap().request_digest, Some(digest));
    assert!(!is_hit(&here), "it was answered by somebody else: {}", message(&here));
    assert_eq!((executor.starts(), theirs.starts()), (1, 1));
}

/// Also the way of a bundle whose verdict was not written before the operator died.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_an_execution_vouches_for_its_bundle_and_for_no_other() {
    let rig = Rig::start("restored").await;
    let executor = Counting::start(&rig, Duration::ZERO, GOOD).await;
    rig.pool(&[("a", &executor.puppet.server)]).await;
    rig.create_with("first", json!({}), json!({"cache": "Use", "proof": {"retention": "Keep"}})).await;
    rig.ended("first").await;
    let name = bundle_of(&rig, "first").await;
    let kept = rig.bundle(&name, "Verified").await;
    rig.bundles.delete(&name, &DeleteParams::default()).await.unwrap();
    let origin = async |name: &str| {
        let mut copy = ProofBundle::new(name, kept.spec.clone());
        copy.metadata.labels = kept.metadata.labels.clone();
        rig.bundles.create(&PostParams::default(), &copy).await.unwrap();
        rig.bundle(name, "Verified").await.status.unwrap().origin
    };
    assert_eq!(origin("another-name").await, Some(Origin::Imported));
    rig.create_with("second", json!({}), wants("Use")).await;
    assert!(!is_hit(&rig.ended("second").await), "a copy answered");
    assert_eq!(origin(&name).await, Some(Origin::Executed));
    assert_eq!(executor.starts(), 2);
}
