//! The namespace of a caller that is not root, in which it may make detached mounts.

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::StepError;
use crate::spec::SandboxError;
use crate::sys;

/// `CAP_SYS_ADMIN`, the capability that mounts need.
const SYS_ADMIN: u64 = 1 << 21;

/// Gives the calling process the right to make detached mounts of inputs. Call it first in `main`, while the
/// process has a single thread. Whoever may mount already is left as it is; anybody else enters a user and a mount
/// namespace in which its ids stay what they are.
///
/// # Errors
/// This host allows no user namespaces. Runs are still possible, but inputs are copied, which the report says.
pub fn enter_trusted_namespace() -> Result<(), SandboxError> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno| SandboxError {
            hint: Some("allow user namespaces for this user (or AppArmor profile), or run as root"),
            ..SandboxError::at(step, errno)
        }
    };
    let sets = sys::capability::get().map_err(failed("read the own capabilities"))?;
    if sets.effective & SYS_ADMIN != 0 {
        return Ok(());
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(failed("enter a user namespace"))?;
    map(uid.as_raw(), gid.as_raw()).map_err(|error| failed(error.step)(error.errno))
}

fn map(uid: u32, gid: u32) -> Result<(), StepError> {
    std::fs::write("/proc/self/setgroups", "deny").map_err(StepError::io("deny setgroups"))?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))
        .map_err(StepError::io("map the own user id"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))
        .map_err(StepError::io("map the own group id"))
}
