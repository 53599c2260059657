//! A /proc that shows the run's processes and no other.

use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use requiem_model::report::Evidence;

use crate::error::StepError;
use crate::finding::Finding;
use crate::sys::mount::{attach, clone_tree};

/// What enforces the layer.
pub(crate) const MECHANISM: &str = "procfs";

/// Replaces the runner's /proc by one of the own process-id namespace. On failure there is no /proc at all,
/// which is the safe side.
pub(crate) fn replace() -> Result<(), Finding> {
    let fresh = (|| {
        // Beside the old one first: the kernel gives a fresh procfs only to who can see a whole one already.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/scratch", Some("proc"), flags, None::<&str>)
            .map_err(StepError::at("mount a fresh procfs"))?;
        let copy =
            clone_tree(AT_FDCWD, c"/scratch", false).map_err(StepError::at("copy the fresh procfs"))?;
        umount2("/scratch", MntFlags::MNT_DETACH).map_err(StepError::at("detach the fresh procfs"))?;
        Ok(copy)
    })();
    remove().map_err(|error| Finding::impossible(MECHANISM, error.to_string()))?;
    fresh
        .and_then(|fresh| {
            let point = open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
            attach(fresh.as_fd(), point.map_err(StepError::at("open /proc"))?.as_fd())
                .map_err(StepError::at("attach the fresh procfs"))
        })
        .map_err(|error: StepError| {
            Finding::impossible(
                MECHANISM,
                format!("{error} (is /proc of the runner masked?); /proc is empty"),
            )
        })
}

/// Takes the runner's /proc away.
pub(crate) fn remove() -> Result<(), StepError> {
    umount2("/proc", MntFlags::MNT_DETACH).map_err(StepError::at("unmount the runner's /proc"))
}

/// Proves from inside that /proc lists init and the payload and nothing else.
pub(crate) fn prove() -> Finding {
    let short = |detail: String| Finding::short(MECHANISM, Evidence::Readback, detail);
    match statfs("/proc") {
        Ok(found) if found.filesystem_type() == PROC_SUPER_MAGIC => {}
        Ok(_) => return short("/proc is no procfs".to_owned()),
        Err(errno) => return short(format!("statfs /proc: {}", errno.desc())),
    }
    let own = nix::unistd::getpid().to_string();
    match std::fs::read_link("/proc/self") {
        Ok(link) if link == Path::new(&own) => {}
        answer => return short(format!("/proc/self is {answer:?} in process {own}")),
    }
    let entries = match std::fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) => return short(format!("cannot list /proc: {error}")),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut processes: Vec<String> =
        names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect();
    processes.sort();
    if processes == ["1", "2"] {
        Finding::read_back(MECHANISM)
    } else {
        short(format!("/proc lists {} processes instead of 1 and 2", processes.len()))
    }
}
