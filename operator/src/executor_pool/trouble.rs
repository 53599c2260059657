//! Why a pod does not serve: from its status, or from the API server's refusal to take it, to a stable reason and a
//! sentence with a remedy. Pure.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use requiem_crds::condition::Reason;
use requiem_model::BundleRoot;
use serde::Deserialize;

use crate::kubeapi::ApiError;

/// Longest text of somebody else that is quoted.
const MAX_QUOTE: usize = 300;

/// What keeps a pod from serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Stable reason.
    pub reason: Reason,
    /// The same for people, with what to do.
    pub message: String,
}

impl Trouble {
    fn new(reason: Reason, message: String) -> Self {
        Self { reason, message }
    }

    /// How far it lies from a mere consequence of something else: the first of several is told first.
    pub fn rank(&self) -> usize {
        const ORDER: [Reason; 9] = [
            Reason::CertificateUnavailable,
            Reason::PodRefused,
            Reason::QuotaExceeded,
            Reason::ProfileMissing,
            Reason::ImageUnavailable,
            Reason::ValueUnavailable,
            Reason::ExecutorOutOfMemory,
            Reason::ExecutorCrashing,
            Reason::Unschedulable,
        ];
        ORDER.iter().position(|reason| *reason == self.reason).unwrap_or(ORDER.len())
    }
}

/// What the status of `pod`, which is called `name`, complains of.
pub fn of(name: &str, pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let refused = conditions.iter().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(refused) = refused.filter(|one| one.reason.as_deref() == Some("Unschedulable")) {
        let why = quote(refused.message.as_deref());
        return Some(Trouble::new(
            Reason::Unschedulable,
            format!(
                "no node takes pod {name}: {why}; make room or bind the claim, or change nodeSelector, tolerations, \
                 resources or store of spec.pods"
            ),
        ));
    }
    if status.phase.as_deref() == Some("Failed") {
        let why = status.reason.as_deref().unwrap_or("it failed");
        let message = quote(status.message.as_deref());
        return Some(Trouble::new(
            Reason::ExecutorCrashing,
            format!(
                "pod {name} ended: {why}: {message}; it is replaced; see the node's conditions if that goes on"
            ),
        ));
    }
    let executor = status.init_container_statuses.as_deref().unwrap_or_default();
    let workload = status.container_statuses.as_deref().unwrap_or_default();
    executor.iter().chain(workload).find_map(|container| in_container(name, container))
}

fn in_container(pod: &str, container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let said = quote(waiting.and_then(|waiting| waiting.message.as_deref()));
    let (image, name) = (&container.image, &container.name);
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            let field = if name == "executor" { "image" } else { "workloadImage" };
            Some(Trouble::new(
                Reason::ImageUnavailable,
                format!(
                    "image {image} of pod {pod} cannot be had ({reason}): {said}; correct spec.pods.{field}, \
                     imagePullPolicy or imagePullSecrets, or put the image where the node finds it"
                ),
            ))
        }
        "CreateContainerError" | "RunContainerError" | "CreateContainerConfigError" => {
            Some(uncreated(pod, container, reason, &said))
        }
        _ => {
            let ended = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
            match now.or(ended) {
                // It was told to end, because the hook that waits for it failed.
                ended if reason == "PostStartHookError" && ended.is_none_or(|end| end.exit_code == 0) => {
                    Some(uncreated(pod, container, reason, &said))
                }
                ended => ended.map(|end| crashed(pod, container, end)),
            }
        }
    }
}

fn uncreated(pod: &str, container: &ContainerStatus, reason: &str, said: &str) -> Trouble {
    let name = &container.name;
    if said.contains("seccomp") {
        return Trouble::new(
            Reason::ProfileMissing,
            format!(
                "container {name} of pod {pod} is not started: {said}; put the profile \
                 (config/profiles/seccomp/runner.json) into the seccomp folder of the node's kubelet at the path of \
                 spec.pods.seccompProfile, or choose tier T3"
            ),
        );
    }
    // The kubelet's words for what an environment variable refers to: `secret "x" not found`, `couldn't find key k in Secret ns/x`.
    let value = said.starts_with("secret \"")
        || said.starts_with("configmap \"")
        || said.starts_with("couldn't find key");
    if reason == "CreateContainerConfigError" && value {
        return Trouble::new(
            Reason::ValueUnavailable,
            format!(
                "a value that spec.env takes by valueFrom cannot be had: {said}; create what is missing, or the key in it, in \
                 the namespace of the Execution; it goes on by itself"
            ),
        );
    }
    Trouble::new(
        Reason::ExecutorCrashing,
        format!(
            "container {name} of pod {pod} is not started ({reason}): {said}; see kubectl describe pod {pod}"
        ),
    )
}

fn crashed(pod: &str, container: &ContainerStatus, end: &ContainerStateTerminated) -> Trouble {
    let name = &container.name;
    let memory = end.reason.as_deref() == Some("OOMKilled");
    if memory && name == "executor" {
        return Trouble::new(
            Reason::ExecutorOutOfMemory,
            format!(
                "the executor of pod {pod} was killed for want of memory; raise limits.memory of \
                 spec.pods.resources.executor, or lower spec.pods.slots"
            ),
        );
    }
    let why = if memory {
        "it was killed for want of memory; raise limits.memory of spec.pods.resources.workload".to_owned()
    } else {
        let said = last_words(end.message.as_deref());
        format!(
            "it ended with {}: {said}; see kubectl logs {pod} --container {name} --previous",
            end.exit_code
        )
    };
    Trouble::new(Reason::ExecutorCrashing, format!("container {name} of pod {pod} does not stay up: {why}"))
}

/// What an executor leaves as its termination message: the results that nobody may have fetched.
#[derive(Deserialize)]
struct Farewell {
    schema: String,
    results: Vec<Unfetched>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unfetched {
    attempt: u32,
    bundle_root: BundleRoot,
}

/// What the pod called `name` says of the end of its executor, or of its own. It may be forged like everything that a pod says, so
/// it explains, and decides nothing.
pub fn last_word(name: &str, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.as_deref().unwrap_or_default();
    let executor = containers.iter().find(|container| container.name == "executor");
    let states = executor.map(|executor| [&executor.state, &executor.last_state]);
    let ends = states.into_iter().flatten().flatten().filter_map(|state| state.terminated.as_ref());
    let ends: Vec<&ContainerStateTerminated> = ends.collect();
    let killed = ends.iter().find(|end| end.reason.as_deref() == Some("OOMKilled"));
    if let Some((end, executor)) = killed.zip(executor) {
        return Some(crashed(name, executor, end).message);
    }
    let message = ends.first().and_then(|end| end.message.as_deref());
    let farewell = message.and_then(|message| serde_json::from_str::<Farewell>(message).ok());
    if let Some(Unfetched { attempt, bundle_root }) = farewell
        .filter(|farewell| farewell.schema == "requiem.termination/1")
        .and_then(|farewell| farewell.results.into_iter().next())
    {
        let lost = "but nobody had fetched the proof when it ended";
        return Some(format!(
            "its executor says that attempt {attempt} had the result {bundle_root}, {lost}"
        ));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let disrupted = conditions.iter().find(|one| one.type_ == "DisruptionTarget" && one.status == "True");
    let told = disrupted.map(|why| (why.reason.as_deref(), why.message.as_deref()));
    let failed = (status.phase.as_deref() == Some("Failed"))
        .then_some((status.reason.as_deref(), status.message.as_deref()));
    let (reason, message) = told.or(failed)?;
    Some(format!("pod {name} was ended ({}): {}", reason.unwrap_or("Failed"), quote(message)))
}

/// What the API server's refusal of a pod means.
pub fn refusal(error: &ApiError) -> Trouble {
    let ApiError::Refused { message, .. } = error else {
        let remedy = match error {
            ApiError::Exists { .. } => "it is not one of this pool's; delete it, or rename the pool",
            ApiError::Fenced { .. } => "correct spec.pods",
            _ => "it is tried again",
        };
        return Trouble::new(Reason::PodRefused, format!("{error}; {remedy}"));
    };
    let said = quote(Some(message));
    let about = |needle: &str| message.contains(needle);
    match () {
        () if about("exceeded quota") || about("failed quota") => Trouble::new(
            Reason::QuotaExceeded,
            format!(
                "{said}; raise the ResourceQuota of the namespace, or lower replicas or resources of spec.pods"
            ),
        ),
        () if about("violates PodSecurity") => Trouble::new(
            Reason::PodRefused,
            format!(
                "the namespace's level of pod security forbids these pods: {said}; choose a tier that it allows (T2 and T3 \
                 pass restricted, T1 passes baseline, a store on hostPath passes privileged only), or label the namespace with \
                 pod-security.kubernetes.io/enforce for that level"
            ),
        ),
        () if about("cannot create resource") || about("cannot delete resource") => Trouble::new(
            Reason::PodRefused,
            format!(
                "{said}; give the operator the rights that docs/operator.md lists (config/rbac/operator.yaml)"
            ),
        ),
        () => Trouble::new(
            Reason::PodRefused,
            format!("the API server refuses the pods: {said}; correct what it names; it is tried again"),
        ),
    }
}

/// Text of somebody else, in one line and never long.
fn quote(text: Option<&str>) -> String {
    let line = line(text);
    match line.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The end of a log, where what matters stands.
fn last_words(text: Option<&str>) -> String {
    let line = line(text);
    let skip = line.chars().count().saturating_sub(MAX_QUOTE);
    line.chars().skip(skip).collect()
}

fn line(text: Option<&str>) -> String {
    let text = text.unwrap_or("no more is known");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::member::samples::{container, pod, waiting};
    use super::*;
    use crate::queue::Key;

    fn found(status: Value) -> Option<(&'static str, String)> {
        of("p-0", &pod(0, &status, None)).map(|trouble| (trouble.reason.as_str(), trouble.message))
    }

    fn check(status: Value, reason: &str, words: &[&str]) {
        let (found, message) =
            found(status.clone()).unwrap_or_else(|| panic!("nothing is wrong with {status}"));
        assert_eq!(found, reason, "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
    }

    fn workload(state: Value, last: Value) -> Value {
        json!({"containerStatuses": [container("workload", state, last, 2)]})
    }

    fn executor(state: Value, last: Value) -> Value {
        json!({"initContainerStatuses": [container("executor", state, last, 2)]})
    }

    #[test]
    fn each_complaint_has_its_reason_and_its_remedy() {
        let unbound = json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        }]});
        check(unbound, "Unschedulable", &["unbound immediate", "bind the claim"]);
        let pull = waiting("ErrImagePull", "not found");
        check(
            workload(pull.clone(), json!({})),
            "ImageUnavailable",
            &["not found", "spec.pods.workloadImage"],
        );
        check(executor(pull, json!({})), "ImageUnavailable", &["spec.pods.image,"]);
        let profile =
            waiting("CreateContainerError", "cannot load seccomp profile \"/x/requiem/runner.json\"");
        check(workload(profile, json!({})), "ProfileMissing", &["/x/requiem/runner.json", "choose tier T3"]);
        for said in [
            "secret \"app\" not found",
            "configmap \"app\" not found",
            "couldn't find key k in Secret ns/app",
        ] {
            let missing = waiting("CreateContainerConfigError", said);
            check(
                workload(missing, json!({})),
                "ValueUnavailable",
                &[said, "create what is missing", "spec.env"],
            );
        }
        let other = waiting("CreateContainerConfigError", "container has runAsNonRoot");
        check(workload(other, json!({})), "ExecutorCrashing", &["runAsNonRoot"]);
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let loops = waiting("CrashLoopBackOff", "back-off");
        check(executor(loops.clone(), killed.clone()), "ExecutorOutOfMemory", &["resources.executor"]);
        check(workload(loops.clone(), killed), "ExecutorCrashing", &["resources.workload"]);
        let ended = json!({"terminated": {"exitCode": 2, "reason": "Error", "message": "the store cannot be opened"}});
        check(executor(loops, ended), "ExecutorCrashing", &["ended with 2", "the store cannot be opened"]);
        let hook = waiting("PostStartHookError", "no executor serves within 120 s");
        let told = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        check(executor(hook.clone(), told), "ExecutorCrashing", &["PostStartHookError", "within 120 s"]);
        let died = json!({"terminated": {"exitCode": 2, "message": "the store cannot be opened"}});
        check(executor(hook, died), "ExecutorCrashing", &["ended with 2", "the store cannot be opened"]);
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on ephemeral-storage"});
        check(evicted, "ExecutorCrashing", &["Evicted", "low on ephemeral-storage"]);
    }

    #[test]
    fn a_pod_that_only_starts_complains_of_nothing() {
        assert_eq!(found(json!({"phase": "Pending"})), None);
        assert_eq!(
            found(
                json!({"containerStatuses": [container("workload", waiting("PodInitializing", ""), json!({}), 0)]})
            ),
            None
        );
    }

    #[test]
    fn each_refusal_has_its_reason_and_its_remedy() {
        let refused = |message: &str| ApiError::Refused {
            verb: "create",
            kind: "Pod".into(),
            key: Key { namespace: "ns".into(), name: "p-0".into() },
            code: 403,
            reason: "Forbidden".into(),
            message: message.into(),
            retry_after: None,
        };
        for (message, reason, remedy) in [
            (
                "pods \"p-0\" is forbidden: exceeded quota: q, requested: pods=1",
                "QuotaExceeded",
                "ResourceQuota",
            ),
            (
                "pods \"p-0\" is forbidden: violates PodSecurity \"restricted:latest\": seccompProfile",
                "PodRefused",
                "T3",
            ),
            (
                "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group",
                "PodRefused",
                "rbac",
            ),
            ("something else", "PodRefused", "something else"),
        ] {
            let trouble = refusal(&refused(message));
            assert_eq!(trouble.reason.as_str(), reason, "{message}");
            assert!(trouble.message.contains(remedy), "{}", trouble.message);
        }
    }

    #[test]
    fn a_pod_says_why_its_executor_ended() {
        let said = |status: Value| last_word("p-0", &pod(0, &status, None));
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let words = said(executor(json!({"running": {}}), killed)).unwrap();
        assert!(words.contains("want of memory") && words.contains("resources.executor"), "{words}");
        let root = format!("blake3:{}", "ab".repeat(32));
        let farewell = |results: Value| {
            let message = json!({"schema": "requiem.termination/1", "results": results}).to_string();
            executor(json!({"terminated": {"exitCode": 0, "message": message}}), json!({}))
        };
        let result = json!({"uid": "u", "attempt": 2, "executionRoot": root, "bundleRoot": root});
        let words = said(farewell(json!([result]))).unwrap();
        assert!(words.contains("attempt 2 had the result") && words.contains(&root), "{words}");
        assert_eq!(said(farewell(json!([]))), None, "everything was fetched");
        let forged = json!([{"uid": "u", "attempt": 1, "bundleRoot": "\u{1b}[2J"}]);
        assert_eq!(said(farewell(forged)), None);
        assert_eq!(
            said(executor(json!({"terminated": {"exitCode": 0, "message": "no JSON"}}), json!({}))),
            None
        );
        let evicted = json!({"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }]});
        let words = said(evicted).unwrap();
        assert!(words.contains("EvictionByEvictionAPI") && words.contains("evicting"), "{words}");
        let full = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
        assert!(said(full).unwrap().contains("(Evicted): low on memory"));
        assert_eq!(said(json!({"phase": "Running"})), None);
    }

    #[test]
    fn quotes_are_short() {
        let long = format!("the start {} the end", "x ".repeat(5000));
        let (head, end) = (quote(Some(&long)), last_words(Some(&long)));
        assert!(head.starts_with("the start") && head.chars().count() <= MAX_QUOTE + 1, "{head}");
        assert!(end.ends_with("the end") && end.chars().count() <= MAX_QUOTE, "{end}");
        assert_eq!(quote(Some("two\n lines")), "two lines");
    }
}
