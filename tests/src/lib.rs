//! What the suites with a real API server share: a namespace of their own, operator and executor as real
//! processes, and waiting by watch.
//!
//! `cargo xtask test` sets the two variables below. A suite fails without them: it never skips.

pub mod figures;
pub mod helm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt};
use requiem_crds::{Execution, ExecutorPool, ProofBundle};
use requiem_xtask::stack::{Options, Stack};
use serde_json::json;

/// Kubeconfig of the cluster that the suites may use.
pub const KUBECONFIG: &str = "REQUIEM_TEST_KUBECONFIG";
/// Folder of the programs under test.
pub const PROGRAMS: &str = "REQUIEM_TEST_PROGRAMS";
/// How long a test waits for something that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What every helper may fail with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A namespace with a default pool, reconciled by an operator of its own.
#[derive(Debug)]
pub struct Bed {
    /// Operator and executor.
    pub stack: Stack,
    /// The namespace.
    pub namespace: String,
    /// Its Executions.
    pub executions: Api<Execution>,
    /// Its ProofBundles.
    pub bundles: Api<ProofBundle>,
    /// Its pools.
    pub pools: Api<ExecutorPool>,
}

/// The value of a variable that `cargo xtask test` sets.
///
/// # Errors
/// It is not set; the message says what to run.
pub fn setting(name: &str) -> Result<PathBuf, Failure> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{name} is not set: run this suite with `cargo xtask test`").into())
}

/// A client of the test cluster.
///
/// # Errors
/// The kubeconfig cannot be used.
pub async fn client() -> Result<Client, Failure> {
    let kubeconfig = Kubeconfig::read_from(setting(KUBECONFIG)?)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

impl Bed {
    /// A fresh namespace with everything ready. `change` may alter how the services are started, given the folder
    /// that will hold the store.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(purpose: &str, change: impl FnOnce(&mut Options)) -> Result<Self, Failure> {
        let client = client().await?;
        let namespace = format!("{purpose}-{}", std::process::id());
        let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        let mut options = Options {
            kubeconfig: setting(KUBECONFIG)?,
            programs: setting(PROGRAMS)?,
            namespace: Some(namespace.clone()),
            slots: 2,
            executor_wrapper: Vec::new(),
            operator_arguments: Vec::new(),
        };
        change(&mut options);
        let stack = tokio::task::spawn_blocking(move || Stack::start(&options)).await??;
        let pools = Api::namespaced(client.clone(), &namespace);
        let pool: ExecutorPool = serde_json::from_str(&stack.pool(&namespace))?;
        pools.create(&PostParams::default(), &pool).await?;
        Ok(Self {
            stack,
            executions: Api::namespaced(client.clone(), &namespace),
            bundles: Api::namespaced(client, &namespace),
            pools,
            namespace,
        })
    }

    /// Creates an Execution from its spec.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create(&self, name: &str, spec: serde_json::Value) -> Result<Execution, Failure> {
        let object = serde_json::from_value(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution", "metadata": {"name": name}, "spec": spec,
        }))?;
        Ok(self.executions.create(&PostParams::default(), &object).await?)
    }

    /// Waits until every one of `names` is terminal, and returns them as they were first seen so.
    ///
    /// # Errors
    /// Not within `limit`; the message names who is missing and what they say.
    pub async fn terminal(
        &self,
        names: &[String],
        limit: Duration,
    ) -> Result<BTreeMap<String, Execution>, Failure> {
        let mut done = BTreeMap::new();
        let waiting = self.collect_terminal(names, &mut done);
        if tokio::time::timeout(limit, waiting).await.is_err() {
            let mut message = format!("{} of {} are terminal after {limit:?};", done.len(), names.len());
            for name in names.iter().filter(|name| !done.contains_key(*name)).take(5) {
                let status = self.executions.get(name).await?.status;
                message.push_str(&format!("\n{name}: {}", serde_json::to_string(&status)?));
            }
            let log = |service: &requiem_xtask::stack::Service| {
                let text = std::fs::read_to_string(service.log()).unwrap_or_default();
                text.lines()
                    .rev()
                    .take(20)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            message.push_str(&format!("\n--- operator\n{}", log(&self.stack.operator)));
            message.push_str(&format!("\n--- executor\n{}", log(&self.stack.executor)));
            return Err(message.into());
        }
        Ok(done)
    }

    async fn collect_terminal(
        &self,
        names: &[String],
        done: &mut BTreeMap<String, Execution>,
    ) -> Result<(), Failure> {
        let terminal = |object: &Execution| object.status.as_ref().is_some_and(|status| status.terminal);
        let wanted = |object: &Execution| names.contains(&object.name_any()) && terminal(object);
        loop {
            let listed = self.executions.list(&Default::default()).await?;
            for object in listed.items.into_iter().filter(&wanted) {
                done.entry(object.name_any()).or_insert(object);
            }
            let version = listed.metadata.resource_version.unwrap_or_default();
            let mut events =
                self.executions.watch(&WatchParams::default().timeout(60), &version).await?.boxed();
            while done.len() < names.len() {
                match events.try_next().await {
                    Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) if wanted(&object) => {
                        done.entry(object.name_any()).or_insert(object);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            if done.len() >= names.len() {
                return Ok(());
            }
        }
    }

    /// Creates one Execution and waits for its end.
    ///
    /// # Errors
    /// The API server refuses, or it does not end.
    pub async fn run(&self, name: &str, spec: serde_json::Value) -> Result<Execution, Failure> {
        self.create(name, spec).await?;
        let mut done = self.terminal(&[name.to_owned()], PATIENCE).await?;
        done.remove(name).ok_or_else(|| "it ended and is gone".into())
    }
}

/// Ids of processes whose command line holds `marker`, this one excepted.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let own = std::process::id();
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| *id != own)
        .filter(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(marker)
        })
        .collect()
}
