//! `relay`: joins its standard streams to the local socket of the executor beside it. `kubectl exec`, or whoever speaks that protocol,
//! then speaks HTTP with the executor, and the right `pods/exec` is the right to read what it keeps.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use crate::args::RelayArgs;

/// Body of `requiem-executor relay`: 0 when the executor has closed the connection, 2 if there is none.
pub fn main(args: &RelayArgs) -> ExitCode {
    match relay(&args.socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let socket = args.socket.display();
            tracing_subscriber::fmt().with_writer(io::stderr).init();
            tracing::error!(%error, "no executor answers at {socket}");
            ExitCode::from(2)
        }
    }
}

fn relay(socket: &Path) -> io::Result<()> {
    let mut executor = UnixStream::connect(socket)?;
    let mut there = executor.try_clone()?;
    // As files: nothing may stay in a buffer while somebody waits for it.
    let (mut input, mut output) = (own(io::stdin().as_fd())?, own(io::stdout().as_fd())?);
    // This thread is not waited for: it may read for ever from somebody who says nothing.
    std::thread::spawn(move || {
        let sent = pump(&mut input, &mut there);
        sent.and_then(|_bytes| there.shutdown(Shutdown::Write))
    });
    match pump(&mut executor, &mut output) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.map(drop),
    }
}

/// Hands on what comes as soon as it comes. Not by splicing, as `io::copy` would do for these two: that waits for more.
fn pump(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    io::copy(from, to)
}

fn own(stream: BorrowedFd<'_>) -> io::Result<File> {
    stream.try_clone_to_owned().map(File::from)
}
