//! Inputs: detached read-only mounts that the caller made, attached below the workspace.
//!
//! The read-only flag alone could be taken off by whoever is root in the mount's namespace; the payload's
//! final user namespace locks it, and this is tried from inside with every capability of that namespace.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat, stat};
use nix::sys::statvfs::{FsFlags, statvfs};
use requiem_model::RelPath;
use requiem_model::report::Evidence;

use crate::error::{StepError, errno_of};
use crate::finding::Finding;
use crate::layers::owner::Owner;
use crate::layers::root::{INPUT_CANARY, place, write_probe};
use crate::protocol::HandedInput;
use crate::runner::Ground;
use crate::sys::mount::{Attributes, attach, clone_tree, make_writable, restrict};

/// What enforces the layer.
const MECHANISM: &str = "mount:ro,nosuid,nodev";
/// What stands in for it where nothing can be mounted.
const COPIES: &str = "copies";
/// Deepest tree that is copied; deeper ones need a mount.
const MAX_DEPTH: usize = 128;

/// The staged inputs of one run.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Paths that must refuse writes, as the payload sees them.
    guarded: Vec<PathBuf>,
    /// Why some input is not a read-only mount.
    short: Option<String>,
    /// Whether a canary stands in for inputs.
    canary: bool,
}

/// Mount points that `inputs` need: the inodes that the workspace must have beyond the payload's own.
pub(crate) fn mount_points(inputs: &[HandedInput]) -> u64 {
    inputs.iter().map(|input| input.path.as_str().split('/').count() as u64).sum()
}

/// Puts a read-only mount over the canary folder, before the request is known: a run without inputs proves
/// the layer on it.
pub(crate) fn stage_canary() -> Result<(), StepError> {
    let path = CString::new(INPUT_CANARY)
        .map_err(|_| StepError { step: "name the canary", errno: Errno::EINVAL })?;
    let copy = clone_tree(AT_FDCWD, &path, false).map_err(StepError::at("copy the canary's mount"))?;
    restrict(copy.as_fd(), Attributes::READ_ONLY, false)
        .map_err(StepError::at("make the canary read-only"))?;
    place(Path::new(INPUT_CANARY), copy.as_fd(), true).map_err(StepError::at("attach the canary"))
}

/// Attaches every input below `workspace`, or copies it there if `mounting` is off or the caller could not
/// make a mount.
pub(crate) fn stage(
    workspace: &Path,
    inputs: &[HandedInput],
    sources: &[OwnedFd],
    ground: &Ground,
    mounting: bool,
) -> Result<Staged, StepError> {
    let mut staged = Staged { canary: mounting && inputs.is_empty(), ..Staged::default() };
    if staged.canary {
        staged.guarded.push(INPUT_CANARY.into());
    }
    for (input, source) in inputs.iter().zip(sources) {
        let target = workspace.join(input.path.as_str());
        make_parents(workspace, &input.path, &ground.owner)?;
        match (&input.plain, mounting) {
            (None, true) => attach_one(&target, source.as_fd(), input.directory)?,
            (Some(why), true) => staged.copy(&target, source.as_fd(), ground, why)?,
            (_, false) => staged.copy(&target, source.as_fd(), ground, "the run has no mount namespace")?,
        }
        staged.guarded.push(target);
    }
    Ok(staged)
}

impl Staged {
    /// Tries to lift the read-only flag of every input. To be called with all capabilities of the final user
    /// namespace, before they are dropped; success of the attempt shows in [`Self::prove`].
    pub(crate) fn attack(&self) -> nix::Result<()> {
        for path in &self.guarded {
            let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
            match make_writable(&path) {
                Err(Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => {}
                Err(other) => return Err(other),
                Ok(()) => return Err(Errno::ESTALE),
            }
        }
        Ok(())
    }

    /// Proves from inside that every input refuses writes.
    pub(crate) fn prove(&self) -> Finding {
        if let Some(why) = &self.short {
            return Finding::short(
                COPIES,
                Evidence::None,
                format!("inputs are copies that can be changed: {why}"),
            );
        }
        for path in &self.guarded {
            if let Err(why) = refuses_writes(path) {
                return Finding::short(MECHANISM, Evidence::Probe, format!("{}: {why}", path.display()));
            }
        }
        match (self.guarded.is_empty(), self.canary) {
            (true, _) => {
                Finding::impossible(MECHANISM, "the run has no mount namespace, so nothing could be mounted")
            }
            (false, true) => Finding::probed(format!("{MECHANISM}(canary)")),
            (false, false) => Finding::probed(MECHANISM),
        }
    }

    /// Whether every input carries the one modification time that staged inputs have.
    pub(crate) fn times_are(&self, seconds: i64) -> bool {
        let of = |path: &PathBuf| stat(path.as_path()).map(|found| found.st_mtime);
        self.canary || self.guarded.iter().all(|path| of(path) == Ok(seconds))
    }

    fn copy(
        &mut self,
        target: &Path,
        source: BorrowedFd<'_>,
        ground: &Ground,
        why: &str,
    ) -> Result<(), StepError> {
        copy(source, target, ground.proc.as_fd()).map_err(StepError::at("copy an input"))?;
        self.short.get_or_insert_with(|| why.to_owned());
        Ok(())
    }
}

fn refuses_writes(path: &Path) -> Result<(), String> {
    let flags = statvfs(path).map_err(|errno| format!("statvfs: {}", errno.desc()))?.flags();
    let wanted = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID;
    if !flags.contains(wanted) {
        return Err(format!("mounted with {flags:?}"));
    }
    match write_probe(&path.to_string_lossy()) {
        Some(Err(Errno::EROFS)) => Ok(()),
        answer => Err(format!("a write ended with {answer:?} instead of EROFS")),
    }
}

fn attach_one(target: &Path, source: BorrowedFd<'_>, directory: bool) -> Result<(), StepError> {
    if directory {
        fs::create_dir(target).map_err(StepError::io("make the mount point of an input"))?;
    } else {
        fs::File::create(target).map(drop).map_err(StepError::io("make the mount point of an input"))?;
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let point = nix::fcntl::open(target, flags, Mode::empty())
        .map_err(StepError::at("open the mount point of an input"))?;
    attach(source, point.as_fd()).map_err(StepError::at("attach an input"))
}

/// Makes the folder `path` and those above it, unless an input already brings it.
pub(crate) fn make_folder(workspace: &Path, path: &RelPath, owner: &Owner) -> Result<(), StepError> {
    if workspace.join(path.as_str()).is_dir() {
        Ok(())
    } else {
        make_folders(workspace, path.as_str(), owner)
    }
}

fn make_parents(workspace: &Path, path: &RelPath, owner: &Owner) -> Result<(), StepError> {
    path.as_str().rsplit_once('/').map_or(Ok(()), |(above, _)| make_folders(workspace, above, owner))
}

/// Folders that are made are the payload's, like everything of the workspace.
fn make_folders(workspace: &Path, path: &str, owner: &Owner) -> Result<(), StepError> {
    let mut folder = workspace.to_owned();
    for component in path.split('/') {
        folder.push(component);
        match fs::create_dir(&folder) {
            Ok(()) => {
                owner.give(&folder).map_err(StepError::at("give a folder of the workspace to the payload"))?
            }
            Err(error) if errno_of(&error) == Errno::EEXIST => {}
            Err(error) => return Err(StepError::io("make a folder of the workspace")(error)),
        }
    }
    Ok(())
}

/// Copies the file, link or tree behind `source` to `target`. Links stay links; anything else is refused.
pub(crate) fn copy(source: BorrowedFd<'_>, target: &Path, proc: BorrowedFd<'_>) -> nix::Result<()> {
    let found = fstat(source)?;
    match kind(&found) {
        SFlag::S_IFREG => {
            // The descriptor may only name the file; the runner's /proc makes a readable one of it.
            let again = format!("self/fd/{}", source.as_raw_fd());
            let from = openat(proc, again.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            copy_file(from, target, &found)
        }
        SFlag::S_IFDIR => copy_folder(source, target, 0),
        _ => Err(Errno::EINVAL),
    }
}

fn copy_folder(source: BorrowedFd<'_>, target: &Path, depth: usize) -> nix::Result<()> {
    mkdirat(AT_FDCWD, target, Mode::from_bits_truncate(0o755))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut folder = Dir::from_fd(openat(source, ".", flags, Mode::empty())?)?;
    let names: Vec<CString> =
        folder.iter().filter_map(|entry| Some(entry.ok()?.file_name().to_owned())).collect();
    for name in names.iter().filter(|name| !matches!(name.as_bytes(), b"." | b"..")) {
        let text: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name.as_bytes());
        let found = fstatat(source, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let below = target.join(text);
        match kind(&found) {
            SFlag::S_IFLNK => {
                let link = readlinkat(source, name.as_c_str())?;
                std::os::unix::fs::symlink(link, &below).map_err(|error| errno_of(&error))?;
            }
            SFlag::S_IFREG => {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let from = openat(source, name.as_c_str(), flags, Mode::empty())?;
                copy_file(from, &below, &found)?;
            }
            SFlag::S_IFDIR if depth < MAX_DEPTH => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let from = openat(source, name.as_c_str(), flags, Mode::empty())?;
                copy_folder(from.as_fd(), &below, depth + 1)?;
            }
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(())
}

fn copy_file(from: OwnedFd, target: &Path, found: &FileStat) -> nix::Result<()> {
    let copied = (|| {
        let mut to = fs::File::create_new(target)?;
        std::io::copy(&mut fs::File::from(from), &mut to)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(found.st_mode & 0o555);
        to.set_permissions(mode)?;
        let seconds = std::time::Duration::from_secs(found.st_mtime.unsigned_abs());
        to.set_modified(std::time::UNIX_EPOCH + seconds)
    })();
    copied.map_err(|error: std::io::Error| errno_of(&error))
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}
