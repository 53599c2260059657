//! `cargo xtask`: see [`requiem_xtask`].

use std::process::ExitCode;

fn main() -> ExitCode {
    requiem_xtask::cli::run()
}
