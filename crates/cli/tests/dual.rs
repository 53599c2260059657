//! Dual-run: planted differences are found, none is invented, and no candidate harms the result.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/edge.rs"]
mod edge;
#[path = "common/engine.rs"]
mod engine;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use common::{ATTENTIVE, Desk, Said};
use engine::{assert_nobody_runs, assert_tidy, desk, honest, lying, nap, request, shell, write};
use serde_json::{Value, json};

const RUN: [&str; 10] = [
    "exec",
    "run",
    "--request",
    "request.json",
    "--json",
    "--out",
    "result.json",
    "--diff",
    "diff.json",
    "--engine",
];

/// Runs a request by two engines; times count only if they are far apart, for machines are slow now and then.
fn dual(desk: &Desk, wanted: &Value, primary: &str, candidate: &str, more: &[&str]) -> (Said, Value) {
    desk.write("request.json", wanted.to_string());
    let patient = ["--timing-floor", "60000"];
    let more = if more.contains(&"--timing-floor") { more.to_vec() } else { [more, &patient].concat() };
    let said = engine::requiem(desk, &[&RUN[..], &[primary, "--candidate", candidate], &more[..]].concat());
    let diff = serde_json::from_str(&desk.read("diff.json")).unwrap();
    (said, diff)
}

/// Category and item of each mismatch.
fn found(diff: &Value) -> Vec<(String, String)> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = diff["mismatches"].as_array().unwrap().iter();
    rows.map(|row| (text(row, "category"), text(row, "item"))).collect()
}

/// Requests of every kind that there is to compare.
fn corpus() -> Vec<Value> {
    let mut capped = shell("head -c 5000 /dev/zero; echo e >&2", &[]);
    capped["max_output_bytes"] = json!(1000);
    let mut slow = shell("echo begun; sleep 60", &[]);
    slow["timeout_ms"] = json!(500);
    let mut nested = shell("cat ../../in > ../../out; cat", &["out"]);
    nested["cwd"] = json!("made/here");
    nested["inputs"] = json!({"in": {"text": "in"}});
    nested["stdin"] = json!({"text": "from stdin"});
    vec![
        shell("true", &[]),
        shell("echo out; echo err >&2; exit 3", &[]),
        shell("mkdir -p d/e; echo a > d/e/f; ln -s f d/e/l; echo x > out; chmod +x out", &["d", "out"]),
        shell("kill -9 $$", &["never"]),
        request(json!({"command": "env"  , "env": {"HOME": "/", "A": "é\n"}})),
        capped,
        slow,
        nested,
    ]
}

/// Neither between two engines that isolate nothing, nor between the sandbox and itself.
#[test]
fn no_difference_is_invented() {
    let desk = desk();
    let other = honest(&desk);
    for wanted in corpus() {
        for (primary, candidate) in
            [("rust", &other[..]), (&other[..], "rust"), ("rust", "rust"), ("requiem", "requiem")]
        {
            let (said, diff) = dual(&desk, &wanted, primary, candidate, &[]);
            assert_eq!(diff["verdict"], "agrees", "{wanted}: {diff:#} {said:?}");
            assert_eq!((found(&diff).len(), diff["counts"].as_object().unwrap().len()), (0, 6));
            assert!(said.stderr.contains("agrees with"), "{said:?}");
            let same = diff["primary"]["engine"]["name"] == diff["candidate"]["engine"]["name"];
            assert_eq!(diff["primary"]["execution_root"] == diff["candidate"]["execution_root"], same);
        }
    }
    assert_tidy(&desk);
}

#[test]
fn every_planted_difference_is_found_and_no_other() {
    let desk = desk();
    let wanted =
        shell("echo out; echo err >&2; echo x > out; mkdir d; echo y > d/f; exit 3", &["d", "gone", "out"]);
    let append = |file: &str| format!("open({file}, 'ab').write(b'!')");
    let plants = [
        (append("workspace + '/out'"), "digest_mismatch", "critical", "output out"),
        (append("workspace + '/d/f'"), "digest_mismatch", "critical", "output d"),
        (append("workspace + '/d/g'"), "digest_mismatch", "critical", "output d"),
        (append("workspace + '/gone'"), "digest_mismatch", "critical", "output gone"),
        ("os.remove(workspace + '/out')".to_owned(), "digest_mismatch", "critical", "output out"),
        ("os.chmod(workspace + '/out', 0o755)".to_owned(), "digest_mismatch", "critical", "output out"),
        ("ran['outcome']['code'] = 0".to_owned(), "exit_code_mismatch", "high", "exit"),
        (
            "ran['outcome'] = {'kind': 'signalled', 'signal': 3}".to_owned(),
            "exit_code_mismatch",
            "high",
            "exit",
        ),
        (append("asked['stdout']"), "stdout_mismatch", "high", "stdout"),
        (append("asked['stderr']"), "stderr_mismatch", "high", "stderr"),
    ];
    for (plant, category, severity, item) in plants {
        let candidate = lying(&desk, "lying", &plant);
        let (said, diff) = dual(&desk, &wanted, "rust", &candidate, &[]);
        assert_eq!(diff["verdict"], "differs", "{plant}: {diff:#}");
        assert_eq!(found(&diff), [(category.to_owned(), item.to_owned())], "{plant}");
        assert_eq!(
            (&diff["mismatches"][0]["severity"], &diff["counts"][category]),
            (&json!(severity), &json!(1))
        );
        assert!(said.stderr.contains(severity) && said.stderr.contains(item), "{said:?}");
        assert_eq!(
            (said.code, &said.json()["exit_code"], &said.json()["engine"]["name"]),
            (1, &json!(3), &json!("rust"))
        );
    }
    // What the candidate left is in no store that anybody reads.
    let (_, diff) = dual(&desk, &wanted, "rust", &lying(&desk, "lying", &append("asked['stdout']")), &[]);
    let digest = |side: &str| diff["mismatches"][0][side].as_str().unwrap().to_owned();
    assert_eq!(desk.requiem(&["cas", "get", &digest("primary"), "--out", "kept"]).code, 0);
    assert_eq!(desk.requiem(&["cas", "get", &digest("candidate"), "--out", "lost"]).code, 2);
    let late = lying(&desk, "late", "import time; time.sleep(2)");
    let (_, diff) = dual(&desk, &wanted, "rust", &late, &["--timing-floor", "1500"]);
    assert_eq!(found(&diff), [("timing_diff".to_owned(), "wall time".to_owned())], "{diff:#}");
    let (_, diff) = dual(&desk, &wanted, "requiem", "rust", &[]);
    let differing = found(&diff);
    assert!(differing.iter().all(|(category, _)| category == "sandbox_diff"), "{diff:#}");
    for item in ["sandbox seccomp", "sandbox pidNamespace", "source environment"] {
        assert!(differing.contains(&("sandbox_diff".to_owned(), item.to_owned())), "{item}: {diff:#}");
    }
    // All of it at once.
    let all = "ran['outcome']['code'] = 0; import time; time.sleep(2)\n    open(asked['stdout'], 'ab').write(b'!'); \
               open(asked['stderr'], 'ab').write(b'!'); open(workspace + '/out', 'ab').write(b'!')";
    let (_, diff) = dual(&desk, &wanted, "requiem", &lying(&desk, "all", all), &["--timing-floor", "1500"]);
    for (category, count) in diff["counts"].as_object().unwrap() {
        assert!(count.as_u64().unwrap() >= 1, "{category}: {diff:#}");
    }
    assert_tidy(&desk);
}

/// Whatever a candidate does, the result, its file, the exit code and the store's opinion of them are the primary's.
#[test]
fn no_candidate_harms_the_result() {
    let desk = desk();
    let mut wanted = shell("echo out; echo x > out; exit 3", &["out"]);
    wanted["limits"] = json!({"scratch_bytes": 20_000_000});
    let nothing = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let raised = "import time; [os.fork() and 0 for _ in range(3)]; os.setsid()";
    let nap = nap(2);
    let candidates = [
        ("crashes", "os.abort()".to_owned(), "E_ENGINE_REPLY"),
        ("fails", "raise ValueError('no')".to_owned(), "E_ENGINE_REFUSED"),
        ("hangs", format!("import time; time.sleep({nap})"), "E_ENGINE_DEADLINE"),
        ("multiplies", format!("{raised}; os.execv('/bin/sleep', ['sleep', '{nap}'])"), "E_ENGINE_DEADLINE"),
        ("stops", "os.kill(os.getpid(), signal.SIGSTOP)".to_owned(), "E_ENGINE_DEADLINE"),
        ("closes", format!("os.close(1); import time; time.sleep({nap})"), "E_ENGINE_DEADLINE"),
        ("lies", format!("ran['stdout'] = '{nothing}'"), "E_ENGINE_CONTRADICTION"),
        (
            "forges",
            "ran['outputs'] = [{'path': 'out'}, {'path': 'more'}]".to_owned(),
            "E_ENGINE_CONTRADICTION",
        ),
        ("claims", "ran['sandbox'] = {'layers': []}".to_owned(), "E_ENGINE_REPLY"),
        ("floods", "print('x' * 100_000_000)".to_owned(), "E_ENGINE_OUTPUT"),
        (
            "complains",
            "sys.stderr.write('x' * 100_000_000); raise ValueError('no')".to_owned(),
            "E_ENGINE_REFUSED",
        ),
        (
            "fills",
            "[open(f'{workspace}/{n}', 'wb').write(b'x' * 1_000_000) for n in range(10**9)]".to_owned(),
            "E_ENGINE_WORKSPACE",
        ),
        (
            "leaves links",
            "os.remove(asked['stdout']); os.symlink('/etc/passwd', asked['stdout'])".to_owned(),
            "E_ENGINE_CONTRADICTION",
        ),
        (
            "moves",
            "os.rename(asked['folder'], asked['folder'] + '-moved')".to_owned(),
            "E_ENGINE_CONTRADICTION",
        ),
    ];
    let alone = plain(&desk, &wanted);
    for (name, how, code) in candidates {
        let candidate = lying(&desk, &name.replace(' ', "-"), &how);
        let (said, diff) = dual(&desk, &wanted, "rust", &candidate, &["--candidate-deadline", "3"]);
        assert_eq!(
            (&diff["verdict"], &diff["candidate_error"]["error_code"]),
            (&json!("candidate_failed"), &json!(code)),
            "{name}: {diff:#}"
        );
        same_result(&desk, &said, &alone, name);
        assert!(said.stderr.contains(code), "{name}: {said:?}");
        assert_nobody_runs(&nap);
        if name == "moves" {
            // The rights of a user are an engine's too: what it moved away is not found again.
            for entry in std::fs::read_dir(desk.path("tmp")).unwrap().flatten() {
                std::fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        assert_tidy(&desk);
    }
    for candidate in [
        "command:/no/such/engine",
        &write(&desk, "none", "#!/bin/sh\necho '{}'\n"),
        &honest(&desk).replace("honest", "gone"),
    ] {
        let (said, diff) = dual(&desk, &wanted, "rust", candidate, &[]);
        assert_eq!(diff["verdict"], "candidate_failed", "{diff:#}");
        same_result(&desk, &said, &alone, candidate);
    }
}

/// The result without any candidate.
fn plain(desk: &Desk, wanted: &Value) -> Value {
    desk.write("request.json", wanted.to_string());
    engine::requiem(desk, &["exec", "run", "--request", "request.json", "--json", "--engine", "rust"]).json()
}

fn same_result(desk: &Desk, said: &Said, alone: &Value, name: &str) {
    assert_eq!(said.code, 1, "{name}: {said:?}");
    let result = said.json();
    for field in [
        "exit_code",
        "stdout",
        "execution_root",
        "result_digest",
        "output_digests",
        "engine",
        "sandbox_applied",
    ] {
        assert_eq!(result[field], alone[field], "{name}: {field}");
    }
    assert_eq!(serde_json::from_str::<Value>(&desk.read("result.json")).unwrap(), result, "{name}");
    let proof = desk.requiem(&[
        "proof",
        "generate",
        "--result",
        "result.json",
        "--cas",
        "data/requiem/cas",
        "--out",
        "proof.json",
    ]);
    assert_eq!(proof.code, 0, "{name}: {proof:?}");
}

/// Who reads the result has all of it, and its end, before the candidate has begun to matter.
#[test]
fn the_result_is_told_before_the_candidate_ends() {
    let desk = desk();
    let gate = desk.path("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let candidate = lying(&desk, "waits", &format!("open({:?}).read()", gate.display().to_string()));
    desk.write("request.json", shell("echo out; exit 3", &[]).to_string());
    let mut command =
        desk.command(&[&RUN[..], &["rust", "--candidate", &candidate, "--timing-floor", "60000"]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        tell.send(text)
    });
    let told = told.recv_timeout(std::time::Duration::from_secs(60)).unwrap_or_else(|_| {
        std::fs::write(&gate, "go").unwrap();
        panic!("whoever reads the result waits for the candidate")
    });
    let result: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(3), &json!("out\n")));
    assert_eq!(serde_json::from_str::<Value>(&desk.read("result.json")).unwrap(), result);
    assert!(
        child.try_wait().unwrap().is_none() && !desk.path("diff.json").exists(),
        "it did not wait for the candidate"
    );
    std::fs::File::options().write(true).open(&gate).unwrap().write_all(b"go").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(serde_json::from_str::<Value>(&desk.read("diff.json")).unwrap()["verdict"], "agrees");
}

/// Somebody who is not root needs a namespace to mount inputs for the sandbox. A candidate gets none at the primary's cost.
#[test]
fn what_a_candidate_needs_does_not_change_what_the_primary_sees() {
    let desk = Desk::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(desk.path("."), open).unwrap();
    let mut wanted = shell("readlink /proc/self/ns/user; cat in", &[]);
    wanted["inputs"] = json!({"in": {"text": "in\n"}});
    desk.write("request.json", wanted.to_string());
    let run = ["exec", "run", "--request", "request.json", "--json", "--engine", "rust"];
    let alone = edge::unprivileged(&desk, &run);
    let beside = edge::unprivileged(&desk, &[&run[..], &["--candidate", "requiem"]].concat());
    let here = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert_eq!(alone.json()["stdout"], format!("{}\nin\n", here.display()), "{alone:?}");
    assert_eq!(beside.json()["execution_root"], alone.json()["execution_root"], "{beside:?}");
    // It ran, and in a namespace of its own.
    assert!(beside.stderr.contains("stdout_mismatch"), "{beside:?}");
}

/// A signal during the trial ends the trial, and nothing else.
#[test]
fn an_interrupted_trial_leaves_the_result_as_it_is() {
    let (desk, nap) = (desk(), nap(3));
    let candidate = lying(
        &desk,
        "signals",
        &format!("os.kill(os.getppid(), signal.SIGTERM); import time; time.sleep({nap})"),
    );
    desk.write("request.json", shell("echo out; exit 3", &[]).to_string());
    let mut command = Command::new("env");
    command.arg(ATTENTIVE).arg(env!("CARGO_BIN_EXE_requiem")).args(RUN).args([
        "rust",
        "--candidate",
        &candidate,
    ]);
    command
        .current_dir(desk.path("."))
        .env("XDG_DATA_HOME", desk.path("data"))
        .env("TMPDIR", desk.path("tmp"));
    let said = common::said(&command.output().unwrap());
    assert_eq!((said.code, &said.json()["exit_code"]), (1, &json!(3)), "{said:?}");
    let diff: Value = serde_json::from_str(&desk.read("diff.json")).unwrap();
    assert_eq!(diff["candidate_error"]["error_code"], "Interrupted", "{diff:#}");
    assert_nobody_runs(&nap);
    assert_tidy(&desk);
}

#[test]
fn the_digest_decides_who_is_sampled() {
    let desk = desk();
    let candidate = lying(
        &desk,
        "marks",
        &format!("open({:?}, 'a').write('x')", desk.path("seen").display().to_string()),
    );
    desk.write("seen", "");
    let (mut sampled, mut runs) = (0, 0);
    for nonce in 0..24 {
        let mut wanted = shell("true", &[]);
        wanted["nonce"] = json!(nonce.to_string());
        let (said, diff) = dual(&desk, &wanted, "rust", &candidate, &["--sample", "37.5"]);
        let digest = said.json()["request_digest"].as_str().unwrap().to_owned();
        assert_eq!((&diff["request_digest"], &diff["sample_percent"]), (&json!(digest), &json!("37.5")));
        let first = u64::from_str_radix(&digest["blake3:".len()..][..16], 16).unwrap();
        // Three eighths of 2^64.
        let expected = first < 3 << 61;
        assert_eq!(diff["verdict"] == "agrees", expected, "{digest}: {diff}");
        assert_eq!(diff["verdict"] == "not_sampled", !expected);
        sampled += usize::from(expected);
        runs += 1;
    }
    assert!((1..runs).contains(&sampled), "{sampled} of {runs}");
    assert_eq!(desk.read("seen").len(), sampled, "who was not sampled was run");
}

/// What the request requires it requires of the candidate too, unless somebody says otherwise.
#[test]
fn a_candidate_without_isolation_is_asked_for() {
    let desk = desk();
    let mark = desk.path("mark").display().to_string();
    let candidate = lying(&desk, "marks", &format!("open({mark:?}, 'a').write('x')"));
    let mut wanted = shell("echo hi", &[]);
    wanted["policy"]["layers"]["seccomp"] = json!("required");
    let (said, diff) = dual(&desk, &wanted, "requiem", &candidate, &[]);
    assert_eq!(
        (said.code, &diff["candidate_error"]["error_code"]),
        (0, &json!("LayerUnavailable")),
        "{diff:#}"
    );
    assert!(!desk.path("mark").exists());
    let (_, diff) = dual(&desk, &wanted, "requiem", &candidate, &["--candidate-unisolated"]);
    assert_eq!(
        (&diff["verdict"], &diff["candidate_unisolated"]),
        (&json!("differs"), &json!(true)),
        "{diff:#}"
    );
    assert!(desk.path("mark").exists());
    assert!(found(&diff).iter().all(|(category, _)| category == "sandbox_diff"), "{diff:#}");
    // A run without result has nothing to compare; nor has one without a candidate.
    std::fs::remove_file(desk.path("diff.json")).unwrap();
    std::fs::remove_file(desk.path("mark")).unwrap();
    desk.write("request.json", wanted.to_string());
    let said = engine::requiem(&desk, &[&RUN[..], &["rust", "--candidate", &candidate]].concat());
    assert_eq!(
        (said.code, desk.path("diff.json").exists(), desk.path("mark").exists()),
        (2, false, false),
        "{said:?}"
    );
    let said = desk.requiem(&["exec", "run", "--request", "request.json", "--diff", "diff.json"]);
    assert!(said.code == 2 && said.stderr.contains("--candidate"), "{said:?}");
    for wrong in ["101", "-1", "1.234", "half"] {
        let said =
            engine::requiem(&desk, &[&RUN[..], &["rust", "--candidate", "rust", "--sample", wrong]].concat());
        assert_eq!(said.code, 2, "{said:?}");
    }
    let said = engine::requiem(
        &desk,
        &["exec", "run", "--request", "request.json", "--candidate", "rust", "--diff", "no/such/folder/d"],
    );
    assert_eq!((said.code, desk.path("mark").exists()), (2, false), "{said:?}");
}
