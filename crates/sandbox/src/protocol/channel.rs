//! Frames over a stream socket: a header of two little-endian 32-bit numbers (bytes of body, number of
//! descriptors), the descriptors as control messages of the header and of filler bytes, then the body.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys;

/// Most descriptors that one message carries (`SCM_MAX_FD` is 253).
const DESCRIPTORS_PER_MESSAGE: usize = 200;
/// Most descriptors of one frame: every input and the three streams.
const MAX_DESCRIPTORS: usize = 512;
/// Longest body. A request has at most 128 KiB of text; JSON escapes at most sixfold.
const MAX_BODY: usize = 4 << 20;

/// Why a frame could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The other side has hung up.
    #[error("the other process has gone")]
    Closed,
    /// The socket failed.
    #[error("socket: {}", .0.desc())]
    Socket(#[source] Errno),
    /// The frame breaks the format.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// The body is not what was expected.
    #[error("unexpected message")]
    Body(#[source] serde_json::Error),
}

impl ChannelError {
    /// The nearest error number.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Closed => Errno::EPIPE,
            Self::Socket(errno) => *errno,
            Self::Malformed(_) | Self::Body(_) => Errno::EPROTO,
        }
    }
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPIPE | Errno::ECONNRESET => Self::Closed,
            other => Self::Socket(other),
        }
    }
}

/// One received frame.
#[derive(Debug)]
pub(crate) struct Frame {
    body: Vec<u8>,
    /// Descriptors that came with it; close-on-exec.
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Frame {
    /// The message.
    pub(crate) fn message<T: DeserializeOwned>(&self) -> Result<T, ChannelError> {
        serde_json::from_slice(&self.body).map_err(ChannelError::Body)
    }
}

/// One end of a pair of connected sockets.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two connected ends, close-on-exec.
    pub(crate) fn pair() -> nix::Result<(Self, Self)> {
        let (left, right) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { socket: left }, Self { socket: right }))
    }

    /// Sends one message and descriptors.
    pub(crate) fn send<T: Serialize>(
        &self,
        message: &T,
        with: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_raw(&serde_json::to_vec(message).map_err(ChannelError::Body)?, with)
    }

    /// Passes a frame on as it came.
    pub(crate) fn forward(&self, frame: &Frame) -> Result<(), ChannelError> {
        let borrowed: Vec<_> = frame.descriptors.iter().map(AsFd::as_fd).collect();
        self.send_raw(&frame.body, &borrowed)
    }

    /// Waits for one frame.
    pub(crate) fn receive(&self) -> Result<Frame, ChannelError> {
        let mut header = [0u8; 8];
        let mut descriptors = Vec::new();
        self.fill(&mut header, &mut descriptors)?;
        let [a, b, c, d, e, f, g, h] = header;
        let (length, count) =
            (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
        if length > MAX_BODY || count > MAX_DESCRIPTORS {
            return Err(ChannelError::Malformed("too large"));
        }
        for _ in 1..count.div_ceil(DESCRIPTORS_PER_MESSAGE) {
            self.fill(&mut [0u8; 1], &mut descriptors)?;
        }
        let mut body = vec![0u8; length];
        self.fill(&mut body, &mut descriptors)?;
        if descriptors.len() != count {
            return Err(ChannelError::Malformed("a descriptor is missing"));
        }
        Ok(Frame { body, descriptors })
    }

    fn send_raw(&self, body: &[u8], with: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if body.len() > MAX_BODY || with.len() > MAX_DESCRIPTORS {
            return Err(ChannelError::Malformed("too large"));
        }
        let number = |size: usize| u32::try_from(size).map(u32::to_le_bytes);
        let (Ok(length), Ok(count)) = (number(body.len()), number(with.len())) else {
            return Err(ChannelError::Malformed("too large"));
        };
        let numbers: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
        let mut groups = numbers.chunks(DESCRIPTORS_PER_MESSAGE);
        self.push(&[length, count].concat(), groups.next().unwrap_or_default())?;
        for group in groups {
            self.push(&[0], group)?;
        }
        self.push(body, &[])
    }

    /// Writes all of `bytes`; the descriptors travel with the first of them.
    fn push(&self, bytes: &[u8], with: &[RawFd]) -> Result<(), ChannelError> {
        let mut rest = bytes;
        let mut control = if with.is_empty() { vec![] } else { vec![ControlMessage::ScmRights(with)] };
        while !rest.is_empty() {
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(rest)], &control, flags, None) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    control.clear();
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Reads until `buffer` is full; descriptors that come along are appended.
    fn fill(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<(), ChannelError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.pull(&mut buffer[done..], descriptors) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(read) => done += read,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn pull(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> nix::Result<usize> {
        let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_PER_MESSAGE]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let (read, cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC));
        for item in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = item {
                descriptors.extend(sys::fd::received(numbers));
            }
        }
        // The kernel drops descriptors that do not fit, for example when this process has too many open.
        if cut { Err(Errno::EMFILE) } else { Ok(read) }
    }
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;

    #[test]
    fn a_frame_carries_more_descriptors_than_one_message_can() {
        let (left, right) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let many = vec![file.as_fd(); 259];
        let text = "é\"\\".repeat(40_000);
        let sender = std::thread::scope(|scope| {
            let sender = scope.spawn(|| left.send(&text, &many).map_err(|error| error.to_string()));
            let frame = right.receive().unwrap();
            assert_eq!(frame.message::<String>().unwrap(), text);
            assert_eq!(frame.descriptors.len(), 259);
            let inode = fstat(&file).unwrap().st_ino;
            assert!(frame.descriptors.iter().all(|fd| fstat(fd).unwrap().st_ino == inode));
            sender.join().unwrap()
        });
        sender.unwrap();
    }

    #[test]
    fn hanging_up_is_told_apart_from_nonsense() {
        let (left, right) = Channel::pair().unwrap();
        left.push(&u64::MAX.to_le_bytes(), &[]).unwrap();
        assert!(matches!(right.receive(), Err(ChannelError::Malformed(_))));
        drop(left);
        assert!(matches!(right.receive(), Err(ChannelError::Closed)));
    }
}
