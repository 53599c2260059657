//! What may still change once an Execution has ended, and the marks that only the operator writes.

use kube::api::{Api, ListParams, Patch, PatchParams};
use requiem_crds::{Execution, ProofBundle};
use serde_json::{Value, json};

use super::{Cluster, DIGEST, OTHER_DIGEST, condition, succeeded};

/// The status that compaction makes of [`succeeded`], as a merge patch.
fn compaction() -> Value {
    json!({
        "compacted": true, "stdout": { "tail": null }, "missingOutputs": null, "unlistedOutputs": 2,
        "sandbox": { "enforced": null, "partial": null, "notes": null },
    })
}

#[tokio::test]
async fn a_finished_status_is_compacted_once_in_one_way() {
    let cluster = Cluster::start().await;
    let ttl = json!({ "command": ["a"], "ttlAfterFinished": { "seconds": 9 } });
    cluster.create("short", ttl).await.unwrap();
    cluster.status_refused("short", json!({ "compacted": true }), "compacted is true, after the end").await;
    cluster.patch_status("short", json!({ "status": succeeded() })).await.unwrap();
    for (field, change, words) in [
        ("compacted", Value::Null, "stdout is immutable"),
        ("stdout", json!({ "tail": "x" }), "stdout is immutable"),
        ("stdout", json!({ "tail": null, "digest": OTHER_DIGEST }), "stdout is immutable"),
        ("stdout", Value::Null, "stdout is immutable"),
        ("stderr", json!({ "bytes": 7 }), "stderr is immutable"),
        ("sandbox", json!({ "summary": "18/18 enforced" }), "sandbox is immutable"),
        ("sandbox", json!({ "notes": null }), "sandbox is immutable"),
        ("sandbox", Value::Null, "sandbox is immutable"),
        ("unlistedOutputs", json!(3), "missingOutputs is immutable"),
        ("unlistedOutputs", Value::Null, "missingOutputs is immutable"),
        ("missingOutputs", json!([]), "missingOutputs is immutable"),
        ("outputs", Value::Null, "outputs is immutable"),
        ("proofRoot", json!(OTHER_DIGEST), "proofRoot is immutable"),
        ("proofBundleRef", Value::Null, "proofBundleRef is immutable"),
        ("result", json!("TimedOut"), "result is immutable"),
        ("exitCode", Value::Null, "exitCode is immutable"),
        ("conditions", Value::Null, "the Succeeded condition is immutable"),
    ] {
        let mut other = compaction();
        other[field] = change;
        cluster.status_refused("short", other, words).await;
    }
    let messages =
        json!([condition("Ready", "True", "Succeeded"), condition("Succeeded", "True", "Succeeded")]);
    let mut whole = compaction();
    whole["conditions"] = messages;
    cluster.patch_status("short", json!({ "status": whole })).await.unwrap();
    let status = cluster.raw("short").await["status"].clone();
    assert_eq!(status["stdout"], json!({ "digest": DIGEST, "bytes": 2, "truncated": false }));
    assert_eq!(status["sandbox"], json!({ "summary": "17/18 enforced" }));
    for (change, words) in [
        (json!({ "compacted": null }), "compacted is immutable"),
        (json!({ "stdout": { "tail": "x" } }), "stdout is immutable"),
        (json!({ "missingOutputs": [{ "path": "m", "why": "absent" }] }), "missingOutputs is immutable"),
        (json!({ "unlistedOutputs": 9 }), "unlistedOutputs is immutable"),
        (json!({ "sandbox": { "enforced": ["seccomp"] } }), "sandbox is immutable"),
    ] {
        cluster.status_refused("short", change, words).await;
    }
    let spent = "ttlAfterFinished is immutable once status.compacted is true";
    let change = json!({ "spec": { "ttlAfterFinished": { "seconds": 1 } } });
    cluster.refused("short", change, spent).await;
}

#[tokio::test]
async fn a_ttl_may_change_but_not_go_once_it_is_over() {
    let cluster = Cluster::start().await;
    cluster.create("ttl", json!({ "command": ["a"] })).await.unwrap();
    let ttl = |ttl: Value| json!({ "spec": { "ttlAfterFinished": ttl } });
    cluster.patch("ttl", ttl(json!({ "seconds": 9 }))).await.unwrap();
    cluster.patch("ttl", ttl(Value::Null)).await.unwrap();
    cluster.patch_status("ttl", json!({ "status": succeeded() })).await.unwrap();
    let added = cluster.patch("ttl", ttl(json!({ "seconds": 9 }))).await.unwrap();
    assert_eq!(serde_json::to_value(added.spec.ttl_after_finished).unwrap()["action"], "Compact");
    cluster.patch("ttl", ttl(json!({ "seconds": 7, "action": "Delete" }))).await.unwrap();
    cluster.refused("ttl", ttl(Value::Null), "not removed, once status.terminal is true").await;
    let many = ttl(json!({ "seconds": 315_360_001_u32 }));
    cluster.refused("ttl", many, "less than or equal to").await;
    let executions: Api<Execution> = cluster.api();
    let ended = "status.terminal=true,spec.ttlAfterFinished.action!=,status.compacted!=true";
    let found = executions.list(&ListParams::default().fields(ended)).await.unwrap();
    assert_eq!(found.items.len(), 1);
    cluster.create("none", json!({ "command": ["a"] })).await.unwrap();
    cluster.patch_status("none", json!({ "status": succeeded() })).await.unwrap();
    cluster.patch_status("ttl", json!({ "status": compaction() })).await.unwrap();
    let found = executions.list(&ListParams::default().fields(ended)).await.unwrap();
    assert_eq!(found.items.len(), 0);
}

#[tokio::test]
async fn a_hit_names_its_original_and_a_mark_stays() {
    let cluster = Cluster::start().await;
    cluster.create("hit", json!({ "command": ["a"], "cache": "Use" })).await.unwrap();
    cluster.refused("hit", json!({ "spec": { "cache": "Never" } }), "cache is immutable").await;
    cluster.refused("hit", json!({ "spec": { "cache": null } }), "cache is immutable").await;
    let mut status = succeeded();
    for (cache, words) in [
        (json!({ "hit": true }), "original together with a hit"),
        (
            json!({ "hit": false, "original": { "name": "o", "uid": "u", "bundle": "b" } }),
            "original together",
        ),
        (json!({ "hit": true, "original": { "name": "o", "uid": "u" } }), "original.bundle"),
    ] {
        status["cache"] = cache;
        cluster.status_refused("hit", status.clone(), words).await;
    }
    status["cache"] = json!({ "hit": true, "original": { "name": "o", "uid": "u", "bundle": "b" } });
    cluster.patch_status("hit", json!({ "status": status })).await.unwrap();

    cluster.create_bundle("mark").await.unwrap();
    let bundles: Api<ProofBundle> = cluster.api();
    let set = async |origin: Value| {
        let patch = json!({ "status": { "origin": origin } });
        bundles.patch_status("mark", &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    for selector in ["status.origin=Executed", "status.origin=Imported"] {
        let found = bundles.list(&ListParams::default().fields(selector)).await.unwrap();
        assert!(found.items.is_empty());
    }
    set(json!("Imported")).await.unwrap();
    set(json!("Executed")).await.unwrap();
    for other in [json!("Imported"), Value::Null] {
        assert!(set(other).await.unwrap_err().to_string().contains("origin is immutable"));
    }
    let found = bundles.list(&ListParams::default().fields("status.origin=Executed")).await.unwrap();
    assert_eq!(found.items.len(), 1);
}

#[tokio::test]
async fn what_was_recorded_of_replays_is_not_taken_back() {
    let cluster = Cluster::start().await;
    cluster.create_bundle("replayed").await.unwrap();
    let bundles: Api<ProofBundle> = cluster.api();
    let set = async |replays: Value| {
        let patch = json!({ "status": { "replays": replays } });
        bundles.patch_status("replayed", &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    let running = json!({ "phase": "Running", "wanted": 3, "distinctNodes": true, "replayed": 2, "agreed": 1, "executor": "a" });
    set(running).await.unwrap();
    let found = ListParams::default().fields("status.replays.phase=Running");
    assert_eq!(bundles.list(&found).await.unwrap().items.len(), 1);
    for (change, words) in [
        (Value::Null, "replays are never taken back"),
        (json!({ "wanted": 1 }), "wanted is immutable"),
        (json!({ "distinctNodes": false }), "distinctNodes is immutable"),
        (json!({ "executor": "b" }), "executor is immutable"),
        (json!({ "node": "n" }), "node is immutable"),
        (json!({ "replayed": 1, "agreed": 0 }), "replayed never decreases"),
        (json!({ "agreed": 2 }), "a divergence is never taken back"),
        (json!({ "wanted": 9 }), "less than or equal to 8"),
    ] {
        let refused = set(change.clone()).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{change}: {refused}");
    }
    set(json!({ "phase": "Done", "replayed": 3, "agreed": 2 })).await.unwrap();
    assert!(bundles.list(&found).await.unwrap().items.is_empty());
    let again = set(json!({ "phase": "Running" })).await.unwrap_err().to_string();
    assert!(again.contains("replays are immutable once phase is Done"), "{again}");
}
