//! Runs one command behind layers, each proven from inside.
//!
//! ```text
//! Runner::spawn ── starts ──▶ runner process (the own binary again, calling runner_main)
//! Runner::listen ◀── connects ── runner process in a container of its own (calling runner_main_at)
//! Runner::run   ── request, streams, detached read-only mounts ──▶ supervisor ─▶ init ─▶ payload
//!               ◀── outcome, usage, report, workspace ──
//! ```
//!
//! Where to look: [`runner_main`] and `runner/` for the processes of a run and their order of steps, `layers/`
//! for how each layer is applied and proven, `report` for how findings become the report, `client/` for the
//! caller's side, `sys/` for every line of unsafe code.
//!
//! Assumptions: Linux 5.12 or later (`mount_setattr`, `open_tree`, `close_range`, pidfds). Guarantees: a program
//! is started only after every required layer was seen to be in force from inside; no process of a run outlives the
//! run, its runner or its caller (without a process-id namespace: unless its supervisor is killed outright).

mod client;
mod error;
mod finding;
mod layers;
mod protocol;
mod report;
mod runner;
mod spec;
mod sys;

pub use client::{Runner, enter_trusted_namespace, probe};
pub use error::StepError;
pub use runner::{runner_command, runner_main, runner_main_at};
pub use spec::{
    Cancel, Finished, INPUT_MTIME, InputMount, RunError, RunSpec, RunnerConfig, RunnerNews, SandboxError,
    StdStream, Workspace,
};
