//! Descriptor hygiene: at exec there is 0, 1, 2 and nothing else.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::FdFlag;
use requiem_model::report::Evidence;

use crate::error::StepError;
use crate::finding::Finding;
use crate::sys;

const MECHANISM: &str = "close_range";
/// How far to look where there is no /proc to list.
const SEARCHED: RawFd = 4096;

/// Closes everything but 0, 1, 2 and `kept`, which is close-on-exec.
pub(crate) fn close_others(kept: BorrowedFd<'_>) -> Result<(), StepError> {
    let number = u32::try_from(kept.as_raw_fd())
        .map_err(|_| StepError { step: "number the channel", errno: Errno::EBADF })?;
    let close = |first, last| sys::fd::close_range(first, last).map_err(StepError::at("close descriptors"));
    if number > 3 {
        close(3, number - 1)?;
    }
    close(number.max(2) + 1, u32::MAX)
}

/// Lists what is open: besides 0, 1 and 2 only what exec closes, and that is at most one.
pub(crate) fn prove() -> Finding {
    let mut closing = 0;
    for number in open() {
        match flags(number) {
            Some(_) if number <= 2 => {}
            Some(flags) if flags.contains(FdFlag::FD_CLOEXEC) => closing += 1,
            Some(_) => {
                return Finding::short(
                    MECHANISM,
                    Evidence::Readback,
                    format!("descriptor {number} would survive exec"),
                );
            }
            None => {}
        }
    }
    if closing > 1 {
        return Finding::short(
            MECHANISM,
            Evidence::Readback,
            format!("{closing} descriptors of ours are open"),
        );
    }
    Finding::read_back(MECHANISM)
}

/// Numbers of open descriptors; the one that lists them is gone when they are looked at.
fn open() -> Vec<RawFd> {
    let listed = std::fs::read_dir("/proc/self/fd")
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect());
    listed.unwrap_or_else(|_| (0..SEARCHED).collect())
}

fn flags(number: RawFd) -> Option<FdFlag> {
    sys::fd::flags(number).ok().map(FdFlag::from_bits_truncate)
}
