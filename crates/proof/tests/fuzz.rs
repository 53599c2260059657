//! Mutations of a committed corpus against every parser of what others wrote. Nothing may panic, and what is accepted must be what
//! it says it is.
//!
//! A short run with fixed seeds belongs to every `cargo test`. `REQUIEM_FUZZ_SECONDS=600 cargo test -p requiem-proof --test fuzz --
//! --nocapture` runs each target so long, with seeds of its own. `REQUIEM_WRITE_CORPUS=1` writes the corpus anew.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests fail the test")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use requiem_model::canon;
use requiem_proof::envelope::{About, Envelope, bound};
use requiem_proof::json::{parse, strict};
use requiem_proof::replays::Replays;
use requiem_proof::signer::{Checked, Info, PublicKeys, Signed, read};
use requiem_proof::trust::Trust;
use requiem_proof::{AnyFile, Expect, OutputFile, ProofFile, Verified, seal, verify};

/// Here there is none.
pub(crate) use common::none as second_opinion;

/// Inputs of each target in a short run.
const SHORT: u64 = 4_000;
/// Longest input that mutations make.
const MAX_BYTES: usize = 64 * 1024;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// Pieces that parsers stumble over.
const PIECES: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\u00e9",
    "null",
    "true",
    "-0",
    "1e9",
    "0.5",
    "9007199254740992",
    "18446744073709551615",
    "18446744073709551616",
    "\u{e9}",
    "\u{0}",
    "\u{7f}",
    "\u{202e}",
    "blake3:",
    "==",
    "../",
    "/",
    "requiem-bundle/1",
    "\"kind\":\"tree\"",
    "E",
    "-",
    " ",
    "\n",
    "{\"a\":1,\"a\":1}",
];

/// A few changes of one input, now and then with a part of another.
fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(24)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            3 => drop(bytes.splice(at..end, [])),
            4 => {
                let copied = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copied));
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(200)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => bytes.truncate(at.max(bytes.len().saturating_sub(64))),
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

/// Runs a target over its corpus and mutations of it. `accepts` says whether it took the input, and checks what it took.
fn fuzz(name: &str, accepts: impl Fn(&[u8]) -> bool) {
    let corpus = corpus(name);
    assert!(corpus.iter().any(|input| accepts(input)), "{name}: nothing of the corpus is accepted");
    let seconds: Option<u64> = std::env::var("REQUIEM_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let seed = if seconds.is_some() { u64::from(std::process::id()) } else { 1 };
    let (mut random, begun) = (Random(seed), Instant::now());
    let (mut tried, mut accepted) = (0u64, 0u64);
    let going_on = |tried| match seconds {
        Some(seconds) => begun.elapsed() < Duration::from_secs(seconds),
        None => tried < SHORT,
    };
    while going_on(tried) {
        let input = mutated(&mut random, &corpus);
        // The input of a panic is told, so that it can join the corpus.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| accepts(&input)));
        let taken = outcome.unwrap_or_else(|_| {
            panic!("{name}: seed {seed}, input {tried}: {}", String::from_utf8_lossy(&input))
        });
        accepted += u64::from(taken);
        tried += 1;
    }
    println!(
        "fuzz {name}: {tried} inputs, {accepted} accepted, seed {seed}, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}

fn folder(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    if std::env::var_os("REQUIEM_WRITE_CORPUS").is_some() {
        write(name);
    }
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

// ---- what the corpus holds ----------------------------------------------------------------------------------------

fn verified() -> Verified {
    verify(&common::sealed().body, &Expect::default()).unwrap()
}

fn envelopes() -> Vec<Envelope> {
    let mut envelope = requiem_proof::envelope::unsigned(&verified(), &"0".repeat(64)).unwrap();
    for keyid in ["alice", "bob"] {
        let sig = requiem_proof::signer::encoded(&[7; 64]);
        envelope.signatures.push(requiem_proof::envelope::Signature { keyid: keyid.into(), sig });
    }
    vec![envelope]
}

fn write(name: &str) {
    let sealed = common::sealed();
    let mut signed = ProofFile::from(sealed.clone());
    signed.envelopes = envelopes();
    let mut receipts = Replays::of(&verified());
    receipts.push(sealed.clone());
    let output = |envelopes| OutputFile::new(&verified(), &common::path("report.csv"), envelopes).unwrap();
    let json = |value: &dyn erased::Json| value.text();
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../model/tests/vectors/canon.json")).unwrap();
    let texts: Vec<String> = match name {
        "canon" => {
            let all = vectors["good"].as_array().unwrap().iter().chain(vectors["bad"].as_array().unwrap());
            all.filter_map(|vector| vector["bytes"].as_str().map(str::to_owned)).collect()
        }
        "bundle" => vec![sealed.body.clone()],
        "file" => vec![sealed.to_file().unwrap(), signed.to_json().unwrap()],
        "output" => vec![json(&output(vec![])), json(&output(envelopes()))],
        "envelope" => vec![json(&envelopes())],
        "receipts" => vec![json(&receipts)],
        "reply" => [
            r#"{"protocols":["requiem-signer/1"],"name":"n","version":"1","verbs":["info","sign"]}"#,
            r#"{"keys":[{"keyId":"k","algorithm":"ed25519","publicKey":"p","from":"2026-01-01T00:00:00.000Z"}]}"#,
            r#"{"keyId":"k","algorithm":"sshsig","signature":"c2ln","publicKey":"ssh-ed25519 AAAA"}"#,
            r#"{"valid":false,"reason":"no"}"#,
            r#"{"error":{"code":"c","message":"m"}}"#,
        ]
        .map(str::to_owned)
        .to_vec(),
        "trust" => vec![
            r#"{"schema":"requiem-trust/1","threshold":1,"keys":[{"name":"a","keyId":"a","algorithm":"ed25519","publicKey":"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAwzT8PMOOkC4AWRpC3+s+S8uEyH3Dtu2NkBKQvuT+v00=\n-----END PUBLIC KEY-----\n"},{"name":"b","keyId":"b","algorithm":"sshsig","publicKey":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKp9CYHmycOHgFcLzcUYv+5b2xD5fHEUgeVFtxPotMel x","until":"2027-01-01T00:00:00.000Z"}]}"#.to_owned(),
        ],
        other => panic!("{other}"),
    };
    std::fs::create_dir_all(folder(name)).unwrap();
    for (index, text) in texts.iter().enumerate() {
        std::fs::write(folder(name).join(format!("{index:03}")), text).unwrap();
    }
}

mod erased {
    /// What has a JSON form.
    pub(crate) trait Json {
        fn text(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn text(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}

// ---- targets ------------------------------------------------------------------------------------------------------

#[test]
fn canonical_json() {
    fuzz("canon", |input| match canon::parse(input) {
        Ok(value) => {
            assert_eq!(canon::encode(&value).as_bytes(), input);
            let again: serde_json::Value = canon::from_slice(input).unwrap();
            assert_eq!(canon::to_vec(&again).unwrap(), input);
            true
        }
        Err(_) => false,
    });
}

#[test]
fn bundles() {
    let honest = common::sealed();
    fuzz("bundle", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return false };
        let claimed = verify(text, &common::roots_of(&honest));
        assert_eq!(claimed.is_ok(), text == honest.body, "another body has the honest roots");
        match verify(text, &Expect::default()) {
            Ok(found) => {
                assert_eq!(seal(&found.body).unwrap().body, text);
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn files() {
    let honest = common::sealed();
    fuzz("file", |input| match AnyFile::parse(input) {
        Ok(AnyFile::Bundle(file)) => {
            let again = ProofFile::parse(file.to_json().unwrap().as_bytes()).unwrap();
            assert_eq!((again.body.as_str(), &again.envelopes), (file.body.as_str(), &file.envelopes));
            let verdict = file.verify();
            assert!(verdict.is_err() || file.bundle_root != honest.bundle_root || file.body == honest.body);
            verdict.is_ok()
        }
        _ => false,
    });
}

#[test]
fn outputs_by_themselves() {
    let (honest, all) = (common::sealed(), verified().body.execution.result.outputs);
    fuzz("output", |input| match AnyFile::parse(input) {
        Ok(AnyFile::Output(file)) if file.verify().is_ok() => {
            let theirs = file.execution_root == honest.execution_root;
            let known = all
                .iter()
                .any(|output| output.path == file.output.path && output.content == file.output.content);
            assert!(!theirs || known, "an output that the bundle does not have: {file:?}");
            true
        }
        _ => false,
    });
}

#[test]
fn dsse_envelopes() {
    let honest = envelopes();
    let about = About::bundle(&verified(), "0".repeat(64));
    fuzz("envelope", |input| {
        let Ok(read) = parse(input).and_then(strict::<Vec<Envelope>>) else { return false };
        match bound(&read, &about) {
            Ok(signatures) => {
                assert!(read.iter().all(|envelope| envelope.payload == honest[0].payload));
                assert_eq!(
                    signatures.len(),
                    read.iter().map(|envelope| envelope.signatures.len()).sum::<usize>()
                );
                !read.is_empty()
            }
            Err(_) => false,
        }
    });
}

#[test]
fn answers_of_signers() {
    fuzz("reply", |input| {
        let taken = [
            read::<Info>(input, true).is_ok(),
            read::<PublicKeys>(input, true).is_ok(),
            read::<Signed>(input, true).is_ok(),
            read::<Checked>(input, true).is_ok(),
        ];
        assert!(read::<Signed>(input, false).is_err(), "an answer after a failure");
        assert!(taken.iter().filter(|taken| **taken).count() <= 1, "one answer to two questions");
        taken.contains(&true)
    });
}

#[test]
fn receipts() {
    let original = verified();
    fuzz("receipts", |input| match Replays::parse(input) {
        Ok(receipts) => {
            // A tally never counts more than there is.
            if let Ok(tally) = receipts.tally(&original) {
                assert!(tally.agreed <= tally.replayed && tally.replayed <= 64);
            }
            true
        }
        Err(_) => false,
    });
}

#[test]
fn trust_files() {
    fuzz("trust", |input| match Trust::parse(input) {
        Ok(trust) => {
            let keys = trust.keys();
            let distinct = keys
                .iter()
                .all(|key| keys.iter().filter(|other| other.material == key.material).count() == 1);
            assert!(distinct && (1..=keys.len()).contains(&trust.threshold()));
            true
        }
        Err(_) => false,
    });
}
