//! Names of groups, and which of them belong to runners that are no more.
//!
//! `requiem-NAMESPACE-PID-START-ID`: the process-id namespace (its inode), the number and the start time (in clock
//! ticks since boot) of the runner that made the group, then the run. Number and start time together never come
//! again within a boot, and numbers of another namespace are not ours to judge.

use std::fs;
use std::os::unix::fs::MetadataExt;

const PREFIX: &str = "requiem-";

/// Who makes groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maker {
    namespace: u64,
    pid: u32,
    start: u64,
}

impl Maker {
    /// This process.
    pub(super) fn current() -> Option<Self> {
        Self::of_process(std::process::id())
    }

    /// A process of this process's namespace.
    pub(super) fn of_process(pid: u32) -> Option<Self> {
        let namespace = fs::metadata("/proc/self/ns/pid").ok()?.ino();
        Some(Self { namespace, pid, start: start_time(pid)? })
    }

    /// The name of its group for `run`.
    pub(super) fn group(&self, run: &str) -> String {
        format!("{PREFIX}{}-{}-{}-{run}", self.namespace, self.pid, self.start)
    }

    /// Who made the group `name`; `None` for a name that is not one of ours.
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(4, '-');
        let maker = Self {
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
        };
        parts.next().map(|_| maker)
    }

    /// Whether the group `name` was made by a runner of this namespace that has ended.
    pub(super) fn is_stale(&self, name: &str) -> bool {
        Self::parse(name).is_some_and(|maker| {
            maker.namespace == self.namespace && start_time(maker.pid) != Some(maker.start)
        })
    }
}

/// When a process started; `None` once it has ended. A zombie has ended, too.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything, spaces and brackets included; after its last bracket all is numbers.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_maker_keeps_its_groups() {
        let maker = Maker::current().unwrap();
        assert!(!maker.is_stale(&maker.group("7")));
    }

    #[test]
    fn another_start_time_means_another_process() {
        let maker = Maker::current().unwrap();
        let earlier = Maker { start: maker.start - 1, ..maker.clone() };
        assert!(maker.is_stale(&earlier.group("7")));
    }

    #[test]
    fn an_ended_process_has_no_start_time() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }

    #[test]
    fn names_of_others_are_left_alone() {
        let maker = Maker::current().unwrap();
        let foreign = Maker { namespace: maker.namespace + 1, start: 1, ..maker.clone() };
        for name in
            [foreign.group("7").as_str(), "requiem-self", "requiem-1-2-3", "system.slice", "requiem-1-2-x-4"]
        {
            assert!(!maker.is_stale(name), "{name}");
        }
    }
}
