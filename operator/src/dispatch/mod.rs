//! Talking to executors: HTTP/2 + JSON over mTLS, one method per route of [`requiem_model::attempt`].
//!
//! ```text
//! Dispatcher ─calls─▶ connection A ─▶ PUT, GET, DELETE, ack, capabilities (short)
//!            └─waits─▶ connection B ─▶ GET …?waitMs= (long)
//! ```
//!
//! Long polls have a connection of their own: each occupies an HTTP/2 stream for as long as a payload runs, and
//! must not keep a start from being sent. Every call has a deadline and every answer a size limit. What an
//! executor says is a claim; nothing here believes it.

mod error;
pub mod rendezvous;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request, Response};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use requiem_model::attempt::{AttemptState, Capabilities, ErrorBody, StartAttempt};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;

pub use error::{DispatchError, Refusal, chain};
pub use tls::{TlsError, TlsFiles, client_config, issued_config};

use crate::metrics::Metrics;

/// Largest answer that is read. A bundle is at most 256 KiB of canonical JSON; as a JSON string every byte of it
/// can at worst double, and the two tails add little.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long a call may take beyond the time it asked the executor to wait.
pub const CALL_DEADLINE: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// One executor of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Endpoint {
    /// Its name within the pool.
    pub name: String,
    /// `https://HOST:PORT`.
    pub url: String,
    /// Name that its certificate must bear; the host of the URL if absent.
    pub server_name: Option<String>,
    /// Whose certificates count between it and us.
    pub trust: Trust,
}

/// Whose certificates count between the operator and an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Trust {
    /// Those of the files that the operator was given: executors at fixed addresses.
    #[default]
    Files,
    /// Those that the operator issues itself: executors in pods.
    Issued,
}

/// The client side of the protocol. Clones share connections.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Mutex<Shared>>,
    metrics: Metrics,
}

#[derive(Default)]
struct Shared {
    identities: HashMap<Trust, ClientConfig>,
    /// Clients by the server name that they insist on: it is a property of the connector, not of a request.
    clients: HashMap<(Trust, Option<String>), Connections>,
}

#[derive(Clone)]
struct Connections {
    calls: Http,
    waits: Http,
}

/// Which of the two connections a call takes.
#[derive(Clone, Copy)]
enum Lane {
    Calls,
    Waits,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} ({})", self.name, self.url)
    }
}

impl Dispatcher {
    /// A dispatcher that identifies itself to executors at fixed addresses as `files` says; without, it talks to none.
    pub fn new(files: impl Into<Option<ClientConfig>>, metrics: Metrics) -> Self {
        let identities = files.into().map(|config| (Trust::Files, config)).into_iter().collect();
        let shared = Shared { identities, clients: HashMap::new() };
        Self { shared: Arc::new(Mutex::new(shared)), metrics }
    }

    /// From now on identifies itself to executors of `trust` as `tls` says. Calls under way end as they began.
    pub fn identify(&self, trust: Trust, tls: ClientConfig) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.identities.insert(trust, tls);
        shared.clients.retain(|(of, _), _| *of != trust);
    }

    /// Starts the attempt or adopts it if it exists, and waits up to `wait` for its end.
    ///
    /// # Errors
    /// See [`DispatchError`].
    pub async fn start(
        &self,
        endpoint: &Endpoint,
        attempt: &StartAttempt,
        wait: Duration,
    ) -> Result<AttemptState, DispatchError> {
        let identity = &attempt.identity;
        let path = format!("{}?waitMs={}", attempt_path(&identity.uid, identity.attempt), wait.as_millis());
        let body = serde_json::to_vec(attempt)
            .map_err(|error| malformed(endpoint, format!("the request has no JSON form: {error}")))?;
        let call = Call { method: Method::PUT, path, body: body.into(), deadline: wait + CALL_DEADLINE };
        self.json(Lane::Calls, endpoint, call).await
    }

    /// What the executor knows about the attempt now; `None` if nothing.
    ///
    /// # Errors
    /// See [`DispatchError`].
    pub async fn ask(
        &self,
        endpoint: &Endpoint,
        uid: &str,
        n: u32,
    ) -> Result<Option<AttemptState>, DispatchError> {
        known(self.json(Lane::Calls, endpoint, Call::get(attempt_path(uid, n), Duration::ZERO)).await)
    }

    /// Waits up to `wait` for the attempt's end and says what is known then; `None` if nothing.
    ///
    /// # Errors
    /// See [`DispatchError`].
    pub async fn wait(
        &self,
        endpoint: &Endpoint,
        uid: &str,
        n: u32,
        wait: Duration,
    ) -> Result<Option<AttemptState>, DispatchError> {
        let path = format!("{}?waitMs={}", attempt_path(uid, n), wait.as_millis());
        known(self.json(Lane::Waits, endpoint, Call::get(path, wait)).await)
    }

    /// Asks for the attempt to be ended. An attempt that has ended, or was never there, is fine.
    ///
    /// # Errors
    /// See [`DispatchError`].
    pub async fn cancel(&self, endpoint: &Endpoint, uid: &str, n: u32) -> Result<(), DispatchError> {
        self.tell(endpoint, Method::DELETE, attempt_path(uid, n)).await
    }

    /// Says that the result is safe elsewhere, so that the journal may forget it.
    ///
    /// # Errors
    /// See [`DispatchError`].
    pub async fn ack(&self, endpoint: &Endpoint, uid: &str, n: u32) -> Result<(), DispatchError> {
        self.tell(endpoint, Method::POST, format!("{}/ack", attempt_path(uid, n))).await
    }

    /// What the executor says it can do.
    ///
    /// # Errors
    /// See [`DispatchError`].
    pub async fn capabilities(&self, endpoint: &Endpoint) -> Result<Capabilities, DispatchError> {
        self.json(Lane::Calls, endpoint, Call::get("/v1/capabilities".to_owned(), Duration::ZERO)).await
    }

    async fn tell(&self, endpoint: &Endpoint, method: Method, path: String) -> Result<(), DispatchError> {
        let call = Call { method, path, body: Bytes::new(), deadline: CALL_DEADLINE };
        match self.observed(Lane::Calls, endpoint, call).await {
            Ok(_) | Err(DispatchError::Refused { refusal: Refusal::UnknownAttempt, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        lane: Lane,
        endpoint: &Endpoint,
        call: Call,
    ) -> Result<T, DispatchError> {
        let body = self.observed(lane, endpoint, call).await?;
        serde_json::from_slice(&body).map_err(|error| {
            self.metrics.dispatch_error("MalformedAnswer");
            malformed(endpoint, error.to_string())
        })
    }

    /// One call with its deadline, counted.
    async fn observed(&self, lane: Lane, endpoint: &Endpoint, call: Call) -> Result<Bytes, DispatchError> {
        let http = self.client(lane, endpoint)?;
        let (method, started, deadline) = (call.method.clone(), Instant::now(), call.deadline);
        let outcome = match tokio::time::timeout(deadline, exchange(&http, endpoint, call)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(DispatchError::Timeout { endpoint: endpoint.to_string(), after: deadline }),
        };
        self.metrics.dispatch_call(method.as_str(), started.elapsed());
        // An executor that does not know an attempt answered the question; that is no fault.
        if let Err(error) = outcome.as_ref()
            && error.code() != Refusal::UnknownAttempt.as_str()
        {
            self.metrics.dispatch_error(error.code());
        }
        outcome
    }
}

impl Dispatcher {
    fn client(&self, lane: Lane, endpoint: &Endpoint) -> Result<Http, DispatchError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.trust, endpoint.server_name.clone());
        let connections = match shared.clients.get(&key) {
            Some(connections) => connections.clone(),
            None => {
                let tls = shared.identities.get(&endpoint.trust);
                let tls = tls.ok_or_else(|| DispatchError::NoIdentity { endpoint: endpoint.to_string() })?;
                let made = Connections {
                    calls: client(tls.clone(), endpoint)?,
                    waits: client(tls.clone(), endpoint)?,
                };
                shared.clients.entry(key).or_insert(made).clone()
            }
        };
        Ok(match lane {
            Lane::Calls => connections.calls,
            Lane::Waits => connections.waits,
        })
    }
}

struct Call {
    method: Method,
    path: String,
    body: Bytes,
    deadline: Duration,
}

impl Call {
    fn get(path: String, wait: Duration) -> Self {
        Self { method: Method::GET, path, body: Bytes::new(), deadline: wait + CALL_DEADLINE }
    }
}

fn client(tls: ClientConfig, endpoint: &Endpoint) -> Result<Http, DispatchError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
    if let Some(name) = &endpoint.server_name {
        let name = ServerName::try_from(name.clone())
            .map_err(|error| malformed(endpoint, format!("serverName {name:?}: {error}")))?;
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connector = https.enable_http2().wrap_connector(tcp);
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        // A peer that vanished without closing the connection is noticed within 15 s, idle or not.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .http2_keep_alive_timeout(Duration::from_secs(5))
        .http2_keep_alive_while_idle(true)
        .build(connector);
    Ok(client)
}

async fn exchange(http: &Http, endpoint: &Endpoint, call: Call) -> Result<Bytes, DispatchError> {
    let uri = format!("{}{}", endpoint.url.trim_end_matches('/'), call.path);
    let request = Request::builder()
        .method(call.method)
        .uri(uri)
        .header("content-type", "application/json")
        .body(Full::new(call.body))
        .map_err(|error| DispatchError::Unreachable {
            endpoint: endpoint.to_string(),
            why: error.to_string(),
        })?;
    let response = http
        .request(request)
        .await
        .map_err(|error| DispatchError::Unreachable { endpoint: endpoint.to_string(), why: chain(&error) })?;
    let (status, retry_after) = (response.status(), retry_after(&response));
    let body = collect(endpoint, response).await?;
    if status.is_success() {
        return Ok(body);
    }
    Err(refusal(endpoint, status.as_u16(), retry_after, &body))
}

async fn collect(endpoint: &Endpoint, response: Response<Incoming>) -> Result<Bytes, DispatchError> {
    match Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(malformed(endpoint, format!("the answer is larger than {MAX_ANSWER_BYTES} bytes")))
        }
        Err(error) => {
            Err(DispatchError::Unreachable { endpoint: endpoint.to_string(), why: chain(error.as_ref()) })
        }
    }
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(60)))
}

fn refusal(endpoint: &Endpoint, status: u16, retry_after: Option<Duration>, body: &[u8]) -> DispatchError {
    let body = serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody {
        code: String::new(),
        message: "the answer explains nothing".to_owned(),
        hint: "check that the endpoint is a requiem-executor".to_owned(),
    });
    DispatchError::Refused {
        endpoint: endpoint.to_string(),
        status,
        refusal: Refusal::parse(&body.code),
        message: clip(body.message),
        hint: clip(body.hint),
        retry_after,
    }
}

fn known(answer: Result<AttemptState, DispatchError>) -> Result<Option<AttemptState>, DispatchError> {
    match answer {
        Ok(state) => Ok(Some(state)),
        Err(DispatchError::Refused { refusal: Refusal::UnknownAttempt, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// UIDs come from the API server: hexadecimal digits and dashes, safe in a path.
fn attempt_path(uid: &str, n: u32) -> String {
    format!("/v1/attempts/{uid}/{n}")
}

fn malformed(endpoint: &Endpoint, why: String) -> DispatchError {
    DispatchError::Malformed { endpoint: endpoint.to_string(), why }
}

/// Texts of a peer go into conditions: short, and never a megabyte.
fn clip(text: String) -> String {
    if text.chars().nth(300).is_none() { text } else { text.chars().take(300).collect() }
}
