//! Pods of their own for single Executions (`spec.executor.pod`): made when an attempt is to begin, asked and followed like
//! any executor, and deleted when the result is safe.
//!
//! ```text
//! no pod ─make─▶ starts ─▶ serves ─start─▶ … result ─▶ status written ─ack─▶ deleted
//!                   └──────────┴─ gone before the result: the next attempt has another pod
//! ```
//!
//! A pod is found again by its owner reference, so nothing is lost with the operator: a pod whose Execution is over, or gone,
//! is swept away when it is seen.

use k8s_openapi::api::core::v1::{ConfigMapKeySelector, EnvVar, EnvVarSource, Pod, SecretKeySelector};
use kube::ResourceExt;
use requiem_crds::Execution;
use requiem_crds::condition::Reason;
use requiem_crds::executor_pool::DedicatedPod;
use requiem_model::{EnvRef, ValueSource};

use crate::context::Context;
use crate::execution::validate::Plan;
use crate::executor_pool::member::{Member, Stage};
use crate::executor_pool::pod::{self, Template};
use crate::executor_pool::trouble::{self, Trouble};
use crate::kubeapi::ApiError;
use crate::queue::Key;

/// Label of these pods.
pub const LABEL: &str = "requiem.dev/dedicated";
/// In the fleet such a pod stands under the name of its Execution after this, which no pool can be called.
const PREFIX: &str = "execution/";
/// Longest part of an Execution's name in that of its pod.
const MAX_NAME: usize = 40;

/// The pod of an Execution's current attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// It was not made yet.
    Missing,
    /// It is there and does not serve yet, or not now; perhaps it is known why.
    Starting(Option<Trouble>),
    /// Its executor takes the attempt.
    Serving,
    /// It is gone, or going, without a result.
    Lost,
}

/// The name under which the fleet has the pod of the Execution `key`.
pub fn fleet_key(key: &Key) -> Key {
    Key { namespace: key.namespace.clone(), name: format!("{PREFIX}{}", key.name) }
}

/// The Execution behind a name in the fleet, if it is one.
pub fn execution_of_fleet_key(key: &Key) -> Option<Key> {
    let name = key.name.strip_prefix(PREFIX)?.to_owned();
    Some(Key { namespace: key.namespace.clone(), name })
}

/// The Execution that a pod was made for, with its UID.
pub fn execution_of(pod: &Pod) -> Option<(Key, String)> {
    pod.labels().get(LABEL)?;
    let owner = pod.owner_references().iter().find(|owner| owner.kind == "Execution")?;
    Some((Key { namespace: pod.namespace()?, name: owner.name.clone() }, owner.uid.clone()))
}

/// The name of the pod of attempt `n`.
pub fn name(execution: &Key, uid: &str, n: u32) -> String {
    let short: String = execution.name.chars().take(MAX_NAME).collect();
    let fragment: String = uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{}-{fragment}-{n}", short.trim_end_matches(['-', '.']))
}

/// The pod of attempt `n`.
pub fn build(plan: &Plan, spec: &DedicatedPod, image: &str, n: u32) -> Pod {
    let name = name(&plan.key, &plan.uid, n);
    let pods = spec.as_pods();
    let owner = plan.owner.as_ref();
    let template = Template { pool: &plan.key, pods: &pods, image, owner };
    let mut pod = pod::build_named(&template, &name);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.remove(pod::POOL_LABEL);
    labels.remove(pod::TEMPLATE_LABEL);
    labels.insert(LABEL.to_owned(), "true".to_owned());
    if let Some(spec) = &mut pod.spec {
        // Another pod for another attempt: what ended has ended.
        spec.restart_policy = Some("Never".to_owned());
        spec.topology_spread_constraints = None;
        let values: Vec<EnvVar> = plan.request.env_refs.iter().map(carrier).collect();
        for workload in &mut spec.containers {
            workload.env = (!values.is_empty()).then(|| values.clone());
        }
        for executor in spec.init_containers.iter_mut().flatten() {
            let args = executor.args.get_or_insert_default();
            args.extend(["--once", "--termination-log", "/dev/termination-log"].map(str::to_owned));
        }
    }
    pod
}

/// The variable by which the kubelet gives a value to the runner. The operator knows where it stands, and never what it is.
fn carrier(reference: &EnvRef) -> EnvVar {
    let source = match &reference.source {
        ValueSource::Secret { name, key } => {
            let (name, key) = (name.as_str().to_owned(), key.as_str().to_owned());
            let selector = SecretKeySelector { name, key, optional: Some(false) };
            EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }
        }
        ValueSource::ConfigMap { name, key } => {
            let (name, key) = (name.as_str().to_owned(), key.as_str().to_owned());
            let selector = ConfigMapKeySelector { name, key, optional: Some(false) };
            EnvVarSource { config_map_key_ref: Some(selector), ..EnvVarSource::default() }
        }
    };
    EnvVar { name: reference.carrier(), value: None, value_from: Some(source) }
}

/// How far the pod called `name` is.
pub fn own(members: &[Member], name: &str) -> Own {
    match members.iter().find(|member| member.name == name) {
        None => Own::Missing,
        Some(member) => match member.stage {
            Stage::Starting | Stage::Faltering => Own::Starting(member.trouble.clone().map(reworded)),
            Stage::Serving => Own::Serving,
            Stage::Leaving | Stage::Over => Own::Lost,
        },
    }
}

/// Makes the pod of attempt `n`; one that is there already is fine.
///
/// # Errors
/// What stands in the way, for the status.
pub async fn make(context: &Context, plan: &Plan, spec: &DedicatedPod, n: u32) -> Result<(), Trouble> {
    let Some(image) = &context.executor_image else {
        let message = "the operator was started without --executor-image, so it cannot make pods";
        return Err(Trouble { reason: Reason::ImageUnavailable, message: message.to_owned() });
    };
    if let Err(error) = context.certificates.ensure(&plan.key.namespace, true).await {
        return Err(Trouble { reason: Reason::CertificateUnavailable, message: error.to_string() });
    }
    let pod = build(plan, spec, image, n);
    // Pods of earlier attempts have lost them. They would only take the room, and perhaps the quota, of this one.
    clear(context, &plan.key, &plan.uid).await;
    match context.writer.create(&pod).await {
        Ok(_) => {
            context.metrics.pod("created", "Dedicated");
            Ok(())
        }
        Err(ApiError::Exists { .. }) => Ok(()),
        Err(error) => {
            let trouble = reworded(trouble::refusal(&error));
            context.metrics.pod("refused", trouble.reason.as_str());
            Err(trouble)
        }
    }
}

/// Makes sure that this process has a certificate to show to the executors of pods that may be older than itself.
///
/// # Errors
/// Why there is none, for the status.
pub async fn introduce(context: &Context, plan: &Plan) -> Result<(), Trouble> {
    let has_none = context.pods.of_execution(&plan.key, &plan.uid).is_ok_and(|members| members.is_empty());
    if plan.pod.is_none() || has_none {
        return Ok(());
    }
    let ensured = context.certificates.ensure(&plan.key.namespace, false).await;
    ensured.map_err(|error| Trouble { reason: Reason::CertificateUnavailable, message: error.to_string() })
}

/// Deletes every pod of the Execution `key` with this UID that is known.
pub async fn clear(context: &Context, key: &Key, uid: &str) {
    for member in context.pods.of_execution(key, uid).unwrap_or_default() {
        if member.stage == Stage::Leaving {
            continue;
        }
        let pod = Key { namespace: key.namespace.clone(), name: member.name };
        match context.writer.delete::<Pod>(&pod, &member.uid, None).await {
            Ok(()) => context.metrics.pod("deleted", "Finished"),
            Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => {}
            // Seen again at the next event of the pod, and deleted with its Execution at the latest.
            Err(error) => tracing::warn!(%pod, %error, "the pod of an Execution that is over is not deleted"),
        }
    }
}

/// The Execution `key` is not live: what pods are left of it go, unless the cache is behind.
pub async fn sweep(context: &Context, key: &Key) {
    for uid in context.pods.executions_named(key) {
        let keeps = match context.writer.get::<Execution>(key).await {
            Ok(execution) => {
                let rejected = requiem_crds::status::ResultReason::ProofRejected;
                let status = execution.status.as_ref();
                let live = !status.is_some_and(|status| status.terminal);
                // The journal of an executor whose proof was refused is evidence.
                let evidence = status.is_some_and(|status| status.result == Some(rejected));
                execution.uid().as_deref() == Some(uid.as_str()) && (live || evidence)
            }
            Err(ApiError::Gone { .. }) => false,
            Err(_) => true,
        };
        if !keeps {
            clear(context, key, &uid).await;
        }
    }
}

/// The pods of `owner` among all that are cached.
pub fn is_of(pod: &Pod, key: &Key, uid: &str) -> bool {
    execution_of(pod).is_some_and(|(owner, owner_uid)| owner == *key && owner_uid == uid)
}

fn reworded(trouble: Trouble) -> Trouble {
    Trouble { message: in_words_of_executions(&trouble.message), ..trouble }
}

/// Troubles name fields of a pool; here they are those of the Execution, which has one slot.
pub fn in_words_of_executions(message: &str) -> String {
    let message = message.replace(", or lower spec.pods.slots", "");
    let message = message.replace("spec.pods.workloadImage", "spec.executor.pod.image");
    message.replace("spec.pods", "spec.executor.pod")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::execution::validate::plan;

    fn execution(name: &str) -> Execution {
        serde_json::from_value(json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution",
            "metadata": {"name": name, "namespace": "ns", "uid": "0b9c5d1e-0000-4000-8000-000000000001"},
            "spec": {"command": ["true"], "executor": {"pod": {"image": "debian", "tier": "T3"}}},
        }))
        .unwrap()
    }

    fn built(n: u32) -> (Plan, Pod) {
        let plan = plan(&execution("hello")).unwrap();
        let spec = plan.pod.clone().unwrap();
        let pod = build(&plan, &spec, "executor:1", n);
        (plan, pod)
    }

    #[test]
    fn a_pod_serves_one_execution_once_and_is_found_by_it() {
        let (plan, pod) = built(2);
        assert_eq!(pod.name_any(), "hello-0b9c5d1e-2");
        assert_eq!(execution_of(&pod), Some((plan.key.clone(), plan.uid.clone())));
        assert!(is_of(&pod, &plan.key, &plan.uid) && !is_of(&pod, &plan.key, "other"));
        let value: Value = serde_json::to_value(&pod).unwrap();
        let args = value["spec"]["initContainers"][0]["args"].to_string();
        assert!(args.contains("--once") && args.contains("/dev/termination-log"), "{args}");
        assert_eq!(value["spec"]["restartPolicy"], "Never");
        assert_eq!(value["spec"]["containers"][0]["image"], "debian");
        assert_eq!(value["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], false);
        assert_eq!(crate::executor_pool::observe::pool_of(&pod), None, "it belongs to no pool");
    }

    #[test]
    fn values_are_named_to_the_kubelet_for_the_workload_alone() {
        let mut execution = execution("hello");
        let from = |kind: &str| json!({kind: {"name": "app", "key": "k"}});
        let env = json!([
            {"name": "PLAIN", "value": "v"},
            {"name": "S", "valueFrom": from("secretKeyRef")},
            {"name": "M", "valueFrom": from("configMapKeyRef")},
        ]);
        execution.spec.env = serde_json::from_value(env).unwrap();
        let plan = plan(&execution).unwrap();
        let pod = build(&plan, plan.pod.as_ref().unwrap(), "executor:1", 1);
        let value: Value = serde_json::to_value(&pod).unwrap();
        assert_eq!(value["spec"]["initContainers"][0]["env"], Value::Null);
        let [map, secret] = &plan.request.env_refs[..] else { panic!("{:?}", plan.request.env_refs) };
        let selector = json!({"name": "app", "key": "k", "optional": false});
        assert_eq!(
            value["spec"]["containers"][0]["env"],
            json!([
                {"name": map.carrier(), "valueFrom": {"configMapKeyRef": selector}},
                {"name": secret.carrier(), "valueFrom": {"secretKeyRef": selector}},
            ])
        );
        let (_, without) = built(1);
        let without: Value = serde_json::to_value(&without).unwrap();
        assert_eq!(without["spec"]["containers"][0]["env"], Value::Null);
    }

    #[test]
    fn names_are_short_and_of_one_attempt_each() {
        let key = |name: &str| Key { namespace: "ns".into(), name: name.into() };
        let long = name(&key(&format!("{}.b", "a".repeat(252))), "0b9c5d1e-0000", 12);
        assert!(long.len() <= 63, "{long}");
        assert_eq!(name(&key("a.b"), "0b9c5d1e-0000", 1), "a.b-0b9c5d1e-1");
        assert_eq!(name(&key(&format!("{}-b", "a".repeat(39))), "u", 1), format!("{}-u-1", "a".repeat(39)));
        let fleet = fleet_key(&key("a"));
        assert_eq!(execution_of_fleet_key(&fleet), Some(key("a")));
        assert_eq!(execution_of_fleet_key(&key("a")), None);
    }

    #[test]
    fn each_stage_says_what_is_next() {
        let (_, pod) = built(1);
        let stage = |status: Value, leaving: Option<&str>| {
            let mut value = serde_json::to_value(&pod).unwrap();
            (value["status"], value["metadata"]["deletionTimestamp"]) = (status, json!(leaving));
            let member = Member::of("hello", &serde_json::from_value(value).unwrap());
            own(&[member], "hello-0b9c5d1e-1")
        };
        assert_eq!(own(&[], "hello-0b9c5d1e-1"), Own::Missing);
        assert_eq!(stage(json!({"phase": "Pending"}), None), Own::Starting(None));
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(stage(ready.clone(), None), Own::Serving);
        assert_eq!(stage(ready, Some("2026-11-27T20:00:00Z")), Own::Lost);
        assert_eq!(stage(json!({"phase": "Succeeded"}), None), Own::Lost);
        let waiting = json!({"containerStatuses": [{
            "name": "workload", "image": "debian", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": "m"}},
        }]});
        let Own::Starting(Some(trouble)) = stage(waiting, None) else { panic!("no trouble") };
        assert_eq!(trouble.reason, Reason::ImageUnavailable);
        assert!(trouble.message.contains("spec.executor.pod.image"), "{}", trouble.message);
    }
}
