//! The alerts by themselves: promtool's cases, and their pages.

use std::process::Command;

use requiem_tests::Failure;
use requiem_tests::helm::documents;
use requiem_xtask::{packages, paths, process};
use serde_json::Value;

/// Where the alerts lie.
pub(crate) const ALERTS: &str = "charts/requiem/files/alerts.yaml";
const CASES: &str = "tests/monitoring/alerts.test.yaml";
const PAGE: &str = "docs/alerts.md";

fn read(path: &str) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(paths::repository().join(path))?)
}

fn yaml(path: &str) -> Result<Value, Failure> {
    documents(&read(path)?)?.into_iter().next().ok_or_else(|| format!("{path} is empty").into())
}

/// The alerts.
pub(crate) fn all() -> Result<Vec<Value>, Failure> {
    let rules = yaml(ALERTS)?["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    assert!(rules.len() >= 4, "{rules:?}");
    Ok(rules)
}

/// The expression of an alert as one that always has data: each comparison says 0 or 1 instead of leaving out.
pub(crate) fn without_threshold(expr: &str) -> String {
    let comparisons = ["==", "!=", "<", ">", "<=", ">="];
    let word =
        |word: &str| if comparisons.contains(&word) { format!("{word} bool") } else { word.to_owned() };
    expr.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_comparison_becomes_a_value() {
    assert_eq!(
        without_threshold("min(a{b=\"c\"})\n - time() < 14 * 86400"),
        "min(a{b=\"c\"}) - time() < bool 14 * 86400"
    );
}

#[test]
fn every_alert_fires_on_what_it_is_for_and_has_a_page() -> Result<(), Failure> {
    let mut judge = Command::new(packages::prometheus()?.promtool);
    process::output(judge.args(["test", "rules"]).arg(paths::repository().join(CASES)))?;
    let (cases, page) = (yaml(CASES)?, read(PAGE)?);
    let checks: Vec<&Value> = cases["tests"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|case| case["alert_rule_test"].as_array())
        .flatten()
        .collect();
    for rule in all()? {
        let name = rule["alert"].as_str().ok_or("an alert without a name")?;
        let of = |fires: bool| {
            checks
                .iter()
                .filter(|check| check["alertname"] == name)
                .any(|check| check["exp_alerts"].as_array().is_some_and(|alerts| alerts.is_empty() != fires))
        };
        assert!(of(true), "no case fires {name}");
        assert!(of(false), "no case keeps {name} silent");
        assert_eq!(rule["annotations"]["runbook"], format!("{PAGE}#{}", name.to_lowercase()));
        assert!(page.lines().any(|line| line == format!("## {name}")), "{name} has no part of {PAGE}");
    }
    Ok(())
}

/// The configuration that docs/monitoring.md shows is one that Prometheus takes. Debian's is built without the discovery of Kubernetes:
/// that one line is not judged.
#[test]
fn the_page_shows_a_configuration_that_prometheus_takes() -> Result<(), Failure> {
    let page = read("docs/monitoring.md")?;
    let block = page.split("```yaml\n").skip(1).find(|block| block.starts_with("scrape_configs:"));
    let block = block.and_then(|block| block.split_once("```")).ok_or("no scrape_configs on the page")?.0;
    let file = tempfile::NamedTempFile::new()?;
    let discovery = "kubernetes_sd_configs: [{role: pod}]";
    assert_eq!(block.matches(discovery).count(), 2);
    std::fs::write(&file, block.replace(discovery, "static_configs: [{targets: [localhost:1]}]"))?;
    let mut judge = Command::new(packages::prometheus()?.promtool);
    process::output(judge.args(["check", "config", "--syntax-only"]).arg(file.path()))?;
    Ok(())
}
