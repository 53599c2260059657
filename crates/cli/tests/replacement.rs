//! `validate-replacement`: who may take over is told so, and each planted defect of a candidate makes it not ready for its own reason and
//! for no other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/engine.rs"]
mod engine;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{ATTENTIVE, Desk, Said, said};
use engine::{assert_nobody_runs, assert_tidy, desk, honest, lying, nap, shell, source, write};
use serde_json::{Value, json};

/// Machines are slow now and then; the planted differences are not about time.
const PATIENT: [&str; 2] = ["--timing-floor", "60000"];

fn validate(desk: &Desk, primary: &str, candidate: &str, more: &[&str]) -> (Said, Value) {
    let run = ["validate-replacement", "--engine", primary, "--candidate", candidate, "--json"];
    let patient: &[&str] = if more.contains(&"--timing-floor") { &[] } else { &PATIENT };
    let said = engine::requiem(desk, &[&run[..], patient, more].concat());
    let report = said.json();
    (said, report)
}

/// The same over a corpus of a few requests, each with something of its own to be wrong about.
fn planted(desk: &Desk, candidate: &str, more: &[&str]) -> (Said, Value) {
    corpus(desk);
    validate(desk, "rust", candidate, &[&["--corpus", "corpus", "--repeats", "2"], more].concat())
}

fn corpus(desk: &Desk) {
    let fails = shell("echo out; echo err >&2; echo x > out; mkdir d; echo y > d/f; exit 3", &["d", "out"]);
    desk.write("corpus/fails.json", fails.to_string());
    desk.write("corpus/lines.json", shell("printf 'a\\r\\nb\\r\\n'", &[]).to_string());
    let random = json!({"request": shell("cat /proc/sys/kernel/random/uuid", &[]), "expect": {"deterministic": false}});
    desk.write("corpus/random.json", random.to_string());
    desk.write("corpus/README.md", "no request");
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).unwrap()
}

/// Check, code and item of everything that failed.
fn failures(report: &Value) -> BTreeSet<(String, String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut found = BTreeSet::new();
    for check in report["checks"].as_array().unwrap() {
        for item in check["failures"].as_array().unwrap() {
            let row = [&check["check"], &item["code"], &item["subject"], &item["item"]].map(text);
            found.insert(row.into());
        }
        let failed = !check["failures"].as_array().unwrap().is_empty();
        assert_eq!(check["status"] == "failed", failed, "{check}");
        assert!(check["status"] != "passed" || check["looked_at"].as_u64().unwrap() > 0, "{check}");
    }
    found
}

fn row(check: &str, code: &str, subject: &str, item: &str) -> (String, String, String, String) {
    [check, code, subject, item].map(str::to_owned).into()
}

fn assert_ready(said: &Said, report: &Value) {
    assert_eq!((said.code, &report["verdict"]), (0, &json!("ready")), "{report:#}");
    assert_eq!((&report["ok"], &report["error_code"]), (&json!(true), &Value::Null));
    assert!(failures(report).is_empty() && report["unusable"] == json!([]), "{report:#}");
    for name in ["fixture_parity", "determinism", "hash_vectors", "store_verify", "sandbox_truth"] {
        assert_eq!(check(report, name)["status"], "passed", "{report:#}");
    }
}

fn assert_not_ready(said: &Said, report: &Value) {
    assert_eq!((said.code, &report["verdict"]), (1, &json!("not_ready")), "{report:#}");
    assert_eq!((&report["ok"], &report["error_code"]), (&json!(false), &json!("NotReady")));
}

/// Two engines that are the same in everything, and the sandbox and itself, over all that comes with the program.
#[test]
fn an_equal_may_take_over() {
    let desk = desk();
    let other = honest(&desk);
    for (primary, candidate) in [("rust", &other[..]), ("requiem", "requiem")] {
        let begun = Instant::now();
        let (said, report) = validate(&desk, primary, candidate, &["--out", "report.json"]);
        assert_ready(&said, &report);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!(serde_json::from_str::<Value>(&desk.read("report.json")).unwrap(), report);
        assert!(report["fixtures"].as_u64().unwrap() >= 40 && report["repeats"] == 3);
        let runs = report["fixtures"].as_u64().unwrap() * 3 + 2;
        assert_eq!((&report["primary"]["runs"], &report["candidate"]["runs"]), (&json!(runs), &json!(runs)));
        assert_eq!(check(&report, "fixture_parity")["looked_at"], report["fixtures"]);
        assert!(check(&report, "store_verify")["looked_at"].as_u64().unwrap() > 100);
    }
    assert_tidy(&desk);
}

/// What is lost is named layer by layer, and is all that is wrong; what is gained stands in nobody's way.
#[test]
fn isolation_that_would_be_lost_is_named() {
    let desk = desk();
    corpus(&desk);
    let more = ["--corpus", "corpus", "--repeats", "2"];
    let (said, report) = validate(&desk, "requiem", "rust", &more);
    assert_not_ready(&said, &report);
    let lost = failures(&report);
    assert!(lost.iter().all(|(check, ..)| check == "sandbox_truth"), "{lost:?}");
    for layer in ["seccomp", "pidNamespace", "minimalRoot", "networkNamespace"] {
        assert!(
            lost.contains(&row("sandbox_truth", "isolation_lost", "isolation", &format!("sandbox {layer}"))),
            "{lost:?}"
        );
    }
    assert!(
        lost.contains(&row("sandbox_truth", "source_lost", "isolation", "source environment")),
        "{lost:?}"
    );
    let (said, report) = validate(&desk, "rust", "requiem", &more);
    assert_ready(&said, &report);
    let notes = check(&report, "sandbox_truth")["notes"].as_array().unwrap();
    assert!(
        notes.iter().any(|note| note["code"] == "isolation_gained" && note["item"] == "sandbox seccomp"),
        "{report:#}"
    );
    // Nobody proves anything here, and a payload sees the difference all the same.
    let careful = source().replace(
        "start_new_session=True",
        "start_new_session=True, preexec_fn=lambda: [__import__('resource').setrlimit(which, (most, most)) for which, most in ((7, 64), (4, 0))]",
    );
    let careful = write(&desk, "careful", &careful);
    let (said, report) = validate(&desk, &careful, &honest(&desk), &more);
    assert_not_ready(&said, &report);
    assert_eq!(
        failures(&report),
        [row("sandbox_truth", "isolation_lost", "isolation", "sandbox rlimits")].into(),
        "{report:#}"
    );
    assert_tidy(&desk);
}

/// A candidate that is wrong in one thing is not ready for that thing alone.
#[test]
fn one_difference_is_one_reason() {
    let desk = desk();
    let fails = "if 'exit 3' in request['argv'][-1]: ";
    let append = |file: &str| format!("{fails}open({file}, 'ab').write(b'!')");
    let parity = |code, item| vec![row("fixture_parity", code, "fails", item)];
    let cases = [
        (format!("{fails}ran['outcome']['code'] = 0"), parity("exit_code_mismatch", "exit")),
        (append("asked['stdout']"), parity("stdout_mismatch", "stdout")),
        (append("asked['stderr']"), parity("stderr_mismatch", "stderr")),
        (append("workspace + '/out'"), parity("digest_mismatch", "output out")),
        (append("workspace + '/d/g'"), parity("digest_mismatch", "output d")),
        (format!("{fails}os.remove(workspace + '/out')"), parity("digest_mismatch", "output out")),
        (format!("{fails}os.chmod(workspace + '/out', 0o755)"), parity("digest_mismatch", "output out")),
        (format!("{fails}os.abort()"), parity("E_ENGINE_REPLY", "result")),
        (format!("{fails}raise ValueError('no')"), parity("E_ENGINE_REFUSED", "result")),
        // A stream that went through text.
        (
            "text = open(asked['stdout'], 'rb').read(); open(asked['stdout'], 'wb').write(text.replace(b'\\r\\n', b'\\n'))".to_owned(),
            vec![row("fixture_parity", "stdout_mismatch", "lines", "stdout")],
        ),
        // A pipe that was read once.
        (
            "os.truncate(asked['stdout'], min(65536, os.path.getsize(asked['stdout'])))".to_owned(),
            vec![row("hash_vectors", "wrong_digest", "golden vectors", "102400 bytes, standard input to standard output")],
        ),
        // The second time is another.
        (
            format!(
                "mark = '{}'; {fails}open(asked['stdout'], 'ab').write(b'!' if os.path.exists(mark) else b''); open(mark, 'w')",
                desk.path("mark").display()
            )
            .replacen("; if", "\n    if", 1),
            vec![row("determinism", "not_deterministic", "fails", "stdout")],
        ),
        // Equal questions, one answer.
        (
            format!(
                "kept = '{}/kept-' + asked['requestDigest'][7:]; import shutil; \
                 shutil.copy(kept, asked['stdout']) if os.path.exists(kept) else shutil.copy(asked['stdout'], kept)",
                desk.path(".").display()
            ),
            vec![row("determinism", "answered_without_running", "random", "execution root")],
        ),
    ];
    for (lie, wanted) in cases {
        let (said, report) = planted(&desk, &lying(&desk, "lying", &lie), &[]);
        assert_not_ready(&said, &report);
        assert_eq!(failures(&report), wanted.into_iter().collect(), "{lie}: {report:#}");
        assert_eq!(report["unusable"], json!([]), "{report:#}");
    }
    assert_tidy(&desk);
}

/// Candidates that do not do what an engine must: each is stopped, named, and held up by nothing.
#[test]
fn whoever_crashes_hangs_or_floods_is_named() {
    let desk = desk();
    let nap = nap(4);
    let nothing = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let cases = [
        ("os.abort()".to_owned(), "E_ENGINE_REPLY"),
        (format!("import time; time.sleep({nap})"), "E_ENGINE_DEADLINE"),
        (format!("os.fork(); os.execv('/bin/sleep', ['sleep', '{nap}'])"), "E_ENGINE_DEADLINE"),
        ("print('x' * 100_000_000)".to_owned(), "E_ENGINE_OUTPUT"),
        (
            format!("ran['stderr'] = '{nothing}'; open(asked['stderr'], 'w').write('x')"),
            "E_ENGINE_CONTRADICTION",
        ),
        ("ran['sandbox'] = {'layers': []}".to_owned(), "E_ENGINE_REPLY"),
        ("ran['outputs'] = [{'path': 'more'}]".to_owned(), "E_ENGINE_CONTRADICTION"),
    ];
    for (how, code) in cases {
        let begun = Instant::now();
        let (said, report) = planted(&desk, &lying(&desk, "bad", &how), &["--candidate-deadline", "2"]);
        assert_not_ready(&said, &report);
        let found = failures(&report);
        for name in ["fails", "lines", "random"] {
            assert!(found.contains(&row("fixture_parity", code, name, "result")), "{how}: {report:#}");
        }
        // Nothing that was not seen counts as passed.
        for name in ["fixture_parity", "determinism", "hash_vectors", "sandbox_truth"] {
            assert_ne!(check(&report, name)["status"], "passed", "{how}: {report:#}");
        }
        let hangs = code == "E_ENGINE_DEADLINE";
        assert_eq!(report["candidate"]["runs"], if hangs { 3 } else { 5 }, "{how}: {report:#}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{how}: {:?}", begun.elapsed());
        assert_nobody_runs(&nap);
        assert_tidy(&desk);
    }
    // One that cannot even say who it is.
    for (text, code) in
        [("#!/bin/sh\necho '{}'\n", "E_ENGINE_REPLY"), ("#!/bin/sh\nexit 1\n", "E_ENGINE_REPLY")]
    {
        let (said, report) = planted(&desk, &write(&desk, "none", text), &[]);
        assert_not_ready(&said, &report);
        assert_eq!(failures(&report), [row("fixture_parity", code, "engine", "result")].into(), "{report:#}");
        assert_eq!(check(&report, "store_verify")["status"], "not_made");
    }
}

/// The store is read again after the candidate, all of it.
#[test]
fn whoever_touches_the_store_is_found_out() {
    let desk = desk();
    let touch = "import glob\n    for name in glob.glob(os.path.dirname(asked['folder']) + '/*/cas/tenants/primary/objects/*/*'):\n        \
                 os.chmod(name, 0o644); open(name, 'ab').write(b'!')";
    let (said, report) = planted(&desk, &lying(&desk, "touching", touch), &[]);
    assert_not_ready(&said, &report);
    let found = failures(&report);
    assert!(!found.is_empty() && found.iter().all(|(check, ..)| check == "store_verify"), "{report:#}");
    assert!(found.contains(&row("store_verify", "WrongDigest", "primary", "object")), "{report:#}");
    let remove = touch.replace("os.chmod(name, 0o644); open(name, 'ab').write(b'!')", "os.remove(name)");
    let (said, report) = planted(&desk, &lying(&desk, "removing", &remove), &[]);
    let lost = |name| row("store_verify", "E_STORE", name, "result of the primary");
    let wanted = ["fails", "lines", "random", "golden vectors"].map(lost).into();
    assert_not_ready(&said, &report);
    assert_eq!(failures(&report), wanted, "{report:#}");
    assert_tidy(&desk);
}

/// Time is told, and is no reason.
#[test]
fn a_slow_candidate_is_ready() {
    let desk = desk();
    let slow = lying(&desk, "slow", "import time; time.sleep(1.5)");
    let (said, report) = planted(&desk, &slow, &["--timing-floor", "1000"]);
    assert_ready(&said, &report);
    let notes = check(&report, "fixture_parity")["notes"].as_array().unwrap();
    assert_eq!((notes.len(), &notes[0]["code"]), (3, &json!("timing_diff")), "{report:#}");
    assert_eq!(report["counts"]["timing_diff"], 3);
}

/// A primary that is not what the corpus expects is no measure; nor is anything without one.
#[test]
fn what_cannot_be_judged_is_said_so() {
    let desk = desk();
    let other = honest(&desk);
    let expects =
        |expect: Value| json!({"request": shell("echo x > out", &["out"]), "expect": expect}).to_string();
    for (content, code, item) in [
        (expects(json!({"exit_code": 1})), "exit_code_mismatch", "exit"),
        (expects(json!({"outputs": {"out": {"text": "y\n"}}})), "digest_mismatch", "output out"),
        (expects(json!({"outputs": {"out": null}})), "digest_mismatch", "output out"),
        (expects(json!({"deterministic": false})), "answered_without_running", "execution root"),
        (json!({"command": "true"}).to_string(), "LayerUnavailable", "result"),
        (
            json!({"layers": "preferred", "request": {"command": "no-such-program"}}).to_string(),
            "CommandNotRunnable",
            "result",
        ),
    ] {
        desk.write("one/one.json", &content);
        let (said, report) = validate(&desk, "rust", &other, &["--corpus", "one"]);
        assert_eq!(
            (said.code, &report["verdict"], &report["error_code"]),
            (2, &json!("unusable"), &json!("Unusable")),
            "{report:#}"
        );
        let why = &report["unusable"][0];
        assert_eq!(
            (&why["code"], &why["subject"], &why["item"]),
            (&json!(code), &json!("one"), &json!(item)),
            "{report:#}"
        );
    }
    let refused = |candidate: &str, more: &[&str], code: &str| {
        let (said, report) = validate(&desk, "rust", candidate, more);
        assert_eq!(
            (said.code, &report["error_code"], &report["verdict"]),
            (2, &json!(code), &Value::Null),
            "{said:?}"
        );
    };
    desk.write("wrong/a.json", "{\"request\": {\"command\": \"true\"}, \"expects\": {}}");
    desk.write("field/a.json", "{\"command\": \"true\", \"colour\": \"red\"}");
    std::fs::create_dir(desk.path("empty")).unwrap();
    refused("command:/no/such/engine", &[], "E_ENGINE_PROGRAM");
    refused(&other, &["--corpus", "absent"], "File");
    refused(&other, &["--corpus", "empty"], "EmptyCorpus");
    refused(&other, &["--corpus", "wrong"], "InvalidFixture");
    refused(&other, &["--corpus", "field"], "InvalidRequest");
    refused(&other, &["--corpus", "one", "--out", "no/such/folder/report"], "File");
    assert_tidy(&desk);
}

/// Requests of one's own may name what lies in a store of one's own.
#[test]
fn a_corpus_may_name_objects() {
    let desk = desk();
    desk.write("folder/deep/a", "A\n");
    let tree = desk.requiem(&["cas", "put", "folder", "--cas", "mine"]).stdout.trim().to_owned();
    let request = json!({"command": "cat", "argv": ["src/deep/a"], "inputs": {"src": {"tree": tree}}});
    let fixture = json!({"layers": "preferred", "request": request, "expect": {"stdout": {"text": "A\n"}}});
    desk.write("one/one.json", fixture.to_string());
    let other = honest(&desk);
    let (said, report) = validate(&desk, "rust", &other, &["--corpus", "one", "--cas", "mine"]);
    assert_ready(&said, &report);
    let (said, report) = validate(&desk, "rust", &other, &["--corpus", "one"]);
    assert_eq!((said.code, &report["unusable"][0]["code"]), (2, &json!("InputMissing")), "{report:#}");
}

/// Ctrl-C ends it, whichever engine is at work.
#[test]
fn an_interrupted_validation_leaves_nothing() {
    let (desk, nap) = (desk(), nap(5));
    corpus(&desk);
    let signals = format!("os.kill(os.getppid(), signal.SIGTERM); import time; time.sleep({nap})");
    let signals = lying(&desk, "signals", &signals);
    for (primary, candidate) in [("rust", &signals[..]), (&signals[..], "rust")] {
        let begun = Instant::now();
        let mut command = Command::new("env");
        command.arg(ATTENTIVE).arg(env!("CARGO_BIN_EXE_requiem"));
        command.args([
            "validate-replacement",
            "--engine",
            primary,
            "--candidate",
            candidate,
            "--corpus",
            "corpus",
            "--json",
        ]);
        command.current_dir(desk.path(".")).env("TMPDIR", desk.path("tmp"));
        let said = said(&command.output().unwrap());
        assert_eq!((said.code, &said.json()["error_code"]), (143, &json!("Interrupted")), "{said:?}");
        // By the signal, and not by the deadline of the run that it came in.
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_nobody_runs(&nap);
        assert_tidy(&desk);
    }
}
