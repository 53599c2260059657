//! Inputs as the caller hands them over: detached mounts that cannot be written through, one per input, made in
//! microseconds whatever the size of the tree. The runner never sees where they come from.
//!
//! A caller that may not make mounts hands over the file or folder itself to a runner of its own. To a runner in
//! another container it hands a copy in the folder that both share: from a descriptor of the store's own folder the
//! store could be walked, and the owner of a file may change it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Whence, lseek};

use crate::layers::inputs::copy;
use crate::protocol::HandedInput;
use crate::spec::{InputMount, RunError};
use crate::sys::mount::{Attributes, clone_tree, restrict};

/// Inputs on their way to the runner.
pub(super) struct Handed {
    pub(super) described: Vec<HandedInput>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// To be dropped when the run has ended.
    pub(super) copies: Option<Copies>,
}

/// A folder of copies; removed on drop.
pub(super) struct Copies(PathBuf);

/// Makes a detached read-only mount of each input, or a copy below `shared`.
pub(super) fn hand_over(inputs: &[InputMount], shared: Option<&Path>) -> Result<Handed, RunError> {
    let mut handed = Handed { described: Vec::new(), descriptors: Vec::new(), copies: None };
    for (place, input) in inputs.iter().enumerate() {
        let failed =
            |errno| RunError::at(format!("open input {} at {}", input.path, input.source.display()))(errno);
        let source = open(&input.source, PATH_ONLY, Mode::empty()).map_err(failed)?;
        let kind = kind(&fstat(&source).map_err(failed)?);
        if !matches!(kind, SFlag::S_IFDIR | SFlag::S_IFREG) {
            return Err(failed(Errno::EINVAL));
        }
        let (descriptor, plain) = match detach(&source) {
            Ok(mount) => (mount, None),
            Err(errno) => {
                let lent = handed.lend(source, shared, place).map_err(failed)?;
                (lent, Some(format!("the caller may not make mounts: {}", errno.desc())))
            }
        };
        let directory = kind == SFlag::S_IFDIR;
        handed.described.push(HandedInput { path: input.path.clone(), directory, plain });
        handed.descriptors.push(descriptor);
    }
    Ok(handed)
}

/// Standard input that is a file, through a mount that refuses every change of it: its owner could change its mode and
/// times even through a descriptor for reading, and a payload may have the owner's id. Without mounts a runner in
/// another container gets a copy.
pub(super) fn protect(stdin: OwnedFd, shared: Option<&Path>) -> Result<OwnedFd, RunError> {
    let failed = RunError::at("protect standard input");
    let found = match fstat(&stdin) {
        Ok(found) if kind(&found) == SFlag::S_IFREG => found,
        Ok(_) => return Ok(stdin),
        Err(errno) => return Err(failed(errno)),
    };
    let reopened = match (detach(&stdin), shared) {
        (Ok(mount), _) => reopen(&mount, &stdin),
        (Err(_), Some(shared)) => copy_of(&stdin, shared, found.st_size),
        (Err(_), None) => return Ok(stdin),
    };
    reopened.map_err(failed)
}

const PATH_ONLY: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}

fn detach(source: &OwnedFd) -> nix::Result<OwnedFd> {
    let mount = clone_tree(source.as_fd(), c"", false)?;
    restrict(mount.as_fd(), Attributes::READ_ONLY, false)?;
    Ok(mount)
}

/// The file behind `mount`, read from where `stdin` stands.
fn reopen(mount: &OwnedFd, stdin: &OwnedFd) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let file = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    lseek(&file, lseek(stdin, 0, Whence::SeekCur)?, Whence::SeekSet)?;
    Ok(file)
}

/// A copy without a name, in a folder that the runner may fill anyway.
fn copy_of(stdin: &OwnedFd, shared: &Path, size: i64) -> nix::Result<OwnedFd> {
    let copies = Copies::new(shared)?;
    let path = copies.0.join("stdin");
    let copied = (|| {
        let mut to = std::fs::File::create_new(&path)?;
        let mut from = std::fs::File::from(stdin.try_clone()?);
        std::io::copy(&mut std::io::Read::take(&mut from, size.unsigned_abs()), &mut to)?;
        std::fs::File::open(&path)
    })();
    copied.map(OwnedFd::from).map_err(|error| crate::error::errno_of(&error))
}

impl Handed {
    /// What a runner gets that cannot have a mount of `source`.
    fn lend(&mut self, source: OwnedFd, shared: Option<&Path>, place: usize) -> nix::Result<OwnedFd> {
        let Some(shared) = shared else { return Ok(source) };
        let copies = match self.copies.take() {
            Some(copies) => copies,
            None => Copies::new(shared)?,
        };
        let target = copies.0.join(place.to_string());
        // Kept in any case, so that a copy that failed is removed as well.
        self.copies = Some(copies);
        let proc = open("/proc", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        copy(source.as_fd(), &target, proc.as_fd())?;
        open(&target, PATH_ONLY, Mode::empty())
    }
}

impl Copies {
    fn new(shared: &Path) -> nix::Result<Self> {
        nix::unistd::mkdtemp(&shared.join("inputs-XXXXXX")).map(Self)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "copies of inputs stay");
        }
    }
}
