//! Where things lie: the repository, the user's cache (removable at any time), the user's state (running clusters).

use std::env;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Root of the repository that this xtask was built from.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// The user's cache folder for Requiem, shared by all clones.
///
/// # Errors
/// Neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache() -> Result<PathBuf> {
    Ok(base("XDG_CACHE_HOME", ".cache")?.join("requiem"))
}

/// The user's state folder for Requiem: what runs now.
///
/// # Errors
/// Neither `XDG_STATE_HOME` nor `HOME` is set.
pub fn state() -> Result<PathBuf> {
    Ok(base("XDG_STATE_HOME", ".local/state")?.join("requiem"))
}

/// Makes a folder that only this user can read, with its parents.
///
/// # Errors
/// The system refuses.
pub fn make_private(path: &Path) -> Result<()> {
    let doing = format!("make the folder {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io(doing))
}

fn base(variable: &str, below_home: &str) -> Result<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home))).ok_or_else(|| {
        Error::prerequisite(
            format!("Neither {variable} nor HOME names a folder"),
            format!("Set HOME, or set {variable} to a folder that you can write"),
        )
    })
}
