//! What the filter decides, checked against a model of the policy, another compiler, and the kernel.

mod bpf;
mod container;
mod kernel;
mod model;
mod oracle;
mod programs;
mod properties;

use std::collections::BTreeSet;

use self::bpf::Call;
use super::emit::{self, Arch};
use super::policy::{Action, Policy};
use super::profile::Profile;
use super::*;

const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

fn default_policy() -> Policy {
    Profile::parse(DEFAULT_PROFILE).unwrap().resolve().unwrap()
}

fn number(name: &str) -> u32 {
    match numbers::table()[name] {
        numbers::Number::Is(number) => number,
        numbers::Number::NotHere => panic!("{name} does not exist here"),
    }
}

/// Arguments that hit and miss every test of the profile, with and without bits above the 32 that count.
fn argument_samples() -> Vec<[u64; 6]> {
    let words =
        [0, 1, 2, 3, 10, 16, 17, 38, 40, 0x80, 0x0004_0000, 0x1000_0000, 0x5412, 0x5413, 0x541c, 0xffff_ffff];
    let mut samples = Vec::new();
    for first in words {
        for second in [0, 1, 2, 3, 0x0008_0001, 0x5412, 0x541c, 0x5423, 0x5401] {
            for high in [0_u64, 1 << 32, 0xffff_ffff << 32] {
                samples.push([first | high, second | high, 6 | high, high, high, high]);
                samples.push([first | high, second | high, 262, 0, 0, 0]);
            }
        }
    }
    samples
}

/// Every number below 1024, plain and with the x32 bit, and the edges of the number space.
fn number_samples() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..1024).flat_map(|number| [number, number | 0x4000_0000]).collect();
    numbers.extend([
        0x3fff_ffff,
        0x4000_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        0xffff_ffff,
        0xbfff_ffff,
    ]);
    numbers
}

#[test]
fn every_number_of_every_abi_is_decided_as_the_policy_says() {
    let policy = default_policy();
    let arguments = argument_samples();
    for arch in [Arch::X86_64, Arch::AARCH64] {
        let program = emit::compile(&policy, arch).unwrap();
        // x86-64, i386, AArch64, 32-bit ARM, nothing known.
        for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0] {
            for nr in number_samples() {
                let conditional = policy.rules.get(&nr).is_some_and(|rule| !rule.clauses.is_empty());
                let arguments = if conditional { &arguments[..] } else { &arguments[..1] };
                for args in arguments {
                    let call = Call { nr, arch: audit, args: *args };
                    let expected = model::decide(&policy, arch, &call).to_bpf();
                    assert_eq!(bpf::run(&program, &call).verdict, expected, "{call:x?}");
                }
            }
        }
    }
}

#[test]
fn what_must_be_closed_is_closed() {
    let policy = default_policy();
    let program = Filter::compile(Closed::default()).unwrap().program;
    let decide = |nr, args| bpf::run(&program, &Call { nr, arch: here().audit, args }).verdict;
    let closed = [
        ("ptrace", EPERM),
        ("process_vm_readv", EPERM),
        ("process_vm_writev", EPERM),
        ("pidfd_getfd", EPERM),
        ("kcmp", EPERM),
        ("bpf", EPERM),
        ("perf_event_open", EPERM),
        ("userfaultfd", EPERM),
        ("io_uring_setup", EPERM),
        ("io_uring_enter", EPERM),
        ("io_uring_register", EPERM),
        ("mount", EPERM),
        ("umount2", EPERM),
        ("move_mount", EPERM),
        ("open_tree", EPERM),
        ("fsopen", EPERM),
        ("fsmount", EPERM),
        ("mount_setattr", EPERM),
        ("pivot_root", EPERM),
        ("chroot", EPERM),
        ("setns", EPERM),
        ("open_by_handle_at", EPERM),
        ("kexec_load", EPERM),
        ("init_module", EPERM),
        ("finit_module", EPERM),
        ("reboot", EPERM),
        ("swapon", EPERM),
        ("acct", EPERM),
        ("clone3", ENOSYS),
        ("keyctl", ENOSYS),
        ("add_key", ENOSYS),
        ("request_key", ENOSYS),
    ];
    for (name, action) in closed {
        let nr = number(name);
        for args in argument_samples() {
            assert_eq!(decide(nr, args), action.to_bpf(), "{name}");
        }
    }
    for flag in [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(decide(number("unshare"), [flag, 0, 0, 0, 0, 0]), EPERM.to_bpf(), "unshare {flag:x}");
        if flag != 0x80 {
            // Beside the flags of an ordinary fork.
            assert_eq!(
                decide(number("clone"), [flag | 0x0120_0011, 0, 0, 0, 0, 0]),
                EPERM.to_bpf(),
                "clone {flag:x}"
            );
        }
    }
    assert_eq!(policy.unknown, ENOSYS);
}

fn here() -> Arch {
    Arch::current().unwrap()
}

/// What makes installing cheap: the kernel runs the filter once for every number.
#[test]
fn a_decision_takes_few_steps() {
    let program = Filter::compile(Closed::default()).unwrap().program;
    let steps: Vec<usize> =
        (0..512).map(|nr| bpf::run(&program, &Call { nr, arch: here().audit, args: [0; 6] }).steps).collect();
    let mean = steps.iter().sum::<usize>() / steps.len();
    let longest = steps.iter().max().unwrap();
    assert!(mean <= 14 && *longest <= 30, "mean {mean}, longest {longest}, {} instructions", program.len());
}

#[test]
fn all_the_policy_is_in_the_profile_and_all_the_profile_is_in_the_policy() {
    let text: serde_json::Value = serde_json::from_str(DEFAULT_PROFILE).unwrap();
    let rules = text["rules"].as_array().unwrap();
    let named: Vec<&str> = rules
        .iter()
        .flat_map(|rule| rule["syscalls"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    let distinct: BTreeSet<_> = named.iter().collect();
    assert_eq!(distinct.len(), named.len(), "a name occurs twice");
    let table = numbers::table();
    let unused: Vec<_> = table.keys().filter(|name| !named.contains(name)).collect();
    assert!(unused.is_empty(), "numbers nobody uses: {unused:?}");
    let here = named.iter().filter(|name| table[**name] != numbers::Number::NotHere).count();
    assert_eq!(default_policy().rules.len(), here);
}

#[test]
fn a_broken_profile_is_refused_with_its_reason() {
    let with = |rule: &str| {
        let text =
            format!(r#"{{"schema":"requiem.seccomp-profile/1","name":"t","about":"t","rules":[{rule}]}}"#);
        Profile::parse(&text).and_then(|profile| profile.resolve()).unwrap_err().to_string()
    };
    let test = |test: &str| {
        with(&format!(
            r#"{{"why":"","syscalls":["read"],"when":[{{"if":[{test}],"then":"allow"}}],"action":"EPERM"}}"#
        ))
    };
    let cases = [
        (with(r#"{"why":"","syscalls":["raed"],"action":"allow"}"#), r#"unknown system call: "raed""#),
        (with(r#"{"why":"","syscalls":["read","read"],"action":"allow"}"#), "two rules for read"),
        (with(r#"{"why":"","syscalls":["read"],"action":"maybe"}"#), r#"unknown action: "maybe""#),
        (with(r#"{"syscalls":["read"],"action":"allow"}"#), "cannot be read"),
        (test(r#"{"arg":0,"in":["AF_TYPO"]}"#), r#"unknown constant: "AF_TYPO""#),
        (test(r#"{"arg":0,"in":["0xzz"]}"#), r#"unknown number: "0xzz""#),
        (test(r#"{"arg":6,"in":["0x1"]}"#), "tests argument 6"),
        (test(r#"{"arg":0,"in":[]}"#), "tests argument 0"),
        (test(r#"{"arg":0,"mask":["0xf"],"in":["0x10"]}"#), "cannot match"),
        (test(""), "clause without conditions"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
    let schema = DEFAULT_PROFILE.replace("seccomp-profile/1", "seccomp-profile/2");
    assert!(Profile::parse(&schema).unwrap_err().to_string().contains("seccomp-profile/2"));
}

#[test]
fn closed_families_are_refused_and_nothing_else_changes() {
    let arch = Arch::current().unwrap();
    let program = |closed| Filter::compile(closed).unwrap().program;
    let open = program(Closed::default());
    let programs = Closed::ALL.map(|closed| (closed, program(closed)));
    for (nr, args) in (0..512).flat_map(|nr| argument_samples().into_iter().map(move |args| (nr, args))) {
        let call = Call { nr, arch: arch.audit, args };
        let family = args[0] & 0xffff_ffff;
        let otherwise = bpf::run(&open, &call).verdict;
        for (closed, program) in &programs {
            let refused = nr == number("socket")
                && ((closed.unix && family == 1) || (closed.inet && [2, 10].contains(&family)));
            let expected = if refused { 0x0005_0000 | 97 } else { otherwise };
            assert_eq!(bpf::run(program, &call).verdict, expected, "{closed:?} {call:x?}");
        }
    }
}
