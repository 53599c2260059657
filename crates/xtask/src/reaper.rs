//! Nothing is left behind, however this process ends.
//!
//! A small shell process holds the read end of a pipe and a list of process groups, cgroups and folders. When the pipe
//! closes because this process is gone (Ctrl-C, SIGTERM, SIGKILL, a panic), it kills the groups and removes the rest. The
//! orderly way is the same one: the owner stops what it started, says `forget`, and the reaper ends with nothing to do.
//! It ignores terminal signals, so it outlives the process it looks after. Needs no `unsafe` and no signal handler.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Error, Result};

const SCRIPT: &str = include_str!("reaper.sh");

/// The list of what must not outlive this process.
#[derive(Debug)]
pub struct Reaper {
    pipe: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

/// The reaper of this process, started when first needed.
///
/// # Errors
/// There is no shell.
pub fn global() -> Result<&'static Reaper> {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    match REAPER.get() {
        Some(reaper) => Ok(reaper),
        None => {
            let reaper = Reaper::start()?;
            Ok(REAPER.get_or_init(|| reaper))
        }
    }
}

impl Reaper {
    /// Starts the shell process.
    ///
    /// # Errors
    /// There is no shell.
    pub fn start() -> Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "requiem-reaper"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io("start /bin/sh"))?;
        Ok(Self { pipe: Mutex::new(child.stdin.take()), child: Mutex::new(child) })
    }

    /// Has the group led by `pid` killed when this process ends.
    ///
    /// # Errors
    /// The reaper is gone.
    pub fn watch_group(&self, pid: u32) -> Result<()> {
        self.tell(&format!("group {pid}"))
    }

    /// The group has ended or may live on. Best said before its leader is collected: afterwards the id can be reused.
    ///
    /// # Errors
    /// The reaper is gone.
    pub fn forget_group(&self, pid: u32) -> Result<()> {
        self.tell(&format!("ungroup {pid}"))
    }

    /// Has a folder removed when this process ends.
    ///
    /// # Errors
    /// The reaper is gone, or the path cannot be told on one line.
    pub fn watch_folder(&self, path: &Path) -> Result<()> {
        self.tell(&format!("folder {}", plain(path)?))
    }

    /// The folder is removed or may stay.
    ///
    /// # Errors
    /// As for [`Reaper::watch_folder`].
    pub fn forget_folder(&self, path: &Path) -> Result<()> {
        self.tell(&format!("unfolder {}", plain(path)?))
    }

    /// Has a cgroup and those below it removed when this process ends.
    ///
    /// # Errors
    /// As for [`Reaper::watch_folder`].
    pub fn watch_cgroup(&self, path: &Path) -> Result<()> {
        self.tell(&format!("cgroup {}", plain(path)?))
    }

    /// The cgroup is removed or may stay.
    ///
    /// # Errors
    /// As for [`Reaper::watch_folder`].
    pub fn forget_cgroup(&self, path: &Path) -> Result<()> {
        self.tell(&format!("uncgroup {}", plain(path)?))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let pipe = pipe.as_mut().ok_or_else(gone).map_err(Error::io("reach the reaper"))?;
        // One write of less than PIPE_BUF: a line arrives whole or not at all.
        pipe.write_all(format!("{line}\n").as_bytes()).map_err(Error::io("reach the reaper"))
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Its clean-up is over when it has ended; how it ended says nothing more.
        let _ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str().filter(|text| text.starts_with('/') && !text.contains('\n')).ok_or_else(|| {
        Error::usage(
            format!("The path {} cannot be used", path.display()),
            "Choose an absolute one in UTF-8 without line breaks",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Target;
    use std::time::Duration;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_is_watched_goes_and_what_is_forgotten_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, kept) = (folder.path().join("a b"), folder.path().join("kept"));
        std::fs::create_dir_all(gone.join("deep")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        let (mut watched, mut forgotten) = (sleeper(), sleeper());
        let reaper = Reaper::start().unwrap();
        for child in [&watched, &forgotten] {
            reaper.watch_group(child.id()).unwrap();
        }
        for path in [&gone, &kept] {
            reaper.watch_folder(path).unwrap();
        }
        reaper.forget_group(forgotten.id()).unwrap();
        reaper.forget_folder(&kept).unwrap();
        drop(reaper);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&watched.wait().unwrap()), Some(9));
        assert!(!gone.exists() && kept.exists());
        assert!(forgotten.try_wait().unwrap().is_none());
        let target = Target::of(forgotten.id()).unwrap().unwrap();
        assert!(target.end(Duration::from_secs(5)).unwrap());
        forgotten.wait().unwrap();
    }
}
