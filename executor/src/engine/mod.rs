//! Engines: what takes a request and runs it. One trait; every step around it (inputs, streams, outputs, proof) is the same for all.
//!
//! ```text
//! name ─EngineName→ open ─Engine→ execute: fetch → stage → Engine::run → collect → seal
//! ```
//!
//! | engine | what it is | file |
//! |---|---|---|
//! | `requiem` | the sandbox; the only one that proves layers | [`sandbox`] |
//! | `rust` | `std::process`; isolates nothing and says so | [`portable`] |
//! | `command:PATH` | a program of somebody else that speaks [`protocol`] | [`command`] |
//!
//! What an engine says is a claim. Streams and outputs are digested here, from the bytes it left; the report of an engine that is not
//! the sandbox is made here and calls no layer enforced.

pub mod command;
pub mod companion;
pub mod folder;
pub mod portable;
pub mod protocol;
pub mod sandbox;

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use requiem_model::report::{Evidence, LayerReport, Source, SourceReport, SourceState, Status};
use requiem_model::result::{FailureReason, Output, OutputContent, Usage};
use requiem_model::{
    BlobDigest, ExecutionRequest, Failure, Layer, Outcome, RelPath, Requirement, SandboxPolicy, SandboxReport,
};
use requiem_sandbox::{Cancel, InputMount, StdStream};
use serde::{Deserialize, Serialize};

pub use command::CommandEngine;
pub use portable::Portable;
pub use sandbox::Sandbox;

/// An engine, by what a user calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineName {
    /// The sandbox.
    Requiem,
    /// `std::process`.
    Rust,
    /// A program at an absolute path.
    Command(PathBuf),
}

/// Runs requests. Takes them from several threads at once, unless the implementation says otherwise.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Name and version, as proofs have them. Equal versions agree on equal requests.
    fn identity(&self) -> requiem_proof::Engine;

    /// Whether it can honour the request; asked before anything is read or made for it.
    ///
    /// # Errors
    /// What it cannot honour, and what to do.
    fn admit(&self, request: &ExecutionRequest) -> Result<(), Failure>;

    /// Runs a request. On return nothing of it runs any more, however it ended.
    ///
    /// # Errors
    /// Why there is no result.
    fn run(&self, job: Job<'_>) -> Result<Done, EngineError>;
}

/// One run.
pub struct Job<'a> {
    /// What to run: valid, in normal form, admitted.
    pub request: &'a ExecutionRequest,
    /// Standard input; empty if absent.
    pub stdin: Option<OwnedFd>,
    /// Inputs as files and folders, which the run must not change.
    pub inputs: Vec<InputMount>,
    /// Takes every byte of both streams in the order of each; caps and digests them.
    pub sink: &'a mut dyn FnMut(StdStream, &[u8]),
    /// Ends the run.
    pub cancel: &'a Cancel,
}

/// A run that came to an end, whichever.
pub struct Done {
    /// How the payload ended.
    pub outcome: Outcome,
    /// What the run used. 0 stands for what the engine cannot measure.
    pub usage: Usage,
    /// Which isolation was in force.
    pub report: SandboxReport,
    /// How long the inputs took.
    pub mount: Duration,
    /// The folder in which the declared outputs lie. Nothing writes to it any more; dropping it removes it.
    pub workspace: Box<dyn AsFd>,
    /// Outputs that the engine says it left, if it says so: compared with what is found.
    pub claimed: Option<Vec<Claimed>>,
}

/// An output that an engine says it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claimed {
    /// Which.
    pub path: RelPath,
    /// Digest of the file; of a folder none is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<BlobDigest>,
}

/// Why there is no result. [`EngineError::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A failure that any engine may have.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The engine itself did not do what an engine must.
    #[error("engine {engine} cannot be used: {why}")]
    Broken {
        /// Which one: its name, or the path of its program.
        engine: String,
        /// In which way.
        fault: Fault,
        /// What happened, with the values concerned.
        why: String,
    },
}

/// What an engine can do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its program is none that may be started.
    Program,
    /// It cannot be started or watched.
    Start,
    /// It did not answer in time.
    Deadline,
    /// It answered with more than it may.
    Output,
    /// Its answer is none.
    Reply,
    /// It says that it cannot.
    Refused,
    /// What it says and what it did do not agree.
    Contradiction,
    /// Its workspace grew beyond the request's limits.
    Workspace,
}

/// The report of an engine that proves nothing: what was asked for is `unsupported`, the rest `disabled`, and nobody looked at any source.
pub(crate) fn unproven(engine: &str, why: &str, policy: &SandboxPolicy) -> SandboxReport {
    let row = |layer| {
        let requested = policy.requirement(layer);
        let (status, detail) = match requested {
            Requirement::Off => (Status::Disabled, "the policy turns it off"),
            Requirement::Preferred | Requirement::Required => (Status::Unsupported, why),
        };
        LayerReport::short_of(layer, requested, status, format!("engine:{engine}"), Evidence::None, detail)
    };
    SandboxReport {
        layers: Layer::ALL.into_iter().map(row).collect(),
        sources: Source::ALL
            .into_iter()
            .map(|source| SourceReport { source, state: SourceState::Unprobed })
            .collect(),
    }
}

/// Refuses what only the sandbox can do: required layers, and values that only a runner was given.
pub(crate) fn admit_unproven(engine: &str, request: &ExecutionRequest) -> Result<(), Failure> {
    if let Some(layer) =
        Layer::ALL.into_iter().find(|layer| request.policy.requirement(*layer) == Requirement::Required)
    {
        return Err(Failure::layer_unavailable(layer, &format!("engine {engine} proves no isolation")));
    }
    match request.env_refs.first() {
        None => Ok(()),
        Some(reference) => Err(Failure::new(
            FailureReason::InvalidRequest,
            format!("env[{}] refers to a value that engine {engine} is not given", reference.name.as_str()),
            "give the value itself, or run it by engine requiem in a pod of its own",
        )),
    }
}

/// Compares what an engine says it left with what was found.
pub(crate) fn check_claimed(engine: &str, claimed: &[Claimed], found: &[Output]) -> Result<(), EngineError> {
    let lie = |why| Err(EngineError::broken(engine, Fault::Contradiction, why));
    for output in found {
        let Some(said) = claimed.iter().find(|said| said.path == output.path) else {
            return lie(format!("it left the output {} and does not say so", output.path));
        };
        match (said.digest, &output.content) {
            (Some(said), OutputContent::Blob { digest, .. }) if said != *digest => {
                return lie(format!("it says that output {} is {said}, and it is {digest}", output.path));
            }
            (Some(_), OutputContent::Tree { .. }) => {
                return lie(format!("it says that output {} is a file, and it is a folder", output.path));
            }
            _ => {}
        }
    }
    match claimed.iter().find(|said| !found.iter().any(|output| output.path == said.path)) {
        None => Ok(()),
        Some(said) => lie(format!("it says that it left the output {}, and it is not there", said.path)),
    }
}

// === impl EngineName ===

impl EngineName {
    /// Names of the engines that are part of this program.
    pub const BUILT_IN: [&str; 2] = [sandbox::NAME, portable::NAME];
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("command:")) {
            (sandbox::NAME, _) => Ok(Self::Requiem),
            (portable::NAME, _) => Ok(Self::Rust),
            (_, Some(path)) if Path::new(path).is_absolute() => Ok(Self::Command(PathBuf::from(path))),
            (_, Some(_)) => Err(
                "the program of a command engine is named by its absolute path, like command:/usr/bin/engine"
                    .to_owned(),
            ),
            _ => Err(format!("the engines are {} and command:/PATH", Self::BUILT_IN.join(", "))),
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requiem => out.write_str(sandbox::NAME),
            Self::Rust => out.write_str(portable::NAME),
            Self::Command(path) => write!(out, "command:{}", path.display()),
        }
    }
}

// === impl EngineError ===

impl EngineError {
    /// An engine that did not do what an engine must.
    pub(crate) fn broken(engine: impl Into<String>, fault: Fault, why: impl Into<String>) -> Self {
        Self::Broken { engine: engine.into(), fault, why: why.into() }
    }

    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Failure(failure) => failure.reason.as_str(),
            Self::Broken { fault, .. } => fault.code(),
        }
    }

    /// What to do.
    pub fn hint(&self) -> &str {
        match self {
            Self::Failure(failure) => &failure.hint,
            Self::Broken { fault, .. } => fault.hint(),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Failure(failure) => failure,
            EngineError::Broken { fault, .. } => {
                Self::new(FailureReason::SandboxError, format!("{error} [{}]", fault.code()), fault.hint())
            }
        }
    }
}

// === impl Fault ===

impl Fault {
    const fn code(self) -> &'static str {
        match self {
            Self::Program => "E_ENGINE_PROGRAM",
            Self::Start => "E_ENGINE_START",
            Self::Deadline => "E_ENGINE_DEADLINE",
            Self::Output => "E_ENGINE_OUTPUT",
            Self::Reply => "E_ENGINE_REPLY",
            Self::Refused => "E_ENGINE_REFUSED",
            Self::Contradiction => "E_ENGINE_CONTRADICTION",
            Self::Workspace => "E_ENGINE_WORKSPACE",
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::Program => {
                "name the engine's program itself, by its absolute path, and let only its owner change it"
            }
            Self::Start => "see the message; ask it yourself, as docs/engines.md shows",
            Self::Deadline => "see why it hangs; an engine ends the run at limits.timeoutMs by itself",
            Self::Output | Self::Reply | Self::Contradiction => {
                "this is a defect of the engine: docs/engines.md says what it must answer"
            }
            Self::Refused => "see what the engine says",
            Self::Workspace => "raise limits.scratch_bytes or limits.scratch_inodes, or write less",
        }
    }
}

#[cfg(test)]
mod tests {
    use requiem_model::confidence::{Level, assess_of};

    use super::*;

    fn policy(requirement: Requirement) -> SandboxPolicy {
        let all = Layer::ALL.into_iter();
        all.fold(SandboxPolicy::default(), |policy, layer| policy.with(layer, requirement))
    }

    #[test]
    fn names_are_read_and_written_the_same() {
        for name in ["requiem", "rust", "command:/usr/bin/engine"] {
            assert_eq!(name.parse::<EngineName>().unwrap().to_string(), name);
        }
        for wrong in ["", "Rust", "podman", "command:", "command:engine", "command:./engine"] {
            assert!(wrong.parse::<EngineName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_called_enforced_by_an_engine_that_proves_nothing() {
        let report = unproven("rust", "it isolates nothing", &policy(Requirement::Preferred));
        assert_eq!(report.names(Status::Unsupported).len(), Layer::ALL.len());
        let off = unproven("rust", "it isolates nothing", &policy(Requirement::Off));
        assert_eq!(off.names(Status::Disabled).len(), Layer::ALL.len());
        let confidence = assess_of("rust", &report);
        assert_eq!((confidence.level, confidence.score), (Level::BestEffort, 0));
        assert_eq!(confidence.reasons[0], "engine:rust");
    }

    #[test]
    fn each_required_layer_is_a_refusal() {
        let mut request = ExecutionRequest::new(vec!["true".into()]);
        request.policy = policy(Requirement::Preferred);
        admit_unproven("rust", &request).unwrap();
        for layer in Layer::ALL {
            let mut one = request.clone();
            one.policy = one.policy.with(layer, Requirement::Required);
            let failure = admit_unproven("rust", &one).unwrap_err();
            assert_eq!(failure.reason, FailureReason::LayerUnavailable);
            assert!(
                failure.message.contains(layer.name()) && failure.message.contains("engine rust"),
                "{failure}"
            );
        }
    }
}
