//! What the API server makes of ExecutorPools.

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use requiem_crds::ExecutorPool;
use serde_json::{Value, json};

use super::{Cluster, text};

#[tokio::test]
async fn a_pool_speaks_https_only_and_may_change() {
    let cluster = Cluster::start().await;
    let pools: Api<ExecutorPool> = cluster.api();
    let endpoints = |url: &str| json!([{ "name": "one", "url": url }]);
    let pool = |url: &str| {
        serde_json::from_value::<ExecutorPool>(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": { "name": "pool" },
            "spec": { "endpoints": endpoints(url) },
        }))
        .unwrap()
    };
    for bad in ["http://h:1", "https://", "h:1", "https://h:1/x", "https://h:1/?q=1"] {
        let refused = pools.create(&PostParams::default(), &pool(bad)).await;
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("url must be https://HOST:PORT"), "{bad}: {message}");
    }
    let created = pools.create(&PostParams::default(), &pool("https://127.0.0.1:7443")).await.unwrap();
    assert_eq!(created.status, Some(requiem_crds::ExecutorPoolStatus::default()));
    let change = json!({ "spec": { "endpoints": endpoints("https://[::1]:7443/") } });
    pools.patch("pool", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
}

#[tokio::test]
async fn a_pool_of_pods_gets_its_defaults_and_excludes_addresses() {
    let cluster = Cluster::start().await;
    let pools: Api<ExecutorPool> = cluster.api();
    let pool = |name: &str, spec: Value| {
        serde_json::from_value::<DynamicObject>(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": { "name": name }, "spec": spec,
        }))
        .unwrap()
    };
    let raw: Api<DynamicObject> = Api::namespaced_with(
        cluster.client.clone(),
        &cluster.namespace,
        &ApiResource::erase::<ExecutorPool>(&()),
    );
    let create = async |name: &str, spec: Value| {
        raw.create(&PostParams::default(), &pool(name, spec)).await.map_err(text)
    };
    create("pods", json!({ "pods": { "workloadImage": "busybox" } })).await.unwrap();
    let pods = pools.get("pods").await.unwrap().spec.pods.unwrap();
    assert_eq!((pods.replicas, pods.slots, pods.drain_seconds), (1, 2, 25));
    assert_eq!(pods.seccomp_profile, "requiem/runner.json");
    let many =
        (0..16).map(|n| (format!("example.com/{n}"), json!("1.5Gi"))).collect::<serde_json::Map<_, _>>();
    let full = json!({
        "workloadImage": "busybox", "replicas": 64, "tier": "T3", "image": "e", "imagePullPolicy": "Never",
        "imagePullSecrets": [{ "name": "s" }], "store": { "persistentVolumeClaim": { "claimName": "c" } },
        "resources": { "executor": { "limits": many, "requests": { "cpu": 1, "memory": "1Gi" } }, "workload": {} },
        "nodeSelector": { "disk": "fast" }, "tolerations": [{ "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 }],
        "runtimeClassName": "r", "priorityClassName": "p", "drainSeconds": 0, "seccompProfile": "a/b.json",
    });
    create("full", json!({ "pods": full })).await.unwrap();
    let image = || json!({ "workloadImage": "i" });
    let with = |field: &str, value: Value| {
        let mut pods = image();
        pods[field] = value;
        json!({ "pods": pods })
    };
    let both = json!({ "pods": image(), "endpoints": [{ "name": "a", "url": "https://h:1" }] });
    let two_stores = json!({ "emptyDir": {}, "hostPath": { "path": "/srv" } });
    for (name, spec, words) in [
        ("both", both, "endpoints and pods exclude one another"),
        ("with.dot", json!({ "pods": image() }), "at most 40 characters and no dot"),
        ("a-name-of-a-pool-that-is-a-little-too-long", json!({ "pods": image() }), "at most 40 characters"),
        ("none", json!({ "pods": {} }), "workloadImage"),
        ("many", with("replicas", json!(65)), "replicas"),
        ("tier", with("tier", json!("T0")), "tier"),
        ("stores", with("store", two_stores), "at most one of emptyDir, hostPath and persistentVolumeClaim"),
        ("climbs", with("seccompProfile", json!("../x.json")), "seccompProfile"),
        ("amount", with("resources", json!({ "workload": { "limits": { "cpu": "-1" } } })), "cpu"),
    ] {
        let message = create(name, spec).await.expect_err(name);
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[tokio::test]
async fn a_pool_of_pods_can_be_scaled() {
    let cluster = Cluster::start().await;
    let pools: Api<ExecutorPool> = cluster.api();
    let pool = serde_json::from_value(json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": { "name": "scaled" },
        "spec": { "pods": { "workloadImage": "i" } },
    }))
    .unwrap();
    pools.create(&PostParams::default(), &pool).await.unwrap();
    let change = json!({ "spec": { "replicas": 3 } });
    pools.patch_scale("scaled", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    assert_eq!(pools.get("scaled").await.unwrap().spec.pods.unwrap().replicas, 3);
    let status = json!({ "status": { "replicas": 2, "selector": "requiem.dev/pool=scaled" } });
    pools.patch_status("scaled", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let scale = pools.get_scale("scaled").await.unwrap().status.unwrap();
    assert_eq!((scale.replicas, scale.selector.as_deref()), (2, Some("requiem.dev/pool=scaled")));
}
