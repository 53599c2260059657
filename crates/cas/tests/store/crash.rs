use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;

use requiem_cas::{Durability, TreeLimits};
use requiem_model::{BlobDigest, TreeDigest};
use seccompiler::SeccompAction;

use crate::common::*;

const ROUNDS: u64 = 20;

/// What a child stores as its n-th object: mostly small, now and then large.
fn content(seed: u64, number: u64) -> Vec<u8> {
    let bytes = match number % 20 {
        7 => LARGE + 1000,
        3 | 13 => 2 * MIB,
        other => 1 << other.min(16),
    };
    if number.is_multiple_of(3) {
        text(seed * 10_000 + number, bytes)
    } else {
        noise(seed * 10_000 + number, bytes)
    }
}

fn write_until_killed(folder: &Path, seed: u64) -> ! {
    let store = open(&folder.join("store"));
    // Beside the store, so that it goes away with the parent's folder.
    let source = folder.join(format!("source {seed}"));
    fs::create_dir(&source).unwrap();
    for number in 0.. {
        let wish = if number % 2 == 0 { Strict } else { Volatile };
        let receipt = store.put_reader(&content(seed, number)[..], wish).unwrap();
        eprintln!("BLOB {number} {} {}", receipt.durability, receipt.digest);
        if number % 5 == 4 {
            fs::write(source.join(number.to_string()), content(seed, number % 20)).unwrap();
            let tree = store.put_tree(&source, &TreeLimits::INPUT, Volatile).unwrap();
            let requiem_model::result::OutputContent::Tree { digest, .. } = tree.content else {
                panic!("{tree:?}")
            };
            store.materialise_tree(&digest).unwrap();
            eprintln!("TREE {number} {digest}");
        }
    }
    unreachable!("killed before");
}

/// Every object that can be seen is whole, and nothing that an ended process was writing is left.
fn check_whole(root: &Path) {
    let store = open(root);
    for path in objects(root) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let digest: BlobDigest = format!("blake3:{name}").parse().expect("an object's name");
        store.get_bytes(&digest, u64::MAX).expect("a whole object");
    }
    assert_eq!(quarantined(root), 0, "a torn object was visible");
    assert_eq!((sessions(root), leftovers(root).len()), (1, 0), "an ended process left files");
}

/// Kills the child after a number of acknowledgements, then lets it have said what it said.
fn kill_after(mut child: Child, acknowledgements: u64) -> Vec<String> {
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = Vec::new();
    for _ in 0..acknowledgements {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the child ended by itself: {lines:?}");
        lines.push(line.trim_end().to_owned());
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    lines.extend(
        rest.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| line.trim_end().to_owned()),
    );
    lines
}

#[test]
fn killed_writers_lose_nothing_acknowledged_and_leave_nothing_torn() {
    if let Some(role) = role() {
        let (seed, root) = role.split_once(' ').unwrap();
        write_until_killed(root.as_ref(), seed.parse().unwrap());
    }
    let test = "crash::killed_writers_lose_nothing_acknowledged_and_leave_nothing_torn";
    let folder = Folder::new();
    let root = folder.path().join("store");
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let seeds = [2 * round, 2 * round + 1];
        let start = |seed| again(test, &format!("{seed} {}", folder.path().display())).spawn().unwrap();
        let children = seeds.map(start);
        // Each round stops at another point of the sequence; where inside a put, chance decides.
        let stops = [round % 12, (round * 5) % 17];
        let said: Vec<_> =
            children.into_iter().zip(stops).map(|(child, stop)| kill_after(child, stop)).collect();
        check_whole(&root);
        let store = open(&root);
        for (seed, lines) in seeds.into_iter().zip(said) {
            acknowledged += lines.len();
            for line in lines {
                check_acknowledged(&store, seed, &line);
            }
        }
        make_writable(&tenant_folder(&root));
        // Objects of earlier rounds only make later checks slow.
        fs::remove_dir_all(tenant_folder(&root)).unwrap();
    }
    assert!(acknowledged as u64 >= ROUNDS * 10, "only {acknowledged} puts were acknowledged");
}

fn check_acknowledged(store: &requiem_cas::TenantStore, seed: u64, line: &str) {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        ["BLOB", number, durability, digest] => {
            let number = number.parse().unwrap();
            assert!(number % 2 == 1 || durability == Durability::Strict.as_str());
            let digest: BlobDigest = digest.parse().unwrap();
            assert_eq!(store.get_bytes(&digest, u64::MAX).unwrap(), content(seed, number), "{line}");
        }
        ["TREE", number, digest] => {
            let digest: TreeDigest = digest.parse().unwrap();
            let made = store.materialise_tree(&digest).unwrap();
            let expected = content(seed, number.parse::<u64>().unwrap() % 20);
            assert_eq!(fs::read(made.path.join(number)).unwrap(), expected, "{line}");
        }
        _ => panic!("{line}"),
    }
}

#[test]
fn a_crash_before_any_step_of_a_strict_put_leaves_all_or_nothing() {
    let steps = [
        ("write", vec![libc::SYS_write]),
        ("set times", vec![libc::SYS_utimensat]),
        ("chmod", vec![libc::SYS_fchmod]),
        ("content sync", vec![libc::SYS_fdatasync]),
        (
            "link",
            vec![
                libc::SYS_linkat,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_link,
            ],
        ),
        (
            "rename",
            vec![
                libc::SYS_renameat,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_rename,
            ],
        ),
        ("folder sync", vec![libc::SYS_fsync]),
        (
            "unlink",
            vec![
                libc::SYS_unlinkat,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_unlink,
            ],
        ),
    ];
    // Of the size that takes every step.
    let wanted = noise(1, LARGE);
    if let Some(role) = role() {
        let (step, root) = role.split_once('|').unwrap();
        let store = open(root.as_ref());
        intercept(&steps.iter().find(|(name, _)| *name == step).unwrap().1, SeccompAction::KillProcess);
        store.put_bytes(&wanted, Strict).unwrap();
        unreachable!("the put has no such step");
    }
    let test = "crash::a_crash_before_any_step_of_a_strict_put_leaves_all_or_nothing";
    for (step, _) in &steps {
        let folder = Folder::new();
        // A rename happens only when an unsynced object is there already.
        let before = if *step == "rename" {
            vec![folder.store().put_bytes(&wanted, Volatile).unwrap()]
        } else {
            vec![]
        };
        folder.store().put_bytes(b"earlier", Strict).unwrap();
        let status = again(test, &format!("{step}|{}", folder.path().display())).status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{step}: {status:?}");
        check_whole(folder.path());
        let store = folder.store();
        let named = store.contains(&BlobDigest::of(&wanted)).unwrap();
        let late = ["folder sync", "unlink"].contains(step) || !before.is_empty();
        assert_eq!(named, late, "{step}");
        assert_eq!(store.get_bytes(&BlobDigest::of(b"earlier"), 10).unwrap(), b"earlier");
        assert_eq!(store.put_bytes(&wanted, Strict).unwrap().durability, Strict, "{step}");
        assert_eq!(store.get_bytes(&BlobDigest::of(&wanted), u64::MAX).unwrap(), wanted, "{step}");
    }
}
