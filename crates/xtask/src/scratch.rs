//! A folder that goes with its guard, and with this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Result, paths, reaper};

/// A private folder below the system's folder for temporary files.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(purpose: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("requiem-{purpose}-{}-{number}", std::process::id()));
        reaper::global()?.watch_folder(&folder)?;
        let scratch = Self(folder);
        paths::make_private(&scratch.0)?;
        Ok(scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the reaper tries again at the end of the process.
        if fs::remove_dir_all(&self.0).is_ok() {
            let _reaper_gone = reaper::global().and_then(|reaper| reaper.forget_folder(&self.0));
        }
    }
}
