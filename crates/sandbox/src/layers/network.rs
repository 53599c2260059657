//! The empty network: loopback is up, nothing else exists, nothing can be reached.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use nix::sys::stat::Mode;
use requiem_model::report::Evidence;

use crate::error::StepError;
use crate::finding::Finding;
use crate::layers::namespaces::NETWORK;
use crate::sys;

/// Brings loopback up in a fresh network namespace.
pub(crate) fn loopback_up() -> Result<(), StepError> {
    let any = datagram().map_err(StepError::at("open a socket"))?;
    sys::net::loopback_up(any.as_fd()).map_err(StepError::at("bring loopback up"))
}

/// Names of the interfaces of the calling process's network namespace.
pub(crate) fn interfaces(proc: BorrowedFd<'_>) -> Result<Vec<String>, StepError> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let table = openat(proc, "self/net/dev", flags, Mode::empty())
        .map_err(StepError::at("open /proc/self/net/dev"))?;
    let text =
        std::io::read_to_string(fs::File::from(table)).map_err(StepError::io("read /proc/self/net/dev"))?;
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    Ok(names.collect())
}

/// Proves from inside that no address outside can be reached.
pub(crate) fn prove(interfaces: &[String]) -> Finding {
    if interfaces != ["lo"] {
        let detail = format!("interfaces are {}", interfaces.join(", "));
        return Finding::short(NETWORK.mechanism(), Evidence::Readback, detail);
    }
    // TEST-NET-1: an address that a route would be taken for, and that nobody has.
    match datagram().and_then(|any| connect(any.as_raw_fd(), &SockaddrIn::new(192, 0, 2, 1, 9))) {
        Err(Errno::ENETUNREACH) => Finding::probed(NETWORK.mechanism()),
        // The system-call filter may refuse sockets altogether; then the interface list speaks.
        Err(Errno::EPERM | Errno::EACCES | Errno::EAFNOSUPPORT) => Finding::read_back(NETWORK.mechanism()),
        answer => Finding::short(
            NETWORK.mechanism(),
            Evidence::Probe,
            format!("connecting to 192.0.2.1 ended with {answer:?} instead of ENETUNREACH"),
        ),
    }
}

fn datagram() -> nix::Result<std::os::fd::OwnedFd> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}
