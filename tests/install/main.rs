//! The chart on real nodes, as a user has it: one release from its installation to its end, with helm and kubectl alone.
//!
//! The steps build on one another, and the last ones need the cluster as the first ones leave it, so they are one test.

mod page;

use std::collections::BTreeSet;
use std::process::Child;

use requiem_tests::helm::{helm, helm_command, kubectl, output};
use requiem_tests::{Failure, setting};
use requiem_xtask::cluster::{self, Name, Node};
use requiem_xtask::images::payload;
use requiem_xtask::paths;
use requiem_xtask::scratch::Scratch;
use requiem_xtask::suites::CLUSTER_VARIABLE;
use serde_json::{Value, json};

const RELEASE: &str = "trial";
const CHART: &str = "charts/requiem";
/// The chart as it was on 27 November 2026, before definitions and rights changed. Replace it at each release by the one that is
/// replaced. Its images are today's: there is no registry that would have the old ones.
const PREVIOUS: &str = "tests/install/previous.tgz";
/// Where the operator runs: a namespace that allows restricted pods only.
const HOME: &str = "trial-system";
/// Where Executions and their executors live.
const TEAM: &str = "trial-team";
/// Where what prepares nodes lives: a namespace that allows privileged pods.
const NODES: &str = "trial-nodes";
/// Executions that are at work while the release is upgraded: four times what fits at once.
const WORK: usize = 16;
/// Definitions that the previous chart has not.
const POLICIES: [&str; 2] = ["executionpolicies", "clusterexecutionpolicies"];
/// Samples that need nothing but a shell.
const SAMPLES: [&str; 4] = ["hello", "outputs", "stdin", "policy"];

fn namespace(name: &str, level: &str) -> Result<(), Failure> {
    let labels = format!("pod-security.kubernetes.io/enforce={level}");
    kubectl(&["create", "namespace", name])?;
    kubectl(&["label", "namespace", name, &labels])?;
    Ok(())
}

/// `helm install` or `helm upgrade`, which return when everything is ready.
fn release(verb: &str, values: &[&str]) -> Result<String, Failure> {
    release_of(CHART, verb, values)
}

fn release_of(chart: &str, verb: &str, values: &[&str]) -> Result<String, Failure> {
    let image = format!("pool.workloadImage={}", payload::NAME);
    let pool = format!("pool.namespace={TEAM}");
    let mut arguments = vec![verb, RELEASE, chart, "--namespace", HOME, "--wait", "--timeout", "150s"];
    // The nodes have the images; there is no registry.
    let common =
        ["image.pullPolicy=Never", "pool.create=true", "pool.replicas=2", "pool.slots=2", &pool, &image];
    common.iter().chain(values).for_each(|value| arguments.extend(["--set", value]));
    helm(&arguments)
}

fn in_team(arguments: &[&str]) -> Result<String, Failure> {
    kubectl(&[&["--namespace", TEAM], arguments].concat())
}

fn items(text: &str) -> Result<Vec<Value>, Failure> {
    let list: Value = serde_json::from_str(text)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn names(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

/// What helm and the operator made, by kind and name, in all of the cluster.
fn traces() -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    for namespace in [HOME, TEAM, NODES] {
        let kinds = "all,secrets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,pdb,leases";
        found.extend(names(&kubectl(&["--namespace", namespace, "get", kinds, "--output", "name"])?));
    }
    let selector = "app.kubernetes.io/managed-by=Helm,app.kubernetes.io/part-of=requiem";
    let wide = ["get", "clusterroles,clusterrolebindings", "--selector", selector, "--output", "name"];
    found.extend(names(&kubectl(&wide)?));
    Ok(found)
}

fn wait_for_success(executions: &[String]) -> Result<(), Failure> {
    let mut arguments = vec!["wait", "--for=condition=Succeeded", "--timeout=120s"];
    arguments.extend(executions.iter().map(String::as_str));
    let outcome = in_team(&arguments);
    // What did not succeed says why.
    outcome.map(drop).map_err(|error| {
        let all = in_team(&["get", "exn,executorpools,pods", "--output", "wide"]);
        format!("{error}\n{}", all.unwrap_or_default()).into()
    })
}

/// The setting of the operator's log, which the upgrade changes.
fn operator_log() -> Result<String, Failure> {
    let path = "jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"RUST_LOG\")].value}";
    kubectl(&["--namespace", HOME, "get", "deployment", "trial-requiem-operator", "--output", path])
}

#[test]
fn a_release_from_its_installation_to_its_end() -> Result<(), Failure> {
    // A cluster that has never seen Requiem; where the suite of pods ran before, it has brought definitions, rights and a namespace.
    kubectl(&["delete", "--ignore-not-found", "--kustomize", "config/default", "--timeout=120s"])?;
    namespace(HOME, "restricted")?;
    namespace(TEAM, "baseline")?;
    namespace(NODES, "privileged")?;
    let before = traces()?;
    let said = release_of(PREVIOUS, "install", &[])?;
    assert!(said.contains("helm -n trial-system test trial --logs"), "{said}");
    todays_operator_may_read_policies()?;
    the_previous_chart_gives_way()?;
    // Helm waited for the pool too: nothing is left to wait for.
    in_team(&["wait", "--for=condition=Ready", "--timeout=1s", "executorpool/default"])?;
    samples_succeed()?;
    the_test_is_green()?;
    the_profile_comes_onto_every_node()?;
    an_upgrade_loses_nothing()?;
    a_rollback_is_as_before()?;
    uninstalled(&before)?;
    page::is_followed()
}

/// The previous chart runs today's operator, which starts nothing without policies; its own operator knew of none.
fn todays_operator_may_read_policies() -> Result<(), Failure> {
    for plural in POLICIES {
        let file = format!("config/crd/{plural}.requiem.dev.yaml");
        kubectl(&["apply", "--server-side", "--filename", &file])?;
        let definition = format!("crd/{plural}.requiem.dev");
        kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &definition])?;
    }
    let kinds = POLICIES.map(|plural| format!("--resource={plural}.requiem.dev"));
    let role = ["create", "clusterrole", "trial-policies", "--verb=get,list,watch", &kinds[0], &kinds[1]];
    kubectl(&role)?;
    let account = format!("--serviceaccount={HOME}:trial-requiem-operator");
    kubectl(&["create", "clusterrolebinding", "trial-policies", "--clusterrole=trial-policies", &account])?;
    Ok(())
}

fn samples_succeed() -> Result<(), Failure> {
    let files = SAMPLES.map(|name| format!("config/samples/{name}.yaml"));
    let mut arguments = vec!["apply", "--server-side"];
    files.iter().for_each(|file| arguments.extend(["--filename", file]));
    in_team(&arguments)?;
    wait_for_success(&SAMPLES.map(|name| format!("execution/{name}")))?;
    for execution in items(&in_team(&["get", "executions", "--output", "json"])?)? {
        let executor = execution["status"]["executor"].as_str().unwrap_or_default();
        assert!(executor.starts_with("default-executor-"), "{executor:?} is no pod of the pool");
    }
    Ok(())
}

fn the_test_is_green() -> Result<(), Failure> {
    green()?;
    // A command that the image does not have must fail it. The pod stays, to be looked at, until the next test.
    release("upgrade", &["test.command={no-such-program}"])?;
    let red = helm(&["test", RELEASE, "--namespace", HOME, "--timeout", "120s"]);
    assert!(red.is_err(), "a test that cannot succeed is green: {red:?}");
    kubectl(&["--namespace", HOME, "get", "pod", "trial-requiem-test"])?;
    release("upgrade", &[])?;
    green()
}

fn green() -> Result<(), Failure> {
    let said = helm(&["test", RELEASE, "--namespace", HOME, "--logs", "--timeout", "120s"])?;
    assert!(said.contains("integrity only: the bundle is unchanged"), "{said}");
    assert!(said.contains("echo it works") && said.contains("Succeeded: exit code 0"), "{said}");
    // What it made, it has removed.
    let left = in_team(&["get", "executions,roles,rolebindings", "--output", "name"])?;
    assert!(!left.contains("requiem-test"), "{left}");
    let left = kubectl(&["--namespace", HOME, "get", "pods,configmaps,serviceaccounts", "--output", "name"])?;
    assert!(!left.contains("requiem-test"), "{left}");
    Ok(())
}

/// Into another folder than the kubelet's, which has the profile already.
fn the_profile_comes_onto_every_node() -> Result<(), Failure> {
    let place = format!("profileInstaller.namespace={NODES}");
    release(
        "upgrade",
        &["profileInstaller.enabled=true", "profileInstaller.kubeletFolder=/var/lib/trial", &place],
    )?;
    let profile = std::fs::read_to_string(paths::repository().join("config/profiles/seccomp/runner.json"))?;
    for node in nodes()? {
        let installed = node.var().join("lib/trial/seccomp/requiem/runner.json");
        assert!(std::fs::read_to_string(&installed)? == profile, "{}: not the profile", node.name());
    }
    Ok(())
}

fn nodes() -> Result<Vec<Node>, Failure> {
    let name = setting(CLUSTER_VARIABLE)?;
    Ok(cluster::nodes(&Name::parse(name.to_str().ok_or("the cluster's name is not text")?)?)?)
}

/// With work under way: it ends, and the definitions are those of the new chart, which Helm alone would have left as they were.
fn the_previous_chart_gives_way() -> Result<(), Failure> {
    let scratch = Scratch::new("previous")?;
    let definitions = || kubectl(&["get", "crd", "executions.requiem.dev", "--output", "json"]);
    let before = definitions()?;
    let work = start_work(&scratch, "earlier")?;
    release("upgrade", &[])?;
    assert!(before.len() < definitions()?.len(), "the definitions are the old ones");
    wait_for_success(&work)
}

/// Executions at work, more than fit at once.
fn start_work(scratch: &Scratch, name: &str) -> Result<Vec<String>, Failure> {
    let execution = |number: usize| {
        json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution", "metadata": {"name": format!("{name}-{number}")},
            "spec": {"command": ["/bin/sh", "-c", format!("sleep 4; echo {number} > result.txt")], "outputs": ["result.txt"]},
        })
    };
    let list =
        json!({"apiVersion": "v1", "kind": "List", "items": (0..WORK).map(execution).collect::<Vec<_>>()});
    let file = scratch.path().join("work.json");
    std::fs::write(&file, list.to_string())?;
    in_team(&["create", "--filename", &file.display().to_string()])?;
    let running = "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=Running";
    let first = (0..WORK).map(|number| format!("execution/{name}-{number}")).collect::<Vec<_>>();
    // Whichever comes first; which, is the operator's business.
    let mut waits: Vec<Child> = Vec::new();
    for name in &first[..4] {
        let arguments = ["--namespace", TEAM, "wait", running, "--timeout=60s", name];
        waits.push(
            requiem_tests::helm::kubectl_command(&arguments)?.stdout(std::process::Stdio::null()).spawn()?,
        );
    }
    let mut seen = false;
    for mut wait in waits {
        seen |= wait.wait()?.success();
    }
    assert!(seen, "none of the work was ever running");
    Ok(first)
}

fn an_upgrade_loses_nothing() -> Result<(), Failure> {
    let scratch = Scratch::new("install")?;
    let work = start_work(&scratch, "work")?;
    // Two operators, one of which works; and every executor pod is replaced, because its slots change.
    release("upgrade", &["replicas=2", "operator.log=debug", "pool.slots=3"])?;
    assert_eq!(operator_log()?, "debug");
    wait_for_success(&work)?;
    let executions = items(&in_team(&["get", "executions", "--output", "json"])?)?;
    let of_work =
        |object: &&Value| object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("work-"));
    let mut attempts = Vec::new();
    for execution in executions.iter().filter(of_work) {
        let status = &execution["status"];
        attempts.push(status["attempts"].as_u64().unwrap_or_default());
        assert_eq!(status["outputs"].as_array().map(Vec::len), Some(1), "{status}");
    }
    // Drained, not killed: nothing was begun a second time.
    assert_eq!(attempts, [1; WORK]);
    let bundles = items(&in_team(&["get", "proofbundles", "--output", "json"])?)?;
    let proven: Vec<&str> =
        bundles.iter().filter_map(|bundle| bundle["spec"]["executionRef"]["name"].as_str()).collect();
    let of_work = proven.iter().filter(|name| name.starts_with("work-"));
    let distinct: BTreeSet<_> = of_work.clone().collect();
    assert_eq!((of_work.count(), distinct.len()), (WORK, WORK), "one proof each");
    let pods =
        items(&in_team(&["get", "pods", "--selector", "requiem.dev/pool=default", "--output", "json"])?)?;
    let slots = |pod: &Value| pod.to_string().contains("\"--slots\",\"3\"");
    assert!(pods.len() == 2 && pods.iter().all(slots), "the pods are not the new ones");
    Ok(())
}

fn a_rollback_is_as_before() -> Result<(), Failure> {
    helm(&["rollback", RELEASE, "1", "--namespace", HOME, "--wait", "--timeout", "150s"])?;
    assert_eq!(operator_log()?, "info");
    in_team(&["delete", "execution", "hello"])?;
    in_team(&["apply", "--server-side", "--filename", "config/samples/hello.yaml"])?;
    wait_for_success(&["execution/hello".to_owned()])
}

/// Nothing is left but definitions, what users made, and the Secrets that the operator made, which the documentation names.
fn uninstalled(before: &BTreeSet<String>) -> Result<(), Failure> {
    let users = names(&in_team(&["get", "executions,proofbundles", "--output", "name"])?);
    output(&mut helm_command(&["uninstall", RELEASE, "--namespace", HOME, "--wait", "--timeout", "120s"])?)?;
    in_team(&["wait", "--for=delete", "--timeout=90s", "pod", "--selector", "requiem.dev/pool"])?;
    // Helm waits for the deployment; its pods go after it.
    kubectl(&["--namespace", HOME, "wait", "--for=delete", "--timeout=90s", "pod", "--all"])?;
    // It belongs to the operator's account, and goes with it a moment later.
    let lease = "lease/requiem-operator";
    kubectl(&["--namespace", HOME, "wait", "--for=delete", "--timeout=90s", lease])?;
    let mut left: BTreeSet<String> = traces()?.difference(before).cloned().collect();
    for known in ["secret/requiem-ca", "secret/requiem-executor-tls"] {
        assert!(left.remove(known), "{known} is gone; then it should not be documented");
    }
    assert_eq!(left, BTreeSet::new());
    assert_eq!(kubectl(&["get", "executorpools", "--all-namespaces", "--output", "name"])?, "");
    assert_eq!(names(&in_team(&["get", "executions,proofbundles", "--output", "name"])?), users);
    assert!(users.len() > WORK, "{users:?}");
    kubectl(&[
        "get",
        "crd",
        "executions.requiem.dev",
        "proofbundles.requiem.dev",
        "executorpools.requiem.dev",
        "executionpolicies.requiem.dev",
        "clusterexecutionpolicies.requiem.dev",
    ])?;
    kubectl(&["delete", "clusterrole/trial-policies", "clusterrolebinding/trial-policies"])?;
    kubectl(&["delete", "namespace", HOME, TEAM, NODES, "--timeout=90s"])?;
    Ok(())
}
