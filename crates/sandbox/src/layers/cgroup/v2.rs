//! cgroup version 2: one tree, a group per run below our own.
//!
//! A group may either hold processes or pass controllers on to groups below ("no internal processes"). So, where our
//! own group does not pass memory and pids on yet, its processes must move to a group beside the runs first. That
//! is done only if they are this process and its parent, the executor: moving strangers is not ours to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::{Pid, getpid, getppid};

use super::dir::Dir;
use super::mounts::{self, Hierarchy};
use super::{Bounds, GroupDriver, GroupUsage, HostDriver, OomEvents, Seen, reap, wait_until_empty};

/// Controllers that the limits need. (Processor time is counted without one.)
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// Where the runner's own processes go.
const SELF: &str = "requiem-self";

/// Our base folder.
#[derive(Debug)]
pub(super) struct Host {
    base: Dir,
}

/// One run's group.
#[derive(Debug)]
pub(super) struct Group {
    dir: Dir,
}

impl Host {
    /// Finds a folder that passes the controllers on, or makes it do so.
    pub(super) fn open(hierarchies: &[Hierarchy], own: &str) -> Result<Self, String> {
        let hierarchy = hierarchies
            .iter()
            .find(|one| one.controllers.is_empty())
            .ok_or_else(|| "no such file system is mounted".to_owned())?;
        let own = mounts::own_path(own, None).map(without_self);
        let folder = hierarchy.folder(own.as_deref());
        prepare(&folder).map(|base| Self { base }).map_err(|why| format!("{}: {why}", folder.display()))
    }
}

impl HostDriver for Host {
    fn mechanism(&self) -> &'static str {
        "cgroup:v2"
    }

    fn make(&self, name: &str) -> nix::Result<Box<dyn GroupDriver>> {
        Ok(Box::new(Group { dir: self.base.make(name)? }))
    }

    fn kill_leftover(&self, name: &str) -> nix::Result<()> {
        Group { dir: self.base.child(name)? }.kill()
    }

    fn unmake(&self, name: &str) -> nix::Result<()> {
        self.base.unmake(name)
    }

    fn names(&self) -> nix::Result<BTreeSet<String>> {
        Ok(self.base.names()?.into_iter().collect())
    }
}

impl GroupDriver for Group {
    /// The tree dies as a whole when it runs out of memory.
    fn limit(&self, bounds: &Bounds) -> nix::Result<()> {
        self.dir.write("memory.max", &bounds.memory.to_string())?;
        match self.dir.write("memory.swap.max", "0") {
            // The kernel was told not to account for swap; read-back says so.
            Err(Errno::ENOENT) => {}
            other => other?,
        }
        self.dir.write("memory.oom.group", "1")?;
        self.dir.write("pids.max", &bounds.pids.to_string())
    }

    fn seen(&self) -> nix::Result<Seen> {
        let memory = self.dir.number("memory.max")?;
        let swap = match self.dir.number("memory.swap.max") {
            Ok(swap) => Some(memory.saturating_add(swap)),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        Ok(Seen { memory, memory_and_swap: swap, pids: self.dir.number("pids.max")? })
    }

    fn enter_self(&self) -> nix::Result<()> {
        self.dir.write("cgroup.procs", "0")
    }

    #[cfg(test)]
    #[cfg(test)]
    fn add(&self, pid: Pid) -> nix::Result<()> {
        self.dir.write("cgroup.procs", &pid.to_string())
    }

    fn holds(&self, pid: Pid) -> nix::Result<bool> {
        Ok(self.dir.members()?.contains(&pid))
    }

    fn usage(&self) -> GroupUsage {
        let count = |file, key| self.dir.keyed(file, key).unwrap_or(0);
        GroupUsage {
            // Since Linux 5.19.
            peak_memory: self.dir.number("memory.peak").ok(),
            cpu_us: self.dir.keyed("cpu.stat", "usage_usec").ok(),
            oom_killed: count("memory.events", "oom_kill") > 0
                || count("memory.events", "oom_group_kill") > 0,
            pids_max_hit: count("pids.events", "max") > 0,
        }
    }

    /// A descriptor that has a priority event whenever a memory event has been counted.
    fn oom_events(&self) -> nix::Result<OomEvents> {
        let file = self.dir.file("memory.events", OFlag::O_RDONLY)?;
        Ok(OomEvents { file, flags: PollFlags::POLLPRI })
    }

    fn kill(&self) -> nix::Result<()> {
        match self.dir.write("cgroup.kill", "1") {
            Ok(()) => wait_until_empty(&self.dir),
            // Before Linux 5.14.
            Err(Errno::ENOENT) => {
                self.dir.write("pids.max", "0")?;
                reap(&self.dir)
            }
            Err(errno) => Err(errno),
        }
    }
}

/// An earlier runner may have moved us (or our parent) aside; runs go beside that group, not into it.
fn without_self(own: PathBuf) -> PathBuf {
    match own.parent() {
        Some(parent) if own.ends_with(SELF) => parent.to_owned(),
        _ => own,
    }
}

/// Opens `folder` and makes it pass the controllers on.
fn prepare(folder: &Path) -> Result<Dir, String> {
    let dir = Dir::open(folder).map_err(|errno| errno.desc().to_owned())?;
    let offered = words(&dir, "cgroup.controllers")?;
    if let Some(missing) = CONTROLLERS.iter().find(|name| !offered.iter().any(|word| word == *name)) {
        return Err(format!("the controller {missing} is not offered here"));
    }
    let passed = words(&dir, "cgroup.subtree_control")?;
    if CONTROLLERS.iter().all(|name| passed.iter().any(|word| word == name)) {
        return Ok(dir);
    }
    match pass_on(&dir) {
        Ok(()) => Ok(dir),
        // Processes are in the way.
        Err(Errno::EBUSY) => {
            step_aside(&dir)?;
            pass_on(&dir).map(|()| dir).map_err(|errno| format!("cgroup.subtree_control: {}", errno.desc()))
        }
        Err(errno) => Err(format!("cgroup.subtree_control: {}", errno.desc())),
    }
}

fn pass_on(dir: &Dir) -> nix::Result<()> {
    dir.write("cgroup.subtree_control", &CONTROLLERS.map(|name| format!("+{name}")).join(" "))
}

/// Moves this process and its parent out of the way, if nobody else is there.
fn step_aside(dir: &Dir) -> Result<(), String> {
    let members = dir.members().map_err(|errno| format!("cgroup.procs: {}", errno.desc()))?;
    if let Some(stranger) = members.iter().find(|pid| ![getpid(), getppid()].contains(pid)) {
        return Err(format!(
            "process {stranger} lives in the executor's own group, which therefore cannot pass controllers on; \
             start the executor in a group of its own (systemd: Delegate=yes)"
        ));
    }
    let aside = match dir.make(SELF) {
        Err(Errno::EEXIST) => dir.child(SELF),
        other => other,
    };
    let aside = aside.map_err(|errno| format!("{SELF}: {}", errno.desc()))?;
    members
        .iter()
        .try_for_each(|pid| aside.write("cgroup.procs", &pid.to_string()))
        .map_err(|errno| format!("{SELF}/cgroup.procs: {}", errno.desc()))
}

fn words(dir: &Dir, file: &str) -> Result<Vec<String>, String> {
    let text = dir.read(file).map_err(|errno| format!("{file}: {}", errno.desc()))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_beside_the_runner_not_into_its_group() {
        let base = PathBuf::from("/system.slice/requiem.service");
        assert_eq!(without_self(base.join(SELF)), base);
        assert_eq!(without_self(base.clone()), base);
    }
}
