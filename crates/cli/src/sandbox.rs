//! The sandbox as this program starts it: its own binary is the runner.

use requiem_model::SandboxReport;
use requiem_sandbox::{Cancel, Runner, RunnerConfig, SandboxError, enter_trusted_namespace};

use crate::error::CommandError;

/// Makes this process able to prepare mounts. To be called while it has one thread.
pub(crate) fn enter() -> Result<(), CommandError> {
    enter_trusted_namespace().map_err(|error| no_sandbox(&error))
}

/// Starts the runner, with so many runs prepared ahead of need.
pub(crate) fn start(spares: usize) -> Result<Runner, CommandError> {
    let program = std::env::current_exe().map_err(|error| {
        let message = format!("cannot find this program: {error}");
        CommandError::unusable(
            "Environment",
            message,
            "mount /proc, and do not remove the program while it runs",
        )
    })?;
    Runner::spawn(RunnerConfig { spares, ..RunnerConfig::new(program) }).map_err(|error| no_sandbox(&error))
}

/// What a real run of nothing says about this machine.
pub(crate) fn probe() -> Result<SandboxReport, CommandError> {
    requiem_sandbox::probe(&start(1)?).map_err(|error| {
        let hint =
            "see what the message names; run it as root to tell a missing privilege from a missing feature";
        CommandError::unusable("SandboxError", error.to_string(), hint)
    })
}

/// A cancellation, not used yet.
pub(crate) fn cancel() -> Result<Cancel, CommandError> {
    Cancel::new().map_err(|error| no_sandbox(&error))
}

fn no_sandbox(error: &SandboxError) -> CommandError {
    let hint = "allow user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0), or run as root";
    CommandError::unusable("SandboxError", error.to_string(), error.hint.unwrap_or(hint))
}
