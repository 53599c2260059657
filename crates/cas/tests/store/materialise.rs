use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use requiem_cas::{How, StoreError, TenantStore};
use requiem_model::{BlobDigest, TreeDigest};

use crate::common::*;
use crate::trees::{describe, put};

#[test]
fn blobs_become_read_only_files() {
    let folder = Folder::new();
    let store = folder.store();
    for content in [text(1, 3000), noise(1, 3000), vec![], noise(1, LARGE)] {
        let digest = store.put_bytes(&content, Volatile).unwrap().digest;
        for (executable, mode) in [(false, 0o444), (true, 0o555)] {
            let first = store.materialise_blob(&digest, executable).unwrap();
            let in_place = content.len() >= LARGE && !executable;
            assert_eq!(first.how, if in_place { How::InPlace } else { How::Made });
            assert_eq!(first.path == object_of(folder.path(), &digest), in_place);
            let meta = fs::metadata(&first.path).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.mtime()), (mode, 0));
            assert_eq!(fs::read(&first.path).unwrap(), content);
            for store in [&store, &folder.store()] {
                let again = store.materialise_blob(&digest, executable).unwrap();
                assert_eq!(again.path, first.path);
                assert_eq!(again.how, if in_place { How::InPlace } else { How::Cached });
            }
        }
    }
    assert!(leftovers(folder.path()).is_empty());
}

#[test]
fn a_spoiled_copy_is_made_anew() {
    let folder = Folder::new();
    let content = text(2, 3000);
    let digest = folder.store().put_bytes(&content, Volatile).unwrap().digest;
    let path = folder.store().materialise_blob(&digest, false).unwrap().path;
    let spoils: [&dyn Fn(); 6] = [
        &|| {
            tamper(&path, |copy| copy[17] ^= 1);
            // Only the content tells.
            fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        },
        &|| tamper(&path, |copy| copy.truncate(5)),
        &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap(),
        &|| fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap(),
        &|| {
            fs::remove_file(&path).unwrap();
            symlink("/etc/passwd", &path).unwrap();
        },
        &|| fs::remove_file(&path).unwrap(),
    ];
    // Both a process that has verified it before and one that has not.
    let knowing = folder.store();
    for (number, spoil) in spoils.iter().enumerate() {
        for store in [&knowing, &folder.store()] {
            assert_eq!(knowing.materialise_blob(&digest, false).unwrap().how, How::Cached);
            spoil();
            let made = store.materialise_blob(&digest, false).unwrap();
            assert_eq!(made.how, How::Made, "spoil {number} went unnoticed");
            assert_eq!(fs::read(&made.path).unwrap(), content);
        }
    }
    assert_eq!(quarantined(folder.path()), 10);
}

#[test]
fn a_large_blob_in_place_is_verified_once_per_process_and_whenever_it_changed() {
    let folder = Folder::new();
    let content = noise(3, LARGE);
    let store = folder.store();
    let digest = store.put_bytes(&content, Volatile).unwrap().digest;
    let path = store.materialise_blob(&digest, false).unwrap().path;
    let spoil = || tamper(&path, |object| object[LARGE - 1] ^= 1);
    spoil();
    assert!(matches!(store.materialise_blob(&digest, false), Err(StoreError::Corrupt { .. })));
    store.put_bytes(&content, Volatile).unwrap();
    spoil();
    assert!(matches!(folder.store().materialise_blob(&digest, false), Err(StoreError::Corrupt { .. })));
    assert_eq!(quarantined(folder.path()), 2);
}

fn sample(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), text(4, 3000)).unwrap();
    fs::write(root.join("tool"), "tool").unwrap();
    fs::set_permissions(root.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a/b/file", root.join("link")).unwrap();
}

#[test]
fn a_spoiled_tree_is_made_anew_by_the_next_process() {
    let (folder, source) = (Folder::new(), Folder::new());
    sample(source.path());
    let digest = put(&folder.store(), source.path());
    let made = folder.store().materialise_tree(&digest).unwrap();
    assert_eq!(made.how, How::Made);
    let expected = describe(&made.path);
    let at = |name: &str| made.path.join(name);
    let open_up = |name: &str| fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    let close = |name: &str| {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o555)).unwrap();
        fs::File::open(at(name)).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    let within = |name: &str, change: &dyn Fn()| {
        open_up(name);
        change();
        close(name);
    };
    let same_time = |name: &str| {
        fs::File::open(at(name)).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    let spoils: [(&str, &dyn Fn()); 10] = [
        ("content", &|| {
            tamper(&at("a/b/file"), |copy| copy[2999] ^= 1);
            same_time("a/b/file");
        }),
        ("size", &|| {
            tamper(&at("a/b/file"), |copy| copy.push(b'x'));
            same_time("a/b/file");
        }),
        ("mode", &|| fs::set_permissions(at("tool"), fs::Permissions::from_mode(0o444)).unwrap()),
        ("set-id", &|| fs::set_permissions(at("tool"), fs::Permissions::from_mode(0o4555)).unwrap()),
        ("time", &|| fs::File::open(at("tool")).unwrap().set_modified(std::time::SystemTime::now()).unwrap()),
        ("extra", &|| within("a", &|| fs::write(at("a/extra"), "").unwrap())),
        ("missing", &|| within("a/b", &|| fs::remove_file(at("a/b/file")).unwrap())),
        ("link", &|| {
            within("", &|| {
                fs::remove_file(at("link")).unwrap();
                symlink("a/b/fil", at("link")).unwrap();
            });
        }),
        ("kind", &|| {
            within("", &|| {
                fs::remove_file(at("tool")).unwrap();
                symlink("a/b/file", at("tool")).unwrap();
            });
        }),
        ("writable folder", &|| open_up("a/b")),
    ];
    for (number, (name, spoil)) in spoils.iter().enumerate() {
        assert_eq!(folder.store().materialise_tree(&digest).unwrap().how, How::Cached);
        spoil();
        let again = folder.store().materialise_tree(&digest).unwrap();
        assert_eq!(again.how, How::Made, "{name} went unnoticed");
        assert_eq!(describe(&again.path), expected, "{name}");
        assert_eq!(quarantined(folder.path()), number + 1);
    }
    // Torn by a power failure: the name is there, the content is not.
    open_up("");
    make_removable(&made.path);
    fs::remove_dir_all(&made.path).unwrap();
    assert_eq!(folder.store().materialise_tree(&digest).unwrap().how, How::Made);
}

fn make_removable(root: &Path) {
    for name in ["a", "a/b"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_bad_object_makes_no_tree() {
    let (folder, source) = (Folder::new(), Folder::new());
    sample(source.path());
    let store = folder.store();
    let digest = put(&store, source.path());
    let file = BlobDigest::of(&text(4, 3000));
    tamper(&object_of(folder.path(), &file), |object| object[20] ^= 1);
    assert!(
        matches!(store.materialise_tree(&digest), Err(StoreError::Corrupt { digest, .. }) if digest == file)
    );
    assert!(
        matches!(store.materialise_tree(&digest), Err(StoreError::NotFound { digest }) if digest == file)
    );
    assert!(leftovers(folder.path()).is_empty());
    store.put_bytes(&text(4, 3000), Volatile).unwrap();
    assert_eq!(store.materialise_tree(&digest).unwrap().how, How::Made);
}

#[test]
fn threads_and_processes_agree_on_one_copy() {
    let (folder, source) = (Folder::new(), Folder::new());
    sample(source.path());
    let shared = folder.store();
    let digest = put(&shared, source.path());
    let stores: Vec<TenantStore> =
        (0..8).map(|n| if n < 4 { shared.clone() } else { folder.store() }).collect();
    let barrier = Barrier::new(stores.len());
    let made: Vec<_> = thread::scope(|scope| {
        let make = |store: &TenantStore| {
            barrier.wait();
            store.materialise_tree(&digest).unwrap()
        };
        let threads: Vec<_> = stores.iter().map(|store| scope.spawn(move || make(store))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|one| one.path == made[0].path));
    assert_eq!(made.iter().filter(|one| one.how == How::Made).count(), 1);
    assert_eq!((quarantined(folder.path()), leftovers(folder.path()).len()), (0, 0));
}

#[test]
fn a_warm_tree_of_twenty_thousand_files_takes_no_time() {
    with_own_mounts("materialise::a_warm_tree_of_twenty_thousand_files_takes_no_time", || {
        let (folder, source) = (in_memory(), in_memory());
        for group in 0..100 {
            let group_folder = source.path().join(format!("group {group}"));
            fs::create_dir(&group_folder).unwrap();
            for number in 0..200 {
                fs::write(group_folder.join(number.to_string()), format!("{group} {number}")).unwrap();
            }
        }
        let store = folder.store();
        let digest = put(&store, source.path());
        assert_eq!(store.materialise_tree(&digest).unwrap().how, How::Made);
        // The median, because the machine may be busy; the work itself is one stat.
        let mut times: Vec<Duration> = (0..101)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(store.materialise_tree(&digest).unwrap().how, How::Cached);
                start.elapsed()
            })
            .collect();
        times.sort();
        assert!(times[50] < Duration::from_millis(1), "{:?}", times[50]);
        // The first call of a process reads everything, later ones do not.
        let other = folder.store();
        assert_eq!(other.materialise_tree(&digest).unwrap().how, How::Cached);
        let start = Instant::now();
        other.materialise_tree(&digest).unwrap();
        assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    });
}

// --- forged manifests

fn forged(store: &TenantStore, entries: &str) -> TreeDigest {
    let manifest = format!("{{\"entries\":[{entries}],\"schema\":\"requiem.dev/tree/v1\"}}");
    let receipt = store.put_bytes(manifest.as_bytes(), Volatile).unwrap();
    TreeDigest::from_bytes(*receipt.digest.as_bytes())
}

fn blob_entry(store: &TenantStore, name: &str, bytes: u64) -> String {
    let digest = store.put_bytes(b"evil", Volatile).unwrap().digest;
    format!(
        "{{\"bytes\":{bytes},\"digest\":\"{digest}\",\"executable\":true,\"kind\":\"blob\",\"name\":\"{name}\"}}"
    )
}

#[test]
fn a_forged_manifest_writes_nothing_anywhere() {
    let folder = Folder::new();
    let store = folder.store();
    let outside = folder.path().join("evil");
    for name in
        ["../evil", "../../../../evil", "/tmp/evil", "..", ".", "", "a/b", "%2e%2e", "..%2Fevil", "a%00"]
    {
        let digest = forged(&store, &blob_entry(&store, name, 4));
        let outcome = store.materialise_tree(&digest);
        assert!(matches!(outcome, Err(StoreError::Manifest { .. })), "{name:?}: {outcome:?}");
    }
    // A link and then an entry "through" it: two entries of one name.
    let link = |name: &str| {
        format!("{{\"kind\":\"symlink\",\"name\":\"{name}\",\"target\":\"{}\"}}", folder.path().display())
    };
    let twice = [blob_entry(&store, "evil", 4), link("evil")].join(",");
    assert!(matches!(store.materialise_tree(&forged(&store, &twice)), Err(StoreError::Manifest { .. })));
    // A link beside a folder of the same name one level up leads nowhere, being a link only.
    let inner = forged(&store, &blob_entry(&store, "evil", 4));
    let beside = format!("{{\"digest\":\"{inner}\",\"kind\":\"tree\",\"name\":\"a\"}},{}", link("b"));
    let made = store.materialise_tree(&forged(&store, &beside)).unwrap();
    assert_eq!(fs::read(made.path.join("a/evil")).unwrap(), b"evil");
    assert!(!outside.exists());
    assert!(leftovers(folder.path()).is_empty());
}

#[test]
fn a_manifest_that_lies_about_a_size_is_refused() {
    let folder = Folder::new();
    let store = folder.store();
    for bytes in [0, 3, 5, 1 << 40] {
        let outcome = store.materialise_tree(&forged(&store, &blob_entry(&store, "file", bytes)));
        assert!(
            matches!(outcome, Err(StoreError::Corrupt { .. } | StoreError::TreeBounds { .. })),
            "{outcome:?}"
        );
    }
    let good = store.materialise_tree(&forged(&store, &blob_entry(&store, "file", 4))).unwrap();
    assert_eq!(fs::metadata(good.path.join("file")).unwrap().mode() & 0o7777, 0o555);
    assert!(leftovers(folder.path()).is_empty());
}

#[test]
fn a_tree_that_doubles_at_every_level_is_refused_at_once() {
    let folder = Folder::new();
    let store = folder.store();
    let mut digest = forged(&store, &blob_entry(&store, "file", 4));
    for _ in 0..60 {
        let entry = |name: &str| format!("{{\"digest\":\"{digest}\",\"kind\":\"tree\",\"name\":\"{name}\"}}");
        digest = forged(&store, &[entry("a"), entry("b")].join(","));
    }
    let outcome = store.materialise_tree(&digest);
    assert!(matches!(outcome, Err(StoreError::TreeBounds { what: "entries", .. })), "{outcome:?}");

    let mut deep = forged(&store, "");
    for level in 1.. {
        match store.materialise_tree(&deep) {
            Ok(_) => assert!(level <= 64, "{level} folders deep"),
            Err(StoreError::TreeBounds { what: "folders deep", .. }) => {
                assert_eq!(level, 65);
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
        deep = forged(&store, &format!("{{\"digest\":\"{deep}\",\"kind\":\"tree\",\"name\":\"d\"}}"));
    }
    assert!(leftovers(folder.path()).is_empty());
}
