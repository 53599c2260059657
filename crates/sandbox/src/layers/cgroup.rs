//! Layer `cgroup`: memory and number of processes of the whole tree, and what it used.
//!
//! Flow: [`Cgroups::probe`] in the zygote, before it loses sight of the cgroup file systems: really makes a group,
//! limits it, reads the limits back and removes it; version 2 first, else version 1; sweeps groups of runners that
//! have died. Per run: [`Cgroups::create`] (ahead of time, if one likes) → [`Group::apply`] → the run's first process
//! calls [`Group::enter_self`] → [`Group::prove`] from outside → [`Group::usage`], [`Group::kill`],
//! [`Group::remove`].
//!
//! Everything goes through open folders, so the mounts need not be visible any more.
//!
//! Guarantees: limits count for everything that is ever forked inside; memory includes files in the run's tmpfs.
//! Caveats: version 1 kills only one process of a group that runs out of memory, see [`Group::oom_events`]. The tests
//! run on whichever version the host has; `vm/cgroup-v2.sh` of this crate runs the same tests on version 2, with and
//! without processes in the way, on an emulated machine.

mod dir;
mod mounts;
mod names;
mod outer;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use requiem_model::policy::Limits;
use requiem_model::report::Evidence;

use self::dir::Dir;
use self::names::Maker;
use self::outer::Outer;
use crate::StepError;
use crate::finding::Finding;
use crate::sys::{pidfd, process};

/// The run's init lives in the group beside the payload.
const HELPERS: u64 = 1;
/// The kernel keeps limits in whole pages; no page of ours is larger.
const LARGEST_PAGE: u64 = 64 * 1024;
/// How long killed processes may take to go. Far beyond what they need; a process stuck in the kernel needs a human.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this host can do.
#[derive(Debug)]
pub(crate) struct Cgroups {
    host: Result<Rc<Host>, String>,
    outer: Option<Outer>,
}

#[derive(Debug)]
struct Host {
    driver: Box<dyn HostDriver>,
    maker: Maker,
}

/// One run's group.
#[derive(Debug)]
pub(crate) struct Group {
    name: String,
    driver: Box<dyn GroupDriver>,
    host: Rc<Host>,
}

/// How groups are made in one version.
trait HostDriver: std::fmt::Debug {
    fn mechanism(&self) -> &'static str;
    /// Makes a group without limits.
    fn make(&self, name: &str) -> nix::Result<Box<dyn GroupDriver>>;
    /// Names of everything beside our groups, ours included.
    fn names(&self) -> nix::Result<BTreeSet<String>>;
    /// Kills what lives in a group that somebody else made.
    fn kill_leftover(&self, name: &str) -> nix::Result<()>;
    /// Removes an empty group, all of it.
    fn unmake(&self, name: &str) -> nix::Result<()>;
}

/// What can be done with a group in one version.
trait GroupDriver: std::fmt::Debug {
    fn limit(&self, bounds: &Bounds) -> nix::Result<()>;
    /// Reads the limits back.
    fn seen(&self) -> nix::Result<Seen>;
    fn enter_self(&self) -> nix::Result<()>;
    #[cfg(test)]
    #[cfg(test)]
    fn add(&self, pid: Pid) -> nix::Result<()>;
    fn holds(&self, pid: Pid) -> nix::Result<bool>;
    fn usage(&self) -> GroupUsage;
    fn oom_events(&self) -> nix::Result<OomEvents>;
    /// Kills everything and waits until it is gone.
    fn kill(&self) -> nix::Result<()>;
}

/// What a run used, as far as the kernel counts it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupUsage {
    /// Highest memory use of the tree, in bytes.
    pub(crate) peak_memory: Option<u64>,
    /// Processor time of the tree, in microseconds.
    pub(crate) cpu_us: Option<u64>,
    /// The kernel killed a process because the limit was reached.
    pub(crate) oom_killed: bool,
    /// A fork failed because the limit was reached.
    pub(crate) pids_max_hit: bool,
}

/// Tells that a group has run out of memory. Poll it for [`OomEvents::flags`], then ask [`OomEvents::has_fired`].
#[derive(Debug)]
pub(crate) struct OomEvents {
    file: File,
    flags: PollFlags,
}

/// Limits as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    memory: u64,
    pids: u64,
}

/// Limits as they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    memory: u64,
    /// `None` where swap is not accounted for.
    memory_and_swap: Option<u64>,
    pids: u64,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        Self { memory: limits.memory_bytes, pids: limits.pids.saturating_add(HELPERS) }
    }

    /// What is wrong with the limits in force.
    fn differs(&self, seen: &Seen) -> Option<String> {
        if seen.memory > self.memory || self.memory - seen.memory >= LARGEST_PAGE {
            return Some(format!("memory is limited to {} bytes, not {}", seen.memory, self.memory));
        }
        if seen.pids != self.pids {
            return Some(format!("processes are limited to {}, not {}", seen.pids, self.pids));
        }
        match seen.memory_and_swap {
            Some(total) if total > seen.memory => {
                Some(format!("{} bytes of swap are allowed", total - seen.memory))
            }
            None if host_swaps() => Some("this host swaps and does not account for it".to_owned()),
            _ => None,
        }
    }
}

impl Cgroups {
    /// Finds out by doing.
    pub(crate) fn probe() -> Self {
        let host = Host::probe();
        if let Ok(host) = &host {
            host.sweep();
        }
        let outer = host.is_err().then(outer_limits).flatten();
        Self { host: host.map(Rc::new), outer }
    }

    /// The mechanism's name for reports.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn available(&self) -> Result<&str, &str> {
        self.host.as_ref().map(|host| host.driver.mechanism()).map_err(String::as_str)
    }

    /// What bounds a run where no group can be made for it; see [`Outer::finding`].
    pub(crate) fn outer(&self, own_pids: bool) -> Option<Finding> {
        let why = self.available().err()?;
        Some(self.outer.as_ref()?.finding(why, own_pids))
    }

    /// How often the kernel has killed for want of memory in the container around this runner, where it has no groups
    /// of its own.
    pub(crate) fn outer_kills(&self) -> Option<u64> {
        self.outer.as_ref()?.kills()
    }

    /// Makes a group without limits. `id` must be new for this runner.
    ///
    /// # Errors
    /// The kernel refuses, or there are no groups on this host (ENOSYS).
    pub(crate) fn create(&self, id: u64) -> Result<Group, StepError> {
        let at = StepError::at("make a cgroup");
        let Ok(host) = &self.host else { return Err(at(Errno::ENOSYS)) };
        let name = host.maker.group(&id.to_string());
        let driver = host.driver.make(&name).map_err(at)?;
        Ok(Group { name, driver, host: Rc::clone(host) })
    }
}

fn outer_limits() -> Option<Outer> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    Some(Outer::read(&mounts::hierarchies(&mountinfo), &own))
}

impl Host {
    fn probe() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let hierarchies = mounts::hierarchies(&read("/proc/self/mountinfo")?);
        let own = read("/proc/self/cgroup")?;
        let maker = Maker::current().ok_or("/proc does not show this process")?;
        let host = |driver: Box<dyn HostDriver>| Self { driver, maker: maker.clone() }.rehearsed();
        let two = v2::Host::open(&hierarchies, &own).and_then(|driver| host(Box::new(driver)));
        two.or_else(|no_two| {
            let one = v1::Host::open(&hierarchies, &own).and_then(|driver| host(Box::new(driver)));
            one.map_err(|no_one| format!("version 2: {no_two}; version 1: {no_one}"))
        })
    }

    /// Makes a group, limits it, reads the limits back and removes it.
    fn rehearsed(self) -> Result<Self, String> {
        let name = self.maker.group("probe");
        let bounds = Bounds::of(&Limits::default());
        let group =
            self.driver.make(&name).map_err(|errno| format!("cannot make a group: {}", errno.desc()))?;
        let limited = group.limit(&bounds).and_then(|()| group.seen());
        self.unmake(&name).map_err(|errno| format!("cannot remove a group: {}", errno.desc()))?;
        let seen = limited.map_err(|errno| format!("cannot limit a group: {}", errno.desc()))?;
        bounds.differs(&seen).map_or(Ok(self), Err)
    }

    /// Removes a group whose processes have ended.
    fn unmake(&self, name: &str) -> nix::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match self.driver.unmake(name) {
                // A process leaves its group a moment after it has become a zombie, and nothing tells when.
                Err(Errno::EBUSY) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1))
                }
                other => return other,
            }
        }
    }

    /// Removes what runners of ours left behind when they died, processes included. What cannot be removed stays
    /// for the next one: the sweep is a courtesy and fails nobody.
    fn sweep(&self) {
        let names = self.driver.names().unwrap_or_default();
        for name in names.iter().filter(|name| self.maker.is_stale(name)) {
            if let Err(errno) = self.driver.kill_leftover(name).and_then(|()| self.unmake(name)) {
                tracing::warn!(group = name, error = errno.desc(), "a dead runner's cgroup stays");
            }
        }
    }
}

impl Group {
    /// Sets the limits.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn apply(&self, limits: &Limits) -> Result<(), StepError> {
        self.driver.limit(&Bounds::of(limits)).map_err(StepError::at("limit a cgroup"))
    }

    /// Moves the calling process in; what it forks from now on is in, too.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn enter_self(&self) -> Result<(), StepError> {
        self.driver.enter_self().map_err(StepError::at("enter a cgroup"))
    }

    /// Moves another process in. Runs enter by themselves; tests put programs in that know nothing of groups.
    #[cfg(test)]
    pub(crate) fn add(&self, pid: Pid) -> Result<(), StepError> {
        self.driver.add(pid).map_err(StepError::at("add a process to a cgroup"))
    }

    /// Reads limits and membership back.
    pub(crate) fn prove(&self, limits: &Limits, member: Pid) -> Finding {
        let mechanism = self.host.driver.mechanism();
        let (seen, held) = match self.driver.seen().and_then(|seen| Ok((seen, self.driver.holds(member)?))) {
            Ok(observed) => observed,
            Err(errno) => {
                let detail = format!("limits cannot be read: {}", errno.desc());
                return Finding::short(mechanism, Evidence::None, detail);
            }
        };
        let wrong = if held {
            Bounds::of(limits).differs(&seen)
        } else {
            Some(format!("process {member} is not in the group"))
        };
        match wrong {
            Some(detail) => Finding::short(mechanism, Evidence::Readback, detail),
            None => Finding::read_back(mechanism),
        }
    }

    /// What was used so far.
    pub(crate) fn usage(&self) -> GroupUsage {
        self.driver.usage()
    }

    /// To be told when memory runs out. Version 1 then kills a single process, so the caller must kill the tree.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn oom_events(&self) -> Result<OomEvents, StepError> {
        self.driver.oom_events().map_err(StepError::at("watch a cgroup's memory"))
    }

    /// Kills every process inside and waits until they are gone. Processes that this process's namespace does not
    /// show are beyond its reach in version 1; the run's own namespace takes care of those.
    ///
    /// # Errors
    /// The kernel refuses, or some process does not go (ETIMEDOUT).
    pub(crate) fn kill(&self) -> Result<(), StepError> {
        self.driver.kill().map_err(StepError::at("kill the processes of a cgroup"))
    }

    /// Removes the group; its processes must have ended.
    ///
    /// # Errors
    /// Processes are left (EBUSY).
    pub(crate) fn remove(self) -> Result<(), StepError> {
        self.host.unmake(&self.name).map_err(StepError::at("remove a cgroup"))
    }
}

impl OomEvents {
    /// What to poll for.
    pub(crate) const fn flags(&self) -> PollFlags {
        self.flags
    }

    /// Whether memory has run out, after the descriptor was ready. Version 2 counts other memory events, too.
    pub(crate) fn has_fired(&self) -> bool {
        if self.flags == PollFlags::POLLIN {
            return is_ready(self.as_fd(), self.flags);
        }
        count_in(&self.file, "oom").is_ok_and(|count| count > 0)
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Kills the processes of one folder, round by round, until it shows none.
fn reap(group: &Dir) -> nix::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = group.members()?;
        if listed.is_empty() {
            return Ok(());
        }
        let opened: Vec<_> =
            listed.iter().filter_map(|pid| Some((*pid, process::pidfd_open(*pid).ok()?))).collect();
        // A number could have been given to a stranger between listing and opening. What is still listed now is a
        // process of the group, or its descriptor names one that has ended.
        let confirmed = group.members()?;
        for (_, process) in opened.iter().filter(|(pid, _)| confirmed.contains(pid)) {
            match pidfd::signal(process.as_fd(), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        for (_, process) in &opened {
            wait_for(process.as_fd(), PollFlags::POLLIN, deadline)?;
        }
    }
}

/// Waits until a group of version 2 says that it is empty.
fn wait_until_empty(group: &Dir) -> nix::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let events = group.file("cgroup.events", OFlag::O_RDONLY)?;
    // A change after the file was read makes the wait return at once.
    while count_in(&events, "populated")? != 0 {
        wait_for(events.as_fd(), PollFlags::POLLPRI, deadline)?;
    }
    Ok(())
}

/// The number after `key` in an open file of `key number` lines. Reading arms the file for the next poll.
fn count_in(file: &File, key: &str) -> nix::Result<u64> {
    let mut text = [0_u8; 512];
    let length = nix::sys::uio::pread(file, &mut text, 0)?;
    dir::keyed(&String::from_utf8_lossy(&text[..length]), key).ok_or(Errno::ENODATA)
}

/// One wait on one descriptor; ETIMEDOUT at the deadline.
fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) -> nix::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd, flags)];
    match poll(&mut fds, timeout) {
        Ok(0) => Err(Errno::ETIMEDOUT),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Whether this host has any swap. Not knowing counts as yes.
fn host_swaps() -> bool {
    fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}
