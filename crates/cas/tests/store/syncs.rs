use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use requiem_cas::{Durability, Receipt, StoreError, TenantStore};
use seccompiler::SeccompAction;

use crate::common::*;

const SYNCS: [libc::c_long; 3] = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs];

/// Runs `body` in a thread whose `syscalls` the kernel answers with `errno`.
fn with_failing<T: Send>(syscalls: &[libc::c_long], errno: Errno, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let failing = scope.spawn(|| {
            intercept(syscalls, SeccompAction::Errno(errno as u32));
            body()
        });
        failing.join().unwrap()
    })
}

fn inode(root: &Path, receipt: &Receipt) -> u64 {
    fs::metadata(object_of(root, &receipt.digest)).unwrap().ino()
}

#[test]
fn receipts_claim_what_was_synced_and_no_more() {
    let folder = Folder::new();
    let check = |store: &TenantStore, wish, expect: (Durability, bool)| {
        let receipt = store.put_bytes(b"content", wish).unwrap();
        assert_eq!((receipt.durability, receipt.deduplicated), expect);
        inode(folder.path(), &receipt)
    };
    let first = folder.store();
    let unsynced = check(&first, Volatile, (Volatile, false));
    check(&first, Volatile, (Volatile, true));
    // The old one may be unsynced, so a synced copy takes its place.
    let synced = check(&first, Strict, (Strict, false));
    assert_ne!(unsynced, synced);
    assert_eq!(check(&first, Strict, (Strict, true)), synced);
    assert_eq!(check(&first, Volatile, (Strict, true)), synced);
    // Another process cannot know who synced it.
    let second = folder.store();
    assert_eq!(check(&second, Volatile, (Volatile, true)), synced);
    assert_ne!(check(&second, Strict, (Strict, false)), synced);
    assert_eq!(objects(folder.path()).len(), 1);
}

#[test]
fn a_synced_object_that_another_process_replaced_is_not_claimed() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.store());
    let synced = one.put_bytes(b"content", Strict).unwrap();
    tamper(&object_of(folder.path(), &synced.digest), |stored| stored[0] ^= 1);
    assert!(matches!(other.get_bytes(&synced.digest, 10), Err(StoreError::Corrupt { .. })));
    assert_eq!(other.put_bytes(b"content", Volatile).unwrap().durability, Volatile);
    assert_eq!(one.put_bytes(b"content", Volatile).unwrap().durability, Volatile);
    let again = one.put_bytes(b"content", Strict).unwrap();
    assert_eq!((again.durability, again.deduplicated), (Strict, false));
}

#[test]
fn a_volatile_put_does_not_sync_and_a_strict_one_does() {
    let folder = Folder::new();
    let store = folder.store();
    with_failing(&SYNCS, Errno::EIO, || {
        for content in [noise(1, 100), noise(1, LARGE)] {
            let receipt = store.put_reader(&content[..], Volatile).unwrap();
            assert_eq!(receipt.durability, Volatile);
        }
    });
    for syscall in [libc::SYS_fdatasync, libc::SYS_fsync] {
        let store = folder.store();
        let outcome = with_failing(&[syscall], Errno::EIO, || store.put_bytes(b"strict", Strict));
        assert!(matches!(outcome, Err(StoreError::SyncFailed { .. })), "{syscall}: {outcome:?}");
    }
}

#[test]
fn a_failed_sync_is_never_forgotten() {
    for syscall in SYNCS {
        let folder = Folder::new();
        let store = folder.store();
        let kept = store.put_bytes(b"kept", Volatile).unwrap();
        let outcome = with_failing(&[syscall], Errno::EIO, || {
            if syscall == libc::SYS_syncfs {
                store.sync()
            } else {
                store.put_bytes(b"lost", Strict).map(drop)
            }
        });
        assert!(matches!(outcome, Err(StoreError::SyncFailed { .. })), "{outcome:?}");
        // The kernel would now say that all is well; the store does not.
        let refused = |outcome: Result<(), StoreError>| match outcome {
            Err(StoreError::SyncFailed { why }) => {
                assert!(why.contains("os error 5") || why.contains("EIO"), "{why}")
            }
            other => panic!("{other:?}"),
        };
        refused(store.sync());
        refused(store.put_bytes(b"kept", Volatile).map(drop));
        refused(store.put_bytes(b"new", Strict).map(drop));
        refused(store.put_reader(&noise(2, LARGE)[..], Volatile).map(drop));
        assert_eq!(store.get_bytes(&kept.digest, 10).unwrap(), b"kept", "reading must go on");
        assert!(leftovers(folder.path()).is_empty());
        // A new process starts afresh and trusts nothing that it has not verified.
        assert_eq!(folder.store().put_bytes(b"lost", Strict).unwrap().durability, Strict);
    }
}

#[test]
fn content_that_could_not_be_synced_gets_no_name() {
    let folder = Folder::new();
    let store = folder.store();
    let outcome = with_failing(&[libc::SYS_fdatasync], Errno::EIO, || store.put_bytes(b"lost", Strict));
    assert!(outcome.is_err());
    assert!(objects(folder.path()).is_empty());
}

#[test]
fn a_full_disk_that_shows_in_the_sync_is_full_and_not_fatal() {
    let folder = Folder::new();
    let store = folder.store();
    for errno in [Errno::ENOSPC, Errno::EDQUOT] {
        let outcome = with_failing(&[libc::SYS_fdatasync], errno, || store.put_bytes(b"content", Strict));
        assert!(matches!(outcome, Err(StoreError::Full { .. })), "{outcome:?}");
    }
    assert!(objects(folder.path()).is_empty() && leftovers(folder.path()).is_empty());
    assert_eq!(store.put_bytes(b"content", Strict).unwrap().durability, Strict);
}

#[test]
fn syncing_makes_earlier_puts_durable_or_fails() {
    let folder = Folder::new();
    let store = folder.store();
    let receipt = store.put_bytes(b"content", Volatile).unwrap();
    assert_eq!(receipt.durability, Volatile);
    store.sync().unwrap();
}

#[test]
fn a_large_tree_is_synced_as_a_whole() {
    let folder = Folder::new();
    let source = Folder::new();
    for number in 0..100 {
        fs::write(source.path().join(format!("file {number}")), noise(number, 100)).unwrap();
    }
    let limits = requiem_cas::TreeLimits::INPUT;
    let put = |store: &TenantStore, wish| store.put_tree(source.path(), &limits, wish);
    assert_eq!(put(&folder.store(), Volatile).unwrap().durability, Volatile);
    assert_eq!(put(&folder.store(), Strict).unwrap().durability, Strict);
    let store = folder.store();
    let outcome = with_failing(&[libc::SYS_syncfs], Errno::EIO, || put(&store, Strict));
    assert!(outcome.is_err(), "the sync at the end is missing");
}
