//! Who holds the bytes of an Execution: the executor that runs it, or that ran it.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use requiem_crds::executor_pool::EndpointStatus;
use requiem_crds::{Execution, ExecutorPool};

use super::remote::Remote;
use super::site::Site;
use crate::cluster::refused;
use crate::error::CommandError;

/// Label of pods that were made for one Execution.
const DEDICATED: &str = "requiem.dev/dedicated=true";

/// An attempt that an executor has.
pub(crate) struct Running {
    pub(crate) remote: Remote,
    /// Path of the attempt.
    pub(crate) path: String,
}

/// The executor that has the result of an Execution.
pub(crate) async fn of_result(site: &Site, execution: &Execution) -> Result<Remote, CommandError> {
    let status = execution.status.clone().unwrap_or_default();
    let name = status.executor.unwrap_or_default();
    let pools = pools(site).await?;
    // In a proof an executor is called as its pod.
    let pods = pools.iter().flat_map(endpoints).filter_map(|endpoint| endpoint.pod.as_deref());
    if let Some(pod) = pods.into_iter().find(|pod| **pod == name) {
        return Remote::in_pod(site, pod).await;
    }
    let pool = &execution.spec.executor.pool_ref.name;
    let pool = pools.iter().find(|one| one.metadata.name.as_ref() == Some(pool));
    match pool.map(|pool| pool.spec.endpoints.is_empty()) {
        Some(false) => Err(out_of_reach(&name)),
        _ => Err(gone(&name, execution)),
    }
}

/// The executor that has the current attempt of an Execution, if one has it.
pub(crate) async fn of_attempt(site: &Site, execution: &Execution) -> Result<Option<Running>, CommandError> {
    let attempt = execution.status.as_ref().map_or(0, |status| status.attempts);
    if attempt == 0 {
        return Ok(None);
    }
    let path = format!("/v1/attempts/{}/{attempt}", execution.uid().unwrap_or_default());
    for pod in candidates(site, execution).await? {
        let remote = Remote::in_pod(site, &pod).await?;
        if remote.get(&path).await?.is_some() {
            return Ok(Some(Running { remote, path }));
        }
    }
    Ok(None)
}

/// The pods in which its attempt may be.
async fn candidates(site: &Site, execution: &Execution) -> Result<Vec<String>, CommandError> {
    if execution.spec.executor.pod.is_some() {
        return own_pods(site, execution).await;
    }
    let pool = &execution.spec.executor.pool_ref.name;
    let pool = site.pools().get_opt(pool).await;
    let pool = pool.map_err(|error| refused("get the ExecutorPool", &error))?;
    let mut pods = Vec::new();
    for endpoint in pool.iter().flat_map(endpoints) {
        pods.push(endpoint.pod.clone().ok_or_else(|| out_of_reach(&endpoint.name))?);
    }
    Ok(pods)
}

async fn own_pods(site: &Site, execution: &Execution) -> Result<Vec<String>, CommandError> {
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
    let all = pods.list(&ListParams::default().labels(DEDICATED)).await;
    let all = all.map_err(|error| refused("list the pods made for Executions", &error))?;
    let uid = execution.uid();
    let owned = |pod: &&Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref());
    Ok(all.items.iter().filter(owned).map(ResourceExt::name_any).collect())
}

async fn pools(site: &Site) -> Result<Vec<ExecutorPool>, CommandError> {
    let pools = site.pools().list(&ListParams::default()).await;
    pools.map(|pools| pools.items).map_err(|error| refused("list ExecutorPools", &error))
}

fn endpoints(pool: &ExecutorPool) -> impl Iterator<Item = &EndpointStatus> {
    pool.status.iter().flat_map(|status| &status.endpoints)
}

fn out_of_reach(executor: &str) -> CommandError {
    let message = format!("executor {executor} is at a fixed address, where the API server leads nobody");
    let hint = "read the store of that machine there: requiem cas get DIGEST --cas DIR --tenant NAMESPACE";
    CommandError::unusable("OutOfReach", message, hint)
}

fn gone(executor: &str, execution: &Execution) -> CommandError {
    let message = match &execution.spec.executor.pod {
        Some(_own) => format!("the pod of {} went when its result was recorded", execution.name_any()),
        None => format!("no pool has the executor {executor} any more; it had the bytes"),
    };
    let hint = "the status and the proof keep digests, sizes and the last 1 KiB of each stream; a pool whose store is a \
                volume keeps the bytes";
    CommandError::finding("Gone", message, hint)
}
