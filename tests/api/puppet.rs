//! An executor that answers as it is told, over the real protocol: an adversary, and a recorder of calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use requiem_model::attempt::{AttemptState, Capabilities, ErrorBody, Identity, SealedAttempt, StartAttempt};
use requiem_model::report::{LayerReport, Proof, Source, SourceReport, SourceState};
use requiem_model::result::{RunResult, Stream, Usage};
use requiem_model::{
    BlobDigest, ExecutionRequest, Failure, FailureReason, Layer, Outcome, SandboxReport, confidence,
};
use requiem_proof::{BundleBody, Engine, ExecutionFacts, ExecutorClaim, RunClaims, SCHEMA, seal};
use rustls::ServerConfig;
use tokio::sync::{mpsc, watch};

use crate::common::Server;

/// One call of the operator.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Start(Box<StartAttempt>),
    Ask,
    Cancel,
    Ack { n: u32 },
}

/// What a script answers.
pub(crate) enum Answer {
    /// This, now.
    Now(Response),
    /// Running until somebody ends it; then as `Ended` says.
    Running,
}

/// How a running attempt ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Done,
    Cancelled,
}

type Script = dyn Fn(Call) -> Answer + Send + Sync;

struct Inner {
    script: Box<Script>,
    calls: mpsc::UnboundedSender<Call>,
    started: std::sync::Mutex<Option<StartAttempt>>,
    ended: watch::Sender<Ended>,
}

pub(crate) struct Puppet {
    pub(crate) server: Server,
    calls: mpsc::UnboundedReceiver<Call>,
    waited_past: Vec<Call>,
    inner: Arc<Inner>,
}

impl Puppet {
    pub(crate) async fn start(
        tls: ServerConfig,
        script: impl Fn(Call) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), tls, script).await
    }

    pub(crate) async fn start_at(
        address: SocketAddr,
        tls: ServerConfig,
        script: impl Fn(Call) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (tell, calls) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            script: Box::new(script),
            calls: tell,
            started: std::sync::Mutex::default(),
            ended: watch::Sender::new(Ended::No),
        });
        let routes = Router::new().fallback(answer).with_state(inner.clone());
        Self { server: Server::start_at(address, tls, routes).await, calls, waited_past: Vec::new(), inner }
    }

    /// The calls since the last look.
    pub(crate) fn seen(&mut self) -> Vec<Call> {
        let mut seen = std::mem::take(&mut self.waited_past);
        seen.extend(std::iter::from_fn(|| self.calls.try_recv().ok()));
        seen
    }

    /// Waits for a call.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Call) -> bool) {
        let waiting = async {
            while let Some(call) = self.calls.recv().await {
                self.waited_past.push(call.clone());
                if wanted(&call) {
                    return;
                }
            }
            panic!("the server is gone");
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("the call came");
    }

    /// Ends the running attempt well.
    pub(crate) fn finish(&self) {
        self.inner.ended.send_replace(Ended::Done);
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let waits = request.uri().query().is_some_and(|query| !query.contains("waitMs=0"));
    if path == "/v1/capabilities" {
        return axum::Json(capabilities()).into_response();
    }
    let body = axum::body::to_bytes(request.into_body(), 1 << 22).await.unwrap();
    let call = match (method, path.strip_suffix("/ack")) {
        (Method::PUT, _) => Call::Start(serde_json::from_slice(&body).unwrap()),
        (Method::POST, Some(key)) => Call::Ack { n: key.rsplit('/').next().unwrap().parse().unwrap() },
        (Method::DELETE, _) => Call::Cancel,
        _ => Call::Ask,
    };
    let _nobody_listens = inner.calls.send(call.clone());
    match &call {
        Call::Start(start) => *inner.started.lock().unwrap() = Some((**start).clone()),
        Call::Cancel => {
            inner.ended.send_replace(Ended::Cancelled);
        }
        Call::Ask | Call::Ack { .. } => {}
    }
    // A script may block; the server must not.
    let scripted = inner.clone();
    match tokio::task::spawn_blocking(move || (scripted.script)(call)).await.unwrap() {
        Answer::Now(response) => response,
        Answer::Running => running(&inner, waits, &path).await,
    }
}

/// Waits up to two seconds for the end, as long as an honest executor waits for a start.
async fn running(inner: &Inner, waits: bool, path: &str) -> Response {
    let asked_for = |start: &StartAttempt| path.contains(&start.identity.uid);
    if !inner.started.lock().unwrap().as_ref().is_some_and(asked_for) {
        return refusal(404, "UnknownAttempt");
    }
    let mut ended = inner.ended.subscribe();
    if waits {
        let end = ended.wait_for(|ended| *ended != Ended::No);
        let _running_still = tokio::time::timeout(Duration::from_secs(2), end).await.is_err();
    }
    let now = *inner.ended.borrow();
    let Some(start) = inner.started.lock().unwrap().clone() else { return refusal(404, "UnknownAttempt") };
    let state = match now {
        Ended::No => AttemptState::Running,
        Ended::Done => AttemptState::Sealed { sealed: Box::new(sealed(&honest(&start))) },
        Ended::Cancelled => {
            AttemptState::Failed { failure: Failure::new(FailureReason::Cancelled, "cancelled", "none") }
        }
    };
    axum::Json(state).into_response()
}

// === scripts ===

/// Every attempt succeeds at once.
pub(crate) fn seals(call: Call) -> Answer {
    match call {
        Call::Start(start) => state(&AttemptState::Sealed { sealed: Box::new(sealed(&honest(&start))) }),
        Call::Ack { .. } | Call::Cancel => Answer::Now(StatusCode::NO_CONTENT.into_response()),
        Call::Ask => unknown(),
    }
}

/// Every attempt runs until it is told otherwise.
pub(crate) fn runs(call: Call) -> Answer {
    match call {
        Call::Start(_) | Call::Ask => Answer::Running,
        Call::Ack { .. } | Call::Cancel => Answer::Now(StatusCode::NO_CONTENT.into_response()),
    }
}

pub(crate) fn state(state: &AttemptState) -> Answer {
    Answer::Now(axum::Json(state).into_response())
}

pub(crate) fn unknown() -> Answer {
    Answer::Now(refusal(404, "UnknownAttempt"))
}

pub(crate) fn full() -> Answer {
    Answer::Now(([("retry-after", "1")], refusal(429, "QueueFull")).into_response())
}

fn refusal(status: u16, code: &str) -> Response {
    let body = ErrorBody { code: code.into(), message: "no".into(), hint: "none".into() };
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

// === documents ===

fn report(request: &ExecutionRequest) -> SandboxReport {
    let row = |layer| LayerReport::enforced(layer, request.policy.requirement(layer), "test", Proof::Probe);
    let source = |source| SourceReport { source, state: SourceState::Real };
    SandboxReport {
        layers: Layer::ALL.into_iter().map(row).collect(),
        sources: Source::ALL.into_iter().map(source).collect(),
    }
}

fn capabilities() -> Capabilities {
    let request = ExecutionRequest::new(vec!["/bin/true".into()]);
    let (executor, version) = ("puppet".into(), "0".into());
    Capabilities { executor, version, slots: 1, sandbox: report(&request), draining: false }
}

pub(crate) fn start_of(namespace: &str, name: &str) -> StartAttempt {
    let uid = "00000000-0000-4000-8000-00000000cafe".into();
    let identity =
        Identity { namespace: namespace.into(), name: name.into(), uid, generation: 1, attempt: 1 };
    let request = ExecutionRequest::new(vec!["/bin/true".into()]).normalise().unwrap();
    StartAttempt { identity, request, inline: vec![] }
}

/// What an honest executor would say about an attempt that ended well and wrote nothing.
pub(crate) fn honest(start: &StartAttempt) -> BundleBody {
    let sandbox = report(&start.request);
    let stream = Stream { digest: BlobDigest::of(b""), bytes: 0, truncated: false };
    BundleBody {
        schema: SCHEMA.into(),
        execution: ExecutionFacts {
            request: start.request.clone(),
            engine: Engine { name: "requiem".into(), version: env!("CARGO_PKG_VERSION").into() },
            result: RunResult {
                outcome: Outcome::Exited { code: 0 },
                stdout: stream,
                stderr: stream,
                outputs: vec![],
                missing_outputs: vec![],
            },
        },
        run: RunClaims {
            identity: start.identity.clone(),
            confidence: confidence::assess(&sandbox),
            sandbox,
            executor: ExecutorClaim {
                name: "puppet".into(),
                version: "0".into(),
                binary: BlobDigest::of(b"puppet"),
                kernel: "none".into(),
                arch: "none".into(),
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
        stdout_tail: String::new(),
        stderr_tail: String::new(),
    }
}
