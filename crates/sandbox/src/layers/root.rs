//! The root file system: a small tmpfs with read-only system folders in it, entered by `pivot_root`.
//!
//! The runner builds the minimal tree once and lives in it, so a run inherits a mount table of a dozen
//! entries. A run that switches the layer off gets the same frame with the whole host tree in it instead.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, stat};
use requiem_model::report::Evidence;

use crate::error::{StepError, errno_of};
use crate::finding::Finding;
use crate::sys::mount::{Attributes, attach, clone_tree, restrict};

/// What enforces the layer.
const MECHANISM: &str = "pivot_root:tmpfs";
/// System folders that are shown as they are, read-only; links stay links.
pub(crate) const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Parts of /etc that programs need to start; nothing that tells the host's users, keys or names.
const ETC: [&str; 4] = ["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"];
/// Devices without state or hardware behind them.
pub(crate) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Files of our own making.
const OWN_FILES: [(&str, &str); 7] = [
    ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\npayload:x:1000:1000::/workspace:/bin/sh\n"),
    ("etc/group", "root:x:0:\npayload:x:1000:\n"),
    ("etc/hosts", "127.0.0.1 localhost requiem\n::1 localhost requiem\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("etc/host.conf", "multi on\n"),
    (".requiem/canary", "only a sandbox without Landlock can read this\n"),
    (".requiem/input/canary", "only a sandbox with writable inputs can change this\n"),
];
/// Mount points, with their modes.
const FOLDERS: [(&str, u32); 9] = [
    ("etc", 0o755),
    ("dev", 0o755),
    ("proc", 0o555),
    ("workspace", 0o755),
    ("tmp", 0o755),
    ("scratch", 0o700),
    ("runs", 0o711),
    (".requiem", 0o755),
    (".requiem/input", 0o755),
];
const LINKS: [(&str, &str); 5] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    // Shared memory is scratch too, and counts as such.
    ("dev/shm", "/tmp"),
];

/// A file that the payload could read if Landlock were not there.
pub(crate) const LANDLOCK_CANARY: &str = "/.requiem/canary";
/// A folder that stands in for an input where a run has none.
pub(crate) const INPUT_CANARY: &str = "/.requiem/input";

/// How much of the host a tree shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// System folders, read-only.
    Minimal,
    /// Every folder of the host's root, as it is.
    Host,
}

/// What is known of the host's root, to prove later that it is gone.
#[derive(Debug, Clone)]
pub(crate) struct HostRoot {
    device_and_inode: (u64, u64),
    /// Folders of the host's root that no minimal tree has.
    foreign: Vec<PathBuf>,
    /// One of them that no tree has.
    hidden: Option<String>,
}

impl HostRoot {
    /// Looks at the root of the calling process, which is still the host's.
    pub(crate) fn observe(hidden: Option<String>) -> Result<Self, StepError> {
        let root = stat("/").map_err(StepError::at("stat /"))?;
        let ours = |name: &str| SYSTEM.contains(&name) || FOLDERS.iter().any(|(folder, _)| *folder == name);
        let foreign =
            names("/")?.into_iter().filter(|name| !ours(name)).map(|name| Path::new("/").join(name));
        Ok(Self { device_and_inode: (root.st_dev, root.st_ino), foreign: foreign.collect(), hidden })
    }

    /// Folders of the host's root that no minimal tree has and a run without one may read.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let hidden = self.hidden.as_ref().map(|name| Path::new("/").join(name));
        self.foreign.iter().filter(move |path| Some(*path) != hidden.as_ref()).cloned()
    }

    /// The folder of the root that no run may see.
    pub(crate) fn hidden(&self) -> Option<&str> {
        self.hidden.as_deref()
    }

    /// Proves from inside that the host's root cannot be reached and system folders refuse writes.
    pub(crate) fn prove_gone(&self) -> Finding {
        let short = |detail: String| Finding::short(MECHANISM, Evidence::Probe, detail);
        for place in ["/", "/.."] {
            match stat(place) {
                Ok(root) if (root.st_dev, root.st_ino) == self.device_and_inode => {
                    return short(format!("{place} is the host's root"));
                }
                Ok(_) => {}
                Err(errno) => return short(format!("cannot stat {place}: {}", errno.desc())),
            }
        }
        if let Some(seen) = self.foreign.iter().find(|path| stat(path.as_path()) != Err(Errno::ENOENT)) {
            return short(format!("{} of the host is there", seen.display()));
        }
        for name in SYSTEM {
            let path = format!("/{name}");
            if let Some(answer) = write_probe(&path).filter(|answer| *answer != Err(Errno::EROFS)) {
                return short(format!("a write to {path} ended with {answer:?} instead of EROFS"));
            }
        }
        Finding::probed(MECHANISM)
    }
}

/// Tries to set the mode that `path` has anyway: a write for the kernel, which checks a read-only mount
/// before it checks ownership, and no change should it succeed. `None` if there is no such path.
pub(crate) fn write_probe(path: &str) -> Option<nix::Result<()>> {
    let mode = match stat(path) {
        Ok(found) => Mode::from_bits_truncate(found.st_mode),
        Err(Errno::ENOENT) => return None,
        Err(errno) => return Some(Err(errno)),
    };
    Some(fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink))
}

/// Builds a tree of `kind` from the mounts that are visible now and makes it the root of the calling process,
/// whose mount namespace must be its own. `hidden` is a folder of the root that is left out.
pub(crate) fn enter(kind: Kind, hidden: Option<&str>) -> Result<(), StepError> {
    // First of all sources, then of the tree: it may come to lie over some of them.
    let parts = gather(kind, hidden)?;
    let stage = ["/tmp", "/mnt", "/dev"].into_iter().find(|path| Path::new(path).is_dir());
    let stage =
        stage.ok_or(StepError { step: "find a folder to build the root on", errno: Errno::ENOENT })?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), stage, Some("tmpfs"), flags, Some("mode=0755,size=1m,nr_inodes=1k"))
        .map_err(StepError::at("mount the root tmpfs"))?;
    furnish(Path::new(stage), parts)?;
    pivot(stage)?;
    let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(StepError::at("open /"))?;
    restrict(root.as_fd(), Attributes::READ_ONLY, false).map_err(StepError::at("make / read-only"))?;
    if kind == Kind::Minimal {
        mount(Some("tmpfs"), "/runs", Some("tmpfs"), flags, Some("mode=0711"))
            .map_err(StepError::at("mount /runs"))?;
    }
    Ok(())
}

/// One thing to be put into the tree, relative to its root.
enum Part {
    Mount(PathBuf, OwnedFd, bool),
    Link(PathBuf, PathBuf),
}

fn gather(kind: Kind, hidden: Option<&str>) -> Result<Vec<Part>, StepError> {
    let mut parts = Vec::new();
    match kind {
        Kind::Minimal => {
            for name in SYSTEM.into_iter().map(str::to_owned).chain(ETC.map(|name| format!("etc/{name}"))) {
                parts.extend(part(&name, Some(Attributes::READ_ONLY))?);
            }
            for name in DEVICES {
                parts.extend(part(&format!("dev/{name}"), Some(Attributes::DEVICE))?);
            }
            parts.extend(part("proc", None)?);
        }
        Kind::Host => {
            let own = |name: &str| ["workspace", "tmp", "scratch", "runs", ".requiem"].contains(&name);
            let shown = |name: &&String| !own(name) && Some(name.as_str()) != hidden;
            for name in names("/")?.iter().filter(shown) {
                parts.extend(part(name, None)?);
            }
        }
    }
    Ok(parts)
}

/// The thing that `/name` is now; nothing if it is not there.
fn part(name: &str, attributes: Option<Attributes>) -> Result<Option<Part>, StepError> {
    let path = Path::new("/").join(name);
    let Ok(found) = path.symlink_metadata() else { return Ok(None) };
    if found.is_symlink() {
        let target = fs::read_link(&path).map_err(StepError::io("read a link of /"))?;
        return Ok(Some(Part::Link(name.into(), target)));
    }
    let source = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| StepError { step: "name a folder of /", errno: Errno::EINVAL })?;
    let copy = clone_tree(AT_FDCWD, &source, true).map_err(StepError::at("copy a mount of /"))?;
    if let Some(attributes) = attributes {
        restrict(copy.as_fd(), attributes, true).map_err(StepError::at("make a system folder read-only"))?;
    }
    Ok(Some(Part::Mount(name.into(), copy, found.is_dir())))
}

fn furnish(root: &Path, parts: Vec<Part>) -> Result<(), StepError> {
    for (name, mode) in FOLDERS {
        fs::create_dir_all(root.join(name)).map_err(StepError::io("make a folder of the root"))?;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode))
            .map_err(StepError::io("set the mode of a folder of the root"))?;
    }
    let mut replaced = Vec::new();
    for part in parts {
        match part {
            Part::Link(name, target) => {
                symlink(target, root.join(&name)).map_err(StepError::io("make a link of the root"))?;
            }
            Part::Mount(name, source, directory) => {
                place(&root.join(&name), source.as_fd(), directory)
                    .map_err(StepError::at("mount a part of the root"))?;
                replaced.push(name);
            }
        }
    }
    let covered = |name: &str| replaced.iter().any(|mounted| Path::new(name).starts_with(mounted));
    for (name, text) in OWN_FILES.into_iter().filter(|(name, _)| !covered(name)) {
        fs::write(root.join(name), text).map_err(StepError::io("write a file of the root"))?;
    }
    for (name, target) in LINKS.into_iter().filter(|(name, _)| !covered(name)) {
        symlink(target, root.join(name)).map_err(StepError::io("make a link of the root"))?;
    }
    Ok(())
}

/// Attaches `source` at `target`, which is made if it is not there.
pub(crate) fn place(target: &Path, source: BorrowedFd<'_>, directory: bool) -> nix::Result<()> {
    let made = if directory {
        fs::create_dir_all(target)
    } else {
        target.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::File::create(target).map(drop))
    };
    made.map_err(|error| errno_of(&error))?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    attach(source, open(target, flags, Mode::empty())?.as_fd())
}

/// Makes the mount at `stage` the root and lets go of the old one.
fn pivot(stage: &str) -> Result<(), StepError> {
    nix::unistd::chdir(stage).map_err(StepError::at("enter the new root"))?;
    nix::unistd::pivot_root(".", ".").map_err(StepError::at("pivot_root"))?;
    // The old root now lies over the new one; this takes it away, and everything below it.
    umount2(".", MntFlags::MNT_DETACH).map_err(StepError::at("unmount the old root"))?;
    nix::unistd::chdir("/").map_err(StepError::at("enter /"))
}

/// Names in the folder `path`; those that are not UTF-8 cannot be mount points of ours and are left out.
fn names(path: &str) -> Result<Vec<String>, StepError> {
    let entries = fs::read_dir(path).map_err(StepError::io("list /"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}
