//! The rules of a filter as values: what is decided for a call, before any BPF.

use std::collections::BTreeMap;

/// Answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Action {
    /// The kernel carries it out.
    Allow,
    /// The call returns this error and has no effect.
    Errno(u16),
    /// The process dies of SIGSYS.
    Kill,
}

impl Action {
    /// The filter's return value.
    pub(super) const fn to_bpf(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// `args[arg] & mask` is one of `values`; all of it on the low 32 bits, because the kernel reads these arguments as
/// 32-bit numbers and a caller may put anything above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    /// Which argument, 0 to 5.
    pub(super) arg: u8,
    /// Bits that matter.
    pub(super) mask: u32,
    /// What they may be; at least one value.
    pub(super) values: Vec<u32>,
}

/// If every test holds, then `action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// Conditions; at least one.
    pub(super) tests: Vec<Test>,
    /// What follows.
    pub(super) action: Action,
}

/// The answer for one system call: the first clause that holds, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// In order.
    pub(super) clauses: Vec<Clause>,
    /// When no clause holds.
    pub(super) otherwise: Action,
}

/// All rules, by number; numbers without a rule answer `unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// By system-call number.
    pub(super) rules: BTreeMap<u32, Rule>,
    /// For every other number.
    pub(super) unknown: Action,
}
