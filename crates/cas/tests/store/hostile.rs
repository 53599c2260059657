//! What a payload may leave behind to hurt whoever collects it.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknod};
use requiem_cas::{IngestError, Ingested, TenantStore, TreeLimits};
use requiem_model::result::OutputContent;
use requiem_model::{BlobDigest, RelPath};

use crate::common::*;
use crate::trees::{describe, tree_of};

fn collect_within(
    store: &TenantStore,
    workspace: &Path,
    path: &str,
    limits: &TreeLimits,
) -> Result<Ingested, IngestError> {
    let workspace = fs::File::open(workspace).unwrap();
    store.ingest(workspace.as_fd(), &RelPath::parse(path).unwrap(), limits, Volatile)
}

fn collect(store: &TenantStore, workspace: &Path, path: &str) -> Result<Ingested, IngestError> {
    collect_within(store, workspace, path, &TreeLimits::OUTPUT)
}

/// Collects `path` from a workspace that `prepare` made and expects this code and text.
fn refused(prepare: impl FnOnce(&Path), path: &str, code: &str, text: &str) {
    let (folder, workspace) = (Folder::new(), Folder::new());
    prepare(workspace.path());
    let error = collect(&folder.store(), workspace.path(), path).expect_err("it must be refused");
    assert_eq!((error.code(), error.to_string().as_str()), (code, text));
    assert!(error.is_fault_of_output());
    assert!(leftovers(folder.path()).is_empty());
}

#[test]
fn files_and_folders_are_collected() {
    let (folder, workspace) = (Folder::new(), Folder::new());
    let store = folder.store();
    fs::create_dir_all(workspace.path().join("out/sub")).unwrap();
    fs::write(workspace.path().join("out/sub/file"), "content").unwrap();
    fs::write(workspace.path().join("out/tool"), "").unwrap();
    fs::set_permissions(workspace.path().join("out/tool"), fs::Permissions::from_mode(0o700)).unwrap();
    let blob = |path: &str| collect(&store, workspace.path(), path).unwrap().content;
    let digest = BlobDigest::of(b"content");
    assert_eq!(blob("out/sub/file"), OutputContent::Blob { digest, bytes: 7, executable: false });
    let digest = BlobDigest::of(b"");
    assert_eq!(blob("out/tool"), OutputContent::Blob { digest, bytes: 0, executable: true });
    let tree = collect(&store, workspace.path(), "out").unwrap();
    assert!(matches!(tree.content, OutputContent::Tree { bytes: 7, entries: 3, .. }), "{tree:?}");
    let put = store.put_tree(&workspace.path().join("out"), &TreeLimits::INPUT, Volatile).unwrap();
    assert_eq!(tree, put);
}

#[test]
fn nothing_leads_out_of_the_workspace() {
    let secret = Folder::new();
    fs::write(secret.path().join("key"), "secret").unwrap();
    let to_secret = |workspace: &Path| symlink(secret.path().join("key"), workspace.join("out")).unwrap();
    refused(to_secret, "out", "Link", "out: is or leads through a symbolic link");
    refused(
        |w| symlink(secret.path(), w.join("out")).unwrap(),
        "out",
        "Link",
        "out: is or leads through a symbolic link",
    );
    let through = |w: &Path| symlink(secret.path(), w.join("dir")).unwrap();
    refused(through, "dir/key", "Link", "dir/key: is or leads through a symbolic link");
    refused(
        |w| symlink(".", w.join("dir")).unwrap(),
        "dir/x",
        "Link",
        "dir/x: is or leads through a symbolic link",
    );
    refused(
        |w| symlink("/proc/self/fd/0", w.join("o")).unwrap(),
        "o",
        "Link",
        "o: is or leads through a symbolic link",
    );
    refused(|_| {}, "out", "Absent", "out: absent");
    refused(|w| fs::write(w.join("file"), "").unwrap(), "file/x", "Absent", "file/x: absent");
    for bad in ["..", "../x", "/etc/passwd", "a/../../x", "."] {
        assert!(RelPath::parse(bad).is_err(), "{bad} can be asked for");
    }
}

#[test]
fn links_inside_a_tree_stay_links() {
    let (folder, workspace, secret) = (Folder::new(), Folder::new(), Folder::new());
    fs::write(secret.path().join("key"), "secret").unwrap();
    fs::create_dir(workspace.path().join("out")).unwrap();
    symlink(secret.path().join("key"), workspace.path().join("out/key")).unwrap();
    symlink(secret.path(), workspace.path().join("out/dir")).unwrap();
    symlink("../../../../etc", workspace.path().join("out/up")).unwrap();
    let store = folder.store();
    let tree = collect(&store, workspace.path(), "out").unwrap();
    let made = store.materialise_tree(&tree_of(&tree)).unwrap().path;
    assert_eq!(fs::read_link(made.join("up")).unwrap().to_str(), Some("../../../../etc"));
    assert!(describe(&made).iter().skip(1).all(|line| line.contains(" -> ")), "{:?}", describe(&made));
    assert!(!store.contains(&BlobDigest::of(b"secret")).unwrap(), "a secret was collected");
}

#[test]
fn special_files_are_refused_without_waiting() {
    let fifo = |path: &Path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
    // Device 0:0 is the one that anybody may make.
    let device = |path: &Path| mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(0, 0)).unwrap();
    let socket = |path: &Path| drop(UnixListener::bind(path).unwrap());
    let makers: [&dyn Fn(&Path); 3] = [&fifo, &device, &socket];
    for (kind, make) in ["FIFO", "device", "socket"].into_iter().zip(makers) {
        refused(|w| make(&w.join("out")), "out", "Special", &format!("out: is a {kind}"));
        let inside = |w: &Path| {
            fs::create_dir_all(w.join("out/a")).unwrap();
            fs::write(w.join("out/a/file"), "").unwrap();
            make(&w.join("out/a/sp ecial%"));
        };
        refused(inside, "out", "Special", &format!("out/a/sp ecial%25: is a {kind}"));
    }
}

#[test]
fn a_file_without_permissions_is_unreadable_or_read() {
    let (folder, workspace) = (Folder::new(), Folder::new());
    fs::write(workspace.path().join("out"), "x").unwrap();
    fs::set_permissions(workspace.path().join("out"), fs::Permissions::from_mode(0o000)).unwrap();
    match collect(&folder.store(), workspace.path(), "out") {
        Ok(_) => assert!(nix::unistd::geteuid().is_root()),
        Err(error) => {
            assert!(!nix::unistd::geteuid().is_root());
            assert_eq!(error.to_string(), "out: permissions forbid reading it");
        }
    }
}

#[test]
fn another_file_system_is_not_entered() {
    with_own_mounts("hostile::another_file_system_is_not_entered", || {
        for path in ["out", "out/mounted", "out/mounted/file"] {
            let mount = |w: &Path| {
                mount_tmpfs(w, "mode=700");
                fs::create_dir_all(w.join("out/mounted")).unwrap();
                mount_tmpfs(&w.join("out/mounted"), "size=1m");
                fs::write(w.join("out/mounted/file"), "").unwrap();
            };
            let at = if path == "out" { "out/mounted" } else { path };
            refused(mount, path, "OtherFileSystem", &format!("{at}: is on another file system"));
        }
    });
}

#[test]
fn one_entry_too_many_is_refused() {
    with_own_mounts("hostile::one_entry_too_many_is_refused", || {
        let (folder, workspace) = (in_memory(), in_memory());
        let out = workspace.path().join("out");
        fs::create_dir(&out).unwrap();
        for number in 0..=100_000 {
            fs::File::create(out.join(number.to_string())).unwrap();
        }
        let error = collect(&folder.store(), workspace.path(), "out").unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("TooManyEntries", "out: more than 100000 entries")
        );
        assert!(objects(folder.path()).is_empty(), "refused only after the work was done");
    });
}

#[test]
fn entries_count_over_all_folders() {
    let (folder, workspace) = (Folder::new(), Folder::new());
    for number in 0..5 {
        fs::create_dir_all(workspace.path().join(format!("out/{number}/x"))).unwrap();
    }
    let within = |entries| {
        collect_within(
            &folder.store(),
            workspace.path(),
            "out",
            &TreeLimits { entries, ..TreeLimits::OUTPUT },
        )
    };
    assert!(within(10).is_ok());
    assert_eq!(within(9).unwrap_err().code(), "TooManyEntries");
}

/// A chain of folders with names of 255 bytes, deeper than any path can say.
fn dig(workspace: &Path, depth: usize) {
    let name = [b'd'; 255];
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at: OwnedFd = fs::File::open(workspace).unwrap().into();
    for _ in 0..depth {
        mkdirat(&at, &name[..], Mode::S_IRWXU).unwrap();
        at = openat(&at, &name[..], flags, Mode::empty()).unwrap();
    }
}

#[test]
fn deep_nesting_is_bounded() {
    with_own_mounts("hostile::deep_nesting_is_bounded", || {
        for depth in [64, 65, 1000] {
            let (folder, workspace) = (in_memory(), in_memory());
            dig(workspace.path(), depth);
            let store = folder.store();
            let top = "d".repeat(255);
            match collect(&store, workspace.path(), &top) {
                Ok(tree) => {
                    assert_eq!(depth, 64);
                    let digest = tree_of(&tree);
                    store.materialise_tree(&digest).unwrap();
                    folder.store().materialise_tree(&digest).unwrap();
                    // The root of the tree is one of the 64.
                    assert!(matches!(tree.content, OutputContent::Tree { entries: 63, .. }), "{tree:?}");
                }
                Err(error) => {
                    assert!(depth > 64, "{error}");
                    assert_eq!(error.to_string(), format!("{top}: more than 64 folders deep"));
                }
            }
        }
    });
}

#[test]
fn bytes_are_bounded_and_holes_cost_no_disk() {
    let (folder, workspace) = (Folder::new(), Folder::new());
    let store = folder.store();
    fs::create_dir(workspace.path().join("out")).unwrap();
    let sparse =
        |name: &str, bytes| fs::File::create(workspace.path().join(name)).unwrap().set_len(bytes).unwrap();
    sparse("out/a", 300 << 20);
    let tree = collect(&store, workspace.path(), "out").unwrap();
    assert!(matches!(tree.content, OutputContent::Tree { bytes: b, .. } if b == 300 << 20), "{tree:?}");
    sparse("out/a", 8 << 40);
    let error = collect(&store, workspace.path(), "out").unwrap_err();
    assert_eq!(error.to_string(), format!("out: more than {} bytes", 64u64 << 30));
    let one = TreeLimits { bytes: 1000, ..TreeLimits::OUTPUT };
    sparse("out/a", 600);
    sparse("out/b", 400);
    assert!(collect_within(&store, workspace.path(), "out", &one).is_ok());
    sparse("out/b", 401);
    assert_eq!(collect_within(&store, workspace.path(), "out", &one).unwrap_err().code(), "TooManyBytes");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let (folder, workspace) = (Folder::new(), Folder::new());
    let store = folder.store();
    let path = workspace.path().join("out");
    // Large enough that the reader is in it for a while; the writer never stops.
    let start = noise(1, LARGE + MIB);
    fs::write(&path, &start).unwrap();
    let (stop, writing) = (AtomicBool::new(false), Barrier::new(2));
    let refusals = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            writing.wait();
            // The bound lets a failed assertion end the test.
            let begin = Instant::now();
            while !stop.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(30) {
                file.write_all(b"x").unwrap();
                // Slow enough to fall into the reading and not always between look and open.
                let pause = Instant::now();
                while pause.elapsed() < Duration::from_micros(500) {
                    std::hint::spin_loop();
                }
            }
        });
        writing.wait();
        // On a busy machine the writer may stand still during one reading; then what was read must be right.
        let refusals = (0..20).filter_map(|_| match collect(&store, workspace.path(), "out") {
            Ok(Ingested { content: OutputContent::Blob { digest, bytes, .. }, .. }) => {
                let appended = usize::try_from(bytes).unwrap() - start.len();
                assert_eq!(digest, BlobDigest::of(&[&start[..], &vec![b'x'; appended]].concat()));
                None
            }
            outcome => Some(outcome.unwrap_err()),
        });
        let refusals: Vec<_> = refusals.collect();
        stop.store(true, Ordering::Relaxed);
        refusals
    });
    assert!(!refusals.is_empty(), "twenty readings and no change was seen");
    assert!(
        refusals.iter().all(|error| error.to_string() == "out: changed while it was read"),
        "{refusals:?}"
    );
    assert!(leftovers(folder.path()).is_empty());
}
