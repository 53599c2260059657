//! Layer `seccomp`: an allow-list of system calls, foreign ABIs closed.
//!
//! Flow: the profile (data, compiled in) → rules by number ([`policy`]) → a BPF search tree ([`emit`]), once, in the
//! zygote → [`Filter::install`] in the child, as the last layer before exec → [`prove`] from inside.
//!
//! Guarantees: i386 and x32 calls kill the process; a number without a rule answers ENOSYS, so calls that future
//! kernels add are closed; arguments are compared by the 32 bits the kernel reads. Assumptions: little-endian x86-64
//! or AArch64. Caveats: debuggers and the leak sanitizer need ptrace and do not work; getifaddrs needs netlink and
//! fails. Installing sets `no_new_privs`, without which the kernel takes no filter from an unprivileged process.

mod emit;
mod numbers;
mod policy;
mod profile;
#[cfg(test)]
mod tests;

use nix::errno::Errno;
use requiem_model::report::Evidence;
use seccompiler::BpfProgram;

use self::policy::{Action, Clause, Policy, Test};
use crate::finding::Finding;
use crate::sys::seccomp::{self as sys, Attempt};

/// Name in reports: what does it, and by which profile.
const MECHANISM: &str = "seccomp:default";
/// The profile every run gets.
const DEFAULT_PROFILE: &str = include_str!("../../../../config/profiles/seccomp/default.json");

/// Why there is no filter, or why it is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    /// The profile is not JSON of the right shape.
    #[error("seccomp profile cannot be read")]
    Syntax {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The profile is of another schema.
    #[error("seccomp profile has the unknown schema {found:?}")]
    Schema {
        /// What it says.
        found: String,
    },
    /// The profile names something nobody knows.
    #[error("seccomp profile names an unknown {kind}: {name:?}")]
    Name {
        /// What the name should stand for.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Two rules for one call.
    #[error("seccomp profile has two rules for {name}")]
    Twice {
        /// The call.
        name: String,
    },
    /// A condition that cannot be met.
    #[error("seccomp profile tests argument {arg} for {values}, which cannot match")]
    Test {
        /// The argument.
        arg: u8,
        /// The values.
        values: String,
    },
    /// More instructions than the kernel takes or a jump can span.
    #[error("seccomp filter is too long: {instructions} instructions")]
    TooLong {
        /// How many.
        instructions: usize,
    },
    /// Neither x86-64 nor AArch64.
    #[error("no seccomp profile for this processor architecture")]
    Architecture,
}

impl SeccompError {
    fn name(kind: &'static str, name: &str) -> Self {
        Self::Name { kind, name: name.to_owned() }
    }
}

/// Families of sockets that a payload must not open, because nothing else keeps it from what is behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Closed {
    /// Unix sockets: the payload sees files that are not its own, and some of them may be sockets.
    pub(crate) unix: bool,
    /// IP: the payload has the network of the host or the pod.
    pub(crate) inet: bool,
}

impl Closed {
    /// Every combination; their filters are compiled ahead.
    pub(crate) const ALL: [Self; 4] = [
        Self { unix: false, inet: false },
        Self { unix: true, inet: false },
        Self { unix: false, inet: true },
        Self { unix: true, inet: true },
    ];

    fn mechanism(self) -> String {
        let closed = [(self.unix, "unix"), (self.inet, "inet")];
        let closed: Vec<_> = closed.iter().filter(|(closed, _)| *closed).map(|(_, name)| *name).collect();
        if closed.is_empty() {
            MECHANISM.to_owned()
        } else {
            format!("{MECHANISM},closed:{}", closed.join("+"))
        }
    }

    fn families(self) -> Vec<u32> {
        let families = [(self.unix, libc::AF_UNIX), (self.inet, libc::AF_INET), (self.inet, libc::AF_INET6)];
        let closed = families.iter().filter(|(closed, _)| *closed);
        closed.filter_map(|(_, family)| u32::try_from(*family).ok()).collect()
    }
}

/// A compiled filter, ready to be installed any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    program: BpfProgram,
}

impl Filter {
    /// Compiles the default profile for this architecture, with the sockets of `closed` refused besides.
    ///
    /// # Errors
    /// The architecture has no profile. (That the profile itself is well-formed is tested.)
    pub(crate) fn compile(closed: Closed) -> Result<Self, SeccompError> {
        let mut policy = profile::Profile::parse(DEFAULT_PROFILE)?.resolve()?;
        close_sockets(&mut policy, closed);
        let program = emit::compile(&policy, emit::Arch::current()?)?;
        Ok(Self { program })
    }

    /// Puts the calling thread and all it will start under the filter, for good. Sets `no_new_privs`. Two system
    /// calls, no allocation.
    ///
    /// # Errors
    /// The kernel refuses (no seccomp, or an outer filter forbids it).
    pub(crate) fn install(&self) -> nix::Result<()> {
        seccompiler::apply_filter(&self.program).map_err(|error| match error {
            seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => {
                source.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
            }
            _ => Errno::EINVAL,
        })
    }
}

/// Puts the refusal of some families before every other rule for sockets. Pairs of Unix sockets stay: both ends are the
/// payload's.
fn close_sockets(policy: &mut Policy, closed: Closed) {
    let number = u32::try_from(libc::SYS_socket).ok().and_then(|number| policy.rules.get_mut(&number));
    let (families, Some(rule)) = (closed.families(), number) else { return };
    if !families.is_empty() {
        let refused = Action::Errno(u16::try_from(libc::EAFNOSUPPORT).unwrap_or_default());
        let test = Test { arg: 0, mask: u32::MAX, values: families };
        rule.clauses.insert(0, Clause { tests: vec![test], action: refused });
    }
}

/// Shows from inside that the default profile is in force: reads the mode back, then makes calls that an unfiltered
/// kernel would answer with another error than the profile does. None of them can have an effect either way.
pub(crate) fn prove(closed: Closed) -> Finding {
    let mechanism = closed.mechanism();
    let mode = sys::mode();
    if mode != 2 {
        return Finding::short(mechanism, Evidence::Readback, format!("the mode is {mode}, not 2 (filter)"));
    }
    let sockets = [(closed.unix, Attempt::UnixSocket), (closed.inet, Attempt::InetSocket)];
    let sockets =
        sockets.into_iter().filter(|(closed, _)| *closed).map(|(_, attempt)| (attempt, Errno::EAFNOSUPPORT));
    for (attempt, expected) in ANSWERS.into_iter().chain(sockets) {
        let seen = sys::attempt(attempt);
        if seen != expected {
            let detail = format!("{attempt:?} was answered {seen:?}, the profile says {expected:?}");
            return Finding::short(mechanism, Evidence::Probe, detail);
        }
    }
    Finding::probed(mechanism)
}

/// What the default profile answers; in brackets what the kernel says by itself.
const ANSWERS: [(Attempt, Errno); 9] = [
    (Attempt::Clone3, Errno::ENOSYS),            // [EINVAL]
    (Attempt::UnshareUser, Errno::EPERM),        // [EINVAL]
    (Attempt::VsockSocket, Errno::EAFNOSUPPORT), // [EINVAL]
    (Attempt::PushTerminalInput, Errno::EPERM),  // [EBADF]
    (Attempt::Keyring, Errno::ENOSYS),           // [EOPNOTSUPP]
    (Attempt::JoinNamespace, Errno::EPERM),      // [EBADF]
    (Attempt::ChangeMount, Errno::EPERM),        // [EINVAL]
    (Attempt::Trace, Errno::EPERM),              // [ESRCH]
    (Attempt::Ring, Errno::EPERM),               // [EFAULT, or EPERM where switched off]
];
