//! Attacks on form, binding and consistency, each with the code that refuses it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::{
    body, elsewhere, judge, judge_body, judge_file, judge_loosely, judge_output, path, referring, roots_of,
    sealed,
};
use requiem_model::attempt::Identity;
use requiem_model::canon;
use requiem_model::confidence::{Level, assess, assess_of};
use requiem_model::report::{Evidence, SourceState, Status};
use requiem_model::result::{MissingOutput, OutputContent};
use requiem_model::{BlobDigest, ExecutionRequest, Layer, Requirement};
use requiem_proof::{BundleBody, Expect, ProofFile, VerifyError, check_fits, prove_output, seal, verify};

/// Here there is none. The suite `verifier` has one, and includes this file.
#[allow(unused_imports, reason = "the including file has its own")]
pub(crate) use common::none as second_opinion;

fn code(text: &str) -> &'static str {
    judge(text, &Expect::default()).unwrap_err().code()
}

/// The sealed text with one replacement that must hit.
fn with(from: &str, to: &str) -> String {
    let text = sealed().body;
    assert!(text.contains(from), "{from:?} is not in the body");
    text.replacen(from, to, 1)
}

/// A change that the roots of the honest bundle refuse.
fn breaks_root(change: impl FnOnce(&mut BundleBody)) {
    let honest = sealed();
    let mut forged = body();
    change(&mut forged);
    let text = String::from_utf8(canon::to_vec(&forged).unwrap()).unwrap();
    assert_eq!(judge(&text, &roots_of(&honest)).unwrap_err().code(), "E_ROOT");
}

/// A change that is refused even with fresh roots, because the facts contradict one another.
fn contradicts(expected: &str, change: impl FnOnce(&mut BundleBody)) {
    let mut forged = body();
    change(&mut forged);
    let error = judge_body(&forged).unwrap_err();
    assert!(seal(&forged).is_err());
    assert_eq!(error.code(), expected, "{error}");
}

fn row(body: &mut BundleBody, layer: Layer) -> &mut requiem_model::report::LayerReport {
    let rows = &mut body.run.sandbox.layers;
    rows.iter_mut().find(|row| row.layer == layer).unwrap()
}

// ---- canonical form ------------------------------------------------------------------------------

#[test]
fn other_spellings_are_refused_not_repaired() {
    let text = sealed().body;
    assert_eq!(code(&format!("{text} ")), "E_NOT_CANONICAL");
    assert_eq!(code(&format!("{text}\n")), "E_NOT_CANONICAL");
    assert_eq!(code(&with("{\"execution\"", "{ \"execution\"")), "E_NOT_CANONICAL");
    assert_eq!(
        code(&with(
            "\"engine\":{\"name\":\"requiem\",\"version\":\"0.1.0\"}",
            "\"engine\":{\"version\":\"0.1.0\",\"name\":\"requiem\"}"
        )),
        "E_NOT_CANONICAL"
    );
    assert_eq!(code(&with("/bin/sh", "\\u002fbin/sh")), "E_NOT_CANONICAL");
    assert_eq!(code(&with("/bin/sh", "\\/bin/sh")), "E_NOT_CANONICAL");
    assert_eq!(code(&format!("\u{feff}{text}")), "E_PARSE");
    assert_eq!(code(&format!("{text}{text}")), "E_PARSE");
}

#[test]
fn duplicate_members_are_refused_at_any_depth() {
    assert_eq!(code(&with("{\"execution\":", "{\"execution\":1,\"execution\":")), "E_DUP_KEY");
    assert_eq!(code(&with("\"name\":\"requiem\"", "\"name\":\"evil\",\"name\":\"requiem\"")), "E_DUP_KEY");
    assert_eq!(code(&with("\"code\":0", "\"code\":0,\"code\":0")), "E_DUP_KEY");
}

#[test]
fn numbers_with_two_readings_are_refused() {
    for number in ["9007199254740993", "9007199254740992", "1.0", "1e2", "-0", "1e400", "01", "0.1"] {
        assert_eq!(code(&with("\"pids\":256", &format!("\"pids\":{number}"))), "E_NUMBER", "{number}");
    }
}

#[test]
fn names_nulls_depth_and_size_are_bounded() {
    assert_eq!(code(&with("\"pids\":256", "\"p\u{1d49c}\":256")), "E_KEY");
    assert_eq!(code(&with("\"pids\":256", "\"pids\":null")), "E_NULL");
    assert_eq!(
        code(&with("\"pids\":256", &format!("\"pids\":{}{}", "[".repeat(33), "]".repeat(33)))),
        "E_BOUNDS"
    );
    assert_eq!(code(&"[".repeat(100_000)), "E_BOUNDS");
    assert_eq!(code(&format!("{}{}", sealed().body, " ".repeat(256 * 1024))), "E_BOUNDS");
}

#[test]
fn truncation_gives_no_partial_verdict() {
    let text = sealed().body;
    assert_eq!(code(""), "E_PARSE");
    for end in (1..text.len()).step_by(97).filter(|end| text.is_char_boundary(*end)) {
        assert!(judge(&text[..end], &Expect::default()).is_err(), "{end}");
    }
}

#[test]
fn unknown_members_and_filled_defaults_are_refused() {
    assert_eq!(code(&with("\"pids\":256", "\"pids\":256,\"quota\":1")), "E_SHAPE");
    // A policy that leaves a layer out means the same to the type, so it must not be a second text.
    assert_eq!(code(&with(",\"utsNamespace\":\"off\"", "")), "E_NOT_CANONICAL");
    // Unit variants of tagged enums let unknown members pass; the second writing does not.
    let timed_out = with("{\"code\":0,\"kind\":\"exited\"}", "{\"kind\":\"timedOut\"}");
    assert!(judge(&timed_out, &Expect::default()).is_ok());
    let smuggled = with("{\"code\":0,\"kind\":\"exited\"}", "{\"evil\":1,\"kind\":\"timedOut\"}");
    assert!(judge(&smuggled, &Expect::default()).is_err());
}

// ---- version -------------------------------------------------------------------------------------

#[test]
fn other_versions_fail_closed_and_say_so() {
    for other in ["requiem-bundle/0", "requiem-bundle/2", "Requiem-bundle/1", "", "requiem-bundle/1 "] {
        assert_eq!(code(&with("requiem-bundle/1", other)), "E_VERSION");
    }
    assert_eq!(code("{\"schema\":\"requiem-bundle/2\"}"), "E_VERSION");
    assert_eq!(code("{}"), "E_VERSION");
    assert_eq!(code("{\"schema\":1}"), "E_VERSION");
    assert_eq!(code("[]"), "E_SHAPE");
}

// ---- binding -------------------------------------------------------------------------------------

#[test]
fn swapped_or_renamed_facts_break_the_root() {
    breaks_root(|body| {
        let result = &mut body.execution.result;
        std::mem::swap(&mut result.stdout, &mut result.stderr);
    });
    breaks_root(|body| {
        let outputs = &mut body.execution.result.outputs;
        let (one, other) = (outputs[0].content, outputs[1].content);
        (outputs[0].content, outputs[1].content) = (other, one);
    });
    breaks_root(|body| body.execution.result.outputs[0].path = path("@stderr"));
    breaks_root(|body| body.execution.request.inputs.swap(0, 1));
    breaks_root(|body| row(body, Layer::Seccomp).evidence = Evidence::Readback);
    breaks_root(|body| row(body, Layer::Cgroup).status = Status::Enforced);
    breaks_root(|body| body.execution.engine.version = "0.1.1".into());
}

#[test]
fn an_output_cannot_pose_as_a_stream_nor_as_another_spelling() {
    // The fixture has an output called @stdout, and the same letter composed and decomposed.
    let verified = verify(&sealed().body, &Expect::default()).unwrap();
    let proof = prove_output(&verified, &path("@stdout")).unwrap();
    judge_output(&proof, &verified.execution_root).unwrap();
    for other in ["out/\u{e9}", "out/e\u{301}"] {
        let mut moved = proof.clone();
        moved.path = path(other);
        assert_eq!(judge_output(&moved, &verified.execution_root).unwrap_err().code(), "E_PROOF");
    }
}

#[test]
fn a_bundle_of_another_execution_is_refused() {
    let honest = sealed();
    let verified = judge(&honest.body, &roots_of(&honest)).unwrap();
    let identity = verified.body.run.identity.clone();
    let check = |identity: Identity| {
        let expect = Expect { identity: Some(identity), ..roots_of(&honest) };
        judge(&honest.body, &expect).map_err(|error| error.code()).err()
    };
    assert_eq!(check(identity.clone()), None);
    assert_eq!(check(Identity { uid: "other".into(), ..identity.clone() }), Some("E_REQUEST_BINDING"));
    assert_eq!(check(Identity { namespace: "other".into(), ..identity.clone() }), Some("E_REQUEST_BINDING"));
    assert_eq!(check(Identity { name: "other".into(), ..identity.clone() }), Some("E_REQUEST_BINDING"));
    assert_eq!(check(Identity { generation: 2, ..identity.clone() }), Some("E_REQUEST_BINDING"));
    assert_eq!(check(Identity { attempt: 2, ..identity }), Some("E_REQUEST_BINDING"));
}

#[test]
fn a_bundle_of_another_request_or_nonce_is_refused() {
    let honest = sealed();
    let mut resubmitted = body().execution.request;
    resubmitted.nonce = Some("n-2".into());
    let expect = Expect { request_digest: Some(resubmitted.digest().unwrap()), ..roots_of(&honest) };
    let error = judge(&honest.body, &expect).unwrap_err();
    assert!(matches!(error, VerifyError::RequestBinding { .. }));
    assert_eq!(error.code(), "E_REQUEST_BINDING");
    let expect =
        Expect { request_digest: Some(body().execution.request.digest().unwrap()), ..Expect::default() };
    assert!(judge(&honest.body, &expect).is_ok());
}

#[test]
fn a_policy_edited_after_the_run_is_refused() {
    breaks_root(|body| {
        body.execution.request.policy.layers.insert(Layer::Landlock, Requirement::Off);
    });
    // With fresh roots the report still says what had been asked for.
    contradicts("E_REPORT", |body| {
        body.execution.request.policy.layers.insert(Layer::Landlock, Requirement::Off);
    });
}

#[test]
fn claimed_roots_are_compared_one_by_one() {
    let honest = sealed();
    let mut other = body();
    other.run.executor.name = "executor-1".into();
    let other = seal(&other).unwrap();
    let execution = Expect { bundle_root: Some(other.bundle_root), ..roots_of(&honest) };
    assert!(matches!(judge(&honest.body, &execution), Err(VerifyError::BundleRoot { .. })));
    let mut other = body();
    other.execution.engine.version = "9".into();
    let other = seal(&other).unwrap();
    let expect = Expect { execution_root: Some(other.execution_root), ..roots_of(&honest) };
    assert!(matches!(judge(&honest.body, &expect), Err(VerifyError::ExecutionRoot { .. })));
}

// ---- consistency: fresh roots do not help -----------------------------------------------------------

#[test]
fn enforced_needs_evidence_and_required_needs_force() {
    for weak in [Evidence::SyscallReturn, Evidence::AssertedByOuter, Evidence::None] {
        contradicts("E_EVIDENCE", |body| row(body, Layer::Seccomp).evidence = weak);
    }
    contradicts("E_EVIDENCE", |body| row(body, Layer::NetworkNamespace).evidence = Evidence::Probe);
    for status in [Status::Partial, Status::Unsupported] {
        contradicts("E_REQUIRED_LAYER", |body| {
            let row = row(body, Layer::Seccomp);
            (row.status, row.detail) = (status, Some("not here".into()));
        });
    }
    contradicts("E_REPORT", |body| {
        let row = row(body, Layer::Seccomp);
        (row.status, row.detail) = (Status::Disabled, Some("not asked for".into()));
    });
}

#[test]
fn a_report_is_complete_ordered_and_speaks() {
    contradicts("E_REPORT", |body| drop(body.run.sandbox.layers.pop()));
    contradicts("E_REPORT", |body| body.run.sandbox.layers.swap(0, 1));
    contradicts("E_REPORT", |body| body.run.sandbox.sources.truncate(10));
    contradicts("E_REPORT", |body| body.run.sandbox.sources.swap(0, 1));
    contradicts("E_REPORT", |body| row(body, Layer::Cgroup).detail = None);
    contradicts("E_REPORT", |body| row(body, Layer::Cgroup).detail = Some("x".repeat(1025)));
    contradicts("E_REPORT", |body| row(body, Layer::Cgroup).detail = Some("\u{1b}[2J".into()));
    contradicts("E_REPORT", |body| row(body, Layer::Cgroup).mechanism.clear());
    contradicts("E_REPORT", |body| row(body, Layer::Cgroup).mechanism = "x".repeat(129));
    contradicts("E_REPORT", |body| row(body, Layer::Cgroup).requested = Requirement::Required);
    contradicts("E_LEAF_ORDER", |body| {
        let again = body.run.sandbox.layers[0].clone();
        body.run.sandbox.layers.insert(1, again);
    });
}

#[test]
fn confidence_is_recomputed() {
    contradicts("E_CONFIDENCE", |body| body.run.confidence.level = Level::High);
    contradicts("E_CONFIDENCE", |body| body.run.confidence.score += 1);
    contradicts("E_CONFIDENCE", |body| drop(body.run.confidence.reasons.pop()));
    contradicts("E_CONFIDENCE", |body| body.run.confidence.formula = "dc/2".into());
    contradicts("E_CONFIDENCE", |body| body.run.sandbox.sources[6].state = SourceState::Fixed);
    // The honest way to the same report.
    let mut honest = body();
    honest.run.sandbox.sources[6].state = SourceState::Fixed;
    honest.run.confidence = assess(&honest.run.sandbox);
    assert!(judge_body(&honest).is_ok());
}

#[test]
fn values_that_the_body_does_not_hold_are_owned_up_to() {
    let forged = |code: &str, change: fn(&mut BundleBody)| {
        let mut body = referring();
        change(&mut body);
        body.run.confidence = assess(&body.run.sandbox);
        assert_eq!(common::code(&judge_body(&body)), code);
    };
    forged("ok", |_| {});
    let claim = |body: &BundleBody| (body.run.confidence.level, body.run.confidence.score);
    assert_eq!(claim(&referring()).0, Level::BestEffort);
    assert_eq!(claim(&referring()).1 + 10, claim(&body()).1);
    forged("E_REPORT", |body| body.run.sandbox.sources[0].state = SourceState::Fixed);
    forged("E_REPORT", |body| body.run.sandbox.sources[0].state = SourceState::Real);
    forged("E_REPORT", |body| body.run.sandbox.sources[1].state = SourceState::Undisclosed);
    forged("E_REPORT", |body| body.execution.request.env_refs.clear());
    forged("E_REQUEST", |body| body.execution.request.env_refs.reverse());
    forged("E_REQUEST", |body| {
        let name = body.execution.request.env[0].name.clone();
        body.execution.request.env_refs[0].name = name;
    });
    forged("E_REQUEST", |body| {
        let again = body.execution.request.env_refs[0].clone();
        body.execution.request.env_refs.insert(0, again);
    });
    let text = requiem_proof::seal(&referring()).unwrap().body;
    for (from, to) in [
        ("\"registry\"", "\"Registry\""),
        ("\"registry\"", "\"\""),
        ("\"mode.txt\"", "\"..\""),
        ("\"mode.txt\"", "\"mode/txt\""),
        ("\"configMap\"", "\"file\""),
        ("\"name\":\"registry\"", "\"name\":\"registry\",\"value\":\"v\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(common::code(&judge(&text.replacen(from, to, 1), &Expect::default())), "E_SHAPE", "{to}");
    }
    // An empty list is another spelling of none.
    let text = requiem_proof::seal(&body()).unwrap().body;
    let text = text.replacen("\"inputs\":", "\"envRefs\":[],\"inputs\":", 1);
    assert!(judge_loosely(&text, &Expect::default()).is_err());
}

#[test]
fn the_request_is_valid_and_in_normal_form() {
    contradicts("E_REQUEST", |body| body.execution.request.inputs.swap(0, 1));
    contradicts("E_REQUEST", |body| body.execution.request.outputs.swap(0, 1));
    contradicts("E_REQUEST", |body| body.execution.request.argv.clear());
    contradicts("E_REQUEST", |body| body.execution.request.limits.timeout_ms = 0);
    contradicts("E_LEAF_ORDER", |body| {
        let again = body.execution.request.inputs[0].clone();
        body.execution.request.inputs.insert(1, again);
    });
}

#[test]
fn outputs_are_the_declared_ones_each_once() {
    contradicts("E_OUTPUTS", |body| drop(body.execution.result.outputs.pop()));
    contradicts("E_OUTPUTS", |body| body.execution.result.missing_outputs.clear());
    contradicts("E_OUTPUTS", |body| body.execution.result.outputs.swap(0, 1));
    contradicts("E_OUTPUTS", |body| body.execution.result.outputs[3].path = path("undeclared"));
    contradicts("E_OUTPUTS", |body| body.execution.result.missing_outputs[0].path = path("report.csv"));
    contradicts("E_OUTPUTS", |body| body.execution.result.missing_outputs[0].path = path("undeclared"));
    contradicts("E_OUTPUTS", |body| {
        let both = MissingOutput { path: path("report.csv"), why: "absent".into() };
        body.execution.result.missing_outputs.push(both);
    });
    contradicts("E_OUTPUTS", |body| {
        let undeclared = MissingOutput { path: path("undeclared"), why: "absent".into() };
        body.execution.result.missing_outputs.push(undeclared);
    });
    contradicts("E_OUTPUTS", |body| body.execution.result.missing_outputs[0].why.clear());
    contradicts("E_OUTPUTS", |body| body.execution.result.missing_outputs[0].why = "x".repeat(201));
    contradicts("E_LEAF_ORDER", |body| {
        let again = body.execution.result.outputs[0].clone();
        body.execution.result.outputs.insert(0, again);
    });
    contradicts("E_LEAF_ORDER", |body| {
        let again = body.execution.result.missing_outputs[0].clone();
        body.execution.result.missing_outputs.push(again);
    });
}

#[test]
fn contents_agree_with_their_sizes_and_limits() {
    contradicts("E_CONTENT", |body| body.execution.result.stdout.bytes = 6);
    contradicts("E_CONTENT", |body| body.execution.result.stdout.bytes = 4);
    contradicts("E_CONTENT", |body| body.execution.result.stderr.bytes = 1);
    contradicts("E_CONTENT", |body| body.execution.result.stderr.truncated = true);
    contradicts("E_CONTENT", |body| body.execution.result.stderr.digest = BlobDigest::of(b"x"));
    contradicts("E_CONTENT", |body| {
        let digest = BlobDigest::of(b"x");
        body.execution.result.outputs[0].content =
            OutputContent::Blob { digest, bytes: 0, executable: false };
    });
}

#[test]
fn claims_have_one_form() {
    contradicts("E_TIME", |body| body.run.started_at = "2026-11-22T20:15:00Z".into());
    contradicts("E_TIME", |body| body.run.started_at = "2026-11-22T20:15:03.000Z".into());
    contradicts("E_TIME", |body| body.run.completed_at = "yesterday".into());
    contradicts("E_CLAIM", |body| body.run.durability = "eternal".into());
    contradicts("E_CLAIM", |body| body.run.executor.name.clear());
    contradicts("E_CLAIM", |body| body.run.executor.version = "v\n".into());
    contradicts("E_CLAIM", |body| body.run.executor.kernel = "k".repeat(257));
    contradicts("E_CLAIM", |body| body.run.executor.arch.clear());
    contradicts("E_CLAIM", |body| body.execution.engine.name = "Requiem".into());
    contradicts("E_CLAIM", |body| body.execution.engine.version.clear());
    contradicts("E_IDENTITY", |body| body.run.identity.attempt = 0);
    contradicts("E_IDENTITY", |body| body.run.identity.uid.clear());
    contradicts("E_IDENTITY", |body| body.run.identity.uid = "a/b".into());
    contradicts("E_IDENTITY", |body| body.run.identity.namespace = "a.b".into());
    contradicts("E_IDENTITY", |body| body.run.identity.name = "Build".into());
    contradicts("E_IDENTITY", |body| body.run.identity.name = "a..b".into());
    contradicts("E_NUMBER", |body| body.run.usage.wall_us = 1 << 53);
}

// ---- one output by itself ----------------------------------------------------------------------------

#[test]
fn an_output_is_proven_without_the_rest() {
    let verified = verify(&sealed().body, &Expect::default()).unwrap();
    for output in &verified.body.execution.result.outputs {
        let proof = prove_output(&verified, &output.path).unwrap();
        let text = serde_json::to_string(&proof).unwrap();
        assert!(!text.contains("/bin/sh"));
        let proof = serde_json::from_str(&text).unwrap();
        judge_output(&proof, &verified.execution_root).unwrap();
    }
    assert_eq!(prove_output(&verified, &path("gone")).unwrap_err().code(), "E_NO_OUTPUT");
    assert_eq!(prove_output(&verified, &path("never")).unwrap_err().code(), "E_NO_OUTPUT");
}

#[test]
fn a_forged_output_proof_is_refused() {
    let verified = verify(&sealed().body, &Expect::default()).unwrap();
    let honest = prove_output(&verified, &path("report.csv")).unwrap();
    let check = |change: fn(&mut requiem_proof::OutputProof)| {
        let mut forged = honest.clone();
        change(&mut forged);
        assert_eq!(judge_output(&forged, &verified.execution_root).unwrap_err().code(), "E_PROOF");
    };
    check(|proof| proof.path = path("report.tsv"));
    check(|proof| proof.index -= 1);
    check(|proof| proof.index = u64::MAX);
    check(|proof| proof.leaf_count += 1);
    check(|proof| proof.leaf_count = 0);
    check(|proof| proof.siblings.truncate(proof.siblings.len() - 1));
    check(|proof| proof.siblings[0].0[0] ^= 1);
    check(|proof| match &mut proof.content {
        OutputContent::Tree { bytes, .. } | OutputContent::Blob { bytes, .. } => *bytes += 1,
    });
    let mut other = body();
    other.execution.engine.version = "2".into();
    let other = seal(&other).unwrap();
    assert_eq!(judge_output(&honest, &other.execution_root).unwrap_err().code(), "E_PROOF");
    let text = serde_json::to_string(&honest).unwrap();
    let (front, siblings) = text.split_once("\"siblings\":").unwrap();
    let upper = format!("{front}\"siblings\":{}", siblings.to_uppercase());
    assert_ne!(upper, text);
    assert!(serde_json::from_str::<requiem_proof::OutputProof>(&upper).is_err());
}

// ---- size ------------------------------------------------------------------------------------------

/// Whatever a report says, what another engine ran is not passed off as what the sandbox ran, nor the other way round.
#[test]
fn another_engine_cannot_pose_as_the_sandbox() {
    let honest = elsewhere();
    judge_body(&honest).unwrap();
    let verdict = |body: &BundleBody| judge_body(body).map_or_else(|error| error.code(), |_| "ok");
    let refused = |code: &str, change: &dyn Fn(&mut BundleBody)| {
        let mut body = honest.clone();
        change(&mut body);
        assert_eq!(verdict(&body), code);
        // And with a confidence that fits?
        body.run.confidence = assess_of(&body.execution.engine.name, &body.run.sandbox);
        verdict(&body)
    };
    let layer = |body: &mut BundleBody| {
        let row = &mut body.run.sandbox.layers[0];
        (row.status, row.evidence) = (Status::Enforced, Evidence::Probe);
    };
    assert_eq!(refused("E_EVIDENCE", &layer), "E_EVIDENCE");
    let partial = |body: &mut BundleBody| body.run.sandbox.layers[0].status = Status::Partial;
    assert_eq!(refused("E_EVIDENCE", &partial), "E_EVIDENCE");
    let fixed = |body: &mut BundleBody| body.run.sandbox.sources[0].state = SourceState::Fixed;
    assert_eq!(refused("E_REPORT", &fixed), "E_REPORT");
    // The name of the sandbox on the confidence of another engine, and the other way round: only both together fit.
    let named = |body: &mut BundleBody| body.execution.engine.name = "requiem".into();
    assert_eq!(refused("E_CONFIDENCE", &named), "ok");
    let other = |body: &mut BundleBody| body.execution.engine.name = "rusty".into();
    assert_eq!(refused("E_CONFIDENCE", &other), "ok");
    let old = |body: &mut BundleBody| body.run.confidence = assess(&body.run.sandbox);
    assert_eq!(refused("E_CONFIDENCE", &old), "ok");
    let mut sandboxed = body();
    sandboxed.execution.engine.name = "rust".into();
    sandboxed.run.confidence = assess_of("rust", &sandboxed.run.sandbox);
    assert_eq!(verdict(&sandboxed), "E_EVIDENCE");
}

#[test]
fn a_request_that_fits_can_always_be_sealed() {
    let mut worst = body();
    let request = &mut worst.execution.request;
    request.outputs = (0..100).map(|index| path(&format!("{index:03}{}", "\"".repeat(200)))).collect();
    request.argv.push("\u{1}".repeat(2_000));
    check_fits(request).unwrap();
    worst.execution.result.outputs.clear();
    worst.execution.result.missing_outputs = request
        .outputs
        .iter()
        .map(|path| MissingOutput { path: path.clone(), why: "\"".repeat(200) })
        .collect();
    for row in &mut worst.run.sandbox.layers {
        row.mechanism = "\\".repeat(128);
        row.detail = Some("\"".repeat(1024));
    }
    worst.run.executor.kernel = "\"".repeat(256);
    worst.run.executor.name = "\"".repeat(256);
    worst.run.executor.version = "\"".repeat(256);
    worst.run.executor.arch = "\"".repeat(256);
    worst.execution.engine.version = "\"".repeat(256);
    judge_body(&worst).unwrap();
    seal(&worst).unwrap();
}

#[test]
fn a_request_that_might_not_fit_is_refused_before_the_run() {
    let mut request = ExecutionRequest::new(vec!["/bin/true".into(), "\u{1}".repeat(40_000)]);
    assert_eq!(check_fits(&request).unwrap_err().code(), "E_BOUNDS");
    request.argv.pop();
    check_fits(&request).unwrap();
    request.outputs = (0..220).map(|index| path(&format!("{index:03}{}", "o".repeat(250)))).collect();
    assert_eq!(check_fits(&request).unwrap_err().code(), "E_BOUNDS");
}

// ---- files -----------------------------------------------------------------------------------------

fn object() -> serde_json::Value {
    let sealed = sealed();
    serde_json::json!({
        "apiVersion": "requiem.dev/v1alpha1",
        "kind": "ProofBundle",
        "metadata": {"namespace": "team-a", "name": "build-1-1", "uid": "u", "managedFields": []},
        "spec": {
            "body": sealed.body,
            "executionRoot": sealed.execution_root,
            "bundleRoot": sealed.bundle_root,
            "executionRef": {"name": "build-1", "uid": "3b241101-e2bb-4255-8caf-4136c566a962"},
        },
        "status": {"conditions": []},
    })
}

fn file_code(file: &serde_json::Value) -> &'static str {
    judge_file(file.to_string().as_bytes())
}

#[test]
fn both_forms_of_files_verify() {
    let file = ProofFile::parse(sealed().to_file().unwrap().as_bytes()).unwrap();
    assert_eq!(file.object, None);
    file.verify().unwrap();
    assert_eq!(file_code(&object()), "ok");
}

#[test]
fn the_view_is_compared_with_the_body() {
    let mut other = body();
    other.run.executor.name = "executor-1".into();
    other.execution.engine.version = "2".into();
    let other = seal(&other).unwrap();
    let check = |expected: &str, pointer: &str, value: serde_json::Value| {
        let mut forged = object();
        *forged.pointer_mut(pointer).unwrap() = value;
        assert_eq!(file_code(&forged), expected, "{pointer}");
    };
    check("E_ROOT", "/spec/executionRoot", other.execution_root.to_string().into());
    check("E_ROOT", "/spec/bundleRoot", other.bundle_root.to_string().into());
    check("E_ROOT", "/spec/body", other.body.into());
    check("E_REQUEST_BINDING", "/spec/executionRef/name", "build-2".into());
    check("E_REQUEST_BINDING", "/spec/executionRef/uid", "other".into());
    check("E_REQUEST_BINDING", "/metadata/namespace", "team-b".into());
    check("E_KIND", "/kind", "Secret".into());
    check("E_KIND", "/apiVersion", "requiem.dev/v2".into());
    check("E_SHAPE", "/spec/executionRoot", "blake3:00".into());
    check("E_SHAPE", "/spec", serde_json::json!({}));
}

#[test]
fn other_files_are_refused() {
    let code = |text: &str| judge_file(text.as_bytes());
    assert_eq!(code(""), "E_PARSE");
    assert_eq!(code("apiVersion: requiem.dev/v1alpha1"), "E_PARSE");
    assert_eq!(code("[]"), "E_SHAPE");
    assert_eq!(code("{}"), "E_SHAPE");
    assert_eq!(code(&"[".repeat(10_000)), "E_PARSE");
    assert_eq!(code(&" ".repeat(5 << 20)), "E_BOUNDS");
    let good = sealed().to_file().unwrap();
    assert_eq!(code(&good.replacen('{', "{\"more\":1,", 1)), "E_SHAPE");
    assert_eq!(code(&good.replacen('{', "{\"body\":\"\",", 1)), "E_SHAPE");
}
