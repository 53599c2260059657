//! `requiem bench`: what is measured is what ran, a failed run is no sample, and the gate tells slower from noise and from
//! what cannot be compared.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/edge.rs"]
mod edge;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Desk, Said, said};
use edge::{Processes, entries, on_a_small_disk, unprivileged};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

const RUN: [&str; 5] = ["bench", "run", "--spec", "spec.json", "--json"];

fn shell(script: &str) -> Value {
    let layers = json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    json!({"command": "/bin/sh", "argv": ["-c", script], "policy": {"layers": layers}})
}

fn spec(script: &str, more: Value) -> Value {
    let mut spec = json!({"name": "some", "request": shell(script)});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn bench(desk: &Desk, spec: &Value) -> Said {
    desk.write("spec.json", spec.to_string());
    desk.requiem(&RUN)
}

/// The figures of whole numbers, by the definition and not by the rule of the program: a percentile is the smallest sample
/// that so many percent of all are not above.
fn spread(mut samples: Vec<u64>) -> Value {
    samples.sort_unstable();
    let of = |sorted: &[u64], percent: usize| {
        let not_above = |sample: u64| sorted.iter().filter(|other| **other <= sample).count();
        let is_enough = |sample: &u64| not_above(*sample) * 100 >= percent * sorted.len();
        sorted.iter().copied().find(is_enough).unwrap()
    };
    let p50 = of(&samples, 50);
    let mut deviations: Vec<u64> = samples.iter().map(|sample| sample.abs_diff(p50)).collect();
    deviations.sort_unstable();
    json!({
        "p50": p50, "p95": of(&samples, 95), "p99": of(&samples, 99), "mad": of(&deviations, 50),
        "min": samples[0], "max": samples[samples.len() - 1],
    })
}

fn summary(samples: &[Value]) -> Value {
    let column = |figure: &dyn Fn(&Value) -> u64| spread(samples.iter().map(figure).collect());
    let member = |sample: &Value, name: &str| sample[name].as_u64().unwrap();
    json!({
        "samples": samples.len(),
        "wall_us": column(&|sample| member(sample, "wall_us")),
        "cpu_us": column(&|sample| member(sample, "user_us") + member(sample, "system_us")),
        "peak_memory_bytes": column(&|sample| member(sample, "peak_memory_bytes")),
    })
}

/// A result as `bench run` writes it, but with these wall times.
fn made(desk: &Desk, name: &str, wall_us: &[u64]) -> Value {
    if !desk.path("real.json").exists() {
        let real = bench(desk, &spec("true", json!({"repeats": 1})));
        desk.write("real.json", real.stdout);
    }
    let mut document: Value = serde_json::from_str(&desk.read("real.json")).unwrap();
    let sample =
        |wall_us: &u64| json!({"wall_us": wall_us, "user_us": 1, "system_us": 2, "peak_memory_bytes": 4096});
    let samples: Vec<Value> = wall_us.iter().map(sample).collect();
    document["repeats"] = json!(samples.len());
    document["outcomes"] = json!({"Succeeded": samples.len()});
    document["summary"] = summary(&samples);
    document["samples"] = json!(samples);
    desk.write(name, document.to_string());
    document
}

/// A desk with results: `base.json`, `slow.json` that is slower by a third, and `few.json`.
fn results() -> Desk {
    let desk = Desk::new();
    let base: Vec<u64> = (0..120).map(|run| 30_000 + run * 37 % 1000).collect();
    made(&desk, "base.json", &base);
    made(&desk, "slow.json", &base.iter().map(|sample| sample * 4 / 3).collect::<Vec<_>>());
    made(&desk, "few.json", &base[..116]);
    desk
}

fn gate(desk: &Desk, more: &[&str]) -> Said {
    desk.requiem(&[&["bench", "gate", "--json"], more].concat())
}

/// Exit code and reason code; a document that is good has none.
fn verdict(said: &Said) -> (i32, String) {
    (said.code, said.json()["error_code"].as_str().unwrap_or("ok").to_owned())
}

// === bench run ===

#[test]
fn what_is_measured_is_what_ran() {
    let desk = Desk::new();
    desk.write(
        "spec.json",
        spec("echo hi", json!({"warmup": 2, "repeats": 7, "concurrency": 2})).to_string(),
    );
    let said = desk.requiem(&[&RUN[..], &["--out", "out.json"]].concat());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    let document = said.json();
    assert_eq!(serde_json::from_str::<Value>(&desk.read("out.json")).unwrap(), document);
    let numbers = ["warmup", "repeats", "concurrency"].map(|name| document[name].as_u64().unwrap());
    assert_eq!(
        (numbers, &document["name"], &document["schema"]),
        ([2, 7, 2], &json!("some"), &json!("requiem-bench/1"))
    );
    assert_eq!((&document["ok"], &document["outcomes"]), (&json!(true), &json!({"Succeeded": 7})));
    let samples = document["samples"].as_array().unwrap();
    assert_eq!(document["summary"], summary(samples));
    assert!(samples.iter().all(|sample| sample["wall_us"].as_u64().unwrap() > 0), "{document}");
    assert!(samples.iter().all(|sample| sample["peak_memory_bytes"].as_u64().unwrap() > 0), "{document}");
    assert!(document["started_at"].as_str() <= document["completed_at"].as_str());
    // The same request as exec run has, in the same sandbox.
    desk.write("request.json", shell("echo hi").to_string());
    let ran = desk.requiem(&["exec", "run", "--request", "request.json", "--json"]).json();
    assert_eq!(document["request_digest"], ran["request_digest"]);
    let of_status = |status: &str| {
        let layers = document["environment"]["sandbox"].as_object().unwrap();
        layers.values().filter(|found| *found == status).count()
    };
    assert_eq!(of_status("enforced"), ran["sandbox_applied"]["enforced"].as_array().unwrap().len());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(document["environment"]["kernel"], kernel.trim());
    assert_eq!(document["environment"]["engine"], concat!("requiem ", env!("CARGO_PKG_VERSION")));
    // One machine, one fingerprint.
    assert_eq!(
        bench(&desk, &spec("true", json!({"repeats": 1}))).json()["environment_digest"],
        document["environment_digest"]
    );
}

#[test]
fn wall_time_is_that_of_the_command() {
    let desk = Desk::new();
    let document = bench(&desk, &spec("sleep 0.1", json!({"warmup": 0, "repeats": 3}))).json();
    let summary = &document["summary"];
    assert!(summary["wall_us"]["min"].as_u64().unwrap() >= 100_000, "{document}");
    assert!(
        summary["cpu_us"]["p50"].as_u64().unwrap() < summary["wall_us"]["p50"].as_u64().unwrap(),
        "{document}"
    );
    // A command that works takes processor time.
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let busy = bench(&desk, &spec(script, json!({"warmup": 0, "repeats": 3}))).json();
    assert!(
        busy["summary"]["cpu_us"]["min"].as_u64() > summary["cpu_us"]["max"].as_u64(),
        "{busy} {document}"
    );
}

#[test]
fn runs_go_side_by_side_if_they_are_asked_to() {
    let desk = Desk::new();
    // Each takes half a second however busy the machine is, so that eight after one another take four.
    let began = std::time::Instant::now();
    let more = json!({"warmup": 0, "repeats": 8, "concurrency": 8});
    assert_eq!(bench(&desk, &spec("sleep 0.5", more)).code, 0);
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn files_of_a_request_lie_beside_the_spec() {
    let desk = Desk::new();
    let mut request = shell("cat text");
    request["inputs"] = json!({"text": {"file": "text"}});
    let text = json!({"name": "file", "request": request, "repeats": 1, "warmup": 0}).to_string();
    desk.write("specs/spec.json", &text);
    desk.write("specs/text", "hi");
    let named = desk.requiem(&["bench", "run", "--spec", "specs/spec.json", "--json", "--cas", "store"]);
    assert_eq!(named.code, 0, "{named:?}");
    assert!(desk.path("store/tenants/default").is_dir());
    desk.write("text", "hi");
    let piped = desk.requiem_with(&["bench", "run", "--spec", "-", "--json"], text.as_bytes());
    assert_eq!(piped.json()["request_digest"], named.json()["request_digest"], "{piped:?}");
}

#[test]
fn a_failed_run_is_told_and_is_no_sample() {
    let desk = Desk::new();
    // The low bit of a random byte.
    let coin = "exit $(( $(od -An -N1 -tu1 /dev/urandom) % 2 ))";
    desk.write("spec.json", spec(coin, json!({"warmup": 0, "repeats": 60})).to_string());
    let said = desk.requiem(&[&RUN[..], &["--out", "coin.json"]].concat());
    assert_eq!(verdict(&said), (1, "RunFailed".to_owned()), "{said:?}");
    let document = said.json();
    let count = |reason: &str| document["outcomes"][reason].as_u64().unwrap();
    assert_eq!(count("Succeeded") + count("NonZeroExit"), 60);
    assert_eq!(document["samples"].as_array().unwrap().len() as u64, count("Succeeded"));
    assert_eq!(document["summary"], summary(document["samples"].as_array().unwrap()));
    let first = &document["first_failure"];
    assert_eq!((&first["reason"], &first["message"]), (&json!("NonZeroExit"), &json!("exit code 1")));
    let text = desk.requiem(&RUN[..4]).stdout;
    assert!(text.contains("first, NonZeroExit: exit code 1 [RunFailed]"), "{text}");
    // Nobody compares it.
    assert_eq!(verdict(&gate(&desk, &["coin.json", "coin.json"])), (2, "FailedBench".to_owned()));
    // If none succeeded, there are no figures at all.
    let document = bench(&desk, &spec("exit 3", json!({"warmup": 0, "repeats": 2}))).json();
    assert_eq!((&document["samples"], document.get("summary")), (&json!([]), None));
    let mut missing = spec("true", json!({"warmup": 0, "repeats": 2}));
    missing["request"]["outputs"] = json!(["never"]);
    let document = bench(&desk, &missing).json();
    assert_eq!((&document["outcomes"], &document["ok"]), (&json!({"OutputMissing": 2}), &json!(false)));
    assert!(
        document["first_failure"]["message"].as_str().unwrap().starts_with("output never is missing"),
        "{document}"
    );
    let mut slow = spec("sleep 60", json!({"warmup": 0, "repeats": 2}));
    slow["request"]["timeout_ms"] = json!(200);
    assert_eq!(bench(&desk, &slow).json()["outcomes"], json!({"TimedOut": 2}));
}

#[test]
fn what_cannot_be_measured_is_an_error_and_the_file_says_so() {
    let desk = Desk::new();
    let check = |spec: &Value, exit: i32, code: &str, part: &str| {
        desk.write("spec.json", spec.to_string());
        let said = desk.requiem(&[&RUN[..], &["--out", "out.json"]].concat());
        assert_eq!(verdict(&said), (exit, code.to_owned()), "{said:?}");
        assert!(said.stderr.contains(part) && said.stderr.contains("hint: "), "{part:?}: {said:?}");
        assert_eq!(serde_json::from_str::<Value>(&desk.read("out.json")).unwrap(), said.json());
    };
    check(&spec("exit 7", json!({"warmup": 1})), 1, "RunFailed", "a run of the warm-up failed: exit code 7");
    let mut absent = spec("true", json!({}));
    absent["request"]["command"] = json!("/no/such/program");
    check(&absent, 2, "CommandNotRunnable", "/no/such/program");
    check(&spec("true", json!({"repeat": 3})), 2, "InvalidSpec", "repeat: is not a field of a spec");
    check(&spec("true", json!({"engine": "podman"})), 2, "InvalidSpec", "engine: is not an engine");
    check(
        &spec("true", json!({"repeats": 0})),
        2,
        "InvalidSpec",
        "repeats: is not a whole number from 1 to 10000",
    );
    check(&spec("true", json!({"concurrency": 65})), 2, "InvalidSpec", "concurrency: ");
    check(
        &json!({"name": "a", "request": {"comand": "true"}}),
        2,
        "InvalidRequest",
        "comand: is not a field",
    );
    check(
        &json!({"name": "a", "request": {"command": "true", "timeout_ms": 0}}),
        2,
        "InvalidRequest",
        "timeout_ms: ",
    );
    check(&json!([]), 2, "InvalidSpec", "spec: is not an object");
    // Nothing was compared with it by mistake.
    assert_eq!(verdict(&gate(&desk, &["out.json", "out.json"])), (2, "FailedBench".to_owned()));
}

// === bench compare, bench gate ===

#[test]
fn ratios_and_their_intervals_are_told() {
    let desk = results();
    let said = desk.requiem(&["bench", "compare", "base.json", "slow.json", "--json"]);
    assert_eq!(verdict(&said), (0, "ok".to_owned()), "which one is slower is no finding: {said:?}");
    let document = said.json();
    assert_eq!((&document["confidence_percent"], &document["base"]["samples"]), (&json!(99), &json!(120)));
    for (index, figure) in ["p50", "p95"].into_iter().enumerate() {
        let row = &document["figures"][index];
        assert_eq!((&row["figure"], &row["change"]), (&json!(figure), &json!("slower")));
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(number("ratio_low") < number("ratio") && number("ratio") < number("ratio_high"), "{row}");
        assert!((number("ratio") - 4.0 / 3.0).abs() < 0.001, "{row}");
    }
    let text = desk.requiem(&["bench", "compare", "slow.json", "base.json"]).stdout;
    assert!(text.contains("RATIO, 99 %") && text.matches("faster\n").count() == 2, "{text}");
    let text = desk.requiem(&["bench", "compare", "base.json", "base.json"]).stdout;
    assert_eq!(text.matches("1.000  ").count(), 2, "{text}");
    assert_eq!(text.matches("no difference shown\n").count(), 2, "{text}");
}

#[test]
fn the_gate_tells_a_regression_from_what_cannot_be_compared() {
    let desk = results();
    let check = |arguments: &[&str], exit: i32, code: &str| {
        let said = gate(&desk, arguments);
        assert_eq!(verdict(&said), (exit, code.to_owned()), "{arguments:?}: {said:?}");
        said
    };
    check(&["base.json", "base.json"], 0, "ok");
    check(&["slow.json", "base.json"], 0, "ok");
    check(&["base.json", "slow.json", "--threshold", "40"], 0, "ok");
    let said = check(&["base.json", "slow.json"], 2, "Regression");
    assert_eq!(said.stderr, "", "it is a verdict and no error: {said:?}");
    let judged =
        json!([{"figure": "p50", "verdict": "regression"}, {"figure": "p95", "verdict": "regression"}]);
    assert_eq!((&said.json()["judgements"], &said.json()["threshold_percent"]), (&judged, &json!(5.0)));
    let text = desk.requiem(&["bench", "gate", "base.json", "slow.json", "--threshold", "7.5"]);
    assert!(
        text.stdout.ends_with("regression: p50 and p95 slower by more than 7.5 % [Regression]\n"),
        "{text:?}"
    );
    let text = desk.requiem(&["bench", "gate", "base.json", "base.json"]);
    assert!(text.code == 0 && text.stdout.ends_with("no regression above 5 %\n"), "{text:?}");
    // Half of it under a burst of other work.
    let burst: Vec<u64> =
        (0..120).map(|run| if run < 70 { 90_000 } else { 30_000 } + run * 37 % 1000).collect();
    made(&desk, "burst.json", &burst);
    let said = check(&["base.json", "burst.json"], 0, "ok");
    assert_eq!(said.json()["judgements"][1], json!({"figure": "p95", "verdict": "unsteady"}), "{said:?}");
    let text = desk.requiem(&["bench", "gate", "base.json", "burst.json"]).stdout;
    assert!(text.contains("\nunsteady: p95 above 5 %, but runs of one result differ by as much; "), "{text}");
    // Everything else with that exit code is an error with a code of its own.
    let base: Value = serde_json::from_str(&desk.read("base.json")).unwrap();
    let altered = |pointer: &str, value: Value| {
        let mut changed = base.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        desk.write("altered.json", changed.to_string());
    };
    let refused = |code: &str, part: &str| {
        let said = check(&["base.json", "altered.json"], 2, code);
        assert!(said.stderr.contains(part) && said.stderr.contains(&format!("[{code}]")), "{said:?}");
        assert_eq!(desk.requiem(&["bench", "compare", "base.json", "altered.json"]).code, 2);
    };
    altered("/summary/wall_us/p95", json!(0));
    refused("AlteredResult", "altered.json: summary is not what follows from the samples");
    altered("/samples", json!([]));
    refused("AlteredResult", "outcomes");
    altered("/concurrency", json!(2));
    refused("ConcurrencyDiffers", "1 and 2");
    altered("/environment/kernel", json!("7.0"));
    refused("AlteredResult", "environment_digest");
    let digest = format!("blake3:{}", "1".repeat(64));
    altered("/request_digest", json!(digest));
    refused("RequestsDiffer", &digest);
    check(&["base.json", "altered.json", "--across-requests"], 0, "ok");
    let mut zero: Vec<u64> = vec![30_000; 120];
    zero[7] = 0;
    made(&desk, "altered.json", &zero);
    refused("ZeroFigure", "run 8 took 0 µs");
    let mut lacking = base.clone();
    lacking["summary"].as_object_mut().unwrap().remove("wall_us");
    desk.write("altered.json", lacking.to_string());
    refused("InvalidResult", "missing field `wall_us`");
    desk.write("altered.json", "{");
    refused("InvalidResult", "not JSON");
    check(&["base.json", "few.json"], 2, "TooFewSamples");
    check(&["base.json", "absent.json"], 2, "File");
    for threshold in ["-1", "ten", "1001", "5.123", ""] {
        check(&["base.json", "slow.json", "--threshold", threshold], 2, "Usage");
    }
}

/// The fingerprint of another machine, made by one: fewer processors for the whole program.
#[test]
fn results_of_another_machine_are_compared_only_if_that_is_wanted() {
    let desk = Desk::new();
    desk.write("spec.json", spec("true", json!({"warmup": 0, "repeats": 117})).to_string());
    let program = env!("CARGO_BIN_EXE_requiem");
    let processors = std::thread::available_parallelism().unwrap().get();
    assert!(processors > 1, "this test needs two processors, to take one away");
    for (name, by) in [("all.json", ""), ("one.json", "taskset --cpu-list 0")] {
        let script = format!("{by} {program} bench run --spec spec.json --out {name}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(desk.path(".")).env("XDG_DATA_HOME", desk.path("data"));
        let ran = said(&shell.output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let refused = gate(&desk, &["all.json", "one.json"]);
    assert_eq!(verdict(&refused), (2, "EnvironmentsDiffer".to_owned()), "{refused:?}");
    let differing = format!("processors: {processors} and 1");
    assert!(refused.stderr.contains(&differing), "{refused:?}");
    let said = desk.requiem(&["bench", "compare", "all.json", "one.json", "--across-environments", "--json"]);
    assert_eq!((said.code, &said.json()["environment_differences"]), (0, &json!([differing])), "{said:?}");
    let text = desk.requiem(&["bench", "compare", "all.json", "one.json", "--across-environments"]).stdout;
    assert!(text.contains(&format!("differs: {differing}\n")), "{text}");
}

// === where it meets the world ===

#[test]
fn ctrl_c_ends_all_runs_and_says_how_far_it_came() {
    let desk = Desk::new();
    let marker = format!("sleep 600 # {}", desk.path(".").display());
    let hanging = spec(&marker, json!({"warmup": 0, "repeats": 9, "concurrency": 3}));
    desk.write("spec.json", hanging.to_string());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command =
            desk.attentive(&["bench", "run", "--spec", "spec.json", "--out", "out.json", "--json"]);
        let child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let payload = Processes::wait_for(child.id(), &marker);
        kill_process_group(Pid::from_child(&child), signal).unwrap();
        let said = said(&child.wait_with_output().unwrap());
        assert_eq!(verdict(&said), (code, "Interrupted".to_owned()), "{said:?}");
        let message = format!("interrupted by signal {} after 0 of 9 runs", signal.as_raw());
        assert!(said.stderr.contains(&message), "{said:?}");
        assert_eq!(serde_json::from_str::<Value>(&desk.read("out.json")).unwrap(), said.json());
        payload.assert_gone(Duration::ZERO);
        assert!(payload.groups().is_empty(), "a cgroup is left");
        assert_eq!(entries(&desk.path("data/requiem/cas/tmp")), Vec::<String>::new());
    }
    assert_eq!(entries(&desk.path(".")), ["data", "out.json", "spec.json"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error_and_a_full_one_is() {
    let desk = results();
    desk.write("spec.json", spec("true", json!({"warmup": 0, "repeats": 2})).to_string());
    for (line, code) in [
        ("bench run --spec spec.json", 0),
        ("bench run --spec spec.json --json", 0),
        ("bench compare base.json slow.json", 0),
        ("bench gate base.json base.json", 0),
        ("bench gate base.json slow.json --json", 2),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = said(&desk.command(&arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap());
        assert_eq!((closed.code, closed.stderr.as_str()), (code, ""), "{line}: {closed:?}");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let full = said(&desk.command(&arguments).stdout(full).stderr(Stdio::piped()).output().unwrap());
        assert!(
            full.code == 2 && full.stderr.contains("cannot write to standard output"),
            "{line}: {full:?}"
        );
    }
}

#[test]
fn a_full_disk_keeps_the_old_result() {
    let desk = Desk::new();
    desk.write("spec.json", spec("true", json!({"warmup": 0, "repeats": 100})).to_string());
    let program = env!("CARGO_BIN_EXE_requiem");
    let script = format!(
        "head -c 61440 /dev/zero > disk/filler; echo old > disk/there
         {program} bench run --spec spec.json --out disk/there; echo code $?; ls -A disk; cat disk/there"
    );
    let said = on_a_small_disk(&desk, "size=64k", &script);
    assert!(said.stdout.ends_with("code 2\nfiller\nthere\nold\n"), "{said:?}");
    assert!(said.stderr.contains("[File]") && said.stderr.contains("hint: make room"), "{said:?}");
}

#[test]
fn output_is_refused_before_anything_runs() {
    let desk = Desk::new();
    desk.write("spec.json", spec("true", json!({})).to_string());
    fs::create_dir(desk.path("folder")).unwrap();
    for path in ["folder", "absent/out.json", ".."] {
        let said = desk.requiem(&[&RUN[..], &["--out", path]].concat());
        assert_eq!(verdict(&said), (2, "File".to_owned()), "{path}: {said:?}");
        assert!(!desk.path("data").exists(), "{path}: it ran");
    }
}

#[test]
fn a_missing_permission_is_named() {
    let desk = results();
    desk.write("spec.json", spec("true", json!({})).to_string());
    fs::set_permissions(desk.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["base.json", "spec.json"] {
        fs::set_permissions(desk.path(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    for (arguments, part) in [
        (&["bench", "run", "--spec", "spec.json"][..], "cannot read spec.json"),
        (&["bench", "compare", "base.json", "slow.json"], "cannot read base.json"),
        (&["bench", "gate", "slow.json", "base.json"], "cannot read base.json"),
    ] {
        let said = unprivileged(&desk, arguments);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains(part) && said.stderr.contains("Permission denied"), "{said:?}");
    }
}

#[test]
fn paths_may_be_any_bytes_and_documents_have_an_end() {
    let desk = results();
    let odd = desk.path(".").join(std::ffi::OsStr::from_bytes(b"odd-\xff\x1b[2J"));
    fs::copy(desk.path("base.json"), &odd).unwrap();
    for arguments in [&["bench", "compare", "base.json"][..], &["bench", "gate", "slow.json", "--json"]] {
        let said = said(&desk.command(arguments).arg(&odd).output().unwrap());
        assert_eq!(said.code, 0, "{said:?}");
    }
    let mut wrong = desk.command(&["bench", "gate", "few.json"]);
    desk.write("spec.json", spec("true", json!({"warmup": 0, "repeats": 1})).to_string());
    let ran =
        said(&desk.command(&["bench", "run", "--spec", "spec.json", "--out"]).arg(&odd).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let refused = said(&wrong.arg(&odd).output().unwrap());
    assert!(refused.code == 2 && !refused.stderr.contains('\u{1b}'), "{refused:?}");
    for arguments in
        [&["bench", "run", "--spec", "/dev/zero"][..], &["bench", "gate", "/dev/zero", "base.json"]]
    {
        let endless = desk.requiem(arguments);
        assert!(endless.code == 2 && endless.stderr.contains("[TooLarge]"), "{endless:?}");
    }
}

/// How far it is goes to a terminal, and to nothing else.
#[test]
fn progress_is_for_terminals() {
    let desk = Desk::new();
    desk.write("spec.json", spec("sleep 0.1", json!({"warmup": 1, "repeats": 9})).to_string());
    let program = env!("CARGO_BIN_EXE_requiem");
    let mut terminal = Command::new("script");
    terminal.args([
        "--quiet",
        "--return",
        "--command",
        &format!("{program} bench run --spec spec.json"),
        "/dev/null",
    ]);
    terminal.current_dir(desk.path(".")).env("XDG_DATA_HOME", desk.path("data")).env("TERM", "xterm");
    let shown = said(&terminal.stdin(Stdio::null()).output().unwrap());
    assert!(shown.code == 0 && shown.stdout.contains(" of 10 runs"), "{shown:?}");
    let quiet = desk.requiem(&RUN[..4]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""), "{quiet:?}");
    assert!(!quiet.stdout.contains('\u{1b}') && !quiet.stdout.contains(" of 10 runs"), "{quiet:?}");
}
