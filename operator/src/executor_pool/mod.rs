//! ExecutorPools: who is there, and what can they do?
//!
//! ```text
//! 1 observe   asks every endpoint for its capabilities
//! 2 validate  endpoints of the spec
//! 3 decide    answers → status                        pure
//! 4 apply     tells `health` which endpoints are in use
//! 5 report    one status patch, only when something changed
//! ```
//!
//! A pool is looked at when its spec changes, when an executor goes or comes back, and every half minute.

pub mod decide;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use requiem_crds::ExecutorPool;
use serde_json::json;

use crate::context::{Context, kinds};
use crate::dispatch::Endpoint;
use crate::kubeapi::ApiError;
use crate::queue::{Key, Verdict};

/// How often an idle pool is looked at. Nothing is written when nothing changed.
const INTERVAL: Duration = Duration::from_secs(30);

/// The endpoints that `pool` names.
pub fn endpoints(pool: &ExecutorPool) -> Vec<Endpoint> {
    let endpoint = |spec: &requiem_crds::executor_pool::EndpointSpec| Endpoint {
        name: spec.name.clone(),
        url: spec.url.clone(),
        server_name: spec.server_name.clone(),
    };
    pool.spec.endpoints.iter().map(endpoint).collect()
}

/// Brings the status of the pool called `key` up to date.
pub async fn reconcile(context: Context, key: Key) -> Verdict {
    let started = Instant::now();
    let (verdict, result) = match drive(&context, &key).await {
        Ok(verdict) => (verdict, "done"),
        Err(error) => {
            tracing::warn!(pool = %key, %error, "reconcile failed and is tried again");
            (Verdict::Failed { at_least: error.retry_after() }, "error")
        }
    };
    context.metrics.reconciled(kinds::POOL, result, started.elapsed());
    verdict
}

async fn drive(context: &Context, key: &Key) -> Result<Verdict, ApiError> {
    use_endpoints(context);
    let Some(object) = context.pool(key) else { return Ok(Verdict::Done) };
    let pool = match &object.0 {
        Ok(pool) => pool,
        Err(malformed) => {
            tracing::warn!(pool = %key, error = malformed.error, "stored pool cannot be read; create it anew");
            return Ok(Verdict::Done);
        }
    };
    let endpoints = endpoints(pool);
    let calls = endpoints.iter().map(|endpoint| context.dispatcher.capabilities(endpoint));
    let answers = futures::future::join_all(calls).await;
    for (endpoint, answer) in endpoints.iter().zip(&answers) {
        match answer {
            Err(error) if error.is_absence() => context.health.failed(endpoint, error),
            Ok(_) | Err(_) => {}
        }
    }
    let answers: Vec<_> = endpoints.into_iter().zip(answers).collect();
    report(context, pool, &answers).await?;
    Ok(Verdict::Again(INTERVAL))
}

async fn report(context: &Context, pool: &ExecutorPool, answers: &[decide::Answer]) -> Result<(), ApiError> {
    let meta = &pool.metadata;
    let previous = pool.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let status = decide::status(answers, &previous, meta.generation.unwrap_or(0), &now);
    if status == previous {
        return Ok(());
    }
    let mut body = json!({
        "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
        "status": status,
    });
    // A merge patch keeps what it does not name, and an empty list is not named.
    body["status"]["endpoints"] = json!(status.endpoints);
    match context.writer.patch_status::<ExecutorPool>(&Key::of(pool), &body).await {
        // When the pool is gone or newer than ours, its next event decides.
        Ok(_) | Err(ApiError::Gone { .. } | ApiError::Fenced { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Only endpoints of pools are probed.
pub fn use_endpoints(context: &Context) {
    let pools = context.pools.state();
    let readable = pools.iter().filter_map(|pool| pool.0.as_ref().ok());
    let used: HashSet<Endpoint> = readable.flat_map(endpoints).collect();
    context.health.in_use(used);
}

/// An endpoint is back: whoever waited for it goes on.
pub fn is_back(context: &Context, endpoint: &Endpoint) {
    for pool in context.pools.state() {
        let Ok(pool) = &pool.0 else { continue };
        if endpoints(pool).contains(endpoint) {
            let key = Key::of(pool);
            context.push_executions_of(&key);
            context.pool_queue.push(key);
        }
    }
}
