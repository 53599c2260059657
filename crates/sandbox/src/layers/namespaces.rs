//! Namespaces: each is entered by its own call, so that a refusal belongs to one layer, and proven by its
//! inode, which must differ from the runner's and from the host's.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::stat::fstatat;
use requiem_model::Layer;

use crate::error::StepError;
use crate::finding::Finding;

/// One kind of namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The layer that it is.
    pub(crate) layer: Layer,
    /// Its flag of `unshare`.
    pub(crate) flag: CloneFlags,
    /// Its name below `/proc/self/ns`.
    file: &'static str,
}

impl Kind {
    /// By what the layer is enforced.
    pub(crate) fn mechanism(self) -> String {
        format!("namespace:{}", self.file)
    }
}

const fn kind(layer: Layer, flag: CloneFlags, file: &'static str) -> Kind {
    Kind { layer, flag, file }
}

/// Ids of the payload; the last one to be entered.
pub(crate) const USER: Kind = kind(Layer::UserNamespace, CloneFlags::CLONE_NEWUSER, "user");
/// Process ids; entered by the fork that makes init.
pub(crate) const PID: Kind = kind(Layer::PidNamespace, CloneFlags::CLONE_NEWPID, "pid");
/// Mounts.
pub(crate) const MOUNT: Kind = kind(Layer::MountNamespace, CloneFlags::CLONE_NEWNS, "mnt");
/// Network stack.
pub(crate) const NETWORK: Kind = kind(Layer::NetworkNamespace, CloneFlags::CLONE_NEWNET, "net");
/// System V IPC and message queues.
pub(crate) const IPC: Kind = kind(Layer::IpcNamespace, CloneFlags::CLONE_NEWIPC, "ipc");
/// Host name.
pub(crate) const UTS: Kind = kind(Layer::UtsNamespace, CloneFlags::CLONE_NEWUTS, "uts");
/// View of the cgroup tree; entered after the cgroup, whose place becomes its root.
pub(crate) const CGROUP: Kind = kind(Layer::CgroupNamespace, CloneFlags::CLONE_NEWCGROUP, "cgroup");

const ALL: [Kind; 7] = [USER, PID, MOUNT, NETWORK, IPC, UTS, CGROUP];

/// Device and inode of each namespace of one process, in the order of `ALL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identities([(u64, u64); ALL.len()]);

impl Identities {
    /// Those of the calling process, through the procfs at `proc`.
    pub(crate) fn of_self(proc: BorrowedFd<'_>) -> Result<Self, StepError> {
        let mut found = [(0, 0); ALL.len()];
        for (slot, kind) in found.iter_mut().zip(ALL) {
            let path = format!("self/ns/{}", kind.file);
            let stat = fstatat(proc, path.as_str(), nix::fcntl::AtFlags::empty())
                .map_err(StepError::at("read /proc/self/ns"))?;
            *slot = (stat.st_dev, stat.st_ino);
        }
        Ok(Self(found))
    }

    fn get(&self, kind: Kind) -> Option<(u64, u64)> {
        ALL.iter().position(|other| other.layer == kind.layer).map(|place| self.0[place])
    }
}

/// Enters a new namespace of `kind`.
pub(crate) fn enter(kind: Kind) -> Result<(), Finding> {
    nix::sched::unshare(kind.flag).map_err(|errno| refused(kind, errno))
}

/// The finding that the kernel refuses `kind`.
pub(crate) fn refused(kind: Kind, errno: Errno) -> Finding {
    Finding::impossible(kind.mechanism(), format!("unshare: {}{}", errno.desc(), hint(errno)))
}

/// Compares the namespace that the process is in with those it must not be in.
pub(crate) fn compare(kind: Kind, inside: &Identities, outside: &[Identities]) -> Finding {
    let own = inside.get(kind);
    if outside.iter().any(|other| other.get(kind) == own) {
        return Finding::impossible(
            kind.mechanism(),
            "the inode is that of the runner's or the host's namespace",
        );
    }
    Finding::read_back(kind.mechanism())
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC => " (a limit below /proc/sys/user is reached)",
        Errno::EPERM | Errno::EACCES => {
            " (forbidden for this user, or by seccomp or AppArmor around the runner)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_own_namespace_is_not_a_new_one() {
        let proc = std::fs::File::open("/proc").unwrap();
        let here = Identities::of_self(proc.as_fd()).unwrap();
        assert!(matches!(compare(NETWORK, &here, &[here]), Finding::Impossible { .. }));
        let mut other = here;
        other.0[3].1 += 1;
        assert!(matches!(compare(NETWORK, &here, &[other]), Finding::InForce { .. }));
        assert!(matches!(compare(IPC, &here, &[other]), Finding::Impossible { .. }));
    }
}
