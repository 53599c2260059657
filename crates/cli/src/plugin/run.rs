//! `kubectl requiem run`: one Execution from flags; its streams as they come, then its proof, recomputed here.

use std::io::{self, Write};

use kube::ResourceExt;
use kube::api::PostParams;
use requiem_crds::Execution;
use requiem_model::Layer;
use requiem_model::request::MAX_TEXT_BYTES;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::arguments::{ClusterArguments, Run, TierName};
use super::get::reason;
use super::logs::Viewer;
use super::site::Site;
use crate::cluster::{refused, runtime};
use crate::commands::exec_apply;
use crate::commands::proof_verify::{self, Verdict};
use crate::error::CommandError;
use crate::proof_input::Bundle;
use crate::report::Report;
use crate::store;
use crate::text::{printable, word};
use crate::verdict::Findings;

/// An Execution that has ended, and the verdict about its proof.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Ran<'a> {
    ok: bool,
    execution: String,
    result: String,
    proof: Verdict<'a>,
}

/// Runs the command. Exit code 1 if the command failed, or its proof does not hold.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Run, json: bool) -> Result<Report, CommandError> {
    arguments.proof.as_deref().map_or(Ok(()), store::check_writable)?;
    let execution = execution(arguments)?;
    let (execution, bundle) = runtime()?.block_on(follow(cluster, arguments, execution, json))?;
    let result = reason(&execution).to_owned();
    let succeeded = result == "Succeeded";
    let findings = Findings { signatures: bundle.signatures.len(), ..Findings::default() };
    let verdict = findings.verdict();
    if !json {
        // Standard output is the command's.
        let text = format!("{}: {}; proof: {verdict}\n", execution.name_any(), printable(&result));
        let _nobody_listens = io::stderr().write_all(text.as_bytes());
    }
    let proof = proof_verify::document(&findings, &bundle.verified);
    let document = Ran { ok: succeeded, execution: execution.name_any(), result, proof };
    Ok(Report::new(&document, String::new(), succeeded))
}

async fn follow(
    cluster: &ClusterArguments,
    arguments: &Run,
    execution: Execution,
    json: bool,
) -> Result<(Execution, Bundle), CommandError> {
    let site = Site::of(cluster).await?;
    let created = site.executions().create(&PostParams::default(), &execution).await;
    let name = created.map_err(|error| refused("create the Execution", &error))?.name_any();
    if !json {
        Viewer::new(&site, &name, None).show(true).await?;
    }
    let ended = exec_apply::ended(&site.executions(), &name).await?;
    let bundle = site.proof_kept_in(&ended, arguments.proof.as_deref()).await?;
    Ok((ended, bundle))
}

/// The Execution that the flags describe.
fn execution(arguments: &Run) -> Result<Execution, CommandError> {
    let mut spec = json!({
        "command": arguments.command,
        "timeoutSeconds": arguments.timeout_seconds,
        "outputs": arguments.output.iter().map(|path| path.as_str()).collect::<Vec<_>>(),
        "env": pairs("--env", &arguments.env, |name, value| Ok(json!({"name": name, "value": value})))?,
        "inputs": pairs("--input", &arguments.input, input)?,
    });
    if let Some(pool) = &arguments.pool {
        spec["executor"] = json!({"poolRef": {"name": pool}});
    }
    if let Some(image) = &arguments.image {
        spec["executor"] = json!({"pod": {"image": image, "tier": tier(arguments.tier)}});
    }
    if arguments.prefer_layers {
        let layers: Map<String, Value> =
            Layer::ALL.iter().map(|layer| (word(layer), json!("preferred"))).collect();
        spec["policy"] = json!({"layers": layers});
    }
    let name = match &arguments.name {
        Some(name) => json!({"name": name}),
        None => json!({"generateName": "run-"}),
    };
    let object =
        json!({"apiVersion": "requiem.dev/v1alpha1", "kind": "Execution", "metadata": name, "spec": spec});
    serde_json::from_value(object).map_err(|error| {
        CommandError::unusable(
            "Usage",
            format!("that is no Execution: {error}"),
            "see kubectl explain exn.spec",
        )
    })
}

const fn tier(name: TierName) -> &'static str {
    match name {
        TierName::T1 => "T1",
        TierName::T2 => "T2",
        TierName::T3 => "T3",
    }
}

/// Flags of the form NAME=VALUE.
fn pairs(
    flag: &str,
    given: &[String],
    make: impl Fn(&str, &str) -> Result<Value, CommandError>,
) -> Result<Vec<Value>, CommandError> {
    given
        .iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                // Not the text itself: it may be a secret's.
                let message = format!("{flag} has a value without =");
                CommandError::unusable("Usage", message, format!("write {flag} NAME=VALUE"))
            })?;
            make(name, value)
        })
        .collect()
}

fn input(path: &str, file: &str) -> Result<Value, CommandError> {
    let content = store::read(file.as_ref(), MAX_TEXT_BYTES as u64)?;
    let text = String::from_utf8(content).map_err(|_| {
        let message = format!("{} is no text in UTF-8", printable(file));
        let hint =
            "put it into the store of the pool, and name its digest in a file: requiem exec apply FILE";
        CommandError::unusable("InvalidInput", message, hint)
    })?;
    Ok(json!({"path": path, "inline": text}))
}
