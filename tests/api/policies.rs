//! Policies against a real API server: what is refused and reaches no executor, what is left alone, and what holds when policies
//! cannot be read.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ObjectMeta;
use requiem_crds::{ClusterExecutionPolicy, ExecutionPolicy};
use serde_json::Value;

use super::*;

/// Watches are begun anew once a minute: only then a right that was lost is missed.
const A_WATCH: Duration = Duration::from_secs(120);
/// The user that an operator with fewer rights is for the API server.
const LIMITED: &str = "requiem-limited-operator";

fn repository(path: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn sample(name: &str) -> Value {
    let text = repository(&format!("config/samples/policies/{name}.yaml"));
    serde_norway::from_str(&text).unwrap()
}

fn policies(rig: &Rig) -> Api<ExecutionPolicy> {
    Api::namespaced(rig.client.clone(), &rig.namespace)
}

async fn create_policy(rig: &Rig, name: &str, spec: Value) {
    let policy = json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutionPolicy", "metadata": {"name": name}, "spec": spec,
    });
    let policy = serde_json::from_value(policy).unwrap();
    policies(rig).create(&PostParams::default(), &policy).await.unwrap();
}

impl Rig {
    async fn run_sample(&self, name: &str) -> Execution {
        let object: Execution = serde_json::from_value(sample(name)).unwrap();
        self.executions.create(&PostParams::default(), &object).await.unwrap();
        self.ended(name).await
    }

    /// An Execution that waits for a pool: it is the first to hear of policies, and never started. The operator must see it come: one
    /// that was there before might run, for all that it knows, and is not refused while nobody can be asked.
    async fn waits(&self, name: &str) {
        for name in [&format!("before-{name}"), name] {
            self.create(name, |spec| spec.executor.pool_ref.name = "nowhere".into()).await;
            self.says(name, "PoolNotFound").await;
        }
    }
}

fn started(puppet: &mut Puppet) -> Vec<String> {
    let names = puppet.seen().into_iter().filter_map(|call| match call {
        Call::Start(start) => Some(start.identity.name),
        _ => None,
    });
    names.collect()
}

// === refused and admitted ===

#[tokio::test]
async fn what_a_policy_does_not_admit_reaches_no_executor() {
    let (rig, other) = (Rig::start("policy").await, Rig::start("policy-other").await);
    let (mut puppet, elsewhere) = (rig.puppet(puppet::seals).await, other.puppet(puppet::seals).await);
    rig.pool(&[("a", &puppet.server)]).await;
    other.pool(&[("a", &elsewhere.server)]).await;
    rig.waits("early").await;
    let team: ExecutionPolicy = serde_json::from_value(sample("team")).unwrap();
    policies(&rig).create(&PostParams::default(), &team).await.unwrap();
    let early = rig.ended("early").await;
    assert_eq!(result(&early), ResultReason::PolicyViolation);
    let pools =
        "spec.executor.poolRef.name is nowhere, and pools of ExecutionPolicy team (generation 1) admits";
    assert!(message(&early).contains(pools), "{}", message(&early));

    let refused = rig.run_sample("refused").await;
    assert_eq!(result(&refused), ResultReason::PolicyViolation);
    let told = conditions(&refused);
    assert_eq!((told["Stalled"].0.as_str(), told["Ready"].0.as_str()), ("True", "False"));
    let page = repository("docs/policies.md");
    assert!(page.contains(&format!("\n{}\n", message(&refused))), "not on the page: {}", message(&refused));
    let status = refused.status.unwrap();
    assert_eq!((status.attempts, status.proof_root, status.executor), (0, None, None));
    let events: Api<Event> = Api::namespaced(rig.client.clone(), &rig.namespace);
    await_event(&events, "PolicyViolation").await;
    assert_eq!(result(&rig.run_sample("admitted").await), ResultReason::Succeeded);
    assert_eq!(started(&mut puppet), ["admitted"]);
    // The policy of one namespace binds no other.
    assert_eq!(result(&other.run_sample("refused").await), ResultReason::Succeeded);

    policies(&rig).delete("team", &DeleteParams::default()).await.unwrap();
    // Refused until the operator has seen it; what was refused stays so.
    let mut tries = (0..1000).map(|n| format!("again-{n}"));
    loop {
        let name = tries.next().unwrap();
        rig.create(&name, |spec| spec.timeout_seconds = 7200).await;
        if result(&rig.ended(&name).await) == ResultReason::Succeeded {
            break;
        }
    }
    assert_eq!(result(&rig.ended("refused").await), ResultReason::PolicyViolation);
}

#[test]
fn the_page_shows_a_policy_that_was_tested() {
    let (page, team) = (repository("docs/policies.md"), repository("config/samples/policies/team.yaml"));
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() == 1 && team.ends_with(blocks[0]), "{blocks:?}");
}

#[tokio::test]
async fn a_policy_that_comes_later_leaves_alone_what_runs() {
    let mut rig = Rig::start("policy-late").await;
    let mut puppet = rig.puppet(puppet::runs).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("running", |spec| spec.timeout_seconds = 7200).await;
    rig.says("running", "Running").await;
    rig.waits("waiting").await;
    create_policy(&rig, "short", json!({"maxLimits": {"timeoutSeconds": 60}})).await;
    assert_eq!(result(&rig.ended("waiting").await), ResultReason::PolicyViolation);
    // Nor does an operator that knows the policy before it knows the run.
    rig.kill_operator().await;
    rig.start_operator().await;
    rig.create("next", |_| {}).await;
    assert_eq!(result(&rig.ended("next").await), ResultReason::PolicyViolation);
    puppet.finish();
    assert_eq!(result(&rig.ended("running").await), ResultReason::Succeeded);
    assert_eq!(started(&mut puppet), ["running"]);
}

#[tokio::test]
async fn policies_of_the_cluster_bind_the_namespaces_that_they_name() {
    let (mut rig, mut other) = (Rig::start("policy-wide").await, Rig::start("policy-wider").await);
    for rig in [&mut rig, &mut other] {
        rig.kill_operator().await;
        rig.cluster_policies = true;
        rig.start_operator().await;
        rig.waits("waiting").await;
    }
    let wide: Api<ClusterExecutionPolicy> = Api::all(rig.client.clone());
    let mut policy: ClusterExecutionPolicy = serde_json::from_value(sample("cluster")).unwrap();
    policy.metadata = ObjectMeta { name: Some(rig.namespace.clone()), ..ObjectMeta::default() };
    policy.spec.namespaces = vec![format!("op-policy-wide*-{}", std::process::id())];
    policy.spec.except_namespaces = vec![other.namespace.clone()];
    policy.spec.rules.max_limits.as_mut().unwrap().timeout_seconds = Some(10);
    wide.create(&PostParams::default(), &policy).await.unwrap();
    let refused = rig.ended("waiting").await;
    assert_eq!(result(&refused), ResultReason::PolicyViolation);
    let words =
        format!("maxLimits of ClusterExecutionPolicy {} (generation 1) admits at most 10", rig.namespace);
    assert!(message(&refused).contains(&words), "{}", message(&refused));
    // The other operator obeys those of the cluster, too, and is told of this one before it is told of its own.
    create_policy(&other, "own", json!({"pools": ["default"]})).await;
    let own = other.ended("waiting").await;
    assert!(!message(&own).contains("ClusterExecutionPolicy"), "{}", message(&own));
    wide.delete(&rig.namespace, &DeleteParams::default()).await.unwrap();
}

// === what cannot be read ===

#[tokio::test]
async fn a_policy_that_cannot_be_read_holds_everything_until_it_is_corrected() {
    let rig = Rig::start("policy-broken").await;
    let mut puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.waits("waiting").await;
    // A whole number of bytes is more than a schema can ask for.
    create_policy(&rig, "broken", json!({"maxLimits": {"memory": "0.3"}})).await;
    let waiting = rig.says("waiting", "PolicyUnavailable").await;
    let words =
        "ExecutionPolicy broken (generation 1) cannot be read: spec.maxLimits, of limits.memory: \"0.3\"";
    assert!(message(&waiting).starts_with(words), "{}", message(&waiting));
    assert_eq!(conditions(&waiting)["Reconciling"].0, "True");
    rig.create("held", |_| {}).await;
    rig.says("held", "PolicyUnavailable").await;
    assert_eq!(started(&mut puppet), [""; 0]);
    let patch = Patch::Merge(json!({"spec": {"maxLimits": {"memory": "1Gi"}}}));
    policies(&rig).patch("broken", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(result(&rig.ended("held").await), ResultReason::Succeeded);
}

/// An operator that is another user for the API server, with all rights in the namespace but those on policies.
async fn limited(rig: &mut Rig) {
    rig.kill_operator().await;
    let path = std::env::var_os("REQUIEM_TEST_KUBECONFIG").map(PathBuf::from).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let mut config: Value = serde_norway::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = json!(LIMITED);
    rig.kubeconfig = rig.pki.path("limited.kubeconfig");
    std::fs::write(&rig.kubeconfig, config.to_string()).unwrap();
    let kinds = ["executions", "proofbundles", "executorpools"];
    grant(rig, "most", json!([
        {"apiGroups": ["requiem.dev"], "resources": kinds, "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["requiem.dev"], "resources": kinds.map(|kind| format!("{kind}/status")), "verbs": ["update"]},
        {"apiGroups": ["requiem.dev"], "resources": ["proofbundles"], "verbs": ["create"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]))
    .await;
}

async fn grant(rig: &Rig, name: &str, rules: Value) {
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": rules});
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": LIMITED}],
    });
    let parameters = PostParams::default();
    roles(rig).create(&parameters, &serde_json::from_value(role).unwrap()).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(rig.client.clone(), &rig.namespace);
    bindings.create(&parameters, &serde_json::from_value(binding).unwrap()).await.unwrap();
}

fn roles(rig: &Rig) -> Api<Role> {
    Api::namespaced(rig.client.clone(), &rig.namespace)
}

async fn grant_policies(rig: &Rig) {
    let read = json!({"apiGroups": ["requiem.dev"], "resources": ["executionpolicies"], "verbs": ["get", "list", "watch"]});
    grant(rig, "policies", json!([read])).await;
}

#[tokio::test]
async fn without_the_right_to_read_policies_nothing_is_started() {
    let mut rig = Rig::start("policy-blind").await;
    limited(&mut rig).await;
    rig.start_operator().await;
    let mut puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    rig.create("held", |_| {}).await;
    let held = rig.says("held", "PolicyUnavailable").await;
    let words = "the operator cannot watch objects of kind ExecutionPolicy, and starts nothing without them";
    assert!(message(&held).contains(words) && message(&held).contains("forbidden"), "{}", message(&held));
    assert_eq!(started(&mut puppet), [""; 0]);
    grant_policies(&rig).await;
    assert_eq!(result(&rig.ended("held").await), ResultReason::Succeeded);
    assert_eq!(started(&mut puppet), ["held"]);
    // Nor without those of the cluster, where it is told to obey them: its Role cannot let it read them.
    rig.kill_operator().await;
    rig.cluster_policies = true;
    rig.start_operator().await;
    rig.create("bound", |_| {}).await;
    let bound = rig.says("bound", "PolicyUnavailable").await;
    assert!(message(&bound).contains("objects of kind ClusterExecutionPolicy"), "{}", message(&bound));
    assert!(!started(&mut puppet).contains(&"bound".to_owned()));
}

#[tokio::test]
async fn a_right_that_is_lost_stops_every_start_until_it_is_back() {
    let mut rig = Rig::start("policy-lost").await;
    limited(&mut rig).await;
    grant_policies(&rig).await;
    rig.start_operator().await;
    rig.waits("waiting").await;
    roles(&rig).delete("policies", &DeleteParams::default()).await.unwrap();
    let reason = |object: Option<&Execution>, wanted: &str| {
        object.is_some_and(|object| conditions(object).get("Ready").is_some_and(|ready| ready.1 == wanted))
    };
    let held = await_condition(rig.executions.clone(), "waiting", |object: Option<&Execution>| {
        reason(object, "PolicyUnavailable")
    });
    tokio::time::timeout(A_WATCH, held).await.expect("it noticed").unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(rig.client.clone(), &rig.namespace);
    bindings.delete("policies", &DeleteParams::default()).await.unwrap();
    grant_policies(&rig).await;
    // What was there meanwhile is known again, though no event tells of it.
    let back = await_condition(rig.executions.clone(), "waiting", |object: Option<&Execution>| {
        reason(object, "PoolNotFound")
    });
    tokio::time::timeout(A_WATCH, back).await.expect("it noticed").unwrap();
}
