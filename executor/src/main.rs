//! `requiem-executor`: `serve` runs attempts, `await-serving` waits for one that does, `relay` leads to it, `install-profile` prepares a node, `runner` is the sandbox's own process. Under the name `requiem-runner`, as it
//! is installed for a pod's workload container, the program is the runner alone.

use std::process::ExitCode;

use requiem_config::executor::keys;
use requiem_executor::args::{Cli, Command};
use requiem_executor::first;
use requiem_executor::install::{is_runner, run_as_runner};

fn main() -> ExitCode {
    if is_runner() {
        return run_as_runner();
    }
    let (cli, warnings): (Cli, _) = match requiem_config::parse(&keys(), std::env::args_os()) {
        Ok(read) => read,
        Err(refused) => refused.exit(),
    };
    match cli.command {
        Command::Runner => requiem_sandbox::runner_main(),
        Command::AwaitServing(args) => requiem_executor::awaiting::main(&args),
        Command::InstallProfile(args) => requiem_executor::profile::main(&args),
        Command::Relay(args) => requiem_executor::relay::main(&args),
        Command::Serve(_) if first::is_first() => first::main(),
        Command::Serve(args) => {
            first::take_signals();
            requiem_executor::daemon::main((*args).into(), &warnings)
        }
    }
}
