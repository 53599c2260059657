//! The operator as a whole: clients, caches, queues, and their end.

use std::time::Duration;

use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector;
use kube::{Client, Config};
use requiem_config::operator::Args;
use requiem_crds::admission::Kind;
use requiem_crds::{ClusterExecutionPolicy, ExecutionPolicy};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin::{self, Readiness};
use crate::certificates::Certificates;
use crate::context::{Context, OwnBundles, kinds};
use crate::dispatch::{Dispatcher, Endpoint, TlsError, TlsFiles, client_config};
use crate::events::Events;
use crate::execution::flights::Flights;
use crate::execution::policy::Policies;
use crate::execution::tracker::Tracker;
use crate::executor_pool::memory::Memory;
use crate::executor_pool::observe::Pods;
use crate::fleet::Fleet;
use crate::gates::Gates;
use crate::health::Health;
use crate::kubeapi::{FIELD_MANAGER, Writer};
use crate::leader::{Candidacy, Candidate, LeaseLost, Standing};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::replay::memory::Replays;
use crate::watching::{self, Watching};
use crate::{execution, executor_pool, proof_bundle, replay};

/// How long workers may take to finish after the signal. A run that is waited for is left to the next operator.
const GRACE: Duration = Duration::from_secs(10);
const SAMPLING: Duration = Duration::from_secs(5);
const BUNDLE_WORKERS: usize = 16;
const POOL_WORKERS: usize = 8;
const EXPIRY_WORKERS: usize = 8;
/// Bundles that are replayed at the same time: a worker waits for the end of the run.
const REPLAY_WORKERS: usize = 64;

/// Why the operator does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The TLS files are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No way to the API server is configured.
    #[error("no API server is configured: {0}; give --kubeconfig, or run in a pod with a service account")]
    Kubeconfig(String),
    /// The client cannot be made.
    #[error("the API client cannot be made: {0}")]
    Client(#[from] kube::Error),
    /// The admin address is taken, or not ours.
    #[error("cannot listen on {address}: {source}; choose another --admin-listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Metrics cannot be registered.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(#[source] std::io::Error),
    /// The Lease is lost.
    #[error(transparent)]
    Lease(#[from] LeaseLost),
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    /// What it consists of.
    pub parts: JoinSet<()>,
    candidacy: Option<Candidacy>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub async fn run(args: Args) -> Result<(), RunError> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let mut operator = start(&args, stopped).await?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: finishing"),
        _ = interrupt.recv() => tracing::info!("SIGINT: finishing"),
        _ = operator.parts.join_next() => tracing::error!("a part of the operator ended by itself: finishing"),
        lost = lost(&mut operator.candidacy) => return Err(lost.into()),
    }
    stop.send_replace(true);
    let ended = async { while operator.parts.join_next().await.is_some() {} };
    tokio::select! {
        ended = tokio::time::timeout(GRACE + Duration::from_secs(2), ended) => if ended.is_err() {
            tracing::warn!("some tasks did not end in time");
        },
        lost = lost(&mut operator.candidacy) => return Err(lost.into()),
    }
    // Only now: until here it may have worked.
    operator.parts.shutdown().await;
    if let Some(candidacy) = operator.candidacy {
        candidacy.resign().await;
    }
    Ok(())
}

async fn lost(candidacy: &mut Option<Candidacy>) -> LeaseLost {
    match candidacy {
        Some(candidacy) => candidacy.lost().await,
        None => std::future::pending().await,
    }
}

/// Starts every part of the operator; they end when `stop` turns true. With an election, those that work begin when it is won.
///
/// # Errors
/// See [`RunError`].
pub async fn start(args: &Args, stop: watch::Receiver<bool>) -> Result<Operator, RunError> {
    let files = TlsFiles::of(args).map(|files| client_config(&files)).transpose()?;
    let metrics = Metrics::new()?;
    let listener = admin::bind(args.admin_listen)
        .await
        .map_err(|source| RunError::Listen { address: args.admin_listen, source })?;
    let mut config = kube_config(args).await?;
    let readiness = Readiness::waiting_for(4);
    let watching = Watching {
        client: Client::try_from(config.clone())?,
        namespace: args.namespace.clone(),
        readiness: readiness.clone(),
        stop: stop.clone(),
    };
    // Writes are retried by the queues, with their backoff, and not by the client behind our back.
    config.default_retry = false;
    let writes = Client::try_from(config)?;
    let mut parts = JoinSet::new();
    parts.spawn(serve(listener, metrics.clone(), readiness.clone(), stop));
    let candidacy = candidate(args, &writes, &metrics).map(Candidate::stand);
    let dispatcher = Dispatcher::new(files, metrics.clone());
    match &candidacy {
        None => work(args, dispatcher, writes, metrics, &watching, &mut parts),
        Some(candidacy) => {
            let (args, standing) = (args.clone(), candidacy.standing());
            parts.spawn(async move {
                if !is_elected(standing, &watching).await {
                    return;
                }
                let mut parts = JoinSet::new();
                work(&args, dispatcher, writes, metrics, &watching, &mut parts);
                parts.join_next().await;
                // One that ended by itself ends this, and with it the others.
                while *watching.stop.borrow() && parts.join_next().await.is_some() {}
            });
        }
    }
    Ok(Operator { parts, candidacy })
}

fn candidate(args: &Args, client: &Client, metrics: &Metrics) -> Option<Candidate> {
    let namespace = args.own_namespace.as_deref().filter(|_| args.leader_elect)?;
    let term = Duration::from_secs(args.lease_seconds.into());
    Some(Candidate::new(client.clone(), namespace, term, metrics.clone()))
}

/// Waits for the election to be won; false if the stop comes first.
async fn is_elected(mut standing: watch::Receiver<Standing>, watching: &Watching) -> bool {
    let mut stop = watching.stop.clone();
    loop {
        let now = *standing.borrow_and_update();
        watching.readiness.stands_by(now == Standing::By);
        if now == Standing::Leads {
            return true;
        }
        let changed = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return false,
            changed = standing.changed() => changed,
        };
        if changed.is_err() {
            // Lost: the process ends.
            std::future::pending::<()>().await;
        }
    }
}

/// The parts that work.
fn work(
    args: &Args,
    dispatcher: Dispatcher,
    writes: Client,
    metrics: Metrics,
    watching: &Watching,
    parts: &mut JoinSet<()>,
) {
    let context = assemble(args, dispatcher, writes, metrics, watching, parts);
    workers(&context, usize::from(args.concurrency), &watching.stop, parts);
    expiry_workers(&context, &watching.stop, parts);
    replay_workers(&context, &watching.stop, parts);
    parts.spawn(sample(context, watching.stop.clone()));
}

/// Caches, their watches, and what reconcilers share.
fn assemble(
    args: &Args,
    dispatcher: Dispatcher,
    writes: Client,
    metrics: Metrics,
    watching: &Watching,
    parts: &mut JoinSet<()>,
) -> Context {
    let (executions, execution_cache) = reflector::store();
    let (pools, pool_cache) = reflector::store();
    let (pods, pod_cache) = reflector::store();
    let writer = Writer::new(writes.clone(), metrics.clone());
    let own = args.own_namespace.as_deref();
    let (health, back) = Health::new(dispatcher.clone());
    let execution_queue = Queue::default();
    let context = Context {
        executions,
        pools,
        policies: Policies::new(args.obeys_cluster()),
        pods: Pods::new(pods),
        fleet: Fleet::default(),
        memory: Memory::default(),
        certificates: Certificates::new(own, writer.clone(), dispatcher.clone(), metrics.clone()),
        executor_image: args.executor_image.clone(),
        gates: Gates::new(execution_queue.clone()),
        flights: Flights::new(execution_queue.clone()),
        execution_queue,
        pool_queue: Queue::default(),
        bundle_queue: Queue::default(),
        expiry_queue: Queue::default(),
        replay_queue: Queue::default(),
        replays: Replays::new(watching.stop.clone()),
        writer,
        dispatcher,
        health,
        tracker: Tracker::default(),
        own_bundles: OwnBundles::default(),
        events: Events::new(writes, FIELD_MANAGER, metrics.clone()),
        metrics,
    };
    parts.spawn(watching::executions(watching.clone(), context.clone(), execution_cache));
    parts.spawn(watching::pools(watching.clone(), context.clone(), pool_cache));
    // It counts for no readiness: without the right to see pods everything else works.
    let apart = Watching { readiness: Readiness::waiting_for(2), ..watching.clone() };
    parts.spawn(watching::pods(apart.clone(), context.clone(), pod_cache));
    // Nor does this: a definition of before replays cannot select by them.
    parts.spawn(watching::replays(apart, context.clone()));
    policies(args, context.clone(), watching, parts);
    parts.spawn(watching::bundles(watching.clone(), context.clone()));
    parts.spawn(watching::ended(watching.clone(), context.clone()));
    parts.spawn(comebacks(context.clone(), back, watching.stop.clone()));
    context
}

/// Neither do these: who waits for them says so.
fn policies(args: &Args, context: Context, watching: &Watching, parts: &mut JoinSet<()>) {
    let apart = || Watching { readiness: Readiness::waiting_for(1), ..watching.clone() };
    let own = apart().api();
    parts.spawn(watching::policies::<ExecutionPolicy>(apart(), context.clone(), own));
    if args.obeys_cluster() {
        let all = Api::all(watching.client.clone());
        parts.spawn(watching::policies::<ClusterExecutionPolicy>(apart(), context, all));
    }
}

fn workers(context: &Context, concurrency: usize, stop: &watch::Receiver<bool>, parts: &mut JoinSet<()>) {
    let (shared, stopped) = (context.clone(), stop.clone());
    parts.spawn(async move {
        let queue = shared.execution_queue.clone();
        queue.run(concurrency, stopped, GRACE, move |key| execution::reconcile(shared.clone(), key)).await;
    });
    let (shared, stopped) = (context.clone(), stop.clone());
    parts.spawn(async move {
        let queue = shared.bundle_queue.clone();
        queue
            .run(BUNDLE_WORKERS, stopped, GRACE, move |key| proof_bundle::reconcile(shared.clone(), key))
            .await;
    });
    let (shared, stopped) = (context.clone(), stop.clone());
    parts.spawn(async move {
        let queue = shared.pool_queue.clone();
        queue
            .run(POOL_WORKERS, stopped, GRACE, move |key| executor_pool::reconcile(shared.clone(), key))
            .await;
    });
}

fn expiry_workers(context: &Context, stop: &watch::Receiver<bool>, parts: &mut JoinSet<()>) {
    let (shared, stopped) = (context.clone(), stop.clone());
    parts.spawn(async move {
        let queue = shared.expiry_queue.clone();
        queue
            .run(EXPIRY_WORKERS, stopped, GRACE, move |key| execution::expire::reconcile(shared.clone(), key))
            .await;
    });
}

fn replay_workers(context: &Context, stop: &watch::Receiver<bool>, parts: &mut JoinSet<()>) {
    let (shared, stopped) = (context.clone(), stop.clone());
    parts.spawn(async move {
        let queue = shared.replay_queue.clone();
        queue.run(REPLAY_WORKERS, stopped, GRACE, move |key| replay::reconcile(shared.clone(), key)).await;
    });
}

async fn comebacks(
    context: Context,
    mut back: mpsc::UnboundedReceiver<Endpoint>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            endpoint = back.recv() => match endpoint {
                Some(endpoint) => executor_pool::is_back(&context, &endpoint),
                None => return,
            },
        }
    }
}

async fn sample(context: Context, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(SAMPLING);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = tick.tick() => {}
        }
        let metrics = &context.metrics;
        metrics.backlog(kinds::EXECUTION, context.execution_queue.depth(), context.executions.len());
        metrics.backlog(kinds::POOL, context.pool_queue.depth(), context.pools.len());
        metrics.backlog(kinds::ENDED, context.expiry_queue.depth(), 0);
        metrics.backlog(kinds::BUNDLE, context.bundle_queue.depth(), 0);
        metrics.backlog(kinds::REPLAY, context.replay_queue.depth(), context.replays.len());
        metrics.backlog(kinds::POD, 0, context.pods.len());
        for kind in [Kind::Namespaced, Kind::Cluster] {
            metrics.backlog(kind.as_str(), 0, context.policies.len(kind));
        }
        metrics.crew(context.fleet.all_slots(), &context.health.census());
    }
}

async fn serve(listener: TcpListener, metrics: Metrics, readiness: Readiness, stop: watch::Receiver<bool>) {
    if let Err(error) = admin::serve(listener, metrics, readiness, stop).await {
        tracing::error!(%error, "the admin endpoint failed");
    }
}

async fn kube_config(args: &Args) -> Result<Config, RunError> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let unusable = |error: &dyn std::error::Error| RunError::Kubeconfig(error.to_string());
    match (&args.kubeconfig, &args.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(&error))
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error)),
        (None, None) => Config::infer().await.map_err(|error| unusable(&error)),
    }
}
