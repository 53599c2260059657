use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use requiem_cas::{BlobReader, Store, StoreError, Tenant};
use requiem_model::BlobDigest;

use crate::common::*;

#[test]
fn round_trips_at_every_border() {
    let folder = Folder::new();
    let store = folder.store();
    let borders = [0, 1, 127, 128, 129, 65_535, 65_536, MIB - 1, MIB, MIB + 1, 3 * MIB + 7];
    let large = [LARGE - 1, LARGE, LARGE + 1, LARGE + 3 * MIB + 5];
    for bytes in borders.into_iter().chain(large) {
        for content in [noise(bytes as u64, bytes), text(bytes as u64, bytes)] {
            let digest = BlobDigest::of(&content);
            let receipt = store.put_reader(&content[..], Volatile).unwrap();
            assert_eq!((receipt.digest, receipt.bytes), (digest, bytes as u64));
            assert_eq!(store.get_bytes(&digest, bytes as u64).unwrap(), content, "{bytes} bytes");
            let mut streamed = Vec::new();
            let mut reader = store.open_blob(&digest).unwrap();
            assert_eq!(reader.size(), bytes as u64);
            reader.read_to_end(&mut streamed).unwrap();
            assert_eq!(streamed, content, "{bytes} bytes as a stream");
            let again = store.put_bytes(&content, Volatile).unwrap();
            assert!(again.deduplicated, "{bytes} bytes were stored twice");
        }
    }
    assert_eq!(leftovers(folder.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn digests_are_those_of_b3sum() {
    // From the BLAKE3 team's test vectors: the byte sequence 0, 1, …, 250, 0, 1, … of these lengths.
    let vectors = [
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
        (102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
    ];
    let folder = Folder::new();
    let store = folder.store();
    for (bytes, hex) in vectors {
        let content: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        assert_eq!(store.put_bytes(&content, Volatile).unwrap().digest.to_hex(), hex);
        assert_eq!(store.put_reader(&content[..], Volatile).unwrap().digest.to_hex(), hex);
    }
}

#[test]
fn small_text_is_compressed_and_the_rest_is_plain() {
    let folder = Folder::new();
    let store = folder.store();
    let name = |content: &[u8]| {
        let digest = store.put_bytes(content, Volatile).unwrap().digest;
        let path = object_of(folder.path(), &digest);
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o222, meta.nlink()), (0, 1));
        if content.len() >= LARGE {
            assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o444, 0), "it cannot be mounted in place");
        }
        (path.extension().map(|suffix| suffix.to_string_lossy().into_owned()), fs::read(&path).unwrap())
    };
    assert_eq!(name(&noise(1, 100_000)), (None, noise(1, 100_000)));
    assert_eq!(name(&text(1, LARGE)), (None, text(1, LARGE)));
    let (suffix, frame) = name(&text(1, LARGE - 1));
    assert_eq!(suffix.as_deref(), Some("zst"));
    assert!(frame.len() < MIB);
    assert_eq!(zstd::decode_all(&frame[..]).unwrap(), text(1, LARGE - 1));
}

#[test]
fn a_duplicate_costs_no_write() {
    let folder = Folder::new();
    let store = folder.store();
    let content = noise(2, 5000);
    let first = store.put_bytes(&content, Volatile).unwrap();
    assert!(!first.deduplicated);
    let before = fs::metadata(object_of(folder.path(), &first.digest)).unwrap();
    assert!(store.put_bytes(&content, Volatile).unwrap().deduplicated);
    assert!(store.put_reader(&content[..], Volatile).unwrap().deduplicated);
    // A new process reads it once to know that it is good.
    assert!(open(folder.path()).put_bytes(&content, Volatile).unwrap().deduplicated);
    let after = fs::metadata(object_of(folder.path(), &first.digest)).unwrap();
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
    assert_eq!(objects(folder.path()).len(), 1);
}

#[test]
fn sparse_content_stays_sparse() {
    let folder = Folder::new();
    let store = folder.store();
    let zeros = io::repeat(0).take(256 << 20);
    let receipt =
        store.put_reader(zeros.chain(&b"end"[..]).chain(io::repeat(0).take(4 << 20)), Volatile).unwrap();
    assert_eq!(receipt.bytes, (260 << 20) + 3);
    let meta = fs::metadata(object_of(folder.path(), &receipt.digest)).unwrap();
    assert_eq!(meta.len(), receipt.bytes);
    assert!(meta.blocks() * 512 < 4 * MIB as u64, "{} blocks", meta.blocks());
    let read = io::copy(&mut store.open_blob(&receipt.digest).unwrap(), &mut io::sink()).unwrap();
    assert_eq!(read, receipt.bytes);
    // The end itself is a hole.
    let tail =
        store.put_reader(io::repeat(1).take(1 << 20).chain(io::repeat(0).take(20 << 20)), Volatile).unwrap();
    let read = io::copy(&mut store.open_blob(&tail.digest).unwrap(), &mut io::sink()).unwrap();
    assert_eq!((read, tail.bytes), (21 << 20, 21 << 20));
}

#[test]
fn absent_and_too_large_are_told_apart() {
    let folder = Folder::new();
    let store = folder.store();
    let absent = BlobDigest::of(b"absent");
    assert!(!store.contains(&absent).unwrap());
    assert!(matches!(store.get_bytes(&absent, 10), Err(StoreError::NotFound { digest }) if digest == absent));
    assert!(matches!(store.open_blob(&absent), Err(StoreError::NotFound { .. })));
    assert!(matches!(store.materialise_blob(&absent, false), Err(StoreError::NotFound { .. })));
    for content in [text(3, 1000), noise(3, 1000), noise(3, LARGE)] {
        let digest = store.put_bytes(&content, Volatile).unwrap().digest;
        assert!(store.contains(&digest).unwrap());
        let limit = content.len() as u64 - 1;
        assert!(
            matches!(store.get_bytes(&digest, limit), Err(StoreError::TooLarge { limit: l, .. }) if l == limit)
        );
    }
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let folder = Folder::new();
    let store = folder.store();
    let mut writer = store.writer(Volatile);
    writer.write_all(&noise(4, LARGE + 1)).unwrap();
    assert_eq!(leftovers(folder.path()).len(), 1);
    drop(writer);
    let failing = io::repeat(7).take(LARGE as u64).chain(Failing);
    assert!(matches!(store.put_reader(failing, Volatile), Err(StoreError::Source { .. })));
    assert!(leftovers(folder.path()).is_empty() && objects(folder.path()).is_empty());
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the pipe broke"))
    }
}

#[test]
fn tenants_learn_nothing_of_each_other() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    let [one, other] = ["team-a", "team-b"].map(|name| store.tenant(&Tenant::parse(name).unwrap()).unwrap());
    let receipt = one.put_bytes(b"secret of a", Volatile).unwrap();
    assert!(!other.contains(&receipt.digest).unwrap());
    assert!(matches!(other.get_bytes(&receipt.digest, 100), Err(StoreError::NotFound { .. })));
    assert!(matches!(other.materialise_blob(&receipt.digest, false), Err(StoreError::NotFound { .. })));
    assert!(
        !other.put_bytes(b"secret of a", Volatile).unwrap().deduplicated,
        "a receipt tells what others have"
    );
    // The same tenant opened twice shares what it knows.
    let same = store.tenant(&Tenant::parse("team-a").unwrap()).unwrap();
    assert!(same.put_bytes(b"secret of a", Volatile).unwrap().deduplicated);
}

#[test]
fn only_a_store_of_this_format_is_opened() {
    let folder = Folder::new();
    let refused = |why: &str| match Store::open(folder.path()) {
        Err(error @ StoreError::Format { .. }) => assert!(error.to_string().contains(why), "{error}"),
        other => panic!("{other:?}"),
    };
    fs::write(folder.path().join("precious.txt"), "mine").unwrap();
    refused("precious.txt");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a foreign folder was changed");
    fs::remove_file(folder.path().join("precious.txt")).unwrap();

    fs::create_dir(folder.path().join("lost+found")).unwrap();
    drop(Store::open(folder.path()).unwrap());
    let format = folder.path().join("format");
    assert_eq!(fs::read_to_string(&format).unwrap(), "requiem-store/1\n");
    drop(Store::open(folder.path()).unwrap());
    for unknown in ["requiem-store/2\n", "requiem-store/1", "", "requiem-store/1\n\n", "\u{fffd}"] {
        fs::write(&format, unknown).unwrap();
        refused("this version knows");
    }
    fs::write(&format, [0xff, 0xfe]).unwrap();
    refused("not text");
}

#[test]
fn a_relative_or_nested_root_is_made() {
    let folder = Folder::new();
    let root = folder.path().join("a/b/c");
    let store = open(&root);
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
    let receipt = store.put_bytes(b"x", Strict).unwrap();
    assert_eq!(store.get_bytes(&receipt.digest, 1).unwrap(), b"x");
}

#[test]
fn the_errors_of_streams_come_back_as_the_stores_own() {
    let folder = Folder::new();
    let store = folder.store();
    let digest = store.put_reader(&noise(5, LARGE)[..], Volatile).unwrap().digest;
    tamper(&object_of(folder.path(), &digest), |content| content[LARGE - 1] ^= 1);
    let error = io::copy(&mut store.open_blob(&digest).unwrap(), &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(matches!(BlobReader::store_error(error), StoreError::Corrupt { .. }));
}

#[test]
fn any_bytes_in_any_pieces_come_back() {
    let folder = Folder::new();
    let store = folder.store();
    let pieces = proptest::collection::vec(0usize..200_000, 0..12);
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(seed: u64, random: bool, pieces in pieces)| {
        let bytes = pieces.iter().sum();
        let content = if random { noise(seed, bytes) } else { text(seed, bytes) };
        let mut writer = store.writer(Volatile);
        let mut rest = &content[..];
        for piece in pieces {
            let (now, later) = rest.split_at(piece);
            writer.write_all(now).unwrap();
            rest = later;
        }
        let receipt = writer.finish().unwrap();
        prop_assert_eq!(receipt.digest, BlobDigest::of(&content));
        prop_assert_eq!(receipt.bytes, bytes as u64);
        prop_assert_eq!(store.get_bytes(&receipt.digest, bytes as u64).unwrap(), content);
    });
}
