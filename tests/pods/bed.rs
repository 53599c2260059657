//! What the tests of this suite share: the cluster that `cargo xtask test` has started, namespaces in it, pods and what they say.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use requiem_tests::{Failure, client, setting};
use requiem_xtask::cluster::{self, Name, Node};
use requiem_xtask::suites::CLUSTER_VARIABLE;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a test waits for a pod.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Tests run side by side, but one that disturbs a node runs alone.
static NODES: RwLock<()> = RwLock::const_new(());

/// Held while a test uses the nodes.
enum Claim {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A namespace of the shared cluster.
pub(crate) struct Bed {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) pods: Api<Pod>,
    _claim: Claim,
}

/// The nodes of the shared cluster.
pub(crate) fn nodes() -> Result<Vec<Node>, Failure> {
    let name = setting(CLUSTER_VARIABLE)?;
    let name = name.to_str().ok_or("the cluster's name is not text")?;
    Ok(cluster::nodes(&Name::parse(name)?)?)
}

impl Bed {
    /// A fresh namespace, in which pods must pass `level` of pod security.
    pub(crate) async fn new(purpose: &str, level: &str) -> Result<Self, Failure> {
        Self::make(purpose, level, Claim::Shared { _guard: NODES.read().await }).await
    }

    /// As [`Bed::new`], for a test that disturbs nodes.
    pub(crate) async fn alone(purpose: &str, level: &str) -> Result<Self, Failure> {
        Self::make(purpose, level, Claim::Alone { _guard: NODES.write().await }).await
    }

    async fn make(purpose: &str, level: &str, claim: Claim) -> Result<Self, Failure> {
        let client = client().await?;
        let namespace = format!("{purpose}-{}", std::process::id());
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        let object: Namespace =
            serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        let pods = Api::namespaced(client.clone(), &namespace);
        let bed = Self { client, namespace, pods, _claim: claim };
        bed.wait_for_account().await?;
        Ok(bed)
    }

    /// Pods are refused until the namespace has its service account, which a controller makes a moment later.
    async fn wait_for_account(&self) -> Result<(), Failure> {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let there =
            kube::runtime::wait::await_condition(accounts, "default", |found: Option<&_>| found.is_some());
        tokio::time::timeout(PATIENCE, there).await.map_err(|_| "no service account was made")??;
        Ok(())
    }

    /// Creates the pod `name` with `spec`, in which `nodeName` and the like may stand.
    pub(crate) async fn start(&self, name: &str, spec: Value) -> Result<Pod, Failure> {
        let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        Ok(self.pods.create(&PostParams::default(), &object).await?)
    }

    /// Waits until `is` holds for the pod `name`, and returns it as it was then.
    pub(crate) async fn until(&self, name: &str, is: impl Fn(&Pod) -> bool) -> Result<Pod, Failure> {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut seen = watcher(self.pods.clone(), config).default_backoff().applied_objects().boxed();
        let mut last = None;
        let waiting = async {
            while let Some(pod) = seen.try_next().await? {
                if is(&pod) {
                    return Ok::<_, Failure>(pod);
                }
                last = pod.status;
            }
            Err("the watch ended".into())
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => Err(format!("pod {name} is not there after {PATIENCE:?}: {}", json!(last)).into()),
        }
    }

    /// Runs a pod to its end and returns what its first container said. That it failed is an error.
    pub(crate) async fn run(&self, name: &str, spec: Value) -> Result<String, Failure> {
        self.start(name, spec).await?;
        let pod = self.until(name, |pod| matches!(phase(pod), "Succeeded" | "Failed")).await?;
        let said = self.pods.logs(name, &LogParams::default()).await?;
        if phase(&pod) == "Succeeded" { Ok(said) } else { Err(format!("pod {name} failed:\n{said}").into()) }
    }

    /// Deletes everything in the namespace and waits until its pods are gone.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        for pod in self.pods.list(&ListParams::default()).await?.items {
            self.gone(&pod).await?;
        }
        Ok(())
    }

    /// Waits until `pod` is gone.
    pub(crate) async fn gone(&self, pod: &Pod) -> Result<(), Failure> {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let gone = kube::runtime::wait::conditions::is_deleted(&uid);
        let waiting = kube::runtime::wait::await_condition(self.pods.clone(), &name, gone);
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| format!("pod {name} does not go"))??;
        Ok(())
    }
}

/// The phase of a pod, empty before it has one.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// A container of `image` that passes the restricted level.
pub(crate) fn restricted(image: &str, command: &[&str]) -> Value {
    json!({
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// A pod of one container that runs once.
pub(crate) fn once(container: &Value) -> Value {
    json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    })
}
