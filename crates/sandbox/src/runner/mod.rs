//! The inside of the runner: a small single-threaded process that turns requests into sandboxed runs.
//!
//! ```text
//! zygote        in its own user and mount namespace, in the minimal tree; forks one supervisor per run
//!   supervisor  outside the run's namespaces and cgroup; judges the proofs, keeps time, kills the tree
//!     init      pid 1 of the run; makes namespaces, mounts, cgroup membership; reaps
//!       payload pid 2; drops everything, proves it, execs
//! ```
//!
//! A supervisor starts as soon as it has its end of a run channel, and does all that needs no request at once.
//! A caller that opens channels ahead of need thereby takes the slow parts (cgroup migration, network
//! namespace, unmounting) off the path of a run.
//!
//! Nobody outlives its parent: the zygote ends when its caller hangs up, a supervisor when either is gone, init
//! when its supervisor is, and with init the kernel ends the whole tree.

mod ground;
mod init;
mod payload;
mod supervisor;
mod tree;

use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::unistd::ForkResult;
use requiem_model::{Layer, Requirement, SandboxPolicy};

use crate::error::StepError;
use crate::protocol::{Channel, Hello};
use crate::sys;
pub(crate) use ground::Ground;

/// The layers that a run does not switch off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wants(Vec<Layer>);

impl Wants {
    /// Every layer: what is prepared before the request is known.
    pub(crate) fn all() -> Self {
        Self(Layer::ALL.to_vec())
    }

    /// Those of `policy`.
    pub(crate) fn of(policy: &SandboxPolicy) -> Self {
        let wanted = |layer: &Layer| policy.requirement(*layer) != Requirement::Off;
        Self(Layer::ALL.into_iter().filter(wanted).collect())
    }

    /// Whether `layer` is wanted.
    pub(crate) fn layer(&self, layer: Layer) -> bool {
        self.0.contains(&layer)
    }
}

/// The body of the runner subcommand: serves the socket that is its standard input until the caller hangs up.
///
/// Must be called first thing in `main`, before any thread exists.
#[must_use]
pub fn runner_main() -> ExitCode {
    let Ok(socket) = sys::fd::take_stdin() else { return ExitCode::from(2) };
    let caller = Channel::from(socket);
    let ground = match Ground::prepare() {
        Ok(ground) => ground,
        Err(error) => {
            // If nobody hears it, there is nobody to serve either.
            let _unheard = caller.send(&Hello::Broken(error.into()), &[]);
            return ExitCode::from(2);
        }
    };
    let served = caller.send(&Hello::Ready, &[]).is_ok() && serve(&ground, &caller).is_ok();
    ground.clean_up();
    ExitCode::from(if served { 0 } else { 2 })
}

/// Forks a supervisor for every run channel that arrives.
fn serve(ground: &Ground, caller: &Channel) -> Result<(), StepError> {
    sys::process::ignore_children().map_err(StepError::at("ignore children"))?;
    let zygote = nix::unistd::getpid();
    // Only hanging up ends it: a caller that sends nonsense is gone for good as well.
    while let Ok(frame) = caller.receive() {
        for run in frame.descriptors {
            match sys::process::fork() {
                Ok(ForkResult::Child) => supervisor::run(ground, Channel::from(run), zygote, caller.as_fd()),
                // Without a supervisor the run channel closes, which the caller takes for what it is.
                Ok(ForkResult::Parent { .. }) | Err(_) => {}
            }
        }
    }
    Ok(())
}
