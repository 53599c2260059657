//! Pools of pods, as a user sees them: Executions run in every tier, pools grow, shrink and change under load, pods vanish, and what
//! stands in the way is said and can be mended.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use requiem_tests::Failure;
use serde_json::{Value, json};

use crate::bed::{Bed, nodes, once, phase, restricted};
use crate::site::{Site, attempts, grant, label, message, policy, reason, tail};

/// Looks for what is not a payload's business; every line that it prints is a find.
const HOSTILE: &str = r#"
for token in /var/run/secrets/kubernetes.io/serviceaccount/token /run/secrets/kubernetes.io/serviceaccount/token; do
  head -c 1 "$token" > /dev/null 2>&1 && echo "FOUND a token: $token"
done
for secret in /requiem/tls/tls.key /requiem/store/format /proc/1/root/requiem/tls/tls.key /proc/1/environ; do
  head -c 1 "$secret" > /dev/null 2>&1 && echo "FOUND $secret"
done
for folder in /requiem/store /requiem/tls /requiem/run /proc/1/root/requiem; do
  ls "$folder" > /dev/null 2>&1 && echo "FOUND $folder"
done
env | grep -q KUBERNETES_ && echo "FOUND the address of the API server"
for host in 10.96.0.1/443 169.254.169.254/80; do
  timeout 2 bash -c "exec 3<> /dev/tcp/$host" 2> /dev/null && echo "FOUND the network: $host"
done
echo looked
"#;

/// Numbers of the nodes' pods of a pool.
pub(crate) async fn pods(site: &Site, pool: &str) -> Result<Vec<Pod>, Failure> {
    let selector = ListParams::default().labels(&format!("requiem.dev/pool={pool}"));
    Ok(site.bed.pods.list(&selector).await?.items)
}

pub(crate) fn in_pool(pool: &str, more: Value) -> Value {
    let mut spec = json!({"executor": {"poolRef": {"name": pool}}});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_run_in_every_tier_and_find_nothing_that_is_not_theirs() -> Result<(), Failure> {
    let site = Site::start("pool-tiers", "baseline").await?;
    let tiers = ["t1", "t2", "t3"];
    for tier in tiers {
        site.pool(tier, json!({"tier": tier.to_uppercase()})).await?;
    }
    for tier in tiers {
        site.settled(tier, 1).await?;
        let spec = in_pool(tier, json!({"policy": policy(tier)?}));
        site.execute(&format!("{tier}-plain"), "echo hello", spec.clone()).await?;
        site.execute(&format!("{tier}-hostile"), HOSTILE, spec).await?;
    }
    for tier in tiers {
        assert_eq!(tail(&site.success(&format!("{tier}-plain")).await?), "hello\n");
        let hostile = site.success(&format!("{tier}-hostile")).await?;
        assert_eq!(tail(&hostile), "looked\n", "{tier}");
        let executor = hostile.status.and_then(|status| status.executor);
        assert_eq!(executor, Some(format!("{tier}-executor-0")));
    }
    // The same script in a pod of the user's own finds what is there: the check can fail.
    let mut plain = once(&restricted(requiem_xtask::images::payload::NAME, &["/bin/bash", "-c", HOSTILE]));
    plain["automountServiceAccountToken"] = json!(true);
    let found = site.bed.run("plain", plain).await?;
    assert!(found.contains("FOUND a token") && found.contains("FOUND the network"), "{found}");
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_grows_shrinks_and_changes_while_it_works_and_nothing_is_lost() -> Result<(), Failure> {
    let site = Site::start("pool-moves", "restricted").await?;
    site.pool("default", json!({"replicas": 2, "drainSeconds": 60})).await?;
    let before = site.settled("default", 2).await?;
    let names = |round: &str| -> Vec<String> { (0..6).map(|number| format!("{round}-{number}")).collect() };
    let load = async |round: &str| -> Result<(), Failure> {
        for name in names(round) {
            site.execute(&name, "sleep 2; echo done", json!({"policy": policy("t3")?})).await?;
        }
        let first = format!("{round}-0");
        let begun = |object: &requiem_crds::Execution| attempts(object) > 0;
        site.watch(&first, begun).await.map(drop)
    };
    load("grows").await?;
    site.change("default", json!({"replicas": 3})).await?;
    site.settled("default", 3).await?;
    load("shrinks").await?;
    site.change("default", json!({"replicas": 1})).await?;
    site.settled("default", 1).await?;
    site.change("default", json!({"replicas": 2})).await?;
    site.settled("default", 2).await?;
    load("changes").await?;
    site.change("default", json!({"slots": 2})).await?;
    let after = site.settled("default", 2).await?;
    assert_eq!(
        (before.status.map(|one| one.capacity), after.status.map(|one| one.capacity)),
        (Some(2), Some(4))
    );
    load("evicts").await?;
    let pod = pods(&site, "default").await?.remove(0);
    site.bed.pods.evict(&pod.name_any(), &EvictParams::default()).await?;
    site.bed.gone(&pod).await?;
    for round in ["grows", "shrinks", "changes", "evicts"] {
        for name in names(round) {
            let execution = site.success(&name).await?;
            assert_eq!(attempts(&execution), 1, "{name} was lost with a pod that should have drained");
        }
    }
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_pods_is_found_again_by_the_next_operator() -> Result<(), Failure> {
    let mut site = Site::start("pool-heirs", "restricted").await?;
    site.pool("default", json!({"replicas": 2})).await?;
    site.settled("default", 2).await?;
    let policy = policy("t3")?;
    let image = requiem_xtask::images::payload::NAME;
    let own = json!({"pod": {"image": image, "imagePullPolicy": "Never", "tier": "T3"}});
    site.execute("pooled", "sleep 5; echo done", json!({"policy": policy})).await?;
    site.execute("own", "sleep 5; echo done", json!({"policy": policy, "executor": own})).await?;
    for name in ["pooled", "own"] {
        site.watch(name, |object| message(object).contains("runs on")).await?;
    }
    site.replace_operator().await?;
    for name in ["pooled", "own"] {
        assert_eq!(attempts(&site.success(name).await?), 1, "{name} was started again");
    }
    site.settled("default", 2).await?;
    let dedicated = ListParams::default().labels("requiem.dev/dedicated=true");
    for pod in site.bed.pods.list(&dedicated).await?.items {
        site.bed.gone(&pod).await?;
    }
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_had_when_it_was_killed_runs_once_more_elsewhere() -> Result<(), Failure> {
    let site = Site::start("pool-loses", "restricted").await?;
    site.pool("default", json!({"replicas": 2})).await?;
    site.settled("default", 2).await?;
    let spec = json!({"policy": policy("t3")?});
    site.execute("survivor", "sleep 8; echo done", spec).await?;
    let running = site.watch("survivor", |object| attempts(object) == 1).await?;
    let said = message(&running);
    let all = pods(&site, "default").await?;
    let holder = all.iter().find(|pod| said.contains(&pod.name_any())).ok_or("nobody has it")?;
    let uid = holder.uid();
    site.bed.pods.delete(&holder.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let execution = site.success("survivor").await?;
    assert_eq!(attempts(&execution), 2);
    let proofs = site.bundles.list(&ListParams::default()).await?.items;
    assert_eq!(proofs.len(), 1, "one result, whoever ran it");
    site.settled("default", 2).await?;
    assert!(pods(&site, "default").await?.iter().all(|pod| pod.uid() != uid));
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_pool_from_serving_is_said_and_can_be_mended() -> Result<(), Failure> {
    let site = Site::start("pool-mends", "baseline").await?;
    site.pool("image", json!({"workloadImage": "requiem.dev/nothing:1"})).await?;
    site.pool("profile", json!({"tier": "T2", "seccompProfile": "requiem/none.json"})).await?;
    site.pool("room", json!({"nodeSelector": {"requiem.dev/nowhere": "yes"}})).await?;
    let memory = json!({"executor": {"limits": {"memory": "1Mi"}}});
    site.pool("crash", json!({"resources": memory})).await?;
    let said = site.says("image", "ImageUnavailable").await?;
    assert!(said.contains("requiem.dev/nothing:1") && said.contains("spec.pods.workloadImage"), "{said}");
    let said = site.says("profile", "ProfileMissing").await?;
    assert!(said.contains("requiem/none.json") && said.contains("choose tier T3"), "{said}");
    let said = site.says("room", "Unschedulable").await?;
    assert!(said.contains("nodeSelector"), "{said}");
    for (pool, mended) in [
        ("image", json!({"workloadImage": requiem_xtask::images::payload::NAME})),
        ("profile", json!({"seccompProfile": "requiem/runner.json"})),
        ("room", json!({"nodeSelector": null})),
    ] {
        site.change(pool, mended).await?;
        site.settled(pool, 1).await?;
    }
    let stuck = |pool: &requiem_crds::ExecutorPool| {
        ["ExecutorOutOfMemory", "ExecutorCrashing"].contains(&reason(pool, "Ready"))
    };
    site.until("crash", stuck).await?;
    site.change("crash", json!({"resources": null})).await?;
    site.settled("crash", 1).await?;
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_said_and_can_be_mended() -> Result<(), Failure> {
    let site = Site::start("pool-refused", "restricted").await?;
    let (client, namespace) = (site.bed.client.clone(), site.bed.namespace.clone());
    site.pool("best", json!({"tier": "T1"})).await?;
    let said = site.says("best", "PodRefused").await?;
    assert!(said.contains("PodSecurity") && said.contains("procMount") && said.contains("T3"), "{said}");
    let pool = site.pools.get("best").await?;
    assert_eq!(reason(&pool, "Stalled"), "PodRefused");
    label(&client, &namespace, "pod-security.kubernetes.io/enforce", "baseline").await?;
    site.settled("best", 1).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(client, &namespace);
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    site.change("best", json!({"replicas": 2})).await?;
    let limited = |pool: &requiem_crds::ExecutorPool| reason(pool, "Reconciling") == "QuotaExceeded";
    let pool = site.until("best", limited).await?;
    assert_eq!(reason(&pool, "Ready"), "SomeExecutorsReady", "the pod that is there serves on");
    quotas.delete("few", &DeleteParams::default()).await?;
    site.settled("best", 2).await?;
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_a_claim_waits_for_its_volume_and_outlives_its_pods() -> Result<(), Failure> {
    let site = Site::start("pool-keeps", "restricted").await?;
    let name = site.bed.namespace.clone();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(site.bed.client.clone(), &name);
    let claim = json!({"metadata": {"name": "store"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name,
        "resources": {"requests": {"storage": "1Gi"}},
    }});
    claims.create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    let store = json!({"persistentVolumeClaim": {"claimName": "store"}});
    site.pool("default", json!({"store": store})).await?;
    let said = site.says("default", "Unschedulable").await?;
    assert!(said.contains("bind the claim"), "{said}");
    make_volume(&site.bed, &name).await?;
    site.settled("default", 1).await?;
    let policy = policy("t3")?;
    let keeps = json!({"policy": policy, "outputs": ["kept"]});
    site.execute("writes", "echo for later > kept", keeps).await?;
    let status = site.success("writes").await?.status.ok_or("no status")?;
    let digest = serde_json::to_value(&status.outputs)?[0]["blob"].clone();
    let pod = pods(&site, "default").await?.remove(0);
    site.bed.pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
    let reads = json!({"policy": policy, "inputs": [{"path": "kept", "blob": digest}]});
    site.bed.gone(&pod).await?;
    site.execute("reads", "cat kept", reads).await?;
    assert_eq!(tail(&site.success("reads").await?), "for later\n");
    let successor = pods(&site, "default").await?.remove(0);
    assert_eq!((successor.name_any(), successor.uid() == pod.uid()), (pod.name_any(), false));
    let volumes: Api<PersistentVolume> = Api::all(site.bed.client.clone());
    site.close().await?;
    volumes.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

/// A volume for the claim: a folder of the first node.
async fn make_volume(bed: &Bed, name: &str) -> Result<(), Failure> {
    let node = nodes()?.remove(0);
    let folder = node.var().join(name);
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    let on_it = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name()]});
    let volume = json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": format!("/var/{name}"), "type": "Directory"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_it]}]}},
    }});
    let volumes: Api<PersistentVolume> = Api::all(bed.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_pool_go_with_it_and_show_no_credential() -> Result<(), Failure> {
    let site = Site::start("pool-ends", "restricted").await?;
    site.pool("default", json!({"replicas": 2})).await?;
    site.settled("default", 2).await?;
    let all = pods(&site, "default").await?;
    let where_they_are: BTreeSet<_> =
        all.iter().map(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone())).collect();
    assert_eq!(where_they_are.len(), 2, "two pods on one of two nodes");
    for pod in &all {
        assert_eq!(phase(pod), "Running");
        let text = json!(pod.spec).to_string();
        assert!(!text.contains("serviceaccount"), "{text}");
        for container in ["executor", "workload"] {
            let log = LogParams { container: Some(container.into()), ..LogParams::default() };
            let log = site.bed.pods.logs(&pod.name_any(), &log).await?;
            assert!(!log.contains("PRIVATE KEY"), "{log}");
        }
    }
    site.pools.delete("default", &DeleteParams::default()).await?;
    for pod in &all {
        site.bed.gone(pod).await?;
    }
    // A pool that wants executors elsewhere ends its pods, too.
    site.pool("other", json!({})).await?;
    site.settled("other", 1).await?;
    let all = pods(&site, "other").await?;
    let elsewhere =
        json!({"spec": {"pods": null, "endpoints": [{"name": "one", "url": "https://127.0.0.1:1"}]}});
    site.pools.patch("other", &PatchParams::default(), &Patch::Merge(&elsewhere)).await?;
    for pod in &all {
        site.bed.gone(pod).await?;
    }
    let pool = site.until("other", |pool| reason(pool, "Ready") == "NoExecutor").await?;
    let status = pool.status.ok_or("no status")?;
    assert_eq!((status.replicas, status.selector), (None, None), "what is said of pods stays");
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_may_not_see_pods_says_so_and_serves_the_rest() -> Result<(), Failure> {
    let site = Site::blind("pool-blind", "restricted").await?;
    let fixed = json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": {"name": "fixed"},
        "spec": {"endpoints": [{"name": "one", "url": "https://127.0.0.1:1"}]},
    });
    site.pools.create(&PostParams::default(), &serde_json::from_value(fixed)?).await?;
    site.pool("default", json!({})).await?;
    let said = site.says("default", "PodRefused").await?;
    assert!(said.contains("cannot watch pods") && said.contains("docs/operator.md"), "{said}");
    let said = site.says("fixed", "NoExecutor").await?;
    assert!(said.contains("--tls-cert"), "{said}");
    let verbs = ["get", "list", "watch", "create", "delete"];
    let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]);
    grant(&site.bed, &site.bed.namespace, "pods", pods).await?;
    site.settled("default", 1).await?;
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_a_node_that_is_cut_off_waits_and_the_rest_goes_on() -> Result<(), Failure> {
    let site = Site::alone("pool-cut", "restricted").await?;
    site.pool("default", json!({"replicas": 2})).await?;
    site.settled("default", 2).await?;
    let policy = policy("t3")?;
    site.execute("caught", "sleep 6; echo done", json!({"policy": policy})).await?;
    let running = site.watch("caught", |object| attempts(object) == 1).await?;
    let said = message(&running);
    let all = pods(&site, "default").await?;
    let holder = all.iter().find(|pod| said.contains(&pod.name_any())).ok_or("nobody has it")?;
    let on = holder.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let node = nodes()?.into_iter().find(|node| node.name() == on).ok_or("it is on no node")?;
    node.cut()?;
    let cut = async {
        let away = site.watch("caught", |object| message(object).contains("goes on when it answers")).await?;
        for number in 0..2 {
            let name = format!("beside-{number}");
            site.execute(&name, "echo done", json!({"policy": policy})).await?;
            let status = site.success(&name).await?.status.unwrap_or_default();
            assert_ne!(status.executor, Some(holder.name_any()), "the node is cut off");
        }
        Ok::<_, Failure>(away)
    };
    let away = cut.await;
    node.mend()?;
    away?;
    let execution = site.success("caught").await?;
    assert_eq!(attempts(&execution), 1, "it ran on while nobody could ask");
    site.settled("default", 2).await?;
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_may_have_a_pod_of_its_own_that_goes_when_its_result_is_safe() -> Result<(), Failure> {
    let site = Site::start("pool-own", "restricted").await?;
    let own = |image: &str| {
        let pod = json!({"image": image, "imagePullPolicy": "Never", "tier": "T3"});
        Ok::<_, Failure>(json!({"policy": policy("t3")?, "executor": {"pod": pod}}))
    };
    let image = requiem_xtask::images::payload::NAME;
    site.execute("plain", "echo hello", own(image)?).await?;
    site.execute("fails", "exit 3", own(image)?).await?;
    site.execute("nowhere", "echo hello", own("requiem.dev/nothing:1")?).await?;
    assert_eq!(tail(&site.success("plain").await?), "hello\n");
    let failed = site.watch("fails", |object| object.status.as_ref().is_some_and(|one| one.terminal)).await?;
    assert_eq!(failed.status.and_then(|status| status.exit_code), Some(3));
    let stuck = |object: &requiem_crds::Execution| message(object).contains("spec.executor.pod.image");
    let stuck = site.watch("nowhere", stuck).await?;
    assert!(message(&stuck).contains("requiem.dev/nothing:1"), "{}", message(&stuck));
    let cancel = json!({"spec": {"cancel": true}});
    site.executions.patch("nowhere", &PatchParams::default(), &Patch::Merge(&cancel)).await?;
    let over = site.watch("nowhere", |object| object.status.as_ref().is_some_and(|one| one.terminal)).await?;
    assert_eq!(attempts(&over), 1);
    let dedicated = ListParams::default().labels("requiem.dev/dedicated=true");
    for pod in site.bed.pods.list(&dedicated).await?.items {
        site.bed.gone(&pod).await?;
    }
    site.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_whose_own_pod_is_killed_runs_once_more_in_another() -> Result<(), Failure> {
    let site = Site::start("pool-anew", "restricted").await?;
    let pod =
        json!({"image": requiem_xtask::images::payload::NAME, "imagePullPolicy": "Never", "tier": "T3"});
    let more = json!({"policy": policy("t3")?, "executor": {"pod": pod}});
    site.execute("survivor", "sleep 6; echo done", more).await?;
    let running = |object: &requiem_crds::Execution| message(object).contains("runs on");
    site.watch("survivor", running).await?;
    let dedicated = ListParams::default().labels("requiem.dev/dedicated=true");
    let first = site.bed.pods.list(&dedicated).await?.items.remove(0);
    site.bed.pods.delete(&first.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let execution = site.success("survivor").await?;
    assert_eq!(attempts(&execution), 2);
    assert_ne!(execution.status.and_then(|status| status.executor), Some(first.name_any()));
    site.close().await
}
