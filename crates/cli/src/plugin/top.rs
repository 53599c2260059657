//! `kubectl requiem top`: what the pools of a namespace can take, and what waits for them.

use std::collections::BTreeMap;

use kube::api::ListParams;
use requiem_crds::{Execution, ExecutorPool};
use schemars::JsonSchema;
use serde::Serialize;

use super::arguments::ClusterArguments;
use super::get::reason;
use super::site::Site;
use crate::cluster::{refused, runtime};
use crate::error::CommandError;
use crate::report::Report;
use crate::text::{printable, table};

/// Every pool, and Executions in pods of their own as one more.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Load {
    ok: bool,
    pools: Vec<PoolLoad>,
}

/// One pool.
#[derive(Default, Serialize, JsonSchema)]
pub(crate) struct PoolLoad {
    /// Its name; absent for pods of single Executions.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    ready: bool,
    /// Executors that answer, of all that are wanted.
    executors: String,
    /// Executions that can run at the same time.
    capacity: u32,
    running: usize,
    /// Accepted by an executor, without a slot yet.
    queued: usize,
    /// Everything else that has not ended.
    waiting: usize,
}

/// Runs the command.
pub(crate) fn run(cluster: &ClusterArguments) -> Result<Report, CommandError> {
    let (pools, executions) = runtime()?.block_on(async {
        let site = Site::of(cluster).await?;
        let pools = site.pools().list(&ListParams::default()).await;
        let pools = pools.map_err(|error| refused("list ExecutorPools", &error))?;
        let open = ListParams::default().fields("status.terminal!=true");
        let open = site.executions().list(&open).await;
        let open = open.map_err(|error| refused("list Executions", &error))?;
        Ok::<_, CommandError>((pools.items, open.items))
    })?;
    let pools = loads(&pools, &executions);
    let text = text(&pools);
    Ok(Report::new(&Load { ok: true, pools }, text, true))
}

fn loads(pools: &[ExecutorPool], executions: &[Execution]) -> Vec<PoolLoad> {
    let mut loads: BTreeMap<Option<String>, PoolLoad> =
        pools.iter().map(|pool| (pool.metadata.name.clone(), known(pool))).collect();
    for execution in executions {
        let executor = &execution.spec.executor;
        let pool = executor.pod.is_none().then(|| executor.pool_ref.name.clone());
        // A pool that is named and not there has Executions that wait for it.
        let load = loads.entry(pool.clone()).or_default();
        load.name = pool;
        match reason(execution) {
            "Running" => load.running += 1,
            "Queued" => load.queued += 1,
            _ => load.waiting += 1,
        }
    }
    loads.into_values().collect()
}

fn known(pool: &ExecutorPool) -> PoolLoad {
    let status = pool.status.clone().unwrap_or_default();
    PoolLoad {
        name: pool.metadata.name.clone(),
        ready: status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
        executors: status.summary.unwrap_or_default(),
        capacity: status.capacity,
        ..PoolLoad::default()
    }
}

fn text(loads: &[PoolLoad]) -> String {
    let head = ["POOL", "READY", "EXECUTORS", "CAPACITY", "RUNNING", "QUEUED", "WAITING"].map(str::to_owned);
    let row = |load: &PoolLoad| {
        [
            load.name.as_deref().map_or_else(|| "(own pods)".to_owned(), printable),
            if load.ready || load.name.is_none() { "yes" } else { "no" }.to_owned(),
            if load.executors.is_empty() { "-".to_owned() } else { printable(&load.executors) },
            load.capacity.to_string(),
            load.running.to_string(),
            load.queued.to_string(),
            load.waiting.to_string(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(loads.iter().map(row)).collect();
    table(&rows)
}
