//! The published schemas: up to date, true of what every command prints, and only ever added to. What is printed is judged by another
//! library than the one that the schemas are made by.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use boon::{Compiler, Schemas};
use common::{Desk, Said, repository};
use serde_json::{Value, json};

/// Every schema, by name.
fn published(desk: &Desk) -> BTreeMap<String, Value> {
    serde_json::from_value(desk.requiem(&["schema", "--json"]).json()["schemas"].clone()).unwrap()
}

/// The same schema, but nothing may be there that it does not name.
fn closed(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let mut closed: serde_json::Map<String, Value> =
                members.iter().map(|(name, value)| (name.clone(), self::closed(value))).collect();
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                closed.insert("additionalProperties".to_owned(), false.into());
            }
            closed.into()
        }
        Value::Array(items) => items.iter().map(closed).collect(),
        other => other.clone(),
    }
}

/// What is wrong with a document, if anything.
fn judge(schema: &Value, document: &Value) -> Option<String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("mem:///schema.json", schema.clone()).unwrap();
    let index = compiler.compile("mem:///schema.json", &mut schemas).unwrap();
    schemas.validate(document, index).err().map(|error| format!("{error:#}"))
}

#[test]
fn the_committed_schemas_are_up_to_date() {
    let desk = Desk::new();
    let said = desk.requiem(&["schema", "--out", "made", "--json"]);
    let names = |folder| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let made = names(desk.path("made"));
    assert_eq!(said.json()["files"].as_array().unwrap().len(), made.len());
    let folder = repository("docs/reference/schemas");
    assert_eq!(names(folder.clone()), made, "run `cargo xtask generate` and commit the result");
    for name in made {
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap();
        let fresh = desk.read(&format!("made/{name}"));
        assert!(fresh == committed, "{name}: run `cargo xtask generate` and commit the result");
        let one = desk.requiem(&["schema", name.strip_suffix(".json").unwrap()]);
        assert_eq!(one.stdout.trim_end(), fresh.trim_end());
    }
    let said = desk.requiem(&["schema", "nonsense"]);
    assert!(said.code == 2 && said.stderr.contains("exec-run"), "{said:?}");
}

/// Runs commands, and notes whose documents were judged.
struct Judged {
    desk: Desk,
    schemas: BTreeMap<String, Value>,
    seen: BTreeSet<String>,
}

impl Judged {
    /// Runs a command with `--json`; its document must be what the schema says, and nothing else.
    fn check(&mut self, name: &str, code: i32, arguments: &[&str]) -> Value {
        let said: Said = self.desk.requiem(&[arguments, &["--json"]].concat());
        assert_eq!(said.code, code, "{said:?}");
        let document = said.json();
        assert_eq!(judge(&closed(&self.schemas[name]), &document), None, "{name}: {document:#}");
        self.seen.insert(name.to_owned());
        document
    }
}

fn policies(it: &mut Judged) {
    let [team, refused, admitted] = ["team", "refused", "admitted"].map(|name| {
        let path = repository(&format!("config/samples/policies/{name}.yaml"));
        path.canonicalize().unwrap().display().to_string()
    });
    it.check("policy-check", 0, &["policy", "check", &admitted, "--policies", &team]);
    it.check("policy-check", 1, &["policy", "check", &refused, "--policies", &team]);
}

#[test]
fn every_output_is_what_its_schema_says() {
    let desk = Desk::new();
    let layers = json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    let request = |script: &str| {
        json!({
            "command": "/bin/sh", "argv": ["-c", script], "outputs": ["o", "gone"], "policy": {"layers": layers},
            "inputs": {"names.txt": {"text": "b\na\n"}},
        })
    };
    desk.write("request.json", request("echo hi; cp names.txt o").to_string());
    desk.write("other.json", request("kill -9 $$").to_string());
    desk.write("wrong.json", "{}");
    desk.write("folder/file", "hi");
    let schemas = published(&desk);
    let mut judged = Judged { desk, schemas, seen: BTreeSet::new() };
    let it = &mut judged;
    it.check("error", 2, &["exec", "run", "--request", "wrong.json"]);
    it.check("error", 2, &["nonsense"]);
    let run = ["exec", "run", "--request", "request.json", "--out", "result.json", "--proof", "proof.json"];
    // Declared outputs that are missing make it a failed run.
    it.check("exec-run", 1, &run);
    let written: Value = serde_json::from_str(&it.desk.read("result.json")).unwrap();
    assert_eq!(judge(&it.schemas["exec-run"], &written), None);
    it.check("exec-run", 1, &["exec", "run", "--request", "other.json", "--out", "killed.json"]);
    trials(it);
    it.check("exec-explain", 0, &["exec", "explain", "--request", "other.json"]);
    let probed = it.desk.requiem(&["sandbox", "probe"]).code;
    it.check("sandbox-probe", probed, &["sandbox", "probe"]);
    it.check("sandbox-explain", 0, &["sandbox", "explain", "seccomp"]);
    it.check("sandbox-explain", 0, &["sandbox", "explain"]);
    it.check("exec-replay", 0, &["exec", "replay", "--bundle", "proof.json", "--receipts", "receipts.json"]);
    let digest = it.check("cas-put", 0, &["cas", "put", "folder/file"])["digest"].clone();
    it.check("cas-put", 0, &["cas", "put", "folder"]);
    it.check("cas-get", 0, &["cas", "get", digest.as_str().unwrap(), "--out", "got"]);
    let digest = digest.as_str().unwrap();
    it.check("cas-pin-add", 0, &["cas", "pin", "add", digest, "--name", "mine"]);
    it.check("cas-pin-add", 0, &["cas", "pin", "add", digest]);
    it.check("cas-pin-ls", 0, &["cas", "pin", "ls"]);
    it.check("cas-ls", 0, &["cas", "ls"]);
    it.check("cas-info", 0, &["cas", "info", digest]);
    it.check("cas-stats", 0, &["cas", "stats", "--top", "2"]);
    it.check("cas-verify", 0, &["cas", "verify", "--all"]);
    it.check("cas-verify", 0, &["cas", "verify", "--sample", "1"]);
    it.check("cas-gc", 0, &["cas", "gc", "--older-than", "0s"]);
    it.check("cas-pin-rm", 0, &["cas", "pin", "rm", digest]);
    it.check("digest-file", 0, &["digest", "file", "got"]);
    it.check("digest-verify", 0, &["digest", "verify", "got", digest]);
    it.check("proof-generate", 0, &["proof", "generate", "--result", "result.json", "--out", "again.json"]);
    it.check("proof-show", 0, &["proof", "show", "proof.json"]);
    it.check("proof-prove", 0, &["proof", "prove", "proof.json", "--output", "o", "--out", "one.json"]);
    it.check("proof-verify", 0, &["proof", "verify", "proof.json", "--receipts", "receipts.json"]);
    it.check("proof-verify", 0, &["proof", "verify", "one.json"]);
    let healthy = it.desk.requiem(&["health"]).code;
    it.check("health", healthy, &["health"]);
    it.check("drift-analyze", 0, &["drift", "analyze", "result.json", "proof.json"]);
    it.check("drift-analyze", 1, &["drift", "analyze", "result.json", "killed.json"]);
    policies(it);
    let well = it.desk.requiem(&["doctor"]).code;
    it.check("doctor", well, &["doctor"]);
    std::fs::set_permissions(
        it.desk.path("data/requiem/cas"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    it.check("doctor", 1, &["doctor"]);
    benchmarks(it);
    figures_and_settings(it);
    it.check("completions", 0, &["completions", "fish"]);
    it.check("man", 0, &["man"]);
    it.check("man", 0, &["man", "--out", "pages"]);
    it.check("schema", 0, &["schema", "--out", "made"]);
    it.check("version", 0, &["version"]);
    signatures(it);
    // What is read is judged below and in config.rs, what exec apply and kubectl requiem print in the suites that have a cluster.
    let read = ["request", "bench-spec", "config-cli", "config-operator", "config-executor", "exec-apply"];
    let elsewhere = |name: &&String| read.contains(&name.as_str()) || name.starts_with("kubectl-");
    it.seen.extend(it.schemas.keys().filter(elsewhere).cloned());
    assert_eq!(it.seen, it.schemas.keys().cloned().collect(), "a schema whose document nobody has seen");
}

/// A signature, and what is handed on of it.
fn signatures(it: &mut Judged) {
    let keys = it.desk.path("keys").display().to_string();
    std::fs::create_dir(&keys).unwrap();
    let key = format!("{keys}/alice.pem");
    let mut openssl = std::process::Command::new("openssl");
    let made = openssl.args(["genpkey", "-algorithm", "ed25519", "-out", &key]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let signer = repository("config/signers/openssl").canonicalize().unwrap().display().to_string();
    let sign = ["proof", "sign", "proof.json", "--signer", &signer, "--signer-arg", &keys, "--key", "alice"];
    let public_key = it.check("proof-sign", 0, &sign)["public_key"].clone();
    let key = json!({"name": "alice", "keyId": "alice", "algorithm": "ed25519", "publicKey": public_key});
    it.desk.write("trust.json", json!({"schema": "requiem-trust/1", "keys": [key]}).to_string());
    let export = ["proof", "export", "proof.json", "--trust", "trust.json", "--out", "exported.json"];
    it.check("proof-export", 0, &export);
}

fn figures_and_settings(it: &mut Judged) {
    it.check("metrics", 0, &["metrics"]);
    it.check("config-show", 0, &["config", "show", "--tenant", "a"]);
    it.desk.write("good.toml", "configVersion = 1\n");
    it.desk.write("bad.toml", "configVersion = 1\ntenat = 5\nengine = 5\n");
    it.check("config-validate", 0, &["config", "validate", "good.toml"]);
    it.check("config-validate", 2, &["config", "validate", "bad.toml"]);
}

/// Documents that are written and not printed: of every verdict one.
fn trials(it: &mut Judged) {
    let all =
        requiem_model::Layer::ALL.into_iter().map(|layer| (layer.name().to_owned(), json!("preferred")));
    let layers: serde_json::Map<String, Value> = all.collect();
    it.desk.write("trial.json", json!({"command": "true", "policy": {"layers": layers}}).to_string());
    let trials = [
        ("differs", &["requiem", "--candidate", "rust"][..]),
        ("agrees", &["rust", "--candidate", "rust", "--timing-floor", "60000"]),
        ("not_sampled", &["rust", "--candidate", "rust", "--sample", "0"]),
        ("candidate_failed", &["rust", "--candidate", "command:/none"]),
    ];
    for (verdict, arguments) in trials {
        let run = ["exec", "run", "--request", "trial.json", "--diff", "diff.json", "--engine"];
        it.check("exec-run", 0, &[&run, arguments].concat());
        let diff: Value = serde_json::from_str(&it.desk.read("diff.json")).unwrap();
        assert_eq!(diff["verdict"], verdict);
        assert_eq!(judge(&closed(&it.schemas["exec-diff"]), &diff), None, "{diff:#}");
    }
    it.seen.insert("exec-diff".to_owned());
    std::fs::create_dir(it.desk.path("corpus")).unwrap();
    std::fs::copy(it.desk.path("trial.json"), it.desk.path("corpus/trial.json")).unwrap();
    let validate = |engine, candidate| {
        let corpus = ["--corpus", "corpus", "--repeats", "2", "--timing-floor", "60000"];
        [&["validate-replacement", "--engine", engine, "--candidate", candidate][..], &corpus].concat()
    };
    it.check("validate-replacement", 0, &validate("rust", "rust"));
    it.check("validate-replacement", 1, &validate("requiem", "rust"));
    it.desk.write("corpus/trial.json", json!({"command": "true"}).to_string());
    it.check("validate-replacement", 2, &validate("rust", "rust"));
}

fn benchmarks(it: &mut Judged) {
    let layers = json!({"cgroup": "preferred", "cgroupNamespace": "preferred", "landlock": "preferred"});
    for (name, script) in [("base", "true"), ("slow", "sleep 0.03"), ("failed", "exit 1")] {
        let request = json!({"command": "/bin/sh", "argv": ["-c", script], "policy": {"layers": layers}});
        let spec = json!({"name": name, "request": request, "warmup": 0, "repeats": 117});
        it.desk.write("spec.json", spec.to_string());
        let out = format!("{name}.json");
        let exit = i32::from(name == "failed");
        it.check("bench-run", exit, &["bench", "run", "--spec", "spec.json", "--out", &out]);
    }
    it.check("bench-compare", 0, &["bench", "compare", "base.json", "base.json"]);
    it.check("bench-gate", 0, &["bench", "gate", "base.json", "base.json"]);
    it.check("bench-gate", 2, &["bench", "gate", "base.json", "slow.json", "--across-requests"]);
    it.check("error", 2, &["bench", "gate", "base.json", "failed.json"]);
}

#[test]
fn every_command_has_a_schema() {
    let desk = Desk::new();
    let names: BTreeSet<String> = published(&desk).into_keys().collect();
    let page = desk.requiem(&["man", "--markdown"]).stdout;
    let commands = page.lines().filter_map(|line| line.strip_prefix("### "));
    let commands: BTreeSet<String> = commands
        .map(|words| words.trim_start_matches("requiem ").replace(" requiem", "").replace(' ', "-"))
        .collect();
    // They print what proof verify, exec replay and drift analyze print.
    let borrowed = ["kubectl-verify", "kubectl-replay", "kubectl-diff"];
    let commands = commands.into_iter().filter(|name| !borrowed.contains(&name.as_str()));
    let files =
        ["error", "request", "bench-spec", "exec-diff", "config-cli", "config-operator", "config-executor"];
    let expected = files.map(str::to_owned).into_iter().chain(commands).collect();
    assert_eq!(names, expected);
}

#[test]
fn a_request_is_judged_as_the_program_judges_it() {
    let desk = Desk::new();
    let schema = published(&desk).remove("request").unwrap();
    let digest = format!("blake3:{}", "0".repeat(64));
    let whole = json!({
        "request_id": "r-1", "tenant_id": "team", "command": "sh", "argv": ["-c"], "env": {"A": "1"}, "cwd": "w",
        "workspace_root": "/src", "stdin": {"text": "in"}, "outputs": ["o"], "nonce": "n", "timeout_ms": 5,
        "max_output_bytes": 0, "limits": {"memory_bytes": 8_000_000, "pids": 2, "scratch_bytes": 70_000,
        "scratch_inodes": 40, "open_files": 50}, "policy": {"layers": {"cgroup": "preferred"}},
        "inputs": {"a": digest, "b": {"tree": digest}, "c": {"file": "f"}, "d": {"blob": digest, "executable": true}},
    });
    let fields: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(fields, whole.as_object().unwrap().keys().collect(), "every field once");
    for good in [json!({"command": "a"}), json!({"command": "a", "argv": null, "limits": null}), whole] {
        assert_eq!(judge(&schema, &good), None, "{good}");
        // It gets as far as the store or the run, or to a rule between fields.
        let said = run(&desk, &good);
        assert!(!is_refused(&said) || said.stderr.contains("inputs["), "{said:?}");
    }
    for bad in [
        json!([]),
        json!({}),
        json!({"command": null}),
        json!({"command": 7}),
        json!({"command": "a", "colour": 1}),
        json!({"command": "a", "argv": "b"}),
        json!({"command": "a", "argv": ["b", 1]}),
        json!({"command": "a", "timeout_ms": "5"}),
        json!({"command": "a", "timeout_ms": -5}),
        json!({"command": "a", "timeout_ms": 0}),
        json!({"command": "a", "env": []}),
        json!({"command": "a", "env": {"A": 1}}),
        json!({"command": "a", "limits": {"cpus": 1}}),
        json!({"command": "a", "limits": {"pids": "1"}}),
        json!({"command": "a", "policy": {"llm": {}}}),
        json!({"command": "a", "policy": {"layers": {"magic": "off"}}}),
        json!({"command": "a", "policy": {"layers": {"cgroup": "no"}}}),
        json!({"command": "a", "request_id": "a b"}),
        json!({"command": "a", "tenant_id": "A"}),
        json!({"command": "a", "inputs": {"x": "blake3:00"}}),
        json!({"command": "a", "inputs": {"x": {}}}),
        json!({"command": "a", "inputs": {"x": {"text": "", "file": "y"}}}),
        json!({"command": "a", "inputs": {"x": {"tree": digest, "executable": true}}}),
        json!({"command": "a", "inputs": {"x": {"url": "y"}}}),
    ] {
        assert!(judge(&schema, &bad).is_some(), "the schema takes {bad}");
        assert!(is_refused(&run(&desk, &bad)), "the program takes {bad}");
    }
}

#[test]
fn a_spec_is_judged_as_the_program_judges_it() {
    let desk = Desk::new();
    let schema = published(&desk).remove("bench-spec").unwrap();
    let request = json!({"command": "/no/such/program"});
    let is_refused = |spec: &Value| {
        desk.write("spec.json", spec.to_string());
        let said = desk.requiem(&["bench", "run", "--spec", "spec.json", "--json"]);
        matches!(said.json()["error_code"].as_str(), Some("InvalidSpec" | "InvalidRequest" | "Tenant"))
    };
    let whole = json!({"name": "a", "request": request, "warmup": 1000, "repeats": 10_000, "concurrency": 64, "engine": "requiem"});
    let fields: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(fields, whole.as_object().unwrap().keys().collect(), "every field once");
    let least = json!({"name": "a", "request": request, "warmup": 0, "repeats": 1, "concurrency": 1});
    for good in [whole, least, json!({"name": "ä".repeat(128), "request": request})] {
        assert_eq!(judge(&schema, &good), None, "{good}");
        assert!(!is_refused(&good), "the program refuses {good}");
    }
    for bad in [
        json!([]),
        json!({"request": request}),
        json!({"name": "a"}),
        json!({"name": "", "request": request}),
        json!({"name": " ", "request": request}),
        json!({"name": "a\nb", "request": request}),
        json!({"name": "ä".repeat(129), "request": request}),
        json!({"name": 1, "request": request}),
        json!({"name": "a", "request": "true"}),
        json!({"name": "a", "request": {"command": "true", "colour": 1}}),
        json!({"name": "a", "request": {"command": "true", "inputs": {"x": {"url": "y"}}}}),
        json!({"name": "a", "request": request, "engine": "podman"}),
        json!({"name": "a", "request": request, "repeat": 1}),
        json!({"name": "a", "request": request, "warmup": 1001}),
        json!({"name": "a", "request": request, "warmup": "1"}),
        json!({"name": "a", "request": request, "repeats": 0}),
        json!({"name": "a", "request": request, "repeats": 10_001}),
        json!({"name": "a", "request": request, "repeats": 1.5}),
        json!({"name": "a", "request": request, "concurrency": 0}),
        json!({"name": "a", "request": request, "concurrency": 65}),
        json!({"name": "a", "request": request, "concurrency": null}),
    ] {
        assert!(judge(&schema, &bad).is_some(), "the schema takes {bad}");
        assert!(is_refused(&bad), "the program takes {bad}");
    }
}

fn run(desk: &Desk, request: &Value) -> Said {
    desk.write("judged.json", request.to_string());
    desk.requiem(&["exec", "run", "--request", "judged.json", "--json"])
}

fn is_refused(said: &Said) -> bool {
    matches!(said.json()["error_code"].as_str(), Some("InvalidRequest" | "Tenant"))
}

// === only ever added to ===

/// What was published with the last version. A release replaces it by what `requiem schema --json` prints; until then a field that is in
/// it stays.
const LAST: &str = include_str!("published.json");

/// What a newer schema has taken away or demands anew, so that a program written for the older one would fail.
fn breaks(path: &str, older: &Value, newer: &Value, is_input: bool, found: &mut Vec<String>) {
    for part in ["properties", "$defs"] {
        for (name, before) in older[part].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match newer[part].get(name) {
                None => found.push(format!("{path} is gone")),
                Some(now) => breaks(&path, before, now, is_input, found),
            }
        }
    }
    for part in ["items", "additionalProperties", "propertyNames"] {
        if older[part].is_object() {
            breaks(&format!("{path}.{part}"), &older[part], &newer[part], is_input, found);
        }
    }
    for part in ["type", "pattern", "$ref", "anyOf", "oneOf"] {
        if older[part] != newer[part] {
            found.push(format!("{path}: {part} has changed"));
        }
    }
    let texts = |schema: &Value, part: &str| -> BTreeSet<String> {
        schema[part].as_array().into_iter().flatten().map(Value::to_string).collect()
    };
    let (before, now) = (texts(older, "enum"), texts(newer, "enum"));
    if !before.is_subset(&now) {
        found.push(format!("{path}: a value is gone"));
    }
    let (before, now) = (texts(older, "required"), texts(newer, "required"));
    let good = if is_input { now.is_subset(&before) } else { before.is_subset(&now) };
    if !good {
        found.push(format!("{path}: what is required has changed"));
    }
}

#[test]
fn documents_are_only_ever_added_to() {
    let older: BTreeMap<String, Value> =
        serde_json::from_value(serde_json::from_str::<Value>(LAST).unwrap()["schemas"].clone()).unwrap();
    let newer = published(&Desk::new());
    assert!(older.len() >= 19, "{}", older.len());
    let mut found = Vec::new();
    for (name, before) in &older {
        match newer.get(name) {
            None => found.push(format!("{name} is gone")),
            Some(now) => {
                breaks(name, before, now, ["request", "bench-spec"].contains(&name.as_str()), &mut found)
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn what_would_break_a_reader_is_found() {
    let schema = json!({
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "level": {"enum": ["low", "high"]}},
        "required": ["ok"],
    });
    let check = |pointer: &str, value: Value, is_input: bool, expected: &[&str]| {
        let mut newer = schema.clone();
        *newer.pointer_mut(pointer).unwrap() = value;
        let mut found = Vec::new();
        breaks("x", &schema, &newer, is_input, &mut found);
        assert_eq!(found, expected);
    };
    check("/properties", json!({"ok": {"type": "boolean"}}), false, &["x.level is gone"]);
    check("/properties/ok/type", json!("string"), false, &["x.ok: type has changed"]);
    check("/properties/level/enum", json!(["low"]), false, &["x.level: a value is gone"]);
    check("/properties/level/enum", json!(["low", "high", "top"]), false, &[]);
    check("/required", json!([]), false, &["x: what is required has changed"]);
    check("/required", json!([]), true, &[]);
    check("/required", json!(["ok", "level"]), false, &[]);
    check("/required", json!(["ok", "level"]), true, &["x: what is required has changed"]);
}

#[test]
fn what_a_schema_does_not_name_is_seen() {
    let desk = Desk::new();
    let version = desk.requiem(&["version", "--json"]).json();
    let schema = published(&desk).remove("version").unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut changed = version.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        judge(&closed(&schema), &changed)
    };
    assert_eq!(judge(&closed(&schema), &version), None);
    assert!(changed("/build/binary", json!("sha256:00")).is_some());
    assert!(changed("/ok", json!("yes")).is_some());
    assert!(changed("/build", json!({})).is_some());
    let mut more = version["build"].clone();
    more["colour"] = json!("red");
    assert!(changed("/build", more).is_some());
}
