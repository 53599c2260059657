//! What the demo shows, and what it holds to: endings as promised, equal digests of equal work, a proof that verifies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::samples::Sample;
use super::site::Site;
use crate::progress::print;
use crate::{Error, Result, process};

/// `kubectl get exn`.
pub(crate) fn table(site: &Site) -> Result<()> {
    print("");
    print("$ kubectl get exn");
    print(site.kubectl(&["get", "exn"])?.trim_end());
    Ok(())
}

/// Every sample ended as its comment says.
pub(crate) fn endings(site: &Site, samples: &[Sample]) -> Result<()> {
    let list = json(&site.kubectl(&["get", "exn", "--output", "json"])?);
    for sample in samples.iter().filter(|sample| !sample.endings.is_empty()) {
        let reason = items(&list).find(|item| item["metadata"]["name"] == *sample.name).and_then(reason);
        if !reason.is_some_and(|reason| sample.endings.iter().any(|ending| ending == reason)) {
            return Err(Error::check(
                format!(
                    "Sample {} ended with {reason:?}, its comment promises {:?}",
                    sample.name, sample.endings
                ),
                format!("Look at it: `cargo xtask demo --keep`, then `kubectl describe exn {}`", sample.name),
            ));
        }
    }
    print("Every sample ended as its file says.");
    Ok(())
}

/// One status in full.
pub(crate) fn status(site: &Site, name: &str) -> Result<()> {
    let object = json(&site.kubectl(&["get", "exn", name, "--output", "json"])?);
    print("");
    print(&format!("$ kubectl get exn {name} -o json | jq .status"));
    print(&serde_json::to_string_pretty(&object["status"]).unwrap_or_default());
    Ok(())
}

/// The same work under two nonces gave the same bytes.
pub(crate) fn twins(site: &Site, one: &str, other: &str) -> Result<()> {
    let outputs = |name: &str| -> Result<Value> {
        let object = json(&site.kubectl(&["get", "exn", name, "--output", "json"])?);
        Ok(serde_json::json!([object["status"]["outputs"], object["status"]["stdout"]["digest"]]))
    };
    let (first, second) = (outputs(one)?, outputs(other)?);
    if first != second || first[0].as_array().is_none_or(Vec::is_empty) {
        return Err(Error::check(
            format!("{one} and {other} did the same work and gave different outputs: {first} and {second}"),
            "One of the sources of randomness is not under control; compare the two outputs",
        ));
    }
    print("");
    print(&format!(
        "{one} and {other} built SQLite and ran the workload, each on its own: equal outputs, {}",
        first[0]
    ));
    Ok(())
}

/// How long it takes to make 128 MiB ready for a run when the store is warm: one attempt alone, by the executor's metrics.
pub(crate) fn staging(site: &Site, again: &Path) -> Result<()> {
    let before = StageTime::read(site)?;
    site.kubectl(&["apply", "--server-side", "--filename", &again.display().to_string()])?;
    site.kubectl(&["wait", "--for=condition=Succeeded", "--timeout=60s", "execution/records-again"])?;
    let after = StageTime::read(site)?;
    if after.count != before.count + 1.0 {
        return Err(Error::check(
            "Another attempt ran at the same time",
            "Measure again with nothing else in the namespace",
        ));
    }
    let milliseconds = (after.sum - before.sum) * 1e3;
    print(&format!("Staging the 128 MiB of records for one more run took {milliseconds:.3} ms."));
    Ok(())
}

/// The executor's histogram of staging times.
#[derive(Debug, Clone, Copy)]
struct StageTime {
    sum: f64,
    count: f64,
}

impl StageTime {
    fn read(site: &Site) -> Result<Self> {
        let metrics = site.executor_metrics()?;
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).ok_or_else(|| {
                Error::check(format!("The executor has no metric {name}"), "Look at its /metrics")
            })
        };
        Ok(Self {
            sum: value("requiem_executor_stage_seconds_sum")?,
            count: value("requiem_executor_stage_seconds_count")?,
        })
    }
}

/// The ProofBundle of `name`, as kubectl gives it, in a file.
pub(crate) fn fetch_proof(site: &Site, name: &str) -> Result<PathBuf> {
    let object = json(&site.kubectl(&["get", "exn", name, "--output", "json"])?);
    let bundle = object["status"]["proofBundleRef"]["name"].as_str().unwrap_or(name).to_owned();
    site.kubectl(&["wait", "--for=condition=Verified", "--timeout=60s", "proofbundle", &bundle])?;
    let text = site.kubectl(&["get", "proofbundle", &bundle, "--output", "json"])?;
    let file = super::proof_file()?;
    let doing = || Error::io(format!("write {}", file.display()));
    file.parent().map_or(Ok(()), fs::create_dir_all).map_err(doing())?;
    fs::write(&file, text).map_err(doing())?;
    print("");
    print(&format!("$ kubectl get proofbundle {bundle} -o json > {}", super::shown(&file)));
    Ok(file)
}

/// `requiem proof verify`.
pub(crate) fn verify(requiem: &Path, proof: &Path, when: &str) -> Result<()> {
    print("");
    print(&format!("$ requiem proof verify {}      # {when}", super::shown(proof)));
    // Without a kubeconfig: a verification that asked a cluster would fail here.
    let mut command = Command::new(requiem);
    command.args(["proof", "verify"]).arg(proof).env("KUBECONFIG", "/nonexistent");
    print(process::output(&mut command)?.trim_end());
    Ok(())
}

fn reason(item: &Value) -> Option<&str> {
    let conditions = item["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")?["reason"].as_str()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn json(text: &str) -> Value {
    // kubectl writes JSON; were it otherwise, the look-ups that follow find nothing and say so.
    serde_json::from_str(text).unwrap_or_default()
}
