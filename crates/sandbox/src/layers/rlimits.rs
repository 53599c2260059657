//! Layer `rlimits`: POSIX resource limits, per process except where said.
//!
//! Limits are only ever lowered: where the process has less already, it keeps that. Soft and hard limits are equal
//! but for the stack, whose hard limit is higher because compilers raise it for themselves.
//!
//! NPROC counts every process of a user id *within its user namespace*. So it is set only where the run has a user
//! namespace of its own; elsewhere it would count strangers and fail forks at random.
//!
//! RLIMIT_AS is never set: runtimes reserve address space by the gigabyte without using it (Go, Java, Node). Where
//! no cgroup limits memory, RLIMIT_DATA does, per process; reservations without access do not count against it.

#[cfg(test)]
mod tests;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use requiem_model::policy::Limits;
use requiem_model::report::Evidence;

use crate::StepError;
use crate::finding::Finding;

const MECHANISM: &str = "rlimit";
const MIB: rlim_t = 1 << 20;

/// What the other layers of this run leave to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    /// The run has its own user namespace, so NPROC counts this run only.
    pub(crate) own_user_namespace: bool,
    /// A cgroup limits the memory of the tree.
    pub(crate) cgroup_limits_memory: bool,
}

/// One limit to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    resource: Resource,
    name: &'static str,
    soft: rlim_t,
    hard: rlim_t,
}

/// Lowers every limit of the calling process.
///
/// # Errors
/// The kernel refuses one.
pub(crate) fn apply(limits: &Limits, context: Context) -> Result<(), StepError> {
    for bound in bounds(limits, context) {
        let (_, hard_now) = getrlimit(bound.resource).map_err(StepError::at("read a resource limit"))?;
        let hard = bound.hard.min(hard_now);
        setrlimit(bound.resource, bound.soft.min(hard), hard)
            .map_err(StepError::at("set a resource limit"))?;
    }
    Ok(())
}

/// Reads every limit back.
pub(crate) fn prove(limits: &Limits, context: Context) -> Finding {
    for bound in bounds(limits, context) {
        match getrlimit(bound.resource) {
            Ok((soft, hard)) if soft <= bound.soft && hard <= bound.hard => {}
            Ok((soft, hard)) => {
                let detail = format!(
                    "{} is {soft} (hard {hard}), above {} (hard {})",
                    bound.name, bound.soft, bound.hard
                );
                return Finding::short(MECHANISM, Evidence::Readback, detail);
            }
            Err(errno) => {
                let detail = format!("{} cannot be read: {}", bound.name, errno.desc());
                return Finding::short(MECHANISM, Evidence::None, detail);
            }
        }
    }
    Finding::read_back(MECHANISM)
}

/// Every bound of a run.
fn bounds(limits: &Limits, context: Context) -> Vec<Bound> {
    let equal = |resource, name, value| Bound { resource, name, soft: value, hard: value };
    let mut bounds = vec![
        // A core file would be written by the host's handler, outside every other layer.
        equal(Resource::RLIMIT_CORE, "core", 0),
        equal(Resource::RLIMIT_NOFILE, "nofile", limits.open_files),
        equal(Resource::RLIMIT_FSIZE, "fsize", limits.scratch_bytes),
        equal(Resource::RLIMIT_MEMLOCK, "memlock", 8 * MIB),
        equal(Resource::RLIMIT_MSGQUEUE, "msgqueue", 800 * 1024),
        equal(Resource::RLIMIT_SIGPENDING, "sigpending", 4096),
        // No real-time scheduling and no negative nice values.
        equal(Resource::RLIMIT_RTPRIO, "rtprio", 0),
        equal(Resource::RLIMIT_NICE, "nice", 0),
        Bound { resource: Resource::RLIMIT_STACK, name: "stack", soft: 8 * MIB, hard: 64 * MIB },
    ];
    if context.own_user_namespace {
        bounds.push(equal(Resource::RLIMIT_NPROC, "nproc", limits.pids));
    }
    if !context.cgroup_limits_memory {
        bounds.push(equal(Resource::RLIMIT_DATA, "data", limits.memory_bytes));
    }
    bounds
}
