//! The profile of the container around the runner (`config/profiles/seccomp/runner.json`): it allows what the payload
//! may call and what the sandbox is built with, and each of the latter is needed.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use requiem_model::report::Status;
use requiem_model::{Layer, Requirement, SandboxPolicy};
use serde::Deserialize;

use super::bpf::{self, Call};
use super::{Action, Arch, Filter, argument_samples, default_policy, emit, here, number, numbers};
use crate::layers::seccomp::policy::{Clause, Policy, Rule, Test};
use crate::{Cancel, RunError, RunSpec, Runner, RunnerConfig};

const PROFILE: &str = include_str!("../../../../../../config/profiles/seccomp/runner.json");
/// Calls that build a sandbox and that no payload may make.
const BUILDING: [&str; 10] = [
    "clone",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "sethostname",
    "setns",
    "umount2",
    "unshare",
];
/// Calls of which the container lets more arguments through than the payload's filter does; that one is asked, too.
const WIDER: [&str; 2] = ["ioctl", "socket"];
/// Tells the child to put itself under the profile; the value is a call to leave out, or nothing.
const CHILD: &str = "REQUIEM_TEST_CONTAINER_CHILD";
const CHILD_TEST: &str = "layers::seccomp::tests::container::becomes_a_runner_when_told_to";

/// The part of the container runtimes' format that the profile uses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    comment: String,
    default_action: String,
    default_errno_ret: u16,
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    comment: String,
    names: Vec<String>,
    action: String,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u32,
    op: String,
}

/// The profile without `left_out`, as a policy of ours.
fn container(left_out: &str) -> Policy {
    let document: Document = serde_json::from_str(PROFILE).unwrap();
    assert!(!document.comment.is_empty() && document.default_action == "SCMP_ACT_ERRNO");
    let unknown = Action::Errno(document.default_errno_ret);
    let mut rules: BTreeMap<u32, Rule> = BTreeMap::new();
    let known = numbers::table();
    for entry in document.syscalls {
        assert!(!entry.comment.is_empty() && entry.action == "SCMP_ACT_ALLOW");
        for name in entry.names.iter().filter(|name| *name != left_out) {
            let numbers::Number::Is(number) = known[name.as_str()] else { continue };
            let empty = Rule { clauses: vec![], otherwise: Action::Allow };
            let Some(argument) = entry.args.first() else {
                assert!(rules.insert(number, empty).is_none(), "{name} stands twice");
                continue;
            };
            assert!(entry.args.len() == 1 && argument.op == "SCMP_CMP_EQ", "{name}");
            let test = Test { arg: argument.index, mask: u32::MAX, values: vec![argument.value] };
            let rule = rules.entry(number).or_insert(Rule { otherwise: unknown, ..empty });
            rule.clauses.push(Clause { tests: vec![test], action: Action::Allow });
        }
    }
    Policy { rules, unknown }
}

#[test]
fn the_container_may_do_what_the_payload_may_and_build_its_sandbox() {
    let arch = Arch::current().unwrap();
    let outer = emit::compile(&container(""), arch).unwrap();
    let inner = emit::compile(&default_policy(), arch).unwrap();
    let allows = |program, call: &Call| bpf::run(program, call).verdict == libc::SECCOMP_RET_ALLOW;
    let (building, wider) = (BUILDING.map(number), WIDER.map(number));
    for nr in 0..1024 {
        for args in argument_samples() {
            let call = Call { nr, arch: here().audit, args };
            let small = args.iter().all(|arg| *arg <= u64::from(u32::MAX));
            match (allows(&inner, &call), allows(&outer, &call)) {
                (true, false) => panic!("the container forbids what a payload may do: {call:x?}"),
                // The container runtime compares all 64 bits; what lies above 32 is asked of the inner filter alone.
                (false, true) if small => {
                    assert!(building.contains(&nr) || wider.contains(&nr), "{call:x?} has no reason")
                }
                _ => {}
            }
        }
    }
}

/// A runner whose container has the profile without `left_out`.
fn contained(left_out: &str) -> Result<Runner, crate::SandboxError> {
    let test = std::env::current_exe().unwrap();
    let mut args: Vec<std::ffi::OsString> = vec![format!("{CHILD}={left_out}").into(), test.into()];
    args.extend(["--exact", CHILD_TEST, "--nocapture", "--test-threads=1"].map(Into::into));
    Runner::spawn(RunnerConfig { program: "/usr/bin/env".into(), args, spares: 0 })
}

#[test]
fn becomes_a_runner_when_told_to() {
    let Ok(left_out) = std::env::var(CHILD) else { return };
    let program = emit::compile(&container(&left_out), Arch::current().unwrap()).unwrap();
    Filter { program }.install().unwrap();
    // Cargo builds the programs of this package beside the folder of its tests.
    let mut runner = std::env::current_exe().unwrap();
    runner.pop();
    runner.pop();
    let error = Command::new(runner.join("requiem-runner")).env_remove(CHILD).exec();
    panic!("build the package's programs first (cargo build -p requiem-sandbox): {error}");
}

/// What a run of nothing in `runner` lacks of its `off`-less policy.
fn lacks(runner: &Runner, off: Option<Layer>) -> Result<Vec<Layer>, RunError> {
    let mut policy = SandboxPolicy::default();
    policy.layers.values_mut().for_each(|level| *level = Requirement::Preferred);
    if let Some(off) = off {
        policy = policy.with(off, Requirement::Off);
    }
    let spec = RunSpec { policy, ..RunSpec::new(vec!["true".to_owned()]) };
    let report = runner.run(spec, &mut |_, _| {}, &Cancel::new().unwrap())?.report;
    let short = report.layers.iter().filter(|row| row.status != Status::Enforced && Some(row.layer) != off);
    Ok(short.map(|row| row.layer).collect())
}

#[test]
fn the_runner_has_every_layer_under_the_containers_profile_and_needs_all_of_it() {
    let runner = contained("").unwrap();
    for off in [None, Some(Layer::MinimalRoot)] {
        assert_eq!(lacks(&runner, off).unwrap(), []);
    }
    for name in BUILDING {
        // Only a run that switches minimalRoot off goes back into another mount namespace.
        let off = (name == "setns").then_some(Layer::MinimalRoot);
        let whole =
            contained(name).is_ok_and(|runner| lacks(&runner, off).is_ok_and(|short| short.is_empty()));
        assert!(!whole, "{name} is not needed");
    }
}
