//! `kubectl requiem replay`: the request of an Execution once more, in the sandbox of this machine.

use super::arguments::{ClusterArguments, Replay};
use super::holder;
use super::pull::Puller;
use super::site::Site;
use crate::arguments::{ExecReplay, StoreArguments};
use crate::cluster::runtime;
use crate::commands::exec_replay;
use crate::config_arguments::TenantArgument;
use crate::error::CommandError;
use crate::proof_input::Bundle;
use crate::report::Report;
use crate::store;

/// Runs the command. Exit code 1 if the two differ.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Replay) -> Result<Report, CommandError> {
    let replay = ExecReplay {
        bundle: None,
        result: None,
        proof: None,
        receipts: arguments.receipts.clone(),
        store: StoreArguments { cas: arguments.store.cas.clone() },
        // The proof names none: it is about what was asked for, wherever it runs.
        whose: TenantArgument { tenant: "default".to_owned() },
    };
    exec_replay::replay(&replay, || runtime()?.block_on(fetch(cluster, arguments, &replay.whose.tenant)))
}

/// The bundle, when everything that its request reads is here.
async fn fetch(cluster: &ClusterArguments, arguments: &Replay, tenant: &str) -> Result<Bundle, CommandError> {
    let site = Site::of(cluster).await?;
    let execution = site.execution(&arguments.name).await?;
    let bundle = site.proof(&execution).await?;
    let request = &bundle.verified.body.execution.request;
    if request.stdin.is_some() || !request.inputs.is_empty() {
        let remote = holder::of_result(&site, &execution).await?;
        let store = store::open(arguments.store.cas.as_deref(), tenant)?;
        Puller { remote: &remote, namespace: &site.namespace, store: &store }.inputs(request).await?;
    }
    Ok(bundle)
}
