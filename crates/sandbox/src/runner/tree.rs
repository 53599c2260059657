//! The process tree of one run, as its supervisor holds it.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid};
use requiem_model::Layer;

use super::ground::Ground;
use super::{Wants, init};
use crate::error::StepError;
use crate::finding::{Finding, Journal};
use crate::layers::cgroup::Group;
use crate::layers::namespaces;
use crate::protocol::{Channel, TreeUsage};
use crate::sys;

/// Init, everything below it, and its cgroup.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Init's pid, as the supervisor sees it.
    pub(crate) init: Pid,
    /// To init and payload.
    pub(crate) control: Channel,
    /// The run's cgroup, if there is one.
    pub(crate) group: Option<Group>,
    /// What the supervisor itself has seen so far.
    pub(crate) journal: Journal,
    /// What the tree was made for.
    pub(crate) wants: Wants,
    own_pids: bool,
    felled: bool,
}

impl Tree {
    /// Makes the cgroup and forks init, into a process-id namespace of its own if that is wanted. `second` tells
    /// the two trees apart that a supervisor plants at most.
    pub(crate) fn plant(ground: &Ground, wants: Wants, second: bool) -> Result<Self, StepError> {
        let mut journal = Journal::default();
        let group = if wants.layer(Layer::Cgroup) { make_group(ground, second, &mut journal) } else { None };
        let (control, inner) = Channel::pair().map_err(StepError::at("make the control channel"))?;
        let supervisor = nix::unistd::getpid();
        let (forked, own_pids) = fork_init(&wants, &mut journal);
        let init = match forked.map_err(StepError::at("fork init"))? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(control);
                init::run(init::Start { ground, wants, group, journal, own_pids, control: inner, supervisor })
            }
        };
        drop(inner);
        Ok(Self { init, control, group, journal, wants, own_pids, felled: false })
    }

    /// Ends every process of the tree and returns what it used.
    pub(crate) fn fell(&mut self, proc: BorrowedFd<'_>) -> TreeUsage {
        // A second time, init's pid could be somebody else's.
        if std::mem::replace(&mut self.felled, true) {
            return children_usage();
        }
        // ESRCH: it has ended by itself.
        let _already_gone = kill(self.init, Signal::SIGKILL);
        if let Some(group) = &self.group {
            // The kernel ends the namespace with its init; the cgroup only helps where there is none.
            let _namespace_does_it = if self.own_pids { Ok(()) } else { group.kill() };
        }
        while waitpid(self.init, None) == Err(Errno::EINTR) {}
        if !self.own_pids {
            end_descendants(proc);
        }
        children_usage()
    }

    /// Removes the cgroup of a tree that has been felled.
    pub(crate) fn clear(self) {
        if let Some(group) = self.group {
            // What cannot be removed now is swept by the next runner's probe.
            let _swept_later = group.remove();
        }
    }
}

fn make_group(ground: &Ground, second: bool, journal: &mut Journal) -> Option<Group> {
    let mechanism = match ground.cgroups.available() {
        Ok(mechanism) => mechanism,
        Err(why) => {
            journal.note(Layer::Cgroup, Finding::impossible("cgroup", why));
            return None;
        }
    };
    // A supervisor that plants a second tree needs a second name: the first group may still be there.
    let id = u64::try_from(nix::unistd::getpid().as_raw()).unwrap_or_default() * 2 + u64::from(second);
    match ground.cgroups.create(id) {
        Ok(group) => Some(group),
        Err(error) => {
            journal.note(Layer::Cgroup, Finding::impossible(mechanism, error.to_string()));
            None
        }
    }
}

/// Forks init, as pid 1 of a new namespace if that is wanted and can be had.
fn fork_init(wants: &Wants, journal: &mut Journal) -> (nix::Result<ForkResult>, bool) {
    if wants.layer(Layer::PidNamespace) {
        match sys::process::fork_into_new_pid_namespace() {
            Ok(forked) => return (Ok(forked), true),
            Err(errno) => journal.note(Layer::PidNamespace, namespaces::refused(namespaces::PID, errno)),
        }
    }
    (sys::process::fork(), false)
}

/// Ends what is left of a tree without a process-id namespace. The caller is a subreaper, so whoever loses its
/// parent becomes its child, sooner or later everybody.
pub(crate) fn end_descendants(proc: BorrowedFd<'_>) {
    loop {
        for child in children(proc) {
            // ESRCH: gone since it was listed.
            let _already_gone = kill(child, Signal::SIGKILL);
        }
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Children of the calling process, by the procfs at `proc`.
fn children(proc: BorrowedFd<'_>) -> Vec<Pid> {
    let own = nix::unistd::getpid().as_raw();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(folder) = openat(proc, ".", flags, Mode::empty()) else { return Vec::new() };
    let Ok(mut folder) = nix::dir::Dir::from_fd(folder) else { return Vec::new() };
    let pids = folder.iter().filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(proc, *pid) == Some(own)).map(Pid::from_raw).collect()
}

fn parent_of(proc: BorrowedFd<'_>, pid: i32) -> Option<i32> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let stat = openat(proc, format!("{pid}/stat").as_str(), flags, Mode::empty()).ok()?;
    let text = std::io::read_to_string(std::fs::File::from(stat)).ok()?;
    // The name in parentheses may hold anything; what follows the last one is fixed: state, parent.
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Use of all children that have been waited for, and of theirs.
pub(crate) fn children_usage() -> TreeUsage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return TreeUsage::default() };
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    TreeUsage {
        user_us: positive(usage.user_time().num_microseconds()),
        system_us: positive(usage.system_time().num_microseconds()),
        peak_rss_bytes: positive(usage.max_rss()).saturating_mul(1024),
    }
}
