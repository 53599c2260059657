//! The command line. Every flag may also come from the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::daemon::Config;
use crate::profile::ProfileArgs;
use crate::server::TlsFiles;

/// Runs attempts of Executions behind a sandbox and keeps their results.
#[derive(Debug, Parser)]
#[command(name = "requiem-executor", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve attempts until SIGTERM.
    Serve(Box<ServeArgs>),
    /// Put the seccomp profile of executor pods into a node's folder.
    InstallProfile(ProfileArgs),
    /// Wait until the executor beside this process serves; a pod's second container starts after that.
    AwaitServing(AwaitArgs),
    /// Speak HTTP on standard input and output with the executor beside this process; changes nothing.
    Relay(RelayArgs),
    /// The sandbox's own process; started by `serve`, never by hand.
    #[command(hide = true)]
    Runner,
}

/// Flags of `await-serving`.
#[derive(Debug, Args)]
pub struct AwaitArgs {
    /// Where it answers probes.
    #[arg(long, default_value = "127.0.0.1:7480")]
    pub admin: SocketAddr,
    /// Seconds after which it is given up.
    #[arg(long, default_value_t = 120)]
    pub seconds: u32,
}

/// Flags of `relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Its local socket.
    #[arg(
        long,
        env = "REQUIEM_EXECUTOR_LOCAL_SOCKET",
        value_name = "PATH",
        default_value = "/requiem/local/executor.sock"
    )]
    pub socket: PathBuf,
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address for operators: mutual TLS, HTTP/2. Port 0 takes a free one.
    #[arg(long, env = "REQUIEM_EXECUTOR_LISTEN", default_value = "127.0.0.1:7443")]
    listen: SocketAddr,
    /// Address for probes and scrapers: plain HTTP, no secrets.
    #[arg(long, env = "REQUIEM_EXECUTOR_ADMIN_LISTEN", default_value = "127.0.0.1:7480")]
    admin_listen: SocketAddr,
    /// Certificate chain of this executor, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_TLS_CERT", value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its private key, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf,
    /// Authority whose certificates operators show, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_CLIENT_CA", value_name = "FILE")]
    client_ca: PathBuf,
    /// Name that client certificates must bear, as a DNS name or as the common name.
    #[arg(
        long,
        env = "REQUIEM_EXECUTOR_OPERATOR_NAME",
        value_name = "NAME",
        default_value = "requiem-operator"
    )]
    operator_name: String,
    /// Folder of the store and the journal; one executor per folder.
    #[arg(long, env = "REQUIEM_EXECUTOR_STORE", value_name = "DIR")]
    store: PathBuf,
    /// Attempts that run at the same time [default: the number of processors].
    #[arg(long, env = "REQUIEM_EXECUTOR_SLOTS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Attempts that may wait while every slot is taken.
    #[arg(long, env = "REQUIEM_EXECUTOR_QUEUE", default_value_t = 1024)]
    queue: u32,
    /// Name in bundles and capabilities.
    #[arg(long, env = "REQUIEM_EXECUTOR_NAME", default_value = "executor")]
    name: String,
    /// Seconds that running attempts have to end after SIGTERM.
    #[arg(long, env = "REQUIEM_EXECUTOR_DRAIN_SECONDS", default_value_t = 25)]
    drain_seconds: u32,
    /// Acknowledged attempts that stay known, so that a late call is answered and not run again.
    #[arg(long, env = "REQUIEM_EXECUTOR_KEEP_ACKED", default_value_t = 4096)]
    keep_acked: u32,
    /// Wait for a runner of another container at this Unix socket, instead of starting one.
    #[arg(long, env = "REQUIEM_EXECUTOR_RUNNER_SOCKET", value_name = "PATH")]
    runner_socket: Option<PathBuf>,
    /// Copy the runner that lies beside this program to this place first, for the other container.
    #[arg(long, env = "REQUIEM_EXECUTOR_INSTALL_RUNNER", value_name = "PATH")]
    install_runner: Option<PathBuf>,
    /// Answer calls that change nothing at this Unix socket too, for the own user alone; see `relay`.
    #[arg(long, env = "REQUIEM_EXECUTOR_LOCAL_SOCKET", value_name = "PATH")]
    local_socket: Option<PathBuf>,
    /// Serve one Execution and end when its end has been acknowledged.
    #[arg(long, env = "REQUIEM_EXECUTOR_ONCE")]
    once: bool,
    /// Write the roots of the last results here at the end (in a pod: /dev/termination-log).
    #[arg(long, env = "REQUIEM_EXECUTOR_TERMINATION_LOG", value_name = "PATH")]
    termination_log: Option<PathBuf>,
}

impl From<ServeArgs> for Config {
    fn from(args: ServeArgs) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let whole = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            listen: args.listen,
            admin_listen: args.admin_listen,
            tls: TlsFiles {
                cert: args.tls_cert,
                key: args.tls_key,
                client_ca: args.client_ca,
                operator_name: args.operator_name,
            },
            store: args.store,
            slots: args.slots.map_or(processors, whole),
            queue: whole(args.queue),
            name: args.name,
            drain: Duration::from_secs(args.drain_seconds.into()),
            keep_acked: whole(args.keep_acked),
            runner_socket: args.runner_socket,
            install_runner: args.install_runner,
            local_socket: args.local_socket,
            once: args.once,
            termination_log: args.termination_log,
        }
    }
}
