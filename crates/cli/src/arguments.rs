//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use requiem_model::BlobDigest;

/// Run commands in a sandbox that proves itself, store bytes by digest, verify proofs.
///
/// Exit codes: 0 ok, 1 findings or a failed run, 2 unusable input or environment.
#[derive(Debug, Parser)]
#[command(name = "requiem", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run commands.
    #[command(subcommand)]
    Exec(Exec),
    /// Put bytes into the store, and get them back.
    #[command(subcommand)]
    Cas(Cas),
    /// Judge proofs.
    #[command(subcommand)]
    Proof(Proof),
    /// Say what this machine can do: versions, sandbox layers by a real probe, the store.
    Health(StoreArguments),
    /// Started by requiem itself.
    #[command(hide = true)]
    Runner,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Exec {
    /// Run one request here, without Kubernetes.
    Run(ExecRun),
    /// Create an Execution in a cluster, wait for its end, and verify its proof here.
    Apply(ExecApply),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cas {
    /// Put a file, a folder or standard input; print the digest.
    Put(CasPut),
    /// Get a blob or a folder by its digest.
    Get(CasGet),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Proof {
    /// Recompute both roots of a bundle and check that its facts agree.
    Verify(ProofVerify),
}

/// Where the store is.
#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    /// Folder of the store [default: requiem/cas in the user's data folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) cas: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecRun {
    /// Request document (JSON); - reads standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: PathBuf,
    /// Also write the result document (JSON) to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write the proof to this file, for `requiem proof verify`.
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ExecApply {
    /// An Execution, as YAML or JSON; - reads standard input.
    pub(crate) file: PathBuf,
    /// Namespace, if the file names none [default: that of the kubeconfig's context, or of the pod].
    #[arg(long, short, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, then the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// How long to wait for the end.
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub(crate) timeout_seconds: u64,
    /// Write the ProofBundle to this file, for `requiem proof verify`.
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: Option<PathBuf>,
    /// Delete the Execution afterwards, however it ended.
    #[arg(long)]
    pub(crate) delete: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CasPut {
    /// File or folder; - reads standard input.
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Whose objects: a Kubernetes namespace, or default.
    #[arg(long, value_name = "NS", default_value = "default")]
    pub(crate) tenant: String,
}

#[derive(Debug, Args)]
pub(crate) struct CasGet {
    /// blake3: and 64 hexadecimal digits.
    pub(crate) digest: BlobDigest,
    /// Write to this path, which must not exist, instead of standard output.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// The digest names a folder: restore it at --out.
    #[arg(long, requires = "out")]
    pub(crate) tree: bool,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Whose objects: a Kubernetes namespace, or default.
    #[arg(long, value_name = "NS", default_value = "default")]
    pub(crate) tenant: String,
}

#[derive(Debug, Args)]
pub(crate) struct ProofVerify {
    /// A proof file, or a ProofBundle from `kubectl get proofbundle NAME -o json`; - reads standard input.
    pub(crate) file: PathBuf,
}
