//! The store against the real kernel. Nothing is mocked: full disks are small file systems, failing syncs are
//! answers of a seccomp filter, crashes are killed processes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "the helpers of tests are tests too"
)]

mod common;

mod audit;
mod basics;
mod concurrent;
mod corrupt;
mod crash;
mod full;
mod gc;
mod hostile;
mod materialise;
mod pins;
mod syncs;
mod trees;
