//! Packages of Node.js that suites ask for a second opinion, installed once into the user's cache folder.
//!
//! Flow: digest of (package-lock.json, Node's version) → folder of the cache; there? done · `npm ci` into a folder beside it, which
//! checks every package against the lock file and runs no script of theirs → rename. A run that is interrupted leaves nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::capture;
use crate::progress::Step;
use crate::{Error, Result, paths, process, tools};

/// Where the packages are named and locked.
const FOLDER: &str = "tests/verifier/sigstore";
/// What names them there.
const FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// The folder `node_modules` with the packages in it, installed now if need be.
///
/// # Errors
/// There is no Node.js 20.17 or newer with npm, or the packages cannot be had.
pub fn modules() -> Result<PathBuf> {
    let version = version()?;
    let ready = tools::cache_folder()?.join(key(&version)?);
    let modules = ready.join("node_modules");
    if !modules.is_dir() {
        tools::make_whole(&ready, install)?;
    }
    Ok(modules)
}

fn version() -> Result<String> {
    let remedy = "Install it: `apt-get install nodejs npm` where your system has it, or from nodejs.org; or leave the suite verifier out";
    let missing = |what: String| Error::prerequisite(what, remedy);
    let said = |program: &str| capture(Command::new(program).arg("--version")).ok().filter(|said| said.ok);
    let node = said("node").map(|said| said.stdout.trim().to_owned());
    match node {
        Some(version) if is_recent(&version) && said("npm").is_some() => Ok(version),
        Some(version) if !is_recent(&version) => {
            Err(missing(format!("Node.js is too old ({version}); 20.17 is needed")))
        }
        _ => Err(missing("There is no Node.js with npm on the PATH".to_owned())),
    }
}

/// Whether a version, like `v20.20.2`, is 20.17 or newer.
fn is_recent(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    matches!((major, minor), (Some(major), Some(minor)) if (major, minor) >= (20, 17))
}

fn key(version: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(version.as_bytes());
    for path in files() {
        let bytes = std::fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    Ok(format!("node-{}", &hasher.finalize().to_hex()[..16]))
}

fn files() -> impl Iterator<Item = PathBuf> {
    FILES.into_iter().map(|name| paths::repository().join(FOLDER).join(name))
}

fn install(into: &Path) -> Result<()> {
    let step = Step::begin("install the Node.js packages of the second opinion (once)".to_owned());
    for path in files() {
        let target = into.join(path.file_name().unwrap_or_default());
        std::fs::copy(&path, &target).map_err(Error::io(format!("write {}", target.display())))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(into);
    let said = capture(&mut npm)?;
    if !said.ok {
        let last = process::last_lines(&said.stderr, 3);
        return Err(Error::prerequisite(
            format!("The Node.js packages of {FOLDER} cannot be installed ({last})"),
            "Let npm reach a package registry (npm_config_registry names another one), or leave the suite verifier out",
        ));
    }
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_locked_by_digest() {
        let lock = std::fs::read_to_string(paths::repository().join(FOLDER).join(FILES[1])).unwrap();
        let packages = lock.matches("\"node_modules/").count();
        assert!(packages > 0 && lock.matches("\"integrity\": \"sha512-").count() == packages);
        assert!(!lock.contains("\"resolved\""), "whose registry that is, is the affair of whoever installs");
        assert_ne!(key("v20.17.0").unwrap(), key("v22.9.0").unwrap());
    }

    #[test]
    fn old_versions_are_told_from_new_ones() {
        assert!(["v20.17.0", "v20.20.2", "v22.9.0", "v100.0.0"].into_iter().all(is_recent));
        assert!(!["v20.16.9", "v18.20.0", "", "v", "node"].into_iter().any(is_recent));
    }
}
