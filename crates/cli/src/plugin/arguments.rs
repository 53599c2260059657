//! The plugin's command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use requiem_model::RelPath;

use crate::arguments::{StoreArguments, output_path};
use crate::verdict::Requirement;

/// Run commands in a cluster behind a sandbox that proves itself, read what they wrote, and judge their proofs here.
///
/// Exit codes: 0 ok, 1 findings or a failed run, 2 unusable input or environment, 128 + N ended by signal N.
#[derive(Debug, Parser)]
#[command(name = "kubectl-requiem", bin_name = "kubectl requiem", version, propagate_version = true)]
pub(crate) struct PluginArguments {
    #[command(subcommand)]
    pub(crate) command: PluginCommand,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which cluster and which namespace.
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// Namespace [default: that of the kubeconfig's context].
    #[arg(long, short, value_name = "NAME", global = true)]
    pub(crate) namespace: Option<String>,
    /// Kubeconfig file [default: $KUBECONFIG, then ~/.kube/config].
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) context: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Create an Execution, show what it writes, wait for its end, and verify its proof here.
    Run(Run),
    /// Say how Executions stand, or all about those that are named.
    Get(Get),
    /// Show what a command wrote; -f follows it while it runs.
    Logs(Logs),
    /// List the outputs of an Execution, or bring them here.
    Outputs(Outputs),
    /// Recompute the proof of an Execution, here.
    Verify(Verify),
    /// Run the request of an Execution once more, on this machine, and say where the two differ.
    Replay(Replay),
    /// Say in which items two Executions differ, by their proofs.
    Diff(Diff),
    /// End Executions: what runs is killed, what waits never starts.
    Cancel(Cancel),
    /// Say how busy the pools are.
    Top,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The program and its arguments, after --.
    #[arg(last = true, value_name = "COMMAND", required = true)]
    pub(crate) command: Vec<String>,
    /// Name of the Execution [default: run- and what the API server makes of it].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The pool that runs it [default: default].
    #[arg(long, value_name = "NAME", conflicts_with = "image")]
    pub(crate) pool: Option<String>,
    /// Run it in a pod of its own, in this image.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Tier of that pod.
    #[arg(long, value_enum, requires = "image", default_value_t = TierName::T1)]
    pub(crate) tier: TierName,
    /// A variable of its environment, NAME=VALUE.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// A file of this machine as an input, PATH=FILE; at most 64 KiB of text.
    #[arg(long, value_name = "PATH=FILE")]
    pub(crate) input: Vec<String>,
    /// A file or folder below the workspace that is kept.
    #[arg(long, value_name = "PATH", value_parser = output_path)]
    pub(crate) output: Vec<RelPath>,
    /// Wall-clock limit of the command.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) timeout_seconds: u32,
    /// Do without layers that cannot be had there, instead of refusing to run.
    #[arg(long)]
    pub(crate) prefer_layers: bool,
    /// Write the ProofBundle to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: Option<PathBuf>,
}

/// Tiers, as users write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum TierName {
    T1,
    T2,
    T3,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Names of Executions [default: all of the namespace].
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Name of the Execution.
    pub(crate) name: String,
    /// Go on until it ends.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this stream; both are shown otherwise, each on its own.
    #[arg(long, value_enum)]
    pub(crate) stream: Option<StreamName>,
}

/// Streams, as users write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

#[derive(Debug, Args)]
pub(crate) struct Outputs {
    /// Name of the Execution.
    pub(crate) name: String,
    /// Only these outputs, as the Execution names them [default: all].
    pub(crate) paths: Vec<String>,
    /// Bring them into this folder, which is made.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Name of the Execution.
    pub(crate) name: String,
    /// Judge its signatures by this trust file: so many of these keys must have signed.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Count the replays in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,
    /// Exit with 1 unless it is so: integrity, signed[=N], sandbox=full, determinism=LEVEL, replayed[=N].
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) require: Vec<Requirement>,
    /// Write the proof to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Name of the Execution.
    pub(crate) name: String,
    /// Add the proof of this run to receipts, for `kubectl requiem verify --receipts`; they are made if they are not there.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// One Execution.
    pub(crate) one: String,
    /// The other.
    pub(crate) other: String,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Names of Executions.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}
