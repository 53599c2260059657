//! What chart and kustomize render, by the types of every release of Kubernetes that the chart names: each field exists there,
//! once, with its type. That of 1.37 is shown by the suites with a cluster. What these types do not say (ranges, rules between
//! fields, CEL) only a server of that release could.

use std::process::{Command, Output, Stdio};

use requiem_tests::Failure;
use requiem_tests::helm::documents;
use requiem_xtask::tools::{self, Family, SCHEMAS};
use requiem_xtask::{paths, process};
use serde_json::{Value, json};

/// Everything that the chart can render, in as few renderings as its alternatives allow.
const SHAPES: [&[&str]; 3] = [
    &[],
    &[
        "replicas=2",
        "watchNamespace=team",
        "clusterPolicies=true",
        "pool.create=true",
        "pool.workloadImage=busybox:1",
        "profileInstaller.enabled=true",
        "profileInstaller.tolerations[0].operator=Exists",
        "networkPolicy.executorMetricsFrom[0].podSelector.matchLabels.a=b",
        "metrics.serviceMonitor.enabled=true",
        "metrics.podMonitor.enabled=true",
        "metrics.dashboard.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "operator.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=a",
        "operator.fixedExecutorsSecret=executors",
        "operator.nodeSelector.a=b",
        "operator.priorityClassName=system-cluster-critical",
        "operator.podAnnotations.a=b",
        "operator.serviceAccountAnnotations.a=b",
        "operator.tolerations[0].key=a",
        "image.pullSecrets[0].name=registry",
    ],
    &[
        "replicas=3",
        "operator.topologySpreadConstraints[0].maxSkew=1",
        "operator.topologySpreadConstraints[0].topologyKey=zone",
        "operator.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
        "networkPolicy.executorNamespaces={team}",
    ],
];

/// Kinds of ours, and of the Prometheus operator.
const FOREIGN: [&str; 5] = ["Execution", "ExecutorPool", "ServiceMonitor", "PodMonitor", "PrometheusRule"];

/// Folders that are applied by kustomize.
const FOLDERS: [&str; 2] = ["config/default", "config/samples"];

fn release(family: &Family) -> &'static str {
    family.name.strip_prefix("schema-").unwrap_or(family.name)
}

/// The chart in one shape, as Helm renders it for `release`.
fn rendered(shape: &[&str], release: &str) -> Result<Vec<Value>, Failure> {
    let mut helm = Command::new(tools::helm()?);
    helm.args(["template", "requiem", "charts/requiem", "--namespace", "requiem-system"]);
    helm.args(["--kube-version", release]).current_dir(paths::repository());
    shape.iter().for_each(|value| {
        helm.args(["--set", value]);
    });
    documents(&process::output(&mut helm)?)
}

fn kustomized(folder: &str) -> Result<Vec<Value>, Failure> {
    let mut kubectl = Command::new(tools::control_plane()?.kubectl);
    documents(&process::output(kubectl.args(["kustomize", folder]).current_dir(paths::repository()))?)
}

/// Has the types of `family`'s release judge `objects`: what it said, and whether all fit.
fn judge(family: &Family, objects: &[Value]) -> Result<(String, bool), Failure> {
    let file = tempfile::tempfile()?;
    serde_json::to_writer(&file, objects)?;
    std::io::Seek::rewind(&mut &file)?;
    let mut judge = Command::new(tools::ensure(family)?.join("schema"));
    let Output { status, stdout, stderr } = judge.stdin(Stdio::from(file)).output()?;
    let said = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
    assert!(said.starts_with(&format!("release\tv0.{}", &release(family)[2..])), "{said}");
    Ok((said, status.success()))
}

#[test]
fn every_manifest_fits_every_release() -> Result<(), Failure> {
    for family in &SCHEMAS {
        let mut objects = Vec::new();
        for shape in SHAPES {
            objects.extend(rendered(shape, release(family))?);
        }
        for folder in FOLDERS {
            objects.extend(kustomized(folder)?);
        }
        let (said, fits) = judge(family, &objects)?;
        assert!(fits, "Kubernetes {}: {said}", release(family));
        let count = |verdict: &str| said.lines().filter(|line| line.starts_with(verdict)).count();
        assert_eq!(count("ok\t") + count("foreign\t"), objects.len(), "{said}");
        // What is not Kubernetes' own is judged by our definitions, on a real server, or by their owners.
        let foreign = said.lines().filter_map(|line| line.strip_prefix("foreign\t")?.split(' ').next());
        let strangers: Vec<&str> = foreign.filter(|kind| !FOREIGN.contains(kind)).collect();
        assert!(strangers.is_empty(), "{strangers:?}");
        assert!(count("ok\t") > 50, "{said}");
    }
    Ok(())
}

#[test]
fn a_field_that_does_not_exist_is_found() -> Result<(), Failure> {
    let pod =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec});
    // hostnameOverride came with 1.34.
    let newer = [pod(json!({"containers": [], "hostnameOverride": "b"}))];
    let (said, fits) = judge(&SCHEMAS[0], &newer)?;
    assert!(!fits && said.contains("error\tPod a: ") && said.contains("\"spec.hostnameOverride\""), "{said}");
    let (said, fits) = judge(&SCHEMAS[1], &newer)?;
    assert!(fits, "{said}");
    for (wrong, why) in [
        (pod(json!({"containers": [], "restartPolice": "Never"})), "unknown field"),
        (pod(json!({"containers": {}})), "cannot unmarshal"),
        (
            json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "a"}}),
            "no kind",
        ),
    ] {
        let (said, fits) = judge(&SCHEMAS[3], &[wrong])?;
        assert!(!fits && said.contains(why), "{said}");
    }
    Ok(())
}

#[test]
fn an_older_kubernetes_is_refused_by_the_chart() -> Result<(), Failure> {
    let error = rendered(&[], "1.32").err().ok_or("1.32 is taken")?.to_string();
    assert!(error.contains(">=1.33.0-0"), "{error}");
    Ok(())
}
