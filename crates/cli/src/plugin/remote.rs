//! An executor in a pod, through the API server: HTTP/2 over the streams of `requiem-executor relay`, which runs in its container.
//!
//! Nothing that comes is believed: whoever asks compares digests.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess};
use requiem_model::attempt::ErrorBody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::task::JoinHandle;

use super::site::Site;
use crate::cluster::refused;
use crate::error::CommandError;
use crate::text::printable;

/// Container of the executor in its pod.
const CONTAINER: &str = "executor";
/// What is started there.
const COMMAND: [&str; 2] = ["/usr/bin/requiem-executor", "relay"];
/// Bytes that may be under way in either direction.
const BUFFER: usize = 256 * 1024;
/// How long the first answer may take.
const GREETING: Duration = Duration::from_secs(30);
/// Largest document that is read as a whole: a bundle has at most 256 KiB.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// What is kept of the relay's complaint.
const MAX_COMPLAINT_BYTES: u64 = 4096;

/// The connection. Calls may be made side by side.
pub(crate) struct Remote {
    http: SendRequest<Empty<Bytes>>,
    /// Lives as long as the connection.
    _process: Option<AttachedProcess>,
    pod: String,
}

impl Remote {
    /// Connects to the executor in `pod`.
    pub(crate) async fn in_pod(site: &Site, pod: &str) -> Result<Self, CommandError> {
        let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
        let streams = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .max_stdin_buf_size(BUFFER)
            .max_stdout_buf_size(BUFFER);
        let process = pods.exec(pod, COMMAND, &streams).await;
        let mut process = process.map_err(|error| not_reached(pod, &error))?;
        let no_stream = || silent(pod, "it has no streams");
        let (input, output) =
            (process.stdin().ok_or_else(no_stream)?, process.stdout().ok_or_else(no_stream)?);
        let mut complaint = process.stderr().ok_or_else(no_stream)?.take(MAX_COMPLAINT_BYTES);
        let said: JoinHandle<String> = tokio::spawn(async move {
            let mut said = Vec::new();
            // What was read is what there is.
            let _ended = complaint.read_to_end(&mut said).await;
            String::from_utf8_lossy(&said).into_owned()
        });
        let remote = Self::over(tokio::io::join(output, input), pod).await?;
        match tokio::time::timeout(GREETING, remote.call("/v1/capabilities")).await {
            Ok(Ok(_greeted)) => Ok(Self { _process: Some(process), ..remote }),
            Ok(Err(_broken)) => {
                let why = tokio::time::timeout(Duration::from_secs(2), said).await;
                Err(silent(pod, why.ok().and_then(Result::ok).as_deref().unwrap_or_default()))
            }
            Err(_elapsed) => Err(silent(pod, "it does not answer")),
        }
    }

    /// Speaks with whoever is at the other end of `streams`.
    pub(super) async fn over(
        streams: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        pod: &str,
    ) -> Result<Self, CommandError> {
        let (http, connection) = handshake(TokioExecutor::new(), TokioIo::new(streams))
            .await
            .map_err(|error| silent(pod, &error.to_string()))?;
        tokio::spawn(connection);
        Ok(Self { http, _process: None, pod: pod.to_owned() })
    }

    /// An answer, whatever its status.
    async fn call(&self, path: &str) -> Result<Response<Incoming>, CommandError> {
        let broken = |error: &dyn std::fmt::Display| silent(&self.pod, &error.to_string());
        let request = Request::get(format!("http://executor{path}")).body(Empty::new());
        let mut http = self.http.clone();
        http.ready().await.map_err(|error| broken(&error))?;
        http.send_request(request.map_err(|error| broken(&error))?).await.map_err(|error| broken(&error))
    }

    /// The answer to a call, or `None` if the executor has no such thing.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Response<Incoming>>, CommandError> {
        let answer = self.call(path).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => {
                let body = self.whole(answer).await?;
                let error: ErrorBody = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorBody {
                    code: "NoAnswer".to_owned(),
                    message: "the answer explains nothing".to_owned(),
                    hint: String::new(),
                });
                let message =
                    format!("the executor in pod {} refuses: {}", self.pod, printable(&error.message));
                Err(CommandError::unusable(&error.code, message, printable(&error.hint)))
            }
        }
    }

    /// The whole of a short answer.
    pub(crate) async fn small(&self, path: &str) -> Result<Vec<u8>, CommandError> {
        match self.get(path).await? {
            Some(answer) => self.whole(answer).await,
            None => Err(self.missing(path)),
        }
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<Vec<u8>, CommandError> {
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES).collect().await;
        body.map(|body| body.to_bytes().to_vec()).map_err(|error| silent(&self.pod, &error.to_string()))
    }

    /// The error of something that should be there.
    pub(crate) fn missing(&self, what: &str) -> CommandError {
        let message = format!("the executor in pod {} does not have {what}", self.pod);
        let hint = "its store may have been replaced or collected since; run it again to have it again";
        CommandError::finding("Gone", message, hint)
    }

    /// The error of an answer that broke off.
    pub(crate) fn broke_off(&self, error: &dyn std::fmt::Display) -> CommandError {
        silent(&self.pod, &error.to_string())
    }
}

fn not_reached(pod: &str, error: &kube::Error) -> CommandError {
    match error {
        kube::Error::Api(_) => {
            let error = refused(&format!("reach the executor in pod {pod}"), error);
            let hint = "bytes come through pods/exec: ask for the right to create it in that namespace";
            CommandError::unusable(&error.error_code, error.message, hint)
        }
        // The upgrade was answered by something else than a switch of protocols.
        other => {
            let hint =
                "bytes come through pods/exec: see whether kubectl exec works there, and whether you may";
            let message = format!("cannot reach the executor in pod {pod}: {other}");
            CommandError::unusable("ExecRefused", message, hint)
        }
    }
}

fn silent(pod: &str, why: &str) -> CommandError {
    let message = format!("the executor in pod {pod} cannot be read: {}", printable(why.trim()));
    let hint =
        "see the log of its container executor; one that was started by an operator before 0.1 has no relay";
    CommandError::unusable("ExecutorUnavailable", message, hint)
}
