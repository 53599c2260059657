//! The cgroups of a node: one folder in every hierarchy of the machine, and everything that pods make below it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result, reaper};

/// How long killed processes may take to be gone.
const LEAVING: Duration = Duration::from_secs(20);

/// Makes the cgroup `name` in every hierarchy; from now on the reaper removes it.
///
/// # Errors
/// There is no hierarchy, or it cannot be written.
pub fn make(name: &str) -> Result<()> {
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        return Err(Error::prerequisite(
            "No cgroup hierarchy is mounted",
            "Mount one at /sys/fs/cgroup: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`",
        ));
    }
    for hierarchy in hierarchies {
        let folder = hierarchy.join(name);
        reaper::global()?.watch_cgroup(&folder)?;
        fs::create_dir_all(&folder).map_err(Error::io(format!("make the cgroup {}", folder.display())))?;
        inherit_cpuset(&hierarchy, &folder)?;
    }
    Ok(())
}

/// Lets the cgroup `name` stay when this process ends.
///
/// # Errors
/// The reaper cannot be told.
pub fn release(name: &str) -> Result<()> {
    hierarchies()?.iter().try_for_each(|hierarchy| reaper::global()?.forget_cgroup(&hierarchy.join(name)))
}

/// Removes the cgroup `name` from every hierarchy. Its processes must have been killed.
///
/// # Errors
/// A process is left in it.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(name);
        let deadline = Instant::now() + LEAVING;
        // A killed process leaves its cgroup some time after it was killed, and version 1 tells nobody when.
        while let Err(source) = remove_tree(&folder) {
            if source.kind() != ErrorKind::ResourceBusy || Instant::now() > deadline {
                return Err(Error::io(format!("remove the cgroup {}", folder.display()))(source));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        reaper::global()?.forget_cgroup(&folder)?;
    }
    Ok(())
}

/// A cpuset of version 1 begins empty, and a process cannot enter one that is.
fn inherit_cpuset(hierarchy: &Path, folder: &Path) -> Result<()> {
    for setting in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (hierarchy.join(setting), folder.join(setting));
        // In version 2 the root has no such file, and nothing needs to be copied.
        let Ok(value) = fs::read_to_string(from) else { continue };
        fs::write(&to, value).map_err(Error::io(format!("write {}", to.display())))?;
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> std::io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::io("read /proc/self/mounts"))?;
    Ok(cgroup_mounts(&mounts))
}

fn cgroup_mounts(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let cgroups = fields.filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))));
    cgroups.filter_map(|fields| Some(PathBuf::from(fields.get(1)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\n";
        let found = cgroup_mounts(mounts);
        assert_eq!(found, ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }
}
