//! What the API server says to policies: which it refuses, in which words, and that the largest is taken.

use super::*;

#[tokio::test]
async fn a_policy_that_breaks_a_rule_is_refused_in_words() {
    let cluster = Cluster::start().await;
    let policy = |kind: &str, spec: &Value| json!({"apiVersion": "requiem.dev/v1alpha1", "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    for (spec, words) in [
        (json!({}), "at least one rule must be given"),
        (json!({"maxLimits": {}}), "at least one limit must be given"),
        (json!({"pools": []}), "should have at least 1 items"),
        (json!({"pools": ["A pool"]}), "should match"),
        (json!({"pools": ["a", "a"]}), "Duplicate value"),
        (json!({"images": (0..65).map(|n| n.to_string()).collect::<Vec<_>>()}), "must have at most 64 items"),
        (json!({"ownPods": "Never"}), "Unsupported value"),
        (json!({"tiers": ["T4"]}), "Unsupported value"),
        (json!({"requiredLayers": ["firewall"]}), "Unsupported value"),
        (json!({"maxLimits": {"memory": "lots"}}), "should match"),
        (json!({"maxLimits": {"pids": 0}}), "greater than or equal to 1"),
        (json!({"maxLimit": {"pids": 1}}), "unknown field"),
        (json!({"minimumDeterminism": "high", "pools": ["a"]}), "unknown field"),
    ] {
        for kind in ["ExecutionPolicy", "ClusterExecutionPolicy"] {
            let mut spec = spec.clone();
            if kind == "ClusterExecutionPolicy" {
                spec["namespaces"] = json!(["*"]);
            }
            let message = cluster.dry_run(kind, policy(kind, &spec)).await.err().unwrap_or_default();
            assert!(message.contains(words), "{kind} {spec}: {message:?} does not say {words:?}");
        }
    }
    let everywhere = json!({"pools": ["a"]});
    let refused =
        cluster.dry_run("ClusterExecutionPolicy", policy("ClusterExecutionPolicy", &everywhere)).await;
    assert!(refused.unwrap_err().contains("spec.namespaces: Required value"));
}

/// As large as a policy can be.
#[tokio::test]
async fn the_largest_policy_is_taken() {
    let cluster = Cluster::start().await;
    let many =
        |longest: usize| (0..64).map(|n| format!("{n:02}{}", "x".repeat(longest - 2))).collect::<Vec<_>>();
    let spec = json!({
        "namespaces": many(253), "exceptNamespaces": many(253), "pools": many(253), "images": many(512),
        "tiers": ["T1", "T2", "T3"], "requiredLayers": requiem_model::Layer::ALL, "ownPods": "Allowed",
        "envFromSecrets": "Forbidden", "earlierResults": "Forbidden", "unpublishedProofs": "Forbidden",
        "maxLimits": {
            "timeoutSeconds": 1, "output": 1, "memory": "1.5Gi", "pids": 1, "scratch": "1e6", "scratchInodes": 16, "openFiles": 8,
        },
    });
    let policy = json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ClusterExecutionPolicy", "metadata": {"name": "p"}, "spec": spec,
    });
    let taken = cluster.dry_run("ClusterExecutionPolicy", policy).await.unwrap();
    // Nothing is added or dropped on the way through our own types.
    let read: requiem_crds::ClusterExecutionPolicy = serde_json::from_value(taken.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read.spec).unwrap(), taken["spec"]);
}
