//! `kubectl requiem get`: how Executions stand; of those that are named, what happened and how it was isolated.

use kube::ResourceExt;
use kube::api::ListParams;
use requiem_crds::Execution;
use schemars::JsonSchema;
use serde::Serialize;

use super::arguments::{ClusterArguments, Get};
use super::site::Site;
use crate::cluster::{refused, runtime};
use crate::error::CommandError;
use crate::report::Report;
use crate::text::{indented, printable, table, word};

/// Executions as they stand.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Standings {
    ok: bool,
    executions: Vec<Standing>,
}

/// One Execution.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Standing {
    name: String,
    command: Vec<String>,
    /// How it ended, or why it has not.
    reason: String,
    message: String,
    ended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    determinism: Option<String>,
    determinism_reasons: Vec<String>,
    /// The run that answered instead, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    outputs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_bundle: Option<String>,
}

/// Runs the command.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Get) -> Result<Report, CommandError> {
    let executions = runtime()?.block_on(fetch(cluster, &arguments.names))?;
    let executions: Vec<Standing> = executions.iter().map(Standing::of).collect();
    let text = if arguments.names.is_empty() {
        list(&executions)
    } else {
        executions.iter().map(Standing::text).collect::<Vec<_>>().join("\n")
    };
    Ok(Report::new(&Standings { ok: true, executions }, text, true))
}

async fn fetch(cluster: &ClusterArguments, names: &[String]) -> Result<Vec<Execution>, CommandError> {
    let site = Site::of(cluster).await?;
    if names.is_empty() {
        let all = site.executions().list(&ListParams::default()).await;
        return all.map(|all| all.items).map_err(|error| refused("list Executions", &error));
    }
    let mut found = Vec::new();
    for name in names {
        found.push(site.execution(name).await?);
    }
    Ok(found)
}

/// The reason of the condition Ready: how it ended, or what it waits for.
pub(crate) fn reason(execution: &Execution) -> &str {
    state(execution).0
}

/// The same, and the condition's message.
pub(crate) fn state(execution: &Execution) -> (&str, &str) {
    let mut conditions = execution.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.find(|one| one.type_ == "Ready");
    ready.map_or(("Pending", "no operator has looked at it"), |one| (&one.reason, &one.message))
}

fn list(executions: &[Standing]) -> String {
    if executions.is_empty() {
        return "there is no Execution in this namespace".to_owned();
    }
    let head = ["NAME", "STATE", "EXIT", "DURATION", "SANDBOX", "DETERMINISM"].map(str::to_owned);
    let cell = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), printable);
    let row = |one: &Standing| {
        [
            one.name.clone(),
            printable(&one.reason),
            one.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
            cell(&one.duration),
            cell(&one.sandbox),
            cell(&one.determinism),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(executions.iter().map(row)).collect();
    table(&rows)
}

// === impl Standing ===

impl Standing {
    fn of(execution: &Execution) -> Self {
        let status = execution.status.clone().unwrap_or_default();
        let (reason, message) = state(execution);
        let confidence = status.determinism_confidence;
        Self {
            name: execution.name_any(),
            command: execution.spec.command.iter().chain(&execution.spec.args).cloned().collect(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            ended: status.terminal,
            exit_code: status.exit_code,
            sandbox: status.sandbox.map(|sandbox| sandbox.summary),
            determinism: confidence.as_ref().map(|one| word(&one.level)),
            determinism_reasons: confidence.map(|one| one.reasons).unwrap_or_default(),
            answered_by: status.cache.and_then(|cache| cache.original).map(|original| original.name),
            duration: status.duration,
            outputs: status.outputs.into_iter().map(|output| output.path).collect(),
            proof_root: status.proof_root.map(|root| root.to_string()),
            proof_bundle: status.proof_bundle_ref.map(|reference| reference.name),
        }
    }

    fn text(&self) -> String {
        let outcome = self.exit_code.map(|code| format!("exit code {code}"));
        let details = [("duration", &self.duration), ("exit", &outcome), ("answered by", &self.answered_by)];
        let proofs = [
            ("sandbox", &self.sandbox),
            ("determinism", &self.determinism),
            ("proof root", &self.proof_root),
            ("proof bundle", &self.proof_bundle),
        ];
        let mut rows = vec![
            ["execution".to_owned(), self.name.clone()],
            ["command".to_owned(), printable(&self.command.join(" "))],
            ["state".to_owned(), printable(&self.reason)],
        ];
        for (name, value) in details.into_iter().chain(proofs) {
            rows.extend(value.as_deref().map(|value| [name.to_owned(), printable(value)]));
        }
        rows.extend(self.outputs.iter().map(|path| ["output".to_owned(), printable(path)]));
        let mut text = table(&rows);
        if !self.determinism_reasons.is_empty() {
            text.push_str(&format!(
                "not higher because of: {}\n",
                printable(&self.determinism_reasons.join(", "))
            ));
        }
        text.push_str(&indented(&printable(&self.message)));
        text
    }
}
