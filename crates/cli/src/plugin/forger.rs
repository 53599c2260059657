//! For tests: an executor that answers everything with the same bytes.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::remote::Remote;

/// A connection to one.
pub(super) async fn forger(content: &'static [u8]) -> Remote {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let service = service_fn(async move |_asked: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(content))))
    });
    tokio::spawn(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(theirs), service));
    Remote::over(ours, "forger").await.unwrap()
}
