//! cgroup version 1: one hierarchy per controller, a group of ours in each.
//!
//! What version 1 lacks and what is done instead: no kill switch (processes are killed one by one until none is
//! left); running out of memory kills one process of the group only (the caller watches [`super::Group::oom_events`] and kills
//! the tree); nothing tells when a group has become empty (removal tries again for a moment).

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;

use super::dir::Dir;
use super::mounts::{self, Hierarchy};
use super::{Bounds, GroupDriver, GroupUsage, HostDriver, OomEvents, Seen, reap};

/// Our base folders.
#[derive(Debug)]
pub(super) struct Host {
    memory: Dir,
    pids: Dir,
    /// Only for accounting.
    cpuacct: Option<Dir>,
}

/// One run's group in every hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    memory: Dir,
    pids: Dir,
    cpuacct: Option<Dir>,
}

impl Host {
    /// Finds hierarchies in which groups can be made.
    pub(super) fn open(hierarchies: &[Hierarchy], own: &str) -> Result<Self, String> {
        let memory = base(hierarchies, own, "memory")?;
        let pids = base(hierarchies, own, "pids")?;
        Ok(Self { memory, pids, cpuacct: base(hierarchies, own, "cpuacct").ok() })
    }

    /// Everywhere or an error; what was made before the error stays.
    fn make_all(&self, name: &str) -> nix::Result<Group> {
        let cpuacct = self.cpuacct.as_ref().map(|base| base.make(name)).transpose()?;
        Ok(Group { memory: self.memory.make(name)?, pids: self.pids.make(name)?, cpuacct })
    }

    fn bases(&self) -> impl Iterator<Item = &Dir> {
        [&self.memory, &self.pids].into_iter().chain(&self.cpuacct)
    }
}

impl HostDriver for Host {
    fn mechanism(&self) -> &'static str {
        "cgroup:v1"
    }

    fn make(&self, name: &str) -> nix::Result<Box<dyn GroupDriver>> {
        match self.make_all(name) {
            Ok(group) => Ok(Box::new(group)),
            Err(errno) => {
                // What was made before the failure is empty and goes; the failure is what is told.
                let _cleaned = self.unmake(name);
                Err(errno)
            }
        }
    }

    fn names(&self) -> nix::Result<BTreeSet<String>> {
        let lists = self.bases().map(Dir::names).collect::<nix::Result<Vec<_>>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    fn kill_leftover(&self, name: &str) -> nix::Result<()> {
        self.bases().filter_map(|base| base.child(name).ok()).try_for_each(|group| reap(&group))
    }

    fn unmake(&self, name: &str) -> nix::Result<()> {
        let mut outcome = Ok(());
        for base in self.bases() {
            match base.unmake(name) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => outcome = Err(errno),
            }
        }
        outcome
    }
}

impl Group {
    fn all(&self) -> impl Iterator<Item = &Dir> {
        [&self.memory, &self.pids].into_iter().chain(&self.cpuacct)
    }
}

impl GroupDriver for Group {
    /// Memory and swap together are limited to what memory alone is.
    fn limit(&self, bounds: &Bounds) -> nix::Result<()> {
        let memory = bounds.memory.to_string();
        // A narrower pair must be written inner limit first, a wider one outer limit first.
        let wider = self.memory.number(MEMORY)? < bounds.memory;
        for file in if wider { [SWAP, MEMORY] } else { [MEMORY, SWAP] } {
            match self.memory.write(file, &memory) {
                // The kernel was told not to account for swap; read-back says so.
                Err(Errno::ENOENT) if file == SWAP => {}
                other => other?,
            }
        }
        self.pids.write("pids.max", &bounds.pids.to_string())
    }

    fn seen(&self) -> nix::Result<Seen> {
        let swap = match self.memory.number(SWAP) {
            Ok(total) => Some(total),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        Ok(Seen {
            memory: self.memory.number(MEMORY)?,
            memory_and_swap: swap,
            pids: self.pids.number("pids.max")?,
        })
    }

    fn enter_self(&self) -> nix::Result<()> {
        self.all().try_for_each(|dir| dir.write("cgroup.procs", "0"))
    }

    #[cfg(test)]
    #[cfg(test)]
    fn add(&self, pid: Pid) -> nix::Result<()> {
        self.all().try_for_each(|dir| dir.write("cgroup.procs", &pid.to_string()))
    }

    fn holds(&self, pid: Pid) -> nix::Result<bool> {
        Ok(self.memory.members()?.contains(&pid) && self.pids.members()?.contains(&pid))
    }

    fn usage(&self) -> GroupUsage {
        GroupUsage {
            peak_memory: self.memory.number("memory.max_usage_in_bytes").ok(),
            cpu_us: self
                .cpuacct
                .as_ref()
                .and_then(|dir| dir.number("cpuacct.usage").ok())
                .map(|ns| ns / 1000),
            oom_killed: self.memory.keyed("memory.oom_control", "oom_kill").is_ok_and(|count| count > 0),
            pids_max_hit: self.pids.keyed("pids.events", "max").is_ok_and(|count| count > 0),
        }
    }

    /// A descriptor that becomes readable when the group runs out of memory, before the kernel picks a victim.
    fn oom_events(&self) -> nix::Result<OomEvents> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let watched = self.memory.file("memory.oom_control", OFlag::O_RDONLY)?;
        let registration = format!("{} {}", event.as_raw_fd(), watched.as_raw_fd());
        self.memory.write("cgroup.event_control", &registration)?;
        Ok(OomEvents { file: File::from(OwnedFd::from(event)), flags: PollFlags::POLLIN })
    }

    fn kill(&self) -> nix::Result<()> {
        // From here on nothing can fork, so that the list of processes can only shrink.
        self.pids.write("pids.max", "0")?;
        self.all().try_for_each(reap)
    }
}

const MEMORY: &str = "memory.limit_in_bytes";
const SWAP: &str = "memory.memsw.limit_in_bytes";

/// Our folder of `controller`.
fn base(hierarchies: &[Hierarchy], own: &str, controller: &str) -> Result<Dir, String> {
    let hierarchy = hierarchies
        .iter()
        .find(|one| one.controllers.iter().any(|name| name == controller))
        .ok_or_else(|| format!("no hierarchy with the controller {controller} is mounted"))?;
    let folder = hierarchy.folder(mounts::own_path(own, Some(controller)).as_deref());
    Dir::open(&folder).map_err(|errno| format!("{}: {}", folder.display(), errno.desc()))
}
