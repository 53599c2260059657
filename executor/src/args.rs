//! The command line. Every flag may also come from the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use requiem_config::executor::ServeArgs;

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
