//! Values for tests: one plan, and honest proofs for it.

use requiem_crds::{Execution, ExecutionSpec};
use requiem_model::attempt::{AttemptState, SealedAttempt};
use requiem_model::report::{LayerReport, Proof, SourceReport, SourceState};
use requiem_model::result::{MissingOutput, Output, OutputContent, RunResult, Stream, Usage};
use requiem_model::{BlobDigest, Layer, Outcome, RelPath, SandboxReport, confidence, report::Source};
use requiem_proof::{BundleBody, Engine, ExecutionFacts, ExecutorClaim, RunClaims, SCHEMA, seal};

use super::decide::{Observed, Pool};
use super::policy::Admission;
use super::tracker::{Known, Place};
use super::validate::{Plan, plan};
use crate::dispatch::Endpoint;
use crate::dispatch::rendezvous::Candidate;

pub(crate) fn execution() -> Execution {
    let mut spec = ExecutionSpec::new(vec!["/bin/echo".into(), "hi".into()]);
    spec.outputs = vec!["out".into()];
    let mut object = Execution::new("hello", spec);
    object.metadata.namespace = Some("default".into());
    object.metadata.uid = Some("0b9c5d1e-0000-4000-8000-000000000001".into());
    object.metadata.generation = Some(3);
    object
}

pub(crate) fn planned() -> Plan {
    plan(&execution()).unwrap()
}

pub(crate) fn endpoint(name: &str) -> Endpoint {
    Endpoint { name: name.into(), url: format!("https://{name}:8443"), ..Endpoint::default() }
}

pub(crate) fn candidate(name: &str) -> Candidate {
    Candidate { endpoint: endpoint(name), takes: true, free: true, absent: None }
}

pub(crate) fn observed(place: Place) -> Observed {
    let known = Known {
        attempt: 1,
        place,
        losses: 0,
        failures: 0,
        wait: std::time::Duration::ZERO,
        cancelling: false,
        unanswered: false,
    };
    Observed {
        pool: Pool::Executors(vec![candidate("a")]),
        own: None,
        admission: Admission::Admitted,
        known,
        outages: vec![],
        last_word: None,
    }
}

pub(crate) fn at(state: AttemptState) -> Place {
    Place::At(endpoint("a"), Box::new(state))
}

fn stream(content: &[u8]) -> Stream {
    Stream { digest: BlobDigest::of(content), bytes: content.len() as u64, truncated: false }
}

/// An honest body about attempt `n` of `plan`.
pub(crate) fn body(plan: &Plan, n: u32, outcome: Outcome) -> BundleBody {
    let sandbox = SandboxReport {
        layers: Layer::ALL
            .into_iter()
            .map(|layer| {
                LayerReport::enforced(layer, plan.request.policy.requirement(layer), "test", Proof::Probe)
            })
            .collect(),
        sources: Source::ALL
            .into_iter()
            .map(|source| SourceReport { source, state: SourceState::Real })
            .collect(),
    };
    let path = RelPath::parse("out").unwrap();
    let kept = outcome.is_success();
    let content = OutputContent::Blob { digest: BlobDigest::of(b"x"), bytes: 1, executable: false };
    let outputs = if kept { vec![Output { path: path.clone(), content }] } else { vec![] };
    let missing = if kept { vec![] } else { vec![MissingOutput { path, why: "absent".into() }] };
    BundleBody {
        schema: SCHEMA.into(),
        execution: ExecutionFacts {
            request: plan.request.clone(),
            engine: Engine { name: "requiem".into(), version: "0.1.0".into() },
            result: RunResult {
                outcome,
                stdout: stream(b"hi\n"),
                stderr: stream(b""),
                outputs,
                missing_outputs: missing,
            },
        },
        run: RunClaims {
            identity: plan.identity(n),
            confidence: confidence::assess(&sandbox),
            sandbox,
            executor: ExecutorClaim {
                name: "a".into(),
                version: "0.1.0".into(),
                binary: BlobDigest::of(b"binary"),
                kernel: "6.18".into(),
                arch: "x86_64".into(),
            },
            started_at: "2026-11-22T20:15:00.000Z".into(),
            completed_at: "2026-11-22T20:15:00.012Z".into(),
            usage: Usage { wall_us: 12_345, ..Usage::default() },
            durability: "volatile".into(),
        },
    }
}

pub(crate) fn sealed(body: &BundleBody) -> SealedAttempt {
    let sealed = seal(body).unwrap();
    SealedAttempt {
        body: sealed.body,
        execution_root: sealed.execution_root,
        bundle_root: sealed.bundle_root,
        stdout_tail: "hi\n".into(),
        stderr_tail: String::new(),
    }
}

pub(crate) fn sealed_state(body: &BundleBody) -> AttemptState {
    AttemptState::Sealed { sealed: Box::new(sealed(body)) }
}
