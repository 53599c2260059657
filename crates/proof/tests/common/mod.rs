//! A bundle with one of everything.

#![allow(dead_code, reason = "each test binary uses its part")]

use requiem_model::attempt::Identity;
use requiem_model::report::{Evidence, LayerReport, Proof, Source, SourceReport, SourceState, Status};
use requiem_model::request::{EnvVar, Input, InputSource};
use requiem_model::result::{MissingOutput, Output, OutputContent, Stream, Usage};
use requiem_model::{
    BlobDigest, DataKey, EnvName, EnvRef, ExecutionRequest, Layer, ObjectName, Outcome, RelPath, Requirement,
    RunResult, SandboxPolicy, SandboxReport, TreeDigest, ValueSource, confidence,
};
use requiem_model::{CanonError, ExecutionRoot, canon};
use requiem_proof::{
    BundleBody, Engine, ExecutionFacts, ExecutorClaim, Expect, OutputProof, ProofFile, RunClaims, SCHEMA,
    Sealed, Verified, VerifyError, rfc3339_millis, seal, verify, verify_output,
};
use serde_json::{Value, json};

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn request() -> ExecutionRequest {
    let mut request = ExecutionRequest::new(vec!["/bin/sh".into(), "-c".into(), "echo \"hi\"\n".into()]);
    request.env = vec![EnvVar { name: EnvName::parse("LANG").unwrap(), value: "C.UTF-8".into() }];
    request.working_dir = Some(path("work"));
    request.stdin = Some(BlobDigest::of(b"stdin"));
    request.inputs = vec![
        Input {
            path: path("in/data.bin"),
            source: InputSource::Blob { digest: BlobDigest::of(b"data"), executable: true },
        },
        Input {
            path: path("in/tree"),
            source: InputSource::Tree { digest: TreeDigest::from_bytes([7; 32]) },
        },
    ];
    request.outputs =
        ["@stdout", "gone", "out/e\u{301}", "out/\u{e9}", "report.csv"].into_iter().map(path).collect();
    request.nonce = Some("n-1".into());
    request.limits.max_output_bytes = 5;
    request.policy = SandboxPolicy::default()
        .with(Layer::Cgroup, Requirement::Preferred)
        .with(Layer::Landlock, Requirement::Preferred)
        .with(Layer::UtsNamespace, Requirement::Off);
    request.normalise().unwrap()
}

fn output(at: &str, content: &[u8]) -> Output {
    let digest = BlobDigest::of(content);
    Output {
        path: path(at),
        content: OutputContent::Blob { digest, bytes: content.len() as u64, executable: false },
    }
}

fn result() -> RunResult {
    RunResult {
        outcome: Outcome::Exited { code: 0 },
        stdout: Stream { digest: BlobDigest::of(b"hello"), bytes: 5, truncated: true },
        stderr: Stream { digest: BlobDigest::of(b""), bytes: 0, truncated: false },
        outputs: vec![
            output("@stdout", b"not the stream"),
            output("out/e\u{301}", b"decomposed"),
            output("out/\u{e9}", b"composed"),
            Output {
                path: path("report.csv"),
                content: OutputContent::Tree {
                    digest: TreeDigest::from_bytes([9; 32]),
                    bytes: 1234,
                    entries: 5,
                },
            },
        ],
        missing_outputs: vec![MissingOutput { path: path("gone"), why: "absent".into() }],
    }
}

fn report(policy: &SandboxPolicy) -> SandboxReport {
    let row = |layer| {
        let requested = policy.requirement(layer);
        let short = |status, mechanism: &str, evidence, detail: &str| {
            LayerReport::short_of(layer, requested, status, mechanism, evidence, detail)
        };
        match layer {
            Layer::Cgroup => short(Status::Unsupported, "cgroup", Evidence::None, "no delegated cgroup"),
            Layer::Landlock => {
                short(Status::Partial, "landlock:abi1", Evidence::Probe, "truncate is not covered")
            }
            Layer::UtsNamespace => short(Status::Disabled, "none", Evidence::None, "policy says off"),
            Layer::NetworkNamespace => {
                short(Status::Delegated, "pod:gvisor", Evidence::AssertedByOuter, "by the runtime class")
            }
            Layer::Capabilities => LayerReport::enforced(layer, requested, "capset", Proof::Readback),
            _ => LayerReport::enforced(layer, requested, "kernel", Proof::Probe),
        }
    };
    let source = |source| {
        let state = match source {
            Source::Clock | Source::Scheduling => SourceState::Real,
            Source::Randomness => SourceState::Unprobed,
            _ => SourceState::Fixed,
        };
        SourceReport { source, state }
    };
    SandboxReport {
        layers: Layer::ALL.into_iter().map(row).collect(),
        sources: Source::ALL.into_iter().map(source).collect(),
    }
}

pub(crate) fn body() -> BundleBody {
    let request = request();
    let sandbox = report(&request.policy);
    let run = RunClaims {
        identity: Identity {
            namespace: "team-a".into(),
            name: "build-1".into(),
            uid: "3b241101-e2bb-4255-8caf-4136c566a962".into(),
            generation: 1,
            attempt: 1,
        },
        confidence: confidence::assess(&sandbox),
        sandbox,
        executor: ExecutorClaim {
            name: "executor-0".into(),
            version: "0.1.0".into(),
            binary: BlobDigest::of(b"binary"),
            kernel: "6.12.0".into(),
            arch: "x86_64".into(),
        },
        started_at: rfc3339_millis(1_795_378_500_123),
        completed_at: rfc3339_millis(1_795_378_501_456),
        usage: Usage { wall_us: 1_300_000, user_us: 900_000, system_us: 100_000, peak_memory_bytes: 8 << 20 },
        durability: "strict".into(),
    };
    let engine = Engine { name: "requiem".into(), version: "0.1.0".into() };
    BundleBody {
        schema: SCHEMA.to_owned(),
        execution: ExecutionFacts { request, engine, result: result() },
        run,
    }
}

pub(crate) fn sealed() -> Sealed {
    seal(&body()).unwrap()
}

/// The same of a request that takes two values from elsewhere.
pub(crate) fn referring() -> BundleBody {
    let (name, key) = (|text| ObjectName::parse(text).unwrap(), |text| DataKey::parse(text).unwrap());
    let variable = |text| EnvName::parse(text).unwrap();
    let mode = ValueSource::ConfigMap { name: name("settings"), key: key("mode.txt") };
    let token = ValueSource::Secret { name: name("registry"), key: key("token") };
    let mut body = body();
    body.execution.request.env_refs = vec![
        EnvRef { name: variable("MODE"), source: mode },
        EnvRef { name: variable("TOKEN"), source: token },
    ];
    body.run.sandbox.sources[0].state = SourceState::Undisclosed;
    body.run.confidence = confidence::assess(&body.run.sandbox);
    body
}

/// The same run by another engine, which isolates nothing and was not asked to.
pub(crate) fn elsewhere() -> BundleBody {
    let mut body = body();
    body.execution.engine.name = "rust".into();
    for (layer, row) in Layer::ALL.into_iter().zip(&mut body.run.sandbox.layers) {
        let off = layer == Layer::UtsNamespace;
        let requested = if off { Requirement::Off } else { Requirement::Preferred };
        let (status, why) = if off {
            (Status::Disabled, "policy says off")
        } else {
            (Status::Unsupported, "engine rust isolates nothing")
        };
        body.execution.request.policy.layers.insert(layer, requested);
        *row = LayerReport::short_of(layer, requested, status, "engine:rust", Evidence::None, why);
    }
    body.run.sandbox.sources.iter_mut().for_each(|row| row.state = SourceState::Unprobed);
    body.run.confidence = confidence::assess_of("rust", &body.run.sandbox);
    body
}

pub(crate) fn roots_of(sealed: &Sealed) -> Expect {
    Expect {
        execution_root: Some(sealed.execution_root),
        bundle_root: Some(sealed.bundle_root),
        ..Expect::default()
    }
}

// Every judgement below is also asked of a second verifier, where there is one: see `second_opinion` of the file that
// includes this one.

pub(crate) fn judge(text: &str, expect: &Expect) -> Result<Verified, VerifyError> {
    ask(text, expect, false)
}

/// For what is wrong in several ways at once: then any of the codes of the first step is right.
pub(crate) fn judge_loosely(text: &str, expect: &Expect) -> Result<Verified, VerifyError> {
    ask(text, expect, true)
}

fn ask(text: &str, expect: &Expect, loose: bool) -> Result<Verified, VerifyError> {
    let verdict = verify(text, expect);
    let mut question = json!({"kind": "body", "body": text, "loose": loose});
    let known = [
        ("executionRoot", expect.execution_root.map(|root| json!(root))),
        ("bundleRoot", expect.bundle_root.map(|root| json!(root))),
        ("requestDigest", expect.request_digest.map(|digest| json!(digest))),
        ("identity", expect.identity.as_ref().map(|identity| json!(identity))),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            question[name] = value;
        }
    }
    crate::second_opinion(&question, code(&verdict));
    verdict
}

/// As sealing does it, but with each step's own verdict.
pub(crate) fn judge_body(body: &BundleBody) -> Result<Verified, VerifyError> {
    let bytes = canon::to_vec(body)?;
    let text = String::from_utf8(bytes).map_err(|error| CanonError::Shape(error.to_string()))?;
    judge(&text, &Expect::default())
}

pub(crate) fn judge_output(proof: &OutputProof, root: &ExecutionRoot) -> Result<(), VerifyError> {
    let verdict = verify_output(proof, root);
    let proof = serde_json::to_string(proof).unwrap();
    let question = json!({"kind": "output", "proof": proof, "executionRoot": root});
    crate::second_opinion(&question, code(&verdict));
    verdict
}

/// The code of a file, `ok` if it is not refused.
pub(crate) fn judge_file(file: &[u8]) -> &'static str {
    let verdict = match ProofFile::parse(file) {
        Err(error) => error.code(),
        Ok(file) => code(&file.verify()),
    };
    let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
    crate::second_opinion(&json!({"kind": "file", "hex": hex}), verdict);
    verdict
}

pub(crate) fn code<T>(verdict: &Result<T, VerifyError>) -> &'static str {
    verdict.as_ref().map_or_else(|error| error.code(), |_| "ok")
}

/// For files that have no second verifier.
pub(crate) fn none(_question: &Value, _code: &str) {}
