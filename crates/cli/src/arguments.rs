//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use requiem_executor::engine::EngineName;
use requiem_model::dual::Sample;
use requiem_model::{BlobDigest, RelPath};

use crate::bench_arguments::Bench;
use crate::cas_arguments::{CasGc, CasInfo, CasLs, CasPin, CasStats, CasVerify};
use crate::commands::Format;
use crate::config_arguments::{Config, EngineArgument, TenantArgument};
use crate::metrics_arguments::Metrics;
use crate::replacement_arguments::ValidateReplacement;
use crate::verdict::Requirement;

/// Run commands in a sandbox that proves itself, store bytes by digest, verify proofs.
///
/// Exit codes: 0 ok, 1 findings or a failed run, 2 unusable input or environment, 128 + N ended by signal N.
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
    /// Look at the sandbox of this machine.
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// Compute and check digests of files, without a store.
    #[command(subcommand)]
    Digest(Digest),
    /// Judge proofs.
    #[command(subcommand)]
    Proof(Proof),
    /// Compare runs.
    #[command(subcommand)]
    Drift(Drift),
    /// Ask policies.
    #[command(subcommand)]
    Policy(Policy),
    /// Measure commands in the sandbox, and say whether they have become slower.
    #[command(subcommand)]
    Bench(Bench),
    /// Say whether an engine may take the place of another: both run a corpus, and are compared.
    ///
    /// Exit codes: 0 ready, 1 not ready, 2 unusable: corpus, machine or primary are to be mended first.
    ValidateReplacement(ValidateReplacement),
    /// Say what is configured, and judge configuration files.
    #[command(subcommand)]
    Config(Config),
    /// Say what this machine can do: versions, sandbox layers by a real probe, the store.
    Health(StoreArguments),
    /// Look for what is wrong with this machine, its store and a cluster, and say what to do.
    Doctor(Doctor),
    /// Say what the runs of this machine came to, and what the store holds; also as text for Prometheus.
    Metrics(Metrics),
    /// Print the script with which a shell completes commands, options and files.
    Completions(Completions),
    /// Print a manual page, or write all of them.
    Man(Man),
    /// Print the JSON Schema of a document, or list the documents that have one.
    Schema(SchemaArguments),
    /// Say the version, the versions of all documents, and what this program was built with.
    Version,
    /// Started by requiem itself.
    #[command(hide = true)]
    Runner,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Exec {
    /// Run one request here, without Kubernetes.
    Run(ExecRun),
    /// Say what a request would run, and what its determinism could reach; runs nothing.
    Explain(ExecExplain),
    /// Create an Execution in a cluster, wait for its end, and verify its proof here.
    Apply(ExecApply),
    /// Run the request of a bundle once more, here, and say where the two differ.
    Replay(ExecReplay),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cas {
    /// Put a file, a folder or standard input; print the digest.
    Put(CasPut),
    /// Get a blob or a folder by its digest.
    Get(CasGet),
    /// List objects: digest, kind, size, stored size, tenant.
    Ls(CasLs),
    /// Say what the store knows of one object, and what names it.
    Info(CasInfo),
    /// Count objects and bytes.
    Stats(CasStats),
    /// Read objects again and hash them; exit code 1 if one is not what its name says.
    Verify(CasVerify),
    /// Say what nothing names any more, and with --delete remove it.
    Gc(CasGc),
    /// Keep objects from being collected.
    #[command(subcommand)]
    Pin(CasPin),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sandbox {
    /// Try which layers this machine can enforce, by a real run of nothing.
    Probe,
    /// Say what a layer does, how it is proven, what it needs, and what this machine says.
    Explain(SandboxExplain),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Drift {
    /// Say in which items two runs, or two folders of them, differ.
    Analyze(DriftAnalyze),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Say whether policies admit Executions, before they are created; asks no cluster.
    Check(PolicyCheck),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Digest {
    /// Print the BLAKE3 digest of a file, as `cas put` would.
    File(DigestFile),
    /// Check that a file has this digest; exit code 1 if it has another.
    Verify(DigestVerify),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Proof {
    /// Write the proof of a run from its result document.
    Generate(ProofGenerate),
    /// Say what a bundle says, after judging it.
    Show(ProofFileArgument),
    /// Show one output of a bundle in a file of its own, without the rest.
    Prove(ProofProve),
    /// Have a signer sign a bundle.
    Sign(ProofSign),
    /// Write one signature of a bundle in the form of others, for programs that know nothing of ours.
    Export(ProofExport),
    /// Recompute both roots of a bundle and check that its facts agree; judge signatures, receipts and a store.
    Verify(ProofVerify),
}

/// Where the store is.
#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    /// Folder of the store [default: requiem/cas in the user's data folder].
    #[arg(long, value_name = "DIR", env = "REQUIEM_CAS", hide_env_values = true)]
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
    pub(crate) by: EngineArgument,
    #[command(flatten)]
    pub(crate) trial: TrialArguments,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
}

/// A second engine, on trial.
#[derive(Debug, Args)]
pub(crate) struct TrialArguments {
    /// Then run it by this engine too, on trial, and say where the two differ. The result is that of --engine.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) candidate: Option<EngineName>,
    /// Share of requests that are run twice, in percent; the request's digest decides.
    #[arg(long, value_name = "PERCENT", default_value = "100", requires = "candidate")]
    pub(crate) sample: Sample,
    /// Write the differences (JSON) to this file.
    #[arg(long, value_name = "FILE", requires = "candidate")]
    pub(crate) diff: Option<PathBuf>,
    /// How long the candidate may take [default: the request's time limit and 15 more].
    #[arg(long, value_name = "SECONDS", requires = "candidate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) candidate_deadline: Option<u32>,
    /// Run the candidate even where it cannot enforce a layer that the request requires.
    #[arg(long, requires = "candidate")]
    pub(crate) candidate_unisolated: bool,
    /// Least difference in time that is told; one of the two also takes more than twice as long.
    #[arg(long, value_name = "MILLISECONDS", default_value = "250", requires = "candidate")]
    pub(crate) timing_floor: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ExecExplain {
    /// Request document (JSON); - reads standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
}

#[derive(Debug, Args)]
pub(crate) struct SandboxExplain {
    /// Which layer, like: seccomp [default: list them].
    pub(crate) layer: Option<String>,
    /// One page of Markdown about all layers.
    #[arg(long, conflicts_with = "layer")]
    pub(crate) markdown: bool,
    /// Write that page into this folder.
    #[arg(long, value_name = "DIR", requires = "markdown")]
    pub(crate) out: Option<PathBuf>,
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
    /// Most bytes to take; beyond it nothing is kept.
    #[arg(long, value_name = "N", default_value_t = 64 << 30)]
    pub(crate) max_bytes: u64,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
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
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
}

#[derive(Debug, Args)]
pub(crate) struct ExecReplay {
    /// A proof file, or a ProofBundle from `kubectl get proofbundle NAME -o json`; - reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "result")]
    pub(crate) bundle: Option<PathBuf>,
    /// The result document of `exec run --out`.
    #[arg(long, value_name = "FILE")]
    pub(crate) result: Option<PathBuf>,
    /// Write the proof of this run to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: Option<PathBuf>,
    /// Add the proof of this run to receipts, for `requiem proof verify --receipts`; they are made if they are not there.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
}

#[derive(Debug, Args)]
pub(crate) struct DigestFile {
    /// File; - reads standard input.
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DigestVerify {
    /// File; - reads standard input.
    pub(crate) path: PathBuf,
    /// blake3: and 64 hexadecimal digits.
    pub(crate) digest: BlobDigest,
}

#[derive(Debug, Args)]
pub(crate) struct ProofFileArgument {
    /// A proof file, or a ProofBundle from `kubectl get proofbundle NAME -o json`; - reads standard input.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ProofGenerate {
    /// The result document of `exec run --out`.
    #[arg(long, value_name = "FILE")]
    pub(crate) result: PathBuf,
    /// Also check that every object that the proof names is in this store, intact.
    #[arg(long, value_name = "DIR")]
    pub(crate) cas: Option<PathBuf>,
    /// Write the proof to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ProofProve {
    /// A proof file, or a ProofBundle from `kubectl get proofbundle NAME -o json`; - reads standard input.
    pub(crate) file: PathBuf,
    /// Path of the output, as the request declares it.
    #[arg(long, value_name = "PATH", value_parser = output_path)]
    pub(crate) output: RelPath,
    /// Write the proof to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ProofSign {
    /// A proof file, or a ProofBundle from `kubectl get proofbundle NAME -o json`; - reads standard input.
    pub(crate) file: PathBuf,
    /// A program that speaks requiem-signer/1, by its absolute path.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) signer: PathBuf,
    /// An argument of that program; may be given several times. No secret belongs here.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) signer_arg: Vec<String>,
    /// With which of its keys [default: its first].
    #[arg(long, value_name = "KEYID")]
    pub(crate) key: Option<String>,
    /// Write the signed proof to this file instead of FILE.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How long the signer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) deadline_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ProofExport {
    /// A proof file, or a ProofBundle from `kubectl get proofbundle NAME -o json`; - reads standard input.
    pub(crate) file: PathBuf,
    /// In which form.
    #[arg(long, value_name = "FORMAT", default_value = "sigstore")]
    pub(crate) format: Format,
    /// The trust file by which signatures count; one that does not is not exported.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: PathBuf,
    /// Whose signature, by the name in the trust file [default: the only one that has this form].
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// Write the exported signature to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Write the artifact that it is about, the bytes of the body, to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) artifact: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ProofVerify {
    /// A proof file, the proof of one output, or a ProofBundle from `kubectl get proofbundle NAME -o json`; - reads standard input.
    pub(crate) file: PathBuf,
    /// Judge its signatures by this trust file: so many of these keys must have signed.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Count the replays in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,
    /// Also check that every object that the bundle names is in this store, intact.
    #[arg(long, value_name = "DIR")]
    pub(crate) cas: Option<PathBuf>,
    /// Whose objects of the store [default: the bundle's namespace].
    #[arg(long, value_name = "NS", requires = "cas")]
    pub(crate) tenant: Option<String>,
    /// Exit with 1 unless it is so: integrity, signed[=N], sandbox=full, determinism=LEVEL, replayed[=N].
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) require: Vec<Requirement>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// How many objects of the store to read, chosen at random.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) sample: u64,
    /// Look at a cluster too: that of --kubeconfig and --context, else of the usual rules.
    #[arg(long)]
    pub(crate) cluster: bool,
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, then the pod's service account].
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub(crate) context: Option<String>,
    /// Namespace [default: that of the kubeconfig's context, or of the pod].
    #[arg(long, short, value_name = "NAME", requires = "cluster")]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DriftAnalyze {
    /// A result of `exec run --out`, a proof file, a ProofBundle, or a folder of such files.
    pub(crate) a: PathBuf,
    /// The same, to compare it with.
    pub(crate) b: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyCheck {
    /// Executions as YAML or JSON, also several in one file or a List of kubectl; - reads standard input.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// ExecutionPolicies and ClusterExecutionPolicies, in the same forms.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) policies: Vec<PathBuf>,
    /// Namespace of what names none.
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For which shell.
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Of which command, like: exec run [default: requiem itself].
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) out: Option<PathBuf>,
    /// A page of Markdown about all commands and one about those of kubectl requiem, instead of pages for man.
    #[arg(long, conflicts_with = "command")]
    pub(crate) markdown: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArguments {
    /// Of which document, like: exec-run [default: list them].
    pub(crate) name: Option<String>,
    /// Write the schemas as files into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

pub(crate) fn output_path(text: &str) -> Result<RelPath, String> {
    RelPath::parse(text).map_err(|error| error.to_string())
}
