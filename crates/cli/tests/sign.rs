//! `requiem proof sign` and `proof verify --trust` with the signers of config/signers, and with signers that misbehave.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Desk, Said, repository};
use serde_json::{Value, json};

/// A desk with a proof and keys of three kinds.
struct Office {
    desk: Desk,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

impl Office {
    fn new() -> Self {
        let desk = Desk::new();
        let text = std::fs::read(repository("crates/proof/tests/vectors/bundle.json")).unwrap();
        let vector: Value = serde_json::from_slice(&text).unwrap();
        let file = json!({"body": vector["body"], "executionRoot": vector["executionRoot"], "bundleRoot": vector["bundleRoot"]});
        desk.write("proof.json", file.to_string());
        for folder in ["keys", "ssh"] {
            std::fs::create_dir(desk.path(folder)).unwrap();
        }
        let key = |name: &str| desk.path("keys").join(name).display().to_string();
        run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", &key("alice.pem")]);
        run(
            "openssl",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key("bob.pem")],
        );
        let carol = desk.path("ssh/carol").display().to_string();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "carol", "-f", &carol]);
        Self { desk }
    }

    fn signer(kind: &str) -> String {
        repository(&format!("config/signers/{kind}")).canonicalize().unwrap().display().to_string()
    }

    fn sign(&self, kind: &str, key: &str) -> Said {
        let folder = self.desk.path(if kind == "openssl" { "keys" } else { "ssh" }).display().to_string();
        self.desk.requiem(&[
            "proof",
            "sign",
            "proof.json",
            "--signer",
            &Self::signer(kind),
            "--signer-arg",
            &folder,
            "--key",
            key,
            "--json",
        ])
    }

    /// Signs with all three and trusts them.
    fn signed(threshold: usize) -> Self {
        let office = Self::new();
        let mut keys = Vec::new();
        for (kind, key) in [("openssl", "alice"), ("openssl", "bob"), ("ssh-keygen", "carol")] {
            let said = office.sign(kind, key);
            assert_eq!((said.code, said.json()["key_id"].as_str()), (0, Some(key)), "{said:?}");
            let said = said.json();
            keys.push(json!({"name": key, "keyId": key, "algorithm": said["algorithm"], "publicKey": said["public_key"]}));
        }
        office.trust(threshold, &keys);
        office
    }

    fn trust(&self, threshold: usize, keys: &[Value]) {
        let file = json!({"schema": "requiem-trust/1", "threshold": threshold, "keys": keys});
        self.desk.write("trust.json", file.to_string());
    }

    fn verify(&self, file: &str) -> Said {
        self.desk.requiem(&["proof", "verify", file, "--trust", "trust.json", "--json"])
    }

    fn proof(&self) -> Value {
        serde_json::from_str(&self.desk.read("proof.json")).unwrap()
    }

    /// The verdict's code on a changed proof, `ok` if there is none.
    fn verdict(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut proof = self.proof();
        change(&mut proof);
        self.desk.write("changed.json", proof.to_string());
        let said = self.verify("changed.json");
        let code = said.json()["error_code"].as_str().unwrap_or("ok").to_owned();
        assert_eq!(said.code == 0, code == "ok", "{said:?}");
        code
    }
}

fn envelope(proof: &mut Value) -> &mut Value {
    &mut proof["envelopes"][0]
}

#[test]
fn three_kinds_of_keys_sign_and_are_counted() {
    let office = Office::signed(3);
    let said = office.verify("proof.json");
    assert_eq!(said.code, 0, "{said:?}");
    let document = said.json();
    assert_eq!(document["verdict"], "signed by alice, bob, carol");
    assert_eq!(
        (&document["signed_by"], &document["threshold"]),
        (&json!(["alice", "bob", "carol"]), &json!(3))
    );
    assert!(!document["not_checked"].as_str().unwrap().contains("who made it"));
    // Signing again with the same key replaces, and does not count twice.
    assert_eq!(office.sign("openssl", "alice").json()["signatures"], 3);
    // Without a trust file it is integrity, and says what is there.
    let said = office.desk.requiem(&["proof", "verify", "proof.json"]);
    assert!(
        said.stdout.starts_with("integrity only: ") && said.stdout.contains("3 signatures are there"),
        "{said:?}"
    );
    let needs = |what: &str| office.desk.requiem(&["proof", "verify", "proof.json", "--require", what]);
    assert_eq!((needs("integrity").code, needs("signed=1").code), (0, 1));
    let with = |what: &str| {
        office.desk.requiem(&[
            "proof",
            "verify",
            "proof.json",
            "--trust",
            "trust.json",
            "--require",
            what,
            "--json",
        ])
    };
    assert_eq!(with("signed=3").code, 0);
    let said = with("signed=4");
    assert_eq!((said.code, &said.json()["error_code"]), (1, &json!("E_REQUIRE")), "{said:?}");
    assert!(said.json()["message"].as_str().unwrap().contains("signed=4"));
}

#[test]
fn what_was_signed_is_what_openssl_and_ssh_keygen_accept() {
    let office = Office::signed(3);
    let proof = office.proof();
    let decoded = |text: &Value, name: &str| {
        let path = office.desk.write(&format!("{name}.b64"), text.as_str().unwrap());
        let out = office.desk.path(name);
        run("openssl", &["base64", "-d", "-A", "-in", path.to_str().unwrap(), "-out", out.to_str().unwrap()]);
        std::fs::read(out).unwrap()
    };
    let payload = decoded(&proof["envelopes"][0]["payload"], "payload");
    let pae =
        [format!("DSSEv1 28 application/vnd.in-toto+json {} ", payload.len()).as_bytes(), &payload].concat();
    let pae = office.desk.write("pae", pae).display().to_string();
    let signatures = proof["envelopes"][0]["signatures"].as_array().unwrap();
    let public = |name: &str| {
        let (private, out) =
            (office.desk.path(&format!("keys/{name}.pem")), office.desk.path(&format!("{name}.pub")));
        run("openssl", &["pkey", "-in", private.to_str().unwrap(), "-pubout", "-out", out.to_str().unwrap()]);
        out.display().to_string()
    };
    for (at, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        assert_eq!(signatures[at]["keyid"], name);
        decoded(&signatures[at]["sig"], &format!("{name}.sig"));
    }
    let signature = |name: &str| office.desk.path(&format!("{name}.sig")).display().to_string();
    run(
        "openssl",
        &[
            "pkeyutl",
            "-verify",
            "-rawin",
            "-pubin",
            "-inkey",
            &public("alice"),
            "-in",
            &pae,
            "-sigfile",
            &signature("alice"),
        ],
    );
    run("openssl", &["dgst", "-sha256", "-verify", &public("bob"), "-signature", &signature("bob"), &pae]);
    let armoured = format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
        signatures[2]["sig"].as_str().unwrap()
    );
    office.desk.write("carol.armoured", armoured);
    office.desk.write("allowed", format!("carol {}", office.desk.read("ssh/carol.pub")));
    let checked = |namespace: &str| {
        let mut command = Command::new("ssh-keygen");
        command.args([
            "-Y",
            "verify",
            "-f",
            "allowed",
            "-I",
            "carol",
            "-n",
            namespace,
            "-s",
            "carol.armoured",
        ]);
        command.current_dir(office.desk.path("."));
        command.stdin(std::fs::File::open(&pae).unwrap()).output().unwrap().status.success()
    };
    assert!(checked("requiem-dsse-v1") && !checked("git"));
}

#[test]
fn one_output_keeps_what_was_signed() {
    let office = Office::signed(3);
    let desk = &office.desk;
    assert_eq!(
        desk.requiem(&["proof", "prove", "proof.json", "--output", "report.csv", "--out", "one.json"]).code,
        0
    );
    assert!(!desk.read("one.json").contains("/bin/sh"));
    let said = office.verify("one.json");
    assert_eq!((said.code, &said.json()["verdict"]), (0, &json!("signed by alice, bob, carol")), "{said:?}");
    let require = desk.requiem(&["proof", "verify", "one.json", "--require", "sandbox=full"]);
    assert!(require.code == 1 && require.stderr.contains("sandbox=full"), "{require:?}");
    let said = desk.requiem(&["proof", "prove", "proof.json", "--output", "nope", "--out", "none.json"]);
    assert!(said.code == 2 && said.stderr.contains("report.csv"), "{said:?}");
    assert!(!desk.path("none.json").exists());
}

#[test]
fn forged_signatures_are_refused() {
    let office = Office::signed(2);
    assert_eq!(office.verdict(|_| ()), "ok");
    assert_eq!(
        office.verdict(|proof| drop(proof.as_object_mut().unwrap().remove("envelopes"))),
        "E_UNSIGNED"
    );
    assert_eq!(office.verdict(|proof| envelope(proof)["signatures"] = json!([])), "E_UNSIGNED");
    assert_eq!(
        office.verdict(|proof| envelope(proof)["payloadType"] = "text/plain".into()),
        "E_PAYLOAD_TYPE"
    );
    let swap = |proof: &mut Value| {
        let signatures = envelope(proof)["signatures"].as_array_mut().unwrap();
        let (one, other) = (signatures[0]["sig"].clone(), signatures[1]["sig"].clone());
        (signatures[0]["sig"], signatures[1]["sig"]) = (other, one);
    };
    assert_eq!(office.verdict(swap), "E_SIGNATURE");
    let twice = |proof: &mut Value| {
        let signatures = envelope(proof)["signatures"].as_array_mut().unwrap();
        signatures.truncate(1);
        signatures.push(signatures[0].clone());
    };
    assert_eq!(office.verdict(twice), "E_THRESHOLD");
    // An openssl signature under ssh's name, and the other way round: an algorithm is part of a key.
    let renamed = |proof: &mut Value| envelope(proof)["signatures"][0]["keyid"] = "carol".into();
    assert_eq!(office.verdict(renamed), "E_SIGNATURE");
}

#[test]
fn any_changed_byte_of_what_was_signed_is_refused() {
    let office = Office::signed(3);
    let text = serde_json::to_string(&office.proof()["envelopes"]).unwrap();
    let proof = office.proof();
    // Every byte of the shortest signature and of the key ids, and a sample of the rest; each is a process.
    for at in (0..text.len()).filter(|at| at % 13 == 0 || text.len() - at < 60) {
        let mut forged = text.clone().into_bytes();
        forged[at] ^= 1;
        let Ok(forged) = String::from_utf8(forged) else { continue };
        let file = proof.to_string().replace(&text, &forged);
        office.desk.write("changed.json", &file);
        let said = office.verify("changed.json");
        assert_ne!(said.code, 0, "byte {at}: {forged}");
    }
}

#[test]
fn trust_files_that_cannot_be_used_say_why() {
    let office = Office::signed(1);
    let said = office.desk.requiem(&["proof", "verify", "proof.json", "--trust", "proof.json"]);
    assert!(said.code == 2 && said.stderr.contains("[E_TRUST]"), "{said:?}");
    // The same key under another name.
    let key = office.sign("openssl", "alice").json();
    let entry = |name: &str| json!({"name": name, "keyId": name, "algorithm": "ed25519", "publicKey": key["public_key"]});
    office.trust(2, &[entry("alice"), entry("alice-again")]);
    let said = office.verify("proof.json");
    assert_eq!((said.code, &said.json()["error_code"]), (2, &json!("E_TRUST")), "{said:?}");
    assert!(said.json()["message"].as_str().unwrap().contains("alice-again"));
}

// ---- signers that misbehave ---------------------------------------------------------------------------------

/// A signer in sh; it finds nothing in its environment, so it sets its own PATH.
fn script(desk: &Desk, name: &str, text: &str) -> PathBuf {
    let path = desk.write(name, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Has a script sign, with two seconds to do it; the proof must stay as it was.
fn misbehave(text: &str) -> (String, Desk) {
    let office = Office::new();
    let program = script(&office.desk, "signer", text);
    let before = office.desk.read("proof.json");
    let said = office.desk.requiem(&[
        "proof",
        "sign",
        "proof.json",
        "--signer",
        program.to_str().unwrap(),
        "--deadline-seconds",
        "2",
        "--json",
    ]);
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(office.desk.read("proof.json"), before);
    (said.json()["error_code"].as_str().unwrap().to_owned(), office.desk)
}

#[test]
fn a_signer_that_gives_no_answer_is_refused() {
    for (text, code) in [
        ("exit 0", "E_PLUGIN_REPLY"),
        ("exit 3", "E_PLUGIN_REPLY"),
        ("echo nonsense", "E_PLUGIN_REPLY"),
        ("echo '{\"error\":{\"code\":\"locked\",\"message\":\"no\"}}'", "E_PLUGIN_CONTRADICTION"),
        ("echo '{\"error\":{\"code\":\"locked\",\"message\":\"no\"}}'; exit 1", "E_PLUGIN_REFUSED"),
        (
            "echo '{\"keyId\":\"k\",\"algorithm\":\"ed25519\",\"signature\":\"c2ln\",\"publicKey\":\"p\"}'; exit 1",
            "E_PLUGIN_CONTRADICTION",
        ),
        (
            "echo '{\"keyId\":\"k\",\"algorithm\":\"ed25519\",\"signature\":\"c2ln\",\"publicKey\":\"p\",\"more\":1}'",
            "E_PLUGIN_REPLY",
        ),
        (
            "echo '{\"keyId\":\"k\",\"algorithm\":\"ed25519\",\"signature\":\"c2ln\",\"publicKey\":\"p\"}'; kill -9 $$",
            "E_PLUGIN_CONTRADICTION",
        ),
        ("head -c 10000000 /dev/zero", "E_PLUGIN_OUTPUT"),
        ("yes", "E_PLUGIN_OUTPUT"),
    ] {
        assert_eq!(misbehave(text).0, code, "{text}");
    }
}

#[test]
fn a_signer_that_hangs_is_killed_as_a_whole() {
    for text in [
        "echo $$ > PIDS; sleep 1000 & echo $! >> PIDS; wait",
        // Closes its output and lives on.
        "echo $$ > PIDS; exec >&-; sleep 1000",
        // Leaves its group and session, and its parent ends: only a subreaper finds it.
        "setsid sh -c 'echo $$ > PIDS; exec sleep 1000' & sleep 0.3",
    ] {
        let marker = tempfile::NamedTempFile::new().unwrap();
        let begun = Instant::now();
        let (code, _desk) = misbehave(&text.replace("PIDS", marker.path().to_str().unwrap()));
        assert_eq!(code, "E_PLUGIN_DEADLINE", "{text}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{text}");
        let pids = std::fs::read_to_string(marker.path()).unwrap();
        assert!(!pids.trim().is_empty(), "{text}");
        for pid in pids.split_whitespace() {
            assert!(!std::path::Path::new("/proc").join(pid).exists(), "{text}: {pid} lives");
        }
    }
}

#[test]
fn children_of_whoever_called_are_left_alone() {
    let office = Office::new();
    let signer = script(&office.desk, "signer", "exit 1");
    let text = format!(
        "sleep 1000 & echo $!; exec '{}' proof sign proof.json --signer '{}' > /dev/null 2>&1",
        env!("CARGO_BIN_EXE_requiem"),
        signer.display()
    );
    let mut shell = Command::new("sh");
    let output =
        shell.args(["-c", &text]).current_dir(office.desk.path(".")).stdout(office_file(&office)).status();
    assert_eq!(output.unwrap().code(), Some(2));
    let pid = office.desk.read("pid").trim().to_owned();
    let lives = std::path::Path::new("/proc").join(&pid).exists();
    run("kill", &[&pid]);
    assert!(lives, "{pid} was killed");
}

fn office_file(office: &Office) -> std::fs::File {
    std::fs::File::create(office.desk.path("pid")).unwrap()
}

#[test]
fn a_signer_gets_the_question_and_nothing_else() {
    let (code, desk) = misbehave(
        "cat > \"$(dirname \"$0\")/question\"; env > \"$(dirname \"$0\")/environment\"; pwd >> \"$(dirname \"$0\")/environment\"; echo '{}'",
    );
    assert_eq!(code, "E_PLUGIN_REPLY");
    let question: Value = serde_json::from_str(&desk.read("question")).unwrap();
    assert_eq!((&question["protocol"], &question["verb"]), (&json!("requiem-signer/1"), &json!("sign")));
    assert_eq!(question["context"]["name"], "build-1");
    let names: Vec<String> =
        desk.read("environment").lines().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    // What the shell itself sets, and the folder.
    assert!(
        names.iter().all(|name| ["PATH", "PWD", "OLDPWD", "SHLVL", "_", "/"].contains(&name.as_str())),
        "{names:?}"
    );
}

#[test]
fn a_lying_signer_is_caught() {
    let office = Office::new();
    let (honest, keys) = (Office::signer("openssl"), office.desk.path("keys").display().to_string());
    let lie = |name: &str, text: &str, key: &[&str]| {
        let program = script(&office.desk, name, &text.replace("HONEST", &format!("'{honest}' '{keys}'")));
        let mut arguments =
            vec!["proof", "sign", "proof.json", "--json", "--signer", program.to_str().unwrap()];
        arguments.extend(key);
        let said = office.desk.requiem(&arguments);
        said.json()["error_code"].as_str().unwrap_or("ok").to_owned()
    };
    let another = "sed 's/\"pae\":\"[^\"]*\"/\"pae\":\"aGVsbG8=\"/' | HONEST";
    assert_eq!(lie("another", another, &[]), "E_PLUGIN_SIGNATURE", "a signature over something else");
    assert_eq!(
        lie("renames", "HONEST | sed 's/\"alice\"/\"bob\"/'", &["--key", "alice"]),
        "E_PLUGIN_SIGNATURE"
    );
    assert_eq!(
        lie("swaps", "sed 's/\"keyId\":\"alice\"/\"keyId\":\"bob\"/' | HONEST", &["--key", "alice"]),
        "E_PLUGIN_SIGNATURE"
    );
    let denies = "question=$(cat); case \"$question\" in *'\"verify\"'*) echo '{\"valid\": false}';; *) printf %s \"$question\" | HONEST;; esac";
    assert_eq!(lie("denies", denies, &[]), "E_PLUGIN_SIGNATURE", "it does not stand by its signature");
    assert_eq!(lie("honest", "HONEST", &[]), "ok");
    // The signer refuses keys that it does not have, and other purposes.
    let said = office.sign("openssl", "mallory");
    assert_eq!((said.code, &said.json()["error_code"]), (2, &json!("E_PLUGIN_REFUSED")), "{said:?}");
}

#[test]
fn a_signer_is_a_file_that_only_its_owner_changes() {
    let office = Office::new();
    let good = script(&office.desk, "good", "exit 0");
    let code = |path: &str| {
        let said = office.desk.requiem(&["proof", "sign", "proof.json", "--signer", path, "--json"]);
        said.json()["error_code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("signer"), "E_PLUGIN_PROGRAM", "relative");
    assert_eq!(code("/nowhere"), "E_PLUGIN_PROGRAM");
    assert_eq!(code("/usr/bin"), "E_PLUGIN_PROGRAM", "a folder");
    std::os::unix::fs::symlink(&good, office.desk.path("link")).unwrap();
    assert_eq!(code(office.desk.path("link").to_str().unwrap()), "E_PLUGIN_PROGRAM", "a link");
    std::fs::set_permissions(&good, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(code(good.to_str().unwrap()), "E_PLUGIN_PROGRAM", "others can change it");
    std::fs::set_permissions(&good, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(code(good.to_str().unwrap()), "E_PLUGIN_PROGRAM", "not executable");
}

/// What is exported is one signature that counts, and says which key to verify it with. Nothing else is exported, and then no file is written.
#[test]
fn one_signature_is_exported_for_programs_of_others() {
    let office = Office::signed(3);
    let export = |file: &str, more: &[&str]| {
        let export = ["proof", "export", file, "--trust", "trust.json", "--out", "exported.json", "--json"];
        let said = office.desk.requiem(&[&export[..], more].concat());
        let written = office.desk.path("exported.json");
        let bundle =
            std::fs::read(&written).ok().map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        assert_eq!(said.code == 0, bundle.is_some(), "{said:?}");
        let _gone = std::fs::remove_file(written);
        (said, bundle)
    };
    let (said, bundle) = export("proof.json", &["--key", "bob", "--artifact", "artifact"]);
    let (document, bundle, proof) = (said.json(), bundle.unwrap(), office.proof());
    assert_eq!(bundle["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    let (theirs, ours) = (&bundle["dsseEnvelope"], &proof["envelopes"][0]);
    assert_eq!((&theirs["payload"], &theirs["payloadType"]), (&ours["payload"], &ours["payloadType"]));
    assert_eq!(theirs["signatures"], json!([{"sig": ours["signatures"][1]["sig"]}]));
    assert_eq!(bundle["verificationMaterial"], json!({"publicKey": {"hint": document["hint"]}}));
    assert_eq!(office.desk.read("artifact"), proof["body"].as_str().unwrap());
    // The digests that it names are those that openssl makes.
    let script = "openssl pkey -in keys/bob.pem -pubout -outform DER | openssl dgst -sha256 -binary | openssl base64 -A; echo; \
                  openssl dgst -sha256 -r artifact | cut -d' ' -f1";
    let made = Command::new("sh").args(["-euc", script]).current_dir(office.desk.path(".")).output().unwrap();
    let expected = format!(
        "{}\n{}\n",
        document["hint"].as_str().unwrap(),
        document["artifact_sha256"].as_str().unwrap()
    );
    assert_eq!(String::from_utf8(made.stdout).unwrap(), expected);
    let refused = |file: &str, more: &[&str], code: i32, error: &str| {
        let (said, bundle) = export(file, more);
        assert_eq!((said.code, &said.json()["error_code"], bundle), (code, &json!(error), None), "{said:?}");
    };
    refused("proof.json", &[], 2, "Usage");
    refused("proof.json", &["--key", "carol"], 2, "E_FORMAT");
    refused("proof.json", &["--key", "mallory"], 2, "E_UNSIGNED");
    let mut forged = proof.clone();
    forged["envelopes"][0]["signatures"][0]["sig"] = proof["envelopes"][0]["signatures"][1]["sig"].clone();
    forged["envelopes"][0]["signatures"][1]["sig"] = proof["envelopes"][0]["signatures"][0]["sig"].clone();
    office.desk.write("forged.json", forged.to_string());
    refused("forged.json", &["--key", "bob"], 1, "E_SIGNATURE");
    let mut alone = proof;
    alone["envelopes"][0]["signatures"].as_array_mut().unwrap().truncate(1);
    office.desk.write("alone.json", alone.to_string());
    refused("alone.json", &["--key", "alice"], 1, "E_THRESHOLD");
    // Of one that counts, nobody need say which.
    let mut trust: Value = serde_json::from_str(&office.desk.read("trust.json")).unwrap();
    trust["threshold"] = json!(1);
    office.desk.write("trust.json", trust.to_string());
    assert_eq!(export("alone.json", &[]).0.json()["key"], "alice");
}
