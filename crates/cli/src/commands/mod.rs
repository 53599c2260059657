//! One file per command.

mod bench_compare;
mod bench_gate;
mod bench_run;
mod cas_gc;
pub(crate) mod cas_get;
mod cas_info;
mod cas_ls;
mod cas_pin;
mod cas_put;
mod cas_stats;
mod cas_verify;
mod completions;
mod config_show;
mod config_validate;
mod digest;
mod doctor;
pub(crate) mod drift_analyze;
pub(crate) mod exec_apply;
mod exec_explain;
pub(crate) mod exec_replay;
mod exec_run;
mod health;
mod man;
mod metrics;
mod policy_check;
mod proof_export;
mod proof_generate;
mod proof_prove;
mod proof_show;
mod proof_sign;
pub(crate) mod proof_verify;
mod sandbox_explain;
mod sandbox_probe;
mod schema;
mod validate_replacement;
mod version;

pub(crate) use proof_export::Format;

use crate::arguments::{Cas, Command, Digest, Drift, Exec, Policy, Proof, Sandbox};
use crate::bench_arguments::Bench;
use crate::config_arguments::Config;
use crate::error::CommandError;
use crate::report::Report;

/// Runs a command. Only one whose answer may be longer than memory wants to know beforehand whether it is to be `json`.
pub(crate) fn run(command: &Command, json: bool) -> Result<Report, CommandError> {
    match command {
        Command::Exec(Exec::Run(arguments)) => exec_run::run(arguments),
        Command::Exec(Exec::Explain(arguments)) => exec_explain::run(arguments),
        Command::Sandbox(Sandbox::Probe) => sandbox_probe::run(),
        Command::Sandbox(Sandbox::Explain(arguments)) => sandbox_explain::run(arguments),
        Command::Exec(Exec::Apply(arguments)) => exec_apply::run(arguments),
        Command::Cas(Cas::Put(arguments)) => cas_put::run(arguments),
        Command::Cas(Cas::Get(arguments)) => cas_get::run(arguments),
        Command::Cas(Cas::Ls(arguments)) => cas_ls::run(arguments, json),
        Command::Cas(Cas::Info(arguments)) => cas_info::run(arguments),
        Command::Cas(Cas::Stats(arguments)) => cas_stats::run(arguments),
        Command::Cas(Cas::Verify(arguments)) => cas_verify::run(arguments),
        Command::Cas(Cas::Gc(arguments)) => cas_gc::run(arguments),
        Command::Cas(Cas::Pin(arguments)) => cas_pin::run(arguments),
        Command::Exec(Exec::Replay(arguments)) => exec_replay::run(arguments),
        Command::Proof(Proof::Generate(arguments)) => proof_generate::run(arguments),
        Command::Proof(Proof::Prove(arguments)) => proof_prove::run(arguments),
        Command::Proof(Proof::Show(arguments)) => proof_show::run(arguments),
        Command::Proof(Proof::Sign(arguments)) => proof_sign::run(arguments),
        Command::Proof(Proof::Export(arguments)) => proof_export::run(arguments),
        Command::Digest(Digest::File(arguments)) => digest::file(arguments),
        Command::Digest(Digest::Verify(arguments)) => digest::verify(arguments),
        Command::Proof(Proof::Verify(arguments)) => proof_verify::run(arguments),
        Command::ValidateReplacement(arguments) => validate_replacement::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Drift(Drift::Analyze(arguments)) => drift_analyze::run(arguments),
        Command::Policy(Policy::Check(arguments)) => policy_check::run(arguments),
        Command::Bench(Bench::Run(arguments)) => bench_run::run(arguments),
        Command::Bench(Bench::Compare(arguments)) => bench_compare::run(arguments),
        Command::Bench(Bench::Gate(arguments)) => bench_gate::run(arguments),
        Command::Config(Config::Show(settings)) => config_show::run(settings),
        Command::Config(Config::Validate(arguments)) => config_validate::run(arguments),
        Command::Metrics(arguments) => metrics::run(arguments, json),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Version => version::run(),
        // Answered in main, before anything else is set up.
        Command::Runner => Ok(Report::silent()),
    }
}
