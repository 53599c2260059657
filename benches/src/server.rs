//! An API server with our kinds, as the benchmarks use it: objects, the moments at which they end, and the writes that it counts.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, DynamicObject, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config, config::Kubeconfig};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::Failure;

/// Longest wait for the next end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Our kinds in one namespace.
#[derive(Clone)]
pub struct Server {
    /// For everything else.
    pub client: Client,
    /// Executions.
    pub executions: Api<DynamicObject>,
    /// ProofBundles.
    pub bundles: Api<DynamicObject>,
    /// ExecutorPools.
    pub pools: Api<DynamicObject>,
}

impl Server {
    /// With the user and the address of `kubeconfig`.
    ///
    /// # Errors
    /// The file is none, or says nothing that a client could be made of.
    pub async fn connect(kubeconfig: &Path, namespace: &str) -> Result<Self, Failure> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let client = Client::try_from(config)?;
        let api = |kind: &str| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("requiem.dev", "v1alpha1", kind));
            Api::namespaced_with(client.clone(), namespace, &resource)
        };
        Ok(Self {
            executions: api("Execution"),
            bundles: api("ProofBundle"),
            pools: api("ExecutorPool"),
            client,
        })
    }

    /// Writes that the API server has served for our kinds, by anybody, and Events in the group in which the operator writes them. The kubelet
    /// writes its own, about pods that still go, in the core group.
    ///
    /// # Errors
    /// It does not tell.
    pub async fn writes(&self) -> Result<f64, Failure> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = self.client.request_text(request).await?;
        let counted = |line: &&str| {
            let write = ["POST", "PUT", "PATCH", "APPLY"]
                .iter()
                .any(|verb| line.contains(&format!("verb=\"{verb}\"")));
            let ours = line.contains("group=\"requiem.dev\"") || line.contains("group=\"events.k8s.io\"");
            line.starts_with("apiserver_request_total{") && write && ours
        };
        Ok(text.lines().filter(counted).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

/// An Execution of `/bin/true`, with what `spec` adds.
///
/// # Errors
/// Never for a `spec` that is an object.
pub fn execution(name: &str, spec: Value) -> Result<DynamicObject, Failure> {
    let mut object = json!({
        "apiVersion": "requiem.dev/v1alpha1",
        "kind": "Execution",
        "metadata": {"name": name},
        "spec": {"command": ["/bin/true"], "nonce": name},
    });
    if let (Some(into), Value::Object(spec)) = (object["spec"].as_object_mut(), spec) {
        into.extend(spec);
    }
    Ok(serde_json::from_value(object)?)
}

/// `spec.proof` with this `publish`.
pub fn published(publish: &str) -> Value {
    json!({"proof": {"publish": publish}})
}

/// Executions per second: `count` of them, created by `clients` at once, until the last one is terminal.
///
/// # Errors
/// One is refused, or does not end in time.
pub async fn sustained(
    server: &Server,
    ends: &mut Ends,
    name: &str,
    spec: &Value,
    count: usize,
    clients: usize,
) -> Result<f64, Failure> {
    let begin = Instant::now();
    let create = |index| async move {
        let object = execution(&format!("{name}-{index}"), spec.clone())?;
        server.executions.create(&PostParams::default(), &object).await?;
        Ok::<_, Failure>(())
    };
    let creating =
        stream::iter(0..count).map(create).buffer_unordered(clients).try_for_each(|()| async { Ok(()) });
    let prefix = format!("{name}-");
    let ((), last) = tokio::try_join!(creating, ends.all(&prefix, count))?;
    Ok(count as f64 / (last - begin).as_secs_f64())
}

/// Names of objects as they end, with the moment at which this process saw it.
pub struct Ends {
    seen: mpsc::UnboundedReceiver<(String, Instant)>,
}

impl Ends {
    /// Of Executions: a terminal status.
    ///
    /// # Errors
    /// See [`Ends::watch`].
    pub async fn of_executions(server: &Server) -> Result<Self, Failure> {
        let terminal = |object: &DynamicObject| object.data["status"]["terminal"] == json!(true);
        Self::watch(server.executions.clone(), terminal).await
    }

    /// Of the objects of `api` that are made or changed from now on: when `ended` first holds.
    ///
    /// # Errors
    /// They cannot be listed.
    pub async fn watch(
        api: Api<DynamicObject>,
        ended: impl Fn(&DynamicObject) -> bool + Send + 'static,
    ) -> Result<Self, Failure> {
        let (send, seen) = mpsc::unbounded_channel();
        let mut version = api.list(&Default::default()).await?.metadata.resource_version.unwrap_or_default();
        tokio::spawn(async move {
            let mut known = HashSet::new();
            loop {
                let Ok(events) = api.watch(&WatchParams::default().timeout(290), &version).await else {
                    continue;
                };
                let mut events = events.boxed();
                while let Ok(Some(event)) = events.try_next().await {
                    let now = Instant::now();
                    if let WatchEvent::Modified(object) | WatchEvent::Added(object) = event {
                        version = object.metadata.resource_version.clone().unwrap_or(version);
                        let name = object.metadata.name.clone().unwrap_or_default();
                        if ended(&object) && known.insert(name.clone()) && send.send((name, now)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Self { seen })
    }

    /// The next one.
    ///
    /// # Errors
    /// None comes in time.
    pub async fn next(&mut self) -> Result<(String, Instant), Failure> {
        tokio::time::timeout(PATIENCE, self.seen.recv()).await?.ok_or_else(|| "the watch ended".into())
    }

    /// Waits for the end of `name`; ends of others are forgotten.
    ///
    /// # Errors
    /// See [`Ends::next`].
    pub async fn of(&mut self, name: &str) -> Result<Instant, Failure> {
        loop {
            let (done, at) = self.next().await?;
            if done == name {
                return Ok(at);
            }
        }
    }

    /// Waits for the ends of `count` objects whose names begin with `prefix`; ends of others are forgotten.
    ///
    /// # Errors
    /// See [`Ends::next`].
    pub async fn all(&mut self, prefix: &str, count: usize) -> Result<Instant, Failure> {
        let mut last = Instant::now();
        let mut left = count;
        while left > 0 {
            let (name, at) = self.next().await?;
            if name.starts_with(prefix) {
                (last, left) = (at, left - 1);
            }
        }
        Ok(last)
    }

    /// Forgets those that are over.
    pub fn drain(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }
}
