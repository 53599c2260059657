//! Content by digest and bundles by root, for the tenant that owns them.

use std::io::{self, Read};

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use requiem_cas::{Store, StoreError, Tenant};
use requiem_model::{BlobDigest, BundleRoot};
use requiem_sandbox::StdStream;
use tokio::sync::mpsc;

use super::error::ApiError;
use crate::archive::Archive;
use crate::attempts::Attempts;
use crate::live::Part;

/// Position of the first byte of the answer in its stream.
const FROM: HeaderName = HeaderName::from_static("requiem-from");
/// Whether the stream may go on after the answer.
const MORE: HeaderName = HeaderName::from_static("requiem-more");
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for a slow peer.
const AHEAD: usize = 4;

/// The digest of a stream in the result that `body` seals.
pub(crate) fn stream_digest(body: &str, stream: StdStream) -> Result<BlobDigest, ApiError> {
    let document: Result<requiem_proof::BundleBody, _> = serde_json::from_str(body);
    let body = document
        .map_err(|error| ApiError::store_unavailable(format!("the bundle cannot be read: {error}")))?;
    let result = body.execution.result;
    Ok(match stream {
        StdStream::Stdout => result.stdout.digest,
        StdStream::Stderr => result.stderr.digest,
    })
}

/// A part of a stream that is still written.
pub(crate) fn part(Part { start, bytes }: Part) -> Response {
    let headers = [(FROM, HeaderValue::from(start)), (MORE, HeaderValue::from_static("true"))];
    (headers, octets(Body::from(bytes))).into_response()
}

/// Streams an object of the tenant's from the position `from` on. The store verifies all of it on the way; at a mismatch the stream
/// breaks off instead of ending, so that nobody takes the bytes for whole.
pub(crate) fn rest(
    store: &Store,
    namespace: &str,
    digest: &BlobDigest,
    from: u64,
) -> Result<Response, ApiError> {
    let hint = "namespaces are DNS labels";
    let tenant = Tenant::parse(namespace).map_err(|error| ApiError::malformed(error.to_string(), hint))?;
    let mut reader = store.tenant(&tenant).and_then(|store| store.open_blob(digest)).map_err(store_error)?;
    io::copy(&mut (&mut reader).take(from), &mut io::sink())
        .map_err(|error| ApiError::store_unavailable(format!("the object cannot be read: {error}")))?;
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    tokio::task::spawn_blocking(move || pump(reader, &sender));
    let chunks = stream::poll_fn(move |context| receiver.poll_recv(context));
    let headers = [(FROM, HeaderValue::from(from)), (MORE, HeaderValue::from_static("false"))];
    Ok((headers, octets(Body::from_stream(chunks))).into_response())
}

fn octets(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

/// The body of the bundle with this root: from the journal while it is there, else from the archive.
pub(crate) fn proof(
    attempts: &Attempts,
    archive: &Archive,
    namespace: &str,
    root: &BundleRoot,
) -> Result<Response, ApiError> {
    let hint = "namespaces are DNS labels";
    Tenant::parse(namespace).map_err(|error| ApiError::malformed(error.to_string(), hint))?;
    let known = attempts.sealed_by_root(namespace, root).map(|sealed| sealed.body);
    let body = known.or_else(|| archive.body(namespace, root));
    let body =
        body.ok_or_else(|| ApiError::not_found(format!("no bundle {root} here"), "ask its executor"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn pump(mut reader: impl Read, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = reader.read(&mut chunk);
        let (item, last) = match read {
            Ok(0) => return,
            Ok(bytes) => {
                chunk.truncate(bytes);
                (Ok(Bytes::from(chunk)), false)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => (Err(error), true),
        };
        // A peer that went away wants nothing more.
        if sender.blocking_send(item).is_err() || last {
            return;
        }
    }
}

fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { .. } | StoreError::Corrupt { .. } => {
            ApiError::not_found(error.to_string(), "put the object into this namespace first")
        }
        other => ApiError::store_unavailable(other.to_string()),
    }
}
