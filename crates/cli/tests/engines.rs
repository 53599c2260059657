//! Engines other than the sandbox: what they run, what they refuse, and what their proofs say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/engine.rs"]
mod engine;

use common::{Desk, Said};
use engine::{assert_tidy, request, shell};
use serde_json::{Value, json};

fn run_by(desk: &Desk, engine: &str, wanted: &Value) -> Said {
    desk.write("request.json", wanted.to_string());
    let arguments =
        ["exec", "run", "--request", "request.json", "--engine", engine, "--proof", "proof.json", "--json"];
    engine::requiem(desk, &arguments)
}

fn names(list: &Value) -> usize {
    list.as_array().unwrap().len()
}

#[test]
fn what_it_says_of_itself_is_in_result_report_and_proof() {
    let desk = engine::desk();
    for (engine, name) in [("rust", "rust"), (&engine::honest(&desk)[..], "subprocess")] {
        let said =
            run_by(&desk, engine, &shell("echo hi; echo err >&2; mkdir out; echo made > out/file", &["out"]));
        assert_eq!(said.code, 0, "{said:?}");
        let result = said.json();
        assert_eq!(
            (&result["engine"]["name"], &result["stdout"], &result["stderr"]),
            (&json!(name), &json!("hi\n"), &json!("err\n"))
        );
        let sandbox = &result["sandbox_applied"];
        assert_eq!((names(&sandbox["unsupported"]), names(&sandbox["enforced"])), (18, 0));
        let confidence = &result["determinism_confidence"];
        assert_eq!(
            (&confidence["level"], &confidence["formula"], &confidence["score"]),
            (&json!("best_effort"), &json!("dc/2"), &json!(0))
        );
        assert_eq!(confidence["reasons"][0], format!("engine:{name}"));
        let proof = desk.requiem(&["proof", "verify", "proof.json", "--json"]);
        assert_eq!((proof.code, &proof.json()["engine"]["name"]), (0, &json!(name)), "{proof:?}");
        let proof = desk.requiem(&["proof", "verify", "proof.json"]);
        assert!(
            proof.stdout.contains(&format!("{name} ")) && proof.stdout.contains("not the sandbox"),
            "{proof:?}"
        );
        let demanded = desk.requiem(&["proof", "verify", "proof.json", "--require", "sandbox=full"]);
        assert_eq!(demanded.code, 1, "{demanded:?}");
        let digest = result["output_digests"]["out"].as_str().unwrap();
        assert_eq!(desk.requiem(&["cas", "get", digest, "--tree", "--out", &format!("got-{name}")]).code, 0);
        assert_eq!(desk.read(&format!("got-{name}/file")), "made\n");
    }
    // A replay is the sandbox's, and names what it differs in.
    let replay = desk.requiem(&["exec", "replay", "--bundle", "proof.json", "--json"]);
    assert_eq!((replay.code, &replay.json()["divergences"]), (1, &json!(["engine"])), "{replay:?}");
    let sandboxed = run_by(&desk, "requiem", &shell("echo hi", &[])).json();
    let bare = run_by(&desk, "rust", &shell("echo hi", &[])).json();
    assert_eq!(sandboxed["request_digest"], bare["request_digest"]);
    assert_ne!(sandboxed["execution_root"], bare["execution_root"]);
    assert_tidy(&desk);
}

#[test]
fn a_required_layer_is_a_refusal_before_anything_runs() {
    let desk = engine::desk();
    let mark = desk.path("mark");
    for engine in ["rust", &engine::honest(&desk)[..]] {
        for layer in ["seccomp", "readOnlyInputs", "cgroup"] {
            let mut wanted = shell(&format!("touch {}", mark.display()), &[]);
            wanted["policy"]["layers"][layer] = json!("required");
            let said = run_by(&desk, engine, &wanted);
            assert_eq!((said.code, &said.json()["error_code"]), (2, &json!("LayerUnavailable")), "{said:?}");
            assert!(said.stderr.contains(layer) && said.stderr.contains("proves no isolation"), "{said:?}");
        }
        // Nothing said is everything required.
        let said = run_by(&desk, engine, &json!({"command": "true"}));
        assert_eq!(said.json()["error_code"], "LayerUnavailable");
    }
    assert!(!mark.exists());
    let said = run_by(&desk, "podman", &shell("true", &[]));
    assert!(said.code == 2 && said.stderr.contains("requiem, rust"), "{said:?}");
}

#[test]
fn requests_mean_the_same_to_every_engine() {
    let desk = engine::desk();
    desk.write("folder/deep/a", "A");
    let tree = desk.requiem(&["cas", "put", "folder"]).stdout;
    let script = "#!/bin/sh\nW=${PWD##*workspace}; cd ../../..; cat src/deep/a blob -\n\
        [ \"$HOME\" = \"$PWD\" ] && echo \"$A|$LANG|$TZ|$W\"; env | cut -d= -f1 | sort | tr '\\n' ' '\n";
    let wanted = request(json!({
        "command": "/workspace/tool.sh", "cwd": "made/for/it", "env": {"A": "1"},
        "stdin": {"text": "in\n"},
        "inputs": {
            "src": {"tree": tree.trim()}, "blob": {"text": "B\n"},
            "tool.sh": {"text": script, "executable": true},
        },
    }));
    let [sandboxed, bare, other] = ["requiem", "rust", &engine::honest(&desk)].map(|engine| {
        let said = run_by(&desk, engine, &wanted);
        assert_eq!(said.code, 0, "{engine}: {said:?}");
        said.json()["stdout"].clone()
    });
    assert!(bare.as_str().unwrap().starts_with("AB\nin\n1|C.UTF-8|UTC|/made/for/it\nA HOME LANG "), "{bare}");
    assert_eq!((&bare, &other), (&sandboxed, &sandboxed));
    for (script, reason) in
        [("exit 7", "NonZeroExit"), ("kill -9 $$", "Signalled"), ("true", "OutputMissing")]
    {
        for engine in ["requiem", "rust", &engine::honest(&desk)[..]] {
            let said = run_by(&desk, engine, &shell(script, &["never"]));
            assert_eq!(
                (said.code, &said.json()["termination_reason"]),
                (1, &json!(reason)),
                "{engine}: {said:?}"
            );
            assert_eq!(desk.requiem(&["proof", "verify", "proof.json"]).code, 0);
        }
    }
    let said = run_by(&desk, "rust", &request(json!({"command": "no-such-program"})));
    assert_eq!((said.code, &said.json()["error_code"]), (2, &json!("CommandNotRunnable")), "{said:?}");
    assert_tidy(&desk);
}

#[test]
fn time_floods_and_children_of_rust_are_bounded() {
    let desk = engine::desk();
    let nap = engine::nap(1);
    let mut slow = shell(&format!("setsid sleep {nap} & sleep {nap} & echo begun; wait"), &[]);
    slow["timeout_ms"] = json!(700);
    let said = run_by(&desk, "rust", &slow);
    assert_eq!(
        (&said.json()["termination_reason"], &said.json()["stdout"]),
        (&json!("TimedOut"), &json!("begun\n")),
        "{said:?}"
    );
    // What a command leaves behind does not live on, in its group or out of it.
    let said = run_by(&desk, "rust", &shell(&format!("setsid sleep {nap} & sleep {nap} & exit 3"), &[]));
    assert_eq!(said.json()["exit_code"], 3);
    engine::assert_nobody_runs(&nap);
    let mut flood = shell("head -c 3000000 /dev/zero; echo end >&2", &[]);
    flood["max_output_bytes"] = json!(1000);
    let result = run_by(&desk, "rust", &flood).json();
    assert_eq!((&result["stdout_truncated"], &result["stderr"]), (&json!(true), &json!("end\n")));
    let mut full = shell("head -c 40000000 /dev/zero > big; sleep 60", &[]);
    full["limits"] = json!({"scratch_bytes": 10_000_000});
    let said = run_by(&desk, "rust", &full);
    assert_eq!((said.code, &said.json()["error_code"]), (2, &json!("E_ENGINE_WORKSPACE")), "{said:?}");
    assert_tidy(&desk);
}

/// Links that inputs and commands leave lead nowhere.
#[test]
fn links_are_not_followed() {
    let desk = engine::desk();
    std::fs::create_dir(desk.path("folder")).unwrap();
    std::os::unix::fs::symlink(desk.path("secret"), desk.path("folder/link")).unwrap();
    std::fs::create_dir(desk.path("secret")).unwrap();
    let tree = desk.requiem(&["cas", "put", "folder"]).stdout;
    let mut wanted = shell("true", &[]);
    wanted["inputs"] = json!({"in": {"tree": tree.trim()}});
    wanted["cwd"] = json!("in/link/made");
    let said = run_by(&desk, "rust", &wanted);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(!desk.path("secret/made").exists());
    let said = run_by(&desk, "rust", &shell("ln -s /etc/passwd out", &["out"]));
    let link = said.json();
    assert!(
        link["output_digests"].as_object().unwrap().is_empty() && names(&link["missing_outputs"]) == 1,
        "{link}"
    );
}

#[test]
fn an_engine_that_is_none_is_refused_with_its_code() {
    let desk = engine::desk();
    let info = r#"{"protocols":["requiem-engine/1"],"name":"wrong","version":"1"}"#;
    let speaks = |said: &str| format!("#!/bin/sh\nread -r question\ncat <<'E'\n{said}\nE\n");
    let runs = |how: &str| {
        format!(
            "#!/bin/sh\nread -r q\ncase $q in *'\"verb\":\"info\"'*) echo '{info}'; exit;; esac\n{FIELDS}{how}\n"
        )
    };
    let ok = r#"echo '{"outcome":{"kind":"exited","code":0}}'"#;
    let nothing = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let cases = [
        (speaks(""), "E_ENGINE_REPLY"),
        (speaks("[]"), "E_ENGINE_REPLY"),
        (speaks(&info.replace("wrong", "requiem")), "E_ENGINE_REPLY"),
        (speaks(&info.replace("engine/1", "engine/2")), "E_ENGINE_REPLY"),
        (speaks(&info.replace("\"1\"", "\"1\",\"version\":\"1\"")), "E_ENGINE_REPLY"),
        (speaks(r#"{"error":{"code":"x","message":"y"}}"#), "E_ENGINE_CONTRADICTION"),
        ("#!/bin/sh\nexit 1\n".to_owned(), "E_ENGINE_REPLY"),
        ("#!/no/such/interpreter\n".to_owned(), "E_ENGINE_START"),
        (runs(&format!("echo a > $stdout; : > $stderr; {ok} ; exit 1")), "E_ENGINE_CONTRADICTION"),
        (runs("kill -9 $$"), "E_ENGINE_REPLY"),
        (runs("echo nonsense"), "E_ENGINE_REPLY"),
        (runs("head -c 100000 /dev/zero"), "E_ENGINE_OUTPUT"),
        (runs("echo '{\"error\":{\"code\":\"Busy\",\"message\":\"no room\"}}'; exit 1"), "E_ENGINE_REFUSED"),
        // It left no streams, a link, a pipe.
        (runs(ok), "E_ENGINE_CONTRADICTION"),
        (runs(&format!("ln -s /etc/passwd $stdout; : > $stderr; {ok}")), "E_ENGINE_CONTRADICTION"),
        (runs(&format!("mkfifo $stdout; : > $stderr; {ok}")), "E_ENGINE_CONTRADICTION"),
        // What it says of its streams and outputs is not so.
        (
            runs(&format!(
                "echo a > $stdout; : > $stderr; {}",
                ok.replace("}}", &format!("}},\"stdout\":\"{nothing}\"}}"))
            )),
            "E_ENGINE_CONTRADICTION",
        ),
        (
            runs(&format!(
                "echo a > $stdout; : > $stderr; {}",
                ok.replace("}}", "},\"outputs\":[{\"path\":\"out\"}]}")
            )),
            "E_ENGINE_CONTRADICTION",
        ),
        (
            runs(&format!(
                "echo a > $workspace/out; : > $stdout; : > $stderr; {}",
                ok.replace("}}", "},\"outputs\":[]}")
            )),
            "E_ENGINE_CONTRADICTION",
        ),
        (
            runs(&format!(
                "echo a > $workspace/out; : > $stdout; : > $stderr; {}",
                ok.replace(
                    "}}",
                    &format!("}},\"outputs\":[{{\"path\":\"out\",\"digest\":\"{nothing}\"}}]}}")
                )
            )),
            "E_ENGINE_CONTRADICTION",
        ),
        (runs("while :; do head -c 1000000 /dev/zero >> $workspace/flood; done"), "E_ENGINE_WORKSPACE"),
    ];
    let mut wanted = shell("true", &["out"]);
    wanted["limits"] = json!({"scratch_bytes": 30_000_000});
    wanted["max_output_bytes"] = json!(1000);
    for (script, code) in cases {
        let engine = engine::write(&desk, "wrong", &script);
        let said = run_by(&desk, &engine, &wanted);
        assert_eq!((said.code, &said.json()["error_code"]), (2, &json!(code)), "{script}: {said:?}");
    }
    assert_tidy(&desk);
    let engine = engine::write(&desk, "open", &runs(ok));
    std::fs::set_permissions(desk.path("open"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let said = run_by(&desk, &engine, &wanted);
    assert_eq!(said.json()["error_code"], "E_ENGINE_PROGRAM", "{said:?}");
    let said = run_by(&desk, "command:/no/such/engine", &wanted);
    assert_eq!(said.json()["error_code"], "E_ENGINE_PROGRAM", "{said:?}");
}

/// Takes the paths out of a question, as no serious engine would.
const FIELDS: &str = "field() { echo \"$q\" | sed \"s/.*\\\"$1\\\":\\\"\\([^\\\"]*\\)\\\".*/\\1/\"; }\nworkspace=$(field workspace) stdout=$(field stdout) stderr=$(field stderr)\n";
