//! What comes from the system's package manager and not from a pinned module. Where this process may (root on Debian or Ubuntu) it
//! installs what is missing and says so; elsewhere it says in one sentence what to do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::capture;
use crate::progress::Step;
use crate::scratch::Scratch;
use crate::{Error, Result, paths, process, tools};

/// A program of the system, and the package that has it on Debian and Ubuntu.
type Wanted = (&'static str, &'static str);

/// What a node needs. kube-proxy works with iptables; the rest makes and enters namespaces.
const NODE: [Wanted; 5] = [
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Programs that a node needs.
///
/// # Errors
/// One is missing and cannot be installed.
pub fn node() -> Result<()> {
    let missing: Vec<Wanted> = NODE.into_iter().filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
    install(&format!("Missing for a node: {programs}"), &packages)
}

/// The headers that runc is built with.
///
/// # Errors
/// They are missing and cannot be installed.
pub fn seccomp_headers() -> Result<()> {
    let there =
        || capture(Command::new("pkg-config").args(["--exists", "libseccomp"])).is_ok_and(|said| said.ok);
    if there() {
        return Ok(());
    }
    install(
        "Missing to build runc: the headers of libseccomp, or pkg-config",
        &["libseccomp-dev", "pkg-config", "libc6-dev", "gcc"],
    )
}

/// Prometheus and its judge of rules.
#[derive(Debug, Clone)]
pub struct Prometheus {
    /// The server.
    pub server: PathBuf,
    /// What judges configuration and rules.
    pub promtool: PathBuf,
}

/// Prometheus. Where the system has none, the files of Debian's package are kept in the cache folder: installed, it would start a
/// service.
///
/// # Errors
/// There is none, and it cannot be fetched.
pub fn prometheus() -> Result<Prometheus> {
    if let (Some(server), Some(promtool)) = (find("prometheus"), find("promtool")) {
        return Ok(Prometheus { server, promtool });
    }
    let folder = tools::cache_folder()?.join("prometheus");
    if !folder.is_dir() {
        let what = "Missing for metrics and alerts: prometheus";
        tools::make_whole(&folder, |folder| unpack(what, "prometheus", folder))?;
    }
    let programs = folder.join("usr/bin");
    Ok(Prometheus { server: programs.join("prometheus"), promtool: programs.join("promtool") })
}

/// Fetches a package and puts its files into the folder `into`.
fn unpack(what: &str, package: &str, into: &Path) -> Result<()> {
    let command = format!("apt-get download {package}");
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        return Err(Error::prerequisite(what, format!("Install the package {package} of your system")));
    }
    let _turn = one_at_a_time();
    let step = Step::begin(format!("{what}: {command}"));
    let scratch = Scratch::new("package")?;
    if rustix::process::geteuid().is_root() {
        apt_get(scratch.path(), &["update"])?;
    }
    apt_get(scratch.path(), &["download", package])?;
    let archives = entries(scratch.path()).map_err(Error::io(format!("read what `{command}` left")))?;
    process::output(Command::new("dpkg-deb").arg("--extract").args(&archives).arg(into))?;
    step.done();
    Ok(())
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// Where a program is, also in the folders of the system's administration that a user's PATH may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = path_with_administration();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The PATH of this process, and the folders of the system's administration behind it.
pub fn path_with_administration() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn install(what: &str, packages: &[&str]) -> Result<()> {
    let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
        return Err(Error::prerequisite(what, format!("As root run `{command}`, or your system's like")));
    }
    let _turn = one_at_a_time();
    let step = Step::begin(format!("{what}: {command}"));
    let options = ["install", "--yes", "--no-install-recommends"];
    apt_get(&paths::repository(), &["update"])?;
    apt_get(&paths::repository(), &[&options, packages].concat())?;
    step.done();
    Ok(())
}

/// The package manager refuses a second caller instead of making it wait.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn apt_get(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.current_dir(folder).env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments);
    process::output(&mut command).map(drop)
}
