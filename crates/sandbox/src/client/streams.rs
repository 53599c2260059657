//! Output of a run: read as it comes, to the last byte, while the supervisor is listened to.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read};

use crate::protocol::{Channel, ChannelError, Frame, Order};
use crate::spec::{Cancel, RunError, StdStream};

/// One read; as much as a pipe holds.
const CHUNK: usize = 64 * 1024;
/// Rounds of reading before the supervisor and the caller's wish to cancel are looked at again.
const ROUNDS: usize = 16;

/// The reading ends.
pub(super) struct Pipes {
    open: Vec<(StdStream, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Pipes {
    /// Both pipes, with the writing ends of stdout and stderr.
    pub(super) fn new() -> Result<(Self, OwnedFd, OwnedFd), RunError> {
        let pipe = || {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            nix::Result::Ok((reader, writer))
        };
        let (out, stdout) = pipe().map_err(RunError::at("make the stdout pipe"))?;
        let (err, stderr) = pipe().map_err(RunError::at("make the stderr pipe"))?;
        let open = vec![(StdStream::Stdout, out), (StdStream::Stderr, err)];
        Ok((Self { open, buffer: vec![0; CHUNK] }, stdout, stderr))
    }

    /// Reads until the supervisor has had its last word and nothing is left in the pipes.
    pub(super) fn drain(
        mut self,
        run: &Channel,
        sink: &mut dyn FnMut(StdStream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Frame, RunError> {
        let mut cancelled = false;
        loop {
            let mut fds = vec![PollFd::new(run.as_fd(), PollFlags::POLLIN)];
            if !cancelled {
                fds.push(PollFd::new(cancel.as_fd(), PollFlags::POLLIN));
            }
            fds.extend(self.open.iter().map(|(_, pipe)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(RunError::at("wait for the run")(errno)),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            self.pump(sink, ROUNDS)?;
            if !cancelled && ready.get(1) == Some(&true) {
                cancelled = true;
                // The supervisor has gone, or ends the run.
                let _heard_below = run.send(&Order::Cancel, &[]);
            }
            if ready.first() == Some(&true) {
                let frame = run.receive().map_err(lost)?;
                // The tree is dead; what it wrote last is in the pipes.
                self.pump(sink, usize::MAX)?;
                return Ok(frame);
            }
        }
    }

    /// Reads what is there, one chunk at a time from each pipe in turn, so that neither starves the other. A stream
    /// that ends is closed.
    fn pump(&mut self, sink: &mut dyn FnMut(StdStream, &[u8]), rounds: usize) -> Result<(), RunError> {
        for _ in 0..rounds {
            let mut more = false;
            let mut ended = Vec::new();
            for (place, (stream, pipe)) in self.open.iter().enumerate() {
                match read(pipe, &mut self.buffer) {
                    Ok(0) => ended.push(place),
                    Ok(count) => {
                        more = true;
                        sink(*stream, &self.buffer[..count]);
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(errno) => return Err(RunError::at("read output")(errno)),
                }
            }
            for place in ended.into_iter().rev() {
                self.open.remove(place);
            }
            if !more {
                break;
            }
        }
        Ok(())
    }
}

fn lost(error: ChannelError) -> RunError {
    match error {
        ChannelError::Closed => RunError::RunnerLost,
        other => RunError::at("hear from the runner")(other.errno()),
    }
}
