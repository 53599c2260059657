//! Groups on the real kernel, with the version this host has.
//!
//! Root is expected to have cgroups. Where that is not so, the environment says it:
//! `REQUIEM_TEST_EXPECT=cgroup=none` (or `cgroup=v1`, `cgroup=v2` to insist on one).

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::*;
use crate::finding::Witness;

const MIB: u64 = 1 << 20;

/// A runner probes once; the tests of this process must not do it at the same time under the same name.
fn probe() -> Cgroups {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Cgroups::probe()
}

/// Groups, or nothing where nothing is expected.
fn cgroups() -> Option<Cgroups> {
    let cgroups = probe();
    let expected = std::env::var("REQUIEM_TEST_EXPECT").unwrap_or_default();
    let expected = expected.split(',').find_map(|part| part.strip_prefix("cgroup=").map(str::to_owned));
    let found = cgroups.available().map(|name| name.trim_start_matches("cgroup:").to_owned());
    match (found, expected.as_deref()) {
        (Ok(found), Some(expected)) => assert_eq!(found, expected),
        (Ok(_), None) => {}
        (Err(why), Some("none")) => println!("as expected, no cgroups: {why}"),
        (Err(why), None) if !geteuid().is_root() => println!("not root, and no cgroups: {why}"),
        (Err(why), _) => panic!("no cgroups: {why}"),
    }
    cgroups.available().is_ok().then_some(cgroups)
}

/// A group with a name that no other test uses.
fn group(cgroups: &Cgroups) -> Group {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    cgroups.create(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap()
}

fn limits(memory_bytes: u64, pids: u64) -> Limits {
    Limits { memory_bytes, pids, ..Limits::default() }
}

/// Starts a shell in `group` that runs `script` once it is inside, and ends if it is never told so.
fn run(group: &Group, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go && {{ {script}; }}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    group.add(pid(&child)).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn limits_are_read_back() {
    let Some(cgroups) = cgroups() else { return };
    let group = group(&cgroups);
    let wanted = limits(64 * MIB + 5, 20);
    group.apply(&wanted).unwrap();
    let mut child = run(&group, "sleep 60");
    let finding = group.prove(&wanted, pid(&child));
    assert!(matches!(finding, Finding::InForce { witness: Witness::Readback, .. }), "{finding:?}");
    let not_so = [
        (group.prove(&limits(65 * MIB, 20), pid(&child)), "memory is limited to"),
        (group.prove(&limits(64 * MIB + 5, 21), pid(&child)), "processes are limited to 21, not 22"),
        (group.prove(&wanted, nix::unistd::getpid()), "is not in the group"),
    ];
    for (finding, expected) in not_so {
        assert!(
            matches!(&finding, Finding::Short { detail, .. } if detail.contains(expected)),
            "{finding:?}"
        );
    }
    group.kill().unwrap();
    child.wait().unwrap();
    group.remove().unwrap();
}

#[test]
fn a_group_can_be_limited_again_in_both_directions() {
    let Some(cgroups) = cgroups() else { return };
    let group = group(&cgroups);
    for memory in [64, 16, 128] {
        group.apply(&limits(memory * MIB, 20)).unwrap();
        assert_eq!(group.driver.seen().unwrap().memory, memory * MIB);
    }
    group.remove().unwrap();
}

#[test]
fn a_fork_bomb_hits_the_limit_and_dies_at_once() {
    let Some(cgroups) = cgroups() else { return };
    let group = group(&cgroups);
    group.apply(&limits(256 * MIB, 16)).unwrap();
    // A bomb of 2^9 processes, so that it harms nobody should the limit not hold.
    let bomb =
        "bomb() { [ $1 = 0 ] || { bomb $(($1 - 1)) & bomb $(($1 - 1)) & }; sleep 60; }; trap '' TERM; bomb 8";
    let mut child = run(&group, bomb);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !group.usage().pids_max_hit {
        assert!(Instant::now() < deadline, "the limit was never reached");
        std::thread::yield_now();
    }
    let started = Instant::now();
    group.kill().unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    child.wait().unwrap();
    group.remove().unwrap();
}

#[test]
fn a_memory_bomb_beside_a_sleeper_is_told_and_killed() {
    let Some(cgroups) = cgroups() else { return };
    let group = group(&cgroups);
    group.apply(&limits(32 * MIB, 20)).unwrap();
    let events = group.oom_events().unwrap();
    // tail keeps what it reads until the end comes.
    let mut child = run(&group, "head -c 400000000 /dev/zero | tail -c 400000000 | wc -c & sleep 60");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !events.has_fired() {
        assert!(Instant::now() < deadline, "nobody was told");
        wait_for(events.as_fd(), events.flags(), deadline).unwrap();
    }
    group.kill().unwrap();
    child.wait().unwrap();
    let usage = group.usage();
    assert!(usage.peak_memory.unwrap() > 30 * MIB && usage.peak_memory.unwrap() <= 33 * MIB, "{usage:?}");
    group.remove().unwrap();
}

#[test]
fn the_kernels_own_kill_is_counted() {
    let Some(cgroups) = cgroups() else { return };
    let group = group(&cgroups);
    group.apply(&limits(32 * MIB, 20)).unwrap();
    assert!(!group.oom_events().unwrap().has_fired());
    let mut child = run(&group, "head -c 400000000 /dev/zero | tail -c 400000000 | wc -c");
    child.wait().unwrap();
    assert!(group.usage().oom_killed);
    group.kill().unwrap();
    group.remove().unwrap();
}

#[test]
fn a_quiet_run_is_accounted_for() {
    let Some(cgroups) = cgroups() else { return };
    let group = group(&cgroups);
    group.apply(&limits(256 * MIB, 20)).unwrap();
    let mut child = run(&group, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
    assert!(child.wait().unwrap().success());
    let usage = group.usage();
    assert!(!usage.oom_killed && !usage.pids_max_hit, "{usage:?}");
    assert!(usage.cpu_us.unwrap() > 10_000 && usage.cpu_us.unwrap() < 20_000_000, "{usage:?}");
    assert!(usage.peak_memory.unwrap() > 100_000 && usage.peak_memory.unwrap() < 64 * MIB, "{usage:?}");
    group.remove().unwrap();
}

#[test]
fn a_busy_group_is_not_removed() {
    let Some(cgroups) = cgroups() else { return };
    let group = group(&cgroups);
    let name = group.name.clone();
    let mut child = run(&group, "sleep 60");
    let host = Rc::clone(&group.host);
    assert_eq!(group.remove().unwrap_err().errno, Errno::EBUSY);
    assert!(host.driver.names().unwrap().contains(&name));
    host.driver.kill_leftover(&name).unwrap();
    child.wait().unwrap();
    host.unmake(&name).unwrap();
    assert!(!host.driver.names().unwrap().contains(&name));
}

#[test]
fn leftovers_of_a_dead_runner_are_swept_and_nothing_else() {
    let Some(cgroups) = cgroups() else { return };
    let mut ended = Command::new("sleep").arg("60").spawn().unwrap();
    let maker = Maker::of_process(ended.id()).unwrap();
    ended.kill().unwrap();
    ended.wait().unwrap();
    let host = cgroups.host.as_ref().unwrap();
    let name = maker.group("1");
    let dead = Group { driver: host.driver.make(&name).unwrap(), name: name.clone(), host: Rc::clone(host) };
    let mine = group(&cgroups);
    let mut orphan = run(&dead, "sleep 60");
    drop(dead);
    let again = probe();
    assert!(!orphan.wait().unwrap().success());
    let names = again.host.as_ref().unwrap().driver.names().unwrap();
    assert!(!names.contains(&name) && names.contains(&mine.name), "{names:?}");
    mine.remove().unwrap();
}

/// As after pivot_root: no cgroup file system is visible any more.
#[test]
fn everything_works_when_the_mounts_are_out_of_sight() {
    if !geteuid().is_root() {
        println!("not root: mounts cannot be hidden");
        return;
    }
    // On a thread of its own, for the mount table is the thread's.
    let hidden = std::thread::spawn(|| {
        let Some(cgroups) = cgroups() else { return };
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).unwrap();
        assert!(probe().available().is_err());
        let group = group(&cgroups);
        let wanted = limits(64 * MIB, 20);
        group.apply(&wanted).unwrap();
        let mut child = run(&group, "sleep 60");
        assert!(matches!(group.prove(&wanted, pid(&child)), Finding::InForce { .. }));
        group.kill().unwrap();
        child.wait().unwrap();
        group.remove().unwrap();
    });
    hidden.join().unwrap();
}

#[test]
fn a_host_without_groups_says_why() {
    let why = v1::Host::open(&[], "0::/\n").unwrap_err();
    assert_eq!(why, "no hierarchy with the controller memory is mounted");
    let why = v2::Host::open(&[], "0::/\n").unwrap_err();
    assert_eq!(why, "no such file system is mounted");
}
