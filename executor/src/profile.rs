//! Putting the seccomp profile of a pod's workload container into the kubelet's folder of a node, for nodes that get their
//! files from nowhere else. The profile is compiled in: it belongs to this release's runner.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

/// The profile.
const PROFILE: &str = include_str!("../../config/profiles/seccomp/runner.json");
/// Where it belongs, below the kubelet's folder of profiles.
const PLACE: &str = "requiem/runner.json";

/// Flags of `install-profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// The kubelet's folder of profiles; on most nodes /var/lib/kubelet/seccomp.
    #[arg(long, value_name = "DIR")]
    seccomp_folder: PathBuf,
    /// Stay until SIGTERM, as the container of a DaemonSet must.
    #[arg(long)]
    stay: bool,
}

/// Why the profile is not in its place.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the profile at {}: {source}; the folder must be writable for the user of this process", path.display())]
pub struct ProfileError {
    /// Where to.
    path: PathBuf,
    /// The kernel's answer.
    source: io::Error,
}

/// The body of `install-profile`.
pub fn main(args: &ProfileArgs) -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match install(&args.seccomp_folder) {
        Ok((path, true)) => tracing::info!(path = %path.display(), "installed the profile"),
        Ok((path, false)) => tracing::info!(path = %path.display(), "the profile is there already"),
        Err(error) => {
            tracing::error!(%error, "there is no profile");
            return ExitCode::from(2);
        }
    }
    if !args.stay {
        return ExitCode::SUCCESS;
    }
    match stay() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot wait for SIGTERM");
            ExitCode::from(2)
        }
    }
}

/// Puts the profile below `folder`; it appears there whole or not at all. Says where, and whether it had to be written.
///
/// # Errors
/// See [`ProfileError`].
pub fn install(folder: &Path) -> Result<(PathBuf, bool), ProfileError> {
    let path = folder.join(PLACE);
    if fs::read(&path).is_ok_and(|there| there == PROFILE.as_bytes()) {
        return Ok((path, false));
    }
    let draft = path.with_extension("new");
    let written = fs::create_dir_all(path.parent().unwrap_or(folder))
        .and_then(|()| fs::write(&draft, PROFILE))
        .and_then(|()| fs::rename(&draft, &path));
    match written {
        Ok(()) => Ok((path, true)),
        Err(source) => Err(ProfileError { path, source }),
    }
}

fn stay() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        terminate.recv().await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_installed_once_and_mended_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PLACE);
        assert_eq!(install(folder.path()).unwrap(), (path.clone(), true));
        assert_eq!(install(folder.path()).unwrap(), (path.clone(), false));
        fs::write(&path, "{}").unwrap();
        assert_eq!(install(folder.path()).unwrap(), (path.clone(), true));
        assert_eq!(fs::read_to_string(&path).unwrap(), PROFILE);
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("requiem"), "a file").unwrap();
        let error = install(folder.path()).unwrap_err().to_string();
        assert!(error.contains("requiem/runner.json") && error.contains("writable"), "{error}");
    }
}
