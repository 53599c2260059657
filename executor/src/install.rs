//! Putting the runner where the workload's container finds it: the user's image has none of ours, so a pod starts with
//! the executor copying it into a folder that both containers see: the small program that lies beside it, or, where there
//! is none, itself, which is the runner under the runner's name.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Name of the program beside the executor.
const RUNNER: &str = "requiem-runner";

/// Why the runner is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The executor cannot tell where it is itself.
    #[error("cannot find the own program: {source}")]
    Own {
        /// The kernel's answer.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It cannot be put there.
    #[error("cannot install the runner at {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Whether this program was started as the runner.
pub fn is_runner() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.is_some_and(|name| name.file_name().is_some_and(|name| name == RUNNER))
}

/// The body of this program as the runner. Must be called first thing in `main`.
pub fn run_as_runner() -> ExitCode {
    requiem_sandbox::runner_command(std::env::args_os().skip(1))
}

/// Copies the runner that lies beside this program, else this program, to `target`. It appears there whole and executable, or not at all; an
/// older one that is running is replaced, not overwritten.
///
/// # Errors
/// See [`InstallError`].
pub fn install_runner(target: &Path) -> Result<(), InstallError> {
    let own = std::env::current_exe().map_err(|source| InstallError::Own { source })?;
    let beside = own.with_file_name(RUNNER);
    let path = if beside.is_file() { beside } else { own };
    let program = fs::read(&path).map_err(|source| InstallError::Read { path, source })?;
    let draft = target.with_extension("new");
    let written = fs::write(&draft, program)
        .and_then(|()| fs::set_permissions(&draft, fs::Permissions::from_mode(0o555)))
        .and_then(|()| fs::rename(&draft, target));
    written.map_err(|source| InstallError::Write { path: target.to_owned(), source })
}
