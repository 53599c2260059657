//! `cargo xtask generate`: what is generated is committed, has one source, and drift is an error.

use std::fs;
use std::path::{Path, PathBuf};

use crate::progress::say;
use crate::scratch::Scratch;
use crate::{Error, Result, cargo, paths, process, values};

/// Writes the generated files, or with `check` compares them with what is committed.
///
/// # Errors
/// The generator fails, or files differ.
pub fn run(check: bool) -> Result<()> {
    if !check {
        return generate(&paths::repository());
    }
    let fresh = Scratch::new("generate")?;
    generate(fresh.path())?;
    let stale = differing(fresh.path(), &paths::repository())?;
    if stale.is_empty() {
        say("✓ generated files are up to date");
        return Ok(());
    }
    let list = stale.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(Error::check(
        format!("Generated files are stale: {list}"),
        "Run `cargo xtask generate` and commit the result",
    ))
}

fn generate(root: &Path) -> Result<()> {
    let mut command =
        cargo::command(&["run", "--quiet", "--package", "requiem-crds", "--bin", "crdgen", "--"]);
    process::run(command.arg(root))?;
    for (what, folder) in [
        (&["man", "--markdown"][..], "docs/reference"),
        (&["sandbox", "explain", "--markdown"], "docs/reference"),
        (&["metrics", "--markdown"], "docs/reference"),
        (&["schema"], "docs/reference/schemas"),
    ] {
        let mut command =
            cargo::command(&["run", "--quiet", "--package", "requiem-cli", "--bin", "requiem", "--"]);
        process::run(command.args(what).arg("--out").arg(root.join(folder)))?;
    }
    let mut command =
        cargo::command(&["run", "--quiet", "--package", "requiem-tests", "--bin", "metricsgen", "--"]);
    process::run(command.arg(root))?;
    values::generate(root)
}

/// Files below `fresh` whose content is not that of the same file below `committed`.
fn differing(fresh: &Path, committed: &Path) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    let mut folders = vec![fresh.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let reading = || Error::io(format!("read {}", folder.display()));
        for entry in fs::read_dir(&folder).map_err(reading())? {
            let path = entry.map_err(reading())?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(fresh).unwrap_or(&path).to_path_buf();
            let same = fs::read(committed.join(&name)).ok() == Some(fs::read(&path).map_err(reading())?);
            if !same {
                stale.push(name);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_and_a_missing_file_are_both_stale() {
        let (fresh, committed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (root, name, text) in [
            (&fresh, "a/same", "1"),
            (&committed, "a/same", "1"),
            (&fresh, "a/changed", "1"),
            (&committed, "a/changed", "2"),
            (&fresh, "missing", "1"),
            (&committed, "by-hand", "1"),
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let stale = differing(fresh.path(), committed.path()).unwrap();
        assert_eq!(stale, [PathBuf::from("a/changed"), PathBuf::from("missing")]);
    }
}
