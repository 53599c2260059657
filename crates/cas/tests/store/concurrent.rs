use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;
use std::thread;

use crate::common::*;

#[test]
fn sixteen_writers_of_one_blob_store_it_once() {
    for (bytes, wish) in [(10_000, Volatile), (10_000, Strict), (LARGE + 1, Volatile)] {
        let folder = Folder::new();
        // Handles of their own, as sixteen processes would have.
        let stores: Vec<_> = (0..16).map(|_| folder.store()).collect();
        let content = noise(bytes as u64, bytes);
        let barrier = Barrier::new(stores.len());
        let put = |store: &requiem_cas::TenantStore| {
            barrier.wait();
            store.put_reader(&content[..], wish).unwrap()
        };
        let receipts: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = stores.iter().map(|store| scope.spawn(|| put(store))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(
            receipts.iter().all(|receipt| receipt.digest == receipts[0].digest && receipt.durability >= wish)
        );
        if wish == Volatile {
            assert_eq!(receipts.iter().filter(|receipt| !receipt.deduplicated).count(), 1);
        }
        let objects = objects(folder.path());
        assert_eq!(objects.len(), 1);
        assert_eq!(fs::metadata(&objects[0]).unwrap().nlink(), 1);
        assert!(leftovers(folder.path()).is_empty());
        assert_eq!(stores[3].get_bytes(&receipts[0].digest, bytes as u64).unwrap(), content);
    }
}

#[test]
fn a_living_process_keeps_its_temporary_files_and_a_dead_one_does_not() {
    if let Some(root) = role() {
        let store = open(root.as_ref());
        let mut writer = store.writer(Volatile);
        writer.write_all(&noise(1, LARGE + 5)).unwrap();
        eprintln!("WRITING");
        let mut go = [0];
        if std::io::stdin().read(&mut go).unwrap() == 1 {
            eprintln!("{}", writer.finish().unwrap().digest);
        }
        return;
    }
    let folder = Folder::new();
    let test = "concurrent::a_living_process_keeps_its_temporary_files_and_a_dead_one_does_not";
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            let mut child = again(test, &folder.path().to_string_lossy()).spawn().unwrap();
            let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
            assert_eq!(said.next().unwrap().unwrap(), "WRITING");
            (child, said)
        })
        .collect();
    assert_eq!((sessions(folder.path()), leftovers(folder.path()).len()), (2, 2));
    let store = folder.store();
    assert_eq!(
        (sessions(folder.path()), leftovers(folder.path()).len()),
        (3, 2),
        "a living process lost its file"
    );

    let (mut dead, _said) = children.pop().unwrap();
    dead.kill().unwrap();
    dead.wait().unwrap();
    drop(folder.store());
    assert_eq!((sessions(folder.path()), leftovers(folder.path()).len()), (2, 1));

    let (mut living, mut said) = children.pop().unwrap();
    living.stdin.take().unwrap().write_all(b"!").unwrap();
    let digest = said.next().unwrap().unwrap().parse().unwrap();
    assert!(living.wait().unwrap().success());
    assert_eq!(store.get_bytes(&digest, u64::MAX).unwrap(), noise(1, LARGE + 5));
    assert_eq!((sessions(folder.path()), leftovers(folder.path()).len()), (1, 0));
}

#[test]
fn two_processes_fill_one_store() {
    let count = 150;
    if let Some(role) = role() {
        let (seed, root) = role.split_once(' ').unwrap();
        let store = open(root.as_ref());
        for number in 0..count {
            // Half of it the other process writes too.
            let shared = number % 2 == 0;
            let seed = if shared { 0 } else { seed.parse::<u64>().unwrap() };
            let content = noise(seed * 1000 + number, 3000);
            let receipt = store.put_bytes(&content, Volatile).unwrap();
            assert_eq!(store.get_bytes(&receipt.digest, 3000).unwrap(), content);
        }
        return;
    }
    let folder = Folder::new();
    let test = "concurrent::two_processes_fill_one_store";
    let start = |seed| again(test, &format!("{seed} {}", folder.path().display())).spawn().unwrap();
    let children = [1, 2].map(start);
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(objects(folder.path()).len(), 75 * 3);
    assert_eq!(quarantined(folder.path()), 0);
}
