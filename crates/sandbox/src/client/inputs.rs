//! Inputs as the caller hands them over: detached mounts that cannot be written through, one per input, made in
//! microseconds whatever the size of the tree. The runner never sees where they come from.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::protocol::HandedInput;
use crate::spec::{InputMount, RunError};
use crate::sys::mount::{Attributes, clone_tree, restrict};

/// Inputs on their way to the runner.
pub(super) struct Handed {
    pub(super) described: Vec<HandedInput>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Makes a detached read-only mount of each input.
pub(super) fn hand_over(inputs: &[InputMount]) -> Result<Handed, RunError> {
    let mut handed = Handed { described: Vec::new(), descriptors: Vec::new() };
    for input in inputs {
        let failed =
            |errno| RunError::at(format!("open input {} at {}", input.path, input.source.display()))(errno);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let source = open(&input.source, flags, Mode::empty()).map_err(failed)?;
        let found = fstat(&source).map_err(failed)?;
        let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        if !matches!(kind, SFlag::S_IFDIR | SFlag::S_IFREG) {
            return Err(failed(Errno::EINVAL));
        }
        let (descriptor, plain) = match detach(&source) {
            Ok(mount) => (mount, None),
            Err(errno) => (source, Some(format!("the caller may not make mounts: {}", errno.desc()))),
        };
        handed.described.push(HandedInput {
            path: input.path.clone(),
            directory: kind == SFlag::S_IFDIR,
            plain,
        });
        handed.descriptors.push(descriptor);
    }
    Ok(handed)
}

fn detach(source: &OwnedFd) -> nix::Result<OwnedFd> {
    let mount = clone_tree(source.as_fd(), c"", false)?;
    restrict(mount.as_fd(), Attributes::READ_ONLY, false)?;
    Ok(mount)
}
