//! The flags of `requiem-executor serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Command};

use crate::keys::Keys;

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Settings below the environment and the flags, as a file: configVersion = 1, and flags by their names in camelCase.
    #[arg(long, env = "REQUIEM_EXECUTOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address for operators: mutual TLS, HTTP/2. Port 0 takes a free one.
    #[arg(long, env = "REQUIEM_EXECUTOR_LISTEN", default_value = "127.0.0.1:7443")]
    pub listen: SocketAddr,
    /// Address for probes and scrapers: plain HTTP, no secrets.
    #[arg(long, env = "REQUIEM_EXECUTOR_ADMIN_LISTEN", default_value = "127.0.0.1:7480")]
    pub admin_listen: SocketAddr,
    /// Certificate chain of this executor, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_TLS_CERT", value_name = "FILE")]
    pub tls_cert: PathBuf,
    /// Its private key, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_TLS_KEY", value_name = "FILE")]
    pub tls_key: PathBuf,
    /// Authority whose certificates operators show, PEM.
    #[arg(long, env = "REQUIEM_EXECUTOR_CLIENT_CA", value_name = "FILE")]
    pub client_ca: PathBuf,
    /// Name that client certificates must bear, as a DNS name or as the common name.
    #[arg(
        long,
        env = "REQUIEM_EXECUTOR_OPERATOR_NAME",
        value_name = "NAME",
        default_value = "requiem-operator"
    )]
    pub operator_name: String,
    /// Folder of the store and the journal; one executor per folder.
    #[arg(long, env = "REQUIEM_EXECUTOR_STORE", value_name = "DIR")]
    pub store: PathBuf,
    /// Attempts that run at the same time [default: the number of processors].
    #[arg(long, env = "REQUIEM_EXECUTOR_SLOTS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
    /// Attempts that may wait while every slot is taken.
    #[arg(long, env = "REQUIEM_EXECUTOR_QUEUE", default_value_t = 1024)]
    pub queue: u32,
    /// Name in bundles and capabilities.
    #[arg(long, env = "REQUIEM_EXECUTOR_NAME", default_value = "executor")]
    pub name: String,
    /// Seconds that running attempts have to end after SIGTERM.
    #[arg(long, env = "REQUIEM_EXECUTOR_DRAIN_SECONDS", default_value_t = 25)]
    pub drain_seconds: u32,
    /// Acknowledged attempts that stay known, so that a late call is answered and not run again.
    #[arg(long, env = "REQUIEM_EXECUTOR_KEEP_ACKED", default_value_t = 4096)]
    pub keep_acked: u32,
    /// Wait for a runner of another container at this Unix socket, instead of starting one.
    #[arg(long, env = "REQUIEM_EXECUTOR_RUNNER_SOCKET", value_name = "PATH")]
    pub runner_socket: Option<PathBuf>,
    /// Copy the runner that lies beside this program to this place first, for the other container.
    #[arg(long, env = "REQUIEM_EXECUTOR_INSTALL_RUNNER", value_name = "PATH")]
    pub install_runner: Option<PathBuf>,
    /// Answer calls that change nothing at this Unix socket too, for the own user alone; see `relay`.
    #[arg(long, env = "REQUIEM_EXECUTOR_LOCAL_SOCKET", value_name = "PATH")]
    pub local_socket: Option<PathBuf>,
    /// Serve one Execution and end when its end has been acknowledged.
    #[arg(long, env = "REQUIEM_EXECUTOR_ONCE")]
    pub once: bool,
    /// Write the roots of the last results here at the end (in a pod: /dev/termination-log).
    #[arg(long, env = "REQUIEM_EXECUTOR_TERMINATION_LOG", value_name = "PATH")]
    pub termination_log: Option<PathBuf>,
}

/// The keys of its file.
pub fn keys() -> Keys {
    Keys::of("executor", ServeArgs::augment_args(Command::new("requiem-executor")))
}
