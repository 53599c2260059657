//! Replays on real nodes: another node is another one, and where there is none it is waited for.

use kube::ResourceExt;
use requiem_crds::ProofBundle;
use requiem_tests::Failure;
use serde_json::json;

use crate::bed::nodes;
use crate::disturbed::{HERE, here, node_of, patch_node};
use crate::pools::{in_pool, pods};
use crate::site::{Site, policy, until};

fn replayed(bundle: &ProofBundle, reason: &str) -> bool {
    let conditions = bundle.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == "Replayed" && condition.reason == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_waits_for_another_node_and_runs_there() -> Result<(), Failure> {
    let site = Site::alone("replays", "restricted").await?;
    let both = nodes()?;
    let (first, second) = (&both[0], &both[1]);
    here(&site, first, second).await?;
    site.pool("default", json!({"replicas": 1, "nodeSelector": {HERE: "yes"}})).await?;
    site.settled("default", 1).await?;
    let more = json!({"policy": policy("t3")?, "replay": {"count": 1, "distinctNodes": true}});
    site.execute("twice", "echo hello", in_pool("default", more)).await?;
    let status = site.success("twice").await?.status.unwrap_or_default();
    let name = status.proof_bundle_ref.ok_or("no bundle")?.name;
    let waits = until(&site.bundles, &name, |bundle| replayed(bundle, "NotEnoughNodes")).await?;
    let replays = waits.status.and_then(|status| status.replays).ok_or("no replays")?;
    assert_eq!((replays.node.as_deref(), replays.replayed), (Some(first.name()), 0));

    here(&site, second, first).await?;
    site.change("default", json!({"replicas": 2})).await?;
    site.settled("default", 2).await?;
    let agrees = until(&site.bundles, &name, |bundle| replayed(bundle, "ReplaysAgree")).await?;
    let replays = agrees.status.and_then(|status| status.replays).ok_or("no replays")?;
    let run = replays.runs.first().ok_or("no run")?;
    assert_eq!((run.number, run.node.as_deref()), (1, Some(second.name())));
    let all = pods(&site, "default").await?;
    let executor = all.iter().find(|pod| run.executor.starts_with(&pod.name_any())).ok_or("whose is it?")?;
    assert_eq!(node_of(executor), second.name());
    patch_node(&site, second, json!({"metadata": {"labels": {HERE: null}}})).await?;
    site.close().await
}
