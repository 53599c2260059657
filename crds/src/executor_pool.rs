//! `ExecutorPool`: the executors that take Executions: at fixed addresses, or as pods that the operator makes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::ByteQuantity;
use crate::rules::{monotonic, valid};
use crate::schema;

/// Longest name of a pool of pods: the names of its pods and of their executors are made from it.
pub const MAX_POD_POOL_NAME: usize = 40;

/// Which executors belong to the pool: those at `endpoints`, or those of `pods`.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "requiem.dev",
    version = "v1alpha1",
    kind = "ExecutorPool",
    namespaced,
    status = "ExecutorPoolStatus",
    shortname = "xpool",
    category = "requiem",
    derive = "PartialEq",
    doc = "ExecutorPool names executors that take Executions, or has the operator run them as pods. An Execution \
           that names no pool goes to the pool called default in its namespace.",
    validation = valid(
        "!has(self.spec.pods) || self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "the name of a pool with spec.pods has at most 40 characters and no dot: pods are named after it"
    ),
    scale(
        spec_replicas_path = ".spec.pods.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.summary",
        description = "Executors that answer, of all"
    ),
    printcolumn(
        name = "Capacity",
        type_ = "integer",
        json_path = ".status.capacity",
        description = "Executions that can run at the same time"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it is ready, or not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "The same in words",
        priority = 1
    )
)]
#[x_kube(validation = valid(
    "!has(self.pods) || !has(self.endpoints) || self.endpoints.size() == 0",
    "endpoints and pods exclude one another: remove one of them"
))]
#[serde(rename_all = "camelCase")]
pub struct ExecutorPoolSpec {
    /// Executors at fixed addresses: on machines of your own, or beside a development control plane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<EndpointSpec>,
    /// Executors as pods in the namespace of the pool, made, replaced and drained by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodsSpec>,
}

/// Executor pods. A change of anything but `replicas` replaces the pods one after the other, each after it
/// was drained.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodsSpec {
    /// Pods that are wanted; `kubectl scale executorpool NAME --replicas=N` changes it.
    #[serde(default = "default_replicas")]
    #[schemars(range(max = 64))]
    pub replicas: u32,
    /// Executions that one pod runs at the same time.
    #[serde(default = "default_slots")]
    #[schemars(range(min = 1, max = 1024))]
    pub slots: u32,
    /// How much of the sandbox the pods make possible, and what they need for it: T1 is everything, T3 needs
    /// nothing of the nodes. See docs/pod-tiers.md.
    #[serde(default)]
    pub tier: Tier,
    /// Image of the executor; what the operator was started with (`--executor-image`) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::image")]
    pub image: Option<String>,
    /// Image in which commands find their programs. Nothing of Requiem need be in it.
    #[schemars(schema_with = "schema::image")]
    pub workload_image: String,
    /// When images are pulled; the rule of Kubernetes (by the tag) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets of this namespace that the kubelet shows to registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<SecretName>,
    /// Resources of the two containers of a pod.
    #[serde(default)]
    pub resources: PodResources,
    /// Where store and journal of an executor lie.
    #[serde(default)]
    pub store: StoreSpec,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::node_labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that do not keep the pods away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<TolerationSpec>,
    /// RuntimeClass of the pods; the node's own runtime if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub runtime_class_name: Option<String>,
    /// PriorityClass of the pods; the cluster's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub priority_class_name: Option<String>,
    /// Seconds that running commands have to end when a pod goes; what has not ended then is run again elsewhere.
    #[serde(default = "default_drain")]
    #[schemars(range(max = 86_400))]
    pub drain_seconds: u32,
    /// Seccomp profile of tiers T1 and T2, as a path below the kubelet's seccomp folder.
    #[serde(default = "default_profile")]
    #[schemars(schema_with = "schema::profile")]
    pub seccomp_profile: String,
}

/// A pod of its own for one Execution, made for it and gone when its result is safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DedicatedPod {
    /// Image in which the command finds its programs. Nothing of Requiem need be in it.
    #[schemars(schema_with = "schema::image")]
    pub image: String,
    /// How much of the sandbox the pod makes possible, and what it needs for it; as in spec.pods of an ExecutorPool.
    #[serde(default)]
    pub tier: Tier,
    /// When images are pulled; the rule of Kubernetes (by the tag) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets of this namespace that the kubelet shows to registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<SecretName>,
    /// Resources of the two containers of the pod.
    #[serde(default)]
    pub resources: PodResources,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::node_labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that do not keep the pod away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<TolerationSpec>,
    /// RuntimeClass of the pod; the node's own runtime if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub runtime_class_name: Option<String>,
    /// PriorityClass of the pod; the cluster's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub priority_class_name: Option<String>,
    /// Seccomp profile of tiers T1 and T2, as a path below the kubelet's seccomp folder.
    #[serde(default = "default_profile")]
    #[schemars(schema_with = "schema::profile")]
    pub seccomp_profile: String,
}

/// What a pod asks of its node, and so how much of the sandbox there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Tier {
    /// A user namespace of the pod's own, an unmasked /proc, the runner's seccomp profile: every layer.
    #[default]
    T1,
    /// A user namespace of the pod's own and the profile: every layer but /proc.
    T2,
    /// A restricted pod: what needs no namespace and no mount.
    T3,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

/// A Secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Name of the Secret.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// Resources of the two containers of an executor pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodResources {
    /// Of the executor: it holds the store and the results. Requests of 50m cpu and 64Mi memory and a limit of
    /// 512Mi memory hold where nothing else is said.
    #[serde(default)]
    pub executor: ContainerResources,
    /// Of the workload, in which commands run. A limit of 1Gi memory holds where no other is given; all commands
    /// that run in the pod at the same time share it.
    #[serde(default)]
    pub workload: ContainerResources,
}

/// Resources of one container, as in a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerResources {
    /// What the scheduler sets aside, by name of the resource: cpu, memory, ephemeral-storage or an extended one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::resource_list")]
    pub requests: BTreeMap<String, ByteQuantity>,
    /// What it may not exceed, by name of the resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::resource_list")]
    pub limits: BTreeMap<String, ByteQuantity>,
}

/// Where store and journal lie: at most one of its fields; an emptyDir if there is none. In the latter two each
/// executor has a folder of its own, named after its pod, and the pod that replaces it finds what was there.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = valid(
    "[has(self.emptyDir), has(self.hostPath), has(self.persistentVolumeClaim)].filter(given, given).size() <= 1",
    "at most one of emptyDir, hostPath and persistentVolumeClaim may be given"
))]
#[serde(rename_all = "camelCase")]
pub struct StoreSpec {
    /// A folder of the node that comes and goes with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirStore>,
    /// A folder of the node that stays. It must exist and be writable for user 65532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPathStore>,
    /// A claim of the same namespace. With several pods on several nodes its volume must be mountable on all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimStore>,
}

/// A folder that comes and goes with the pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirStore {
    /// Bytes that it may hold; the kubelet evicts a pod that exceeds it. Unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<ByteQuantity>,
}

/// A folder of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPathStore {
    /// Its absolute path on the node.
    #[schemars(schema_with = "schema::host_folder")]
    pub path: String,
}

/// A claim of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStore {
    /// Name of the PersistentVolumeClaim.
    #[schemars(schema_with = "schema::object_name")]
    pub claim_name: String,
}

/// A taint that does not keep a pod away, as in a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TolerationSpec {
    /// Key of the taint; every key if absent, with operator Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// Equal (the default) or Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint, with operator Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute; every effect if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a pod stays when the taint appears, with effect NoExecute; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration is compared with a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint is there, with any value.
    Exists,
    /// The taint has the same value.
    Equal,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// Pods that run there go, too.
    NoExecute,
}

/// One executor.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = valid(
    "isURL(self.url) && url(self.url).getScheme() == 'https' && url(self.url).getHost() != '' \
     && url(self.url).getEscapedPath() in ['', '/'] && url(self.url).getQuery().size() == 0",
    "url must be https://HOST:PORT: executors speak mutual TLS only"
))]
#[serde(rename_all = "camelCase")]
pub struct EndpointSpec {
    /// Name of the executor within the pool.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Where it listens: https://HOST:PORT.
    #[schemars(length(min = 1, max = 512))]
    pub url: String,
    /// Name that its certificate must bear; the host of the URL if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// What the executors of the pool answered last.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = monotonic(&["observedGeneration"]))]
#[serde(rename_all = "camelCase")]
pub struct ExecutorPoolStatus {
    /// The metadata.generation that this status speaks of; -1 before the operator has looked.
    #[serde(default = "unobserved")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,
    /// Ready: whether at least one executor takes Executions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// In one line: 2/3, executors that answer of all, or of all that are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub summary: Option<String>,
    /// Executions that can run at the same time on the executors that answer.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub capacity: u32,
    /// Of a pool of pods: pods that are there and not going.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub replicas: Option<u32>,
    /// Of a pool of pods: those of them whose executors answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub ready_replicas: Option<u32>,
    /// Of a pool of pods: the label selector of its pods, as text, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub selector: Option<String>,
    /// Each executor as it answered last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<EndpointStatus>,
}

/// One executor as it answered last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Name of the executor within the pool.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Its pod, if it is one of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub pod: Option<String>,
    /// The node of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Whether it answers and takes Executions.
    #[serde(default)]
    pub ready: bool,
    /// Executions that it runs at the same time.
    #[serde(default)]
    #[schemars(range(max = 100_000))]
    pub slots: u32,
    /// Version of the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Isolation that a probe run on it observed: 17/18 enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sandbox: Option<String>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

impl Default for ExecutorPoolStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            conditions: Vec::new(),
            summary: None,
            capacity: 0,
            replicas: None,
            ready_replicas: None,
            selector: None,
            endpoints: Vec::new(),
        }
    }
}

impl Tier {
    /// Every tier.
    pub const ALL: [Self; 3] = [Self::T1, Self::T2, Self::T3];

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::T3 => "T3",
        }
    }
}

impl DedicatedPod {
    /// The same as a pool of one pod that runs one Execution at a time.
    pub fn as_pods(&self) -> PodsSpec {
        PodsSpec {
            replicas: 1,
            slots: 1,
            tier: self.tier,
            image: None,
            workload_image: self.image.clone(),
            image_pull_policy: self.image_pull_policy,
            image_pull_secrets: self.image_pull_secrets.clone(),
            resources: self.resources.clone(),
            store: StoreSpec::default(),
            node_selector: self.node_selector.clone(),
            tolerations: self.tolerations.clone(),
            runtime_class_name: self.runtime_class_name.clone(),
            priority_class_name: self.priority_class_name.clone(),
            drain_seconds: default_drain(),
            seccomp_profile: self.seccomp_profile.clone(),
        }
    }
}

impl StoreSpec {
    /// Whether what is stored outlives the pod.
    pub const fn persists(&self) -> bool {
        self.host_path.is_some() || self.persistent_volume_claim.is_some()
    }
}

const fn unobserved() -> i64 {
    -1
}

const fn default_replicas() -> u32 {
    1
}

const fn default_slots() -> u32 {
    2
}

const fn default_drain() -> u32 {
    25
}

fn default_profile() -> String {
    "requiem/runner.json".to_owned()
}
