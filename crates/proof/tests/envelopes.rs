//! Attacks on what is beside a bundle: envelopes, trust files, receipts, outputs by themselves, answers of signers. Keys are stand-ins
//! here: a signature is a key's if it is its name over the bytes. Real ones are in `crates/cli/tests/sign.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{body, judge_file, path, roots_of, sealed};
use requiem_proof::compare::{Divergence, divergences};
use requiem_proof::envelope::{About, Bound, Envelope, Signature, bound, pae, unsigned};
use requiem_proof::replays::{ReplayError, Replays, Tally};
use requiem_proof::signer::{Checked, PublicKeys, ReplyError, Signed, read};
use requiem_proof::trust::{SignatureError, Signers, Trust, TrustedKey};
use requiem_proof::{BundleBody, OutputFile, ProofFile, Verified, seal, verify};
use serde_json::{Value, json};

/// Here there is none. The suite `verifier` has one, and includes this file.
#[allow(unused_imports, reason = "the including file has its own")]
pub(crate) use common::none as second_opinion;

// ---- a bundle, its statement, stand-in keys -------------------------------------------------------------

/// SHA-256 of the good body, as any tool prints it.
const SHA256: &str = "0094dbc99fac13e79998f73a8f53a58fee21570cf170b80258b90bc35818bc4b";

fn verified() -> Verified {
    verify(&sealed().body, &roots_of(&sealed())).unwrap()
}

fn about() -> About {
    About::bundle(&verified(), SHA256.to_owned())
}

fn statement() -> String {
    let payload = unsigned(&verified(), SHA256).unwrap().payload;
    String::from_utf8(STANDARD.decode(payload).unwrap()).unwrap()
}

/// An envelope around any text, signed by stand-ins.
fn around(payload: &str, signers: &[&str]) -> Envelope {
    let mut envelope = unsigned(&verified(), SHA256).unwrap();
    envelope.payload = STANDARD.encode(payload);
    let bytes = pae(&envelope.payload_type, payload.as_bytes());
    envelope.signatures = signers.iter().map(|name| signature(name, name, &bytes)).collect();
    envelope
}

fn signature(keyid: &str, by: &str, bytes: &[u8]) -> Signature {
    let signed = [by.as_bytes(), b":", blake3::hash(bytes).as_bytes()].concat();
    Signature { keyid: keyid.to_owned(), sig: STANDARD.encode(signed) }
}

fn made_by(key: &TrustedKey, bound: &Bound) -> bool {
    let signed = [key.entry.name.as_bytes(), b":", blake3::hash(&bound.pae).as_bytes()].concat();
    bound.signature == signed
}

fn pem(seed: u8) -> String {
    let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    der.extend([seed; 32]);
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn ssh(seed: u8) -> String {
    let blob = [b"\0\0\0\x0bssh-ed25519\0\0\0\x20".as_slice(), &[seed; 32]].concat();
    format!("ssh-ed25519 {} somebody@somewhere", STANDARD.encode(blob))
}

fn key(name: &str, seed: u8) -> Value {
    json!({"name": name, "keyId": name, "algorithm": "ed25519", "publicKey": pem(seed)})
}

fn trust_of(threshold: usize, keys: &[Value]) -> Result<Trust, &'static str> {
    let file = json!({"schema": "requiem-trust/1", "threshold": threshold, "keys": keys});
    Trust::parse(file.to_string().as_bytes()).map_err(|error| error.code())
}

fn trust(threshold: usize) -> Trust {
    trust_of(threshold, &[key("alice", 1), key("bob", 2), key("carol", 3)]).unwrap()
}

fn judged(envelopes: &[Envelope], threshold: usize) -> Result<Signers, &'static str> {
    let signatures = bound(envelopes, &about()).map_err(|error| error.code())?;
    trust(threshold).judge(&signatures, made_by).map_err(|error| error.code())
}

fn names(envelopes: &[Envelope], threshold: usize) -> Result<Vec<String>, &'static str> {
    judged(envelopes, threshold).map(|signers| signers.names)
}

// ---- envelopes -------------------------------------------------------------------------------------------

#[test]
fn the_pae_is_that_of_the_specification() {
    // The example of the DSSE specification.
    let bytes = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    assert_eq!(pae("", "\u{e9}".as_bytes()), "DSSEv1 0  2 \u{e9}".as_bytes());
}

#[test]
fn the_statement_has_one_spelling() {
    let honest = statement();
    assert_eq!(names(&[around(&honest, &["alice"])], 1), Ok(vec!["alice".to_owned()]));
    let check = |payload: &str, code: &str| {
        assert_eq!(names(&[around(payload, &["alice"])], 1), Err(code), "{payload}");
    };
    // Canonicalisation tricks: the same meaning in other bytes.
    check(&format!("{honest} "), "E_STATEMENT");
    check(&honest.replacen(':', ": ", 1), "E_STATEMENT");
    check(&honest.replacen("in-toto", "in\\u002dtoto", 1), "E_STATEMENT");
    check(&honest.replacen("https://requiem", "https:\\/\\/requiem", 1), "E_STATEMENT");
    check(&honest.replacen("{", "{\"_type\":\"https://in-toto.io/Statement/v1\",", 1), "E_STATEMENT");
    check(&honest.replacen("\"predicate\":", "\"more\":1,\"predicate\":", 1), "E_STATEMENT");
    check(&honest.replacen("\"sha256\":", "\"blake3\":\"00\",\"sha256\":", 1), "E_STATEMENT");
    check(&honest.replacen("Statement/v1", "Statement/v0.1", 1), "E_STATEMENT");
    check(&honest.replacen("execution/v1", "execution/v2", 1), "E_STATEMENT");
    check("", "E_STATEMENT");
    check("[]", "E_STATEMENT");
    check(&"[".repeat(100_000), "E_STATEMENT");
}

#[test]
fn a_statement_about_another_bundle_is_refused() {
    let honest = statement();
    let about = about();
    let flip = |from: &str| {
        let last = if from.ends_with('0') { "1" } else { "0" };
        honest.replace(from, &format!("{}{last}", &from[..from.len() - 1]))
    };
    for part in [
        about.bundle_root.to_string(),
        about.execution_root.to_string(),
        about.request_digest.unwrap().to_string(),
        SHA256.to_owned(),
    ] {
        assert_eq!(names(&[around(&flip(&part), &["alice"])], 1), Err("E_STATEMENT"), "{part}");
    }
    let later = honest.replace("20:15:01.456Z", "20:15:01.457Z");
    assert_eq!(names(&[around(&later, &["alice"])], 1), Err("E_STATEMENT"));
    // Another run of the same request: equal execution root, other bundle.
    let mut other = body();
    other.run.identity.uid = "another".into();
    let other = verify(&seal(&other).unwrap().body, &Default::default()).unwrap();
    let theirs = unsigned(&other, SHA256).unwrap();
    assert_eq!(other.execution_root, about.execution_root);
    assert_eq!(bound(&[theirs], &about).unwrap_err().code(), "E_STATEMENT");
}

#[test]
fn another_payload_type_is_refused() {
    for other in ["application/vnd.in-toto+jsom", "application/json", "", "APPLICATION/vnd.in-toto+json"] {
        let mut envelope = around(&statement(), &["alice"]);
        envelope.payload_type = other.to_owned();
        assert_eq!(names(&[envelope], 1), Err("E_PAYLOAD_TYPE"), "{other}");
    }
    // The type is under the signature: one made for another type does not count.
    let mut envelope = around(&statement(), &[]);
    envelope.signatures = vec![signature("alice", "alice", &pae("text/plain", statement().as_bytes()))];
    assert_eq!(names(&[envelope], 1), Err("E_SIGNATURE"));
}

#[test]
fn base64_has_one_spelling() {
    let honest = around(&statement(), &["alice"]);
    let mut changes: Vec<Envelope> = Vec::new();
    for tail in ["=", "\n", " ", "A", "===="] {
        let mut changed = honest.clone();
        changed.payload.push_str(tail);
        changes.push(changed);
        let mut changed = honest.clone();
        changed.signatures[0].sig.push_str(tail);
        changes.push(changed);
    }
    let mut cut = honest.clone();
    cut.signatures[0].sig.pop();
    changes.push(cut);
    let mut urlsafe = honest.clone();
    urlsafe.payload = urlsafe.payload.replace(['+', '/'], "-");
    urlsafe.payload.insert(0, '_');
    changes.push(urlsafe);
    let mut empty = honest;
    empty.signatures[0].sig.clear();
    changes.push(empty);
    for envelope in changes {
        assert_eq!(names(std::slice::from_ref(&envelope), 1), Err("E_ENVELOPE"), "{envelope:?}");
    }
}

#[test]
fn envelopes_signatures_and_key_ids_are_bounded() {
    let honest = around(&statement(), &["alice"]);
    assert_eq!(names(&vec![honest.clone(); 17], 1), Err("E_ENVELOPE"));
    let mut many = honest.clone();
    many.signatures = vec![many.signatures[0].clone(); 65];
    assert_eq!(names(&[many], 1), Err("E_ENVELOPE"));
    let mut long = honest.clone();
    long.signatures[0].keyid = "k".repeat(257);
    assert_eq!(names(&[long], 1), Err("E_ENVELOPE"));
    let mut huge = honest;
    huge.signatures[0].sig = STANDARD.encode(vec![0; 16 * 1024 + 1]);
    assert_eq!(names(&[huge], 1), Err("E_ENVELOPE"));
}

// ---- whose signatures count ------------------------------------------------------------------------------

#[test]
fn no_signature_is_no_signature() {
    assert_eq!(names(&[], 1), Err("E_UNSIGNED"));
    assert_eq!(names(&[around(&statement(), &[])], 1), Err("E_UNSIGNED"));
    assert_eq!(names(&[around(&statement(), &["mallory"])], 1), Err("E_UNSIGNED"));
}

#[test]
fn the_threshold_counts_distinct_keys() {
    let signed = |by: &[&str]| vec![around(&statement(), by)];
    assert_eq!(names(&signed(&["bob", "alice"]), 2), Ok(vec!["alice".into(), "bob".into()]));
    assert_eq!(names(&signed(&["alice", "alice", "alice"]), 2), Err("E_THRESHOLD"));
    // The same key in two envelopes.
    assert_eq!(names(&[signed(&["alice"]), signed(&["alice"])].concat(), 2), Err("E_THRESHOLD"));
    assert_eq!(names(&[signed(&["alice"]), signed(&["bob"])].concat(), 2).unwrap().len(), 2);
    // The same key under an alias in the envelope.
    let mut envelope = around(&statement(), &["alice"]);
    let bytes = pae(&envelope.payload_type, statement().as_bytes());
    envelope.signatures.push(signature("alice-2", "alice", &bytes));
    assert_eq!(names(&[envelope], 1), Err("E_SIGNATURE"));
    // Unknown signers are counted aloud, and nowhere else.
    let signers = judged(&signed(&["alice", "mallory", "mallory"]), 1).unwrap();
    assert_eq!((signers.names.len(), signers.unknown), (1, 2));
    assert_eq!(names(&signed(&["alice", "mallory"]), 2), Err("E_THRESHOLD"));
}

#[test]
fn a_key_under_two_names_is_no_trust_file() {
    let aliases = [
        [key("alice", 1), key("alias", 1)],
        [
            key("alice", 1),
            json!({"name": "alias", "keyId": "alias", "algorithm": "sshsig", "publicKey": ssh(1)}),
        ],
        [key("alice", 1), key("alice", 2)],
        [
            key("alice", 1),
            json!({"name": "bob", "keyId": "alice", "algorithm": "ed25519", "publicKey": pem(2)}),
        ],
    ];
    for keys in aliases {
        assert_eq!(trust_of(2, &keys).unwrap_err(), "E_TRUST", "{keys:?}");
    }
    assert!(trust_of(2, &[key("alice", 1), key("bob", 2)]).is_ok());
}

#[test]
fn a_hint_decides_nothing() {
    let payload = statement();
    let bytes = pae("application/vnd.in-toto+json", payload.as_bytes());
    let with = |keyid: &str, by: &str| {
        let mut envelope = around(&payload, &["bob"]);
        envelope.signatures.push(signature(keyid, by, &bytes));
        names(&[envelope], 1)
    };
    assert_eq!(with("alice", "alice").unwrap().len(), 2);
    assert_eq!(with("alice", "mallory"), Err("E_SIGNATURE"), "a stranger's under alice's name");
    assert_eq!(with("carol", "alice"), Err("E_SIGNATURE"), "alice's under carol's name");
    assert_eq!(with("", "alice"), Err("E_SIGNATURE"), "alice's under no name");
    assert_eq!(with("nobody", "mallory").unwrap().len(), 1);
}

#[test]
fn a_key_counts_within_its_epoch_only() {
    let signatures = bound(&[around(&statement(), &["alice"])], &about()).unwrap();
    let within = |from: Option<&str>, until: Option<&str>| {
        let mut entry = key("alice", 1);
        for (name, time) in [("from", from), ("until", until)] {
            if let Some(time) = time {
                entry[name] = time.into();
            }
        }
        let trust = trust_of(1, &[entry, key("bob", 2)]).unwrap();
        trust.judge(&signatures, made_by)
    };
    let end = "2026-11-22T20:15:01.456Z";
    assert!(within(None, None).is_ok());
    assert!(within(Some(end), Some("2026-11-22T20:15:01.457Z")).is_ok());
    assert!(matches!(within(Some("2026-11-22T20:15:01.457Z"), None), Err(SignatureError::Unsigned { .. })));
    assert!(matches!(within(None, Some(end)), Err(SignatureError::Unsigned { .. })));
}

#[test]
fn trust_files_are_strict() {
    let check =
        |text: String| assert_eq!(Trust::parse(text.as_bytes()).unwrap_err().code(), "E_TRUST", "{text}");
    let file = |threshold: Value, keys: Value| {
        json!({"schema": "requiem-trust/1", "threshold": threshold, "keys": keys}).to_string()
    };
    let good = file(json!(1), json!([key("alice", 1)]));
    assert!(Trust::parse(good.as_bytes()).is_ok());
    check(file(json!(0), json!([key("alice", 1)])));
    check(file(json!(2), json!([key("alice", 1)])));
    check(file(json!(1), json!([])));
    check(file(json!(null), json!([key("alice", 1)])));
    check(good.replacen("trust/1", "trust/2", 1));
    check(good.replacen("\"keys\"", "\"more\":1,\"keys\"", 1));
    check(good.replacen("\"schema\"", "\"threshold\":3,\"schema\"", 1));
    check(good.replacen("ed25519", "ecdsa-p256", 1));
    check(good.replacen("ed25519", "rsa", 1));
    check(good.replacen("alice", "al ice", 1));
    check(good.replacen("BEGIN PUBLIC", "BEGIN PRIVATE", 1));
    check(good.replacen("\"name\"", "\"from\":\"yesterday\",\"name\"", 1));
    check(format!("{good}{}", " ".repeat(256 * 1024)));
    // A point on the curve in its compressed spelling would be a second spelling of one key.
    let compressed = [b"\x30\x39\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x22\x00\x02".as_slice(), &[7; 32]].concat();
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(compressed));
    check(file(json!(1), json!([{"name": "a", "keyId": "a", "algorithm": "ecdsa-p256", "publicKey": pem}])));
}

// ---- files with envelopes; one output by itself -------------------------------------------------------------

fn signed_file() -> ProofFile {
    let mut file = ProofFile::from(sealed());
    file.envelopes = vec![around(&statement(), &["alice"])];
    file
}

#[test]
fn files_carry_envelopes() {
    let text = signed_file().to_json().unwrap();
    assert_eq!(ProofFile::parse(text.as_bytes()).unwrap(), signed_file());
    assert_eq!(judge_file(text.as_bytes()), "ok");
    let check = |from: &str, to: &str| {
        let forged = text.replacen(from, to, 1);
        assert_ne!(forged, text, "{from}");
        assert_eq!(judge_file(forged.as_bytes()), "E_SHAPE", "{from}");
    };
    check("\"keyid\"", "\"more\": 1, \"keyid\"");
    check("\"payloadType\"", "\"payloadtype\"");
    check("\"signatures\": [", "\"signatures\": [[\"alice\", \"c2ln\"],");
    check("\"envelopes\": [", "\"envelopes\": [null,");
}

#[test]
fn any_changed_byte_of_an_envelope_is_refused() {
    let honest = signed_file().envelopes;
    let text = serde_json::to_string(&honest).unwrap();
    for at in 0..text.len() {
        // Bit 0 makes other digits and letters of base64, bit 5 other cases of letters.
        let bits: &[u8] = if at % 5 == 0 { &[1, 32] } else { &[1] };
        for bit in bits {
            let mut forged = text.clone().into_bytes();
            forged[at] ^= bit;
            let read: Option<Vec<Envelope>> =
                requiem_proof::json::parse(&forged).and_then(requiem_proof::json::strict).ok();
            let verdict = read.map(|envelopes| names(&envelopes, 1));
            assert!(!matches!(verdict, Some(Ok(_))), "byte {at}: {}", String::from_utf8_lossy(&forged));
        }
    }
}

fn output_file() -> OutputFile {
    OutputFile::new(&verified(), &path("report.csv"), vec![around(&statement(), &["alice"])]).unwrap()
}

#[test]
fn one_output_is_proven_up_to_what_was_signed() {
    let file = output_file();
    let text = serde_json::to_string(&file).unwrap();
    assert_eq!(judge(&text), "ok");
    assert!(!text.contains("/bin/sh") && !text.contains("team-a"));
    let about = About::roots(file.bundle_root, file.execution_root);
    let signatures = bound(&file.envelopes, &about).unwrap();
    assert_eq!(trust(1).judge(&signatures, made_by).unwrap().names, ["alice"]);
    assert_eq!(OutputFile::new(&verified(), &path("gone"), vec![]).unwrap_err().code(), "E_NO_OUTPUT");
}

/// The code of an output's file.
fn judge(text: &str) -> &'static str {
    let verdict = match requiem_proof::AnyFile::parse(text.as_bytes()) {
        Ok(requiem_proof::AnyFile::Output(file)) => match file.verify() {
            Err(error) => error.code(),
            Ok(()) => bound(&file.envelopes, &About::roots(file.bundle_root, file.execution_root))
                .map_or_else(|error| error.code(), |_| "ok"),
        },
        Ok(_) => panic!("not an output"),
        Err(error) => error.code(),
    };
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    crate::second_opinion(&json!({"kind": "file", "hex": hex}), verdict);
    verdict
}

#[test]
fn forged_outputs_by_themselves_are_refused() {
    let honest = output_file();
    let check = |code: &str, change: &dyn Fn(&mut OutputFile)| {
        let mut forged = honest.clone();
        change(&mut forged);
        assert_eq!(judge(&serde_json::to_string(&forged).unwrap()), code);
    };
    let mut other = body();
    other.run.executor.name = "executor-1".into();
    let other = seal(&other).unwrap();
    check("E_PROOF", &|file| file.bundle_root = other.bundle_root);
    check("E_PROOF", &|file| file.execution.index += 1);
    check("E_PROOF", &|file| file.execution.leaf_count += 1);
    check("E_PROOF", &|file| file.execution.siblings.truncate(3));
    check("E_PROOF", &|file| file.execution.siblings[0].0[0] ^= 1);
    check("E_PROOF", &|file| file.execution.siblings.swap(0, 1));
    check("E_PROOF", &|file| file.output.siblings.swap(0, 1));
    check("E_PROOF", &|file| file.output.path = path("report.tsv"));
    check("E_SHAPE", &|file| file.schema = "requiem-output-proof/2".into());
    check("E_STATEMENT", &|file| {
        file.envelopes =
            vec![around(&statement().replace("\"name\":\"blake3:", "\"name\":\"blake3:0"), &["alice"])];
    });
}

#[test]
fn any_changed_byte_of_an_output_by_itself_is_refused() {
    let text = serde_json::to_string(&output_file()).unwrap();
    for at in 0..text.len() {
        let mut forged = text.clone().into_bytes();
        forged[at] ^= 1;
        let Ok(forged) = String::from_utf8(forged) else { continue };
        // What the statement says of the rest of the bundle is under the signature only.
        assert!(judge(&forged) != "ok" || !is_signed(&forged), "byte {at}: {forged}");
    }
    assert!(is_signed(&text));
}

fn is_signed(text: &str) -> bool {
    let Ok(requiem_proof::AnyFile::Output(file)) = requiem_proof::AnyFile::parse(text.as_bytes()) else {
        panic!("not an output")
    };
    let signatures = bound(&file.envelopes, &About::roots(file.bundle_root, file.execution_root)).unwrap();
    trust(1).judge(&signatures, made_by).is_ok()
}

// ---- replays ---------------------------------------------------------------------------------------------------

fn replay(uid: &str, change: impl FnOnce(&mut BundleBody)) -> requiem_proof::Sealed {
    let mut again = body();
    again.run.identity.uid = uid.into();
    change(&mut again);
    seal(&again).unwrap()
}

fn tally(replays: &[requiem_proof::Sealed]) -> Result<Tally, ReplayError> {
    let mut receipts = Replays::of(&verified());
    replays.iter().for_each(|replay| receipts.push(replay.clone()));
    let text = serde_json::to_string(&receipts).unwrap();
    Replays::parse(text.as_bytes()).unwrap().tally(&verified())
}

#[test]
fn replays_are_counted_anew_and_one_divergence_sticks() {
    let same = |uid: &str| replay(uid, |_| ());
    let other = replay("c", |body| body.execution.result.outcome = requiem_model::Outcome::TimedOut);
    let counted = tally(&[same("a"), same("b")]).unwrap();
    assert_eq!((counted.replayed, counted.agreed, counted.all_agree()), (2, 2, true));
    let counted = tally(&[same("a"), other, same("b")]).unwrap();
    assert_eq!((counted.replayed, counted.agreed, counted.all_agree()), (3, 2, false));
    assert_eq!(counted.first_divergence, Some(Divergence::Exit));
    assert!(!tally(&[]).unwrap().all_agree(), "nothing is no agreement");
}

#[test]
fn forged_receipts_are_refused() {
    let code = |replays: &[requiem_proof::Sealed]| tally(replays).unwrap_err().code();
    let honest = replay("a", |_| ());
    assert_eq!(code(&[honest.clone(), honest.clone()]), "E_RECEIPT_TWICE");
    assert_eq!(code(&[sealed()]), "E_RECEIPT_TWICE", "the bundle itself is no replay");
    // The same run again with another time.
    let again = replay("a", |body| body.run.completed_at = "2026-11-23T00:00:00.000Z".into());
    assert_eq!(code(&[honest.clone(), again]), "E_RECEIPT_TWICE");
    let easier = replay("b", |body| body.execution.request.nonce = Some("n-2".into()));
    assert_eq!(code(&[easier]), "E_REQUEST_BINDING");
    // Outputs claimed equal in a proof whose bytes say otherwise.
    let diverged = replay("b", |body| body.execution.result.stderr = body.execution.result.stdout);
    let claimed = requiem_proof::Sealed { execution_root: sealed().execution_root, ..diverged };
    assert_eq!(code(&[claimed]), "E_ROOT");
    let mut receipts = Replays::of(&verify(&honest.body, &Default::default()).unwrap());
    receipts.push(replay("c", |_| ()));
    assert_eq!(receipts.tally(&verified()).unwrap_err().code(), "E_REQUEST_BINDING");
    let text = serde_json::to_string(&receipts).unwrap();
    for forged in [text.replacen("replays/1", "replays/2", 1), format!("{text}x"), "{}".into()] {
        assert_eq!(Replays::parse(forged.as_bytes()).unwrap_err().code(), "E_RECEIPTS");
    }
    let many = serde_json::to_string(&(0..65).map(|_| honest.clone()).collect::<Vec<_>>()).unwrap();
    let root = verified().bundle_root;
    let many = format!("{{\"schema\":\"requiem-replays/1\",\"bundleRoot\":\"{root}\",\"replays\":{many}}}");
    assert_eq!(Replays::parse(many.as_bytes()).unwrap_err().code(), "E_RECEIPTS");
}

#[test]
fn an_object_brings_its_receipts_along_and_they_are_judged_like_any_other() {
    let run = |sealed: &requiem_proof::Sealed| {
        let mut run = serde_json::to_value(sealed).unwrap();
        run["number"] = json!(1);
        run["outcome"] = json!("Agrees");
        run
    };
    let read = |runs: Value| {
        let sealed = sealed();
        let identity = verified().body.run.identity;
        let object = json!({
            "apiVersion": "requiem.dev/v1alpha1", "kind": "ProofBundle",
            "metadata": {"namespace": identity.namespace, "name": "n"},
            "spec": {
                "body": sealed.body, "executionRoot": sealed.execution_root, "bundleRoot": sealed.bundle_root,
                "executionRef": {"name": identity.name, "uid": identity.uid},
            },
            "status": {"replays": {"replayed": 7, "agreed": 7, "runs": runs}},
        });
        ProofFile::parse(object.to_string().as_bytes())
    };
    let (one, two) = (replay("a", |_| ()), replay("b", |_| ()));
    let failed = json!({"number": 2, "outcome": "Failed", "reason": "InputMissing"});
    let file = read(json!([run(&one), failed, run(&two)])).unwrap();
    file.verify().unwrap();
    let count = |receipts: Replays| receipts.tally(&verified()).map(|tally| (tally.replayed, tally.agreed));
    // The status may claim what it likes: two are there.
    assert_eq!(count(Replays::of(&verified()).and(&file.receipts)), Ok((2, 2)));
    let mut beside = Replays::of(&verified());
    beside.push(one.clone());
    assert_eq!(count(beside.and(&file.receipts)), Ok((2, 2)), "one of them lies in both places");
    let twice = read(json!([run(&one), run(&one)])).unwrap();
    assert_eq!(count(Replays::of(&verified()).and(&twice.receipts)).unwrap_err().code(), "E_RECEIPT_TWICE");
    for runs in
        [json!([{"body": 7}]), json!([{"body": one.body}]), json!([{"body": one.body, "bundleRoot": "x"}])]
    {
        assert_eq!(read(runs).unwrap_err().code(), "E_SHAPE");
    }
    for nothing in [json!(null), json!({}), json!("text"), json!([])] {
        assert_eq!(read(nothing).unwrap().receipts, []);
    }
}

#[test]
fn every_item_that_can_differ_is_named() {
    let one = body().execution;
    let check = |expected: &[&str], change: &dyn Fn(&mut BundleBody)| {
        let mut other = body();
        change(&mut other);
        let found: Vec<String> =
            divergences(&one, &other.execution).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
        assert_eq!(
            found.is_empty(),
            replay("x", |_| ()).execution_root == seal(&other).unwrap().execution_root
        );
    };
    check(&[], &|_| ());
    check(&["engine"], &|body| body.execution.engine.version = "2".into());
    check(&["exit"], &|body| body.execution.result.outcome = requiem_model::Outcome::TimedOut);
    check(&["stdout"], &|body| body.execution.result.stdout.digest = requiem_model::BlobDigest::of(b"olleh"));
    check(&["stderr"], &|body| body.execution.result.stderr = body.execution.result.stdout);
    check(&["output out/\u{e9}"], &|body| {
        body.execution.result.outputs[2].content = body.execution.result.outputs[1].content
    });
    check(&["output gone"], &|body| body.execution.result.missing_outputs[0].why = "a device".into());
    check(&["exit", "output report.csv"], &|body| {
        body.execution.result.outcome = requiem_model::Outcome::OutOfMemory;
        let gone = body.execution.result.outputs.pop().unwrap();
        let missing = requiem_model::result::MissingOutput { path: gone.path, why: "absent".into() };
        body.execution.result.missing_outputs.push(missing);
    });
    check(&["request"], &|body| body.execution.request.nonce = None);
}

// ---- answers of signers -------------------------------------------------------------------------------------------

#[test]
fn an_answer_has_one_form_and_agrees_with_its_end() {
    let good =
        json!({"keyId": "k", "algorithm": "ed25519", "signature": "c2ln", "publicKey": "p"}).to_string();
    let code = |reply: &[u8], well| read::<Signed>(reply, well).map_err(|error| error.code()).err();
    assert_eq!(code(good.as_bytes(), true), None);
    assert_eq!(code(good.as_bytes(), false), Some("E_PLUGIN_CONTRADICTION"));
    let refusal = br#"{"error":{"code":"locked","message":"the key is locked"}}"#;
    assert_eq!(code(refusal, false), Some("E_PLUGIN_REFUSED"));
    assert_eq!(code(refusal, true), Some("E_PLUGIN_CONTRADICTION"), "well, with an error inside");
    for bad in [
        String::new(),
        "nonsense".into(),
        good.clone() + &good,
        good.replacen("keyId", "keyid", 1),
        good.replacen('{', "{\"more\":1,", 1),
        good.replacen('{', "{\"keyId\":\"other\",", 1),
        good.replacen("ed25519", "none", 1),
        "[\"k\",\"ed25519\",\"c2ln\",\"p\"]".into(),
        "[".repeat(60_000),
    ] {
        assert_eq!(code(bad.as_bytes(), true), Some("E_PLUGIN_REPLY"), "{bad:.60}");
    }
    assert_eq!(code(&vec![b' '; 64 * 1024 + 1], true), Some("E_PLUGIN_OUTPUT"));
    assert!(read::<Checked>(br#"{"valid":"true"}"#, true).is_err());
    assert!(read::<PublicKeys>(br#"{"keys":[]}"#, true).is_ok());
    let shouting = json!({"error": {"code": "c".repeat(1000), "message": "m".repeat(10_000)}}).to_string();
    let ReplyError::Refused(refused) = read::<Checked>(shouting.as_bytes(), false).unwrap_err() else {
        panic!()
    };
    assert!(refused.code.len() == 80 && refused.message.len() == 300);
}
