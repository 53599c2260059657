//! Writes the catalogue of metrics below the folder that is given.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use requiem_tests::{Failure, figures};

fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _untold = writeln!(std::io::stderr(), "metricsgen: {error}");
            ExitCode::from(2)
        }
    }
}

fn generate() -> Result<(), Failure> {
    let root = std::env::args_os().nth(1).map(PathBuf::from).ok_or("say below which folder to write")?;
    let path = root.join(figures::PAGE);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, figures::page()?)?)
}
