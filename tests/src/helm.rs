//! Helm and kubectl as a user calls them, and what they print.

use std::process::{Command, Output};

use requiem_xtask::{paths, tools};
use serde_json::Value;

use crate::{Failure, KUBECONFIG, setting};

/// Variable with the kubectl of the test cluster.
const KUBECTL: &str = "REQUIEM_TEST_KUBECTL";

/// Runs helm; its standard output.
///
/// # Errors
/// It fails; the message holds what it said.
pub fn helm(arguments: &[&str]) -> Result<String, Failure> {
    Ok(String::from_utf8(output(&mut helm_command(arguments)?)?.stdout)?)
}

/// A command that runs helm against the test cluster, if there is one.
///
/// # Errors
/// Helm cannot be built.
pub fn helm_command(arguments: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new(tools::helm()?);
    command.args(arguments).current_dir(paths::repository());
    if let Ok(kubeconfig) = setting(KUBECONFIG) {
        command.env("KUBECONFIG", kubeconfig);
    }
    Ok(command)
}

/// Runs kubectl against the test cluster; its standard output.
///
/// # Errors
/// It fails; the message holds what it said.
pub fn kubectl(arguments: &[&str]) -> Result<String, Failure> {
    Ok(String::from_utf8(output(&mut kubectl_command(arguments)?)?.stdout)?)
}

/// A command that runs kubectl against the test cluster.
///
/// # Errors
/// The suite was not started by `cargo xtask test`.
pub fn kubectl_command(arguments: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new(setting(KUBECTL)?);
    command.args(arguments).current_dir(paths::repository()).env("KUBECONFIG", setting(KUBECONFIG)?);
    Ok(command)
}

/// Runs `command` to its end, which must be a good one.
///
/// # Errors
/// It fails; the message holds what it said.
pub fn output(command: &mut Command) -> Result<Output, Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{said}{complaint}", output.status).into())
}

/// The documents of a YAML stream; empty ones are left out.
///
/// # Errors
/// It is no YAML.
pub fn documents(text: &str) -> Result<Vec<Value>, Failure> {
    let documents = serde_norway::Deserializer::from_str(text).map(serde::Deserialize::deserialize);
    let documents = documents.collect::<Result<Vec<Value>, _>>()?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
