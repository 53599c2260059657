//! Writes to the API server: one place for deadline, field manager, counting, and what a refusal means.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;
use crate::queue::Key;

/// Field manager of everything the operator writes. Not `kubectl*`: Flux reverts those.
pub const FIELD_MANAGER: &str = "requiem-operator";
const DEADLINE: Duration = Duration::from_secs(15);

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

    /// Merges `patch` into the status subresource.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn patch_status<K>(&self, key: &Key, patch: &serde_json::Value) -> Result<K, ApiError>
    where
        K: Kind,
    {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api::<K>(key);
        let merge = Patch::Merge(patch);
        self.counted(Act::on::<K>("patch", key), api.patch_status(&key.name, &params, &merge)).await
    }

    /// Creates `object`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let key = Key::of(object);
        let api = self.api::<K>(&key);
        self.counted(Act::on::<K>("create", &key), api.create(&params, object)).await
    }

    /// Reads the object as it is now, past every cache.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get<K: Kind>(&self, key: &Key) -> Result<K, ApiError> {
        let api = self.api::<K>(key);
        within(&Act::on::<K>("get", key), api.get(&key.name)).await
    }

    /// The metadata of objects that labels and fields select, past every cache of ours.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn list_metadata<K: Kind>(
        &self,
        namespace: &str,
        labels: &str,
        fields: &str,
    ) -> Result<Vec<PartialObjectMeta<K>>, ApiError> {
        let key = Key { namespace: namespace.to_owned(), name: String::new() };
        let api = self.api::<K>(&key);
        let params = ListParams::default().labels(labels).fields(fields);
        let found = within(&Act::on::<K>("list", &key), api.list_metadata(&params)).await?;
        Ok(found.items)
    }

    /// Deletes `object` if it is still what was read.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete<K: Kind>(&self, object: &K) -> Result<(), ApiError> {
        let meta = object.meta();
        let same = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::background() };
        let key = Key::of(object);
        let api = self.api::<K>(&key);
        self.counted(Act::on::<K>("delete", &key), api.delete(&key.name, &params)).await.map(drop)
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
