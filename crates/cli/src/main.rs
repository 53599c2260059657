//! `requiem`: run, store and verify without Kubernetes, and `kubectl requiem`, which asks a cluster.
//!
//! A command computes a [`Report`](report::Report) or a [`CommandError`](error::CommandError); only this file and
//! `report` write to the terminal (and `meter`, the progress of long work). Exit codes: 0 ok · 1 findings or a failed run ·
//! 2 unusable input or environment · 128 + N ended by signal N.

mod arguments;
mod bench;
mod bench_arguments;
mod cas_arguments;
mod cluster;
mod commands;
mod config_arguments;
mod config_schema;
mod crypto;
mod divergence;
mod doctor;
mod document;
mod error;
mod interrupt;
mod layers;
mod local;
mod manifest;
mod meter;
mod metrics;
mod metrics_arguments;
mod named;
mod pairs;
mod plugin;
mod proof_input;
mod proof_of;
mod proof_store;
mod proof_text;
mod random;
mod reference;
mod replacement;
mod replacement_arguments;
mod report;
mod request_schema;
mod result;
mod sandbox;
mod schema;
mod settings;
mod signer;
mod store;
mod text;
mod trial;
mod verdict;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    if plugin::is_plugin() {
        return plugin::main();
    }
    let as_json = std::env::args_os().any(|argument| argument == "--json");
    let root = Arguments::command();
    let words = match settings::command_line(&root) {
        Ok(words) => words,
        Err(error) => return report::finish(Err(error), as_json),
    };
    let matches = root.try_get_matches_from(words);
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return report::usage(&error, as_json),
    };
    if let Command::Runner = arguments.command {
        return requiem_sandbox::runner_main();
    }
    report::finish(commands::run(&arguments.command, arguments.json), arguments.json)
}
