//! The daemon: everything put together, started in order, and stopped in the reverse order.
//!
//! Start: namespace → store → journal (missing ends written, lost streams restored) → runner and its probe →
//! slots → listeners. In a pod the runner comes by itself, so there the listeners come first. The end is told in
//! [`farewell`]; after it open calls are answered and the journal is closed.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use requiem_cas::{Store, StoreError};
use requiem_sandbox::{RunError, RunnerConfig, SandboxError};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::archive::Archive;
use crate::attempts::Attempts;
use crate::execute::executor_claim;
use crate::farewell;
use crate::health::Health;
use crate::install::{InstallError, install_runner};
use crate::journal::{Journal, JournalError, JournalOptions, Logged, Retire};
use crate::metrics::Metrics;
use crate::recover;
use crate::runners::{Place, Runners};
use crate::server::identity::Identity;
use crate::server::routes::About;
use crate::server::{self, TlsError, TlsFiles, admin, listen, routes};
use crate::workers::{self, Workshop};

/// Runs prepared ahead of need, at most: each holds two processes.
const MAX_SPARES: usize = 64;
/// How long a sidecar waits for its SIGTERM when the runner has been let go.
const LET_GO: Duration = Duration::from_secs(10);

/// Everything that `serve` can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the operator's side.
    pub listen: SocketAddr,
    /// Address of the admin side.
    pub admin_listen: SocketAddr,
    /// Identity of the endpoint.
    pub tls: TlsFiles,
    /// Folder of the store.
    pub store: PathBuf,
    /// Attempts at the same time.
    pub slots: usize,
    /// Attempts that may wait.
    pub queue: usize,
    /// Name in bundles.
    pub name: String,
    /// Time to end after SIGTERM.
    pub drain: Duration,
    /// Acknowledged attempts that stay known.
    pub keep_acked: usize,
    /// Where a runner of another container is waited for.
    pub runner_socket: Option<PathBuf>,
    /// Where the runner is put for that container.
    pub install_runner: Option<PathBuf>,
    /// Where processes of the own user may read.
    pub local_socket: Option<PathBuf>,
    /// Serve one Execution and end.
    pub once: bool,
    /// Where the last word goes.
    pub termination_log: Option<PathBuf>,
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The runner.
    #[error("the sandbox cannot be prepared: {0}")]
    Sandbox(#[from] SandboxError),
    /// The probe run.
    #[error("nothing can be run in the sandbox: {0}")]
    Probe(#[from] RunError),
    /// The store.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("the journal cannot be opened: {0}")]
    Journal(#[from] JournalError),
    /// The endpoint's identity.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The runner of a pod.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// An address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The local socket.
    #[error("cannot listen at {}: {source}", path.display())]
    LocalSocket {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The metrics.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Anything else that the system refuses.
    #[error("cannot {what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The daemon before it serves.
struct Daemon {
    attempts: Arc<Attempts>,
    api: Arc<routes::Api>,
    health: Arc<Health>,
    slots: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    drain: Duration,
    once: bool,
    termination_log: Option<PathBuf>,
}

/// Body of `requiem-executor serve`: 0 after a graceful end, 2 if it cannot start. What was wrong with the configuration file without
/// being a reason not to start is told once there is a log.
pub fn main(config: Config, warnings: &[String]) -> ExitCode {
    // First of all, while there is one thread: a namespace cannot be entered later.
    let entered = requiem_sandbox::enter_trusted_namespace();
    start_log();
    for warning in warnings {
        tracing::warn!(%warning, "a setting was passed over");
    }
    if let Err(error) = entered {
        tracing::warn!(%error, "inputs will be copied into every run instead of mounted");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| StartupError::System { what: "start the runtime", source });
    match runtime.and_then(|runtime| runtime.block_on(serve(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, hint = error.hint(), "requiem-executor does not start");
            ExitCode::from(2)
        }
    }
}

/// Serves until SIGTERM or SIGINT, until the runner's container is told to end, or, with `once`, until its one
/// Execution is done.
///
/// # Errors
/// Something that is needed cannot be had.
pub async fn serve(config: Config) -> Result<(), StartupError> {
    let mut ends = Signals::new()?;
    let (listener, admin_listener) = (bind(config.listen).await?, bind(config.admin_listen).await?);
    let addresses = [local(&listener)?, local(&admin_listener)?];
    let local_listener = config.local_socket.as_deref().map(bind_local).transpose()?;
    let built = tokio::task::spawn_blocking(move || Daemon::build(&config)).await;
    let daemon =
        built.map_err(|error| StartupError::System { what: "start", source: io::Error::other(error) })??;
    let admin = admin::router(Arc::clone(&daemon.health));
    let admin = tokio::spawn(async move { axum::serve(admin_listener, admin).await });
    let (identity, router) = (Arc::clone(&daemon.health.identity), routes::router(Arc::clone(&daemon.api)));
    let calls = tokio::spawn(listen::serve(listener, identity, router, daemon.stop.subscribe()));
    let reads = local_listener.map(|listener| {
        let router = routes::read_router(Arc::clone(&daemon.api));
        let metrics = Arc::clone(&daemon.health.metrics);
        tokio::spawn(server::local::serve(listener, router, metrics, daemon.stop.subscribe()))
    });
    announce(addresses);
    daemon.until_end(&mut ends).await;
    let stop = daemon.stop.clone();
    daemon.wind_up(&mut ends).await;
    stop.send_replace(true);
    let reads = async {
        if let Some(reads) = reads {
            drop(reads.await)
        }
    };
    let open = async { tokio::join!(calls, reads) };
    if tokio::time::timeout(Duration::from_secs(5), open).await.is_err() {
        tracing::warn!("some calls were still open");
    }
    admin.abort();
    tracing::info!("stopped");
    Ok(())
}

// === impl Daemon ===

impl Daemon {
    fn build(config: &Config) -> Result<Self, StartupError> {
        let identity = Arc::new(Identity::load(config.tls.clone())?);
        if let Some(target) = &config.install_runner {
            install_runner(target)?;
        }
        let store = Store::open(&config.store)?;
        let archive = Archive::new(&config.store);
        let options = JournalOptions { keep_acked: config.keep_acked, ..JournalOptions::default() };
        let (journal, replay) =
            Journal::open(&config.store.join("journal"), options, retire(&store, &archive))?;
        let restored = recover::restore_streams(&store, &replay)?;
        tracing::info!(attempts = replay.attempts.len(), restored, "the journal is open");
        let attempts = Attempts::new(journal, &replay, config.queue, config.keep_acked).once(config.once);
        let attempts = Arc::new(attempts);
        let metrics = Arc::new(Metrics::new()?);
        metrics.slots.set(i64::try_from(config.slots).unwrap_or(i64::MAX));
        let runners = runners(config, &metrics)?;
        let system = |what| move |source| StartupError::System { what, source };
        let workshop = Arc::new(Workshop {
            attempts: Arc::clone(&attempts),
            store: store.clone(),
            runners: Arc::clone(&runners),
            claim: executor_claim(&config.name)
                .map_err(system("read facts about this process from /proc"))?,
            metrics: Arc::clone(&metrics),
        });
        let slots = workers::start(&workshop, config.slots).map_err(system("start a slot"))?;
        let (stop, stopping) = watch::channel(false);
        let about = About::of(config);
        let api = routes::Api {
            attempts: Arc::clone(&attempts),
            store,
            archive,
            about,
            runners: Arc::clone(&runners),
            metrics: Arc::clone(&metrics),
        };
        let folder = config.store.clone();
        let health = Health {
            attempts: Arc::clone(&attempts),
            runners,
            identity,
            store: folder,
            metrics,
            stopping,
            doubts: Mutex::default(),
        };
        Ok(Self {
            attempts,
            api: Arc::new(api),
            health: Arc::new(health),
            slots,
            stop,
            drain: config.drain,
            once: config.once,
            termination_log: config.termination_log.clone(),
        })
    }

    /// Returns when there is a reason to end.
    async fn until_end(&self, signals: &mut Signals) {
        let mut told = self.health.runners.stopping();
        let done =
            async { if self.once { self.attempts.settled().await } else { std::future::pending().await } };
        tokio::select! {
            () = signals.wait() => {}
            // The sender lives as long as the runners do.
            _told = told.wait_for(|told| *told) => {}
            () = done => {}
        }
    }

    /// Ends in order; see [`farewell`].
    async fn wind_up(self, signals: &mut Signals) {
        let Self { attempts, health, slots, drain, once, termination_log, .. } = self;
        let deadline = tokio::time::Instant::now() + drain;
        tracing::info!(seconds = drain.as_secs(), "draining; running attempts may end");
        attempts.drain();
        health.runners.close();
        stop_slots(&attempts, slots, drain).await;
        let in_pod = health.runners.place() == Place::Apart;
        if in_pod || once {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !farewell::fetched(&attempts, left).await {
                tracing::warn!("the drain time is over; some ends were not acknowledged");
            }
        }
        if let Some(path) = &termination_log {
            farewell::leave_word(&attempts, path);
        }
        if in_pod && health.runners.runner().dismiss().is_ok() {
            // The kubelet ends a sidecar when the other containers have ended; before, it would only restart it.
            let _whichever = tokio::time::timeout(LET_GO, signals.wait()).await;
        }
    }
}

/// The runner, as it is asked for.
fn runners(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<Runners>, StartupError> {
    let spares = config.slots.min(MAX_SPARES);
    if let Some(socket) = &config.runner_socket {
        let metrics = Arc::clone(metrics);
        return Runners::listen(socket, spares, move |report| metrics.show_layers(report));
    }
    let program = std::env::current_exe()
        .map_err(|source| StartupError::System { what: "find the own program", source })?;
    let runners = Runners::start(RunnerConfig { spares, ..RunnerConfig::new(program) })?;
    if let Ok(report) = runners.report() {
        metrics.show_layers(&report);
    }
    Ok(runners)
}

/// What leaves the journal must be durable elsewhere: bundles in the archive, streams in the store. Both lie
/// in one file system, so one sync covers them.
fn retire(store: &Store, archive: &Archive) -> Retire {
    let (store, archive) = (store.clone(), archive.clone());
    Box::new(move |attempts: &[Logged]| {
        archive.keep(attempts).map_err(|error| format!("cannot write bundles: {error}"))?;
        store.sync().map_err(|error| error.to_string())
    })
}

/// Waits for the slots; when the drain time is over, ends their runs and waits on: that takes no time of theirs.
async fn stop_slots(attempts: &Arc<Attempts>, slots: Vec<JoinHandle<()>>, drain: Duration) {
    let mut joined =
        tokio::task::spawn_blocking(move || slots.into_iter().map(JoinHandle::join).all(|end| end.is_ok()));
    if tokio::time::timeout(drain, &mut joined).await.is_err() {
        tracing::warn!("the drain time is over; running attempts are ended");
        attempts.abandon();
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("a slot ended badly");
        }
    }
}

/// Where the listeners are, as one line on standard output, for whoever started this process on port 0.
fn announce([listen, admin]: [SocketAddr; 2]) {
    tracing::info!(%listen, %admin, "serving");
    let mut out = io::stdout().lock();
    let line = writeln!(out, "{{\"listen\":\"{listen}\",\"admin\":\"{admin}\"}}").and_then(|()| out.flush());
    if let Err(error) = line {
        tracing::debug!(%error, "nobody reads standard output");
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartupError> {
    TcpListener::bind(address).await.map_err(|source| StartupError::Listen { address, source })
}

fn bind_local(socket: &Path) -> Result<UnixListener, StartupError> {
    server::local::bind(socket)
        .map_err(|source| StartupError::LocalSocket { path: socket.to_owned(), source })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartupError> {
    listener.local_addr().map_err(|source| StartupError::System { what: "read the own address", source })
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_writer(io::stderr).with_env_filter(filter).init();
}

/// The two signals that mean "end gracefully".
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, StartupError> {
        let listen =
            |kind| signal(kind).map_err(|source| StartupError::System { what: "listen for signals", source });
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _term = self.term.recv() => {}
            _int = self.int.recv() => {}
        }
    }
}

// === impl StartupError ===

impl StartupError {
    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Sandbox(_) | Self::Probe(_) => {
                "run as root, or where unprivileged user namespaces are allowed"
            }
            Self::Store(error) => error.hint(),
            Self::Journal(JournalError::Locked { .. }) => {
                "stop the other executor, or give this one its own --store"
            }
            Self::Journal(JournalError::Unreadable { .. }) => {
                "run the newer version that wrote it, or use another --store"
            }
            Self::Journal(JournalError::Foreign { .. }) => {
                "move the file away only if its results are not needed"
            }
            Self::Journal(_) => "check the volume of --store",
            Self::Tls(_) => "give PEM files with --tls-cert, --tls-key and --client-ca",
            Self::Install(InstallError::Write { .. }) => {
                "mount a folder that this user may write at the place of --install-runner"
            }
            Self::Install(_) => "check the image of the executor, and that /proc is mounted",
            Self::Listen { .. } => "choose a free address with --listen and --admin-listen; port 0 takes any",
            Self::LocalSocket { .. } => "name a place in a folder of this user's with --local-socket",
            Self::Metrics(_) => "this is a defect; please report it",
            Self::System { .. } => "check the limits of the process and that /proc is mounted",
        }
    }
}
