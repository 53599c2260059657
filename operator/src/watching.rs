//! Watches: from the API server's events to caches and queues.

use std::fmt::Debug;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, utils::StreamBackoff};
use kube::{Client, Resource, ResourceExt};
use requiem_crds::admission::Binding;
use requiem_crds::{Execution, ExecutorPool, ProofBundle};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::admin::Readiness;
use crate::context::{Context, Guarded};
use crate::dedicated;
use crate::execution;
use crate::execution::policy::Reach;
use crate::executor_pool::pod::{EXECUTOR_NAME, NAME_LABEL};
use crate::executor_pool::{self, observe};
use crate::proof_bundle;
use crate::queue::Key;
use crate::replay;

/// A watch that is silent for longer than this (and 5 s) is dead.
const WATCH_SECONDS: u32 = 60;
/// Bundles are large: few per page.
const BUNDLES_PER_PAGE: u32 = 20;

/// Where and until when to watch.
#[derive(Clone)]
pub struct Watching {
    /// Client of the watches; writes have another, so that neither waits for the other's connections.
    pub client: Client,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Told when a cache was filled.
    pub readiness: Readiness,
    /// Turns true at the end.
    pub stop: watch::Receiver<bool>,
}

impl Watching {
    /// The objects that are watched.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Hands every event of `config` to `on`, until the stop. Errors are retried with backoff.
    async fn follow<K>(&self, config: watcher::Config, on: impl FnMut(Event<K>))
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        self.follow_or(self.api::<K>(), config, on, |_| false).await;
    }

    /// As [`Self::follow`], of any objects. `failed` hears of errors, too; if it says so, everything is listed anew. Otherwise
    /// a watch that was refused for a while goes on where it was, and says nothing when it does.
    async fn follow_or<K>(
        &self,
        api: Api<K>,
        config: watcher::Config,
        mut on: impl FnMut(Event<K>),
        mut failed: impl FnMut(&watcher::Error) -> bool,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let kind = K::kind(&());
        let config = config.timeout(WATCH_SECONDS);
        let watch = || {
            let events = watcher(api.clone(), config.clone());
            StreamBackoff::new(events, watcher::DefaultBackoff::default()).modify(prune)
        };
        let mut events = Box::pin(watch());
        let mut stop = self.stop.clone();
        let (mut filled, mut listed) = (false, false);
        loop {
            let event = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    let done = matches!(event, Event::InitDone);
                    on(event);
                    listed |= done;
                    if done && !std::mem::replace(&mut filled, true) {
                        self.readiness.filled();
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(%kind, %error, "watch is interrupted");
                    // Once; what follows is retried with backoff.
                    if failed(&error) && std::mem::take(&mut listed) {
                        events.set(watch());
                    }
                }
                None => return,
            }
        }
    }
}

/// Watches Executions that are not over.
pub async fn executions(watching: Watching, context: Context, mut cache: Writer<Guarded<Execution>>) {
    let config = watcher::Config::default().fields("status.terminal!=true");
    watching
        .follow(config, |event: Event<Guarded<Execution>>| {
            cache.apply_watcher_event(&event);
            match event {
                Event::Apply(object) => execution::seen(&context, &object, true),
                Event::Delete(object) => {
                    let uid = object.meta().uid.as_deref().unwrap_or_default();
                    context.flights.vanished(uid);
                    context.gates.forget(&Key::of(&object));
                    if let Some(orphan) = context.tracker.forget(uid) {
                        execution::abandon(&context, orphan);
                    }
                }
                Event::InitDone => relisted(&context),
                Event::Init | Event::InitApply(_) => {}
            }
        })
        .await;
}

/// A list replaces everything: who is not in it was deleted, or has ended, while nobody watched.
fn relisted(context: &Context) {
    let live = context.executions.state();
    let uids: std::collections::HashSet<&str> =
        live.iter().filter_map(|object| object.meta().uid.as_deref()).collect();
    for orphan in context.tracker.retain(|uid| uids.contains(uid)) {
        execution::abandon(context, orphan);
    }
    context.flights.retain(|uid| uids.contains(uid));
    for object in &live {
        execution::enlist(context, object);
    }
    for object in &live {
        execution::seen(context, object, false);
    }
}

/// Watches Executions that are over and have a TTL which has not been carried out. There is no cache: the time that is
/// left lies in the queue.
pub async fn ended(watching: Watching, context: Context) {
    let config = watcher::Config::default()
        .fields("status.terminal=true,spec.ttlAfterFinished.action!=,status.compacted!=true");
    watching
        .follow(config, |event: Event<Guarded<Execution>>| match event {
            Event::Apply(object) | Event::InitApply(object) => execution::expire::seen(&context, &object),
            Event::Delete(object) => context.expiry_queue.forget(&Key::of(&object)),
            Event::Init | Event::InitDone => {}
        })
        .await;
}

/// Watches pools.
pub async fn pools(watching: Watching, context: Context, mut cache: Writer<Guarded<ExecutorPool>>) {
    watching
        .follow(watcher::Config::default(), |event: Event<Guarded<ExecutorPool>>| {
            let before = match &event {
                Event::Apply(pool) => context.pool(&Key::of(pool)),
                _ => None,
            };
            cache.apply_watcher_event(&event);
            match event {
                Event::Apply(pool) | Event::Delete(pool) => {
                    // Our own status is no news, neither for the pool nor for those who wait for it.
                    let same =
                        before.is_some_and(|before| before.meta().generation == pool.meta().generation);
                    if !same {
                        pool_changed(&context, &Key::of(&pool));
                    }
                }
                Event::InitDone => {
                    for pool in context.pools.state() {
                        pool_changed(&context, &Key::of(&*pool));
                    }
                }
                Event::Init | Event::InitApply(_) => {}
            }
        })
        .await;
}

fn pool_changed(context: &Context, pool: &Key) {
    executor_pool::refresh(context);
    context.pool_queue.push(pool.clone());
    context.push_executions_of(pool);
}

/// Watches executor pods. An operator that may not see pods serves pools of fixed addresses all the same.
pub async fn pods(watching: Watching, context: Context, mut cache: Writer<Pod>) {
    let config = watcher::Config::default().labels(&format!("{NAME_LABEL}={EXECUTOR_NAME}"));
    let on = |event: Event<Pod>| {
        cache.apply_watcher_event(&event);
        match event {
            Event::Apply(pod) | Event::Delete(pod) => {
                executor_pool::refresh(&context);
                if let Some(pool) = observe::pool_of(&pod) {
                    context.pool_queue.push(pool);
                }
                if let Some((execution, _)) = dedicated::execution_of(&pod) {
                    context.execution_queue.push(execution);
                }
            }
            Event::InitDone => {
                context.pods.filled();
                executor_pool::pods_seen(&context);
            }
            Event::Init | Event::InitApply(_) => {}
        }
    };
    let failed = |error: &watcher::Error| {
        let forbidden = code(error) == 403;
        if context.pods.failed(forbidden, &error.to_string()) {
            executor_pool::pods_seen(&context);
        }
        forbidden
    };
    watching.follow_or(watching.api(), config, on, failed).await;
}

/// Watches policies of one kind. An operator that may not see them starts nothing, and says so where something waits.
pub async fn policies<K>(watching: Watching, context: Context, api: Api<Guarded<K>>)
where
    K: Binding + DeserializeOwned + Debug + Send + 'static,
{
    let on = |event: Event<Guarded<K>>| {
        if let Some(reach) = context.policies.hear(event) {
            context.push_executions_in(&reach);
        }
    };
    let failed = |error: &watcher::Error| {
        let void = [403, 404].contains(&code(error));
        if context.policies.failed(K::KIND, void, &error.to_string()) {
            context.push_executions_in(&Reach::Everywhere);
        }
        void
    };
    watching.follow_or(api, watcher::Config::default(), on, failed).await;
}

/// What the API server answered, if it did.
fn code(error: &watcher::Error) -> u16 {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code,
        watcher::Error::WatchError(status) => status.code,
        _ => 0,
    }
}

/// Watches ProofBundles without a verdict. There is no cache: see [`proof_bundle`].
pub async fn bundles(watching: Watching, context: Context) {
    let config =
        watcher::Config::default().fields("status.observedGeneration=-1").page_size(BUNDLES_PER_PAGE);
    watching
        .follow(config, |event: Event<Guarded<ProofBundle>>| {
            let (Event::Apply(object) | Event::InitApply(object)) = event else { return };
            match &object.0 {
                Ok(bundle) if proof_bundle::is_unjudged(bundle) => context.bundle_queue.push(Key::of(bundle)),
                Ok(_) => {}
                Err(malformed) => {
                    let bundle = Key::of(&object);
                    tracing::warn!(%bundle, error = malformed.error, "stored bundle cannot be read; create it anew");
                }
            }
        })
        .await;
}

/// Watches ProofBundles whose replays are not over. There is no cache: see [`replay`].
pub async fn replays(watching: Watching, context: Context) {
    let config =
        watcher::Config::default().fields("status.replays.phase=Running").page_size(BUNDLES_PER_PAGE);
    watching
        .follow(config, |event: Event<Guarded<ProofBundle>>| match event {
            Event::Apply(object) | Event::InitApply(object) => {
                // One that cannot be read was reported when it had no verdict.
                if let Ok(bundle) = &object.0 {
                    replay::seen(&context, bundle);
                }
            }
            Event::Delete(object) => replay::forget(&context, &Key::of(&object)),
            // Who went while nobody watched is found out one by one.
            Event::InitDone => context.push_replays(),
            Event::Init => {}
        })
        .await;
}

/// Drops what is large and not looked at.
fn prune<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}
