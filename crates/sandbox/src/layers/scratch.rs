//! Scratch: one tmpfs with byte and inode caps, of which /workspace and /tmp are two folders.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use requiem_model::Limits;
use requiem_model::report::Evidence;

use crate::error::StepError;
use crate::finding::Finding;
use crate::layers::owner::Owner;
use crate::sys::mount::{attach, clone_tree};

/// What enforces the layer.
pub(crate) const MECHANISM: &str = "tmpfs";
/// Inodes of our own: the root of the file system and its two folders.
const OWN_INODES: u64 = 3;

/// The writable folders of one run.
#[derive(Debug)]
pub(crate) struct Place {
    /// Where the payload works.
    pub(crate) workspace: PathBuf,
    /// Where it may put other things.
    pub(crate) tmp: PathBuf,
    /// The workspace by another mount than the payload's: inputs that lie over it cannot be seen through
    /// this one, so what is collected does not depend on when the payload's mounts go away.
    pub(crate) handle: OwnedFd,
    /// A folder to be removed when the caller is done with the workspace.
    pub(crate) leftover: Option<PathBuf>,
}

impl Place {
    /// Mounts a tmpfs of the kernel's default size at /workspace and /tmp of a mount namespace of our own.
    pub(crate) fn mount(owner: &Owner) -> Result<Self, StepError> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), "/scratch", Some("tmpfs"), flags, Some("mode=0755"))
            .map_err(StepError::at("mount scratch"))?;
        furnish(Path::new("/scratch"), owner)?;
        let handle = open_folder(Path::new("/scratch/workspace"))?;
        for (source, target) in [(c"/scratch/workspace", "/workspace"), (c"/scratch/tmp", "/tmp")] {
            let copy =
                clone_tree(AT_FDCWD, source, false).map_err(StepError::at("copy the scratch mount"))?;
            let target = open(target, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(StepError::at("open a mount point of scratch"))?;
            attach(copy.as_fd(), target.as_fd()).map_err(StepError::at("attach scratch"))?;
        }
        umount2("/scratch", MntFlags::MNT_DETACH).map_err(StepError::at("detach scratch"))?;
        Ok(Self { workspace: "/workspace".into(), tmp: "/tmp".into(), handle, leftover: None })
    }

    /// Two folders below `runs`, for a run that cannot mount.
    pub(crate) fn folders(runs: &Path, name: &str, owner: &Owner) -> Result<Self, StepError> {
        let base = runs.join(name);
        fs::create_dir(&base).map_err(StepError::io("make the run's folder"))?;
        fs::set_permissions(&base, fs::Permissions::from_mode(0o700))
            .map_err(StepError::io("close the run's folder"))?;
        owner.give(&base).map_err(StepError::at("give the run's folder to the payload"))?;
        furnish(&base, owner)?;
        let (workspace, tmp) = (base.join("workspace"), base.join("tmp"));
        Ok(Self { handle: open_folder(&workspace)?, workspace, tmp, leftover: Some(base) })
    }

    /// Sets the caps of the run. `extra` inodes are for mount points of inputs.
    pub(crate) fn limit(&self, limits: &Limits, extra: u64) -> Result<(), StepError> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = format!("size={},nr_inodes={}", limits.scratch_bytes, inodes(limits, extra));
        mount(None::<&str>, self.tmp.as_path(), None::<&str>, flags, Some(options.as_str()))
            .map_err(StepError::at("limit scratch"))
    }

    /// Reads the caps back.
    pub(crate) fn prove(&self, limits: &Limits, extra: u64) -> Finding {
        let short = |detail: String| Finding::short(MECHANISM, Evidence::Readback, detail);
        for folder in [&self.workspace, &self.tmp] {
            let found = match statfs(folder.as_path()) {
                Ok(found) => found,
                Err(errno) => return short(format!("statfs {}: {}", folder.display(), errno.desc())),
            };
            if found.filesystem_type() != TMPFS_MAGIC {
                return short(format!("{} is not a tmpfs", folder.display()));
            }
            let page = u64::try_from(found.block_size()).unwrap_or(1).max(1);
            let (pages, files) = (limits.scratch_bytes.div_ceil(page), inodes(limits, extra));
            if (found.blocks(), found.files()) != (pages, files) {
                return short(format!(
                    "{} has {} pages and {} inodes instead of {pages} and {files}",
                    folder.display(),
                    found.blocks(),
                    found.files()
                ));
            }
        }
        Finding::read_back(MECHANISM)
    }
}

fn inodes(limits: &Limits, extra: u64) -> u64 {
    limits.scratch_inodes.saturating_add(OWN_INODES).saturating_add(extra)
}

fn furnish(base: &Path, owner: &Owner) -> Result<(), StepError> {
    for (name, mode) in [("workspace", 0o755), ("tmp", 0o1777)] {
        let path = base.join(name);
        fs::create_dir(&path).map_err(StepError::io("make a scratch folder"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(StepError::io("open a scratch folder"))?;
        owner.give(&path).map_err(StepError::at("give a scratch folder to the payload"))?;
    }
    Ok(())
}

fn open_folder(path: &Path) -> Result<OwnedFd, StepError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(StepError::at("open the workspace"))
}
