//! The local side: `relay` beside a real daemon leads to calls that read, and to no others; a run can be followed while it goes on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use common::{Daemon, Pki, error, path_of, sealed, shell};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use requiem_model::BlobDigest;
use tokio::process::{Child, Command};

/// A `relay` and the connection through it.
struct Relay {
    _process: Child,
    http: SendRequest<Empty<Bytes>>,
}

/// What came back for a stream.
#[derive(Debug, PartialEq)]
struct Part {
    from: String,
    more: String,
    bytes: String,
}

impl Relay {
    async fn to(socket: &Path) -> Self {
        let mut process = relay(socket).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let streams = tokio::io::join(process.stdout.take().unwrap(), process.stdin.take().unwrap());
        let (http, connection) = handshake(TokioIo::new(streams)).await.unwrap();
        tokio::spawn(connection);
        Self { _process: process, http }
    }

    async fn call(&mut self, method: Method, path: &str) -> Response<Bytes> {
        let request = Request::builder().method(method).uri(path).header("host", "executor");
        self.http.ready().await.unwrap();
        let answer = self.http.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn part(&mut self, path: &str) -> Part {
        let answer = self.call(Method::GET, path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let bytes = String::from_utf8(answer.body().to_vec()).unwrap();
        Part { from: header("requiem-from"), more: header("requiem-more"), bytes }
    }
}

fn relay(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_requiem-executor"));
    command.arg("relay").arg("--socket").arg(socket).kill_on_drop(true);
    command
}

fn part(from: u64, more: bool, bytes: &str) -> Part {
    Part { from: from.to_string(), more: more.to_string(), bytes: bytes.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_followed_while_it_goes_on_and_read_to_the_end_after_it() {
    let (pki, store, folder) = (Pki::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("local.sock");
    let daemon =
        Daemon::start(&pki, store.path(), &["--local-socket", socket.to_str().unwrap(), "--slots", "1"]);
    let mut relay = Relay::to(&socket).await;
    let mut call = shell("followed", "echo one; sleep 1; echo two; echo oops >&2");
    call.request.limits.max_output_bytes = 6;
    let stdout = format!("{}/stdout", path_of(&call.identity));
    let client = daemon.client();
    client.put(&shell("before", "sleep 0.2"), 0).await;
    client.put(&call, 0).await;
    let begun = relay.part(&format!("{stdout}?from=0&waitMs=30000")).await;
    assert_eq!(begun.bytes, "", "it waited for the slot, and has begun now");
    let first = relay.part(&format!("{stdout}?from=0&waitMs=30000")).await;
    assert_eq!(first, part(0, true, "one\n"));
    assert_eq!(relay.part(&format!("{stdout}?from=4&waitMs=1")).await, part(4, true, ""));
    assert_eq!(relay.part(&format!("{stdout}?from=4&waitMs=30000")).await, part(4, true, "tw"), "the cap");
    assert_eq!(relay.part(&format!("{stdout}?from=6&waitMs=30000")).await, part(6, false, ""));
    assert_eq!(relay.part(&format!("{stdout}?from=1")).await, part(1, false, "ne\ntw"));
    assert_eq!(relay.part(&stdout).await, part(0, false, "one\ntw"));
    let digest = BlobDigest::of(b"one\ntw");
    assert_eq!(relay.part(&format!("/v1/blobs/{digest}?namespace=team-a")).await, part(0, false, "one\ntw"));
    let result = sealed(client.run(&call).await);
    assert_eq!(daemon.metric("requiem_executor_readers_total").await, 1.0);
    let body = relay.call(Method::GET, &format!("/v1/proofs/{}?namespace=team-a", result.bundle_root)).await;
    assert_eq!(body.body(), result.body.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_side_changes_nothing_and_is_for_its_own_user() {
    let (pki, store, folder) = (Pki::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("local.sock");
    std::fs::write(&socket, "left by an earlier process").unwrap();
    let daemon = Daemon::start(&pki, store.path(), &["--local-socket", socket.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut relay = Relay::to(&socket).await;
    let call = shell("mine", "true");
    sealed(daemon.client().run(&call).await);
    let path = path_of(&call.identity);
    assert_eq!(relay.call(Method::GET, &path).await.status(), StatusCode::OK);
    for (method, path) in
        [(Method::PUT, path.clone()), (Method::DELETE, path.clone()), (Method::POST, format!("{path}/ack"))]
    {
        let answer = relay.call(method.clone(), &path).await;
        assert!(
            [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND].contains(&answer.status()),
            "{method}"
        );
        assert!(!error(answer.body()).code.is_empty());
    }
    assert!(daemon.terminate().success(), "an idle relay keeps nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_an_executor_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = relay(&folder.path().join("nobody.sock")).stdin(Stdio::null()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no executor answers at") && said.contains("nobody.sock"), "{said}");
}
