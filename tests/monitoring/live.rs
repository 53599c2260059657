//! Prometheus, operator and executor at work.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use requiem_crds::{ExecutionPolicy, ExecutorPool};
use requiem_tests::figures::{self, Figures};
use requiem_tests::{Bed, Failure, PATIENCE, client};
use requiem_xtask::paths;
use serde_json::{Value, json};

use super::alerts;
use super::dashboard;
use super::server::Prometheus;

/// What no metric may show.
const SECRET: &str = "canary-7c1e5b";

/// What is applied, as name and spec, and how each ends.
fn load() -> Vec<(&'static str, Value, &'static str)> {
    let shell = |line: &str| json!(["/bin/sh", "-c", line]);
    let env = json!([{"name": "TOKEN", "value": SECRET}]);
    vec![
        ("with-proof", json!({"command": ["true"], "proof": {"publish": "Always"}}), "Succeeded"),
        ("secretive", json!({"command": shell("echo $TOKEN; echo $TOKEN >&2"), "env": env}), "Succeeded"),
        ("output", json!({"command": shell("echo a > out"), "outputs": ["out"]}), "Succeeded"),
        ("original", json!({"command": shell("sleep 0.1; echo b"), "cache": "Use"}), "Succeeded"),
        ("again", json!({"command": shell("sleep 0.1; echo b"), "cache": "Use"}), "Succeeded"),
        ("failing", json!({"command": ["false"]}), "NonZeroExit"),
        ("endless", json!({"command": ["sleep", "60"], "timeoutSeconds": 1}), "TimedOut"),
        ("killed", json!({"command": shell("kill -9 $$")}), "Signalled"),
        ("absent", json!({"command": ["/no/such/program"]}), "CommandNotRunnable"),
        ("too-long", json!({"command": ["true"], "timeoutSeconds": 7200}), "PolicyViolation"),
    ]
}

/// Everything that the queries are about: an election, a policy, an authority for executors in pods, and one executor that works.
async fn bed() -> Result<Bed, Failure> {
    let bed = Bed::start("monitoring", |options| {
        let own = options.namespace.clone().expect("a bed has a namespace");
        let words =
            ["--leader-elect", "--executor-image", "example.invalid/executor:1", "--own-namespace", &own];
        options.operator_arguments = words.map(str::to_owned).to_vec();
    })
    .await?;
    let (client, namespace) = (client().await?, &bed.namespace);
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &account).await?;
    let policies: Api<ExecutionPolicy> = Api::namespaced(client.clone(), namespace);
    let policy = json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutionPolicy", "metadata": {"name": "team"},
        "spec": {"maxLimits": {"timeoutSeconds": 3600}},
    });
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    // There is no kubelet: its pod never starts, and that is enough for its certificate to be made.
    let pool: ExecutorPool = serde_json::from_value(json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "ExecutorPool", "metadata": {"name": "pods"},
        "spec": {"pods": {"replicas": 1, "tier": "T3", "workloadImage": "example.invalid/workload:1"}},
    }))?;
    bed.pools.create(&PostParams::default(), &pool).await?;
    Ok(bed)
}

fn scraped(bed: &Bed) -> Result<Prometheus, Failure> {
    let targets =
        [("requiem-operator", bed.stack.operator.admin()), ("requiem-executor", bed.stack.executor.admin())];
    Prometheus::start(&targets, &paths::repository().join(alerts::ALERTS))
}

/// Applies the load, one after the other, and sees each end as it should.
async fn work(bed: &Bed) -> Result<(), Failure> {
    for (name, spec, reason) in load() {
        let done = bed.run(name, spec).await?;
        let result = done.status.as_ref().and_then(|status| status.result);
        assert_eq!(result.map(|result| result.as_str()), Some(reason), "{name}: {:?}", done.status);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_dashboard_and_alerts_has_data_under_load() -> Result<(), Failure> {
    let bed = bed().await?;
    let prometheus = scraped(&bed)?;
    prometheus.reaches("count(up == 1)", 2.0).await?;
    prometheus
        .reaches("min(requiem_operator_certificate_expiry_timestamp_seconds{of=\"authority\"})", 1.0)
        .await?;
    // The counts were there before anything was counted, so the first of each kind is a step.
    let before = prometheus.value("count(requiem_operator_executions_finished_total == 0)")?;
    assert_eq!(before, Some(19.0));
    work(&bed).await?;
    let all = load().len() as f64;
    prometheus.reaches("sum(requiem_operator_executions_finished_total)", all).await?;
    prometheus.reaches("sum(requiem_executor_attempts_total)", all - 2.0).await?;
    let dashboard = dashboard::read()?;
    let empty = |queries: Vec<(String, String)>| -> Result<Vec<(String, String)>, Failure> {
        let mut empty = Vec::new();
        for (title, query) in queries {
            if prometheus.query(&query)?.is_empty() {
                empty.push((title, query));
            }
        }
        Ok(empty)
    };
    assert_eq!(empty(dashboard::queries(&dashboard, "1m"))?, []);
    let alerts = alerts::all()?;
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rules =
        alerts.iter().map(|rule| (words(&rule["alert"]), alerts::without_threshold(&words(&rule["expr"]))));
    assert_eq!(empty(rules.collect())?, []);
    counted(&prometheus)?;
    evaluated(&prometheus, alerts.len())?;
    shown(&bed).await
}

/// What happened is what is counted.
fn counted(prometheus: &Prometheus) -> Result<(), Failure> {
    let reasons: BTreeSet<&str> = load().iter().map(|(_, _, reason)| *reason).collect();
    for reason in reasons {
        let count = load().iter().filter(|(_, _, other)| *other == reason).count() as f64;
        let query = format!("requiem_operator_executions_finished_total{{reason={reason:?}}}");
        assert_eq!(prometheus.value(&query)?, Some(count), "{reason}");
        let seen = prometheus.value(&format!("increase({query}[5m]) > 0"))?;
        assert!(seen.is_some(), "increase sees no {reason}");
    }
    for (query, expected) in [
        ("requiem_operator_cache_total{result=\"hit\"}", 1.0),
        ("requiem_operator_policy_refusals_total{kind=\"ExecutionPolicy\",rule=\"maxLimits\"}", 1.0),
        ("requiem_operator_leader", 1.0),
        ("requiem_operator_executors{state=\"present\"}", 1.0),
        ("requiem_operator_executors{state=\"away\"}", 0.0),
        ("requiem_executor_slots", 2.0),
        ("requiem_executor_runner_connected", 1.0),
        ("requiem_executor_queue_seconds_count", load().len() as f64 - 2.0),
        ("requiem_operator_pods_total{action=\"created\",reason=\"Missing\"}", 1.0),
        (
            "sum(requiem_executor_layer_status) == bool count(count by (layer) (requiem_executor_layer_status))",
            1.0,
        ),
        ("sum(requiem_executor_store_puts_total) > bool 0", 1.0),
    ] {
        assert_eq!(prometheus.value(query)?, Some(expected), "{query}");
    }
    Ok(())
}

/// Prometheus itself has read every alert, and none has an error.
fn evaluated(prometheus: &Prometheus, count: usize) -> Result<(), Failure> {
    let groups = prometheus.get("rules?type=alert")?;
    let rules = groups["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    assert_eq!(rules.len(), count, "{groups}");
    for rule in rules {
        assert_eq!((rule["health"].as_str(), rule["lastError"].as_str()), (Some("ok"), None), "{rule}");
    }
    Ok(())
}

/// What is served is what the catalogue lists, down to the values of labels; and nothing of an Execution, and no secret, is in it.
async fn shown(bed: &Bed) -> Result<(), Failure> {
    let mut hidden = vec![SECRET.to_owned(), bed.namespace.clone()];
    for (name, _, _) in load() {
        hidden.extend(bed.executions.get(name).await?.metadata.uid);
        hidden.push(format!("\"{name}\""));
    }
    let secrets: Api<Secret> = Api::namespaced(client().await?, &bed.namespace);
    assert!(!secrets.list(&Default::default()).await?.items.is_empty(), "there is no authority");
    for (service, catalogue) in
        [(&bed.stack.operator, figures::of_operator()?), (&bed.stack.executor, figures::of_executor()?)]
    {
        let text = service.get("/metrics")?;
        assert_eq!(unlisted(&figures::read(&text)?, &catalogue), Vec::<String>::new());
        for word in &hidden {
            assert!(!text.contains(word.as_str()), "{word} is in a metric");
        }
    }
    Ok(())
}

/// Metrics and values of labels in `served` that are not in `catalogue`.
fn unlisted(served: &Figures, catalogue: &Figures) -> Vec<String> {
    let mut found = Vec::new();
    for (name, figure) in served {
        let Some(listed) = catalogue.get(name) else {
            found.push(name.clone());
            continue;
        };
        for (label, values) in &figure.labels {
            let known = listed.labels.get(label).cloned().unwrap_or_default();
            found.extend(values.difference(&known).map(|value| format!("{name}{{{label}={value:?}}}")));
        }
    }
    found
}

#[test]
fn a_value_that_is_not_listed_is_found() -> Result<(), Failure> {
    let text = |value: &str| format!("# HELP a b\n# TYPE a counter\na{{c=\"{value}\"}} 1\n");
    let (served, catalogue) = (figures::read(&text("x"))?, figures::read(&text("y"))?);
    assert_eq!(unlisted(&served, &catalogue), ["a{c=\"x\"}"]);
    assert_eq!(unlisted(&served, &Figures::new()), ["a"]);
    Ok(())
}

/// The executor is killed: the one alert that is about it sees that, after the first call.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_away_is_counted() -> Result<(), Failure> {
    let mut bed = Bed::start("away", |_| {}).await?;
    let prometheus = scraped(&bed)?;
    prometheus.reaches("requiem_operator_executors{state=\"present\"}", 1.0).await?;
    bed.stack.executor.kill()?;
    bed.create("waiting", json!({"command": ["true"]})).await?;
    prometheus.reaches("sum(requiem_operator_executors{state=\"away\"})", 1.0).await?;
    prometheus
        .reaches("ALERTS{alertname=\"RequiemExecutorsUnreachable\",alertstate=\"pending\"}", 1.0)
        .await?;
    bed.stack.executor.launch()?;
    bed.terminal(&["waiting".to_owned()], PATIENCE).await?;
    prometheus.reaches("requiem_operator_executors{state=\"present\"}", 1.0).await?;
    Ok(())
}
