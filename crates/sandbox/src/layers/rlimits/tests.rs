//! Limits are for a whole process, so the tests set them in a child: this test binary again, told by its environment.

use std::process::Command;

use super::*;
use crate::finding::Witness;

const CHILD: &str = "REQUIEM_TEST_RLIMITS_CHILD";
const CHILD_TEST: &str = "layers::rlimits::tests::becomes_a_child_when_told_to";
const FULL: Context = Context { own_user_namespace: true, cgroup_limits_memory: false };
const LEAN: Context = Context { own_user_namespace: false, cgroup_limits_memory: true };

fn limits() -> Limits {
    Limits { open_files: 77, scratch_bytes: 1 << 20, pids: 5000, memory_bytes: 1 << 33, ..Limits::default() }
}

fn child(what: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD_TEST, "--nocapture", "--test-threads=1"]).env(CHILD, what);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn becomes_a_child_when_told_to() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let context = if what == "lean" { LEAN } else { FULL };
    if what == "lower already" {
        setrlimit(Resource::RLIMIT_NOFILE, 50, 60).unwrap();
    }
    let before = prove(&limits(), context);
    assert!(matches!(before, Finding::Short { .. }), "{before:?}");
    apply(&limits(), context).unwrap();
    let after = prove(&limits(), context);
    assert!(matches!(after, Finding::InForce { witness: Witness::Readback, .. }), "{after:?}");
    let other = Limits { open_files: 10, ..limits() };
    assert!(matches!(prove(&other, context), Finding::Short { .. }));
    // As the kernel sees it from a program that was started afterwards.
    let script = "cat /proc/self/limits; head -c 2000000 /dev/zero > big || echo big $(wc -c < big)";
    let folder = tempfile::tempdir().unwrap();
    let shell = Command::new("sh").args(["-c", script]).current_dir(&folder).output().unwrap();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in String::from_utf8_lossy(&shell.stdout).lines() {
        println!("<{}>", words(line));
    }
}

#[test]
fn every_limit_is_what_a_program_sees() {
    let seen = child("full");
    let expected = [
        "<Max core file size 0 0 bytes>",
        "<Max open files 77 77 files>",
        "<Max file size 1048576 1048576 bytes>",
        "<Max stack size 8388608 67108864 bytes>",
        "<Max processes 5000 5000 processes>",
        "<Max data size 8589934592 8589934592 bytes>",
        "<Max realtime priority 0 0>",
        "<big 1048576>",
    ];
    for line in expected {
        assert!(seen.contains(line), "{line} is not in {seen}");
    }
}

#[test]
fn what_other_layers_do_is_left_to_them() {
    let seen = child("lean");
    assert!(seen.contains("<Max open files 77 77 files>"), "{seen}");
    assert!(!seen.contains("<Max processes 5000") && !seen.contains("<Max data size 8589934592"), "{seen}");
}

#[test]
fn a_lower_limit_stays() {
    assert!(child("lower already").contains("<Max open files 60 60 files>"));
}
