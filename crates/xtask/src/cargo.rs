//! Cargo, called from a program that cargo has started.

use std::path::PathBuf;
use std::process::Command;

use crate::{Error, Result, paths, process};

/// What `cargo run` sets for us. Build scripts that watch one of these would run again in every nested call.
const OURS: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"];

/// The programs that a demo or a cluster suite starts.
pub const PROGRAMS: [&str; 3] = ["requiem", "requiem-executor", "requiem-operator"];

/// How programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build, for demos and suites.
    Dev,
    /// Optimised, for benchmarks.
    Release,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// A cargo command at the root of the repository.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::repository()).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OURS.iter().any(|ours| name.starts_with(ours))) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds the three programs and returns the folder that holds them.
///
/// # Errors
/// They do not build.
pub fn build_programs(profile: Profile) -> Result<PathBuf> {
    // `--workspace` with a choice of targets, as in the suites: one set of features, so each library is built once.
    let mut build = command(&["build", "--workspace", "--profile", profile.name()]);
    for program in PROGRAMS {
        build.args(["--bin", program]);
    }
    process::run(&mut build)?;
    Ok(target()?.join(profile.folder()))
}

/// Where cargo puts what it builds.
///
/// # Errors
/// The workspace cannot be read.
pub fn target() -> Result<PathBuf> {
    let text = process::output(&mut command(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    metadata["target_directory"].as_str().map(PathBuf::from).ok_or_else(|| {
        Error::check(
            "`cargo metadata` names no target directory",
            "Run it by hand and look at what it prints",
        )
    })
}
