use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use requiem_cas::audit::{Audit, Extent, Progress};
use requiem_cas::examine::{Kind, LastRead};
use requiem_cas::{Entry, Manifest, Node, Shelves, Store, Tenant};
use requiem_model::BlobDigest;

use crate::common::*;

fn shelves(root: &Path) -> (Store, Shelves) {
    let store = Store::open(root).unwrap();
    let shelves = store.shelves().unwrap();
    (store, shelves)
}

fn audit(root: &Path, extent: Extent) -> Audit {
    let (_open, shelves) = shelves(root);
    let tenants = shelves.tenants().to_vec();
    shelves.audit(&tenants, extent, 2, &Progress::default(), &AtomicBool::new(false)).unwrap()
}

/// Names, inodes and sizes of everything in the store but temporary files.
fn everything(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() && entry.file_name() != "tmp" {
                folders.push(entry.path());
            } else if !meta.is_dir() {
                found.push(format!("{} {} {}", entry.path().display(), meta.ino(), meta.len()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_sound_store_verifies_whatever_its_objects_are() {
    let folder = Folder::new();
    let store = folder.store();
    let sizes = [0, 1, 200, 100_000, LARGE, LARGE + 7];
    for (seed, size) in sizes.into_iter().enumerate() {
        store.put_bytes(&noise(seed as u64, size), Volatile).unwrap();
        store.put_bytes(&text(seed as u64, size + 40), Volatile).unwrap();
    }
    // Read by all threads at once, and mostly a hole.
    let large = store.put_reader(std::io::repeat(0).take(70 << 20), Volatile).unwrap();
    let progress = Progress::default();
    let (_open, shelves) = shelves(folder.path());
    let tenants = [Tenant::default()];
    let found = shelves.audit(&tenants, Extent::All, 3, &progress, &AtomicBool::new(false)).unwrap();
    let plain: usize = sizes.iter().map(|size| 2 * size + 40).sum::<usize>() + (70 << 20);
    assert_eq!((found.total, found.checked, found.plain_bytes), (13, 13, plain as u64));
    assert!(found.damaged.is_empty() && found.strays.is_empty() && !found.interrupted, "{found:?}");
    assert_eq!(progress.objects.load(Ordering::Relaxed), 13);
    let stored: u64 = objects(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(progress.bytes.load(Ordering::Relaxed), stored);
    assert!(object_of(folder.path(), &large.digest).exists());
}

#[test]
fn every_kind_of_damage_is_named_and_nothing_is_touched() {
    let folder = Folder::new();
    let store = folder.store();
    let put = |content: &[u8]| store.put_bytes(content, Volatile).unwrap().digest;
    let names = [put(&noise(1, 5000)), put(&text(2, 5000)), put(&text(3, 5000)), put(&text(4, 5000))];
    let (linked, replaced) = (put(&noise(5, 50)), put(&noise(6, 50)));
    let good = put(&noise(7, 5000));
    let wide = store.put_reader(std::io::repeat(0).take(70 << 20), Volatile).unwrap().digest;
    let of = |digest| object_of(folder.path(), digest);
    tamper(&of(&names[0]), |bytes| bytes[4000] ^= 1);
    tamper(&of(&names[1]), |bytes| bytes.truncate(bytes.len() - 3));
    tamper(&of(&names[2]), |bytes| bytes[0] ^= 1);
    tamper(&of(&names[3]), |bytes| *bytes = zstd_frame(b"something else"));
    let link = of(&linked);
    fs::remove_file(&link).unwrap();
    symlink(of(&good), &link).unwrap();
    let place = of(&replaced);
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(writable(&of(&wide))).unwrap();
    file.seek(SeekFrom::Start(69 << 20)).unwrap();
    file.write_all(b"x").unwrap();
    drop(file);

    let before = everything(folder.path());
    let found = audit(folder.path(), Extent::All);
    assert_eq!(everything(folder.path()), before, "verifying changed the store");
    let mut codes: Vec<_> = found.damaged.iter().map(|damaged| (damaged.digest, damaged.code)).collect();
    codes.sort();
    let mut expected = vec![
        (names[0], "WrongDigest"),
        (names[1], "BadFrame"),
        (names[2], "BadFrame"),
        (names[3], "WrongDigest"),
        (wide, "WrongDigest"),
    ];
    expected.sort();
    assert_eq!(codes, expected);
    let strays: Vec<_> = found.strays.iter().map(|stray| (stray.path.clone(), stray.why)).collect();
    let mut expected = vec![(link, "is not a regular file"), (place, "is not a regular file")];
    expected.sort();
    assert_eq!(strays, expected);
    assert_eq!((found.total, found.checked), (6, 6));
    assert_eq!(quarantined(folder.path()), 0);
}

fn writable(path: &Path) -> &Path {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// One frame of another content, as the store would write it.
fn zstd_frame(content: &[u8]) -> Vec<u8> {
    let (folder, padded) = (Folder::new(), content.repeat(100));
    let digest = folder.store().put_bytes(&padded, Volatile).unwrap().digest;
    let path = object_of(folder.path(), &digest);
    assert!(path.to_string_lossy().ends_with(".zst"));
    fs::read(path).unwrap()
}

#[test]
fn a_sample_reads_as_many_as_it_says() {
    let folder = Folder::new();
    let store = folder.store();
    let digests: Vec<_> =
        (0..200).map(|seed| store.put_bytes(&noise(seed, 100), Volatile).unwrap().digest).collect();
    let some = audit(folder.path(), Extent::Sample(30));
    assert_eq!((some.total, some.checked, some.plain_bytes), (200, 30, 3000));
    let more = audit(folder.path(), Extent::Sample(1000));
    assert_eq!((more.total, more.checked), (200, 200));
    for digest in &digests {
        tamper(&object_of(folder.path(), digest), |bytes| bytes[0] ^= 1);
    }
    let bad = audit(folder.path(), Extent::Sample(30));
    assert_eq!((bad.checked, bad.damaged.len(), bad.plain_bytes), (30, 30, 0));
    assert_eq!(audit(folder.path(), Extent::Sample(0)).checked, 0);
}

#[test]
fn a_stopped_verification_says_so() {
    let folder = Folder::new();
    folder.store().put_bytes(b"x", Volatile).unwrap();
    let (_open, shelves) = shelves(folder.path());
    let stop = AtomicBool::new(true);
    for extent in [Extent::All, Extent::Sample(1)] {
        let found = shelves.audit(&[Tenant::default()], extent, 2, &Progress::default(), &stop).unwrap();
        assert!(found.interrupted && found.checked == 0, "{found:?}");
    }
}

#[test]
fn figures_are_those_of_the_folders() {
    let folder = Folder::new();
    let store = folder.store();
    let empty = {
        let (_open, shelves) = shelves(folder.path());
        shelves.stats(shelves.tenants(), 5, 2).unwrap()
    };
    assert_eq!((empty.objects, empty.plain_bytes, empty.stored_bytes, empty.largest.len()), (0, 0, 0, 0));
    let small = (0..40usize).map(|number| noise(number as u64, 10 + number));
    let contents: Vec<Vec<u8>> =
        small.chain((40..60usize).map(|number| text(number as u64, 1000 + number))).collect();
    for content in &contents {
        store.put_bytes(content, Volatile).unwrap();
    }
    store.materialise_blob(&BlobDigest::of(&contents[3]), true).unwrap();
    store.pin(&BlobDigest::of(&contents[4]), None, "2026-01-01T00:00:00.000Z").unwrap();
    // An object under both of its names is one.
    let twin = object_of(folder.path(), &BlobDigest::of(&contents[50]));
    let raw = twin.to_string_lossy().strip_suffix(".zst").unwrap().to_owned();
    fs::write(&raw, &contents[50]).unwrap();
    fs::write(tenant_folder(folder.path()).join("quarantine/x"), "1234567").unwrap();

    let (_open, shelves) = shelves(folder.path());
    let stats = shelves.stats(&[Tenant::default()], 3, 2).unwrap();
    let stored: u64 = objects(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let plain: usize = contents.iter().map(Vec::len).sum();
    assert_eq!((stats.objects, stats.compressed), (60, 20));
    assert_eq!((stats.plain_bytes, stats.stored_bytes), (plain as u64, stored));
    assert_eq!((stats.copies, stats.pins, stats.quarantined, stats.quarantined_bytes), (1, 1, 1, 7));
    let largest: Vec<_> = stats.largest.iter().map(|object| (object.sizes.plain, object.digest)).collect();
    let expected: Vec<_> = [(1059, 59), (1058, 58), (1057, 57)]
        .map(|(bytes, number)| (bytes, BlobDigest::of(&contents[number])))
        .to_vec();
    assert_eq!(largest, expected);
    assert!(stats.unreadable.is_empty() && stats.strays.is_empty());

    tamper(&object_of(folder.path(), &BlobDigest::of(&contents[45])), |bytes| bytes.truncate(2));
    fs::write(tenant_folder(folder.path()).join("objects/00/notes.txt"), "x").unwrap();
    let worse = shelves.stats(&[Tenant::default()], 0, 2).unwrap();
    assert_eq!((worse.objects, worse.unreadable.len(), worse.strays.len()), (59, 1, 1));
    assert_eq!(worse.unreadable[0].code, "BadFrame");
}

#[test]
fn what_an_object_is_and_which_trees_name_it() {
    let folder = Folder::new();
    let store = folder.store();
    let blob = store.put_bytes(&text(1, 5000), Volatile).unwrap().digest;
    let entry = |name: &[u8], node| Entry { name: name.to_vec(), node };
    let node = Node::Blob { digest: blob, bytes: 5000, executable: false };
    let manifest = Manifest::new(vec![entry(b"a", node)]).unwrap().encode().unwrap();
    let tree = store.put_bytes(&manifest, Volatile).unwrap().digest;
    let inner = Node::Tree { digest: requiem_model::TreeDigest::from_bytes(*tree.as_bytes()) };
    let outer = Manifest::new(vec![entry(b"sub", inner)]).unwrap().encode().unwrap();
    let outer = store.put_bytes(&outer, Volatile).unwrap().digest;
    // It begins as a manifest does, and is none.
    let lookalike =
        store.put_bytes(br#"{"entries":[],"schema":"requiem.dev/tree/v9"}"#, Volatile).unwrap().digest;

    let (_open, shelves) = shelves(folder.path());
    let tenant = Tenant::default();
    let facts = |digest: &BlobDigest| shelves.facts(&tenant, digest).unwrap().unwrap();
    let kinds = [blob, tree, outer, lookalike].map(|digest| facts(&digest).kind);
    assert_eq!(kinds, [Kind::Blob, Kind::Tree, Kind::Tree, Kind::Blob]);
    let of_blob = facts(&blob);
    let stored = fs::metadata(object_of(folder.path(), &blob)).unwrap();
    assert_eq!((of_blob.sizes.plain, of_blob.sizes.stored, of_blob.compressed), (5000, stored.len(), true));
    assert_eq!(of_blob.created, stored.created().ok());
    assert_ne!(
        of_blob.read,
        LastRead::NotKept,
        "the machine's temporary folder keeps access times, as most do"
    );
    assert_eq!(shelves.trees_naming(&tenant, &blob, 2).unwrap(), (vec![tree], 0));
    assert_eq!(shelves.trees_naming(&tenant, &tree, 2).unwrap(), (vec![outer], 0));
    assert_eq!(shelves.trees_naming(&tenant, &outer, 2).unwrap(), (vec![], 0));
    assert!(shelves.facts(&tenant, &BlobDigest::of(b"absent")).unwrap().is_none());
    assert_eq!(shelves.read(&tenant, &blob, 5000).unwrap(), Some(text(1, 5000)));
    assert_eq!(shelves.read(&tenant, &blob, 4999).unwrap(), None);
}
