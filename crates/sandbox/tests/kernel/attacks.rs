//! Hostile programs. Each attack is a function of this binary that the sandbox is made to run; it prints how it ended.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use crate::support::*;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, chroot, setuid};
use requiem_model::{Layer, Requirement};
use requiem_sandbox::RunSpec;

/// A run of attacks by this very binary, which is mounted as an input.
pub(crate) fn attack_like(names: &[&str]) -> RunSpec {
    let argv =
        std::iter::once("./attacker").chain(helper_args("attacks::attacker")).map(str::to_owned).collect();
    let inputs = vec![input("attacker", std::env::current_exe().unwrap())];
    RunSpec { env: vec![var(HELPER, "1"), var("ATTACKS", &names.join(" "))], inputs, ..RunSpec::new(argv) }
}

#[test]
fn attacker() {
    if !is_helper() {
        return;
    }
    for name in std::env::var("ATTACKS").unwrap().split(' ') {
        println!("\n{name}: {:?}", attack(name));
    }
}

type Attempt = Result<(), Errno>;

fn io<T>(result: std::io::Result<T>) -> Attempt {
    result.map(drop).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

fn write_to(path: &str) -> Attempt {
    io(OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(b"1")))
}

fn attack(name: &str) -> Attempt {
    let secret = std::env::var("SECRET").unwrap_or_default();
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(1u16);
    let none = None::<&str>;
    match name {
        "readHost" => io(fs::read(&secret)),
        "readHostByRoot" => io(fs::read(format!("/proc/self/root{secret}"))),
        "readHostByInit" => io(fs::read(format!("/proc/1/root{secret}"))),
        "readHostByParents" => io(fs::read(format!("../../../../../../..{secret}"))),
        "readInitEnviron" => io(fs::read("/proc/1/environ")),
        "openInitDescriptors" => io(fs::read_dir("/proc/1/fd").map(|mut list| list.next())),
        "mountTmpfs" => mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), none),
        "mountProc" => mount(Some("proc"), "/tmp", Some("proc"), MsFlags::empty(), none),
        "remountInput" => {
            mount(none, "/workspace/attacker", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none)
        }
        "remountUsr" => mount(none, "/usr", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none),
        "umountProc" => nix::mount::umount("/proc"),
        "unshareUser" => unshare(CloneFlags::CLONE_NEWUSER),
        "unshareNet" => unshare(CloneFlags::CLONE_NEWNET),
        "chroot" => chroot("/tmp"),
        "trace" => nix::sys::ptrace::attach(Pid::from_raw(1)),
        "becomeRoot" => setuid(Uid::from_raw(0)),
        "killInit" => kill(Pid::from_raw(1), Signal::SIGKILL),
        "killEverybody" => kill(Pid::from_raw(-1), Signal::SIGKILL),
        "writeInput" => write_to("/workspace/attacker"),
        "removeInput" => io(fs::remove_file("/workspace/attacker")),
        "createInUsr" => io(fs::write("/usr/made", "")),
        "createInRoot" => io(fs::write("/made", "")),
        "writePasswd" => write_to("/etc/passwd"),
        "sysrq" => write_to("/proc/sysrq-trigger"),
        "corePattern" => write_to("/proc/sys/kernel/core_pattern"),
        "lowerOomScore" => io(fs::write("/proc/self/oom_score_adj", "-1000")),
        // The kernel allows this much to anybody.
        "haveNoOomScore" => io(fs::write("/proc/self/oom_score_adj", "0")),
        "makeDevice" => {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
            nix::sys::stat::mknod(
                "/tmp/disk",
                nix::sys::stat::SFlag::S_IFBLK,
                mode,
                nix::sys::stat::makedev(254, 0),
            )
        }
        "hostLoopback" => io(TcpStream::connect(("127.0.0.1", port))),
        "metadata" => io(TcpStream::connect(("169.254.169.254", 80))),
        "readCanary" => io(fs::read("/.requiem/canary")),
        "personality" => {
            nix::sys::personality::set(nix::sys::personality::Persona::READ_IMPLIES_EXEC).map(drop)
        }
        "setHostName" => nix::unistd::sethostname("mine"),
        "loopback" => {
            io(TcpListener::bind("127.0.0.1:0").and_then(|open| TcpStream::connect(open.local_addr()?)))
        }
        other => panic!("no such attack: {other}"),
    }
}

/// Makes the attacks in one run and returns how each ended.
fn outcomes(mut spec: RunSpec, extra: &[(&str, &str)]) -> Vec<(String, String)> {
    spec.env.extend(extra.iter().map(|(name, value)| var(name, value)));
    let ran = run(spec);
    let ended = |line: &str| line.split_once(": ").map(|(name, end)| (name.to_owned(), end.to_owned()));
    let found: Vec<_> = ran.out().lines().filter(|line| line.contains(": ")).filter_map(ended).collect();
    assert!(!found.is_empty(), "{} {}", ran.out(), ran.err());
    found
}

fn check(spec: RunSpec, extra: &[(&str, &str)], expected: &[(&str, &[&str])]) {
    let found = outcomes(spec, extra);
    for (name, allowed) in expected {
        let end =
            &found.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name} did not run")).1;
        assert!(allowed.contains(&end.as_str()), "{name} ended with {end}");
    }
}

fn names<'a>(expected: &[(&'a str, &[&str])]) -> Vec<&'a str> {
    expected.iter().map(|(name, _)| *name).collect()
}

#[test]
fn the_host_s_files_cannot_be_reached() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let path = secret.path().to_str().unwrap();
    assert!(fs::read(path).is_ok(), "the attack must work outside");
    let expected: &[(&str, &[&str])] = &[
        ("readHost", &["Err(ENOENT)"]),
        ("readHostByRoot", &["Err(ENOENT)"]),
        ("readHostByInit", &["Err(EACCES)"]),
        ("readHostByParents", &["Err(ENOENT)"]),
        ("readInitEnviron", &["Err(EACCES)"]),
        ("openInitDescriptors", &["Err(EACCES)"]),
        ("readCanary", &["Err(EACCES)"]),
    ];
    check(attack_like(&names(expected)), &[("SECRET", path)], expected);
}

#[test]
fn privileges_cannot_be_had() {
    let expected: &[(&str, &[&str])] = &[
        ("mountTmpfs", &["Err(EPERM)"]),
        ("mountProc", &["Err(EPERM)"]),
        ("remountInput", &["Err(EPERM)"]),
        ("remountUsr", &["Err(EPERM)"]),
        ("umountProc", &["Err(EPERM)"]),
        ("unshareUser", &["Err(EPERM)"]),
        ("unshareNet", &["Err(EPERM)"]),
        ("chroot", &["Err(EPERM)"]),
        ("trace", &["Err(EPERM)"]),
        ("becomeRoot", &["Err(EINVAL)"]),
        ("killInit", &["Err(EPERM)"]),
        ("personality", &["Err(EPERM)"]),
        ("setHostName", &["Err(EPERM)"]),
        ("makeDevice", &["Err(EPERM)"]),
        ("lowerOomScore", &["Err(EACCES)"]),
        ("haveNoOomScore", &["Err(EACCES)"]),
        ("killEverybody", &["Err(ESRCH)", "Err(EPERM)"]),
    ];
    check(attack_like(&names(expected)), &[], expected);
}

#[test]
fn what_is_read_only_stays_so() {
    let expected: &[(&str, &[&str])] = &[
        ("writeInput", &["Err(EROFS)", "Err(EACCES)", "Err(ETXTBSY)"]),
        ("removeInput", &["Err(EBUSY)"]),
        ("createInUsr", &["Err(EROFS)", "Err(EACCES)"]),
        ("createInRoot", &["Err(EROFS)", "Err(EACCES)"]),
        ("writePasswd", &["Err(EROFS)", "Err(EACCES)"]),
        ("sysrq", &["Err(EACCES)", "Err(ENOENT)"]),
        ("corePattern", &["Err(EACCES)"]),
    ];
    check(attack_like(&names(expected)), &[], expected);
}

#[test]
fn the_network_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let extra: &[(&str, &str)] = &[("PORT", &port)];
    check(
        attack_like(&["hostLoopback", "metadata"]),
        extra,
        &[("hostLoopback", &["Err(ECONNREFUSED)"]), ("metadata", &["Err(ENETUNREACH)"])],
    );
    // The twin: without the layer the same attack works.
    let spec = RunSpec { policy: without(Layer::NetworkNamespace), ..attack_like(&["hostLoopback"]) };
    check(spec, extra, &[("hostLoopback", &["Ok(())"])]);
}

/// The mount flags do not hang on seccomp: without it the payload may make itself root of nested namespaces, with every
/// capability there, and still cannot lift them.
#[test]
fn read_only_is_locked_even_for_root_of_a_nested_namespace() {
    let policy = without(Layer::Seccomp).with(Layer::Landlock, Requirement::Off);
    let lift = "mount -t tmpfs none /tmp && echo root; \
                for at in /usr in; do mount -o remount,bind,rw $at 2>/dev/null && echo lifted $at; done; \
                umount /proc 2>/dev/null && echo uncovered; \
                mkdir /usr/made in/made 2>&1 | grep -c 'Read-only file system'";
    let folder = tempfile::tempdir().unwrap();
    let argv = ["unshare", "-Urm", "sh", "-c", lift].map(str::to_owned).to_vec();
    let ran = run(RunSpec { policy, inputs: vec![input("in", folder.path())], ..RunSpec::new(argv) });
    assert_eq!(ran.out(), "root\n2", "{}", ran.err());
}
