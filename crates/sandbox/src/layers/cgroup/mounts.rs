//! Where the cgroup file systems are and where in them this process is: `/proc/self/mountinfo` and
//! `/proc/self/cgroup`, read as text so that every arrangement can be tested.

use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Controllers of version 1; empty for version 2.
    pub(super) controllers: Vec<String>,
    /// Which folder of the hierarchy is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

/// Every mounted hierarchy, in mount order.
pub(super) fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo.lines().filter_map(hierarchy).collect()
}

/// `36 35 0:30 ROOT POINT options... - TYPE source superoptions`
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
    let mut file_system = file_system.split(' ');
    let controllers = match file_system.next()? {
        "cgroup2" => Vec::new(),
        "cgroup" => file_system.nth(1)?.split(',').map(str::to_owned).collect(),
        _ => return None,
    };
    Some(Hierarchy { controllers, root: root.into(), point: point.into() })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// The path of this process in the hierarchy with `controller`, or in version 2 when there is none.
pub(super) fn own_path(cgroup: &str, controller: Option<&str>) -> Option<PathBuf> {
    cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let here = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|controller| controller == name),
        };
        here.then(|| path.into())
    })
}

impl Hierarchy {
    /// The folder of our own group if this mount shows it, else the root of the mount. Never the root instead of our
    /// own group: that would lead out of the limits that somebody set for us.
    pub(super) fn folder(&self, own: Option<&Path>) -> PathBuf {
        let below = own.and_then(|own| own.strip_prefix(&self.root).ok());
        below.map_or_else(|| self.point.clone(), |rest| self.point.join(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n\
                      31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n";
    const OWN: &str = "9:name=systemd:/\n4:memory:/agent/7027\n2:cpu,cpuacct:/\n0::/user.slice\n";

    #[test]
    fn mounts_are_read() {
        let found = hierarchies(V1);
        let controllers: Vec<_> = found.iter().map(|hierarchy| hierarchy.controllers.join("+")).collect();
        assert_eq!(controllers, ["rw+memory", "rw+cpu+cpuacct", ""]);
    }

    #[test]
    fn groups_go_below_our_own() {
        let memory = &hierarchies(V1)[0];
        let own = own_path(OWN, Some("memory"));
        assert_eq!(memory.folder(own.as_deref()), PathBuf::from("/sys/fs/cgroup/memory/agent/7027"));
    }

    #[test]
    fn groups_go_below_the_mount_where_it_does_not_show_our_own() {
        let line = "35 31 0:32 /kubepods/pod1/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let memory = &hierarchies(line)[0];
        let inside = PathBuf::from("/kubepods/pod1/c1/x");
        assert_eq!(memory.folder(Some(&inside)), PathBuf::from("/sys/fs/cgroup/memory/x"));
        let outside = PathBuf::from("/kubepods/pod2");
        assert_eq!(memory.folder(Some(&outside)), PathBuf::from("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn controllers_are_whole_names() {
        assert_eq!(own_path(OWN, Some("cpu")), Some("/".into()));
        assert_eq!(own_path(OWN, Some("cp")), None);
        assert_eq!(own_path(OWN, None), Some("/user.slice".into()));
    }

    #[test]
    fn escaped_names_are_read() {
        let line = r"35 31 0:32 / /mnt/a\040b\134 rw - cgroup cgroup rw,memory";
        assert_eq!(hierarchies(line)[0].point, PathBuf::from("/mnt/a b\\"));
    }
}
