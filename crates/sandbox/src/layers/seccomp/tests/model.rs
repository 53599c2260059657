//! What a policy means, written as directly as possible.

use super::bpf::Call;
use crate::layers::seccomp::emit::Arch;
use crate::layers::seccomp::policy::{Action, Policy, Test};

/// The answer for `call` on a machine of kind `arch`.
pub(super) fn decide(policy: &Policy, arch: Arch, call: &Call) -> Action {
    if call.arch != arch.audit {
        return Action::Kill;
    }
    if arch.has_x32 && call.nr != u32::MAX && call.nr >= 0x4000_0000 {
        return Action::Kill;
    }
    let Some(rule) = policy.rules.get(&call.nr) else { return policy.unknown };
    let clause = rule.clauses.iter().find(|clause| clause.tests.iter().all(|test| holds(test, call)));
    clause.map_or(rule.otherwise, |clause| clause.action)
}

fn holds(test: &Test, call: &Call) -> bool {
    let low = u32::try_from(call.args[usize::from(test.arg)] & 0xffff_ffff).unwrap();
    test.values.contains(&(low & test.mask))
}
