//! What the zygote prepares once, and every run stands on.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

use crate::error::StepError;
use crate::finding::Finding;
use crate::layers::cgroup::Cgroups;
use crate::layers::namespaces::{self, Identities};
use crate::layers::owner::Owner;
use crate::layers::root::{self, HostRoot};
use crate::layers::seccomp::{Closed, Filter};

/// The zygote's belongings. Every process of a run inherits them by fork.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The runner's /proc, which stays reachable where a run has another one or none.
    pub(crate) proc: OwnedFd,
    /// Who the payload will be.
    pub(crate) owner: Owner,
    /// What the host's root looked like.
    pub(crate) host_root: HostRoot,
    /// The minimal tree, or why there is none.
    pub(crate) tree: Result<(), Finding>,
    /// A mount namespace with the host's whole tree, for runs that ask for it.
    pub(crate) host_tree: Option<OwnedFd>,
    /// Namespaces that a run must not be in: the host's and the zygote's.
    pub(crate) outside: [Identities; 2],
    /// cgroup access.
    pub(crate) cgroups: Cgroups,
    /// The compiled system-call filters, in the order of [`Closed::ALL`].
    filters: Result<Vec<Filter>, Finding>,
    /// Where runs have their folders that cannot mount.
    pub(crate) runs: PathBuf,
    /// Whether `runs` is ours to remove.
    runs_on_host: bool,
}

/// What a runner in a container of its own knows of the folder that it shares with its caller.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Site<'a> {
    /// The folder; it may be written.
    pub(crate) folder: Option<&'a Path>,
    /// The folder of the root that it lies in: no run may see that one, whatever its policy.
    pub(crate) hidden: Option<&'a str>,
}

impl Ground {
    /// Prepares everything. What the host refuses is noted, not fatal: each run decides for itself. See
    /// [`Site`] for what it must know of its surroundings.
    pub(crate) fn prepare(site: Site<'_>) -> Result<Self, StepError> {
        require_single_thread()?;
        umask(Mode::from_bits_truncate(0o022));
        let proc = open_proc()?;
        let host = Identities::of_self(std::os::fd::AsFd::as_fd(&proc))?;
        let host_root = HostRoot::observe(site.hidden.map(str::to_owned))?;
        // Before the user namespace: the cgroup folders may belong to an id that it does not have.
        let cgroups = Cgroups::probe();
        let owner = Owner::enter()?;
        let (tree, host_tree) = match enter_tree() {
            Ok(host_tree) => (Ok(()), Some(host_tree)),
            Err(finding) => (Err(finding), None),
        };
        let runs_on_host = tree.is_err();
        let runs = if runs_on_host { make_runs(site.folder)? } else { "/runs".into() };
        let proc = open_proc()?;
        let zygote = Identities::of_self(std::os::fd::AsFd::as_fd(&proc))?;
        let filters = Closed::ALL.into_iter().map(Filter::compile).collect::<Result<_, _>>();
        let filters = filters
            .map_err(|error| Finding::impossible("seccomp", format!("cannot compile the filter: {error}")));
        Ok(Self {
            proc,
            owner,
            host_root,
            tree,
            host_tree,
            outside: [host, zygote],
            cgroups,
            filters,
            runs,
            runs_on_host,
        })
    }

    /// The system-call filter that closes what `closed` says.
    pub(crate) fn filter(&self, closed: Closed) -> Result<&Filter, Finding> {
        let place = Closed::ALL.iter().position(|other| *other == closed).unwrap_or_default();
        let filters = self.filters.as_ref().map_err(Clone::clone)?;
        filters.get(place).ok_or_else(|| Finding::impossible("seccomp", "there is no such filter"))
    }

    /// Removes what would be left on the host.
    pub(crate) fn clean_up(&self) {
        if self.runs_on_host {
            // Best effort on the way out; the folder is in the host's temporary folder.
            let _left = fs::remove_dir_all(&self.runs);
        }
    }
}

fn open_proc() -> Result<OwnedFd, StepError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open("/proc", flags, Mode::empty()).map_err(StepError::at("open /proc"))
}

/// Forking a process with several threads would leave their locks held for ever.
fn require_single_thread() -> Result<(), StepError> {
    let threads =
        fs::read_dir("/proc/self/task").map_err(StepError::io("count the runner's threads"))?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(StepError { step: "be the only thread of the runner", errno: Errno::EBUSY })
    }
}

/// Enters two mount namespaces: one that keeps the host's tree for runs that want it, then one with the
/// minimal tree. Returns the first.
fn enter_tree() -> Result<OwnedFd, Finding> {
    let refused = |errno| namespaces::refused(namespaces::MOUNT, errno);
    unshare(CloneFlags::CLONE_NEWNS).map_err(refused)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(refused)?;
    let host_tree =
        open("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(refused)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(refused)?;
    root::enter(root::Kind::Minimal, None)
        .map_err(|error| Finding::impossible("pivot_root:tmpfs", error.to_string()))?;
    Ok(host_tree)
}

/// A folder for runs in the host's temporary folder or, in an image that has none, in `spare`.
fn make_runs(spare: Option<&Path>) -> Result<PathBuf, StepError> {
    let temporary = std::env::temp_dir();
    let mut made = Err(Errno::ENOENT);
    for folder in [Some(temporary.as_path()), spare].into_iter().flatten() {
        made = made.or_else(|_| nix::unistd::mkdtemp(&folder.join("requiem-runs-XXXXXX")));
    }
    let made = made.map_err(StepError::at("make a folder for runs"))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(&made, mode).map_err(StepError::io("open the folder for runs"))?;
    fs::write(made.join("canary"), "only a sandbox without Landlock can read this\n")
        .map_err(StepError::io("write the canary"))?;
    Ok(made)
}
