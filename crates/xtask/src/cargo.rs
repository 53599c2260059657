//! Cargo, called from a program that cargo has started.

use std::path::{Path, PathBuf};
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
    /// Optimised, for images.
    Image,
    /// Quick to build, for images in suites: as [`Profile::Dev`], whose build scripts and macros serve it too, but small.
    Trial,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Dev | Self::Trial => "dev",
            Self::Release => "release",
            Self::Image => "image",
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Dev | Self::Trial => "debug",
            Self::Release => "release",
            Self::Image => "image",
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
    build_bins(profile, &PROGRAMS)
}

/// Builds `programs` of any room and returns the folder that holds them.
///
/// # Errors
/// They do not build.
pub fn build_bins(profile: Profile, programs: &[&str]) -> Result<PathBuf> {
    // `--workspace` with a choice of targets, as in the suites: one set of features, so each library is built once.
    let mut build = command(&["build", "--workspace", "--profile", profile.name()]);
    for program in programs {
        build.args(["--bin", program]);
    }
    process::run(&mut build)?;
    Ok(target()?.join(profile.folder()))
}

/// Builds programs for images from the source in `repository` into `target`, and returns the folder that holds them. They
/// are linked statically, and hold no trace of where they were built: equal source and tools give equal bytes.
///
/// # Errors
/// They do not build.
pub fn build_static(
    repository: &Path,
    target: &Path,
    profile: Profile,
    programs: &[&str],
) -> Result<PathBuf> {
    let triple = triple();
    let mut build = command(&["build", "--workspace", "--locked", "--profile", profile.name()]);
    // A named target, even if it is this machine's own: only then do build scripts and macros go without these flags.
    build.args(["--target", &triple, "--target-dir"]).arg(target).current_dir(repository);
    for program in programs {
        build.args(["--bin", program]);
    }
    let places = [(repository, "/requiem"), (&cargo_home()?, "/cargo"), (target, "/target")];
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(places.map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())));
    if profile == Profile::Trial {
        flags.extend(["-Cdebuginfo=0", "-Cstrip=symbols"].map(str::to_owned));
    }
    build.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let c_flags = places.map(|(path, name)| format!("-ffile-prefix-map={}={name}", path.display()));
    build.env(format!("CFLAGS_{}", triple.replace('-', "_")), c_flags.join(" "));
    process::run(&mut build)?;
    Ok(target.join(&triple).join(profile.folder()))
}

/// The platform of images: this machine's, with the GNU C library.
pub fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn cargo_home() -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .ok_or_else(|| Error::prerequisite("Neither CARGO_HOME nor HOME names a folder", "Set HOME"))
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
