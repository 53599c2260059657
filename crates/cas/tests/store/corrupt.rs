use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use requiem_cas::StoreError;
use requiem_model::BlobDigest;

use crate::common::*;

/// Stores `content`, spoils it, and expects: refused once as corrupt, kept aside, then absent, then storable again.
fn spoiled(content: &[u8], spoil: &dyn Fn(&Path)) {
    let folder = Folder::new();
    let digest = folder.store().put_bytes(content, Volatile).unwrap().digest;
    for how in ["get", "stream", "materialise", "put"] {
        let store = folder.store();
        spoil(&object_of(folder.path(), &digest));
        let before = quarantined(folder.path());
        match how {
            "get" => expect_corrupt(store.get_bytes(&digest, u64::MAX)),
            "stream" => expect_corrupt(store.open_blob(&digest).and_then(|mut reader| {
                io::copy(&mut reader, &mut io::sink()).map_err(requiem_cas::BlobReader::store_error)
            })),
            "materialise" => expect_corrupt(store.materialise_blob(&digest, true)),
            _ => assert!(
                !store.put_bytes(content, Volatile).unwrap().deduplicated,
                "a bad object hid the good bytes"
            ),
        }
        assert_eq!(quarantined(folder.path()), before + 1, "{how}: not kept aside");
        if how != "put" {
            assert!(matches!(store.get_bytes(&digest, u64::MAX), Err(StoreError::NotFound { .. })), "{how}");
            assert!(!store.put_bytes(content, Volatile).unwrap().deduplicated);
        }
        assert_eq!(store.get_bytes(&digest, u64::MAX).unwrap(), content);
        assert!(leftovers(folder.path()).is_empty());
    }
}

fn expect_corrupt<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    match outcome {
        Err(StoreError::Corrupt { why, .. }) => assert!(why.contains("moved to the quarantine"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flipped_bit_is_never_served() {
    for content in [noise(1, 1000), text(1, 5000)] {
        let folder = Folder::new();
        let digest = folder.store().put_bytes(&content, Volatile).unwrap().digest;
        let size = fs::read(object_of(folder.path(), &digest)).unwrap().len();
        // Every byte of the short compressed object: magic, header, blocks.
        for at in (0..size).step_by(if size < 200 { 1 } else { 97 }) {
            tamper(&object_of(folder.path(), &digest), |stored| stored[at] ^= 1 << (at % 8));
            match folder.store().get_bytes(&digest, u64::MAX) {
                Err(StoreError::Corrupt { .. }) => {}
                // A header bit may be redundant; then the bytes are right.
                Ok(served) => {
                    assert_eq!(served, content, "byte {at}");
                    fs::remove_file(object_of(folder.path(), &digest)).unwrap();
                }
                Err(other) => panic!("byte {at}: {other:?}"),
            }
            assert!(!folder.store().put_bytes(&content, Volatile).unwrap().deduplicated);
        }
    }
    spoiled(&noise(2, 1000), &|path| tamper(path, |stored| stored[500] ^= 4));
    spoiled(&noise(2, LARGE), &|path| tamper(path, |stored| stored[LARGE / 2] ^= 4));
}

#[test]
fn wrong_sizes_and_foreign_bytes_are_never_served() {
    for content in [noise(3, 1000), text(3, 5000)] {
        spoiled(&content, &|path| tamper(path, |stored| stored.truncate(stored.len() / 2)));
        spoiled(&content, &|path| tamper(path, Vec::clear));
        spoiled(&content, &|path| tamper(path, |stored| stored.fill(0)));
        spoiled(&content, &|path| tamper(path, |stored| stored.extend_from_slice(b"garbage")));
        spoiled(&content, &|path| {
            tamper(path, |stored| *stored = zstd::bulk::compress(b"other", 1).unwrap())
        });
        // A frame that claims a gigabyte must not reserve one.
        spoiled(&content, &|path| {
            tamper(path, |stored| {
                *stored = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &(1u32 << 30).to_le_bytes()].concat()
            });
        });
    }
    spoiled(&noise(3, LARGE), &|path| tamper(path, |stored| stored.truncate(LARGE - 1)));
    spoiled(&noise(3, LARGE), &|path| tamper(path, |stored| stored.push(0)));
}

#[test]
fn what_is_not_a_file_is_not_an_object() {
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    spoiled(b"content", &|path| {
        remove(path);
        fs::create_dir(path).unwrap();
    });
    spoiled(b"content", &|path| {
        remove(path);
        nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
    });
    spoiled(b"content", &|path| {
        remove(path);
        symlink("/etc/passwd", path).unwrap();
    });
    spoiled(b"content", &|path| {
        remove(path);
        // Socket addresses are short, so it is made elsewhere and moved.
        let short = Folder::new();
        drop(UnixListener::bind(short.path().join("s")).unwrap());
        fs::rename(short.path().join("s"), path).unwrap();
    });
}

#[test]
fn a_torn_object_of_an_earlier_process_does_not_count_as_a_duplicate() {
    // What a power failure leaves of a volatile object: its name and its size, but zeros.
    let content = noise(4, 4096);
    let folder = Folder::new();
    let digest = folder.store().put_bytes(&content, Volatile).unwrap().digest;
    for wish in [Volatile, Strict] {
        tamper(&object_of(folder.path(), &digest), |stored| stored.fill(0));
        let store = folder.store();
        let receipt = store.put_bytes(&content, wish).unwrap();
        assert_eq!((receipt.deduplicated, receipt.durability), (false, wish));
        assert_eq!(store.get_bytes(&digest, 4096).unwrap(), content);
    }
}

#[test]
fn a_strict_put_is_not_hidden_by_an_old_copy_under_the_other_name() {
    let folder = Folder::new();
    let content = noise(5, 4096);
    let digest = folder.store().put_bytes(&content, Volatile).unwrap().digest;
    let raw = object_of(folder.path(), &digest);
    fs::write(raw.with_extension("zst"), b"not a frame").unwrap();
    let store = folder.store();
    assert_eq!(store.put_bytes(&content, Strict).unwrap().durability, Strict);
    assert_eq!(store.get_bytes(&digest, 4096).unwrap(), content);
    assert!(store.contains(&BlobDigest::of(&content)).unwrap());
}

#[test]
fn a_known_object_that_lost_bytes_is_stored_again() {
    let folder = Folder::new();
    let store = folder.store();
    let content = noise(6, 4096);
    let digest = store.put_bytes(&content, Volatile).unwrap().digest;
    tamper(&object_of(folder.path(), &digest), |stored| stored.truncate(100));
    assert!(!store.put_bytes(&content, Volatile).unwrap().deduplicated);
    assert_eq!(store.get_bytes(&digest, 4096).unwrap(), content);
    assert_eq!(quarantined(folder.path()), 1);
}

#[test]
fn the_quarantine_takes_the_bad_file_and_not_the_good_one_that_replaced_it() {
    let folder = Folder::new();
    let content = noise(7, LARGE + 1);
    let digest = folder.store().put_bytes(&content, Volatile).unwrap().digest;
    tamper(&object_of(folder.path(), &digest), |stored| stored[LARGE] ^= 1);
    // The bad one is being read while somebody stores the right bytes.
    let mut reading = folder.store().open_blob(&digest).unwrap();
    assert_eq!(folder.store().put_bytes(&content, Strict).unwrap().durability, Strict);
    let error = io::copy(&mut reading, &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains("replaced meanwhile"), "{error}");
    assert_eq!(folder.store().get_bytes(&digest, u64::MAX).unwrap(), content);
    assert_eq!(quarantined(folder.path()), 0);
}
