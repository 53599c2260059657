//! The operator's side: what each path and method does. Parsing at the border, decisions in the registry.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use requiem_model::attempt::{AttemptState, Capabilities, Identity, StartAttempt};
use requiem_model::request::MAX_TEXT_BYTES;
use requiem_model::{BlobDigest, BundleRoot};
use requiem_sandbox::StdStream;
use serde::Deserialize;
use tokio::sync::watch;

use super::error::ApiError;
use super::{bytes, follow};
use crate::archive::Archive;
use crate::attempts::{Attempts, ChangeError, StartError};
use crate::journal::{AttemptKey, JournalError};
use crate::runners::Runners;

/// Longest body of a call. The API server's own limit on an object is 1.5 MiB; escaping may double a text.
const MAX_BODY: usize = 4 << 20;
/// Longest wait of one call; a longer wish is cut to this.
const MAX_WAIT_MS: u64 = 60_000;

/// What the handlers need.
pub(crate) struct Api {
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) store: requiem_cas::Store,
    pub(crate) archive: Archive,
    pub(crate) about: About,
    pub(crate) runners: Arc<Runners>,
    pub(crate) metrics: Arc<crate::metrics::Metrics>,
}

/// What capabilities say and never changes.
pub(crate) struct About {
    executor: String,
    slots: u32,
}

type Shared = State<Arc<Api>>;
type Answer = Result<Response, ApiError>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenancy {
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Follow {
    from: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
}

/// All routes of the operator's side.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let changes = Router::new()
        .route("/v1/attempts/{uid}/{attempt}", put(start).delete(cancel))
        .route("/v1/attempts/{uid}/{attempt}/ack", post(acknowledge));
    finished(changes.merge(reads()), api)
}

/// The routes that change nothing: of the local side.
pub(crate) fn read_router(api: Arc<Api>) -> Router {
    finished(reads(), api)
}

fn reads() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/attempts/{uid}/{attempt}", get(read))
        .route("/v1/attempts/{uid}/{attempt}/{stream}", get(stream))
        .route("/v1/blobs/{digest}", get(blob))
        .route("/v1/proofs/{root}", get(proof))
        .route("/v1/capabilities", get(capabilities))
}

fn finished(routes: Router<Arc<Api>>, api: Arc<Api>) -> Router {
    routes
        .fallback(async || ApiError::not_found("no such path", "see docs/executor.md for the endpoints"))
        .method_not_allowed_fallback(async || ApiError::method())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

async fn start(
    State(api): Shared,
    Path(path): Path<(String, String)>,
    query: Result<Query<Wait>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (key, wait) = (parse_key(path)?, parse_query(query)?.wait_ms);
    let call = parse_start(&key, &body.map_err(refused_body)?)?;
    let digest = check_call(&call)?;
    let started = api.attempts.start(call, digest).map_err(|error| start_error(&api, error))?;
    let receiver = started.watch();
    // Only the registry may hold the entry while we wait: a forgotten attempt then wakes us.
    drop(started);
    answer_after(receiver, wait).await
}

async fn read(
    State(api): Shared,
    Path(path): Path<(String, String)>,
    query: Result<Query<Wait>, QueryRejection>,
) -> Answer {
    let (key, wait) = (parse_key(path)?, parse_query(query)?.wait_ms);
    let receiver = api.attempts.get(&key).map(|entry| entry.watch());
    answer_after(receiver.ok_or_else(|| ApiError::unknown_attempt(&key))?, wait).await
}

async fn cancel(State(api): Shared, Path(path): Path<(String, String)>) -> Answer {
    let key = parse_key(path)?;
    let state = blocking(move || api.attempts.cancel(&key)).await?.map_err(change_error)?;
    Ok(Json(state.as_ref()).into_response())
}

async fn acknowledge(State(api): Shared, Path(path): Path<(String, String)>) -> Answer {
    let key = parse_key(path)?;
    blocking(move || api.attempts.acknowledge(&key)).await?.map_err(change_error)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn stream(
    State(api): Shared,
    Path((uid, attempt, stream)): Path<(String, String, String)>,
    query: Result<Query<Follow>, QueryRejection>,
) -> Answer {
    let stream = match stream.as_str() {
        "stdout" => StdStream::Stdout,
        "stderr" => StdStream::Stderr,
        _ => return Err(ApiError::not_found("no such path", "streams are stdout and stderr")),
    };
    let (key, follow) = (parse_key((uid, attempt))?, parse_query(query)?);
    let entry = || api.attempts.get(&key).ok_or_else(|| ApiError::unknown_attempt(&key));
    let limit = Duration::from_millis(follow.wait_ms.min(MAX_WAIT_MS));
    if let Some(from) = follow.from
        && let Some(part) = follow::next(entry()?, stream, from, limit).await
    {
        return Ok(bytes::part(part));
    }
    let entry = entry()?;
    let AttemptState::Sealed { sealed } = &*entry.state() else {
        return Err(ApiError::not_found(
            format!("attempt {key} has no result"),
            "wait for its state to be sealed",
        ));
    };
    let digest = bytes::stream_digest(&sealed.body, stream)?;
    let namespace = entry.asked.identity.namespace.clone();
    blocking(move || bytes::rest(&api.store, &namespace, &digest, follow.from.unwrap_or(0))).await?
}

async fn blob(
    State(api): Shared,
    Path(digest): Path<String>,
    query: Result<Query<Tenancy>, QueryRejection>,
) -> Answer {
    let namespace = parse_query(query)?.namespace;
    let digest: BlobDigest = digest.parse().map_err(|error| bad_digest(&error))?;
    blocking(move || bytes::rest(&api.store, &namespace, &digest, 0)).await?
}

async fn proof(
    State(api): Shared,
    Path(root): Path<String>,
    query: Result<Query<Tenancy>, QueryRejection>,
) -> Answer {
    let namespace = parse_query(query)?.namespace;
    let root: BundleRoot = root.parse().map_err(|error| bad_digest(&error))?;
    blocking(move || bytes::proof(&api.attempts, &api.archive, &namespace, &root)).await?
}

async fn capabilities(State(api): Shared) -> Result<Json<Capabilities>, ApiError> {
    let sandbox = api.runners.report().map_err(ApiError::runner_missing)?;
    Ok(Json(Capabilities {
        executor: api.about.executor.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: api.about.slots,
        sandbox: sandbox.as_ref().clone(),
        draining: api.attempts.is_draining(),
    }))
}

impl About {
    pub(crate) fn of(config: &crate::daemon::Config) -> Self {
        let slots = u32::try_from(config.slots).unwrap_or(u32::MAX);
        Self { executor: config.name.clone(), slots }
    }
}

/// Waits until the attempt has ended, but not longer than asked for, and answers with its state then.
async fn answer_after(mut state: watch::Receiver<Arc<AttemptState>>, wait_ms: u64) -> Answer {
    let limit = Duration::from_millis(wait_ms.min(MAX_WAIT_MS));
    let ended = tokio::time::timeout(limit, state.wait_for(|state| state.is_final())).await;
    let forgotten = matches!(&ended, Ok(Err(_sender_gone)));
    drop(ended);
    if forgotten {
        return Err(ApiError::shutting_down());
    }
    let state = Arc::clone(&state.borrow());
    let status = if state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(state.as_ref())).into_response())
}

fn parse_key((uid, attempt): (String, String)) -> Result<AttemptKey, ApiError> {
    let hint = "the path is /v1/attempts/{uid}/{n} with n from 1";
    let attempt = attempt.parse().ok().filter(|number| *number > 0);
    let attempt = attempt.ok_or_else(|| ApiError::malformed("the attempt is not a number from 1", hint))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if uid.is_empty() || uid.len() > 128 || !uid.bytes().all(plain) {
        return Err(ApiError::malformed("the UID is not 1 to 128 of [A-Za-z0-9._-]", hint));
    }
    Ok(AttemptKey { uid, attempt })
}

fn parse_query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    let hint = "see docs/executor.md for the parameters of this path";
    query.map(|Query(query)| query).map_err(|error| ApiError::malformed(error.body_text(), hint))
}

fn parse_start(key: &AttemptKey, body: &[u8]) -> Result<StartAttempt, ApiError> {
    let parsed: Result<StartAttempt, _> = serde_json::from_slice(body);
    let call = parsed.map_err(|error| {
        ApiError::malformed(
            format!("the body is not a StartAttempt: {error}"),
            "send what this version knows",
        )
    })?;
    let claimed = AttemptKey::of(&call.identity);
    if claimed != *key {
        let message = format!("the path is about attempt {key}, the body about attempt {claimed}");
        return Err(ApiError::identity_mismatch(message));
    }
    Ok(call)
}

/// What must hold before anything is promised: a run whose result could not be sealed must not start.
fn check_call(call: &StartAttempt) -> Result<requiem_model::RequestDigest, ApiError> {
    check_identity(&call.identity)?;
    if let Some(long) = call.inline.iter().find(|text| text.len() > MAX_TEXT_BYTES) {
        let message = format!("an inline text has {} bytes, more than {MAX_TEXT_BYTES}", long.len());
        return Err(ApiError::malformed(message, "put it into the store and name it by digest"));
    }
    crate::execute::check_request(&call.request)
        .map_err(|failure| ApiError::malformed(failure.message, &failure.hint))
}

fn check_identity(identity: &Identity) -> Result<(), ApiError> {
    let hint = "send namespace and name as Kubernetes has them";
    requiem_cas::Tenant::parse(&identity.namespace)
        .map_err(|error| ApiError::malformed(format!("identity.namespace: {error}"), hint))?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let name = &identity.name;
    if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
        return Err(ApiError::malformed("identity.name is not a DNS subdomain", hint));
    }
    if identity.generation >= requiem_model::canon::INTEGER_BOUND.unsigned_abs() {
        return Err(ApiError::malformed("identity.generation is not below 2^53", hint));
    }
    Ok(())
}

fn start_error(api: &Api, error: StartError) -> ApiError {
    match error {
        StartError::Conflict(attempt) => ApiError::conflict(
            format!("attempt {attempt} of this UID is about another request"),
            "an Execution has one request; create another Execution for another one",
        ),
        StartError::Busy(attempt) => ApiError::conflict(
            format!("attempt {attempt} of this UID has not ended"),
            "wait for its end, or cancel it, before the next attempt",
        ),
        StartError::Superseded(attempt) => ApiError::conflict(
            format!("attempt {attempt} of this UID came later and is known already"),
            "ask for the later attempt",
        ),
        StartError::QueueFull => {
            api.metrics.refused.inc();
            ApiError::queue_full()
        }
        StartError::ShuttingDown => ApiError::shutting_down(),
        StartError::JournalStopped(why) => ApiError::store_unavailable(why),
    }
}

fn change_error(error: ChangeError) -> ApiError {
    match error {
        ChangeError::Unknown(key) => ApiError::unknown_attempt(key),
        ChangeError::NotFinal(_) => ApiError::conflict(error.to_string(), "acknowledge it when it has ended"),
        ChangeError::Journal(JournalError::Encode(source)) => ApiError::malformed(source.to_string(), ""),
        ChangeError::Journal(source) => ApiError::store_unavailable(source.to_string()),
    }
}

fn refused_body(error: BytesRejection) -> ApiError {
    let text = error.body_text();
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::too_large(format!("{text}; the limit is {MAX_BODY} bytes"))
        }
        _ => ApiError::malformed(text, "send the whole body"),
    }
}

fn bad_digest(error: &requiem_model::DigestError) -> ApiError {
    ApiError::malformed(error.to_string(), "a digest is blake3: and 64 lower-case hexadecimal digits")
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| ApiError::store_unavailable(format!("the work ended early: {error}")))
}
