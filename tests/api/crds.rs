//! The definitions on a real API server, whose kubeconfig `REQUIEM_TEST_KUBECONFIG` names. Without it every
//! test fails. Each test works in a namespace of its own; nothing else needs to run.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "doctor.rs"]
mod doctor;
mod fences;
mod policy_specs;
#[path = "pools.rs"]
mod pools;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, GetParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{DynamicObject, Request};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Client, Config, ResourceExt as _};
use requiem_crds::{Execution, ExecutionSpec, ExecutionStatus, ProofBundle, definition};
use serde::Deserialize as _;
use serde_json::{Value, json};

const KINDS: [&str; 5] =
    ["Execution", "ProofBundle", "ExecutorPool", "ExecutionPolicy", "ClusterExecutionPolicy"];
const VARIABLE: &str = "REQUIEM_TEST_KUBECONFIG";
const MANAGER: &str = "requiem-tests";
const DIGEST: &str = "blake3:00000000000000000000000000000000000000000000000000000000000000aa";
const OTHER_DIGEST: &str = "blake3:00000000000000000000000000000000000000000000000000000000000000bb";

// === accepted ===

#[tokio::test]
async fn the_server_accepts_the_definitions_without_a_warning() {
    let client = connect().await;
    for definition in definition::all() {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let apply = Patch::Apply(&definition);
        let params = PatchParams::apply(MANAGER).force();
        let request = Request::new(path).patch(&definition.name_any(), &params, &apply).unwrap();
        let answer = client.send(request.map(Body::from)).await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", definition.name_any(), answer.status());
        let warnings: Vec<_> = answer.headers().get_all("warning").iter().collect();
        assert!(warnings.is_empty(), "{}: {warnings:?}", definition.name_any());
    }
    let cluster = Cluster::start().await;
    let installed: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for definition in installed.list(&ListParams::default()).await.unwrap() {
        let conditions = definition.status.unwrap().conditions.unwrap_or_default();
        let bad = conditions.iter().find(|one| one.type_ == "NonStructuralSchema" && one.status == "True");
        assert!(bad.is_none(), "{bad:?}");
    }
}

#[tokio::test]
async fn every_field_is_explained() {
    let cluster = Cluster::start().await;
    let document = cluster.published_openapi().await;
    for kind in KINDS {
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let (_, root) = schemas.iter().find(|(name, _)| name.ends_with(&format!("v1alpha1.{kind}"))).unwrap();
        let parts = if kind.ends_with("Policy") { &["spec"][..] } else { &["spec", "status"] };
        for part in parts {
            let fields = explained(&format!("{kind}.{part}"), &root["properties"][*part]);
            assert!(fields > 0, "{kind}.{part} has no fields");
        }
    }
}

/// Checks the description of `schema` and of all below it, as `kubectl explain` reads them.
fn explained(path: &str, schema: &Value) -> usize {
    let text = schema["description"].as_str().unwrap_or_default();
    assert!(text.len() > 8 && text.ends_with('.'), "{path}: {text:?}");
    let fields = schema["properties"].as_object().into_iter().flatten();
    let below: usize = fields.map(|(name, field)| 1 + explained(&format!("{path}.{name}"), field)).sum();
    let items = schema.get("items").filter(|items| items.get("properties").is_some());
    below + items.map_or(0, |items| explained(&format!("{path}[]"), items))
}

#[tokio::test]
async fn a_bare_execution_gets_every_default() {
    let cluster = Cluster::start().await;
    let created = cluster.create("bare", json!({ "command": ["true"] })).await.unwrap();
    assert_eq!(created.spec, ExecutionSpec::new(vec!["true".into()]));
    assert_eq!(created.status, Some(ExecutionStatus::default()));
    // Stored, not only assumed by our own types.
    let raw = cluster.raw("bare").await;
    assert_eq!(raw["spec"], serde_json::to_value(&created.spec).unwrap());
    assert_eq!(raw["status"], json!({ "observedGeneration": -1, "attempts": 0, "terminal": false }));
}

#[tokio::test]
async fn the_server_takes_every_sample() {
    let cluster = Cluster::start().await;
    let mut taken = 0;
    for (file, document) in documents("config/samples") {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        let answer = cluster.dry_run(&kind, document).await;
        assert!(answer.is_ok(), "{file}: {answer:?}");
        taken += 1;
    }
    assert!(taken >= 12, "{taken} samples");
}

/// The API server stops a request whose rules cost too much. The largest objects must stay below that.
#[tokio::test]
async fn the_rules_are_cheap_enough_for_the_largest_objects() {
    let cluster = Cluster::start().await;
    let many = |make: &dyn Fn(usize) -> Value| (0..256).map(make).collect::<Vec<_>>();
    let deep = |number: usize| format!("{number:03}{}", "/abcdefghijklmno".repeat(40));
    let spec = json!({
        "command": ["/bin/sh"],
        "args": many(&|number| json!(format!("{number}").repeat(80))),
        "env": many(&|number| json!({ "name": format!("V{number}"), "value": "x".repeat(400) })),
        "inputs": many(&|number| json!({ "path": format!("i/{}", deep(number)), "inline": "y".repeat(1500) })),
        "outputs": many(&|number| json!(format!("o/{}", deep(number)))),
    });
    cluster.create("large", spec).await.unwrap();
    cluster.patch("large", json!({ "spec": { "suspend": true } })).await.unwrap();
    let listed = |_| json!({ "path": deep(1), "blob": DIGEST, "bytes": 1 });
    let missing = |_| json!({ "path": deep(2), "why": "w".repeat(1000) });
    let mut status = succeeded();
    status["outputs"] = (0..32).map(listed).collect();
    status["missingOutputs"] = (0..32).map(missing).collect();
    cluster.patch_status("large", json!({ "status": status })).await.unwrap();
    let ready = json!([condition("Ready", "True", "Succeeded"), condition("Succeeded", "True", "Succeeded")]);
    cluster.patch_status("large", json!({ "status": { "conditions": ready } })).await.unwrap();
}

// === refused: specs ===

#[tokio::test]
async fn a_spec_that_breaks_a_rule_is_refused_in_words() {
    let cluster = Cluster::start().await;
    let long = "x".repeat(70_000);
    let secret =
        |name: &str| json!({ "name": "A", "valueFrom": { "secretKeyRef": { "name": name, "key": "k" } } });
    let own = |env: Value| json!({ "command": ["a"], "executor": { "pod": { "image": "i" } }, "env": env });
    for (spec, words) in [
        (json!({}), "spec.command: Required value"),
        (json!({ "command": [] }), "spec.command"),
        (json!({ "command": ["a"], "workingDir": "/etc" }), "must be a path below the workspace"),
        (json!({ "command": ["a"], "outputs": ["a/../b"] }), "must be a path below the workspace"),
        (json!({ "command": ["a"], "outputs": ["./a"] }), "must be a path below the workspace"),
        (json!({ "command": ["a"], "outputs": ["a//b"] }), "must be a path below the workspace"),
        (json!({ "command": ["a"], "outputs": ["a/"] }), "must be a path below the workspace"),
        (json!({ "command": ["a"], "outputs": ["x", "x"] }), "Duplicate value"),
        (json!({ "command": ["a"], "env": [{ "name": "A=B" }] }), "must not contain '='"),
        (json!({ "command": ["a"], "env": [{ "name": "A" }, { "name": "A" }] }), "Duplicate value"),
        (json!({ "command": ["a"], "env": [secret("s")] }), "env with valueFrom needs executor.pod"),
        (
            own(json!([{ "name": "A", "value": "v", "valueFrom": secret("s")["valueFrom"] }])),
            "value and valueFrom exclude",
        ),
        (own(json!([{ "name": "A", "valueFrom": {} }])), "exactly one of secretKeyRef and configMapKeyRef"),
        (own(json!([secret("requiem-executor-tls")])), "hold the keys of executors"),
        (own(json!([secret("requiem-ca")])), "hold the keys of executors"),
        (own(json!([secret("Not_A_Name")])), "should match"),
        (
            json!({ "command": ["a"], "executor": { "pod": { "image": "i" } }, "cache": "Use", "env": [secret("s")] }),
            "valueFrom and cache Use or Refresh exclude",
        ),
        (json!({ "command": ["a"], "stdin": {} }), "exactly one of inline and blob"),
        (json!({ "command": ["a"], "inputs": [{ "path": "p" }] }), "exactly one of inline, blob and tree"),
        (
            json!({ "command": ["a"], "inputs": [{ "path": "p", "inline": "x", "blob": DIGEST }] }),
            "exactly one of inline, blob and tree",
        ),
        (
            json!({ "command": ["a"], "inputs": [{ "path": "p", "tree": DIGEST, "executable": true }] }),
            "executable does not apply to a tree",
        ),
        (json!({ "command": ["a"], "inputs": [{ "path": "p", "blob": "sha256:00" }] }), "should match"),
        (json!({ "command": ["a"], "inputs": [{ "path": "p", "inline": long }] }), "Too long"),
        (json!({ "command": ["a"], "limits": { "memory": "lots" } }), "should match"),
        (json!({ "command": ["a"], "limits": { "memory": -1 } }), "greater than or equal to 0"),
        (json!({ "command": ["a"], "limits": { "pids": 0 } }), "greater than or equal to 1"),
        (json!({ "command": ["a"], "timeoutSeconds": 0 }), "greater than or equal to 1"),
        (json!({ "command": ["a"], "policy": { "layers": { "seccomp": "of" } } }), "Unsupported value"),
        (json!({ "command": ["a"], "policy": { "layers": { "seccomp": false } } }), "must be of type string"),
        (json!({ "command": ["a"], "policy": { "layers": { "seccmop": "disabled" } } }), "unknown field"),
        (json!({ "command": ["a"], "comand": ["b"] }), "unknown field"),
        (json!({ "command": ["a"], "proof": { "publish": "Sometimes" } }), "Unsupported value"),
        (json!({ "command": ["a"], "replay": {} }), "spec.replay.count: Required value"),
        (json!({ "command": ["a"], "replay": { "count": 0 } }), "greater than or equal to 1"),
        (json!({ "command": ["a"], "replay": { "count": 9 } }), "less than or equal to 8"),
        (
            json!({ "command": ["a"], "replay": { "count": 1 }, "proof": { "publish": "Never" } }),
            "replay needs proof.publish Always",
        ),
        (
            json!({ "command": ["a"], "replay": { "count": 1 }, "executor": { "pod": { "image": "i" } } }),
            "replay needs a pool",
        ),
        (
            json!({ "command": ["a"], "replay": { "count": 1 }, "cache": "Use" }),
            "replay and cache Use exclude one another",
        ),
    ] {
        let refused = cluster.dry_run("Execution", execution("bad", spec.clone())).await;
        let message = refused.err().unwrap_or_default();
        assert!(message.contains(words), "{spec}: {message:?} does not say {words:?}");
    }
}

#[tokio::test]
async fn paths_with_dots_in_names_are_fine() {
    let cluster = Cluster::start().await;
    let outputs = json!(["...", "..a", ".b", "a.", "a..b/.c/d e/é", "a/..."]);
    cluster.create("dots", json!({ "command": ["a"], "outputs": outputs })).await.unwrap();
}

#[tokio::test]
async fn every_field_of_a_spec_is_immutable() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "command": ["a"], "args": ["b"], "workingDir": "c", "env": [{ "name": "D", "value": "d" }],
        "stdin": { "inline": "e" }, "inputs": [{ "path": "f", "inline": "f" }], "outputs": ["g"],
        "nonce": "h", "timeoutSeconds": 9, "limits": { "pids": 9 }, "policy": { "layers": { "cgroup": "preferred" } },
        "executor": { "poolRef": { "name": "p" } }, "retry": { "limit": 1 }, "proof": { "retention": "Keep" },
        "replay": { "count": 1 },
    });
    cluster.create("full", spec.clone()).await.unwrap();
    cluster.create("bare", json!({ "command": ["z"] })).await.unwrap();
    let changes = json!({
        "command": ["x"], "args": ["x"], "workingDir": "x", "env": [{ "name": "D", "value": "x" }],
        "stdin": { "inline": "x" }, "inputs": [{ "path": "f", "inline": "x" }], "outputs": ["x"],
        "nonce": "x", "timeoutSeconds": 10, "limits": { "pids": 10 }, "policy": { "layers": { "cgroup": "disabled" } },
        "executor": { "poolRef": { "name": "x" } }, "retry": { "limit": 2 }, "proof": { "publish": "Never" },
        "replay": { "count": 2 },
    });
    for (field, change) in changes.as_object().unwrap() {
        let message = format!("{field} is immutable");
        cluster.refused("full", json!({ "spec": { field: change } }), &message).await;
        let removed = if field == "command" { "spec.command" } else { &message };
        cluster.refused("full", json!({ "spec": { field: null } }), removed).await;
        if spec[field] != *change && field != "proof" {
            cluster.refused("bare", json!({ "spec": { field: change } }), &message).await;
        }
    }
}

#[tokio::test]
async fn suspend_is_a_switch_and_cancel_is_not() {
    let cluster = Cluster::start().await;
    cluster.create("switch", json!({ "command": ["a"], "suspend": true })).await.unwrap();
    cluster.patch("switch", json!({ "spec": { "suspend": false } })).await.unwrap();
    cluster.patch("switch", json!({ "spec": { "suspend": true } })).await.unwrap();
    cluster.patch("switch", json!({ "spec": { "cancel": true } })).await.unwrap();
    let back = "cancel is immutable once true";
    cluster.refused("switch", json!({ "spec": { "cancel": false } }), back).await;
    cluster.refused("switch", json!({ "spec": { "cancel": null } }), back).await;
}

#[tokio::test]
async fn a_null_is_as_good_as_nothing() {
    let cluster = Cluster::start().await;
    let nulls =
        json!({ "command": ["a"], "timeoutSeconds": null, "nonce": null, "stdin": null, "limits": null });
    let object = execution("nulls", nulls);
    let path = format!("/apis/requiem.dev/v1alpha1/namespaces/{}/executions", cluster.namespace);
    let request = Request::new(path).create(&PostParams::default(), serde_json::to_vec(&object).unwrap());
    let created: Execution = cluster.client.request(request.unwrap()).await.unwrap();
    assert_eq!(created.spec, ExecutionSpec::new(vec!["a".into()]));
    assert_eq!(cluster.raw("nulls").await["spec"].get("nonce"), None);
}

// === refused: statuses ===

#[tokio::test]
async fn a_finished_status_is_fenced() {
    let cluster = Cluster::start().await;
    cluster.create("done", json!({ "command": ["a"] })).await.unwrap();
    cluster.patch_status("done", json!({ "status": succeeded() })).await.unwrap();
    let changes = json!({
        "terminal": false, "result": "NonZeroExit", "attempts": 3, "startTime": "2026-01-01T00:00:09.000000Z",
        "completionTime": "2026-01-01T00:00:09.000000Z", "durationMs": 9, "duration": "9ms", "exitCode": 9,
        "terminationReason": "TimedOut", "requestDigest": OTHER_DIGEST, "resultDigest": OTHER_DIGEST,
        "stdout": { "tail": "x" }, "stderr": { "bytes": 9 }, "outputs": [], "missingOutputs": [], "cache": { "hit": true },
        "unlistedOutputs": 9, "sandbox": { "enforced": [] }, "determinismConfidence": { "level": "high" },
        "executionRoot": OTHER_DIGEST, "proofRoot": OTHER_DIGEST, "engine": { "version": "9" }, "executor": "x",
        "proofBundleRef": { "name": "x" },
    });
    for (field, change) in changes.as_object().unwrap() {
        for value in [change, &Value::Null] {
            cluster.status_refused("done", json!({ field: value }), &format!("{field} is immutable")).await;
        }
    }
    cluster.status_refused("done", json!({ "signal": 9 }), "signal is immutable").await;
    let fields: BTreeSet<&String> = changes.as_object().unwrap().keys().collect();
    let full = succeeded();
    let untried =
        full.as_object().unwrap().keys().filter(|field| !fields.contains(field)).collect::<Vec<_>>();
    assert_eq!(untried, ["conditions", "observedGeneration"], "fields that this test does not try");
}

#[tokio::test]
async fn a_finished_status_cannot_be_wiped() {
    let cluster = Cluster::start().await;
    cluster.create("wipe", json!({ "command": ["a"] })).await.unwrap();
    cluster.patch_status("wipe", json!({ "status": succeeded() })).await.unwrap();
    let null = cluster.patch_status("wipe", json!({ "status": null })).await;
    assert!(null.is_err_and(|message| message.contains("is immutable once terminal is true")));
    let mut nulled = cluster.raw("wipe").await;
    nulled["status"]["proofRoot"] = Value::Null;
    let replaced = cluster.replace_status("wipe", nulled).await;
    assert!(replaced.is_err_and(|message| message.contains("proofRoot is immutable")));
    let mut stale = cluster.raw("wipe").await;
    stale["status"] = json!({ "observedGeneration": 1 });
    let replaced = cluster.replace_status("wipe", stale).await;
    assert!(replaced.is_err_and(|message| message.contains("is immutable once terminal is true")));
    // Through the main resource a status cannot be reached at all.
    cluster.patch("wipe", json!({ "status": { "terminal": false } })).await.unwrap();
    assert_eq!(cluster.raw("wipe").await["status"], succeeded());
}

#[tokio::test]
async fn what_a_finished_status_may_still_say() {
    let cluster = Cluster::start().await;
    cluster.create("rest", json!({ "command": ["a"] })).await.unwrap();
    let mut status = succeeded();
    status.as_object_mut().unwrap().remove("proofBundleRef");
    cluster.patch_status("rest", json!({ "status": status })).await.unwrap();
    let says = |ready: &str, ended: &str| {
        json!([condition("Ready", ready, "Terminating"), condition("Succeeded", ended, "Succeeded")])
    };
    let ends = |conditions: Value| json!({ "conditions": conditions });
    cluster.patch_status("rest", json!({ "status": ends(says("False", "True")) })).await.unwrap();
    let frozen = "the Succeeded condition is immutable";
    cluster.status_refused("rest", ends(says("True", "False")), frozen).await;
    cluster.status_refused("rest", ends(json!([condition("Ready", "True", "Succeeded")])), frozen).await;
    cluster.status_refused("rest", json!({ "conditions": null }), frozen).await;
    let published = json!({ "proofBundleRef": { "name": "rest" } });
    cluster.patch_status("rest", json!({ "status": published })).await.unwrap();
    cluster.status_refused("rest", json!({ "proofBundleRef": null }), "proofBundleRef is immutable").await;
    let switch = "suspend and cancel are immutable once status.terminal is true";
    cluster.refused("rest", json!({ "spec": { "suspend": true } }), switch).await;
    cluster.refused("rest", json!({ "spec": { "cancel": true } }), switch).await;
    cluster.patch("rest", json!({ "metadata": { "labels": { "a": "b" } } })).await.unwrap();
}

#[tokio::test]
async fn a_stale_or_untruthful_status_is_refused() {
    let cluster = Cluster::start().await;
    cluster.create("run", json!({ "command": ["a"] })).await.unwrap();
    let running = json!({ "observedGeneration": 2, "attempts": 2 });
    cluster.patch_status("run", json!({ "status": running })).await.unwrap();
    let proofless = json!({ "terminal": true, "result": "Succeeded", "exitCode": 0 });
    for (change, words) in [
        (json!({ "attempts": 1 }), "attempts never decreases"),
        (json!({ "attempts": null }), "attempts never decreases"),
        (json!({ "observedGeneration": 1 }), "observedGeneration never decreases"),
        (json!({ "observedGeneration": null }), "observedGeneration never decreases"),
        (json!({ "terminal": true }), "result and terminal are set together"),
        (json!({ "result": "TimedOut" }), "result and terminal are set together"),
        (json!({ "result": "Fine", "terminal": true }), "Unsupported value"),
        (proofless, "needs exitCode 0 and a proofRoot"),
        (json!({ "proofRoot": DIGEST }), "are set together"),
        (json!({ "exitCode": 1, "signal": 9 }), "exclude one another"),
        (json!({ "exitCode": 256 }), "less than or equal to 255"),
        (json!({ "proofRoot": "x", "executionRoot": "x", "resultDigest": "x" }), "should match"),
    ] {
        cluster.status_refused("run", change, words).await;
    }
    let failed = json!({ "terminal": true, "result": "ExecutorLost" });
    cluster.patch_status("run", json!({ "status": failed })).await.unwrap();
}

// === read ===

#[tokio::test]
async fn field_selectors_select() {
    let cluster = Cluster::start().await;
    let pool = json!({ "command": ["a"], "executor": { "poolRef": { "name": "far" } } });
    cluster.create("waits", pool).await.unwrap();
    cluster.create("done", json!({ "command": ["a"] })).await.unwrap();
    cluster.patch_status("done", json!({ "status": succeeded() })).await.unwrap();
    let executions: Api<Execution> = cluster.api();
    for (selector, expected) in [
        ("status.terminal=false", "waits"),
        ("status.terminal!=true", "waits"),
        ("status.terminal=true", "done"),
        ("status.result=Succeeded", "done"),
        ("spec.executor.poolRef.name=far", "waits"),
        ("spec.executor.poolRef.name=default", "done"),
    ] {
        let found = executions.list(&ListParams::default().fields(selector)).await.unwrap();
        let names: Vec<String> = found.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, [expected], "{selector}");
    }
    cluster.create_bundle("prf").await.unwrap();
    let bundles: Api<ProofBundle> = cluster.api();
    for selector in ["spec.executionRef.uid=u", "status.observedGeneration=-1"] {
        let found = bundles.list(&ListParams::default().fields(selector)).await.unwrap();
        assert_eq!(found.items.len(), 1, "{selector}");
    }
}

#[tokio::test]
async fn tables_show_the_columns() {
    let cluster = Cluster::start().await;
    cluster.create("row", json!({ "command": ["a"] })).await.unwrap();
    cluster.patch_status("row", json!({ "status": succeeded() })).await.unwrap();
    let table = cluster.table("executions").await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    let expected = [
        "Name",
        "Engine",
        "Result",
        "Exit",
        "Determinism",
        "Sandbox",
        "Duration",
        "Age",
        "Proof",
        "Executor",
        "Cache",
        "Reason",
    ];
    assert_eq!(names, expected);
    let wide = columns.iter().filter(|column| column["priority"] == 1).count();
    assert_eq!(wide, 4);
    let mut cells = table["rows"][0]["cells"].as_array().unwrap().clone();
    cells.remove(7);
    let told = json!([
        "row",
        "requiem",
        "Succeeded",
        0,
        "best_effort",
        "17/18 enforced",
        "12ms",
        DIGEST,
        "local",
        false,
        "exit status 0"
    ]);
    assert_eq!(Value::Array(cells), told);
}

// === the other kinds ===

#[tokio::test]
async fn a_proof_bundle_is_immutable() {
    let cluster = Cluster::start().await;
    cluster.create_bundle("prf").await.unwrap();
    let bundles: Api<ProofBundle> = cluster.api();
    for change in [
        json!({ "body": "{\"a\":2}" }),
        json!({ "executionRoot": OTHER_DIGEST }),
        json!({ "bundleRoot": OTHER_DIGEST }),
        json!({ "executionRef": { "uid": "v" } }),
    ] {
        let patch = json!({ "spec": change });
        let refused = bundles.patch("prf", &PatchParams::default(), &Patch::Merge(&patch)).await;
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("is immutable"), "{change}: {message}");
    }
}

#[tokio::test]
async fn the_operator_has_the_rights_it_needs_and_no_other() {
    let cluster = Cluster::start().await;
    for (_, document) in documents("config/rbac") {
        cluster.apply_rbac(document).await;
    }
    let requiem = "requiem.dev";
    let allowed = [
        ("watch", requiem, "executions", ""),
        ("list", requiem, "executorpools", ""),
        ("get", requiem, "proofbundles", ""),
        ("update", requiem, "executions", "status"),
        ("update", requiem, "proofbundles", "status"),
        ("update", requiem, "executorpools", "status"),
        ("create", requiem, "proofbundles", ""),
        ("delete", requiem, "executions", ""),
        ("watch", requiem, "executionpolicies", ""),
        ("list", requiem, "clusterexecutionpolicies", ""),
        ("create", "events.k8s.io", "events", ""),
        ("watch", "", "pods", ""),
        ("create", "", "pods", ""),
        ("delete", "", "pods", ""),
        // A leading = makes it a name.
        ("create", "", "secrets", "=requiem-executor-tls"),
        ("patch", "", "secrets", "=requiem-executor-tls"),
    ];
    let denied = [
        ("patch", requiem, "executions", ""),
        ("update", requiem, "executions", ""),
        ("patch", requiem, "executions", "status"),
        ("deletecollection", requiem, "executions", ""),
        ("create", requiem, "executions", ""),
        ("patch", requiem, "proofbundles", ""),
        ("delete", requiem, "proofbundles", ""),
        ("update", requiem, "executionpolicies", ""),
        ("create", requiem, "clusterexecutionpolicies", ""),
        ("delete", requiem, "clusterexecutionpolicies", ""),
        ("get", "", "secrets", ""),
        ("list", "", "secrets", ""),
        ("get", "", "configmaps", ""),
        ("get", "", "secrets", "=requiem-executor-tls"),
        ("create", "", "secrets", ""),
        ("patch", "", "secrets", ""),
        ("patch", "", "secrets", "=requiem-ca"),
        ("patch", "", "pods", ""),
        ("update", "", "pods", ""),
        ("create", "", "pods", "exec"),
    ];
    for (rights, expected) in [(&allowed[..], true), (&denied[..], false)] {
        for right in rights {
            assert_eq!(cluster.operator_may(*right).await, expected, "{right:?}");
        }
    }
}

// === harness ===

/// A namespace on the server of the suite, with the definitions installed.
struct Cluster {
    client: Client,
    namespace: String,
}

async fn connect() -> Client {
    let Some(path) = std::env::var_os(VARIABLE) else {
        panic!("{VARIABLE} is not set: run `cargo xtask test api`, or name the kubeconfig of a test cluster")
    };
    let kubeconfig = Kubeconfig::read_from(PathBuf::from(path)).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in definition::all() {
        let name = definition.name_any();
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(&definition)).await.unwrap();
        await_condition(api.clone(), &name, is_crd_established()).await.unwrap();
    }
}

impl Cluster {
    async fn start() -> Self {
        let client = connect().await;
        install(&client).await;
        let metadata = ObjectMeta { generate_name: Some("crds-".into()), ..ObjectMeta::default() };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let wanted = Namespace { metadata, ..Namespace::default() };
        let namespace = namespaces.create(&PostParams::default(), &wanted).await.unwrap().name_any();
        Self { client, namespace }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create(&self, name: &str, spec: Value) -> Result<Execution, String> {
        let object = serde_json::from_value(execution(name, spec)).unwrap();
        self.api().create(&PostParams::default(), &object).await.map_err(text)
    }

    async fn create_bundle(&self, name: &str) -> Result<ProofBundle, String> {
        let object = serde_json::from_value(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "ProofBundle", "metadata": { "name": name },
            "spec": {
                "body": "{\"a\":1}", "executionRoot": DIGEST, "bundleRoot": DIGEST,
                "executionRef": { "name": "e", "uid": "u" },
            },
        }))
        .unwrap();
        self.api().create(&PostParams::default(), &object).await.map_err(text)
    }

    /// What `kubectl apply --dry-run=server` does, with its refusal of unknown fields.
    async fn dry_run(&self, kind: &str, object: Value) -> Result<Value, String> {
        let path = match kind {
            "ClusterExecutionPolicy" => "/apis/requiem.dev/v1alpha1/clusterexecutionpolicies".to_owned(),
            "ExecutionPolicy" => self.path("executionpolicies"),
            kind => self.path(&format!("{}s", kind.to_lowercase())),
        };
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let mut request = Request::new(path).create(&params, serde_json::to_vec(&object).unwrap()).unwrap();
        *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse().unwrap();
        self.client.request(request).await.map_err(text)
    }

    fn path(&self, plural: &str) -> String {
        format!("/apis/requiem.dev/v1alpha1/namespaces/{}/{plural}", self.namespace)
    }

    async fn raw(&self, name: &str) -> Value {
        let path = format!("/apis/requiem.dev/v1alpha1/namespaces/{}/executions", self.namespace);
        let request = Request::new(path).get(name, &GetParams::default()).unwrap();
        self.client.request(request).await.unwrap()
    }

    async fn table(&self, plural: &str) -> Value {
        let path = format!("/apis/requiem.dev/v1alpha1/namespaces/{}/{plural}", self.namespace);
        let mut request = Request::new(path).list(&ListParams::default()).unwrap();
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap();
        request.headers_mut().insert("accept", accept);
        self.client.request(request).await.unwrap()
    }

    /// The server publishes a schema shortly after it has established the kind, and tells nobody when.
    async fn published_openapi(&self) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let request = Request::new("/openapi/v3/apis/requiem.dev").get("v1alpha1", &GetParams::default());
            let document: Value = self.client.request(request.unwrap()).await.unwrap_or_default();
            if KINDS.iter().all(|kind| document.to_string().contains(&format!("v1alpha1.{kind}\""))) {
                return document;
            }
            assert!(Instant::now() < deadline, "no schema was published");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<Execution, String> {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(text)
    }

    async fn patch_status(&self, name: &str, patch: Value) -> Result<Execution, String> {
        self.api().patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(text)
    }

    async fn replace_status(&self, name: &str, object: Value) -> Result<Value, String> {
        let path = format!("/apis/requiem.dev/v1alpha1/namespaces/{}/executions", self.namespace);
        let body = serde_json::to_vec(&object).unwrap();
        let request = Request::new(path).replace_subresource("status", name, &PostParams::default(), body);
        self.client.request(request.unwrap()).await.map_err(text)
    }

    async fn refused(&self, name: &str, patch: Value, words: &str) {
        let message = self.patch(name, patch.clone()).await.err().unwrap_or_default();
        assert!(message.contains(words), "{patch}: {message:?} does not say {words:?}");
    }

    async fn status_refused(&self, name: &str, status: Value, words: &str) {
        let answer = self.patch_status(name, json!({ "status": status })).await;
        let message = answer.err().unwrap_or_default();
        assert!(message.contains(words), "{status}: {message:?} does not say {words:?}");
    }

    async fn apply_rbac(&self, document: Value) {
        let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let params = PatchParams::apply(MANAGER).force();
        match document["kind"].as_str() {
            Some("ClusterRole") => {
                let api: Api<ClusterRole> = Api::all(self.client.clone());
                api.patch(&name, &params, &Patch::Apply(&document)).await.unwrap();
            }
            Some("ClusterRoleBinding") => {
                let api: Api<ClusterRoleBinding> = Api::all(self.client.clone());
                api.patch(&name, &params, &Patch::Apply(&document)).await.unwrap();
            }
            Some("Namespace" | "ServiceAccount" | "Role" | "RoleBinding") => {
                let _well_formed: DynamicObject = serde_json::from_value(document).unwrap();
            }
            other => panic!("unexpected kind {other:?} in config/rbac"),
        }
    }

    async fn operator_may(&self, right: (&str, &str, &str, &str)) -> bool {
        let (verb, group, resource, part) = right;
        let name = part.strip_prefix('=');
        let account = "system:serviceaccount:requiem-system:requiem-operator";
        let attributes = ResourceAttributes {
            verb: Some(verb.into()),
            group: Some(group.into()),
            resource: Some(resource.into()),
            subresource: name.is_none().then(|| part.into()),
            name: name.map(str::to_owned),
            namespace: Some(self.namespace.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(account.into()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    }
}

fn execution(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution", "metadata": { "name": name }, "spec": spec,
    })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "exit status 0",
        "lastTransitionTime": "2026-01-01T00:00:01Z", "observedGeneration": 1,
    })
}

/// A complete status of a success: every field but `signal`, which excludes `exitCode`.
fn succeeded() -> Value {
    json!({
        "observedGeneration": 1,
        "conditions": [condition("Ready", "True", "Succeeded"), condition("Succeeded", "True", "Succeeded")],
        "result": "Succeeded", "terminal": true, "attempts": 1,
        "startTime": "2026-01-01T00:00:00.000000Z", "completionTime": "2026-01-01T00:00:00.012000Z",
        "durationMs": 12, "duration": "12ms", "exitCode": 0, "terminationReason": "Exited",
        "requestDigest": DIGEST, "resultDigest": DIGEST,
        "stdout": { "digest": DIGEST, "bytes": 2, "truncated": false, "tail": "hi" },
        "stderr": { "digest": DIGEST, "bytes": 0, "truncated": false },
        "outputs": [{ "path": "o", "blob": DIGEST, "bytes": 1 }],
        "missingOutputs": [{ "path": "m", "why": "absent" }], "unlistedOutputs": 1,
        "sandbox": {
            "summary": "17/18 enforced", "enforced": ["seccomp"], "partial": ["cgroup"],
            "notes": [{ "layer": "cgroup", "detail": "no limit on processes" }],
        },
        "determinismConfidence": {
            "level": "best_effort", "score": 60, "reasons": ["clock:real"], "formula": "dc/1",
        },
        "executionRoot": DIGEST, "proofRoot": DIGEST, "proofBundleRef": { "name": "done" }, "cache": { "hit": false },
        "engine": { "name": "requiem", "version": "0.1.0" }, "executor": "local",
    })
}

/// Every document of the YAML files below `folder` of the repository, kustomizations aside.
fn documents(folder: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut found);
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, Value)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "kustomization.yaml" || !name.ends_with(".yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_norway::Deserializer::from_str(&text) {
            found.push((name.clone(), Value::deserialize(document).unwrap()));
        }
    }
}

fn text(error: kube::Error) -> String {
    error.to_string()
}
