//! What the status of a pod says about the executor in it. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;

use super::pod;
use super::trouble::{self, Trouble};

/// A pod of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The number in its name; `None` if somebody else made it.
    pub ordinal: Option<u32>,
    /// Hash of the template that it was made from.
    pub template: String,
    /// How far it is.
    pub stage: Stage,
    /// Whether its executor was ever given a runner, and so may have, or have had, attempts.
    pub established: bool,
    /// Its address.
    pub ip: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// When its grace is over, if it is to go.
    pub deadline: Option<Timestamp>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What keeps it from serving.
    pub trouble: Option<Trouble>,
    /// What it says of the end of its executor, or of its own: for people.
    pub last_word: Option<String>,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has not served yet.
    Starting,
    /// It is there, has been tried out or may have been, and is not ready now.
    Faltering,
    /// Its executor takes attempts.
    Serving,
    /// It is to go, and drains.
    Leaving,
    /// Its containers have ended for good.
    Over,
}

impl Member {
    /// What `pod` says, as one of the pool called `pool`.
    pub fn of(pool: &str, pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        let labels = meta.labels.as_ref();
        let established = started(pod);
        let stage = stage(pod, established);
        Self {
            ordinal: pod::ordinal(pool, &name),
            uid: meta.uid.clone().unwrap_or_default(),
            template: labels.and_then(|labels| labels.get(pod::TEMPLATE_LABEL)).cloned().unwrap_or_default(),
            stage,
            established,
            ip: status.and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty()),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            deadline: meta.deletion_timestamp.as_ref().map(|time| time.0),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            // Containers of a pod that goes have ended because they were told to.
            trouble: (!matches!(stage, Stage::Serving | Stage::Leaving))
                .then(|| trouble::of(&name, pod))
                .flatten(),
            last_word: trouble::last_word(&name, pod),
            name,
        }
    }

    /// Whether it counts as one of the pods that are wanted.
    pub const fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Faltering | Stage::Serving)
    }
}

fn stage(pod: &Pod, established: bool) -> Stage {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    match () {
        () if matches!(phase, "Failed" | "Succeeded") => Stage::Over,
        () if pod.metadata.deletion_timestamp.is_some() => Stage::Leaving,
        () if ready => Stage::Serving,
        () if established => Stage::Faltering,
        () => Stage::Starting,
    }
}

/// Whether the workload's container was ever started. Before, the executor has no runner, so nobody is told that the pod
/// is ready, and nothing is sent there.
fn started(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    let ran = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        container.restart_count > 0
            || container.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
            || state.is_some_and(|now| now.running.is_some() || now.terminated.is_some())
    };
    statuses.unwrap_or_default().iter().any(ran)
}

#[cfg(test)]
pub(crate) mod samples {
    use serde_json::{Value, json};

    use super::Pod;

    pub(crate) const POOL: &str = "default";

    /// Pod number `ordinal` with this status, as the API server would show it.
    pub(crate) fn pod(ordinal: u32, status: &Value, leaving: Option<&str>) -> Pod {
        let name = super::pod::name(POOL, ordinal);
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": format!("{ordinal}-uid-of-a-pod"),
                "labels": {super::pod::POOL_LABEL: POOL, super::pod::TEMPLATE_LABEL: "new"},
                "deletionTimestamp": leaving,
            },
            "spec": {"nodeName": "node-1", "containers": []},
            "status": status,
        }))
        .unwrap()
    }

    pub(crate) fn serving() -> Value {
        json!({
            "phase": "Running", "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [container("workload", json!({"running": {}}), json!({}), 0)],
            "initContainerStatuses": [container("executor", json!({"running": {}}), json!({}), 0)],
        })
    }

    pub(crate) fn container(name: &str, state: Value, last: Value, restarts: u32) -> Value {
        json!({
            "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last,
        })
    }

    pub(crate) fn waiting(reason: &str, message: &str) -> Value {
        json!({"waiting": {"reason": reason, "message": message}})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::samples::{POOL, container, pod, serving, waiting};
    use super::*;

    #[test]
    fn each_status_has_its_stage() {
        let unready = |workload| {
            json!({
                "phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [workload],
            })
        };
        let fresh = container("workload", waiting("PodInitializing", ""), json!({}), 0);
        let runs = container("workload", json!({"running": {}}), json!({}), 0);
        let crashed =
            container("workload", waiting("CrashLoopBackOff", ""), json!({"terminated": {"exitCode": 1}}), 3);
        let going = Some("2026-11-27T19:00:00Z");
        for (status, leaving, stage, established) in [
            (json!({}), None, Stage::Starting, false),
            (json!({"phase": "Pending"}), None, Stage::Starting, false),
            (unready(fresh.clone()), None, Stage::Starting, false),
            (unready(runs), None, Stage::Faltering, true),
            (unready(crashed), None, Stage::Faltering, true),
            (serving(), None, Stage::Serving, true),
            (serving(), going, Stage::Leaving, true),
            (unready(fresh), going, Stage::Leaving, false),
            (json!({"phase": "Failed", "reason": "Evicted"}), None, Stage::Over, false),
            (json!({"phase": "Failed"}), going, Stage::Over, false),
        ] {
            let member = Member::of(POOL, &pod(3, &status, leaving));
            assert_eq!((member.stage, member.established), (stage, established), "{status}");
            assert_eq!(member.ordinal, Some(3));
            assert_eq!(member.deadline.is_some(), leaving.is_some());
        }
    }
}
