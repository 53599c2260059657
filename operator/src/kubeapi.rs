//! Writes to the API server: one place for deadline, field manager, counting, and what a refusal means.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{
    DeleteParams, ListParams, ObjectMeta, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::metrics::Metrics;
use crate::queue::Key;

/// Field manager of everything the operator writes. Not `kubectl*`: Flux reverts those.
pub const FIELD_MANAGER: &str = "requiem-operator";
const DEADLINE: Duration = Duration::from_secs(15);

/// Which state of the API server a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever its cache has, which may lag behind.
    Cached,
    /// Everything that was written before the list was asked for.
    Latest,
}

/// Why a write, or a live read, did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The object is not there any more.
    #[error("{kind} {key} does not exist any more")]
    Gone {
        /// Kind of the object.
        kind: String,
        /// The object.
        key: Key,
    },
    /// The object changed since it was read, or a rule of the API server fenced the write: somebody else was
    /// faster.
    #[error("{verb} of {kind} {key} was fenced: {message}")]
    Fenced {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The object.
        key: Key,
        /// What the server says.
        message: String,
    },
    /// An object of this name exists.
    #[error("{kind} {key} exists already")]
    Exists {
        /// Kind of the object.
        kind: String,
        /// The object.
        key: Key,
    },
    /// The server refused for another reason: no permission, a quota, too many requests.
    #[error("{verb} of {kind} {key} was refused ({code} {reason}): {message}")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The object.
        key: Key,
        /// HTTP status.
        code: u16,
        /// Reason of the server.
        reason: String,
        /// What the server says.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer.
    #[error("{verb} of {kind} {key} got no answer: {why}")]
    NoAnswer {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The object.
        key: Key,
        /// Why.
        why: String,
    },
}

/// Writes and live reads. Clones share the connection pool.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    metrics: Metrics,
}

/// What every call here is about.
struct Act<'a> {
    verb: &'static str,
    kind: String,
    key: &'a Key,
}

impl ApiError {
    /// Every code.
    pub const CODES: [&'static str; 5] = ["Gone", "Fenced", "Exists", "Refused", "NoAnswer"];

    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Gone { .. } => "Gone",
            Self::Fenced { .. } => "Fenced",
            Self::Exists { .. } => "Exists",
            Self::Refused { .. } => "Refused",
            Self::NoAnswer { .. } => "NoAnswer",
        }
    }

    /// When the server wants to be asked again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Writer {
    /// A writer over `client`.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// Replaces the status of the object that `meta` names, if UID and resourceVersion are still its own.
    ///
    /// The body is metadata and status alone: of a write to `/status` the server takes nothing else. A replacement
    /// costs the server about a millisecond less than a merge patch, which it must apply first.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn replace_status<K: Kind>(
        &self,
        meta: &ObjectMeta,
        status: &impl Serialize,
    ) -> Result<K, ApiError> {
        let key = Key {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        };
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {
                "namespace": key.namespace,
                "name": key.name,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            },
            "status": status,
        });
        let act = Act::on::<K>("update", &key);
        let path = K::url_path(&(), Some(&key.namespace));
        let request =
            Request::new(path).replace_subresource("status", &key.name, &writing(), body.to_string().into());
        match request {
            Ok(request) => self.counted(act, self.client.request(request)).await,
            Err(error) => Err(no_answer(&act, error.to_string())),
        }
    }

    /// Creates `object`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        let key = Key::of(object);
        let api = self.api::<K>(&key);
        self.counted(Act::on::<K>("create", &key), api.create(&writing(), object)).await
    }

    /// Applies `object` server-side in the name of `manager`; with `force`, also over fields of somebody else.
    ///
    /// # Errors
    /// See [`ApiError`]; `Fenced` where somebody else has a field and it is not forced.
    pub async fn apply<K: Kind>(&self, object: &K, manager: &str, force: bool) -> Result<K, ApiError> {
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        let key = Key::of(object);
        let api = self.api::<K>(&key);
        let apply = Patch::Apply(object);
        self.counted(Act::on::<K>("apply", &key), api.patch(&key.name, &params, &apply)).await
    }

    /// Has the object deleted with the grace that it names itself, if it is still the one with this UID and, where one is
    /// given, of this version.
    ///
    /// # Errors
    /// See [`ApiError`]; `Gone` or `Fenced` when it is not there any more.
    pub async fn delete<K: Kind>(&self, key: &Key, uid: &str, version: Option<&str>) -> Result<(), ApiError> {
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: version.map(str::to_owned) };
        let params = DeleteParams::background().preconditions(same);
        let api = self.api::<K>(key);
        self.counted(Act::on::<K>("delete", key), api.delete(&key.name, &params)).await.map(drop)
    }

    /// Reads the object as it is now, past every cache.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get<K: Kind>(&self, key: &Key) -> Result<K, ApiError> {
        let api = self.api::<K>(key);
        within(&Act::on::<K>("get", key), api.get(&key.name)).await
    }

    /// The metadata of objects that `selected` selects, past every cache of ours.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn list_metadata<K: Kind>(
        &self,
        namespace: &str,
        selected: ListParams,
        freshness: Freshness,
    ) -> Result<Vec<PartialObjectMeta<K>>, ApiError> {
        let key = Key { namespace: namespace.to_owned(), name: String::new() };
        let api = self.api::<K>(&key);
        let params = match freshness {
            Freshness::Cached => selected.match_any(),
            Freshness::Latest => selected,
        };
        let found = within(&Act::on::<K>("list", &key), api.list_metadata(&params)).await?;
        Ok(found.items)
    }

    fn api<K: Kind>(&self, key: &Key) -> Api<K> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn counted<T>(
        &self,
        act: Act<'_>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        let outcome = within(&act, call).await;
        let result = outcome.as_ref().map_or_else(ApiError::code, |_| "ok");
        self.metrics.api_write(act.verb, &act.kind, result);
        outcome
    }
}

/// The kinds that this operator reads and writes.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

impl<'a> Act<'a> {
    fn on<K: Kind>(verb: &'static str, key: &'a Key) -> Self {
        Self { verb, kind: K::kind(&()).into_owned(), key }
    }
}

fn writing() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn within<T>(act: &Act<'_>, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(classify(act, error)),
        Err(_elapsed) => Err(no_answer(act, format!("nothing within {} s", DEADLINE.as_secs()))),
    }
}

fn classify(act: &Act<'_>, error: kube::Error) -> ApiError {
    let Act { verb, kind, key } = act;
    let (verb, kind, key) = (*verb, kind.clone(), (*key).clone());
    let status = match error {
        kube::Error::Api(status) => status,
        other => return no_answer(act, crate::dispatch::chain(&other)),
    };
    match status.code {
        404 => ApiError::Gone { kind, key },
        409 if status.is_already_exists() => ApiError::Exists { kind, key },
        409 | 422 => ApiError::Fenced { verb, kind, key, message: status.message },
        code => {
            let seconds = status.details.map_or(0, |details| details.retry_after_seconds);
            let retry_after = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
            ApiError::Refused {
                verb,
                kind,
                key,
                code,
                reason: status.reason,
                message: status.message,
                retry_after,
            }
        }
    }
}

fn no_answer(act: &Act<'_>, why: String) -> ApiError {
    ApiError::NoAnswer { verb: act.verb, kind: act.kind.clone(), key: act.key.clone(), why }
}
