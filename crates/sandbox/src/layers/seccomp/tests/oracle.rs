//! The same rules compiled by seccompiler's own (linear) compiler. The conditional rules are written here a second
//! time, by hand and in its language, so that a slip in the profile or its translation shows.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::bpf::{self, Call};
use super::{Closed, Filter, argument_samples, default_policy, here, number};
use crate::layers::seccomp::policy::Action;

#[test]
fn another_compiler_allows_the_same_calls() {
    let theirs = theirs();
    let ours = Filter::compile(Closed::default()).unwrap().program;
    let policy = default_policy();
    let arguments = argument_samples();
    let mut allowed = 0;
    for nr in 0..1024 {
        // Where arguments do not matter, one set of them is enough for their long chain of comparisons.
        let conditional = policy.rules.get(&nr).is_some_and(|rule| !rule.clauses.is_empty());
        for args in if conditional { &arguments[..] } else { &arguments[..1] } {
            let call = Call { nr, arch: here().audit, args: *args };
            let is_allowed = bpf::run(&ours, &call).verdict == libc::SECCOMP_RET_ALLOW;
            assert_eq!(is_allowed, bpf::run(&theirs, &call).verdict == libc::SECCOMP_RET_ALLOW, "{call:x?}");
            allowed += usize::from(is_allowed);
        }
    }
    // Both halves of the question have been asked.
    assert!(allowed > 1000 && allowed < 6 * arguments.len(), "{allowed}");
}

fn theirs() -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = default_policy()
        .rules
        .into_iter()
        .filter(|(_, rule)| rule.clauses.is_empty() && rule.otherwise == Action::Allow)
        .map(|(nr, _)| (i64::from(nr), Vec::new()))
        .collect();
    for (name, rule) in conditional() {
        assert!(rules.insert(i64::from(number(name)), rule).is_none(), "{name}");
    }
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, arch).unwrap();
    filter.try_into().unwrap()
}

fn conditional() -> Vec<(&'static str, Vec<SeccompRule>)> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let inet = |family, kind, protocol| all(&[(0, Eq, family), (1, MaskedEq(0xf), kind), (2, Eq, protocol)]);
    let mut socket = vec![all(&[(0, Eq, 1)])];
    for family in [2, 10] {
        for kind in [1, 2] {
            socket.extend([0, 6, 17].map(|protocol| inet(family, kind, protocol)));
        }
    }
    vec![
        ("socket", socket),
        ("socketpair", vec![all(&[(0, Eq, 1)])]),
        ("clone", vec![all(&[(0, MaskedEq(0x7e02_0000), 0)])]),
        ("unshare", vec![all(&[(0, MaskedEq(0x7e02_0080), 0)])]),
        ("ioctl", vec![all(&[(1, Ne, 0x5412), (1, Ne, 0x541c), (1, Ne, 0x5423)])]),
        ("personality", vec![all(&[(0, Eq, 0xffff_ffff)]), all(&[(0, Eq, 0x4_0000)])]),
    ]
}

fn all(conditions: &[(u8, SeccompCmpOp, u64)]) -> SeccompRule {
    let conditions = conditions.iter().map(|(arg, op, value)| {
        SeccompCondition::new(*arg, SeccompCmpArgLen::Dword, op.clone(), *value).unwrap()
    });
    SeccompRule::new(conditions.collect()).unwrap()
}
