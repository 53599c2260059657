//! The pod of an executor, from the spec of its pool: the shape of `docs/pod-tiers.md`. Pure.
//!
//! ```text
//! executor (sidecar)   requiem-executor serve …    store, certificates, sockets
//! workload             requiem-runner              the user's image; no store, no certificates, no token
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, ExecAction, HTTPGetAction,
    HostPathVolumeSource, Lifecycle, LifecycleHandler, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, TopologySpreadConstraint, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use requiem_crds::ByteQuantity;
use requiem_crds::executor_pool::{ContainerResources, PodsSpec, StoreSpec, Tier, TolerationSpec};
use requiem_model::BlobDigest;

use crate::certificates::EXECUTOR_SECRET;
use crate::kubeapi::FIELD_MANAGER;
use crate::queue::Key;

/// Label with the name of the pool.
pub const POOL_LABEL: &str = "requiem.dev/pool";
/// Label with the hash of everything that replacing a pod would change.
pub const TEMPLATE_LABEL: &str = "requiem.dev/template";
/// Label that every executor pod has, with [`EXECUTOR_NAME`].
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// See [`NAME_LABEL`].
pub const EXECUTOR_NAME: &str = "requiem-executor";
/// Where executors listen in a pod.
pub const PORT: i32 = 9443;
const ADMIN_PORT: i32 = 9180;
/// Both containers run as this user: an executor takes nobody else for its runner.
const USER: i64 = 65532;
/// What the kubelet gives a pod beyond the time to drain, for the farewell of the two containers.
const FAREWELL: i64 = 10;

/// What a pod is made from, besides its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Template<'a> {
    /// The pool.
    pub pool: &'a Key,
    /// Its spec.
    pub pods: &'a PodsSpec,
    /// Image of the executor.
    pub image: &'a str,
    /// How pods refer to the pool.
    pub owner: Option<&'a OwnerReference>,
}

/// The name of the pod number `ordinal` of `pool`.
pub fn name(pool: &str, ordinal: u32) -> String {
    format!("{pool}-executor-{ordinal}")
}

/// The number in the name of a pod of `pool`.
pub fn ordinal(pool: &str, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(pool)?.strip_prefix("-executor-")?;
    digits.parse().ok().filter(|number: &u32| number.to_string() == digits)
}

/// The hash of what a pod of this template is, whatever its number: pods with another one are out of date.
pub fn fingerprint(template: &Template<'_>) -> String {
    let spec = spec(template, &name(&template.pool.name, 0));
    let text = serde_json::to_vec(&spec).unwrap_or_default();
    BlobDigest::of(&text).to_hex().chars().take(10).collect()
}

/// Pod number `ordinal`.
pub fn build(template: &Template<'_>, ordinal: u32) -> Pod {
    build_named(template, &name(&template.pool.name, ordinal))
}

/// The pod called `name`.
pub fn build_named(template: &Template<'_>, name: &str) -> Pod {
    let labels = [
        (POOL_LABEL, template.pool.name.as_str()),
        (TEMPLATE_LABEL, &fingerprint(template)),
        (NAME_LABEL, EXECUTOR_NAME),
        ("app.kubernetes.io/part-of", "requiem"),
        ("app.kubernetes.io/managed-by", FIELD_MANAGER),
    ];
    Pod {
        metadata: ObjectMeta {
            namespace: Some(template.pool.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: template.owner.map(|owner| vec![owner.clone()]),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(spec(template, name)),
        status: None,
    }
}

fn spec(template: &Template<'_>, name: &str) -> PodSpec {
    let pods = template.pods;
    let secrets =
        pods.image_pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() });
    PodSpec {
        // No credential, and no address of anything, in either container.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        dns_policy: Some("Default".to_owned()),
        host_users: Some(pods.tier == Tier::T3),
        termination_grace_period_seconds: Some(i64::from(pods.drain_seconds) + FAREWELL),
        security_context: Some(PodSecurityContext {
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            ..PodSecurityContext::default()
        }),
        init_containers: Some(vec![executor(template, name)]),
        containers: vec![workload(pods)],
        volumes: Some(volumes(&pods.store)),
        image_pull_secrets: filled(secrets.collect()),
        node_selector: (!pods.node_selector.is_empty()).then(|| pods.node_selector.clone()),
        topology_spread_constraints: Some(vec![spread(&template.pool.name)]),
        tolerations: filled(pods.tolerations.iter().map(toleration).collect()),
        runtime_class_name: pods.runtime_class_name.clone(),
        priority_class_name: pods.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn executor(template: &Template<'_>, name: &str) -> Container {
    let pods = template.pods;
    let port = |name: &str, port| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        ..ContainerPort::default()
    };
    Container {
        name: "executor".to_owned(),
        image: Some(template.image.to_owned()),
        image_pull_policy: pull_policy(pods),
        // A native sidecar: started before the workload, told to end after it.
        restart_policy: Some("Always".to_owned()),
        args: Some(arguments(pods, name)),
        ports: Some(vec![port("https", PORT), port("admin", ADMIN_PORT)]),
        security_context: Some(security(pods, None)),
        // The workload's container starts when this has returned. A startup probe is asked once per second only.
        lifecycle: Some(Lifecycle { post_start: Some(await_serving()), ..Lifecycle::default() }),
        // No liveness probe: killing an executor that is slow would lose what runs.
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/readyz".to_owned()),
                port: IntOrString::Int(ADMIN_PORT),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(2),
            timeout_seconds: Some(5),
            ..Probe::default()
        }),
        resources: Some(resources(
            &pods.resources.executor,
            &[("cpu", "50m"), ("memory", "64Mi")],
            &[("memory", "512Mi")],
        )),
        // An executor that does not start says why in the last lines of its log.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![
            mount("bin", false),
            mount("run", false),
            mount("store", false),
            mount("tls", true),
            mount("local", false),
        ]),
        ..Container::default()
    }
}

fn await_serving() -> LifecycleHandler {
    let admin = format!("127.0.0.1:{ADMIN_PORT}");
    let command = ["/usr/bin/requiem-executor", "await-serving", "--admin", &admin].map(str::to_owned);
    LifecycleHandler {
        exec: Some(ExecAction { command: Some(command.into()) }),
        ..LifecycleHandler::default()
    }
}

fn arguments(pods: &PodsSpec, name: &str) -> Vec<String> {
    // One executor per folder: a store that stays has one for each pod, and its successor finds it by its name.
    let store =
        if pods.store.persists() { format!("/requiem/store/{name}") } else { "/requiem/store".to_owned() };
    let (slots, drain) = (pods.slots.to_string(), pods.drain_seconds.to_string());
    let (listen, admin) = (format!("0.0.0.0:{PORT}"), format!("0.0.0.0:{ADMIN_PORT}"));
    let flags = [
        ("--listen", listen.as_str()),
        ("--admin-listen", &admin),
        ("--tls-cert", "/requiem/tls/tls.crt"),
        ("--tls-key", "/requiem/tls/tls.key"),
        ("--client-ca", "/requiem/tls/ca.crt"),
        ("--store", &store),
        ("--slots", &slots),
        ("--name", name),
        ("--drain-seconds", &drain),
        ("--runner-socket", "/requiem/run/runner.sock"),
        ("--install-runner", "/requiem/bin/requiem-runner"),
        ("--local-socket", "/requiem/local/executor.sock"),
    ];
    let words = flags.iter().flat_map(|(flag, value)| [*flag, *value]);
    std::iter::once("serve").chain(words).map(str::to_owned).collect()
}

fn workload(pods: &PodsSpec) -> Container {
    let unmasked = (pods.tier == Tier::T1).then_some("Unmasked");
    let command = ["/requiem/bin/requiem-runner", "--socket", "/requiem/run/runner.sock"];
    Container {
        name: "workload".to_owned(),
        image: Some(pods.workload_image.clone()),
        image_pull_policy: pull_policy(pods),
        command: Some(command.map(str::to_owned).into()),
        security_context: Some(security(pods, unmasked)),
        // The limit is what bounds the memory of commands where the runner may make no cgroup of its own.
        resources: Some(resources(
            &pods.resources.workload,
            &[("cpu", "50m"), ("memory", "64Mi")],
            &[("memory", "1Gi")],
        )),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![mount("bin", true), mount("run", false)]),
        ..Container::default()
    }
}

fn security(pods: &PodsSpec, proc_mount: Option<&str>) -> SecurityContext {
    let profile = match pods.tier {
        Tier::T1 | Tier::T2 => SeccompProfile {
            type_: "Localhost".to_owned(),
            localhost_profile: Some(pods.seccomp_profile.clone()),
        },
        Tier::T3 => SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None },
    };
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        proc_mount: proc_mount.map(str::to_owned),
        seccomp_profile: Some(profile),
        ..SecurityContext::default()
    }
}

fn volumes(store: &StoreSpec) -> Vec<Volume> {
    let volume = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
    let empty = |name: &str| Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume(name) };
    let tls = SecretVolumeSource {
        secret_name: Some(EXECUTOR_SECRET.to_owned()),
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    vec![
        empty("bin"),
        empty("run"),
        place(store, volume("store")),
        Volume { secret: Some(tls), ..volume("tls") },
        empty("local"),
    ]
}

fn place(store: &StoreSpec, volume: Volume) -> Volume {
    if let Some(host) = &store.host_path {
        let source = HostPathVolumeSource { path: host.path.clone(), type_: Some("Directory".to_owned()) };
        return Volume { host_path: Some(source), ..volume };
    }
    if let Some(claim) = &store.persistent_volume_claim {
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: claim.claim_name.clone(),
            ..PersistentVolumeClaimVolumeSource::default()
        };
        return Volume { persistent_volume_claim: Some(source), ..volume };
    }
    let limit = store.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref());
    let size_limit = limit.map(|limit| Quantity(limit.to_string()));
    Volume {
        empty_dir: Some(EmptyDirVolumeSource { size_limit, ..EmptyDirVolumeSource::default() }),
        ..volume
    }
}

fn mount(name: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: format!("/requiem/{name}"),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

/// What the spec says; the defaults hold for resources that it names in neither list.
fn resources(
    wanted: &ContainerResources,
    requests: &[(&str, &str)],
    limits: &[(&str, &str)],
) -> ResourceRequirements {
    let unnamed = |name: &str| !wanted.requests.contains_key(name) && !wanted.limits.contains_key(name);
    let merged = |own: &BTreeMap<String, ByteQuantity>, defaults: &[(&str, &str)]| {
        let own = own.iter().map(|(name, value)| (name.clone(), Quantity(value.to_string())));
        let defaults = defaults.iter().filter(|(name, _)| unnamed(name));
        let defaults = defaults.map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned())));
        Some(defaults.chain(own).collect())
    };
    ResourceRequirements {
        requests: merged(&wanted.requests, requests),
        limits: merged(&wanted.limits, limits),
        claims: None,
    }
}

/// Over nodes, where that is possible: one node that goes takes few executors along.
fn spread(pool: &str) -> TopologySpreadConstraint {
    let labels = BTreeMap::from([(POOL_LABEL.to_owned(), pool.to_owned())]);
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(labels), match_expressions: None }),
        ..TopologySpreadConstraint::default()
    }
}

fn toleration(spec: &TolerationSpec) -> Toleration {
    Toleration {
        key: spec.key.clone(),
        operator: spec.operator.map(|operator| format!("{operator:?}")),
        value: spec.value.clone(),
        effect: spec.effect.map(|effect| format!("{effect:?}")),
        toleration_seconds: spec.toleration_seconds,
    }
}

fn pull_policy(pods: &PodsSpec) -> Option<String> {
    pods.image_pull_policy.map(|policy| format!("{policy:?}"))
}

fn filled<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key() -> Key {
        Key { namespace: "ns".into(), name: "default".into() }
    }

    fn spec_of(change: Value) -> PodsSpec {
        let mut spec = json!({"workloadImage": "busybox:1"});
        if let (Some(spec), Value::Object(change)) = (spec.as_object_mut(), change) {
            spec.extend(change);
        }
        serde_json::from_value(spec).unwrap()
    }

    fn built(change: Value) -> Value {
        let (pool, pods) = (key(), spec_of(change));
        let template = Template { pool: &pool, pods: &pods, image: "requiem.dev/executor:1", owner: None };
        serde_json::to_value(build(&template, 3)).unwrap()
    }

    fn hash(change: Value) -> String {
        let (pool, pods) = (key(), spec_of(change));
        fingerprint(&Template { pool: &pool, pods: &pods, image: "requiem.dev/executor:1", owner: None })
    }

    #[test]
    fn each_tier_asks_for_what_it_is_documented_to() {
        let local = json!({"type": "Localhost", "localhostProfile": "requiem/runner.json"});
        let default = json!({"type": "RuntimeDefault"});
        for (tier, host_users, proc_mount, profile) in [
            ("T1", false, json!("Unmasked"), &local),
            ("T2", false, Value::Null, &local),
            ("T3", true, Value::Null, &default),
        ] {
            let pod = built(json!({"tier": tier}));
            let (executor, workload) = (&pod["spec"]["initContainers"][0], &pod["spec"]["containers"][0]);
            assert_eq!(pod["spec"]["hostUsers"], host_users, "{tier}");
            assert_eq!(workload["securityContext"]["procMount"], proc_mount, "{tier}");
            assert_eq!(executor["securityContext"]["procMount"], Value::Null, "{tier}");
            for container in [executor, workload] {
                let security = &container["securityContext"];
                assert_eq!(&security["seccompProfile"], profile, "{tier}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{tier}");
                assert_eq!(
                    security["runAsUser"], USER,
                    "{tier}: an executor takes only its own user for a runner"
                );
                assert_eq!(security["allowPrivilegeEscalation"], false, "{tier}");
                assert_eq!(security["runAsNonRoot"], true, "{tier}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{tier}");
                assert_eq!(security["privileged"], Value::Null, "{tier}");
            }
        }
    }

    #[test]
    fn the_workload_sees_neither_store_nor_certificates_nor_a_token() {
        for store in [
            json!({}),
            json!({"hostPath": {"path": "/srv"}}),
            json!({"persistentVolumeClaim": {"claimName": "c"}}),
        ] {
            let pod = built(json!({"store": store}));
            assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
            assert_eq!(pod["spec"]["enableServiceLinks"], false);
            let mounts: Vec<(&str, bool)> = pod["spec"]["containers"][0]["volumeMounts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|mount| (mount["name"].as_str().unwrap(), mount["readOnly"].as_bool().unwrap()))
                .collect();
            assert_eq!(mounts, [("bin", true), ("run", false)]);
        }
    }

    #[test]
    fn a_store_that_stays_has_a_folder_for_each_pod() {
        let store = |change: Value| {
            let pod = built(json!({"store": change}));
            let args = pod["spec"]["initContainers"][0]["args"].as_array().unwrap().clone();
            let at = args.iter().position(|word| word == "--store").unwrap();
            (args[at + 1].as_str().unwrap().to_owned(), pod["spec"]["volumes"][2].clone())
        };
        let (folder, volume) = store(json!({"emptyDir": {"sizeLimit": "1Gi"}}));
        assert_eq!((folder.as_str(), &volume["emptyDir"]["sizeLimit"]), ("/requiem/store", &json!("1Gi")));
        let (folder, volume) = store(json!({"persistentVolumeClaim": {"claimName": "c"}}));
        assert_eq!(folder, "/requiem/store/default-executor-3");
        assert_eq!(volume["persistentVolumeClaim"]["claimName"], "c");
        let (folder, volume) = store(json!({"hostPath": {"path": "/srv/requiem"}}));
        assert_eq!(folder, "/requiem/store/default-executor-3");
        assert_eq!(volume["hostPath"]["path"], "/srv/requiem");
    }

    #[test]
    fn defaults_hold_for_resources_that_are_not_named() {
        let workload = |resources: Value| {
            let pod = built(json!({"resources": {"workload": resources}}));
            pod["spec"]["containers"][0]["resources"].clone()
        };
        assert_eq!(
            workload(json!({})),
            json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}})
        );
        assert_eq!(
            workload(json!({"limits": {"memory": "32Mi", "cpu": 2}})),
            json!({"requests": {}, "limits": {"memory": "32Mi", "cpu": "2"}})
        );
        assert_eq!(
            workload(json!({"requests": {"memory": "4Gi"}})),
            json!({"requests": {"cpu": "50m", "memory": "4Gi"}, "limits": {}})
        );
    }

    #[test]
    fn a_pod_has_time_to_drain_and_to_say_farewell() {
        let pod = built(json!({"drainSeconds": 100}));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 110);
        assert_eq!(pod["metadata"]["name"], "default-executor-3");
        assert_eq!(pod["metadata"]["labels"][POOL_LABEL], "default");
        assert_eq!(pod["metadata"]["labels"][TEMPLATE_LABEL], hash(json!({"drainSeconds": 100})));
    }

    #[test]
    fn what_would_change_a_pod_changes_the_hash_and_the_number_of_pods_does_not() {
        let before = hash(json!({}));
        assert_eq!(hash(json!({"replicas": 7})), before);
        for change in [
            json!({"tier": "T2"}),
            json!({"slots": 9}),
            json!({"workloadImage": "busybox:2"}),
            json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}),
            json!({"store": {"emptyDir": {"sizeLimit": 5}}}),
        ] {
            assert_ne!(hash(change.clone()), before, "{change}");
        }
    }

    #[test]
    fn names_and_numbers_belong_together() {
        assert_eq!(ordinal("p", &name("p", 12)), Some(12));
        for other in ["p-executor-", "p-executor-01", "p-executor-x", "q-executor-1", "p-executor--1", "p-1"]
        {
            assert_eq!(ordinal("p", other), None, "{other}");
        }
    }
}
