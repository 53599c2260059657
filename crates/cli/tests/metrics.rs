//! What is counted: by which run, whatever else runs, and whatever becomes of the file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/edge.rs"]
mod edge;
#[path = "common/engine.rs"]
mod engine;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Desk, repository};
use engine::shell;
use serde_json::{Value, json};

/// What `--format prom` says: the value of each series.
fn series(desk: &Desk) -> BTreeMap<String, f64> {
    let said = desk.requiem(&["metrics", "--format", "prom"]);
    assert_eq!(said.code, 0, "{said:?}");
    let lines = said.stdout.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| line.rsplit_once(' ').unwrap());
    series.map(|(name, value)| (name.replace("requiem_cli_", ""), value.parse().unwrap())).collect()
}

/// Those that count something, and neither times nor what the store holds.
fn counted(desk: &Desk) -> Vec<String> {
    let all = series(desk).into_iter();
    let counts = all.filter(|(name, value)| *value > 0.0 && name.contains("_total{"));
    counts
        .filter(|(name, _)| !name.starts_with("store_"))
        .map(|(name, value)| format!("{name} {value}"))
        .collect()
}

/// Runs this request; gives the exit code.
fn run(desk: &Desk, request: &Value, more: &[&str]) -> i32 {
    desk.write("request.json", request.to_string());
    desk.requiem(&[&["exec", "run", "--request", "request.json", "--engine", "rust"], more].concat()).code
}

#[test]
fn every_end_is_counted_under_its_reason() {
    let desk = Desk::new();
    let none = desk.requiem(&["metrics"]);
    assert!(none.code == 2 && none.stderr.contains("[NoStore]"), "{none:?}");
    assert_eq!(run(&desk, &shell("true", &[]), &[]), 0);
    assert_eq!(run(&desk, &shell("echo hi", &[]), &[]), 0);
    assert_eq!(run(&desk, &shell("exit 3", &[]), &[]), 1);
    assert_eq!(run(&desk, &shell("kill -9 $$", &[]), &[]), 1);
    let mut slow = shell("sleep 100", &[]);
    slow["timeout_ms"] = 100.into();
    assert_eq!(run(&desk, &slow, &[]), 1);
    // A layer that is required refuses before anything runs.
    assert_eq!(run(&desk, &json!({"command": "true"}), &[]), 2);
    assert_eq!(run(&desk, &json!({"command": "true", "colour": 1}), &[]), 2);
    // What is no run is not counted.
    assert_eq!(desk.requiem(&["exec", "run", "--request", "absent"]).code, 2);
    let broken = engine::write(&desk, "broken", "#!/bin/sh\nexit 1\n");
    desk.write("request.json", shell("true", &[]).to_string());
    assert_ne!(desk.requiem(&["exec", "run", "--request", "request.json", "--engine", &broken]).code, 0);
    let expected = [
        "attempts_total{reason=\"EngineFault\"} 1",
        "attempts_total{reason=\"InvalidRequest\"} 1",
        "attempts_total{reason=\"LayerUnavailable\"} 1",
        "attempts_total{reason=\"NonZeroExit\"} 1",
        "attempts_total{reason=\"Signalled\"} 1",
        "attempts_total{reason=\"Succeeded\"} 2",
        "attempts_total{reason=\"TimedOut\"} 1",
    ];
    assert_eq!(counted(&desk), expected);
    let all = series(&desk);
    for step in ["fetch", "stage", "mount", "run", "collect", "seal", "attempt"] {
        assert_eq!(all[&format!("{step}_seconds_count")], 5.0, "{step}");
        assert_eq!(all[&format!("{step}_seconds_bucket{{le=\"+Inf\"}}")], 5.0, "{step}");
    }
    assert!(all["attempt_seconds_sum"] >= 0.1 && all["run_seconds_sum"] >= 0.1, "{all:?}");
    // One of five took 100 ms, and none two minutes.
    let within = |seconds: f64| {
        let buckets = all.iter().filter_map(|(name, count)| {
            let le = name.strip_prefix("run_seconds_bucket{le=\"")?.strip_suffix("\"}")?;
            Some((le.parse::<f64>().ok()?, *count))
        });
        buckets.filter(|(le, _)| *le < seconds).map(|(_, count)| count).fold(0.0, f64::max)
    };
    assert!(within(0.1) <= 4.0 && within(0.1) >= 1.0 && within(120.0) == 5.0, "{all:?}");
    assert!(
        all["store_puts_total{result=\"new\"}"] >= 2.0 && all["store_puts_total{result=\"known\"}"] >= 1.0
    );
    assert!(all["stored_bytes_total"] >= 3.0 && all["store_objects"] >= 2.0 && all["store_free_bytes"] > 0.0);
}

#[test]
fn layers_replays_and_candidates_are_counted_too() {
    let desk = Desk::new();
    let steady = shell("echo steady > o", &["o"]);
    desk.write("request.json", steady.to_string());
    let run = |more: &[&str]| desk.requiem(&[&["exec", "run", "--request", "request.json"], more].concat());
    assert_eq!(run(&["--proof", "proof.json", "--candidate", "rust", "--timing-floor", "60000"]).code, 0);
    assert_eq!(run(&["--engine", "rust", "--candidate", "command:/none"]).code, 0);
    assert_eq!(run(&["--engine", "rust", "--candidate", "rust", "--sample", "0"]).code, 0);
    assert_eq!(desk.requiem(&["exec", "replay", "--bundle", "proof.json"]).code, 0);
    desk.write("request.json", shell("od -An -N8 -tx1 /dev/urandom > o", &["o"]).to_string());
    assert_eq!(run(&["--proof", "random.json"]).code, 0);
    assert_eq!(desk.requiem(&["exec", "replay", "--bundle", "random.json"]).code, 1);
    let all = series(&desk);
    for (name, expected) in [
        ("attempts_total{reason=\"Succeeded\"}", 6.0),
        ("replays_total{result=\"agrees\"}", 1.0),
        ("replays_total{result=\"differs\"}", 1.0),
        ("trials_total{verdict=\"differs\"}", 1.0),
        ("trials_total{verdict=\"candidate_failed\"}", 1.0),
        ("trials_total{verdict=\"not_sampled\"}", 1.0),
        ("mismatches_total{category=\"digest_mismatch\"}", 0.0),
        ("layer_status{layer=\"noNewPrivileges\",status=\"enforced\"}", 1.0),
        ("layer_status{layer=\"noNewPrivileges\",status=\"unsupported\"}", 0.0),
    ] {
        assert_eq!(all[name], expected, "{name}");
    }
    assert!(all["mismatches_total{category=\"sandbox_diff\"}"] >= 10.0, "{all:?}");
    let layers = all.iter().filter(|(name, value)| name.starts_with("layer_status") && **value == 1.0);
    assert_eq!(layers.count(), requiem_model::Layer::ALL.len(), "each layer has one status");
}

#[test]
fn the_three_forms_say_the_same() {
    let desk = Desk::new();
    assert_eq!(run(&desk, &shell("true", &[]), &[]), 0);
    let json = desk.requiem(&["metrics", "--json"]);
    // The file system of the store lives on between two calls.
    let lasting = |said: &common::Said| -> Vec<Value> {
        let document = said.json();
        let figures = document["metrics"].as_array().unwrap().iter();
        figures.filter(|it| it["name"] != "requiem_cli_store_free_bytes").cloned().collect()
    };
    let other = desk.requiem(&["metrics", "--format", "json"]);
    assert!(lasting(&json) == lasting(&other), "{other:?}");
    let prom = series(&desk);
    let mut numbers = 0;
    for figure in json.json()["metrics"].as_array().unwrap() {
        let name = figure["name"].as_str().unwrap().strip_prefix("requiem_cli_").unwrap();
        for one in figure["series"].as_array().unwrap() {
            let labels = one["labels"].as_object().unwrap().iter();
            let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            match one.get("value") {
                Some(_) if name == "store_free_bytes" => continue,
                Some(value) => {
                    assert_eq!(prom[&format!("{name}{labels}")], value.as_f64().unwrap(), "{name}")
                }
                None => assert_eq!(prom[&format!("{name}_sum")], one["sum"].as_f64().unwrap(), "{name}"),
            }
            numbers += 1;
        }
    }
    assert!(numbers > 100, "{numbers}");
    let text = desk.requiem(&["metrics"]).stdout;
    assert!(text.contains("requiem_cli_attempts_total") && text.contains("1 times, "), "{text}");
    let both = desk.requiem(&["metrics", "--json", "--format", "prom"]);
    assert!(both.code == 2 && both.stderr.contains("[Usage]"), "{both:?}");
}

#[test]
fn names_and_buckets_are_those_of_the_executor() {
    let ours = Desk::new().requiem(&["metrics", "--markdown"]).stdout;
    let theirs = fs::read_to_string(repository("docs/reference/metrics.md")).unwrap();
    let row = |page: &str, name: &str| -> Option<String> {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{name}`")))?;
        Some(line.rsplit(" | ").next().unwrap().to_owned())
    };
    for step in ["fetch", "stage", "mount", "run", "collect", "seal", "attempt"] {
        let theirs = row(&theirs, &format!("requiem_executor_{step}_seconds"));
        assert!(theirs.is_some() && theirs == row(&ours, &format!("requiem_cli_{step}_seconds")), "{step}");
    }
    for name in ["attempts_total", "stored_bytes_total", "store_puts_total", "store_size_bytes"] {
        let theirs = row(&theirs, &format!("requiem_executor_{name}"));
        assert!(theirs.is_some() && theirs == row(&ours, &format!("requiem_cli_{name}")), "{name}");
    }
}

#[test]
fn runs_at_the_same_time_are_all_counted() {
    let desk = Desk::new();
    desk.write("request.json", shell("true", &[]).to_string());
    let run = || desk.requiem(&["exec", "run", "--request", "request.json", "--engine", "rust"]);
    assert_eq!(run().code, 0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..4).for_each(|_| assert_eq!(run().code, 0)));
        }
    });
    assert_eq!(counted(&desk), ["attempts_total{reason=\"Succeeded\"} 25"]);
}

#[test]
fn no_run_depends_on_being_counted() {
    let desk = Desk::new();
    let request = shell("true", &[]);
    assert_eq!(run(&desk, &request, &[]), 0);
    let file = desk.path("data/requiem/cas/metrics");
    let whole = fs::read(&file).unwrap();
    // Damaged: begun anew.
    fs::write(&file, "nonsense").unwrap();
    assert_eq!(run(&desk, &request, &[]), 0);
    assert_eq!(counted(&desk), ["attempts_total{reason=\"Succeeded\"} 1"]);
    // Held by somebody who does not let go: not counted.
    fs::write(&file, &whole).unwrap();
    let held = fs::File::open(&file).unwrap();
    held.lock().unwrap();
    assert_eq!(run(&desk, &request, &[]), 0);
    let said = desk.requiem(&["metrics"]);
    assert!(said.code == 2 && said.stderr.contains("[File]"), "{said:?}");
    drop(held);
    assert_eq!(counted(&desk), ["attempts_total{reason=\"Succeeded\"} 1"]);
    // No file at all.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(run(&desk, &request, &[]), 0);
    let said = desk.requiem(&["metrics"]);
    assert!(said.code == 2 && said.stderr.contains("metrics") && said.stderr.contains("hint:"), "{said:?}");
}

#[test]
fn a_missing_right_or_a_gone_reader_is_told_or_let_go() {
    let desk = Desk::new();
    assert_eq!(run(&desk, &shell("true", &[]), &[]), 0);
    let file = desk.path("data/requiem/cas/metrics");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    for folder in [".", "data", "data/requiem", "data/requiem/cas", "data/requiem/cas/tmp"] {
        fs::set_permissions(desk.path(folder), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let said = edge::unprivileged(&desk, &["metrics", "--cas", "data/requiem/cas"]);
    assert!(said.code == 2 && said.stderr.contains("Permission denied"), "{said:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = common::said(&desk.command(&["metrics"]).stdout(writer).output().unwrap());
    assert_eq!((gone.code, gone.stderr.as_str()), (0, ""));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let full = common::said(&desk.command(&["metrics"]).stdout(full).output().unwrap());
    assert!(full.code == 2 && full.stderr.contains("[Output]"), "{full:?}");
}

#[test]
fn nothing_that_a_run_says_or_is_given_is_kept() {
    let desk = Desk::new();
    let canary = "canary-4711";
    let mut request = shell(&format!("echo {canary}; exit 3"), &[]);
    request["env"] = json!({"TOKEN": canary});
    request["request_id"] = canary.into();
    assert_eq!(run(&desk, &request, &[]), 1);
    let kept = fs::read(desk.path("data/requiem/cas/metrics")).unwrap();
    let shown = ["json", "prom", "text"].map(|form| desk.requiem(&["metrics", "--format", form]).stdout);
    for text in shown.iter().map(String::as_bytes).chain([kept.as_slice()]) {
        assert!(!String::from_utf8_lossy(text).contains(canary));
    }
}

#[test]
fn gc_knows_the_file() {
    let desk = Desk::new();
    assert_eq!(run(&desk, &shell("true", &[]), &[]), 0);
    let said = desk.requiem(&["cas", "gc", "--older-than", "0s", "--delete"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(counted(&desk), ["attempts_total{reason=\"Succeeded\"} 1"]);
}
