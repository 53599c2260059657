//! Landlock on the real kernel. Each test restricts a thread of its own, which ends with it.
//!
//! The kernel is expected to have the pinned version. Where that is not so, the environment says which:
//! `REQUIEM_TEST_EXPECT=landlock=6` (0: none).

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::*;

fn expected_abi() -> i32 {
    let expected = std::env::var("REQUIEM_TEST_EXPECT").unwrap_or_default();
    let version = expected.split(',').find_map(|part| part.strip_prefix("landlock=")?.parse().ok());
    version.unwrap_or(PINNED_NUMBER)
}

/// Runs `test` on a thread of its own; not at all on a kernel that is expected to lack what it needs.
fn on_a_thread(test: impl FnOnce(&Path) + Send + 'static) {
    if expected_abi() < PINNED_NUMBER {
        println!("expected: a kernel without Landlock {PINNED_NUMBER}");
        return;
    }
    on_any_thread(test);
}

fn on_any_thread(test: impl FnOnce(&Path) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    std::thread::spawn(move || test(&path)).join().unwrap();
}

/// `read`, `write`, `list` and `outside`, each a folder with a file in it.
fn tree(root: &Path) -> [PathBuf; 4] {
    ["read", "write", "list", "outside"].map(|name| {
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), name).unwrap();
        folder
    })
}

fn denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES))
}

#[test]
fn the_kernel_is_as_expected() {
    assert_eq!(sys::abi().unwrap_or(0).min(PINNED_NUMBER), expected_abi());
}

/// Whatever the kernel has is in force, and the finding says no more than that.
#[test]
fn every_kernel_enforces_what_it_can() {
    on_any_thread(|root| {
        let [_, _, _, outside] = tree(root);
        let canary = outside.join("file");
        let rules = [(Path::new("/usr"), Rights::Read), (Path::new("/dev/null"), Rights::Device)];
        let ruleset = Ruleset::compile(&rules);
        if expected_abi() == 0 {
            assert!(matches!(ruleset, Err(Finding::Impossible { .. })), "{ruleset:?}");
            return;
        }
        let finding = ruleset.unwrap().restrict(&canary).unwrap().prove();
        assert!(denied(fs::read(&canary)));
        match (expected_abi(), finding) {
            (PINNED_NUMBER | 6, Finding::InForce { .. }) => {}
            (abi @ 1..6, Finding::Short { evidence: Evidence::Probe, detail, .. }) => {
                println!("with version {abi}: {detail}");
                assert!(detail.ends_with(&missing(abi)), "{detail}");
            }
            (abi, finding) => panic!("with version {abi}: {finding:?}"),
        }
    });
}

#[test]
fn each_right_gives_what_it_says_and_no_more() {
    on_a_thread(|root| {
        let [read, write, list, outside] = tree(root);
        let canary = outside.join("file");
        let rules = [
            (Path::new("/usr"), Rights::Read),
            (Path::new("/lib"), Rights::Read),
            (Path::new("/lib64"), Rights::Read),
            (Path::new("/bin"), Rights::Read),
            (Path::new("/dev/null"), Rights::Device),
            (Path::new("/no/such/path"), Rights::Read),
            (read.as_path(), Rights::Read),
            (write.as_path(), Rights::ReadWriteExec),
            (list.as_path(), Rights::List),
        ];
        let restricted = Ruleset::compile(&rules).unwrap().restrict(&canary).unwrap();
        assert_eq!(restricted.prove(), Finding::probed("landlock:abi7"));

        assert_eq!(fs::read_to_string(read.join("file")).unwrap(), "read");
        assert!(denied(fs::write(read.join("file"), "x")) && denied(fs::write(read.join("new"), "x")));
        assert!(denied(fs::remove_file(read.join("file"))));

        fs::write(write.join("new"), "x").unwrap();
        fs::rename(write.join("new"), write.join("newer")).unwrap();
        fs::remove_file(write.join("newer")).unwrap();
        // Neither to where nothing may be written, nor from where nothing may be removed.
        assert!(fs::rename(write.join("file"), outside.join("stolen")).is_err());
        assert!(fs::hard_link(outside.join("file"), write.join("link")).is_err());

        assert_eq!(fs::read_dir(&list).unwrap().count(), 1);
        assert!(denied(fs::read(list.join("file"))));

        assert!(denied(fs::read(&canary)) && denied(fs::read_dir(&outside)));
        fs::write("/dev/null", "x").unwrap();
        assert!(denied(File::open("/dev/zero")));
        assert!(Command::new("/usr/bin/true").status().unwrap().success());
    });
}

#[test]
fn signals_and_abstract_sockets_stay_inside() {
    on_a_thread(|root| {
        let [_, _, _, outside] = tree(root);
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Pid::from_raw(i32::try_from(stranger.id()).unwrap());
        // A thread from before the restriction, which can still end the stranger.
        let (stop, stopped) = std::sync::mpsc::channel();
        let killer = std::thread::spawn(move || {
            stopped.recv().unwrap();
            stranger.kill().unwrap();
            stranger.wait().unwrap();
        });
        let address = SocketAddr::from_abstract_name(format!("requiem-test-{}", std::process::id())).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        kill(process, None).unwrap();
        UnixStream::connect_addr(&address).unwrap();

        let rules = [(Path::new("/usr"), Rights::Read)];
        let restricted = Ruleset::compile(&rules).unwrap().restrict(&outside.join("file")).unwrap();
        let signalled = kill(process, None);
        let connected = UnixStream::connect_addr(&address).map(drop);
        assert_eq!(signalled, Err(Errno::EPERM));
        assert_eq!(connected.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(matches!(restricted.prove(), Finding::InForce { .. }));
        stop.send(()).unwrap();
        killer.join().unwrap();
    });
}

#[test]
fn a_proof_needs_a_canary_that_was_alive() {
    on_a_thread(|root| {
        let rules = [(Path::new("/usr"), Rights::Read)];
        let restricted = Ruleset::compile(&rules).unwrap().restrict(&root.join("nothing here")).unwrap();
        let finding = restricted.prove();
        assert!(matches!(&finding, Finding::Short { evidence: Evidence::SyscallReturn, .. }), "{finding:?}");
    });
}

#[test]
fn a_canary_that_can_be_read_is_no_proof() {
    on_a_thread(|root| {
        let [read, ..] = tree(root);
        let rules = [(read.as_path(), Rights::Read)];
        let restricted = Ruleset::compile(&rules).unwrap().restrict(&read.join("file")).unwrap();
        let finding = restricted.prove();
        let expected = "a file outside every rule could be read";
        assert!(matches!(&finding, Finding::Short { detail, .. } if detail == expected), "{finding:?}");
    });
}

/// An older kernel cannot be had here; its version number can.
#[test]
fn an_older_kernel_says_what_it_leaves_open() {
    assert_eq!(
        missing(1),
        "moving files between folders, truncation, device control, signals and abstract sockets"
    );
    assert_eq!(missing(4), "device control, signals and abstract sockets");
    assert_eq!(missing(6), "all that is asked for");
    assert_eq!(
        (mechanism(2), mechanism(7), mechanism(9)),
        ("landlock:abi2".to_owned(), "landlock:abi7".to_owned(), "landlock:abi7".to_owned(),)
    );
    assert!(unavailable(Errno::EOPNOTSUPP).contains("switched off"));
}
