//! What a caller asks for and what it gets.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use requiem_model::request::EnvVar;
use requiem_model::result::Usage;
use requiem_model::{EnvName, EnvRef, Layer, Limits, Outcome, RelPath, SandboxPolicy, SandboxReport};

/// How to start a runner.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// The program whose subcommand calls [`runner_main`](crate::runner_main); usually the own executable.
    pub program: PathBuf,
    /// Its arguments, for example `["runner"]`.
    pub args: Vec<OsString>,
    /// How many runs are prepared ahead of need. As many as may start at the same moment is best; each costs
    /// two idle processes and an empty network namespace.
    pub spares: usize,
}

impl RunnerConfig {
    /// A runner by `program runner`, with one run prepared ahead.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: vec!["runner".into()], spares: 1 }
    }
}

/// What happens to a runner that comes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerNews {
    /// It is there and takes runs.
    Connected {
        /// Its user id, which is ours.
        uid: u32,
        /// Its process id as we see it; 0 if we cannot.
        pid: u32,
    },
    /// Somebody wants it to end; it serves on until it is dismissed.
    Stopping,
    /// It has gone, and its runs with it. The next one is waited for.
    Gone,
    /// Somebody came who is no runner of ours, or nobody can come.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// One run.
#[derive(Debug)]
pub struct RunSpec {
    /// Program and arguments. A program without a slash is looked for in the fixed PATH.
    pub argv: Vec<String>,
    /// Variables. PATH, HOME, LANG and TZ have fixed defaults; nothing else is added.
    pub env: Vec<EnvVar>,
    /// Variables whose values only the runner has, in its own environment under the name of their
    /// [carrier](EnvRef::carrier). This process never sees them.
    pub env_refs: Vec<EnvRef>,
    /// Working directory below the workspace; made if it is not there.
    pub working_dir: Option<RelPath>,
    /// Standard input; empty if absent.
    pub stdin: Option<OwnedFd>,
    /// Read-only inputs. No path may lie within another.
    pub inputs: Vec<InputMount>,
    /// Bounds. `max_output_bytes` is the caller's to apply: every byte reaches its sink.
    pub limits: Limits,
    /// Layers.
    pub policy: SandboxPolicy,
}

impl RunSpec {
    /// A run of `argv` with defaults everywhere else.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            env_refs: Vec::new(),
            working_dir: None,
            stdin: None,
            inputs: Vec::new(),
            limits: Limits::default(),
            policy: SandboxPolicy::default(),
        }
    }
}

/// A file or folder of the host that a run sees read-only.
#[derive(Debug, Clone)]
pub struct InputMount {
    /// Where, below the workspace.
    pub path: RelPath,
    /// What. Must not be a symbolic link.
    pub source: PathBuf,
}

/// Modification time, in seconds since 1970, that every staged input must carry for
/// [`Source::InputTimes`](requiem_model::report::Source::InputTimes) to count as fixed.
pub const INPUT_MTIME: i64 = 0;

/// Where a chunk of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StdStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A run that came to an end, whichever.
#[derive(Debug)]
pub struct Finished {
    /// How the payload ended.
    pub outcome: Outcome,
    /// What the run used.
    pub usage: Usage,
    /// Which isolation was in force while it ran.
    pub report: SandboxReport,
    /// How long the inputs took from here into the run's tree: detached mounts made, sent and attached, or copies.
    pub staged: Duration,
    /// The workspace as the run left it, without its inputs (their mount points are empty). Every process that
    /// could write to it is gone. Its memory is freed when this is closed.
    pub workspace: Workspace,
}

/// The folder that a run left.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) folder: OwnedFd,
    /// Keeps the folder of a run that could not mount until the caller has read it.
    pub(crate) _lease: OwnedFd,
}

impl AsFd for Workspace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// Cancels a run from another thread. Clones cancel the same run.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<EventFd>);

impl Cancel {
    /// A cancellation that has not been used.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> Result<Self, SandboxError> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|source| SandboxError::at("make a cancellation", source))?;
        Ok(Self(Arc::new(event)))
    }

    /// Ends the run, now or as soon as it starts.
    pub fn cancel(&self) {
        // EAGAIN: it has been cancelled 2^64 - 1 times before.
        let _already_cancelled = self.0.write(1);
    }

    /// Readable once it has been cancelled.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why there is no runner.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {}{}", source.desc(), hint.map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct SandboxError {
    /// What was being done.
    pub step: String,
    /// The kernel's answer.
    #[source]
    pub source: Errno,
    /// What to do about it.
    pub hint: Option<&'static str>,
}

impl SandboxError {
    pub(crate) fn at(step: impl Into<String>, source: Errno) -> Self {
        Self { step: step.into(), source, hint: None }
    }
}

/// Why a run came to no end of its own. The payload has either not started or left no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A required layer is not in force; the program was not started.
    #[error("required layer {layer} is not in force: {why}")]
    Refused {
        /// The layer.
        layer: Layer,
        /// What is missing.
        why: String,
    },
    /// The program could not be started.
    #[error("{why}")]
    CommandNotRunnable {
        /// Which one, and why.
        why: String,
    },
    /// The runner was not given the value of a variable; the program was not started.
    #[error("the runner was not given the value of variable {}", name.as_str())]
    ValueMissing {
        /// The variable.
        name: EnvName,
    },
    /// The caller cancelled the run.
    #[error("the run was cancelled")]
    Cancelled,
    /// The sandbox could not be set up, for a reason that is not a missing layer.
    #[error("cannot {step}: {}", source.desc())]
    Setup {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The runner has gone, and the run with it. The next run starts another runner.
    #[error("the runner has gone")]
    RunnerLost,
}

impl RunError {
    pub(crate) fn at(step: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Setup { step: step.into(), source }
    }
}
