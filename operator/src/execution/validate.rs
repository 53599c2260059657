//! Step 2, pure: from an object to a plan. What the plan holds needs no further check.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use requiem_crds::admission::Asked;
use requiem_crds::condition::ConditionType;
use requiem_crds::execution::{CacheMode, Publish, Retention};
use requiem_crds::executor_pool::DedicatedPod;
use requiem_crds::keeper::{self, cache_mode};
use requiem_crds::replay::ReplaySpec;
use requiem_crds::{Execution, convert};
use requiem_model::attempt::{Identity, StartAttempt};
use requiem_model::{ExecutionRequest, RequestDigest};

use super::flights::Route;
use crate::queue::Key;

/// Everything that decisions about one Execution need from its object.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its name.
    pub key: Key,
    /// Its UID.
    pub uid: String,
    /// The generation that was converted.
    pub generation: u64,
    /// What to run.
    pub request: ExecutionRequest,
    /// Its digest.
    pub request_digest: RequestDigest,
    /// Texts that the request names by digest.
    pub inline: Vec<String>,
    /// Pool that takes it; in the same namespace.
    pub pool: Key,
    /// The pod of its own that it wants instead.
    pub pod: Option<DedicatedPod>,
    /// Whether it waits.
    pub suspend: bool,
    /// Whether it is to end: cancelled, or being deleted while somebody's finalizer holds it.
    pub cancel: bool,
    /// Whether an earlier result may answer it.
    pub cache: CacheMode,
    /// Whether its proof becomes an object.
    pub publish: bool,
    /// Whether, and how often, the request is run again and compared once the proof is published.
    pub replay: Option<ReplaySpec>,
    /// How often an attempt that failed for the executor's reasons is repeated.
    pub retry_limit: u32,
    /// The attempt that its status knows, at least 1.
    pub first_attempt: u32,
    /// Whether its status says that it is suspended.
    pub was_suspended: bool,
    /// How its ProofBundle refers to it; absent if the bundle is to outlive it.
    pub owner: Option<OwnerReference>,
}

/// Why an object is no plan: what is wrong and what to do, for a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSpec(pub String);

/// The plan of `object`.
///
/// # Errors
/// The first rule that the spec breaks.
pub fn plan(object: &Execution) -> Result<Plan, InvalidSpec> {
    let invalid = |error: &dyn std::error::Error| InvalidSpec(error.to_string());
    let (request, inline) = convert::to_request(&object.spec).map_err(|error| invalid(&error))?;
    requiem_proof::check_fits(&request).map_err(|error| {
        InvalidSpec(format!(
            "spec: {error}; declare a folder instead of many outputs, or shorten the request"
        ))
    })?;
    let request_digest = request.digest().map_err(|error| invalid(&error))?;
    let key = Key::of(object);
    let status = object.status.as_ref();
    let suspended = ConditionType::Suspended.as_str();
    Ok(Plan {
        uid: object.uid().unwrap_or_default(),
        generation: u64::try_from(object.meta().generation.unwrap_or(1)).unwrap_or(1),
        request,
        request_digest,
        inline,
        pool: Key { namespace: key.namespace.clone(), name: object.spec.executor.pool_ref.name.clone() },
        pod: object.spec.executor.pod.clone(),
        suspend: object.spec.suspend,
        cancel: wants_end(object),
        cache: cache_mode(object),
        publish: object.spec.proof.publish == Publish::Always,
        replay: object.spec.replay,
        retry_limit: object.spec.retry.limit,
        first_attempt: status.map_or(1, |status| status.attempts.max(1)),
        was_suspended: status.is_some_and(|status| status.conditions.iter().any(|c| c.type_ == suspended)),
        owner: owner(object),
        key,
    })
}

impl Plan {
    /// Whose attempt `n` is.
    pub fn identity(&self, n: u32) -> Identity {
        Identity {
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            generation: self.generation,
            attempt: n,
        }
    }

    /// What policies are asked about it.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            namespace: &self.key.namespace,
            pool: &self.pool.name,
            pod: self.pod.as_ref(),
            request: &self.request,
            cache: self.cache,
            publish: self.publish,
        }
    }

    /// The flight of those that may answer one another; `None` if its result answers nobody.
    pub fn route(&self) -> Option<Route> {
        let answers = self.cache != CacheMode::Never && self.publish;
        answers.then(|| Route { pool: self.pool.clone(), request: self.request_digest })
    }

    /// The call that starts attempt `n`.
    pub fn start(&self, n: u32) -> StartAttempt {
        StartAttempt {
            identity: self.identity(n),
            request: self.request.clone(),
            inline: self.inline.clone(),
        }
    }
}

/// Whether `object` is to end: cancelled, or being deleted while somebody's finalizer holds it.
pub fn wants_end(object: &Execution) -> bool {
    object.spec.cancel || object.metadata.deletion_timestamp.is_some()
}

/// Not blocking: an owner reference that blocks needs rights on finalizers.
fn owner(object: &Execution) -> Option<OwnerReference> {
    let default =
        || keeper::of(&object.metadata).map_or(Retention::WithExecution, |_kept_by_a_tool| Retention::Keep);
    if object.spec.proof.retention.unwrap_or_else(default) == Retention::Keep {
        return None;
    }
    let reference = object.controller_owner_ref(&())?;
    Some(OwnerReference { block_owner_deletion: Some(false), ..reference })
}

#[cfg(test)]
mod tests {
    use requiem_crds::ExecutionSpec;

    use super::*;

    #[test]
    fn a_spec_that_converts_but_cannot_be_proven_is_refused_before_it_runs() {
        let mut spec = ExecutionSpec::new(vec!["/bin/true".into()]);
        spec.outputs = (0..256).map(|n| format!("{n}{}/{}", "é".repeat(100), "é".repeat(100))).collect();
        assert!(convert::to_request(&spec).is_ok());
        let refusal = plan(&Execution::new("n", spec)).unwrap_err();
        assert!(refusal.0.contains("more than"), "{refusal}");
    }

    #[test]
    fn what_a_tool_keeps_is_answered_and_keeps_its_proof_unless_the_spec_says_otherwise() {
        let kept = |labelled: bool, cache, retention| {
            let mut object = Execution::new("n", ExecutionSpec::new(vec!["/bin/true".into()]));
            object.metadata.uid = Some("u".into());
            if labelled {
                let label = ("helm.toolkit.fluxcd.io/name".to_owned(), "release".to_owned());
                object.metadata.labels = Some([label].into());
            }
            object.spec.cache = cache;
            object.spec.proof.retention = retention;
            let plan = plan(&object).unwrap();
            (plan.cache, plan.owner.is_none())
        };
        assert_eq!(kept(false, None, None), (CacheMode::Never, false));
        assert_eq!(kept(true, None, None), (CacheMode::Use, true));
        let (never, with) = (Some(CacheMode::Never), Some(Retention::WithExecution));
        assert_eq!(kept(true, never, with), (CacheMode::Never, false));
        let (refresh, keep) = (Some(CacheMode::Refresh), Some(Retention::Keep));
        assert_eq!(kept(false, refresh, keep), (CacheMode::Refresh, true));
    }

    #[test]
    fn what_is_to_be_replayed_runs_even_if_a_tool_keeps_it() {
        let mut object = Execution::new("n", ExecutionSpec::new(vec!["/bin/true".into()]));
        let label = ("helm.toolkit.fluxcd.io/name".to_owned(), "release".to_owned());
        object.metadata.labels = Some([label].into());
        object.spec.replay = Some(ReplaySpec { count: 1, distinct_nodes: false });
        assert_eq!(plan(&object).unwrap().cache, CacheMode::Never);
        object.spec.cache = Some(CacheMode::Refresh);
        assert_eq!(plan(&object).unwrap().cache, CacheMode::Refresh);
    }

    #[test]
    fn what_takes_values_from_elsewhere_is_neither_answered_nor_answers() {
        let mut object: Execution = serde_json::from_value(serde_json::json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution",
            "metadata": {"name": "n", "uid": "u", "labels": {"helm.toolkit.fluxcd.io/name": "release"}},
            "spec": {
                "command": ["true"], "executor": {"pod": {"image": "debian"}},
                "env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            },
        }))
        .unwrap();
        let referring = plan(&object).unwrap();
        assert_eq!((referring.cache, referring.route()), (CacheMode::Never, None));
        object.spec.env.clear();
        assert!(plan(&object).unwrap().route().is_some(), "a tool keeps it, so that others answer");
        object.spec.executor.pod = None;
        object.spec.env = vec![requiem_crds::execution::EnvVarSpec {
            name: "S".into(),
            value_from: Some(Default::default()),
            ..Default::default()
        }];
        assert!(plan(&object).unwrap_err().0.contains("spec.executor.pod"));
    }

    #[test]
    fn deletion_that_somebody_holds_up_is_an_end() {
        let mut object = Execution::new("n", ExecutionSpec::new(vec!["/bin/true".into()]));
        assert!(!plan(&object).unwrap().cancel);
        let now = k8s_openapi::jiff::Timestamp::now();
        object.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        assert!(plan(&object).unwrap().cancel);
    }

    #[test]
    fn the_attempt_of_the_status_is_the_first() {
        let mut object = Execution::new("n", ExecutionSpec::new(vec!["/bin/true".into()]));
        assert_eq!(plan(&object).unwrap().first_attempt, 1);
        object.status = Some(requiem_crds::ExecutionStatus { attempts: 4, ..Default::default() });
        assert_eq!(plan(&object).unwrap().first_attempt, 4);
    }
}
