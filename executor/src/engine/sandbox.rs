//! Engine `requiem`: one command behind layers, each proven from inside.

use std::borrow::Borrow;
use std::fmt;

use requiem_model::result::FailureReason;
use requiem_model::{ExecutionRequest, Failure};
use requiem_sandbox::{Finished, RunError, RunSpec, Runner};

use super::{Done, Engine, EngineError, Job};

/// Its name.
pub const NAME: &str = requiem_model::confidence::SANDBOX;

/// The sandbox behind a runner, which may be ours or somebody else's.
pub struct Sandbox<R>(pub R);

impl<R: Borrow<Runner> + Send + Sync> Engine for Sandbox<R> {
    fn identity(&self) -> requiem_proof::Engine {
        requiem_proof::Engine { name: NAME.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// What it cannot honour only the attempt shows.
    fn admit(&self, _request: &ExecutionRequest) -> Result<(), Failure> {
        Ok(())
    }

    fn run(&self, job: Job<'_>) -> Result<Done, EngineError> {
        let Job { request, stdin, inputs, sink, cancel } = job;
        let spec = RunSpec {
            argv: request.argv.clone(),
            env: request.env.clone(),
            env_refs: request.env_refs.clone(),
            working_dir: request.working_dir.clone(),
            stdin,
            inputs,
            limits: request.limits.clone(),
            policy: request.policy.clone(),
        };
        let Finished { outcome, usage, report, staged, workspace } =
            self.0.borrow().run(spec, sink, cancel).map_err(refusal)?;
        Ok(Done { outcome, usage, report, mount: staged, workspace: Box::new(workspace), claimed: None })
    }
}

/// The failure of a run that left no outcome.
fn refusal(error: RunError) -> Failure {
    match error {
        RunError::Refused { layer, why } => Failure::layer_unavailable(layer, &why),
        RunError::CommandNotRunnable { why } => not_runnable(why),
        RunError::ValueMissing { name } => Failure::new(
            FailureReason::InvalidRequest,
            format!(
                "env[{}] refers to a value that the runner of this executor was not given",
                name.as_str()
            ),
            "values of Secrets and ConfigMaps reach commands in a pod of their own only: name spec.executor.pod",
        ),
        RunError::Cancelled => crate::journal::cancelled(),
        other => Failure::new(
            FailureReason::SandboxError,
            other.to_string(),
            "another attempt may succeed; if not, see the executor's log",
        ),
    }
}

/// The failure of a program that cannot be started.
pub(super) fn not_runnable(why: String) -> Failure {
    Failure::new(
        FailureReason::CommandNotRunnable,
        why,
        "check the path of the program inside the sandbox, and that an input which is a program is executable",
    )
}

impl<R> fmt::Debug for Sandbox<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Sandbox")
    }
}
