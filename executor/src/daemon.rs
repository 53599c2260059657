//! The daemon: everything put together, started in order, and stopped in the reverse order.
//!
//! Start: namespace → store → journal (missing ends written, lost streams restored) → runner and its probe →
//! slots → listeners. Stop, on SIGTERM or SIGINT: nothing new starts; runs have the drain time to end and are
//! then ended; open calls are answered; the journal is closed.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use requiem_cas::{Store, StoreError};
use requiem_model::attempt::Capabilities;
use requiem_sandbox::{RunError, RunnerConfig, SandboxError};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::archive::Archive;
use crate::attempts::Attempts;
use crate::execute::executor_claim;
use crate::journal::{Journal, JournalError, JournalOptions, Logged, Retire};
use crate::metrics::Metrics;
use crate::recover;
use crate::runners::Runners;
use crate::server::{TlsError, TlsFiles, admin, listen, routes, tls};
use crate::workers::{self, Workshop};

/// Runs prepared ahead of need, at most: each holds two processes.
const MAX_SPARES: usize = 64;

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
    /// An address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
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

/// What the admin side asks.
pub(crate) struct Health {
    attempts: Arc<Attempts>,
    runners: Arc<Runners>,
    store: PathBuf,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
}

/// The daemon before it serves.
struct Daemon {
    attempts: Arc<Attempts>,
    api: Arc<routes::Api>,
    health: Arc<Health>,
    slots: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// Body of `requiem-executor serve`: 0 after a graceful end, 2 if it cannot start.
pub fn main(config: Config) -> ExitCode {
    // First of all, while there is one thread: a namespace cannot be entered later.
    let entered = requiem_sandbox::enter_trusted_namespace();
    start_log();
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

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Something that is needed cannot be had.
pub async fn serve(config: Config) -> Result<(), StartupError> {
    let tls = tls::server_config(&config.tls)?;
    let mut ends = Signals::new()?;
    let (listener, admin_listener) = (bind(config.listen).await?, bind(config.admin_listen).await?);
    let (drain, addresses) = (config.drain, [local(&listener)?, local(&admin_listener)?]);
    let built = tokio::task::spawn_blocking(move || Daemon::build(&config)).await;
    let daemon =
        built.map_err(|error| StartupError::System { what: "start", source: io::Error::other(error) })??;
    let admin = tokio::spawn(async move { axum::serve(admin_listener, admin::router(daemon.health)).await });
    let calls =
        tokio::spawn(listen::serve(listener, tls, routes::router(daemon.api), daemon.stop.subscribe()));
    announce(addresses);
    ends.wait().await;
    tracing::info!(seconds = drain.as_secs(), "stopping; running attempts may end");
    daemon.attempts.drain();
    stop_slots(&daemon.attempts, daemon.slots, drain).await;
    daemon.stop.send_replace(true);
    if tokio::time::timeout(Duration::from_secs(5), calls).await.is_err() {
        tracing::warn!("some calls were still open");
    }
    admin.abort();
    tracing::info!("stopped");
    Ok(())
}

// === impl Daemon ===

impl Daemon {
    fn build(config: &Config) -> Result<Self, StartupError> {
        let store = Store::open(&config.store)?;
        let archive = Archive::new(&config.store);
        let options = JournalOptions { keep_acked: config.keep_acked, ..JournalOptions::default() };
        let (journal, replay) =
            Journal::open(&config.store.join("journal"), options, retire(&store, &archive))?;
        let restored = recover::restore_streams(&store, &replay)?;
        tracing::info!(attempts = replay.attempts.len(), restored, "the journal is open");
        let attempts = Arc::new(Attempts::new(journal, &replay, config.queue, config.keep_acked));
        let metrics = Arc::new(Metrics::new()?);
        let system = |what| move |source| StartupError::System { what, source };
        let program = std::env::current_exe().map_err(system("find the own program"))?;
        let runners = Arc::new(Runners::start(RunnerConfig {
            spares: config.slots.min(MAX_SPARES),
            ..RunnerConfig::new(program)
        })?);
        let capabilities = capabilities(config, &runners, &metrics)?;
        let claim =
            executor_claim(&config.name).map_err(system("read facts about this process from /proc"))?;
        let workshop = Arc::new(Workshop {
            attempts: Arc::clone(&attempts),
            store: store.clone(),
            runners: Arc::clone(&runners),
            claim,
            metrics: Arc::clone(&metrics),
        });
        let slots = workers::start(&workshop, config.slots).map_err(system("start a slot"))?;
        let (stop, stopping) = watch::channel(false);
        let health = Arc::new(Health {
            attempts: Arc::clone(&attempts),
            runners,
            store: config.store.clone(),
            metrics: Arc::clone(&metrics),
            stopping,
        });
        let api = routes::Api { attempts: Arc::clone(&attempts), store, archive, capabilities, metrics };
        Ok(Self { attempts, api: Arc::new(api), health, slots, stop })
    }
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

fn capabilities(config: &Config, runners: &Runners, metrics: &Metrics) -> Result<Capabilities, StartupError> {
    let sandbox = runners.probe()?;
    metrics.show_layers(&sandbox);
    Ok(Capabilities {
        executor: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: u32::try_from(config.slots).unwrap_or(u32::MAX),
        sandbox,
        draining: false,
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

// === impl Health ===

impl Health {
    /// Everything that must hold before work is sent here, each with the reason why it does not.
    pub(crate) fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let runner = self.runners.check().map_err(|error| error.to_string());
        let journal = self.attempts.journal().stopped().map_or(Ok(()), Err);
        let store = try_write(&self.store.join("journal/ready.probe")).map_err(|error| error.to_string());
        let open = if *self.stopping.borrow() { Err("stopping".to_owned()) } else { Ok(()) };
        vec![("runner", runner), ("journal", journal), ("store", store), ("open", open)]
    }

    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.queue_depth.set(i64::try_from(self.attempts.waiting()).unwrap_or(i64::MAX));
        self.metrics.text(self.attempts.journal().stats(), self.runners.restarts())
    }
}

/// Whether the volume takes a page now. A full disk must keep work away.
fn try_write(path: &std::path::Path) -> io::Result<()> {
    let written = std::fs::write(path, [0; 4096]);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        Ok(()) | Err(_) => written,
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
            Self::Listen { .. } => "choose a free address with --listen and --admin-listen; port 0 takes any",
            Self::Metrics(_) => "this is a defect; please report it",
            Self::System { .. } => "check the limits of the process and that /proc is mounted",
        }
    }
}
