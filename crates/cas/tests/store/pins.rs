use std::fs;
use std::os::unix::fs::symlink;

use requiem_cas::pin::MAX_PIN_NAME;
use requiem_model::BlobDigest;
use seccompiler::SeccompAction;

use crate::common::*;

const NOW: &str = "2026-01-01T00:00:00.000Z";

#[test]
fn pins_come_go_and_survive() {
    let folder = Folder::new();
    let store = folder.store();
    let digest = store.put_bytes(b"keep", Volatile).unwrap().digest;
    assert!(store.pins().unwrap().is_empty());
    assert_eq!(store.pin(&BlobDigest::of(b"absent"), None, NOW).unwrap_err().code(), "NotFound");
    for name in [None, Some("release 1"), Some("für später"), Some("release 1")] {
        store.pin(&digest, name, NOW).unwrap();
    }
    drop(store);
    let store = folder.store();
    let names = |pins: Vec<requiem_cas::Pin>| pins.into_iter().map(|pin| pin.name).collect::<Vec<_>>();
    let all = vec![None, Some("für später".to_owned()), Some("release 1".to_owned())];
    assert_eq!(names(store.pins().unwrap()), all);
    assert_eq!(names(store.unpin(&digest, Some("release 1")).unwrap()), all[2..]);
    assert!(store.unpin(&digest, Some("release 1")).unwrap().is_empty());
    assert!(store.unpin(&BlobDigest::of(b"absent"), None).unwrap().is_empty());
    assert_eq!(names(store.unpin(&digest, None).unwrap()), all[..2]);
    assert!(store.pins().unwrap().is_empty());
    assert!(leftovers(folder.path()).is_empty());
}

#[test]
fn names_are_one_line() {
    let folder = Folder::new();
    let store = folder.store();
    let digest = store.put_bytes(b"keep", Volatile).unwrap().digest;
    let long = "x".repeat(MAX_PIN_NAME + 1);
    for bad in ["", "a\nb", "\u{1b}[2J", &long] {
        assert_eq!(store.pin(&digest, Some(bad), NOW).unwrap_err().code(), "BadPinName", "{bad:?}");
    }
    for good in ["../../etc/passwd", "a/b", "%", &long[1..]] {
        store.pin(&digest, Some(good), NOW).unwrap();
    }
    assert_eq!(store.pins().unwrap().len(), 4);
    assert_eq!(fs::read_dir(tenant_folder(folder.path()).join("pins")).unwrap().count(), 4);
}

#[test]
fn what_is_no_pin_is_refused_and_not_passed_over() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let store = folder.store();
    let digest = store.put_bytes(b"keep", Volatile).unwrap().digest;
    store.pin(&digest, None, NOW).unwrap();
    let pins = tenant_folder(folder.path()).join("pins");
    let good = fs::read(pins.join(digest.to_hex())).unwrap();
    let (name, other) = (digest.to_hex(), BlobDigest::of(b"other").to_hex());
    fs::write(elsewhere.path().join("pin"), &good).unwrap();
    let refused = |name: &str, content: &[u8], code: &str| {
        let path = pins.join(name);
        fs::remove_file(&path).ok();
        fs::write(&path, content).unwrap();
        assert_eq!(store.pins().unwrap_err().code(), code, "{name} {}", String::from_utf8_lossy(content));
        fs::remove_file(&path).unwrap();
    };
    refused("notes.txt", b"", "BadPin");
    refused(&other, &good, "BadPin");
    refused(&name, b"{}", "BadPin");
    refused(&name, &good[..good.len() - 1], "BadPin");
    refused(&name, &[&good[..], b" "].concat(), "BadPin");
    refused(&name, String::from_utf8(good.clone()).unwrap().replace("/v1", "/v2").as_bytes(), "BadPin");
    symlink(elsewhere.path().join("pin"), pins.join(&name)).unwrap();
    assert_eq!(store.pins().unwrap_err().code(), "UnknownEntry");
    fs::remove_file(pins.join(&name)).unwrap();
    fs::remove_dir(&pins).unwrap();
    symlink(elsewhere.path(), &pins).unwrap();
    assert_eq!(store.pins().unwrap_err().code(), "UnknownEntry");
    assert_eq!(store.pin(&digest, None, NOW).unwrap_err().code(), "UnknownEntry");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "a pin was written elsewhere");
}

#[test]
fn a_pin_that_was_not_synced_is_not_claimed() {
    // Its content, and its name.
    for syscall in [libc::SYS_fdatasync, libc::SYS_fsync] {
        let folder = Folder::new();
        let store = folder.store();
        let digest = store.put_bytes(b"keep", Volatile).unwrap().digest;
        let outcome = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                intercept(&[syscall], SeccompAction::Errno(libc::EIO as u32));
                store.pin(&digest, None, NOW)
            });
            thread.join().unwrap()
        });
        assert_eq!(outcome.unwrap_err().code(), "SyncFailed");
    }
}
