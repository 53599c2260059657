//! What the processes of a run say to each other. One kind of channel, four pairs of speakers:
//!
//! ```text
//! caller ──Call──▶ zygote ──Hello, News──▶ caller   with a call for a run: the supervisor's end of the run channel
//! caller ──Request, Cancel──▶ supervisor ──Reply──▶ caller
//! supervisor ──Request, Go──▶ init, payload ──Event──▶ supervisor
//! ```
//!
//! A frame is JSON with descriptors beside it. Speakers are of one build, so the format is private; where caller and
//! zygote live in two containers the zygote says its version first, in case only one of them was replaced.

mod channel;

use requiem_model::report::{SandboxReport, Source};
use requiem_model::request::EnvVar;
use requiem_model::{EnvName, EnvRef, Layer, Limits, Outcome, RelPath, SandboxPolicy, result::Usage};
use serde::{Deserialize, Serialize};

pub(crate) use channel::{Channel, ChannelError, Frame};

use crate::error::StepError;
use crate::finding::Finding;

/// Version of everything in this module; to be raised with every change of it.
pub(crate) const VERSION: u32 = 3;

/// First word of the zygote, once it is ready or has given up.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// Runs can be asked for.
    Ready {
        /// [`VERSION`] of the zygote.
        version: u32,
    },
    /// The zygote ends.
    Broken(Fault),
}

/// What the caller wants of the zygote.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// A supervisor for the run channel that comes with it.
    Run,
    /// The end: nothing will be asked for any more.
    Leave,
}

/// What the zygote says of itself later on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// Somebody outside (the kubelet) wants it to end. It serves on until the caller lets it go.
    Stopping,
}

/// One run, as the caller asks for it. Descriptors beside it: stdin, stdout, stderr, then one per input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<EnvVar>,
    /// Their values are in the runner's own environment; no frame ever holds one.
    pub(crate) env_refs: Vec<EnvRef>,
    pub(crate) working_dir: Option<RelPath>,
    pub(crate) inputs: Vec<HandedInput>,
    pub(crate) limits: Limits,
    pub(crate) policy: SandboxPolicy,
}

/// One input and how its descriptor may be used.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedInput {
    pub(crate) path: RelPath,
    pub(crate) directory: bool,
    /// Why the descriptor is not a detached read-only mount but the plain file or directory.
    pub(crate) plain: Option<String>,
}

/// What the caller says after the request. Hanging up means the same.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Cancel,
}

/// The end of a run. With [`Reply::Finished`] comes the workspace directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Finished {
        outcome: Outcome,
        usage: Usage,
        report: SandboxReport,
        /// Microseconds that the inputs took to get into the run's tree.
        staged_us: u64,
    },
    Refused {
        layer: Layer,
        why: String,
    },
    NotRunnable {
        why: String,
    },
    ValueMissing {
        name: EnvName,
    },
    Cancelled,
    /// The zygote went, and the run with it.
    Lost,
    Broken(Fault),
}

/// What init and payload tell the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Init has made everything that does not depend on the request. With it comes the workspace directory.
    Prepared,
    /// The inputs are in the run's tree.
    Staged { micros: u64 },
    /// The payload has passed every layer and waits for leave to exec.
    Proven { findings: Vec<(Layer, Finding)>, fixed: Vec<Source> },
    /// The program could not be started.
    NotRunnable { why: String },
    /// The runner was not given the value of this variable.
    ValueMissing { name: EnvName },
    /// Set-up failed in a way that is not a missing layer.
    Broken(Fault),
    /// The payload has ended and every process of the tree but init is gone.
    Ended { status: Ending, usage: TreeUsage },
}

/// Leave to exec.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Go;

/// How the payload's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    Exited(u8),
    Signalled(u8),
}

/// Use of the whole tree, as its reaper saw it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct TreeUsage {
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) peak_rss_bytes: u64,
}

/// A [`StepError`] that has crossed a process border.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) step: String,
    pub(crate) errno: i32,
}

impl From<StepError> for Fault {
    fn from(error: StepError) -> Self {
        Self { step: error.step.to_owned(), errno: error.errno as i32 }
    }
}

impl Fault {
    /// A channel to a process of the run broke at `step`.
    pub(crate) fn of_channel(step: &str, error: &ChannelError) -> Self {
        Self { step: format!("{step}: {error}"), errno: error.errno() as i32 }
    }
}
