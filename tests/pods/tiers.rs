//! Executor pods of every tier, written by hand: the runner comes from the workload's container, is tried out, and what it can
//! enforce is what the documentation says.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, PostParams};
use rcgen::{CertificateParams, KeyPair};
use requiem_model::Layer;
use requiem_tests::Failure;
use requiem_xtask::images::{REGISTRY, payload, reference};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::site::ask;

/// Layers that a tier does not enforce, with their status.
type Short = &'static [(Layer, &'static str)];

/// Name, whether it keeps the host's user namespace, the workload's view of /proc, the profile, and the result.
type Tier = (&'static str, bool, &'static str, Option<&'static str>, Short);

const PROFILE: Option<&str> = Some("requiem/runner.json");

const TIERS: [Tier; 4] = [
    ("t1", false, "Unmasked", PROFILE, &[(Layer::Cgroup, "delegated")]),
    ("t2", false, "Default", PROFILE, &[(Layer::Procfs, "unsupported"), (Layer::Cgroup, "delegated")]),
    ("t2-host", true, "Default", PROFILE, &[(Layer::Procfs, "unsupported"), (Layer::Cgroup, "delegated")]),
    (
        "t3",
        true,
        "Default",
        None,
        &[
            (Layer::UserNamespace, "unsupported"),
            (Layer::PidNamespace, "unsupported"),
            (Layer::MountNamespace, "unsupported"),
            (Layer::NetworkNamespace, "partial"),
            (Layer::IpcNamespace, "unsupported"),
            (Layer::UtsNamespace, "unsupported"),
            (Layer::CgroupNamespace, "unsupported"),
            (Layer::MinimalRoot, "unsupported"),
            (Layer::ReadOnlyInputs, "unsupported"),
            (Layer::Scratch, "unsupported"),
            (Layer::Procfs, "unsupported"),
            (Layer::Capabilities, "partial"),
            (Layer::Cgroup, "partial"),
        ],
    ),
];

/// The pod of `tier`: the shape of docs/pod-tiers.md.
fn pod((_, host_users, proc_mount, profile, _): &Tier) -> Value {
    let seccomp = profile.map_or(
        json!({"type": "RuntimeDefault"}),
        |profile| json!({"type": "Localhost", "localhostProfile": profile}),
    );
    let mut security = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": seccomp,
    });
    let mount = |name: &str, read_only: bool| json!({"name": name, "mountPath": format!("/requiem/{name}"), "readOnly": read_only});
    let arguments = [
        "serve --listen 0.0.0.0:9443 --admin-listen 0.0.0.0:9180 --tls-cert /requiem/tls/tls.crt",
        "--tls-key /requiem/tls/tls.key --client-ca /requiem/tls/ca.crt --store /requiem/store --slots 1",
        "--runner-socket /requiem/run/runner.sock --install-runner /requiem/bin/requiem-runner",
    ];
    let arguments: Vec<&str> = arguments.iter().flat_map(|line| line.split(' ')).collect();
    let executor = json!({
        "name": "executor", "image": reference(REGISTRY, "executor"), "imagePullPolicy": "Never",
        "restartPolicy": "Always", "args": arguments, "securityContext": security,
        "lifecycle": {"postStart": {"exec": {"command": [
            "/usr/bin/requiem-executor", "await-serving", "--admin", "127.0.0.1:9180",
        ]}}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9180}, "periodSeconds": 1},
        "volumeMounts": [mount("bin", false), mount("run", false), mount("store", false), mount("tls", true)],
    });
    security["procMount"] = json!(proc_mount);
    let workload = json!({
        "name": "workload", "image": payload::NAME, "imagePullPolicy": "Never", "securityContext": security,
        "command": ["/requiem/bin/requiem-runner", "--socket", "/requiem/run/runner.sock"],
        "resources": {"limits": {"memory": "256Mi"}},
        "volumeMounts": [mount("bin", true), mount("run", false)],
    });
    json!({
        "hostUsers": host_users, "automountServiceAccountToken": false, "enableServiceLinks": false,
        "dnsPolicy": "Default", "securityContext": {"fsGroup": 65532},
        "initContainers": [executor], "containers": [workload],
        "volumes": [
            {"name": "bin", "emptyDir": {}}, {"name": "run", "emptyDir": {}}, {"name": "store", "emptyDir": {}},
            {"name": "tls", "secret": {"secretName": "requiem-executor-tls", "defaultMode": 0o440}},
        ],
    })
}

/// Files for a listener that nobody in this test speaks to.
async fn certificates(bed: &Bed) -> Result<(), Failure> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["executors.requiem.internal".into()])?.self_signed(&key)?;
    let files =
        json!({"tls.crt": certificate.pem(), "ca.crt": certificate.pem(), "tls.key": key.serialize_pem()});
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "requiem-executor-tls"}, "stringData": files}))?;
    Api::namespaced(bed.client.clone(), &bed.namespace).create(&PostParams::default(), &secret).await?;
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// The status of each layer in the probe run, as the executor's figures have it.
fn layers(pod: &Pod) -> Result<BTreeMap<String, String>, Failure> {
    let text = ask(pod, "/metrics")?;
    let quoted = |line: &str, label: &str| {
        Some(line.split_once(&format!("{label}=\""))?.1.split_once('"')?.0.to_owned())
    };
    let rows = text
        .lines()
        .filter(|line| line.starts_with("requiem_executor_layer_status{") && line.ends_with(" 1"));
    Ok(rows.filter_map(|line| Some((quoted(line, "layer")?, quoted(line, "status")?))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tier_enforces_what_it_is_documented_to() -> Result<(), Failure> {
    // Localhost profiles pass baseline; an unmasked /proc does for pods with a user namespace of their own.
    let bed = Bed::new("tiers", "baseline").await?;
    certificates(&bed).await?;
    for tier in &TIERS {
        bed.start(tier.0, pod(tier)).await?;
    }
    for (name, .., short) in TIERS {
        let ready = bed.until(name, is_ready).await?;
        let mut expected: BTreeMap<_, _> =
            Layer::ALL.map(|layer| (layer.name().to_owned(), "enforced".to_owned())).into();
        expected.extend(short.iter().map(|(layer, status)| (layer.name().to_owned(), (*status).to_owned())));
        assert_eq!(layers(&ready)?, expected, "{name}");
    }
    bed.close().await
}
