//! Mutations of a committed corpus against every parser of what others wrote. Nothing may panic, and what is accepted must be what
//! it says it is.
//!
//! A short run with fixed seeds belongs to every `cargo test`. `REQUIEM_FUZZ_SECONDS=600 cargo test -p requiem-proof --test fuzz --
//! --nocapture` runs each target so long, with seeds of its own. `REQUIEM_WRITE_CORPUS=1` writes the corpus anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/fuzzing.rs"]
mod fuzzing;

use std::path::PathBuf;

use requiem_model::canon;
use requiem_proof::envelope::{About, Envelope, bound};
use requiem_proof::json::{parse, strict};
use requiem_proof::replays::Replays;
use requiem_proof::signer::{Checked, Info, PublicKeys, Signed, read};
use requiem_proof::trust::Trust;
use requiem_proof::{AnyFile, Expect, OutputFile, ProofFile, Verified, seal, verify};

/// Here there is none.
pub(crate) use common::none as second_opinion;

fn fuzz(name: &str, accepts: impl Fn(&[u8]) -> bool) {
    fuzzing::fuzz(name, &corpus(name), accepts);
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
