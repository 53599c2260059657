use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use requiem_cas::{Ingested, Node, StoreError, TenantStore, TreeLimits};
use requiem_model::TreeDigest;
use requiem_model::result::OutputContent;

use crate::common::*;

pub(crate) fn put(store: &TenantStore, source: &Path) -> TreeDigest {
    tree_of(&store.put_tree(source, &TreeLimits::INPUT, Volatile).unwrap())
}

pub(crate) fn tree_of(ingested: &Ingested) -> TreeDigest {
    match ingested.content {
        OutputContent::Tree { digest, .. } => digest,
        OutputContent::Blob { .. } => panic!("{ingested:?}"),
    }
}

/// Names and kinds, contents, modes and times: equal for equal trees.
pub(crate) fn describe(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut stack = vec![folder.to_owned()];
    while let Some(path) = stack.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(folder).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let what = if meta.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "folder".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().as_os_str().as_bytes().escape_ascii())
        } else {
            blake3::hash(&fs::read(&path).unwrap()).to_string()
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        lines.push(format!("{name} {what} {mode:o} {}", meta.mtime()));
    }
    lines.sort();
    lines
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let source = Folder::new();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("sub/empty")).unwrap();
    fs::write(at("plain"), text(1, 5000)).unwrap();
    fs::write(at("sub/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("sub/tool"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::write(at("empty file"), "").unwrap();
    fs::write(at("large"), noise(2, LARGE + 3)).unwrap();
    fs::hard_link(at("plain"), at("sub/hard link")).unwrap();
    symlink("../plain", at("sub/link")).unwrap();
    symlink("/etc/shadow", at("absolute")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();

    let folder = Folder::new();
    let store = folder.store();
    let ingested = store.put_tree(source.path(), &TreeLimits::INPUT, Volatile).unwrap();
    let bytes = 5000 * 2 + 10 + LARGE as u64 + 3;
    let digest = tree_of(&ingested);
    assert_eq!(ingested.content, OutputContent::Tree { digest, bytes, entries: 10 });
    assert_eq!(put(&folder.store(), source.path()), digest, "the digest depends on more than the tree");

    let made = store.materialise_tree(&digest).unwrap().path;
    let hash = |content: &[u8]| blake3::hash(content).to_string();
    let mut expected = vec![
        " folder 555 0".to_owned(),
        "absolute -> /etc/shadow 0 0".to_owned(),
        "dangling -> nowhere 0 0".to_owned(),
        format!("empty file {} 444 0", hash(b"")),
        format!("large {} 444 0", hash(&noise(2, LARGE + 3))),
        format!("plain {} 444 0", hash(&text(1, 5000))),
        "sub folder 555 0".to_owned(),
        "sub/empty folder 555 0".to_owned(),
        format!("sub/hard link {} 444 0", hash(&text(1, 5000))),
        "sub/link -> ../plain 0 0".to_owned(),
        format!("sub/tool {} 555 0", hash(b"#!/bin/sh\n")),
    ];
    expected.sort();
    assert_eq!(describe(&made), expected);
    assert_eq!(put(&store, &made), digest, "a round trip changed the tree");
}

#[test]
fn every_change_of_a_tree_changes_its_digest() {
    let source = Folder::new();
    let at = |name: &str| source.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/file"), "content").unwrap();
    symlink("target", at("sub/link")).unwrap();
    let folder = Folder::new();
    let store = folder.store();
    let mut seen = vec![put(&store, source.path())];
    let mut changed = |change: &dyn Fn()| {
        change();
        let digest = put(&store, source.path());
        assert!(!seen.contains(&digest));
        seen.push(digest);
    };
    changed(&|| fs::write(at("sub/file"), "contenT").unwrap());
    changed(&|| fs::set_permissions(at("sub/file"), fs::Permissions::from_mode(0o700)).unwrap());
    changed(&|| fs::rename(at("sub/file"), at("sub/File")).unwrap());
    changed(&|| fs::rename(at("sub"), at("Sub")).unwrap());
    changed(&|| fs::create_dir(at("Sub/new")).unwrap());
    changed(&|| {
        fs::remove_file(at("Sub/link")).unwrap();
        symlink("Target", at("Sub/link")).unwrap();
    });
    changed(&|| fs::remove_file(at("Sub/link")).unwrap());
}

#[test]
fn names_may_be_any_bytes() {
    let source = Folder::new();
    let long = [0xff; 255];
    let names: [&[u8]; 9] =
        [b"new\nline", b"caf\xe9", b"\xff\xfe", b"50%", b"%41", "é".as_bytes(), b" ", b"\x1b[31m", &long];
    for (number, name) in names.iter().enumerate() {
        fs::write(source.path().join(std::ffi::OsStr::from_bytes(name)), number.to_string()).unwrap();
    }
    symlink(std::ffi::OsStr::from_bytes(b"\xff/%\n"), source.path().join("link")).unwrap();
    let folder = Folder::new();
    let store = folder.store();
    let digest = put(&store, source.path());
    let made = store.materialise_tree(&digest).unwrap().path;
    for (number, name) in names.iter().enumerate() {
        let read = fs::read_to_string(made.join(std::ffi::OsStr::from_bytes(name))).unwrap();
        assert_eq!(read, number.to_string());
    }
    assert_eq!(fs::read_link(made.join("link")).unwrap().as_os_str().as_bytes(), b"\xff/%\n");
    assert_eq!(put(&store, &made), digest);
}

#[test]
fn a_manifest_can_be_listed() {
    let source = Folder::new();
    fs::create_dir(source.path().join("sub")).unwrap();
    fs::write(source.path().join("file"), "12345").unwrap();
    let folder = Folder::new();
    let store = folder.store();
    let manifest = store.manifest(&put(&store, source.path())).unwrap();
    let [file, sub] = manifest.entries() else { panic!("{manifest:?}") };
    assert!(matches!(file.node, Node::Blob { bytes: 5, executable: false, .. }) && file.name == b"file");
    let Node::Tree { digest } = sub.node else { panic!("{sub:?}") };
    assert!(store.manifest(&digest).unwrap().entries().is_empty());
    let blob = store.put_bytes(b"just text", Volatile).unwrap();
    let outcome = store.manifest(&TreeDigest::from_bytes(*blob.digest.as_bytes()));
    assert!(matches!(outcome, Err(StoreError::Manifest { .. })), "{outcome:?}");
}
