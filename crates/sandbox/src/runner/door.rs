//! How a runner in a container of its own finds its caller: a Unix socket in a folder that both containers share.
//!
//! The caller listens only while it has no runner, so the socket comes and goes. The runner waits for it by inotify.
//! The folder is held open from the start: a runner that has entered its minimal tree cannot see it any more.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::Mode;

use crate::error::StepError;
use crate::protocol::Channel;

/// How long to wait at most before the socket is tried again: some shared file systems tell nobody of new files.
const LOOK_AGAIN: u16 = 1000;

/// The place where the caller listens, and the wish to end.
#[derive(Debug)]
pub(crate) struct Door {
    folder: OwnedFd,
    name: OsString,
    changes: Inotify,
    /// Readable once SIGTERM has come.
    pub(crate) stop: SignalFd,
    /// The folder of the root below which the socket lies.
    pub(crate) top: Option<String>,
}

impl Door {
    /// Opens the folder of `socket`, which need not be there yet. From here on SIGTERM ends nothing by itself.
    pub(crate) fn open(path: &Path) -> Result<Self, StepError> {
        let no_path = StepError { step: "take the socket's path apart", errno: Errno::EINVAL };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(no_path) };
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(StepError::at("watch the socket's folder"))?;
        changes
            .add_watch(folder, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE)
            .map_err(StepError::at("watch the socket's folder"))?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(folder, flags, Mode::empty()).map_err(StepError::at("open the socket's folder"))?;
        let top = path.components().find_map(|part| match part {
            Component::Normal(name) => name.to_str().map(str::to_owned),
            _ => None,
        });
        Ok(Self { folder, name: name.to_owned(), changes, stop: watch_stop()?, top })
    }

    /// Waits until somebody listens; `None` when the runner is told to end first.
    pub(crate) fn knock(&self) -> Result<Option<Channel>, StepError> {
        loop {
            // Before the attempt: what comes later wakes the wait below.
            self.forget_changes()?;
            match self.connect() {
                Ok(channel) => return Ok(Some(channel)),
                Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(StepError { step: "connect to the executor", errno }),
            }
            let mut fds = [
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::from(LOOK_AGAIN)) {
                Ok(_) if fds[0].any().unwrap_or(false) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(StepError { step: "wait for the executor", errno }),
            }
        }
    }

    /// Descriptors that the processes of a run must not have.
    pub(crate) fn descriptors(&self) -> [i32; 3] {
        [self.folder.as_raw_fd(), self.changes.as_fd().as_raw_fd(), self.stop.as_fd().as_raw_fd()]
    }

    fn connect(&self) -> nix::Result<Channel> {
        let end = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let path = Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name);
        connect(end.as_raw_fd(), &UnixAddr::new(&path)?)?;
        Ok(end.into())
    }

    fn forget_changes(&self) -> Result<(), StepError> {
        match self.changes.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(StepError { step: "watch the socket's folder", errno }),
        }
    }
}

fn watch_stop() -> Result<SignalFd, StepError> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block().map_err(StepError::at("block SIGTERM"))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&mask, flags).map_err(StepError::at("watch SIGTERM"))
}
