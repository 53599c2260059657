//! What must be there before anything starts. Each check is one clear sentence with its remedy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::capture;
use crate::{Error, Result, packages};

/// The Go tool chain, which builds etcd, kube-apiserver and kubectl.
///
/// # Errors
/// It is not on the PATH, or too old to fetch the version that the modules ask for.
pub fn go() -> Result<()> {
    let remedy = "Install Go 1.26 or newer from https://go.dev/dl and put its bin folder on the PATH";
    let Ok(said) = capture(Command::new("go").args(["env", "GOVERSION"])) else {
        return Err(Error::prerequisite("The Go tool chain is not on the PATH", remedy));
    };
    match go_minor(said.stdout.trim()) {
        // From 1.21 on, go fetches the tool chain that go.mod names by itself.
        Some(minor) if minor >= 21 => Ok(()),
        _ => Err(Error::prerequisite(format!("Go is too old ({})", said.stdout.trim()), remedy)),
    }
}

/// A C compiler: two crates hold C, and one sample compiles C inside the sandbox.
///
/// # Errors
/// There is no `cc` on the PATH.
pub fn c_compiler() -> Result<()> {
    if packages::find("cc").is_some() {
        return Ok(());
    }
    Err(Error::prerequisite(
        "There is no C compiler (cc) on the PATH",
        "Install one: `apt-get install gcc libc6-dev`, `dnf install gcc glibc-devel` or your system's like",
    ))
}

/// User namespaces and a cgroup of one's own, which the sandbox needs.
///
/// # Errors
/// The kernel or its settings refuse them.
pub fn sandbox() -> Result<()> {
    user_namespaces(Path::new("/proc/sys"), rustix::process::geteuid().is_root())?;
    probe_user_namespace()?;
    cgroup()
}

/// Root, and a kernel that gives out the namespaces of which a node is made. What else a node needs can be installed.
///
/// # Errors
/// This process is not root, or may not make them.
pub fn nodes() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::prerequisite(
            "A node needs root: it makes network namespaces, mounts and cgroups",
            "Run the command as root, or leave the nodes out",
        ));
    }
    packages::node()?;
    let said = capture(Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]))?;
    if said.ok {
        return Ok(());
    }
    Err(Error::prerequisite(
        format!("A node needs namespaces of its own, and none can be made ({})", said.stderr.trim()),
        "If this is a container, start it with CAP_SYS_ADMIN and CAP_NET_ADMIN, or run on the host",
    ))
}

fn user_namespaces(settings: &Path, root: bool) -> Result<()> {
    let value = |name: &str| fs::read_to_string(settings.join(name)).ok().map(|text| text.trim().to_owned());
    let refuse = |name: &str, good: &str, why: &str| {
        let key = name.replace('/', ".");
        Err(Error::prerequisite(
            format!("User namespaces cannot be created: {why} ({key})"),
            format!("As root run `sysctl -w {key}={good}`, or run this command as root"),
        ))
    };
    if value("user/max_user_namespaces").as_deref() == Some("0") {
        return refuse("user/max_user_namespaces", "10000", "none are allowed on this machine");
    }
    if root {
        return Ok(());
    }
    if value("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return refuse("kernel/unprivileged_userns_clone", "1", "the kernel keeps them for root");
    }
    if value("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return refuse("kernel/apparmor_restrict_unprivileged_userns", "0", "AppArmor keeps them for root");
    }
    Ok(())
}

/// Settings can be fine and the answer still no (a container's seccomp filter): ask the kernel itself.
fn probe_user_namespace() -> Result<()> {
    let Some(unshare) = packages::find("unshare") else { return Ok(()) };
    let said = capture(Command::new(unshare).args(["--user", "--mount", "true"]))?;
    if said.ok {
        return Ok(());
    }
    Err(Error::prerequisite(
        format!("User namespaces cannot be created ({})", said.stderr.trim()),
        "If this is a container, start it with a seccomp profile that allows unshare, or run on the host",
    ))
}

fn cgroup() -> Result<()> {
    let folders = own_cgroups(
        &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
        Path::new("/sys/fs/cgroup"),
    );
    let probe = format!("requiem-probe-{}", std::process::id());
    for folder in &folders {
        let path = folder.join(&probe);
        if fs::create_dir(&path).is_ok() {
            return fs::remove_dir(&path).map_err(Error::io(format!("remove {}", path.display())));
        }
    }
    Err(Error::prerequisite(
        "No cgroup can be created for the sandbox's memory and process limits",
        "Run as root, or with a delegated cgroup: `systemd-run --user --scope -p Delegate=yes -- cargo xtask …`",
    ))
}

/// The folders of the memory controller (version 1) and of the unified hierarchy that this process is in.
fn own_cgroups(text: &str, mount: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            folders.push(mount.join(path));
            folders.push(mount.join("unified").join(path));
        } else if controllers.split(',').any(|name| name == "memory") {
            folders.push(mount.join(controllers).join(path));
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

fn go_minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("go1.")?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_restriction_is_named_with_its_remedy() {
        let check = |name: &str, value: &str, root: bool| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, value).unwrap();
            user_namespaces(folder.path(), root).err().map(|error| error.to_string())
        };
        let apparmor = check("kernel/apparmor_restrict_unprivileged_userns", "1\n", false).unwrap();
        assert!(
            apparmor.contains("AppArmor")
                && apparmor.contains("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
        );
        assert!(
            check("kernel/unprivileged_userns_clone", "0\n", false)
                .unwrap()
                .contains("unprivileged_userns_clone=1")
        );
        assert!(
            check("user/max_user_namespaces", "0\n", true).unwrap().contains("max_user_namespaces=10000")
        );
        assert_eq!(check("kernel/apparmor_restrict_unprivileged_userns", "1\n", true), None);
        assert_eq!(check("user/max_user_namespaces", "31000\n", false), None);
    }

    #[test]
    fn the_own_cgroup_is_found_in_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let (v1, v2) = (folder.path().join("memory/a"), folder.path().join("b/c"));
        for path in [&v1, &v2] {
            fs::create_dir_all(path).unwrap();
        }
        assert_eq!(own_cgroups("3:cpu:/x\n2:memory:/a\n0::/b/c\n", folder.path()), [v1, v2]);
    }

    #[test]
    fn go_versions_are_read() {
        assert_eq!(go_minor("go1.26.8"), Some(26));
        assert_eq!(go_minor("go1.27rc1"), Some(27));
        assert_eq!(go_minor("devel"), None);
    }
}
