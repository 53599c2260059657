//! A namespace with an operator of its own, as a process with the rights of `config/rbac` and no other; pools and Executions in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use requiem_crds::{Execution, ExecutorPool, ProofBundle, definition};
use requiem_tests::{Failure, KUBECONFIG, PROGRAMS, setting};
use requiem_xtask::images::{REGISTRY, payload, reference};
use requiem_xtask::ports;
use requiem_xtask::stack::http_get;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::bed::{Bed, PATIENCE};

pub(crate) const OWN_NAMESPACE: &str = "requiem-system";
const ACCOUNT: &str = "requiem-operator";

/// What is installed in the cluster once for all tests.
static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// A namespace, and an operator that watches it.
pub(crate) struct Site {
    pub(crate) bed: Bed,
    pub(crate) executions: Api<Execution>,
    pub(crate) pools: Api<ExecutorPool>,
    pub(crate) bundles: Api<ProofBundle>,
    operator: Operator,
}

/// The process. Dropped, it is killed.
struct Operator {
    child: Child,
    log: PathBuf,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself; that is told elsewhere.
        let _ended = self.child.kill();
        let _collected = self.child.wait();
    }
}

impl Site {
    /// A fresh one. Pods must pass `level` of pod security.
    pub(crate) async fn start(purpose: &str, level: &str) -> Result<Self, Failure> {
        Self::on(Bed::new(purpose, level).await?).await
    }

    /// As [`Site::start`], for a test that disturbs nodes.
    pub(crate) async fn alone(purpose: &str, level: &str) -> Result<Self, Failure> {
        Self::on(Bed::alone(purpose, level).await?).await
    }

    /// As [`Site::start`], with an operator whose account may do nothing with pods.
    pub(crate) async fn blind(purpose: &str, level: &str) -> Result<Self, Failure> {
        let bed = Bed::new(purpose, level).await?;
        INSTALLED.get_or_try_init(|| install(bed.client.clone())).await?;
        let kinds = ["executions", "executorpools", "proofbundles"];
        let statuses = kinds.map(|kind| format!("{kind}/status"));
        let rules = json!([
            {"apiGroups": ["requiem.dev"], "resources": kinds, "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["requiem.dev"], "resources": ["executionpolicies"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["requiem.dev"], "resources": statuses, "verbs": ["update"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["requiem-executor-tls"], "verbs": ["create", "patch"]},
        ]);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "blind"}});
        make(&bed.client, &bed.namespace, account).await?;
        grant(&bed, &bed.namespace, "some", rules).await?;
        let own = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["requiem-ca"], "verbs": ["get", "create", "patch"]}]);
        grant(&bed, OWN_NAMESPACE, &bed.namespace, own).await?;
        let operator = Operator::start(&bed.client, &bed.namespace, &bed.namespace, "blind").await?;
        Self::with(bed, operator)
    }

    async fn on(bed: Bed) -> Result<Self, Failure> {
        INSTALLED.get_or_try_init(|| install(bed.client.clone())).await?;
        let operator = Operator::start(&bed.client, &bed.namespace, OWN_NAMESPACE, ACCOUNT).await?;
        Self::with(bed, operator)
    }

    fn with(bed: Bed, operator: Operator) -> Result<Self, Failure> {
        let client = bed.client.clone();
        Ok(Self {
            executions: Api::namespaced(client.clone(), &bed.namespace),
            pools: Api::namespaced(client.clone(), &bed.namespace),
            bundles: Api::namespaced(client, &bed.namespace),
            bed,
            operator,
        })
    }

    /// Creates the pool `name` with the images of the nodes; `change` adds to its `spec.pods`.
    pub(crate) async fn pool(&self, name: &str, change: Value) -> Result<(), Failure> {
        let mut pods = json!({
            "workloadImage": payload::NAME, "imagePullPolicy": "Never", "tier": "T3", "slots": 1,
            "resources": {"workload": {"limits": {"memory": "512Mi"}}},
        });
        merge(&mut pods, change);
        let object = serde_json::from_value(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": {"name": name},
            "spec": {"pods": pods},
        }))?;
        self.pools.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Changes `spec.pods` of the pool `name`.
    pub(crate) async fn change(&self, name: &str, pods: Value) -> Result<(), Failure> {
        let patch = json!({"spec": {"pods": pods}});
        self.pools.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Waits until `is` holds for the pool `name`.
    pub(crate) async fn until(
        &self,
        name: &str,
        is: impl Fn(&ExecutorPool) -> bool,
    ) -> Result<ExecutorPool, Failure> {
        let found = until(&self.pools, name, is).await;
        found.map_err(|error| self.explained(error))
    }

    /// Waits until the pool `name` is as its spec wants it, with `ready` executors.
    pub(crate) async fn settled(&self, name: &str, ready: u32) -> Result<ExecutorPool, Failure> {
        let settled = |pool: &ExecutorPool| {
            let now = pool.status.as_ref().map(|status| status.observed_generation);
            let replicas = pool.status.as_ref().and_then(|status| status.ready_replicas);
            now == pool.metadata.generation
                && replicas == Some(ready)
                && reason(pool, "Ready") == "ExecutorsReady"
                && reason(pool, "Reconciling").is_empty()
        };
        self.until(name, settled).await
    }

    /// Waits until the pool `name` says `word` about its state, and returns the whole sentence.
    pub(crate) async fn says(&self, name: &str, word: &str) -> Result<String, Failure> {
        let pool = self.until(name, |pool| reason(pool, "Ready") == word).await?;
        let conditions = pool.status.map(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|one| one.type_ == "Ready");
        Ok(ready.map(|one| one.message).unwrap_or_default())
    }

    /// Creates an Execution of a shell script.
    pub(crate) async fn execute(&self, name: &str, script: &str, more: Value) -> Result<(), Failure> {
        let mut spec = json!({"command": ["/bin/bash", "-c", script], "limits": {"memory": "128Mi"}});
        merge(&mut spec, more);
        let object = serde_json::from_value(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution", "metadata": {"name": name}, "spec": spec,
        }))?;
        self.executions.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Waits until `is` holds for the Execution `name`.
    pub(crate) async fn watch(
        &self,
        name: &str,
        is: impl Fn(&Execution) -> bool,
    ) -> Result<Execution, Failure> {
        let found = until(&self.executions, name, is).await;
        found.map_err(|error| self.explained(error))
    }

    /// Waits for the end of the Execution `name`, which must be a success.
    pub(crate) async fn success(&self, name: &str) -> Result<Execution, Failure> {
        let object = self.watch(name, is_over).await?;
        let status = object.status.as_ref().ok_or("no status")?;
        if status.exit_code != Some(0) {
            return Err(self.explained(format!("{name}: {}", json!(status)).into()));
        }
        Ok(object)
    }

    /// SIGKILL to the operator; another one takes its place.
    pub(crate) async fn replace_operator(&mut self) -> Result<(), Failure> {
        self.kill_operator()?;
        self.start_operator().await
    }

    /// SIGKILL to the operator.
    pub(crate) fn kill_operator(&mut self) -> Result<(), Failure> {
        self.operator.child.kill()?;
        self.operator.child.wait()?;
        Ok(())
    }

    /// What the operator has logged.
    pub(crate) fn operator_log(&self) -> Result<String, Failure> {
        Ok(std::fs::read_to_string(&self.operator.log)?)
    }

    /// The operator's figures.
    pub(crate) fn operator_figures(&self) -> Result<String, Failure> {
        Ok(http_get(self.operator.admin, "/metrics")?)
    }

    /// Another operator takes the place of one that was killed.
    pub(crate) async fn start_operator(&mut self) -> Result<(), Failure> {
        let (client, namespace) = (self.bed.client.clone(), self.bed.namespace.clone());
        self.operator = Operator::start(&client, &namespace, OWN_NAMESPACE, ACCOUNT).await?;
        Ok(())
    }

    /// Deletes everything.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        // Pools first: an operator that lives would replace their pods.
        self.pools.delete_collection(&DeleteParams::default(), &Default::default()).await?;
        drop(self.operator);
        self.bed.close().await
    }

    fn explained(&self, error: Failure) -> Failure {
        let log = std::fs::read_to_string(&self.operator.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{error}\n--- operator\n{last}").into()
    }
}

impl Operator {
    async fn start(client: &Client, namespace: &str, home: &str, account: &str) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        write_kubeconfig(client, home, account, &kubeconfig).await?;
        let log = folder.path().join("log");
        let admin = ports::loopback()?;
        let file = Arc::new(File::create(&log)?);
        let child = Command::new(setting(PROGRAMS)?.join("requiem-operator"))
            .args(["--namespace", namespace, "--own-namespace", OWN_NAMESPACE])
            .args([
                "--executor-image",
                &reference(REGISTRY, "executor"),
                "--admin-listen",
                &admin.to_string(),
            ])
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.try_clone()?)
            .spawn()?;
        Ok(Self { child, log, admin, _folder: folder })
    }
}

/// A kubeconfig with a service account of the namespace `home`: its rights are what is tested, too.
async fn write_kubeconfig(client: &Client, home: &str, account: &str, path: &Path) -> Result<(), Failure> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), home);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    let token = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = token.status.ok_or("no token")?.token;
    let text = std::fs::read_to_string(setting(KUBECONFIG)?)?;
    let mut config: Value = serde_norway::from_str(&text)?;
    for user in config["users"].as_array_mut().into_iter().flatten() {
        user["user"] = json!({"token": token});
    }
    requiem_xtask::pki::write_private(path, &config.to_string())?;
    Ok(())
}

/// Definitions and rights, as `kubectl apply -k config` would install them.
async fn install(client: Client) -> Result<(), Failure> {
    let apply = PatchParams::apply("requiem-tests").force();
    let folder = requiem_xtask::paths::repository().join("config/rbac");
    let mut documents: Vec<Value> = Vec::new();
    for file in ["namespace.yaml", "operator.yaml"] {
        let text = std::fs::read_to_string(folder.join(file))?;
        for document in serde_norway::Deserializer::from_str(&text) {
            documents.push(serde::Deserialize::deserialize(document)?);
        }
    }
    for definition in definition::all() {
        documents.push(serde_json::to_value(definition)?);
    }
    for document in documents {
        let object: DynamicObject = serde_json::from_value(document)?;
        let types = object.types.clone().unwrap_or_default();
        let resource = resource(&types)?;
        let namespaced = object.namespace();
        let api: Api<DynamicObject> = match &namespaced {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.patch(&object.name_any(), &apply, &Patch::Apply(&object)).await?;
    }
    let definitions = Api::all(client);
    for definition in definition::all() {
        let (name, established) =
            (definition.name_any(), kube::runtime::wait::conditions::is_crd_established());
        let waiting = kube::runtime::wait::await_condition(definitions.clone(), &name, established);
        tokio::time::timeout(PATIENCE, waiting).await??;
    }
    Ok(())
}

/// Gives the account `blind` of the bed's namespace these rights in `namespace`.
pub(crate) async fn grant(bed: &Bed, namespace: &str, name: &str, rules: Value) -> Result<(), Failure> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let version = format!("{GROUP}/v1");
    let metadata = json!({"name": name});
    let role = json!({"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules});
    make(&bed.client, namespace, role).await?;
    let binding = json!({
        "apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "blind", "namespace": bed.namespace}],
    });
    make(&bed.client, namespace, binding).await
}

async fn make(client: &Client, namespace: &str, document: Value) -> Result<(), Failure> {
    let object: DynamicObject = serde_json::from_value(document)?;
    let resource = resource(&object.types.clone().unwrap_or_default())?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

fn resource(types: &TypeMeta) -> Result<ApiResource, Failure> {
    Ok(ApiResource::from_gvk(&GroupVersionKind::try_from(types)?))
}

/// Waits until `is` holds for the object `name`; says what was last seen of it when it does not.
pub(crate) async fn until<K>(api: &Api<K>, name: &str, is: impl Fn(&K) -> bool) -> Result<K, Failure>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Send
        + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut seen = watcher(api.clone(), config).default_backoff().applied_objects().boxed();
    let mut last = None;
    let waiting = async {
        while let Some(object) = seen.try_next().await? {
            if is(&object) {
                return Ok::<_, Failure>(object);
            }
            last = Some(object);
        }
        Err("the watch ended".into())
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => Err(format!("{name} is not there after {PATIENCE:?}: {}", json!(last)["status"]).into()),
    }
}

/// Why the condition `kind` of a pool holds, or does not; empty where there is none.
pub(crate) fn reason<'a>(pool: &'a ExecutorPool, kind: &str) -> &'a str {
    let status = pool.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().find(|one| one.type_ == kind).map_or("", |one| one.reason.as_str())
}

/// What an Execution says of its state.
pub(crate) fn message(execution: &Execution) -> String {
    ready_of(execution).map(|one| one.message.clone()).unwrap_or_default()
}

/// The word for an Execution's state; empty before it has one.
pub(crate) fn reason_of(execution: &Execution) -> &str {
    ready_of(execution).map_or("", |one| one.reason.as_str())
}

fn ready_of(execution: &Execution) -> Option<&Condition> {
    let conditions = execution.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().find(|one| one.type_ == "Ready")
}

pub(crate) fn is_over(execution: &Execution) -> bool {
    execution.status.as_ref().is_some_and(|status| status.terminal)
}

/// The answer of the executor in `pod` to a GET of `path` at its admin address.
pub(crate) fn ask(pod: &Pod, path: &str) -> Result<String, Failure> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).ok_or("it has no address")?;
    Ok(http_get((address.parse::<IpAddr>()?, 9180).into(), path)?)
}

/// How often an Execution was handed out.
pub(crate) fn attempts(execution: &Execution) -> u32 {
    execution.status.as_ref().map_or(0, |status| status.attempts)
}

/// The end of what its command wrote.
pub(crate) fn tail(execution: &Execution) -> String {
    let stdout = execution.status.as_ref().and_then(|status| status.stdout.as_ref());
    stdout.map(|stream| stream.tail.clone()).unwrap_or_default()
}

/// The policy of `config/profiles/policy` for a tier.
pub(crate) fn policy(tier: &str) -> Result<Value, Failure> {
    let path = requiem_xtask::paths::repository().join(format!("config/profiles/policy/{tier}.json"));
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Sets a label of a namespace.
pub(crate) async fn label(client: &Client, namespace: &str, key: &str, value: &str) -> Result<(), Failure> {
    let labels: BTreeMap<&str, &str> = BTreeMap::from([(key, value)]);
    let patch = json!({"metadata": {"labels": labels}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Puts the fields of `more` into `into`.
fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}
