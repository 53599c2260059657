//! The runner alone: the smallest program that can be put beside a payload. Serves the socket on its standard input.

use std::process::ExitCode;

fn main() -> ExitCode {
    requiem_sandbox::runner_main()
}
