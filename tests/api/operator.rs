//! The operator against a real API server, with executors that misbehave: they forge, forget, fall silent or
//! refuse. What honest executors and operators do together is shown by the suite `e2e`.
//!
//! `REQUIEM_TEST_KUBECONFIG` names the cluster; without it every test fails.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cache;
mod certificates;
#[path = "../../operator/tests/common/mod.rs"]
mod common;
mod election;
mod expiry;
mod health;
mod judges;
mod policies;
mod puppet;
mod replays;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use common::{Pki, Server};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition, conditions::is_crd_established};
use kube::{Client, Config, ResourceExt};
use puppet::{Call, Puppet, honest, sealed};
use requiem_config::operator::Args;
use requiem_crds::proof_bundle::ExecutionRef;
use requiem_crds::status::ResultReason;
use requiem_crds::{
    Execution, ExecutionSpec, ExecutorPool, ProofBundle, ProofBundleSpec, definition, execution::Publish,
};
use requiem_model::attempt::AttemptState;
use requiem_model::{Failure, FailureReason};
use requiem_operator::run;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);
const NAMES: &[&str] = &["127.0.0.1"];

/// One namespace, watched by one operator in this process.
struct Rig {
    client: Client,
    namespace: String,
    pki: Pki,
    executions: Api<Execution>,
    bundles: Api<ProofBundle>,
    pools: Api<ExecutorPool>,
    kubeconfig: PathBuf,
    cluster_policies: bool,
    stop: watch::Sender<bool>,
    operator: JoinSet<()>,
}

async fn connect() -> Client {
    let path =
        std::env::var_os("REQUIEM_TEST_KUBECONFIG").expect("REQUIEM_TEST_KUBECONFIG names a kubeconfig");
    let kubeconfig = Kubeconfig::read_from(PathBuf::from(path)).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap())
        .unwrap()
}

/// A fresh namespace.
async fn namespace(client: &Client, purpose: &str) -> String {
    let namespace = format!("op-{purpose}-{}", std::process::id());
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
    namespace
}

impl Rig {
    async fn start(purpose: &str) -> Self {
        let client = connect().await;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in definition::all() {
            let apply = PatchParams::apply("requiem-tests").force();
            definitions.patch(&definition.name_any(), &apply, &Patch::Apply(&definition)).await.unwrap();
            await_condition(definitions.clone(), &definition.name_any(), is_crd_established()).await.unwrap();
        }
        let namespace = namespace(&client, purpose).await;
        let pki = Pki::new();
        let mut rig = Self {
            executions: Api::namespaced(client.clone(), &namespace),
            bundles: Api::namespaced(client.clone(), &namespace),
            pools: Api::namespaced(client.clone(), &namespace),
            client,
            namespace,
            pki,
            kubeconfig: std::env::var_os("REQUIEM_TEST_KUBECONFIG").map(PathBuf::from).unwrap(),
            cluster_policies: false,
            stop: watch::channel(false).0,
            operator: JoinSet::new(),
        };
        rig.start_operator().await;
        rig
    }

    async fn start_operator(&mut self) {
        let files = self.pki.operator();
        let args = Args {
            config: None,
            kubeconfig: Some(self.kubeconfig.clone()),
            context: None,
            namespace: Some(self.namespace.clone()),
            cluster_policies: self.cluster_policies,
            tls_cert: Some(files.cert),
            tls_key: Some(files.key),
            executor_ca: Some(files.executor_ca),
            own_namespace: None,
            executor_image: None,
            leader_elect: false,
            lease_seconds: 15,
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            concurrency: 16,
            log_json: false,
        };
        let (stop, stopped) = watch::channel(false);
        self.stop = stop;
        self.operator = run::start(&args, stopped).await.unwrap().parts;
    }

    /// Ends the operator without a word, as a kill does.
    async fn kill_operator(&mut self) {
        self.operator.shutdown().await;
    }

    async fn puppet(&self, script: impl Fn(Call) -> puppet::Answer + Send + Sync + 'static) -> Puppet {
        Puppet::start(self.pki.server(NAMES), script).await
    }

    async fn pool(&self, servers: &[(&str, &Server)]) {
        self.pool_called("default", servers).await;
    }

    async fn pool_called(&self, name: &str, servers: &[(&str, &Server)]) {
        let endpoint =
            |(name, server): &(&str, &Server)| json!({"name": name, "url": server.endpoint(name).url});
        let endpoints: Vec<_> = servers.iter().map(endpoint).collect();
        let pool = json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": {"name": name},
            "spec": {"endpoints": endpoints},
        });
        let pool: ExecutorPool = serde_json::from_value(pool).unwrap();
        self.pools.create(&PostParams::default(), &pool).await.unwrap();
    }

    async fn create(&self, name: &str, change: impl FnOnce(&mut ExecutionSpec)) -> Execution {
        let mut spec = ExecutionSpec::new(vec!["/bin/true".into()]);
        change(&mut spec);
        self.executions.create(&PostParams::default(), &Execution::new(name, spec)).await.unwrap()
    }

    /// As [`Rig::create`], with metadata.
    async fn create_with(
        &self,
        name: &str,
        metadata: serde_json::Value,
        spec: serde_json::Value,
    ) -> Execution {
        let mut object = json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution", "metadata": metadata, "spec": spec,
        });
        object["metadata"]["name"] = json!(name);
        if object["spec"]["command"].is_null() {
            object["spec"]["command"] = json!(["/bin/true"]);
        }
        self.executions
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap()
    }

    async fn until(&self, name: &str, what: &str, condition: impl Condition<Execution>) -> Execution {
        let waiting = await_condition(self.executions.clone(), name, condition);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                let now = self.executions.get(name).await.unwrap().status;
                panic!("{name} did not become {what}: {}", serde_json::to_string_pretty(&now).unwrap())
            }
        }
    }

    async fn ended(&self, name: &str) -> Execution {
        self.until(name, "terminal", |object: Option<&Execution>| {
            object.and_then(|object| object.status.as_ref()).is_some_and(|status| status.terminal)
        })
        .await
    }

    async fn says(&self, name: &str, reason: &'static str) -> Execution {
        self.until(name, reason, move |object: Option<&Execution>| {
            object
                .is_some_and(|object| conditions(object).get("Ready").is_some_and(|ready| ready.1 == reason))
        })
        .await
    }

    async fn edit(&self, name: &str, spec: serde_json::Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.executions.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn bundle(&self, name: &str, kind: &'static str) -> ProofBundle {
        let judged = await_condition(self.bundles.clone(), name, move |bundle: Option<&ProofBundle>| {
            let status = bundle.and_then(|bundle| bundle.status.as_ref());
            status.is_some_and(|status| status.conditions.iter().any(|c| c.type_ == kind))
        });
        tokio::time::timeout(PATIENCE, judged).await.expect("a verdict").unwrap().unwrap()
    }
}

fn conditions(object: &Execution) -> BTreeMap<String, (String, String)> {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.map(|c| (c.type_.clone(), (c.status.clone(), c.reason.clone()))).collect()
}

fn message(object: &Execution) -> String {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.message.clone()).unwrap_or_default()
}

fn result(object: &Execution) -> ResultReason {
    object.status.as_ref().unwrap().result.unwrap()
}

// === proofs ===

async fn refused(purpose: &str, script: fn(Call) -> puppet::Answer, code: &str) {
    let rig = Rig::start(purpose).await;
    let mut puppet = rig.puppet(script).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("victim", |_| {}).await;
    let victim = rig.ended("victim").await;
    assert_eq!(result(&victim), ResultReason::ProofRejected);
    assert!(message(&victim).starts_with(&format!("{code}: ")), "{}", message(&victim));
    let told = conditions(&victim);
    assert_eq!(told["Stalled"].0, "True");
    assert_eq!((told["Ready"].0.as_str(), told["Succeeded"].0.as_str()), ("False", "False"));
    let status = victim.status.unwrap();
    assert!(status.proof_root.is_none() && status.exit_code.is_none() && status.stdout.is_none());
    assert!(rig.bundles.list(&ListParams::default()).await.unwrap().items.is_empty(), "it was published");
    assert!(!puppet.seen().iter().any(|call| matches!(call, Call::Ack { .. })), "evidence was given away");
    let events: Api<Event> = Api::namespaced(rig.client.clone(), &rig.namespace);
    let told = await_event(&events, "ProofRejected").await;
    assert_eq!(told.regarding.unwrap().name.as_deref(), Some("victim"));
}

async fn await_event(events: &Api<Event>, reason: &str) -> Event {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        if let Some(event) = found.into_iter().find(|event| event.reason.as_deref() == Some(reason)) {
            return event;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no event of reason {reason}");
}

#[tokio::test]
async fn a_forged_byte_is_refused() {
    let script = |call| match call {
        Call::Start(start) => {
            let mut forged = sealed(&honest(&start));
            forged.body = forged.body.replacen("12345", "12346", 1);
            puppet::state(&AttemptState::Sealed { sealed: Box::new(forged) })
        }
        _ => puppet::unknown(),
    };
    refused("forged", script, "E_ROOT").await;
}

#[tokio::test]
async fn the_proof_of_another_execution_is_refused() {
    let script = |call| match call {
        Call::Start(mut start) => {
            start.identity.uid = "00000000-0000-4000-8000-000000000000".into();
            puppet::state(&AttemptState::Sealed { sealed: Box::new(sealed(&honest(&start))) })
        }
        _ => puppet::unknown(),
    };
    refused("foreign", script, "E_REQUEST_BINDING").await;
}

#[tokio::test]
async fn the_proof_of_another_command_is_refused() {
    let script = |call| match call {
        Call::Start(mut start) => {
            start.request.argv = vec!["/bin/false".into()];
            puppet::state(&AttemptState::Sealed { sealed: Box::new(sealed(&honest(&start))) })
        }
        _ => puppet::unknown(),
    };
    refused("command", script, "E_REQUEST_BINDING").await;
}

#[tokio::test]
async fn a_verified_result_is_published_once_and_acknowledged() {
    let rig = Rig::start("honest").await;
    let mut puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |_| {}).await;
    let hello = rig.ended("hello").await;
    assert_eq!(result(&hello), ResultReason::Succeeded);
    let status = hello.status.as_ref().unwrap();
    let name = &status.proof_bundle_ref.as_ref().unwrap().name;
    let bundle = rig.bundle(name, "Verified").await;
    assert_eq!(Some(bundle.spec.bundle_root), status.proof_root);
    assert_eq!(bundle.status.unwrap().verified_root, status.proof_root);
    let owner = &bundle.metadata.owner_references.unwrap()[0];
    assert_eq!((Some(&owner.uid), owner.block_owner_deletion), (hello.metadata.uid.as_ref(), Some(false)));
    puppet.until(|call| matches!(call, Call::Ack { n: 1 })).await;
    let starts = puppet.seen().iter().filter(|call| matches!(call, Call::Start(_))).count();
    assert_eq!(starts, 1);

    rig.create("quiet", |spec| spec.proof.publish = Publish::Never).await;
    let quiet = rig.ended("quiet").await;
    let status = quiet.status.unwrap();
    assert!(status.proof_root.is_some() && status.proof_bundle_ref.is_none());
    assert_eq!(rig.bundles.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn bundles_of_others_are_judged_too() {
    let rig = Rig::start("bundles").await;
    let start = puppet::start_of(&rig.namespace, "elsewhere");
    let good = sealed(&honest(&start));
    let create = async |name: &str, body: &str| {
        let spec = ProofBundleSpec {
            body: body.to_owned(),
            execution_root: good.execution_root,
            bundle_root: good.bundle_root,
            execution_ref: ExecutionRef { name: "elsewhere".into(), uid: start.identity.uid.clone() },
        };
        rig.bundles.create(&PostParams::default(), &ProofBundle::new(name, spec)).await.unwrap();
    };
    create("good", &good.body).await;
    create("bad", &good.body.replacen("12345", "12346", 1)).await;
    let words = async |name: &str| {
        let status = rig.bundle(name, "Verified").await.status.unwrap();
        let words = status.conditions.iter().map(|c| format!("{}={}:{}", c.type_, c.status, c.reason));
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        words("good").await,
        "Ready=True:IntegrityOnly Sealed=True:IntegrityOnly Verified=True:IntegrityOnly"
    );
    assert_eq!(
        words("bad").await,
        "Ready=False:E_ROOT Sealed=False:E_ROOT Verified=False:E_ROOT Stalled=True:E_ROOT"
    );
}

#[tokio::test]
async fn a_taken_bundle_name_is_said_and_waited_for() {
    let rig = Rig::start("squat").await;
    let puppet = rig.puppet(puppet::seals).await;
    let object = rig.create("hello", |spec| spec.suspend = true).await;
    let name = format!("hello-{}-1", &object.metadata.uid.unwrap()[..8]);
    let start = puppet::start_of(&rig.namespace, "squatter");
    let other = sealed(&honest(&start));
    let spec = ProofBundleSpec {
        body: other.body,
        execution_root: other.execution_root,
        bundle_root: other.bundle_root,
        execution_ref: ExecutionRef { name: "squatter".into(), uid: start.identity.uid },
    };
    rig.bundles.create(&PostParams::default(), &ProofBundle::new(&name, spec)).await.unwrap();
    rig.pool(&[("a", &puppet.server)]).await;
    rig.edit("hello", json!({"suspend": false})).await;
    let stuck = rig.says("hello", "PublishFailed").await;
    assert!(message(&stuck).contains(&name), "{}", message(&stuck));
    assert!(!stuck.status.unwrap().terminal);
    rig.bundles.delete(&name, &DeleteParams::default()).await.unwrap();
    assert_eq!(result(&rig.ended("hello").await), ResultReason::Succeeded);
}

// === attempts ===

#[tokio::test]
async fn lost_attempts_are_repeated_and_do_not_count_against_the_user() {
    let rig = Rig::start("lost").await;
    let script = |call| match call {
        Call::Start(start) if start.identity.attempt < 3 => {
            let failure = Failure::new(FailureReason::ExecutorLost, "gone", "wait");
            puppet::state(&AttemptState::Failed { failure })
        }
        call => puppet::seals(call),
    };
    let mut puppet = rig.puppet(script).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |spec| spec.retry.limit = 0).await;
    let hello = rig.ended("hello").await;
    assert_eq!((result(&hello), hello.status.unwrap().attempts), (ResultReason::Succeeded, 3));
    puppet.until(|call| matches!(call, Call::Ack { n: 3 })).await;
}

#[tokio::test]
async fn what_needs_a_change_is_final_at_once() {
    let rig = Rig::start("missing").await;
    let script = |call| match call {
        Call::Start(_) => {
            let failure = Failure::new(FailureReason::InputMissing, "no blob", "put it");
            puppet::state(&AttemptState::Failed { failure })
        }
        _ => puppet::unknown(),
    };
    let mut puppet = rig.puppet(script).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |_| {}).await;
    let hello = rig.ended("hello").await;
    assert_eq!(result(&hello), ResultReason::InputMissing);
    assert_eq!(message(&hello), "no blob; put it");
    assert_eq!(puppet.seen().iter().filter(|call| matches!(call, Call::Start(_))).count(), 1);
}

#[tokio::test]
async fn a_restarted_operator_asks_before_it_starts() {
    let mut rig = Rig::start("restart").await;
    let mut puppet = rig.puppet(puppet::runs).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |_| {}).await;
    rig.says("hello", "Running").await;
    rig.kill_operator().await;
    puppet.seen();
    puppet.finish();
    rig.start_operator().await;
    assert_eq!(result(&rig.ended("hello").await), ResultReason::Succeeded);
    let calls = puppet.seen();
    assert!(!calls.iter().any(|call| matches!(call, Call::Start(_))), "it was started again: {calls:?}");
}

#[tokio::test]
async fn a_full_executor_is_waited_for_in_line() {
    let rig = Rig::start("full").await;
    let refusals = std::sync::atomic::AtomicU32::new(0);
    let script = move |call| match call {
        Call::Start(_) if refusals.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 4 => puppet::full(),
        call => puppet::seals(call),
    };
    let puppet = rig.puppet(script).await;
    rig.pool(&[("a", &puppet.server)]).await;
    for n in 0..5 {
        rig.create(&format!("hello-{n}"), |_| {}).await;
    }
    for n in 0..5 {
        assert_eq!(result(&rig.ended(&format!("hello-{n}")).await), ResultReason::Succeeded);
    }
}

// === states ===

#[tokio::test]
async fn without_a_pool_it_waits_and_says_so() {
    let rig = Rig::start("nopool").await;
    rig.create("hello", |_| {}).await;
    let waiting = rig.says("hello", "PoolNotFound").await;
    let told = conditions(&waiting);
    assert_eq!(told["Reconciling"].0, "True");
    assert!(!told.contains_key("Stalled"));
    rig.pool(&[]).await;
    rig.says("hello", "NoEndpoints").await;
    let puppet = rig.puppet(puppet::seals).await;
    let endpoints = json!({"spec": {"endpoints": [{"name": "a", "url": puppet.server.endpoint("a").url}]}});
    rig.pools.patch("default", &PatchParams::default(), &Patch::Merge(endpoints)).await.unwrap();
    let done = rig.ended("hello").await;
    assert_eq!(result(&done), ResultReason::Succeeded);
    assert!(!conditions(&done).contains_key("Reconciling"));
}

#[tokio::test]
async fn an_absent_executor_is_named_and_waited_for() {
    let rig = Rig::start("absent").await;
    let gone = rig.puppet(puppet::seals).await;
    let address = gone.server.address;
    drop(gone);
    let endpoints = json!([{"name": "a", "url": format!("https://{address}")}]);
    let pool = json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": {"name": "default"},
        "spec": {"endpoints": endpoints},
    });
    rig.pools.create(&PostParams::default(), &serde_json::from_value(pool).unwrap()).await.unwrap();
    rig.create("hello", |_| {}).await;
    let waiting = rig.says("hello", "ExecutorUnavailable").await;
    assert!(message(&waiting).contains(&format!("a (https://{address})")), "{}", message(&waiting));
    let _back = Puppet::start_at(address, rig.pki.server(NAMES), puppet::seals).await;
    assert_eq!(result(&rig.ended("hello").await), ResultReason::Succeeded);
}

#[tokio::test]
async fn while_one_endpoint_is_silent_nothing_is_started_on_the_other() {
    let mut rig = Rig::start("two").await;
    let mut alive = rig.puppet(puppet::seals).await;
    let gone = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &alive.server), ("b", &gone.server)]).await;
    // An Execution that an operator before this one may have started anywhere.
    rig.kill_operator().await;
    rig.create("hello", |_| {}).await;
    let address = gone.server.address;
    drop(gone);
    rig.start_operator().await;
    rig.says("hello", "ExecutorUnavailable").await;
    assert!(!alive.seen().iter().any(|call| matches!(call, Call::Start(_))), "it was started elsewhere");
    let _back = Puppet::start_at(address, rig.pki.server(NAMES), puppet::seals).await;
    assert_eq!(result(&rig.ended("hello").await), ResultReason::Succeeded);
}

#[tokio::test]
async fn suspended_means_that_nothing_is_started() {
    let rig = Rig::start("suspend").await;
    let mut puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |spec| spec.suspend = true).await;
    let waiting = rig.says("hello", "Suspended").await;
    assert_eq!(conditions(&waiting)["Suspended"].0, "True");
    assert!(!puppet.seen().iter().any(|call| matches!(call, Call::Start(_))));
    rig.edit("hello", json!({"suspend": false})).await;
    let done = rig.ended("hello").await;
    assert_eq!(result(&done), ResultReason::Succeeded);
    assert_eq!(done.status.as_ref().unwrap().observed_generation, done.metadata.generation.unwrap());
    assert!(!conditions(&done).contains_key("Suspended"));
}

#[tokio::test]
async fn a_running_command_is_cancelled() {
    let rig = Rig::start("cancel").await;
    let mut puppet = rig.puppet(puppet::runs).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |_| {}).await;
    let running = rig.says("hello", "Running").await;
    assert_eq!(conditions(&running)["Reconciling"].0, "True");
    rig.edit("hello", json!({"cancel": true})).await;
    puppet.until(|call| matches!(call, Call::Cancel)).await;
    assert_eq!(result(&rig.ended("hello").await), ResultReason::Cancelled);
}

#[tokio::test]
async fn what_was_cancelled_early_never_starts() {
    let rig = Rig::start("early").await;
    let mut puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |spec| spec.cancel = true).await;
    assert_eq!(result(&rig.ended("hello").await), ResultReason::Cancelled);
    assert!(!puppet.seen().iter().any(|call| matches!(call, Call::Start(_))));
}

#[tokio::test]
async fn a_deleted_execution_is_ended_at_its_executor() {
    let rig = Rig::start("delete").await;
    let mut puppet = rig.puppet(puppet::runs).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |_| {}).await;
    rig.says("hello", "Running").await;
    rig.executions.delete("hello", &DeleteParams::default()).await.unwrap();
    puppet.until(|call| matches!(call, Call::Cancel)).await;
}

#[tokio::test]
async fn an_end_survives_edits_that_race_with_it() {
    let rig = Rig::start("race").await;
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let script = move |call| match call {
        Call::Start(start) => {
            // The answer waits until the object has changed behind the operator's back.
            told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            puppet::seals(Call::Start(start))
        }
        _ => puppet::unknown(),
    };
    let mut puppet = rig.puppet(script).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("hello", |_| {}).await;
    puppet.until(|call| matches!(call, Call::Start(_))).await;
    rig.edit("hello", json!({"suspend": true})).await;
    tell.send(()).unwrap();
    let done = rig.ended("hello").await;
    assert_eq!(result(&done), ResultReason::Succeeded);
    assert_eq!(done.status.unwrap().observed_generation, done.metadata.generation.unwrap());
}

#[tokio::test]
async fn a_spec_that_cannot_be_run_is_told_and_harms_nobody() {
    let rig = Rig::start("invalid").await;
    let puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("bad", |spec| spec.outputs = vec!["a".into(), "a/b".into()]).await;
    rig.create("good", |_| {}).await;
    let bad = rig.ended("bad").await;
    assert_eq!(result(&bad), ResultReason::InvalidSpec);
    assert!(message(&bad).contains("spec.outputs[a/b]"), "{}", message(&bad));
    assert_eq!(result(&rig.ended("good").await), ResultReason::Succeeded);
}
