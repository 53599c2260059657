//! Step 1: what is so now. Caches and memory first; executors are asked when `decide` wants to know.

use std::sync::Arc;

use requiem_crds::Execution;

use super::decide::{Observed, Pool};
use super::tracker::{Known, Place};
use super::validate::Plan;
use crate::context::{Context, Guarded};
use crate::executor_pool;
use crate::health::Outage;
use crate::queue::Key;

/// The Execution as the cache has it; `None` if it is gone, or known to be over though the cache lags.
pub fn object(context: &Context, key: &Key) -> Option<Arc<Guarded<Execution>>> {
    let object = context.execution(key)?;
    let (uid, terminal) = match &object.0 {
        Ok(execution) => {
            let terminal = execution.status.as_ref().is_some_and(|status| status.terminal);
            (execution.metadata.uid.clone(), terminal)
        }
        Err(invalid) => (invalid.metadata.uid.clone(), false),
    };
    let over = terminal || context.tracker.is_finished(uid.as_deref().unwrap_or_default());
    (!over).then_some(object)
}

/// Everything that the next decision needs; `None` if the Execution was deleted meanwhile.
pub fn observe(context: &Context, plan: &Plan) -> Option<Observed> {
    let known = context.tracker.known(&plan.uid, plan.first_attempt)?;
    let pool = match context.pool(&plan.pool).as_deref() {
        Some(Guarded { 0: Ok(pool) }) => Pool::Endpoints(executor_pool::endpoints(pool)),
        _ => Pool::Missing,
    };
    let outages = outages(context, &pool, &known);
    Some(Observed { pool, known, outages })
}

fn outages(context: &Context, pool: &Pool, known: &Known) -> Vec<Outage> {
    let listed = match pool {
        Pool::Endpoints(endpoints) => endpoints.as_slice(),
        Pool::Missing => &[],
    };
    let holder = match &known.place {
        Place::At(endpoint, _) | Place::Sent(endpoint) => Some(endpoint),
        Place::Unknown | Place::Nowhere | Place::Finished => None,
    };
    let extra = holder.filter(|endpoint| !listed.contains(endpoint));
    listed.iter().chain(extra).filter_map(|endpoint| context.health.outage(endpoint)).collect()
}
