//! `spec.ttlAfterFinished` against a real API server.

use super::judges::{self, Said};
use super::*;

async fn compacted(rig: &Rig, name: &str) -> Execution {
    rig.until(name, "compacted", |object: Option<&Execution>| {
        object.and_then(|object| object.status.as_ref()).is_some_and(|status| status.compacted)
    })
    .await
}

async fn gone(rig: &Rig, object: &Execution) {
    let (name, uid) = (object.name_any(), object.uid().unwrap());
    let gone = kube::runtime::conditions::is_deleted(&uid);
    let waiting = await_condition(rig.executions.clone(), &name, gone);
    tokio::time::timeout(PATIENCE, waiting).await.expect("it was deleted").unwrap();
}

#[tokio::test]
async fn an_ended_execution_is_shortened_or_deleted_when_its_time_is_over() {
    let mut rig = Rig::start("ttl").await;
    let puppet = rig.puppet(puppet::seals).await;
    rig.pool(&[("a", &puppet.server)]).await;
    let ttl =
        |seconds: u32, action: &str| json!({"ttlAfterFinished": {"seconds": seconds, "action": action}});
    let deleted = rig.create_with("deleted", json!({}), ttl(1, "Delete")).await;
    rig.create_with("short", json!({}), ttl(1, "Compact")).await;
    let flux = json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}});
    let argo =
        json!({"annotations": {"argocd.argoproj.io/tracking-id": "app:requiem.dev/Execution:ns/argo"}});
    let helm = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}});
    for (name, marks) in [("flux", flux), ("argo", argo), ("helm", helm)] {
        rig.create_with(name, marks, ttl(1, "Delete")).await;
    }
    gone(&rig, &deleted).await;
    let short = compacted(&rig, "short").await;
    let status = short.status.clone().unwrap();
    assert!(status.proof_root.is_some() && status.stdout.as_ref().unwrap().tail.is_empty());
    assert!(status.sandbox.unwrap().enforced.is_empty());
    let mut shown = vec![json!(short)];
    for (name, tool) in [("flux", "Flux"), ("argo", "Argo CD"), ("helm", "Helm")] {
        let kept = compacted(&rig, name).await;
        let says = message(&kept);
        assert!(
            says.contains(&format!("instead of deleted, because {tool} would create it again")),
            "{says}"
        );
        shown.push(json!(kept));
    }
    assert!(judges::ask(&shown).iter().all(|said| *said == Said::of("Current", "Current", "Healthy")));

    // What ends, is edited or is due while no operator is there is found by the next one.
    let spare = rig.create_with("spare", json!({}), ttl(3600, "Delete")).await;
    let kept = rig.create_with("kept", json!({}), json!({})).await;
    rig.ended("spare").await;
    rig.ended("kept").await;
    rig.edit("spare", ttl(1800, "Delete")).await;
    let observed = rig
        .until("spare", "observed", |object: Option<&Execution>| {
            object.is_some_and(|object| {
                let seen = object.status.as_ref().map(|status| status.observed_generation);
                seen == object.metadata.generation && seen == Some(2)
            })
        })
        .await;
    assert_eq!(judges::ask(&[json!(observed)]), [Said::of("Current", "Current", "Healthy")]);
    rig.kill_operator().await;
    rig.edit("spare", ttl(0, "Delete")).await;
    rig.start_operator().await;
    gone(&rig, &spare).await;
    assert_eq!(rig.executions.get("kept").await.unwrap().metadata.uid, kept.metadata.uid);
}
