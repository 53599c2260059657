//! What `requiem proof sign` writes, read by programs of others: `verify.py`, the openssl program on what it extracts, and
//! securesystemslib, whose DSSE counts a threshold of keys.

use std::path::Path;
use std::process::{Command, Output};

use requiem_tests::{PROGRAMS, setting};
use serde_json::{Value, json};

use crate::python::{here, interpreter};

pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// A bundle of the vectors, signed by an Ed25519 and a P-256 key of openssl.
    pub(crate) fn signed() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        let vector = here().join("../../crates/proof/tests/vectors/bundle.json");
        let vector: Value = serde_json::from_slice(&std::fs::read(vector).unwrap()).unwrap();
        let file = json!({"body": vector["body"], "executionRoot": vector["executionRoot"], "bundleRoot": vector["bundleRoot"]});
        desk.write("proof.json", &file.to_string());
        std::fs::create_dir(desk.path("keys")).unwrap();
        desk.must("openssl", &["genpkey", "-algorithm", "ed25519", "-out", "keys/alice.pem"]);
        desk.must(
            "openssl",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "keys/bob.pem"],
        );
        let requiem = setting(PROGRAMS).unwrap().join("requiem").display().to_string();
        let signer =
            here().join("../../config/signers/openssl").canonicalize().unwrap().display().to_string();
        let keys = desk.path("keys").display().to_string();
        for key in ["alice", "bob"] {
            desk.must(
                "openssl",
                &["pkey", "-in", &format!("keys/{key}.pem"), "-pubout", "-out", &format!("{key}.pub")],
            );
            desk.must(
                &requiem,
                &["proof", "sign", "proof.json", "--signer", &signer, "--signer-arg", &keys, "--key", key],
            );
        }
        desk
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn proof(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("proof.json")).unwrap()).unwrap()
    }

    fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
        Command::new(program.as_ref()).args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    pub(crate) fn must(&self, program: &str, arguments: &[&str]) {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    }

    fn python(&self, arguments: &[&str]) -> Output {
        self.run(interpreter(), arguments)
    }
}

#[test]
fn the_auditors_way_without_us() {
    let desk = Desk::signed();
    let verify = here().join("verify.py").display().to_string();
    let output = desk.python(&[&verify, "proof.json", "--pae", "signed"]);
    assert!(output.status.success(), "{output:?}");
    desk.must(
        "openssl",
        &[
            "pkeyutl",
            "-verify",
            "-rawin",
            "-pubin",
            "-inkey",
            "alice.pub",
            "-in",
            "signed.0.pae",
            "-sigfile",
            "signed.0.0",
        ],
    );
    desk.must(
        "openssl",
        &["dgst", "-sha256", "-verify", "bob.pub", "-signature", "signed.0.1", "signed.0.pae"],
    );
    // An envelope about something else is refused before anybody asks whose it is.
    let mut forged = desk.proof();
    forged["envelopes"][0]["payloadType"] = "text/plain".into();
    desk.write("forged.json", &forged.to_string());
    let output = desk.python(&[&verify, "forged.json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &said["code"]), (Some(1), &json!("E_PAYLOAD_TYPE")));
}

/// Asks securesystemslib whether so many of the two keys signed.
const SECURESYSTEMSLIB: &str = r#"
import json, sys
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
envelope = Envelope.from_dict(json.load(open(sys.argv[1])))
keys = [SSlibKey.from_crypto(load_pem_public_key(open(name + ".pub", "rb").read()), name) for name in ("alice", "bob")]
try:
    print("accepted", *sorted(key.keyid for key in envelope.verify(keys, int(sys.argv[2])).values()))
except Exception as error:
    print("refused", type(error).__name__)
"#;

#[test]
fn securesystemslib_accepts_our_envelopes_and_counts_keys() {
    let desk = Desk::signed();
    let judge = |envelope: &Value, threshold: &str| {
        desk.write("envelope.json", &envelope.to_string());
        let output = desk.python(&["-c", SECURESYSTEMSLIB, "envelope.json", threshold]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let envelope = desk.proof()["envelopes"][0].clone();
    assert_eq!(judge(&envelope, "2"), "accepted alice bob");
    let mut alone = envelope.clone();
    alone["signatures"].as_array_mut().unwrap().truncate(1);
    assert_eq!(judge(&alone, "1"), "accepted alice");
    assert!(judge(&alone, "2").starts_with("refused"));
    let mut forged = envelope;
    forged["payloadType"] = "application/vnd.in-toto+jsom".into();
    assert!(judge(&forged, "1").starts_with("refused"));
}
