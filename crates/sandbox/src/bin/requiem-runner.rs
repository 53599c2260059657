//! The runner alone: the smallest program that can be put beside a payload.

use std::process::ExitCode;

fn main() -> ExitCode {
    requiem_sandbox::runner_command(std::env::args_os().skip(1)).unwrap_or_else(|error| {
        // There may be no executor to tell; the container's log is what is left.
        #[expect(clippy::print_stderr, reason = "the one line of a program that does not start")]
        {
            eprintln!("requiem-runner: {error}");
        }
        ExitCode::from(2)
    })
}
