//! Layer `landlock`: which file hierarchies the payload may use, whatever the mount table says.
//!
//! Flow: [`Ruleset::compile`] opens the paths (before ids drop: afterwards some could not be opened) →
//! [`Ruleset::restrict`] in the payload, after the capability drop → [`Restricted::prove`] by trying to read a file
//! that file modes allow and no rule covers.
//!
//! The rights are those of ABI 7, pinned: a newer kernel does not change the policy, an older one enforces part of it
//! and the report says which part is missing. Scopes keep signals and abstract sockets inside the sandbox. Network
//! rights are not handled: the network namespace has nothing to connect to.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use requiem_model::report::Evidence;

use crate::finding::Finding;
use crate::sys::landlock as sys;

/// Whose rights are handled. Raise it together with [`missing`], after testing on such a kernel.
const PINNED: ABI = ABI::V7;
/// The same as a number.
const PINNED_NUMBER: i32 = 7;

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// List folders, nothing else. For the root folder of a minimal tree.
    List,
    /// Read, list and execute.
    Read,
    /// Everything.
    ReadWriteExec,
    /// Read, write and control a device.
    Device,
}

impl Rights {
    fn access(self) -> BitFlags<AccessFs> {
        match self {
            Self::List => AccessFs::ReadDir.into(),
            Self::Read => AccessFs::from_read(PINNED),
            // Device control is for Rights::Device.
            Self::ReadWriteExec => AccessFs::from_all(PINNED) & !BitFlags::from(AccessFs::IoctlDev),
            Self::Device => {
                AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev
            }
        }
    }
}

/// Rules with their paths open.
#[derive(Debug)]
pub(crate) struct Ruleset {
    rules: RulesetCreated,
    abi: i32,
}

/// A process that has restricted itself, and what it takes to show it.
#[derive(Debug)]
pub(crate) struct Restricted {
    abi: i32,
    fully: bool,
    canary: PathBuf,
    /// Whether the canary could be read before.
    armed: io::Result<()>,
}

impl Ruleset {
    /// Opens every path; one that does not exist is skipped, for it needs no rule.
    ///
    /// # Errors
    /// What the host lacks, as a finding.
    pub(crate) fn compile(rules: &[(&Path, Rights)]) -> Result<Self, Finding> {
        let abi = sys::abi().map_err(|errno| Finding::impossible("landlock", unavailable(errno)))?;
        let rules = build(rules).map_err(|error| Finding::impossible(mechanism(abi), causes(&error)))?;
        Ok(Self { rules, abi })
    }

    /// Restricts the calling thread and all it will start, for good. The canary is read first, by the same
    /// credentials, so that a later refusal can be put down to this layer. Sets `no_new_privs`.
    ///
    /// # Errors
    /// The kernel's refusal, as a finding.
    pub(crate) fn restrict(self, canary: &Path) -> Result<Restricted, Finding> {
        let armed = File::open(canary).map(drop);
        let abi = self.abi;
        match self.rules.restrict_self() {
            Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
                Err(Finding::impossible(mechanism(abi), "the kernel enforces none of the rules"))
            }
            Ok(status) => {
                let fully = status.ruleset == RulesetStatus::FullyEnforced;
                Ok(Restricted { abi, fully, canary: canary.to_owned(), armed })
            }
            Err(error) => Err(Finding::impossible(mechanism(abi), causes(&error))),
        }
    }
}

impl Restricted {
    /// Tries the canary again.
    pub(crate) fn prove(&self) -> Finding {
        let short = |evidence, detail: String| Finding::short(mechanism(self.abi), evidence, detail);
        if let Err(error) = &self.armed {
            let detail =
                format!("the canary file could not be read before either ({error}), so nothing is shown");
            return short(Evidence::SyscallReturn, detail);
        }
        match File::open(&self.canary) {
            Ok(_) => short(Evidence::Probe, "a file outside every rule could be read".to_owned()),
            Err(error) if error.raw_os_error() != Some(libc::EACCES) => short(
                Evidence::Probe,
                format!("a file outside every rule was refused for another reason: {error}"),
            ),
            Err(_) if !self.fully => {
                short(Evidence::Probe, format!("this kernel's Landlock does not cover {}", missing(self.abi)))
            }
            Err(_) => Finding::probed(mechanism(self.abi)),
        }
    }
}

/// All rights of the pinned version are handled; what the kernel does not know is dropped and shows in the status.
fn build(rules: &[(&Path, Rights)]) -> Result<RulesetCreated, RulesetError> {
    let mut created = landlock::Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(PINNED))?
        .scope(Scope::from_all(PINNED))?
        .create()?;
    for (path, rights) in rules {
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = applicable(&opened, *rights);
        created = created.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(created)
}

/// Rights about folder entries mean nothing for a file, and the kernel refuses them.
fn applicable(opened: &PathFd, rights: Rights) -> BitFlags<AccessFs> {
    let is_folder = fstat(opened)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR);
    if is_folder { rights.access() } else { rights.access() & AccessFs::from_file(PINNED) }
}

/// Names what is in force: never more than was asked for.
fn mechanism(abi: i32) -> String {
    format!("landlock:abi{}", abi.min(PINNED_NUMBER))
}

fn unavailable(errno: Errno) -> String {
    match errno {
        Errno::ENOSYS => "the kernel has no Landlock".to_owned(),
        Errno::EOPNOTSUPP => "Landlock is built in but switched off at boot (lsm=)".to_owned(),
        other => format!("Landlock does not answer: {}", other.desc()),
    }
}

/// What a kernel with this version leaves open of what is asked for.
fn missing(abi: i32) -> String {
    let since = [
        (2, "moving files between folders"),
        (3, "truncation"),
        (5, "device control"),
        (6, "signals and abstract sockets"),
    ];
    let names: Vec<_> = since.iter().filter(|(version, _)| abi < *version).map(|(_, name)| *name).collect();
    if names.is_empty() { "all that is asked for".to_owned() } else { names.join(", ") }
}

/// An error with all its causes, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
