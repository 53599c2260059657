//! Writes the generated files below the repository that is given, or below the current folder.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use requiem_crds::generate::{GenerateError, Generated, files};

#[derive(Debug, thiserror::Error)]
enum CrdgenError {
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error("{} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    match run(&root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone too, the exit code still tells.
            let _unreported = writeln!(std::io::stderr(), "crdgen: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(root: &Path) -> Result<(), CrdgenError> {
    files()?.iter().try_for_each(|file| write(root, file))
}

fn write(root: &Path, file: &Generated) -> Result<(), CrdgenError> {
    let path = root.join(&file.path);
    let folder = path.parent().unwrap_or(root);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, &file.content))
        .map_err(|source| CrdgenError::Write { path, source })
}
