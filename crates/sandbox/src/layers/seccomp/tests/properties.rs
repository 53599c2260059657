//! The compiler against the model, for policies nobody wrote; and the 32 bits that count.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use seccompiler::BpfProgram;

use super::bpf::{self, Call};
use super::{Closed, Filter, here, model};
use crate::layers::seccomp::emit::{self, Arch};
use crate::layers::seccomp::policy::{Action, Clause, Policy, Rule, Test};

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Allow), (1_u16..4096).prop_map(Action::Errno), Just(Action::Kill)]
}

/// Few distinct values, so that tests hold about as often as they fail.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0_u32), Just(1), Just(2), Just(3), Just(u32::MAX), any::<u32>()]
}

fn test() -> impl Strategy<Value = Test> {
    let mask = prop_oneof![Just(u32::MAX), Just(3_u32), any::<u32>()];
    (0_u8..6, mask, prop::collection::vec(word(), 1..5)).prop_map(|(arg, mask, values)| Test {
        arg,
        mask,
        values: values.into_iter().map(|value| value & mask).collect(),
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let clause =
        (prop::collection::vec(test(), 1..4), action()).prop_map(|(tests, action)| Clause { tests, action });
    let clauses = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(clause, 1..4)];
    (clauses, action()).prop_map(|(clauses, otherwise)| Rule { clauses, otherwise })
}

fn policy() -> impl Strategy<Value = Policy> {
    (prop::collection::btree_map(0_u32..300, rule(), 0..120), action())
        .prop_map(|(rules, unknown): (BTreeMap<_, _>, _)| Policy { rules, unknown })
}

fn args() -> impl Strategy<Value = [u64; 6]> {
    let arg = (word(), prop_oneof![Just(0_u64), any::<u64>()])
        .prop_map(|(low, high)| u64::from(low) | (high & 0xffff_ffff_0000_0000));
    prop::array::uniform6(arg)
}

static DEFAULT: LazyLock<BpfProgram> = LazyLock::new(|| Filter::compile(Closed::default()).unwrap().program);

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_policies_decide_as_the_model(policy in policy(), samples in prop::collection::vec(args(), 2)) {
        for arch in [Arch::X86_64, Arch::AARCH64] {
            let program = emit::compile(&policy, arch).unwrap();
            for nr in (0..310).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX - 1, u32::MAX]) {
                for args in &samples {
                    let call = Call { nr, arch: arch.audit, args: *args };
                    let expected = model::decide(&policy, arch, &call).to_bpf();
                    prop_assert_eq!(bpf::run(&program, &call).verdict, expected, "{:x?}", call);
                }
            }
        }
    }

    #[test]
    fn bits_above_the_32_that_count_change_nothing(nr in 0_u32..512, args in args(), high in any::<[u32; 6]>()) {
        let program = &*DEFAULT;
        let mut other = args;
        for (arg, high) in other.iter_mut().zip(high) {
            *arg = (*arg & 0xffff_ffff) | (u64::from(high) << 32);
        }
        let verdict = |args| bpf::run(program, &Call { nr, arch: here().audit, args }).verdict;
        prop_assert_eq!(verdict(args), verdict(other));
    }
}
