//! The chart without a node: what it renders, what it refuses, and that a real API server takes all of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use requiem_tests::Failure;
use requiem_tests::helm::{documents, helm, kubectl, kubectl_command};
use requiem_xtask::paths;
use serde_json::{Value, json};

const CHART: &str = "charts/requiem";

/// Labels that only the chart gives.
const CHART_LABELS: [&str; 4] = [
    "helm.sh/chart",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "app.kubernetes.io/part-of",
];

/// The chart in every shape that changes what is rendered; `NS` is the namespace of the test.
const SHAPES: [(&str, &[&str]); 9] = [
    ("default", &[]),
    ("namespaced", &["watchNamespace=NS", "rbac.aggregate=false"]),
    ("namespaced-policies", &["watchNamespace=NS", "clusterPolicies=true"]),
    ("replicas", &["replicas=2", "operator.adminAddress=::"]),
    ("pool", &["pool.create=true", "pool.workloadImage=busybox:1", "pool.store.emptyDir.sizeLimit=1Gi"]),
    (
        "pool-restricted",
        &[
            "pool.create=true",
            "pool.tier=T3",
            "pool.workloadImage=busybox:1",
            "pool.store.persistentVolumeClaim.claimName=store",
            "pool.resources.workload.limits.memory=2Gi",
            "pool.nodeSelector.kind=sandbox",
            "pool.tolerations[0].key=sandbox",
            "pool.tolerations[0].operator=Exists",
        ],
    ),
    (
        "placed",
        &[
            "operator.priorityClassName=system-cluster-critical",
            "operator.nodeSelector.a=b",
            "operator.tolerations[0].operator=Exists",
            "operator.podAnnotations.a=b",
            "operator.serviceAccountAnnotations.a=b",
            "operator.fixedExecutorsSecret=executors",
            "image.pullSecrets[0].name=registry",
            "image.digests.operator=sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ],
    ),
    (
        "walled",
        &[
            "networkPolicy.executorNamespaces={NS}",
            "networkPolicy.executorMetricsFrom[0].namespaceSelector.matchLabels.a=b",
        ],
    ),
    ("bare", &["networkPolicy.enabled=false", "metrics.service=false", "crds.upgrade=false"]),
];

/// Values that must be refused, and the words that say why.
const REFUSED: [(&str, &str); 9] = [
    ("rplicas=2", "rplicas"),
    ("operator.resources.limit.memory=1Gi", "limit"),
    ("replicas=0", "/replicas"),
    ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
    ("pool.tier=T4", "/pool/tier"),
    ("pool.create=true", "pool.workloadImage must be given"),
    ("operator.adminPort=80", "/operator/adminPort"),
    ("image.digests.cli=latest", "/image/digests/cli"),
    ("watchNamespace=Team_A", "/watchNamespace"),
];

/// The arguments of helm that set `values`, in which `NS` is `namespace`.
fn set(values: &[&str], namespace: &str) -> Vec<String> {
    values.iter().flat_map(|value| ["--set".to_owned(), value.replace("NS", namespace)]).collect()
}

fn with(arguments: &[&str], values: &[&str], namespace: &str) -> Result<String, Failure> {
    let values = set(values, namespace);
    let arguments: Vec<&str> = arguments.iter().copied().chain(values.iter().map(String::as_str)).collect();
    helm(&arguments)
}

fn rendered(namespace: &str, values: &[&str]) -> Result<String, Failure> {
    with(&["template", "requiem", CHART, "--namespace", namespace], values, namespace)
}

#[test]
fn the_chart_is_linted() -> Result<(), Failure> {
    for (_, values) in SHAPES {
        let said = with(&["lint", "--strict", CHART], values, "team")?;
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
    Ok(())
}

#[test]
fn values_that_are_wrong_are_refused_by_name() -> Result<(), Failure> {
    for (value, words) in REFUSED {
        let answer = rendered("requiem-system", &[value]);
        let said = answer.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(words), "{value}: {said:?} does not say {words:?}");
    }
    Ok(())
}

#[test]
fn the_schema_knows_every_value_and_no_other() -> Result<(), Failure> {
    let chart = paths::repository().join(CHART);
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(chart.join("values.schema.json"))?)?;
    let values: Value = serde_norway::from_str(&std::fs::read_to_string(chart.join("values.yaml"))?)?;
    compare_keys("", &schema, &values);
    let open = open_objects("", &schema);
    // Helm's own, and what the API server checks in an affinity.
    let expected = ["/properties/global"].map(str::to_owned).into_iter();
    let affinity = ["nodeAffinity", "podAffinity", "podAntiAffinity"];
    let path = "/properties/operator/properties/affinity/properties";
    let expected = expected.chain(affinity.iter().map(|name| format!("{path}/{name}")));
    let (mut open, mut expected) = (open, expected.collect::<Vec<_>>());
    open.sort();
    expected.sort();
    assert_eq!(open, expected, "objects that take anything");
    Ok(())
}

/// Every value has a place in the schema, and the other way round.
fn compare_keys(path: &str, schema: &Value, values: &Value) {
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object()) else {
        return;
    };
    for (name, value) in values {
        assert!(properties.contains_key(name), "{path}.{name} is not in the schema");
        compare_keys(&format!("{path}.{name}"), &properties[name], value);
    }
    // Below an empty value is what a user may give, not what there is.
    let missing = properties.keys().find(|name| !values.contains_key(*name) && *name != "global");
    assert!(
        missing.is_none() || values.is_empty(),
        "{path}.{} has no default",
        missing.map_or("", |name| name)
    );
}

/// Objects of a schema that say nothing about members they do not name.
fn open_objects(path: &str, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if schema["type"] == "object" && schema.get("additionalProperties").is_none() {
        found.push(path.to_owned());
    }
    let below: Box<dyn Iterator<Item = (String, &Value)>> = match schema {
        Value::Object(members) => Box::new(members.iter().map(|(name, value)| (name.clone(), value))),
        Value::Array(items) => Box::new(items.iter().enumerate().map(|(at, value)| (at.to_string(), value))),
        _ => return found,
    };
    below.for_each(|(name, value)| found.extend(open_objects(&format!("{path}/{name}"), value)));
    found
}

/// Objects by kind and name, without what only the chart says.
fn normalised(text: &str) -> Result<BTreeMap<String, Value>, Failure> {
    let mut found = BTreeMap::new();
    for mut object in documents(text)? {
        if object["kind"] == "Namespace" {
            continue;
        }
        strip(&mut object["metadata"]);
        if object["kind"] == "Deployment" {
            strip(&mut object["spec"]["template"]["metadata"]);
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        assert!(found.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    Ok(found)
}

fn strip(metadata: &mut Value) {
    let Some(metadata) = metadata.as_object_mut() else { return };
    for (part, prefixes) in [("labels", &CHART_LABELS[..]), ("annotations", &["helm.sh/hook"][..])] {
        if let Some(map) = metadata.get_mut(part).and_then(Value::as_object_mut) {
            map.retain(|name, _| !prefixes.iter().any(|prefix| name.starts_with(prefix)));
            if map.is_empty() {
                metadata.remove(part);
            }
        }
    }
}

#[test]
fn kustomize_renders_the_same_objects() -> Result<(), Failure> {
    let chart = normalised(&rendered("requiem-system", &[])?)?;
    let kustomize = normalised(&kubectl(&["kustomize", "config/default"])?)?;
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&kustomize));
    for (name, object) in &chart {
        assert_eq!(difference("", object, &kustomize[name]), None, "{name}");
    }
    Ok(())
}

/// The first place where two documents differ, if any. YAML of two writers has 0 and 0.0 for the same.
fn difference(path: &str, one: &Value, other: &Value) -> Option<String> {
    let below = |pairs: Vec<(String, &Value, &Value)>| {
        pairs.into_iter().find_map(|(name, one, other)| difference(&format!("{path}/{name}"), one, other))
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) if one.keys().eq(other.keys()) => {
            below(one.iter().map(|(name, value)| (name.clone(), value, &other[name])).collect())
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => below(
            one.iter()
                .zip(other)
                .enumerate()
                .map(|(at, (one, other))| (at.to_string(), one, other))
                .collect(),
        ),
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => None,
        _ if one == other => None,
        _ => Some(format!("{path}: {one} in the chart, {other} in config/default")),
    }
}

#[test]
fn the_rights_are_few_whatever_the_values() -> Result<(), Failure> {
    let mut rules = 0;
    for (shape, values) in SHAPES {
        for object in documents(&rendered("requiem-system", values)?)? {
            for rule in object["rules"].as_array().into_iter().flatten() {
                let has = |field: &str, word: &str| {
                    rule[field].as_array().is_some_and(|all| all.iter().any(|one| one == word))
                };
                rules += 1;
                let any = ["apiGroups", "resources", "verbs"].iter().any(|field| has(field, "*"));
                assert!(!any, "{shape}: {rule} is a wildcard");
                let named = rule["resourceNames"].as_array().is_some_and(|names| !names.is_empty());
                assert!(!has("resources", "secrets") || named, "{shape}: {rule} is about every Secret");
                assert!(!has("resources", "secrets") || !has("verbs", "list"), "{shape}: {rule}");
                assert!(!has("resources", "pods/exec"), "{shape}: {rule}");
            }
        }
    }
    assert!(rules > 50, "{rules} rules were looked at");
    Ok(())
}

#[test]
fn one_namespace_needs_no_right_in_another() -> Result<(), Failure> {
    let objects = documents(&rendered("requiem-system", &["watchNamespace=team", "rbac.aggregate=false"])?)?;
    let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert!(!kinds.contains(&"ClusterRole") && !kinds.contains(&"ClusterRoleBinding"), "{kinds:?}");
    let role =
        objects.iter().find(|object| object["kind"] == "Role" && object["metadata"]["namespace"] == "team");
    let all = documents(&rendered("requiem-system", &[])?)?;
    let cluster = all
        .iter()
        .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "requiem-operator");
    let (role, cluster) = (role.ok_or("no Role")?, cluster.ok_or("no ClusterRole")?);
    // What no Role can give; an operator of one namespace does not ask for it.
    let beyond = json!(["clusterexecutionpolicies"]);
    let rules = cluster["rules"].as_array().ok_or("no rules")?;
    let within: Vec<&Value> = rules.iter().filter(|rule| rule["resources"] != beyond).collect();
    assert_eq!(within.len() + 1, rules.len());
    assert_eq!(role["rules"], json!(within));
    Ok(())
}

#[test]
fn one_namespace_may_be_bound_by_policies_of_the_cluster() -> Result<(), Failure> {
    let beyond = |values: &[&str]| -> Result<(Vec<Value>, bool), Failure> {
        let objects = documents(&rendered("requiem-system", values)?)?;
        let roles = objects.iter().filter(|object| object["kind"] == "ClusterRole");
        let rules = roles.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()).collect();
        Ok((rules, json!(objects).to_string().contains("\"--cluster-policies\"")))
    };
    let within = ["watchNamespace=team", "rbac.aggregate=false"];
    assert_eq!(beyond(&within)?, (vec![], false));
    let read = json!({
        "apiGroups": ["requiem.dev"], "resources": ["clusterexecutionpolicies"], "verbs": ["get", "list", "watch"],
    });
    assert_eq!(beyond(&[within[0], within[1], "clusterPolicies=true"])?, (vec![read], true));
    // An operator of all namespaces obeys them anyway, by the role that it has.
    let (plain, told) =
        (rendered("requiem-system", &[])?, rendered("requiem-system", &["clusterPolicies=true"])?);
    assert_eq!(plain, told);
    Ok(())
}

/// The API server takes every object in every shape, has nothing to warn of, and knows every field. The namespace allows
/// restricted pods only.
#[test]
fn a_real_server_takes_every_shape() -> Result<(), Failure> {
    let namespace = format!("chart-{}", std::process::id());
    let level =
        ["enforce", "warn"].map(|mode| (format!("pod-security.kubernetes.io/{mode}"), json!("restricted")));
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": Value::Object(level.into_iter().collect())},
    });
    send(&["create", "--filename", "-"], &object.to_string())?;
    kubectl(&["apply", "--server-side", "--force-conflicts", "--kustomize", "config/crd"])?;
    kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd/executorpools.requiem.dev"])?;
    // A pod is admitted only with its account.
    kubectl(&["create", "serviceaccount", "requiem-test", "--namespace", &namespace])?;
    for (shape, values) in SHAPES {
        let text = rendered(&namespace, values)?;
        let count = documents(&text)?.len();
        let dry = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "--filename",
            "-",
        ];
        let (said, warned) = send(&dry, &text)?;
        assert_eq!(said.lines().count(), count, "{shape}: {said}");
        assert_eq!(warned, "", "{shape}");
    }
    Ok(())
}

/// Runs kubectl with `text` as its standard input; what it said on both outputs.
fn send(arguments: &[&str], text: &str) -> Result<(String, String), Failure> {
    let mut command = kubectl_command(arguments)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no standard input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{command:?}: {}\n{}", said.0, said.1).into())
    }
}

/// What the chart renders for monitoring is what the files say, and a Prometheus that could not reach executors is refused. The rules
/// and the dashboard themselves are judged by the suite `monitoring`.
#[test]
fn monitoring_is_rendered_as_it_is_in_the_files() -> Result<(), Failure> {
    let page = std::fs::read_to_string(paths::repository().join("docs/monitoring.md"))?;
    let command =
        page.split("```sh\n").nth(1).and_then(|block| block.split_once("```")).ok_or("no command")?.0;
    // As a shell would: a backslash that is escaped is one.
    let words: Vec<String> = command.split_whitespace().map(|word| word.replace("\\\\", "\\")).collect();
    let said = words.iter().zip(words.iter().skip(1)).filter(|(flag, _)| *flag == "--set");
    let shown: Vec<&str> = said.map(|(_, value)| value.as_str()).collect();
    let values: Vec<&str> = shown.iter().copied().filter(|value| value.starts_with("metrics.")).collect();
    assert_eq!((values.len(), shown.len()), (3, 4), "{shown:?}");
    let objects = documents(&rendered("team", &[&shown[..], &["metrics.dashboard.enabled=true"]].concat())?)?;
    let the = |kind: &str| objects.iter().find(|object| object["kind"] == kind).ok_or(format!("no {kind}"));
    let file =
        |name: &str| std::fs::read_to_string(paths::repository().join("charts/requiem/files").join(name));
    let rules = documents(&file("alerts.yaml")?)?;
    assert_eq!(the("PrometheusRule")?["spec"], rules[0]);
    let board =
        objects.iter().find(|object| object["data"]["requiem.json"].is_string()).ok_or("no dashboard")?;
    assert_eq!(board["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = board["data"]["requiem.json"].as_str().unwrap_or_default();
    assert_eq!(text, file("dashboard.json")?.trim_end());
    let monitor = &the("PodMonitor")?["spec"];
    assert_eq!(monitor["namespaceSelector"], json!({"any": true}));
    assert_eq!(monitor["podMetricsEndpoints"][0]["port"], "admin");
    let error = rendered("team", &values).err().ok_or("executors that nobody can scrape are taken")?;
    assert!(error.to_string().contains("networkPolicy.executorMetricsFrom"), "{error}");
    Ok(())
}

#[test]
fn the_notes_say_the_next_command() -> Result<(), Failure> {
    let notes = |values: &[&str]| -> Result<String, Failure> {
        let install = ["install", "requiem", CHART, "--dry-run=client", "--namespace", "requiem-system"];
        let said = with(&install, values, "team")?;
        Ok(said.split_once("NOTES:").ok_or("no notes")?.1.to_owned())
    };
    let pool = notes(&["pool.create=true", "pool.workloadImage=busybox:1"])?;
    assert!(pool.contains("helm -n requiem-system test requiem --logs"), "{pool}");
    assert!(pool.contains("ProfileMissing"), "{pool}");
    let without = notes(&[])?;
    assert!(without.contains("kind: ExecutorPool") && !without.contains("helm -n"), "{without}");
    Ok(())
}
