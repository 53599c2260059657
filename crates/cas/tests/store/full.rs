use std::fs;
use std::io::{self, Read, Write};

use nix::errno::Errno;
use requiem_cas::{IngestError, StoreError, TreeLimits};
use requiem_model::FailureReason;
use seccompiler::SeccompAction;

use crate::common::*;

fn expect_full<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    match outcome {
        Err(error @ StoreError::Full { .. }) => {
            assert_eq!((error.code(), error.failure_reason()), ("StoreFull", FailureReason::StoreFull));
            assert!(error.hint().contains("room"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_refuses_cleanly_and_goes_on_when_there_is_room() {
    with_own_mounts("full::a_full_disk_refuses_cleanly_and_goes_on_when_there_is_room", || {
        let folder = Folder::new();
        mount_tmpfs(folder.path(), "size=8m,mode=700");
        let store = folder.store();
        let mut stored = Vec::new();
        let refused = loop {
            match store.put_bytes(&noise(stored.len() as u64, 200_000), Strict) {
                Ok(receipt) => stored.push(receipt.digest),
                Err(error) => break error,
            }
        };
        expect_full(Err::<(), _>(refused));
        assert!(stored.len() > 20, "{}", stored.len());
        assert!(leftovers(folder.path()).is_empty());

        expect_full(store.put_reader(&noise(1000, LARGE + MIB)[..], Volatile));
        let mut writer = store.writer(Volatile);
        let error = io::copy(&mut io::repeat(7).take(LARGE as u64), &mut writer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(leftovers(folder.path()).is_empty(), "a failed writer keeps the disk full");
        assert!(writer.write_all(b"more").is_err(), "a hole in the object went unnoticed");
        assert!(matches!(writer.finish(), Err(StoreError::Abandoned)));
        assert_eq!(objects(folder.path()).len(), stored.len());

        for (number, digest) in stored.iter().enumerate() {
            assert_eq!(store.get_bytes(digest, 200_000).unwrap(), noise(number as u64, 200_000));
        }
        expect_full(
            store.materialise_blob(&stored[0], true).and_then(|_| store.materialise_blob(&stored[1], true)),
        );
        fs::remove_file(object_of(folder.path(), &stored[9])).unwrap();
        fs::remove_file(object_of(folder.path(), &stored[8])).unwrap();
        assert!(!store.put_bytes(&noise(9, 200_000), Strict).unwrap().deduplicated);
        assert!(leftovers(folder.path()).is_empty() && quarantined(folder.path()) == 0);
    });
}

#[test]
fn a_tree_that_does_not_fit_leaves_nothing() {
    with_own_mounts("full::a_tree_that_does_not_fit_leaves_nothing", || {
        let folder = Folder::new();
        mount_tmpfs(folder.path(), "size=8m,mode=700");
        let source = Folder::new();
        fs::create_dir(source.path().join("sub")).unwrap();
        for number in 0..50 {
            // Fits compressed into the store, not plain beside it.
            fs::write(source.path().join(format!("sub/{number}")), text(number, 400_000)).unwrap();
        }
        let store = folder.store();
        let tree = store.put_tree(source.path(), &TreeLimits::INPUT, Volatile).unwrap();
        let requiem_model::result::OutputContent::Tree { digest, .. } = tree.content else {
            panic!("{tree:?}")
        };
        for _ in 0..3 {
            expect_full(store.materialise_tree(&digest));
            assert!(leftovers(folder.path()).is_empty());
        }
        let trees = tenant_folder(folder.path()).join("materialised/trees");
        assert_eq!(fs::read_dir(trees).unwrap().count(), 0);

        fs::write(source.path().join("noise"), noise(1, 12 * MIB)).unwrap();
        match store.put_tree(source.path(), &TreeLimits::INPUT, Volatile) {
            Err(error @ IngestError::Store(StoreError::Full { .. })) => assert!(!error.is_fault_of_output()),
            other => panic!("{other:?}"),
        }
        assert!(leftovers(folder.path()).is_empty());
    });
}

#[test]
fn no_inodes_left_is_full_too() {
    with_own_mounts("full::no_inodes_left_is_full_too", || {
        let folder = Folder::new();
        mount_tmpfs(folder.path(), "nr_inodes=320,mode=700");
        let store = folder.store();
        let mut stored = 0;
        let refused = loop {
            match store.put_bytes(&noise(stored, 10), Volatile) {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        expect_full(Err::<(), _>(refused));
        assert!(stored > 10, "{stored}");
        assert!(leftovers(folder.path()).is_empty());
        assert_eq!(objects(folder.path()).len() as u64, stored);
    });
}

#[test]
fn no_room_for_a_tenant_or_a_session_is_full() {
    with_own_mounts("full::no_room_for_a_tenant_or_a_session_is_full", || {
        let folder = Folder::new();
        mount_tmpfs(folder.path(), "nr_inodes=100,mode=700");
        let store = requiem_cas::Store::open(folder.path()).unwrap();
        expect_full(store.tenant(&requiem_cas::Tenant::default()));
        assert!(leftovers(folder.path()).is_empty(), "half a tenant was left");
        assert_eq!(fs::read_dir(folder.path().join("tenants")).unwrap().count(), 0);
        while fs::File::create(folder.path().join(format!("tenants/{}", rand_name()))).is_ok() {}
        expect_full(requiem_cas::Store::open(folder.path()));
        assert_eq!(sessions(folder.path()), 1);
    });
}

fn rand_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

#[test]
fn a_quota_is_full_too() {
    let folder = Folder::new();
    let store = folder.store();
    let content = noise(1, 1000);
    let outcome = std::thread::scope(|scope| {
        let limited = scope.spawn(|| {
            intercept(&[libc::SYS_write], SeccompAction::Errno(Errno::EDQUOT as u32));
            store.put_bytes(&content, Volatile)
        });
        limited.join().unwrap()
    });
    expect_full(outcome);
    assert!(leftovers(folder.path()).is_empty() && objects(folder.path()).is_empty());
}
