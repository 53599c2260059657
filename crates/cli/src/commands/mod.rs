//! One file per command.

mod cas_get;
mod cas_put;
mod completions;
mod digest;
mod doctor;
mod drift_analyze;
mod exec_apply;
mod exec_explain;
mod exec_replay;
mod exec_run;
mod health;
mod man;
mod proof_generate;
mod proof_prove;
mod proof_show;
mod proof_sign;
mod proof_verify;
mod sandbox_explain;
mod sandbox_probe;
mod schema;
mod version;

use crate::arguments::{Cas, Command, Digest, Drift, Exec, Proof, Sandbox};
use crate::error::CommandError;
use crate::report::Report;

/// Runs a command.
pub(crate) fn run(command: &Command) -> Result<Report, CommandError> {
    match command {
        Command::Exec(Exec::Run(arguments)) => exec_run::run(arguments),
        Command::Exec(Exec::Explain(arguments)) => exec_explain::run(arguments),
        Command::Sandbox(Sandbox::Probe) => sandbox_probe::run(),
        Command::Sandbox(Sandbox::Explain(arguments)) => sandbox_explain::run(arguments),
        Command::Exec(Exec::Apply(arguments)) => exec_apply::run(arguments),
        Command::Cas(Cas::Put(arguments)) => cas_put::run(arguments),
        Command::Cas(Cas::Get(arguments)) => cas_get::run(arguments),
        Command::Exec(Exec::Replay(arguments)) => exec_replay::run(arguments),
        Command::Proof(Proof::Generate(arguments)) => proof_generate::run(arguments),
        Command::Proof(Proof::Prove(arguments)) => proof_prove::run(arguments),
        Command::Proof(Proof::Show(arguments)) => proof_show::run(arguments),
        Command::Proof(Proof::Sign(arguments)) => proof_sign::run(arguments),
        Command::Digest(Digest::File(arguments)) => digest::file(arguments),
        Command::Digest(Digest::Verify(arguments)) => digest::verify(arguments),
        Command::Proof(Proof::Verify(arguments)) => proof_verify::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Drift(Drift::Analyze(arguments)) => drift_analyze::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Version => version::run(),
        // Answered in main, before anything else is set up.
        Command::Runner => Ok(Report::silent()),
    }
}
