//! `kubectl requiem cancel`: sets `spec.cancel`. What has ended stays as it is.

use kube::api::{Patch, PatchParams};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::arguments::{Cancel, ClusterArguments};
use super::site::Site;
use crate::cluster::{refused, runtime};
use crate::error::CommandError;
use crate::report::Report;

/// What was told to whom.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Cancelled {
    ok: bool,
    executions: Vec<Told>,
}

/// One Execution.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Told {
    name: String,
    /// It had ended already, so nothing changes.
    had_ended: bool,
}

/// Runs the command.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Cancel) -> Result<Report, CommandError> {
    let executions = runtime()?.block_on(tell(cluster, &arguments.names))?;
    let text = executions.iter().map(|one| {
        let what = if one.had_ended { "had ended already" } else { "told to end" };
        format!("{}: {what}\n", one.name)
    });
    let text = text.collect();
    Ok(Report::new(&Cancelled { ok: true, executions }, text, true))
}

async fn tell(cluster: &ClusterArguments, names: &[String]) -> Result<Vec<Told>, CommandError> {
    let site = Site::of(cluster).await?;
    let cancel = Patch::Merge(json!({"spec": {"cancel": true}}));
    let mut told = Vec::new();
    for name in names {
        let had_ended = site.execution(name).await?.status.is_some_and(|status| status.terminal);
        if !had_ended {
            let patched = site.executions().patch(name, &PatchParams::default(), &cancel).await;
            patched.map_err(|error| refused(&format!("cancel Execution {name}"), &error))?;
        }
        told.push(Told { name: name.clone(), had_ended });
    }
    Ok(told)
}
