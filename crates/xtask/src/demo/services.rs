//! Executor and operator as processes beside the control plane, with certificates of an authority made for this run.

use std::process::Command;

use serde_json::json;

use super::site::Site;
use crate::pki::{self, DevelopmentCertificates};
use crate::process::{spawn_logged, wait_ready};
use crate::progress::Step;
use crate::{Result, http, prerequisites};

/// A running executor.
pub(crate) struct Executor {
    /// Where it listens for the operator.
    url: String,
    /// Where it tells its health and metrics.
    pub(crate) admin: u16,
}

/// Starts both, and the pool that brings them together; returns when the pool is ready.
pub(crate) fn start(site: &mut Site) -> Result<Executor> {
    let mut step = Step::begin("start requiem-executor and requiem-operator");
    let certificates = pki::development(&site.folder().join("certificates"))?;
    let executor = start_executor(site, &certificates, &mut step)?;
    start_operator(site, &certificates, &mut step)?;
    site.apply(&pool(&executor.url))?;
    site.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "executorpool/default"])?;
    step.done();
    Ok(executor)
}

fn start_executor(
    site: &mut Site,
    certificates: &DevelopmentCertificates,
    step: &mut Step,
) -> Result<Executor> {
    let (port, admin) = (prerequisites::loopback_port()?, prerequisites::loopback_port()?);
    let slots = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut command = Command::new(site.program("requiem-executor"));
    command.args(["serve", "--name", "demo", "--slots", &slots.to_string()]);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--admin-listen", &format!("127.0.0.1:{admin}")]);
    command.arg("--tls-cert").arg(&certificates.executor.certificate);
    command.arg("--tls-key").arg(&certificates.executor.key);
    command.arg("--client-ca").arg(&certificates.ca);
    command.arg("--store").arg(site.store());
    start_one(site, "requiem-executor", command, admin, step)?;
    Ok(Executor { url: format!("https://127.0.0.1:{port}"), admin })
}

fn start_operator(site: &mut Site, certificates: &DevelopmentCertificates, step: &mut Step) -> Result<()> {
    let admin = prerequisites::loopback_port()?;
    let mut command = Command::new(site.program("requiem-operator"));
    command.arg("--kubeconfig").arg(&site.access().kubeconfig);
    command.arg("--tls-cert").arg(&certificates.operator.certificate);
    command.arg("--tls-key").arg(&certificates.operator.key);
    command.arg("--executor-ca").arg(&certificates.ca);
    command.args(["--namespace", super::NAMESPACE, "--admin-listen", &format!("127.0.0.1:{admin}")]);
    start_one(site, "requiem-operator", command, admin, step)
}

fn start_one(
    site: &mut Site,
    program: &'static str,
    mut command: Command,
    admin: u16,
    step: &mut Step,
) -> Result<()> {
    let log = site.folder().join(format!("{program}.log"));
    let child = spawn_logged(&mut command, &log)?;
    let child = site.add(program, child)?;
    // Nobody listens yet: not an error but the thing that is awaited.
    wait_ready(child, program, &log, step, || {
        Ok(http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200))
    })
}

fn pool(url: &str) -> String {
    json!({
        "apiVersion": "requiem.dev/v1alpha1",
        "kind": "ExecutorPool",
        "metadata": {"name": "default"},
        "spec": {"endpoints": [{"name": "demo", "url": url}]},
    })
    .to_string()
}
