//! `ExecutorPool`: the executors that take Executions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{monotonic, valid};
use crate::schema;

/// Which executors belong to the pool.
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
    doc = "ExecutorPool names executors that take Executions. An Execution that names no pool goes to the pool \
           called default in its namespace.",
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
#[serde(rename_all = "camelCase")]
pub struct ExecutorPoolSpec {
    /// Executors at fixed addresses: on machines of your own, or beside a development control plane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<EndpointSpec>,
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
    /// In one line: 2/3, executors that answer of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub summary: Option<String>,
    /// Executions that can run at the same time on the executors that answer.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub capacity: u32,
    /// Each executor as it answered last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<EndpointStatus>,
}

/// One executor as it answered last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Name of the executor within the pool.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
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
            endpoints: Vec::new(),
        }
    }
}

const fn unobserved() -> i64 {
    -1
}
