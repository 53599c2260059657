//! What `requiem proof export` writes, judged by programs of others that read Sigstore bundles: sigstore-go, which is what cosign verifies
//! with, and `@sigstore/verify`. Both take what is ours and refuse whatever was changed in it.

use std::process::Command;

use requiem_tests::{PROGRAMS, setting};
use requiem_xtask::suites::{NODE_MODULES_VARIABLE, SIGSTORE_VARIABLE};
use serde_json::{Value, json};

use crate::interop::Desk;
use crate::python::here;

/// What the statement of ours is.
const ACCEPTED: &str = "accepted https://requiem.dev/attestation/execution/v1";

/// A bundle of a key, exported, with the artifact that it is about.
struct Exported {
    desk: Desk,
    key: &'static str,
}

impl Exported {
    fn by(key: &'static str) -> Self {
        let desk = Desk::signed();
        let trusted = |name: &str, algorithm: &str| {
            let pem = std::fs::read_to_string(desk.path(&format!("{name}.pub"))).unwrap();
            json!({"name": name, "keyId": name, "algorithm": algorithm, "publicKey": pem})
        };
        let keys = [trusted("alice", "ed25519"), trusted("bob", "ecdsa-p256")];
        desk.write(
            "trust.json",
            &json!({"schema": "requiem-trust/1", "threshold": 2, "keys": keys}).to_string(),
        );
        let requiem = setting(PROGRAMS).unwrap().join("requiem").display().to_string();
        let export = ["proof", "export", "proof.json", "--trust", "trust.json", "--key", key];
        desk.must(&requiem, &[&export[..], &["--out", "exported.json", "--artifact", "artifact"]].concat());
        Self { desk, key }
    }

    fn bundle(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.desk.path("exported.json")).unwrap()).unwrap()
    }

    /// What both programs say of each file, in this order: sigstore-go's verdicts, then those of @sigstore/verify.
    fn judged(&self, key: &str, artifact: &str, files: &[String]) -> [Vec<String>; 2] {
        let judge = here().join("sigstore/judge.cjs");
        let mut go = Command::new(setting(SIGSTORE_VARIABLE).unwrap());
        let mut node = Command::new("node");
        node.arg(judge).env("NODE_PATH", setting(NODE_MODULES_VARIABLE).unwrap());
        [&mut go, &mut node].map(|command| {
            command.arg(format!("{key}.pub")).arg(artifact).args(files).current_dir(self.desk.path("."));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let said: Vec<String> =
                String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
            assert_eq!(said.len(), files.len(), "{said:?}");
            said
        })
    }

    /// Each of these bundles is refused by both.
    fn refused(&self, what: &str, bundles: &[Value]) {
        let write = |(number, bundle): (usize, &Value)| {
            let name = format!("changed.{number}.json");
            self.desk.write(&name, &bundle.to_string());
            name
        };
        let files: Vec<String> = bundles.iter().enumerate().map(write).collect();
        for said in self.judged(self.key, "artifact", &files) {
            for (number, verdict) in said.iter().enumerate() {
                assert!(verdict.starts_with("refused"), "{what}, number {number}: {verdict}");
            }
        }
    }

    fn accepted(&self, bundle: &Value) {
        self.desk.write("same.json", &bundle.to_string());
        assert_eq!(self.judged(self.key, "artifact", &["same.json".to_owned()]), [[ACCEPTED], [ACCEPTED]]);
    }
}

/// The bytes of a member in base64, each with one of its bits changed in turn, every `step` bytes.
fn flipped(bundle: &Value, pointer: &str, step: usize) -> Vec<Value> {
    let text = bundle.pointer(pointer).unwrap().as_str().unwrap();
    let bytes = requiem_proof::signer::decoded(text).unwrap();
    let change = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        with(bundle, pointer, requiem_proof::signer::encoded(&bytes).into())
    };
    (0..bytes.len()).step_by(step).map(change).collect()
}

fn with(bundle: &Value, pointer: &str, value: Value) -> Value {
    let mut bundle = bundle.clone();
    *bundle.pointer_mut(pointer).unwrap() = value;
    bundle
}

fn without(bundle: &Value, pointer: &str, name: &str) -> Value {
    let mut bundle = bundle.clone();
    bundle.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    bundle
}

const PAYLOAD: &str = "/dsseEnvelope/payload";
const SIGNATURE: &str = "/dsseEnvelope/signatures/0/sig";

fn judge_all(key: &'static str, other: &'static str) {
    let exported = Exported::by(key);
    let bundle = exported.bundle();
    exported.accepted(&bundle);
    exported.refused("a byte of the statement", &flipped(&bundle, PAYLOAD, 3));
    exported.refused("a byte of the signature", &flipped(&bundle, SIGNATURE, 1));
    let theirs = Exported::by(other).bundle();
    let both = json!([bundle["dsseEnvelope"]["signatures"][0], bundle["dsseEnvelope"]["signatures"][0]]);
    let changed = [
        with(&bundle, "/mediaType", "text/plain".into()),
        with(&bundle, "/dsseEnvelope/payloadType", "application/vnd.in-toto+jsom".into()),
        with(&bundle, "/dsseEnvelope/signatures", json!([])),
        with(&bundle, "/dsseEnvelope/signatures", both),
        with(&bundle, SIGNATURE, theirs.pointer(SIGNATURE).unwrap().clone()),
        with(&bundle, PAYLOAD, "e30=".into()),
        without(&bundle, "", "verificationMaterial"),
        without(&bundle, "", "dsseEnvelope"),
        without(&bundle, "/dsseEnvelope", "payload"),
        theirs,
    ];
    exported.refused("a changed bundle", &changed);
    // The same bundle by another key, and about another artifact.
    let file = ["exported.json".to_owned()];
    exported.desk.write("other", "another artifact");
    for (key, artifact) in [(other, "artifact"), (key, "other")] {
        for said in exported.judged(key, artifact, &file) {
            assert!(said[0].starts_with("refused"), "{key} {artifact}: {said:?}");
        }
    }
}

#[test]
fn an_ed25519_signature() {
    judge_all("alice", "bob");
}

#[test]
fn a_p256_signature() {
    judge_all("bob", "alice");
}
