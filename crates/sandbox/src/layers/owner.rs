//! Who the processes of a run are. Two user namespaces, one in the other:
//!
//! ```text
//! host     0, everybody else
//! runner   0 → host 0 (owner of the system folders), 1000 → a host id that nobody has
//! payload  1000 → the runner's 1000; the owner of every mount is unmapped
//! ```
//!
//! A runner that may not map two ids maps its own one to 1000. One that may make no user namespace at all
//! works without, and says so.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use crate::error::{StepError, errno_of};
use crate::sys;

/// User and group id of the payload as it sees them.
pub(crate) const PAYLOAD_ID: u32 = 1000;
/// Their host id, if the runner may choose: far from where distributions and containers allot ids.
const PREFERRED_HOST_ID: u32 = 1_380_274_432;

/// How the payload's ids come about.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// The payload's user, as the runner sees it.
    pub(crate) uid: Uid,
    /// Its group.
    pub(crate) gid: Gid,
    /// Whether the runner must change to them (and may).
    switch: bool,
    /// Why the runner has no user namespace of its own, if so.
    bare: Option<Errno>,
}

impl Owner {
    /// Puts the calling process, the runner, into a user namespace of its own.
    pub(crate) fn enter() -> Result<Self, StepError> {
        let (uid, gid) = (geteuid(), getegid());
        let mapper = if uid.is_root() { Some(Mapper::start()?) } else { None };
        match unshare(CloneFlags::CLONE_NEWUSER) {
            Ok(()) => {}
            Err(errno) => return Ok(Self::without_namespace(uid, gid, errno)),
        }
        let mapped = PAYLOAD_ID;
        let switch = mapper.is_some_and(|mapper| mapper.finish().is_ok());
        if !switch {
            map_self(None, uid.as_raw(), gid.as_raw())?;
        }
        Ok(Self { uid: mapped.into(), gid: mapped.into(), switch, bare: None })
    }

    fn without_namespace(uid: Uid, gid: Gid, errno: Errno) -> Self {
        let bare = Some(errno);
        match (uid.is_root(), free_host_id()) {
            (true, Some(free)) => Self { uid: free.into(), gid: free.into(), switch: true, bare },
            _ => Self { uid, gid, switch: false, bare },
        }
    }

    /// Whether the runner's processes hold every capability of its own user namespace, or of the host's.
    pub(crate) fn is_privileged(&self) -> bool {
        self.switch || self.bare.is_none()
    }

    /// Gives `path` to the payload.
    pub(crate) fn give(&self, path: &std::path::Path) -> nix::Result<()> {
        nix::unistd::chown(path, Some(self.uid), Some(self.gid))
    }

    /// Turns the calling process into the payload's user, with no group besides its own.
    pub(crate) fn assume(&self) -> Result<(), StepError> {
        if self.switch {
            setgroups(&[]).map_err(StepError::at("drop groups"))?;
            setresgid(self.gid, self.gid, self.gid).map_err(StepError::at("set the group id"))?;
            setresuid(self.uid, self.uid, self.uid).map_err(StepError::at("set the user id"))?;
        }
        Ok(())
    }

    /// Puts the payload, which has assumed its ids, into the final user namespace.
    pub(crate) fn seal(&self, proc: BorrowedFd<'_>, with: CloneFlags) -> Result<(), StepError> {
        unshare(CloneFlags::CLONE_NEWUSER | with)
            .map_err(StepError::at("unshare the final user namespace"))?;
        // The id change has made the process undumpable, and with it the files below /proc/self root's.
        nix::sys::prctl::set_dumpable(true).map_err(StepError::at("become dumpable"))?;
        map_self(Some(proc), self.uid.as_raw(), self.gid.as_raw())?;
        nix::sys::prctl::set_dumpable(false).map_err(StepError::at("become undumpable"))
    }
}

/// Maps `PAYLOAD_ID` of the calling process's fresh user namespace to the one id it has outside.
fn map_self(proc: Option<BorrowedFd<'_>>, uid: u32, gid: u32) -> Result<(), StepError> {
    let write = |file: &str, text: String| -> nix::Result<()> {
        match proc {
            Some(proc) => {
                let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let file = openat(proc, format!("self/{file}").as_str(), flags, Mode::empty())?;
                nix::unistd::write(&file, text.as_bytes()).map(drop)
            }
            None => fs::write(format!("/proc/self/{file}"), text).map_err(|error| errno_of(&error)),
        }
    };
    // Without this an unprivileged process could drop a group that denies it something.
    write("setgroups", "deny".to_owned()).map_err(StepError::at("deny setgroups"))?;
    write("uid_map", format!("{PAYLOAD_ID} {uid} 1\n")).map_err(StepError::at("map the user id"))?;
    write("gid_map", format!("{PAYLOAD_ID} {gid} 1\n")).map_err(StepError::at("map the group id"))
}

/// A child that stays in the host's user namespace, where alone two ids can be mapped.
struct Mapper {
    child: Pid,
    start: fs::File,
}

impl Mapper {
    fn start() -> Result<Self, StepError> {
        let (wait, start) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(StepError::at("make a pipe to the id mapper"))?;
        match sys::process::fork().map_err(StepError::at("fork the id mapper"))? {
            ForkResult::Parent { child } => Ok(Self { child, start: start.into() }),
            ForkResult::Child => {
                drop(start);
                let done = map_parent(wait.into());
                std::process::exit(i32::from(done.is_err()));
            }
        }
    }

    fn finish(mut self) -> Result<(), StepError> {
        self.start.write_all(b"!").map_err(StepError::io("start the id mapper"))?;
        match waitpid(self.child, None).map_err(StepError::at("wait for the id mapper"))? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(StepError { step: "map two ids", errno: Errno::EPERM }),
        }
    }
}

/// The mapper's whole life: waits for the word, writes both maps of its parent.
fn map_parent(mut wait: fs::File) -> std::io::Result<()> {
    wait.read_exact(&mut [0])?;
    let target = format!("/proc/{}", Pid::parent());
    let free = free_host_id().ok_or(Errno::EPERM)?;
    let map = format!("0 0 1\n{PAYLOAD_ID} {free} 1\n");
    fs::write(format!("{target}/uid_map"), &map)?;
    fs::write(format!("{target}/gid_map"), &map)
}

/// An id that this user namespace has and nobody is likely to use: the preferred one, else the highest.
fn free_host_id() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    highest_free(&map)
}

fn highest_free(map: &str) -> Option<u32> {
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
        Some((first, count))
    });
    let preferred = u64::from(PREFERRED_HOST_ID);
    let mut best = None;
    for (first, count) in ranges {
        if (first..first + count).contains(&preferred) {
            return Some(PREFERRED_HOST_ID);
        }
        // The very last ids are `nobody` and overflow; ids below 1000 belong to the system.
        let last = first + count.saturating_sub(64);
        if last > 1000 {
            best = best.max(u32::try_from(last).ok());
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_id_is_taken_from_the_map() {
        assert_eq!(highest_free("         0          0 4294967295\n"), Some(PREFERRED_HOST_ID));
        assert_eq!(highest_free("0 100000 65536\n"), Some(65_472));
        assert_eq!(highest_free("0 0 1\n"), None);
        assert_eq!(highest_free("nonsense"), None);
    }
}
