//! Limits that somebody outside has set for everything in this container: a pod's, where the runner may make no groups
//! of its own. They hold for all runs together, so the layer is not enforced by us but delegated.
//!
//! Flow: [`Outer::read`] in the zygote → [`Outer::finding`] with what else bounds the run → [`Outer::kills`] before and
//! after a run that was killed, to tell whether it was for want of memory.

use nix::errno::Errno;
use requiem_model::report::Evidence;

use super::dir::Dir;
use super::mounts::{self, Hierarchy};
use crate::finding::Finding;

/// Version 1 has no word for "no limit" but the highest number of whole pages.
const UNLIMITED: u64 = 1 << 62;

/// The container's own group.
#[derive(Debug)]
pub(super) struct Outer {
    memory: Option<(Dir, &'static Files)>,
    pids: Option<Dir>,
}

/// What the files of a version are called.
#[derive(Debug)]
struct Files {
    version: &'static str,
    limit: &'static str,
    events: &'static str,
}

const V1: Files = Files { version: "v1", limit: "memory.limit_in_bytes", events: "memory.oom_control" };
const V2: Files = Files { version: "v2", limit: "memory.max", events: "memory.events" };

impl Outer {
    /// Opens the group that this process is in, in whichever version its limits are.
    pub(super) fn read(hierarchies: &[Hierarchy], own: &str) -> Self {
        let open = |controller: Option<&str>| {
            let is_it = |one: &&Hierarchy| match controller {
                None => one.controllers.is_empty(),
                Some(name) => one.controllers.iter().any(|controller| controller == name),
            };
            let folder = hierarchies.iter().find(is_it)?.folder(mounts::own_path(own, controller).as_deref());
            Dir::open(&folder).ok()
        };
        let with = |dir: Option<Dir>, files: &'static Files| {
            dir.filter(|dir| dir.number(files.limit).is_ok()).map(|dir| (dir, files))
        };
        let pids = |dir: Option<Dir>| dir.filter(|dir| dir.number("pids.max").is_ok());
        Self {
            memory: with(open(Some("memory")), &V1).or_else(|| with(open(None), &V2)),
            pids: pids(open(Some("pids"))).or_else(|| pids(open(None))),
        }
    }

    /// What bounds a run that has no group of its own, because of `why`. `own_pids` says that the number of its
    /// processes is bounded by a resource limit that counts this run alone.
    pub(super) fn finding(&self, why: &str, own_pids: bool) -> Finding {
        let memory =
            self.memory.as_ref().and_then(|(dir, files)| Some((limit(dir, files.limit)?, files.version)));
        let pids = self.pids.as_ref().and_then(|dir| limit(dir, "pids.max"));
        verdict(memory, pids, own_pids, why)
    }

    /// How often the kernel has killed a process of this container for want of memory.
    pub(super) fn kills(&self) -> Option<u64> {
        let (dir, files) = self.memory.as_ref()?;
        dir.keyed(files.events, "oom_kill").ok()
    }
}

/// A limit that is one.
fn limit(dir: &Dir, file: &str) -> Option<u64> {
    let read: Result<u64, Errno> = dir.number(file);
    read.ok().filter(|limit| *limit < UNLIMITED)
}

fn verdict(memory: Option<(u64, &str)>, pids: Option<u64>, own_pids: bool, why: &str) -> Finding {
    let Some((bytes, version)) = memory else {
        let detail = format!("{why}; and the container around the runner has no memory limit either");
        return Finding::impossible("cgroup", detail);
    };
    let memory = format!(
        "memory of the whole container is limited to {bytes} bytes by the cgroup ({version}) that the node made for it"
    );
    let mechanism = format!("container:cgroup:{version}");
    match (pids, own_pids) {
        (Some(pids), _) => Finding::delegated(
            mechanism,
            format!("{memory}, its processes to {pids}; no group per run: {why}"),
        ),
        (None, true) => {
            let detail =
                format!("{memory}; processes are bounded per run by RLIMIT_NPROC; no group per run: {why}");
            Finding::delegated(format!("{mechanism}+rlimit:nproc"), detail)
        }
        (None, false) => {
            let detail = format!("{memory}; the number of processes is not limited; no group per run: {why}");
            Finding::short(mechanism, Evidence::AssertedByOuter, detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_on_both_are_a_delegation() {
        let some = Some((1 << 30, "v2"));
        let of = |memory, pids, own| verdict(memory, pids, own, "read-only");
        assert!(matches!(of(None, Some(100), true), Finding::Impossible { .. }));
        assert!(matches!(of(some, None, false), Finding::Short { .. }));
        for bounded in [of(some, Some(100), false), of(some, None, true)] {
            let Finding::Delegated { mechanism, detail } = bounded else { panic!("{bounded:?}") };
            assert!(
                mechanism.starts_with("container:cgroup:v2") && detail.contains("1073741824"),
                "{detail}"
            );
        }
    }

    #[test]
    fn this_process_s_group_is_found() {
        let read = |path| std::fs::read_to_string(path).unwrap();
        let hierarchies = mounts::hierarchies(&read("/proc/self/mountinfo"));
        let outer = Outer::read(&hierarchies, &read("/proc/self/cgroup"));
        assert!(outer.memory.is_some() && outer.kills().is_some(), "{outer:?}");
    }
}
