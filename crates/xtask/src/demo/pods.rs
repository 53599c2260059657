//! The demo on a real node: the images go into it, and Helm installs the chart as a user would.

use super::NAMESPACE;
use super::site::Site;
use crate::cargo::Profile;
use crate::images::{self, payload};
use crate::progress::{Step, print};
use crate::{Result, paths};

/// Where the operator runs.
const SYSTEM: &str = "requiem-system";
const RELEASE: &str = "requiem";

/// Both namespaces, each with the pod security that its pods need and no less.
const NAMESPACES: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: requiem-system
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: Namespace
metadata:
  name: requiem-demo
  labels: {pod-security.kubernetes.io/enforce: baseline}
"#;

/// Gives the node its images, installs the chart with a pool of one pod in the best tier, and waits for it.
pub(crate) fn install(site: &Site) -> Result<()> {
    images::give(&site.nodes()?, &site.folder().join("images"), Profile::Trial)?;
    let step = Step::begin("install the chart, and wait until operator and executor are ready");
    site.apply(NAMESPACES)?;
    let chart = paths::repository().join("charts/requiem").display().to_string();
    let workload = format!("pool.workloadImage={}", payload::NAME);
    let mut words = vec!["install", RELEASE, &chart, "--namespace", SYSTEM, "--wait", "--timeout", "5m"];
    let pool = format!("pool.namespace={NAMESPACE}");
    let values = [
        "image.pullPolicy=IfNotPresent",
        "pool.create=true",
        &pool,
        &workload,
        "pool.tier=T1",
        "pool.resources.workload.limits.memory=1Gi",
    ];
    values.iter().for_each(|value| words.extend(["--set", value]));
    let notes = site.helm(&words)?;
    step.done();
    print("");
    print(notes.trim_end());
    Ok(())
}

/// Who runs where.
pub(crate) fn table(site: &Site) -> Result<()> {
    print("");
    print("$ kubectl get executorpools,pods --all-namespaces");
    print(site.kubectl(&["get", "executorpools,pods", "--all-namespaces"])?.trim_end());
    Ok(())
}

/// `helm test`: an Execution with rights of its own, and its proof.
pub(crate) fn test(site: &Site) -> Result<()> {
    print("");
    print("$ helm test requiem --logs");
    print(site.helm(&["test", RELEASE, "--namespace", SYSTEM, "--logs", "--timeout", "3m"])?.trim_end());
    Ok(())
}
