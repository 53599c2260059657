//! Python packages that suites ask for a second opinion, installed once into the user's cache folder.
//!
//! Flow: digest of (requirements, Python's version) → folder of the cache; there? done · `python3 -m venv` → `pip install
//! --require-hashes` into a folder beside it → rename. A run that is interrupted leaves nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::capture;
use crate::progress::Step;
use crate::{Error, Result, paths, process, tools};

/// What is installed, each package with the digests of its files: the independent verifier's, and those of others that read our
/// envelopes.
const REQUIREMENTS: [&str; 2] = ["tests/verifier/requirements.txt", "tests/verifier/interop.txt"];

/// A Python with the packages in it, installed now if need be.
///
/// # Errors
/// There is no Python 3.8 or newer with its venv module, or the packages cannot be had.
pub fn interpreter() -> Result<PathBuf> {
    let version = version()?;
    let ready = tools::cache_folder()?.join(key(&version)?);
    let program = ready.join("bin/python");
    if !program.exists() {
        tools::make_whole(&ready, install)?;
    }
    if program.exists() {
        return Ok(program);
    }
    Err(Error::check(format!("{} is no Python", program.display()), format!("Remove {}", ready.display())))
}

fn version() -> Result<String> {
    let remedy = "Install it: `apt-get install python3-venv`, `dnf install python3` or your system's like";
    let probe = "import sys, venv, ensurepip; print(sys.version); sys.exit(sys.version_info < (3, 8))";
    match capture(Command::new("python3").args(["-c", probe])) {
        Ok(said) if said.ok => Ok(said.stdout),
        _ => Err(Error::prerequisite(
            "There is no Python 3.8 or newer with its venv module on the PATH",
            remedy,
        )),
    }
}

fn key(version: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(version.as_bytes());
    for name in REQUIREMENTS {
        let path = paths::repository().join(name);
        let bytes = std::fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    Ok(format!("python-{}", &hasher.finalize().to_hex()[..16]))
}

fn install(into: &Path) -> Result<()> {
    let step = Step::begin("install the Python packages of the second opinion (once)".to_owned());
    process::output(Command::new("python3").args(["-m", "venv"]).arg(into))?;
    let mut pip = Command::new(into.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]);
    for name in REQUIREMENTS {
        pip.arg("--requirement").arg(paths::repository().join(name));
    }
    let said = capture(&mut pip)?;
    if !said.ok {
        let last = process::last_lines(&said.stderr, 3);
        return Err(Error::prerequisite(
            format!("The Python packages of tests/verifier cannot be installed ({last})"),
            "Let pip reach a package registry (PIP_INDEX_URL names another one), or leave the suite verifier out",
        ));
    }
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned_by_digest() {
        for name in REQUIREMENTS {
            let text = std::fs::read_to_string(paths::repository().join(name)).unwrap();
            let packages = text.lines().filter(|line| !line.starts_with(['#', ' '])).count();
            assert!(packages > 0 && text.matches("==").count() == packages, "{name}");
            assert!(text.matches("--hash=sha256:").count() > packages, "{name}");
        }
        assert_ne!(key("3.8").unwrap(), key("3.9").unwrap());
    }
}
