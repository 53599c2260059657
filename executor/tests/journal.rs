//! The journal against torn tails, flipped bits, kills and a disk that is full.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use requiem_executor::journal::{
    Asked, AttemptKey, InlineBlob, Journal, JournalError, JournalOptions, Logged, Phase, Record, Replay,
    Retire,
};
use requiem_model::attempt::{Identity, SealedAttempt};
use requiem_model::result::FailureReason;
use requiem_model::{BlobDigest, BundleRoot, ExecutionRoot, Failure, RequestDigest};

fn asked(uid: &str, attempt: u32) -> Asked {
    let identity =
        Identity { namespace: "team-a".into(), name: "job".into(), uid: uid.into(), generation: 1, attempt };
    Asked { identity, request_digest: RequestDigest::from_bytes([1; 32]) }
}

fn started(uid: &str) -> Record {
    Record::Started { asked: asked(uid, 1), at: "2026-01-01T00:00:00.000Z".into() }
}

fn sealed(uid: &str) -> Record {
    let body = format!("{{\"of\":\"{uid}\"}}");
    let blobs = vec![InlineBlob::new(BlobDigest::of(uid.as_bytes()), uid.as_bytes().to_vec())];
    let sealed = SealedAttempt {
        body,
        execution_root: ExecutionRoot::from_bytes([2; 32]),
        bundle_root: BundleRoot::from_bytes([3; 32]),
        stdout_tail: uid.into(),
        stderr_tail: String::new(),
    };
    Record::Sealed { asked: asked(uid, 1), sealed: Box::new(sealed), blobs }
}

fn acked(uid: &str) -> Record {
    Record::Acked { key: AttemptKey { uid: uid.into(), attempt: 1 } }
}

fn retire_nothing() -> Retire {
    Box::new(|retired: &[Logged]| Err(format!("{} attempts were to be retired", retired.len())))
}

fn open(dir: &Path) -> (Journal, Replay) {
    Journal::open(dir, JournalOptions::default(), retire_nothing()).unwrap()
}

fn sealed_uids(replay: &Replay) -> Vec<String> {
    let sealed = replay.attempts.iter().filter(|(_, logged)| matches!(logged.phase, Phase::Sealed { .. }));
    sealed.map(|(key, _)| key.uid.clone()).collect()
}

fn reason(replay: &Replay, uid: &str) -> Option<FailureReason> {
    match &replay.attempts.get(&AttemptKey { uid: uid.into(), attempt: 1 })?.phase {
        Phase::Failed(failure) => Some(failure.reason),
        _ => None,
    }
}

#[test]
fn what_was_promised_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, replay) = open(dir.path());
    assert!(replay.attempts.is_empty());
    journal.append(&started("a")).unwrap();
    journal.append_durable(&sealed("a")).unwrap();
    journal.append(&started("b")).unwrap();
    journal.append(&started("c")).unwrap();
    let failure = Failure::new(FailureReason::InputMissing, "input x", "put it");
    journal.append_durable(&Record::Failed { asked: asked("c", 1), failure }).unwrap();
    journal.append_durable(&Record::Cancelled { asked: asked("d", 1) }).unwrap();
    drop(journal);
    for _reopen in 0..3 {
        let (_journal, replay) = open(dir.path());
        assert_eq!(sealed_uids(&replay), ["a"]);
        assert_eq!(reason(&replay, "b"), Some(FailureReason::ExecutorLost));
        assert_eq!(reason(&replay, "c"), Some(FailureReason::InputMissing));
        assert_eq!(reason(&replay, "d"), Some(FailureReason::Cancelled));
    }
}

#[test]
fn one_store_has_one_executor() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let second = Journal::open(dir.path(), JournalOptions::default(), retire_nothing());
    assert!(matches!(second, Err(JournalError::Locked { .. })));
    drop(journal);
    open(dir.path());
}

/// A folder in memory, for tests that open a journal thousands of times and are not about the disk.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// The file as it is after three synced results, and where each of them ends.
fn three_results() -> (Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("attempts.log");
    let (journal, _) = open(dir.path());
    let mut ends = vec![];
    for uid in ["a", "b", "c"] {
        journal.append_durable(&sealed(uid)).unwrap();
        ends.push(fs::read(&log).unwrap().len());
    }
    drop(journal);
    (fs::read(&log).unwrap(), ends)
}

#[test]
fn a_journal_cut_at_any_byte_keeps_every_whole_result_and_goes_on() {
    let (bytes, ends) = three_results();
    let dir = memory_dir();
    let log = dir.path().join("attempts.log");
    for cut in 0..=bytes.len() {
        fs::write(&log, &bytes[..cut]).unwrap();
        let (journal, replay) = open(dir.path());
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(sealed_uids(&replay), ["a", "b", "c"][..whole], "cut at {cut}");
        // Each open syncs, so only some cuts check that the file can be continued.
        if cut % 16 == 0 {
            journal.append_durable(&sealed("z")).unwrap();
            drop(journal);
            let expected: Vec<&str> = ["a", "b", "c"][..whole].iter().copied().chain(["z"]).collect();
            assert_eq!(sealed_uids(&open(dir.path()).1), expected, "cut at {cut}, continued");
        }
    }
}

#[test]
fn a_flipped_bit_costs_at_most_its_own_record_and_is_never_read_as_something_else() {
    let (bytes, ends) = three_results();
    let dir = memory_dir();
    let log = dir.path().join("attempts.log");
    for at in (48..bytes.len()).step_by(7) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&log, &bad).unwrap();
        let (_journal, replay) = open(dir.path());
        let hit = ends.iter().position(|end| at < *end).unwrap();
        let mut expected = vec!["a", "b", "c"];
        expected.remove(hit);
        assert_eq!(sealed_uids(&replay), expected, "byte {at}");
        let aside = dir.path().join("damaged-1.log");
        assert_eq!(aside.exists(), hit < 2, "a damaged journal is kept for people, a torn tail is not");
        if aside.exists() {
            fs::remove_file(aside).unwrap();
        }
    }
}

#[test]
fn a_file_that_is_no_journal_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("attempts.log");
    let foreign = vec![b'x'; 500];
    fs::write(&log, &foreign).unwrap();
    let opened = Journal::open(dir.path(), JournalOptions::default(), retire_nothing());
    assert!(matches!(opened, Err(JournalError::Foreign { .. })));
    assert_eq!(fs::read(&log).unwrap(), foreign);
}

#[test]
fn many_waiters_share_few_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let journal = Arc::new(journal);
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let journal = Arc::clone(&journal);
            std::thread::spawn(move || {
                (0..20).for_each(|n| journal.append_durable(&sealed(&format!("{writer}-{n}"))).unwrap());
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let fsyncs = journal.stats().fsyncs.load(Ordering::Relaxed);
    drop(journal);
    assert_eq!(sealed_uids(&open(dir.path()).1).len(), 320);
    assert!(fsyncs < 320, "{fsyncs} syncs for 320 records of 16 writers");
}

#[test]
fn compaction_retires_only_what_was_archived_and_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let archived = Arc::new(Mutex::new(Vec::new()));
    let retire = {
        let archived = Arc::clone(&archived);
        move || -> Retire {
            let archived = Arc::clone(&archived);
            Box::new(move |retired: &[Logged]| {
                archived
                    .lock()
                    .unwrap()
                    .extend(retired.iter().map(|logged| logged.asked.identity.uid.clone()));
                Ok(())
            })
        }
    };
    let options = JournalOptions { keep_acked: 2, compact_bytes: 4096 };
    let (journal, _) = Journal::open(dir.path(), options, retire()).unwrap();
    for number in 0..100 {
        let uid = format!("u{number:03}");
        journal.append(&started(&uid)).unwrap();
        journal.append_durable(&sealed(&uid)).unwrap();
        if number % 2 == 0 {
            journal.append(&acked(&uid)).unwrap();
        }
    }
    drop(journal);
    let mid_way = archived.lock().unwrap().len();
    assert!(mid_way > 0, "nothing was compacted while the journal was open");
    let (_journal, replay) = Journal::open(dir.path(), options, retire()).unwrap();
    let archived = archived.lock().unwrap();
    assert_eq!(archived.len(), 48, "all acknowledged but two, each once: {archived:?}");
    assert_eq!(sealed_uids(&replay).len(), 52);
    assert!(archived.iter().all(|uid| !replay.attempts.keys().any(|key| key.uid == *uid)));
    assert!(["u096", "u098"].iter().all(|uid| sealed_uids(&replay).iter().any(|kept| kept == uid)));
}

#[test]
fn what_cannot_be_archived_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.append_durable(&sealed("a")).unwrap();
    journal.append_durable(&acked("a")).unwrap();
    drop(journal);
    let options = JournalOptions { keep_acked: 0, ..JournalOptions::default() };
    let refused = Journal::open(dir.path(), options, retire_nothing());
    assert!(matches!(refused, Err(JournalError::Archive(_))));
    assert_eq!(sealed_uids(&open(dir.path()).1), ["a"]);
}

#[test]
fn what_was_acknowledged_by_a_killed_process_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = AtomicUsize::new(0);
    let mut promised: Vec<String> = Vec::new();
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "appends_until_killed", "--nocapture"])
            .env("REQUIEM_TEST_JOURNAL", dir.path())
            .env("REQUIEM_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different place in the stream of appends each time.
        let until = 3 + round * 7;
        let mut seen = 0;
        while seen < until {
            let line = lines.next().expect("the child ended").unwrap();
            if let Some((_noise, uid)) = line.split_once("durable ") {
                promised.push(uid.to_owned());
                seen += 1;
            }
        }
        child.kill().unwrap();
        // What the child had printed before it died was promised as well.
        for line in lines.map_while(Result::ok) {
            promised.extend(line.split_once("durable ").map(|(_noise, uid)| uid.to_owned()));
        }
        child.wait().unwrap();
        acknowledged.fetch_add(seen, Ordering::Relaxed);
        let (_journal, replay) = open(dir.path());
        let there = sealed_uids(&replay);
        let missing: Vec<_> = promised.iter().filter(|uid| !there.contains(uid)).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} were acknowledged and are gone");
        let unended = replay.attempts.values().filter(|logged| logged.missing_end().is_some()).count();
        assert_eq!(unended, 0, "every attempt of a dead process has an end");
    }
    assert!(acknowledged.load(Ordering::Relaxed) > 400);
}

/// The child of [`what_was_acknowledged_by_a_killed_process_is_there`]; by itself it has nothing to do.
#[test]
fn appends_until_killed() {
    let Some(dir) = std::env::var_os("REQUIEM_TEST_JOURNAL") else { return };
    let round = std::env::var("REQUIEM_TEST_ROUND").unwrap();
    let (journal, _) = open(Path::new(&dir));
    let journal = Arc::new(journal);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (journal, round) = (Arc::clone(&journal), round.clone());
            std::thread::spawn(move || {
                for number in 0.. {
                    let uid = format!("r{round}-w{writer}-{number}");
                    journal.append(&started(&uid)).unwrap();
                    journal.append_durable(&sealed(&uid)).unwrap();
                    // One write per line: a killed process leaves no half-printed promise.
                    std::io::stdout().lock().write_all(format!("durable {uid}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_full_disk_refuses_a_record_and_keeps_the_others() {
    let disk = SmallDisk::mount("256k");
    let (journal, _) = open(&disk.path().join("journal"));
    let mut kept = vec![];
    let refused = loop {
        let uid = format!("{:0>2000}", kept.len());
        match journal.append_durable(&sealed(&uid)) {
            Ok(()) => kept.push(uid),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full { .. }), "{refused}");
    assert_eq!(journal.stopped(), None, "a full disk is no reason to stop for good");
    assert!(!kept.is_empty());
    let (log, sound) =
        (disk.path().join("journal/attempts.log"), journal.stats().bytes.load(Ordering::Relaxed));
    assert_eq!(fs::metadata(log).unwrap().len(), sound, "nothing is left of the refused record");
    drop(journal);
    let (_journal, replay) = open(&disk.path().join("journal"));
    assert_eq!(sealed_uids(&replay), kept);
}

/// A file system of a few pages. Needs root: without it this test must fail, not skip.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "this test mounts a small tmpfs and needs root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}
