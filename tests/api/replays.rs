//! `spec.replay` against a real API server: who runs a replay, what is kept of it, and what it never becomes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use requiem_crds::replay::{ReplayOutcome, ReplayPhase, ReplaysStatus};
use requiem_model::Outcome;
use requiem_model::attempt::StartAttempt;
use requiem_proof::ProofFile;
use requiem_proof::replays::{Replays, Tally};
use serde_json::Value;

use super::*;

type Starts = Arc<Mutex<Vec<StartAttempt>>>;

fn is_replay(start: &StartAttempt) -> bool {
    start.identity.uid.contains("-replay-")
}

/// An executor that notes what it is told to start, runs first results well, and answers replays as it is told.
async fn executor(
    rig: &Rig,
    starts: &Starts,
    replayed: impl Fn(&StartAttempt) -> puppet::Answer + Send + Sync + 'static,
) -> Puppet {
    let starts = starts.clone();
    rig.puppet(move |call| match call {
        Call::Start(start) => {
            starts.lock().unwrap().push((*start).clone());
            if is_replay(&start) { replayed(&start) } else { puppet::seals(Call::Start(start)) }
        }
        Call::Ask => puppet::runs(Call::Ask),
        call => puppet::seals(call),
    })
    .await
}

fn well(start: &StartAttempt) -> puppet::Answer {
    puppet::seals(Call::Start(Box::new(start.clone())))
}

fn otherwise(start: &StartAttempt) -> puppet::Answer {
    let mut body = honest(start);
    body.execution.result.outcome = Outcome::Exited { code: 3 };
    puppet::state(&AttemptState::Sealed { sealed: Box::new(sealed(&body)) })
}

fn fails(reason: FailureReason) -> impl Fn(&StartAttempt) -> puppet::Answer {
    move |_| puppet::state(&AttemptState::Failed { failure: Failure::new(reason, "no", "none") })
}

fn wants(count: u32, distinct: bool) -> Value {
    json!({"replay": {"count": count, "distinctNodes": distinct}})
}

fn replays_of(bundle: &ProofBundle) -> Option<&ReplaysStatus> {
    bundle.status.as_ref()?.replays.as_ref()
}

fn replayed(bundle: &ProofBundle) -> (String, String, String) {
    let conditions = bundle.status.iter().flat_map(|status| &status.conditions);
    let told = conditions.into_iter().find(|condition| condition.type_ == "Replayed");
    told.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone())).unwrap_or_default()
}

impl Rig {
    /// The only bundle, as soon as its condition Replayed has this reason.
    async fn replayed(&self, reason: &'static str) -> ProofBundle {
        let config = watcher::Config::default();
        let mut seen = watcher(self.bundles.clone(), config).default_backoff().applied_objects().boxed();
        let mut last = None;
        let found = async {
            loop {
                let bundle = seen.try_next().await.unwrap().expect("a watch goes on");
                if replayed(&bundle).1 == reason {
                    return bundle;
                }
                last = Some(bundle);
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(bundle) => bundle,
            Err(_elapsed) => panic!("not {reason}: {last:#?}"),
        }
    }

    async fn repool(&self, servers: &[(&str, &Server)]) {
        let endpoint =
            |(name, server): &(&str, &Server)| json!({"name": name, "url": server.endpoint(name).url});
        let endpoints: Vec<_> = servers.iter().map(endpoint).collect();
        let patch = Patch::Merge(json!({"spec": {"endpoints": endpoints}}));
        self.pools.patch("default", &PatchParams::default(), &patch).await.unwrap();
    }
}

/// What a third party counts who has nothing but the object.
fn counted(bundle: &ProofBundle) -> Tally {
    let file = ProofFile::parse(&serde_json::to_vec(bundle).unwrap()).unwrap();
    let original = file.verify().unwrap();
    Replays::of(&original).and(&file.receipts).tally(&original).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_agree_on_other_executors_and_the_object_alone_proves_it() {
    let rig = Rig::start("replays").await;
    let starts = Starts::default();
    let a = executor(&rig, &starts, well).await;
    let b = executor(&rig, &starts, well).await;
    let c = executor(&rig, &starts, well).await;
    rig.pool(&[("a", &a.server), ("b", &b.server), ("c", &c.server)]).await;
    let mut spec = wants(2, true);
    spec["cache"] = json!("Refresh");
    rig.create_with("twice", json!({}), spec).await;
    let ended = rig.ended("twice").await;
    let bundle = rig.replayed("ReplaysAgree").await;
    assert_eq!(replayed(&bundle).0, "True");
    let replays = replays_of(&bundle).unwrap();
    assert_eq!((replays.phase, replays.replayed, replays.agreed), (ReplayPhase::Done, 2, 2));
    let who: BTreeSet<&str> =
        replays.runs.iter().map(|run| run.executor.as_str()).chain(replays.executor.as_deref()).collect();
    assert_eq!(who, ["a", "b", "c"].into());
    let tally = counted(&bundle);
    assert_eq!((tally.replayed, tally.agreed, tally.first_divergence), (2, 2, None));

    let starts = starts.lock().unwrap().clone();
    let uid = bundle.metadata.uid.clone().unwrap();
    let uids: Vec<String> = starts.iter().map(|start| start.identity.uid.clone()).collect();
    let first = ended.metadata.uid.clone().unwrap();
    assert_eq!(uids, [first, format!("{uid}-replay-1"), format!("{uid}-replay-2")]);
    let digests: BTreeSet<String> =
        starts.iter().map(|start| start.request.digest().unwrap().to_string()).collect();
    assert_eq!(digests.len(), 1, "another request was replayed");

    // They are nobody's second result, and no bundles that could answer.
    let now = rig.executions.get("twice").await.unwrap();
    assert_eq!(now.status, ended.status);
    assert_eq!(rig.bundles.list(&ListParams::default()).await.unwrap().items.len(), 1);
    rig.create_with("again", json!({}), json!({"cache": "Use"})).await;
    let again = rig.ended("again").await.status.unwrap();
    assert_eq!(again.cache.unwrap().original.unwrap().uid, ended.metadata.uid.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_divergence_sticks_and_its_first_item_is_named() {
    let rig = Rig::start("diverges").await;
    let starts = Starts::default();
    let a = executor(&rig, &starts, |start| {
        if start.identity.uid.ends_with("-replay-2") { otherwise(start) } else { well(start) }
    })
    .await;
    rig.pool(&[("a", &a.server)]).await;
    rig.create_with("thrice", json!({}), wants(3, false)).await;
    let execution = rig.ended("thrice").await;
    assert_eq!(result(&execution), ResultReason::Succeeded);
    let bundle = rig.replayed("ReplayDiverged").await;
    let name = bundle.name_any();
    let bundle = await_condition(rig.bundles.clone(), &name, |bundle: Option<&ProofBundle>| {
        bundle.and_then(replays_of).is_some_and(|replays| replays.phase == ReplayPhase::Done)
    });
    let bundle = tokio::time::timeout(PATIENCE, bundle).await.unwrap().unwrap().unwrap();
    let (status, reason, message) = replayed(&bundle);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ReplayDiverged"));
    assert_eq!(message, "replayed 3 of 3 times, 2 agree; the first divergence is in exit");
    let replays = replays_of(&bundle).unwrap();
    let outcomes: Vec<ReplayOutcome> = replays.runs.iter().map(|run| run.outcome).collect();
    assert_eq!(outcomes, [ReplayOutcome::Agrees, ReplayOutcome::Diverges, ReplayOutcome::Agrees]);
    assert_eq!(replays.first_divergence.as_deref(), Some("exit"));
    let tally = counted(&bundle);
    assert_eq!((tally.replayed, tally.agreed), (3, 2));
    assert_eq!(tally.first_divergence.unwrap().to_string(), "exit");
    // Integrity is another question.
    let verified = bundle.status.unwrap().conditions.into_iter().find(|one| one.type_ == "Ready").unwrap();
    assert_eq!((verified.status.as_str(), verified.reason.as_str()), ("True", "IntegrityOnly"));
    let events: Api<Event> = Api::namespaced(rig.client.clone(), &rig.namespace);
    let told = await_event(&events, "ReplayDiverged").await;
    assert_eq!(told.regarding.unwrap().kind.as_deref(), Some("ProofBundle"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_while_a_replay_runs_starts_it_once() {
    let mut rig = Rig::start("replay-killed").await;
    let starts = Starts::default();
    let mut a = executor(&rig, &starts, |_| puppet::Answer::Running).await;
    rig.pool(&[("a", &a.server)]).await;
    rig.create_with("once", json!({}), wants(1, false)).await;
    a.until(|call| matches!(call, Call::Start(start) if is_replay(start))).await;
    let bundle = rig.replayed("Replaying").await;
    assert_eq!(replayed(&bundle).0, "Unknown");
    rig.kill_operator().await;
    a.finish();
    rig.start_operator().await;
    let bundle = rig.replayed("ReplaysAgree").await;
    assert_eq!(replays_of(&bundle).unwrap().runs.len(), 1);
    let replays = starts.lock().unwrap().iter().filter(|start| is_replay(start)).count();
    assert_eq!(replays, 1, "it was started again");
    a.until(|call| matches!(call, Call::Ack { n: 1 })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_input_is_no_divergence_and_another_node_goes_on() {
    let rig = Rig::start("replay-input").await;
    let starts = Starts::default();
    let a = executor(&rig, &starts, fails(FailureReason::InputMissing)).await;
    let b = executor(&rig, &starts, fails(FailureReason::InputMissing)).await;
    rig.pool(&[("a", &a.server), ("b", &b.server)]).await;
    rig.create_with("needy", json!({}), wants(1, true)).await;
    rig.ended("needy").await;
    let bundle = rig.replayed("NotEnoughNodes").await;
    let (status, _, message) = replayed(&bundle);
    assert_eq!(status, "Unknown");
    assert!(message.contains("InputMissing") && message.contains("add an executor"), "{message}");
    let replays = replays_of(&bundle).unwrap();
    assert_eq!((replays.replayed, replays.first_divergence.as_ref()), (0, None));
    let run = &replays.runs[0];
    assert_eq!((run.outcome, run.reason.as_deref()), (ReplayOutcome::Failed, Some("InputMissing")));

    let c = executor(&rig, &starts, well).await;
    rig.repool(&[("a", &a.server), ("b", &b.server), ("c", &c.server)]).await;
    let bundle = rig.replayed("ReplaysAgree").await;
    let replays = replays_of(&bundle).unwrap();
    assert_eq!((replays.replayed, replays.agreed, replays.runs.len()), (1, 1, 2));
    assert_eq!((replays.runs[1].number, replays.runs[1].executor.as_str()), (2, "c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_executor_can_run_ends_without_a_verdict() {
    let rig = Rig::start("replay-none").await;
    let starts = Starts::default();
    let a = executor(&rig, &starts, fails(FailureReason::InputMissing)).await;
    rig.pool(&[("a", &a.server)]).await;
    rig.create_with("never", json!({}), wants(2, false)).await;
    let (status, _, message) = replayed(&rig.replayed("ReplaysIncomplete").await);
    assert_eq!(status, "False");
    assert!(
        message.starts_with("replayed 0 of 2 times, 0 agree; NoResult: run 1 on executor a"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_run_is_made_good_by_another_and_a_forged_one_counts_for_nothing() {
    let rig = Rig::start("replay-lost").await;
    let starts = Starts::default();
    // The first is lost; the second is the proof of the first run, shown again.
    let shown = Arc::new(Mutex::new(None));
    let first = shown.clone();
    let a = rig
        .puppet(move |call| match call {
            Call::Start(start) if start.identity.uid.ends_with("-replay-1") => {
                fails(FailureReason::ExecutorLost)(&start)
            }
            Call::Start(start) if is_replay(&start) => {
                let original: StartAttempt = first.lock().unwrap().clone().unwrap();
                well(&original)
            }
            Call::Start(start) => {
                *first.lock().unwrap() = Some((*start).clone());
                well(&start)
            }
            call => puppet::seals(call),
        })
        .await;
    let b = executor(&rig, &starts, well).await;
    rig.pool(&[("a", &a.server)]).await;
    rig.create_with("lost", json!({}), wants(1, false)).await;
    let bundle = rig.replayed("ReplaysIncomplete").await;
    let runs = &replays_of(&bundle).unwrap().runs;
    let reasons: Vec<_> = runs.iter().filter_map(|run| run.reason.as_deref()).collect();
    assert_eq!(reasons, ["ExecutorLost", "ProofRejected"]);
    assert!(runs.iter().all(|run| run.body.is_none()));
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_deletes_the_bundle_or_the_execution_ends_the_replay() {
    let rig = Rig::start("replay-gone").await;
    let starts = Starts::default();
    let mut a = executor(&rig, &starts, |_| puppet::Answer::Running).await;
    rig.pool(&[("a", &a.server)]).await;
    rig.create_with("first", json!({}), wants(1, false)).await;
    let bundle = rig.replayed("Replaying").await;
    a.until(|call| matches!(call, Call::Start(start) if is_replay(start))).await;
    rig.bundles.delete(&bundle.name_any(), &DeleteParams::default()).await.unwrap();
    a.until(|call| matches!(call, Call::Cancel)).await;

    let mut b = executor(&rig, &starts, |_| puppet::Answer::Running).await;
    rig.repool(&[("b", &b.server)]).await;
    let mut kept = wants(1, false);
    kept["proof"] = json!({"retention": "Keep"});
    rig.create_with("second", json!({}), kept).await;
    rig.replayed("Replaying").await;
    b.until(|call| matches!(call, Call::Start(start) if is_replay(start))).await;
    rig.executions.delete("second", &DeleteParams::default()).await.unwrap();
    let (_, _, message) = replayed(&rig.replayed("ReplaysIncomplete").await);
    assert!(message.contains("Cancelled: its Execution was deleted"), "{message}");
    b.until(|call| matches!(call, Call::Cancel)).await;
}
