//! What can go wrong, by step.

use nix::errno::Errno;

/// A system call failed at a named step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {}", errno.desc())]
pub struct StepError {
    /// What was being done, in the words of a sentence: `open cgroup.procs`.
    pub step: &'static str,
    /// The kernel's answer.
    #[source]
    pub errno: Errno,
}

impl StepError {
    /// Turns the error number of `step` into an error: `.map_err(StepError::at("mount /proc"))`.
    pub fn at(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { step, errno }
    }

    /// The same for an error of the standard library.
    pub(crate) fn io(step: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self { step, errno: errno_of(&error) }
    }
}

/// The number behind an error of the standard library.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
