//! The runner alone: the smallest program that can be put beside a payload.

use std::process::ExitCode;

fn main() -> ExitCode {
    requiem_sandbox::runner_command(std::env::args_os().skip(1))
}
