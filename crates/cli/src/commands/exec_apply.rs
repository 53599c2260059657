//! `requiem exec apply`: create an Execution, wait for its end by watching, fetch its ProofBundle, and recompute it here.
//!
//! The cluster's word is taken for nothing but that it has ended: what happened is read from the bundle, which must be about
//! this very Execution and have the root that its status names.

use std::path::Path;
use std::time::Duration;

use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use requiem_crds::{Execution, ProofBundle};
use schemars::JsonSchema;
use serde::Serialize;

use super::proof_verify::{self, Verdict};
use crate::arguments::ExecApply;
use crate::cluster::{connect, refused, runtime, until};
use crate::error::CommandError;
use crate::proof_input::Bundle;
use crate::proof_of;
use crate::report::Report;
use crate::store;
use crate::text::printable;
use crate::verdict::Findings;

/// An object in a cluster cannot be larger than that.
const MAX_MANIFEST_BYTES: u64 = 2 * 1024 * 1024;

/// The document of an Execution that has ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct Ended<'a> {
    ok: bool,
    result: &'a str,
    proof: Verdict<'a>,
}

/// What an Execution came to.
struct Outcome {
    result: &'static str,
    bundle: Bundle,
}

/// Runs the command.
pub(crate) fn run(arguments: &ExecApply) -> Result<Report, CommandError> {
    let execution = parse(&store::read(&arguments.file, MAX_MANIFEST_BYTES)?)?;
    let Outcome { result, bundle } = runtime()?.block_on(apply(arguments, execution))?;
    let succeeded = result == "Succeeded";
    let findings = Findings { signatures: bundle.signatures.len(), ..Findings::default() };
    let proof = proof_verify::document(&findings, &bundle.verified);
    let document = Ended { ok: succeeded, result, proof };
    Ok(Report::new(&document, proof_verify::text(&findings, &bundle.verified), succeeded))
}

fn parse(content: &[u8]) -> Result<Execution, CommandError> {
    serde_norway::from_slice(content).map_err(|error| {
        let hint = "give one Execution of requiem.dev/v1alpha1, as YAML or JSON";
        CommandError::unusable("InvalidManifest", format!("the file is no Execution: {error}"), hint)
    })
}

async fn apply(arguments: &ExecApply, execution: Execution) -> Result<Outcome, CommandError> {
    let client = connect(arguments.kubeconfig.as_deref(), arguments.context.as_deref()).await?;
    let namespace = namespace(arguments.namespace.as_deref(), &execution, &client)?;
    let executions: Api<Execution> = Api::namespaced(client.clone(), &namespace);
    let created = executions.create(&PostParams::default(), &execution).await;
    let created = created.map_err(|error| refused("create the Execution", &error))?;
    let name = created.name_any();
    let limit = Duration::from_secs(arguments.timeout_seconds);
    let outcome = match tokio::time::timeout(limit, ended(&executions, &name)).await {
        Err(_elapsed) => Err(too_late(&executions, &name, limit).await),
        Ok(Ok(execution)) => judge(&client, &namespace, &execution, arguments.proof.as_deref()).await,
        Ok(Err(error)) => Err(error),
    };
    if arguments.delete {
        let deleted = executions.delete(&name, &DeleteParams::background()).await;
        deleted.map_err(|error| refused(&format!("delete Execution {name}"), &error))?;
    }
    outcome
}

/// The namespace of the flag, of the file, or of the configuration; the first two must not contradict each other.
fn namespace(flag: Option<&str>, execution: &Execution, client: &Client) -> Result<String, CommandError> {
    match (flag, execution.metadata.namespace.as_deref()) {
        (Some(flag), Some(named)) if flag != named => Err(CommandError::unusable(
            "Namespace",
            format!("--namespace is {flag}, and the file says {named}"),
            "leave one of them out",
        )),
        (Some(named), _) | (None, Some(named)) => Ok(named.to_owned()),
        (None, None) => Ok(client.default_namespace().to_owned()),
    }
}

/// The Execution when it has ended.
pub(crate) async fn ended(executions: &Api<Execution>, name: &str) -> Result<Execution, CommandError> {
    until(executions, name, |object| object.status.as_ref().is_some_and(|status| status.terminal)).await
}

/// What it waits for, in the operator's own words.
async fn too_late(executions: &Api<Execution>, name: &str, limit: Duration) -> CommandError {
    let now = executions.get(name).await.ok().and_then(|execution| execution.status);
    let ready = now.and_then(|status| status.conditions.into_iter().find(|one| one.type_ == "Ready"));
    let state = ready.map_or_else(
        || "no operator has looked at it".to_owned(),
        |ready| format!("{}: {}", ready.reason, printable(&ready.message)),
    );
    CommandError::finding(
        "Timeout",
        format!("Execution {name} has not ended after {} s; {state}", limit.as_secs()),
        "see docs/operator.md for the reason, or give more --timeout-seconds",
    )
}

/// Fetches the bundle of an Execution that has ended, and holds it to what is known of the Execution.
async fn judge(
    client: &Client,
    namespace: &str,
    execution: &Execution,
    keep: Option<&Path>,
) -> Result<Outcome, CommandError> {
    let status = execution.status.clone().unwrap_or_default();
    let result = status.result.map_or("Unknown", |result| result.as_str());
    let Some(reference) = &status.proof_bundle_ref else { return Err(proof_of::unproven(execution)) };
    let bundles: Api<ProofBundle> = Api::namespaced(client.clone(), namespace);
    let bundle = proof_of::published(&bundles, &reference.name, execution, keep).await?;
    Ok(Outcome { result, bundle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_are_executions_and_other_kinds_are_not() {
        let yaml = "apiVersion: requiem.dev/v1alpha1\nkind: Execution\nmetadata: {generateName: a-}\nspec: {command: [ls]}";
        let execution = parse(yaml.as_bytes()).unwrap();
        assert_eq!(execution.metadata.generate_name.as_deref(), Some("a-"));
        let json = serde_json::to_vec(&execution).unwrap();
        assert_eq!(parse(&json).unwrap(), execution);
        let error = parse(b"kind: Pod\nspec: {containers: []}").unwrap_err();
        assert_eq!((error.error_code.as_str(), error.exit_code()), ("InvalidManifest", 2));
    }
}
