//! The only place of `unsafe`: thin wrappers, one system call per function, each with its argument.
#![allow(unsafe_code)]

pub(crate) mod capability;
pub(crate) mod fd;
pub(crate) mod landlock;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod seccomp;
