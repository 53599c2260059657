//! `requiem-executor`: `serve` runs attempts, `runner` is the sandbox's own process.

use std::process::ExitCode;

use clap::Parser;
use requiem_executor::args::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Runner => requiem_sandbox::runner_main(),
        Command::Serve(args) => requiem_executor::daemon::main((*args).into()),
    }
}
