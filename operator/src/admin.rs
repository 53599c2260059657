//! `/healthz`, `/readyz` and `/metrics`, in plain HTTP on an address of its own.
//!
//! Health is that the event loop answers; it does not depend on the API server, whose outage must not get the
//! operator restarted. Readiness is that every cache was filled once, or that it stands by for another operator that works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// How many caches are still to be filled before the operator is ready.
#[derive(Clone)]
pub struct Readiness {
    missing: Arc<AtomicUsize>,
    stands_by: Arc<AtomicBool>,
}

impl Readiness {
    /// Waits for `caches` caches.
    pub fn waiting_for(caches: usize) -> Self {
        Self { missing: Arc::new(AtomicUsize::new(caches)), stands_by: Arc::default() }
    }

    /// One more cache is filled. Call it once per cache.
    pub fn filled(&self) {
        self.missing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether another operator works and this one could take over.
    pub fn stands_by(&self, yes: bool) {
        self.stands_by.store(yes, Ordering::SeqCst);
    }

    /// Whether every cache is filled, or none needs to be.
    pub fn is_ready(&self) -> bool {
        self.missing.load(Ordering::SeqCst) == 0 || self.stands_by.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Admin {
    metrics: Metrics,
    readiness: Readiness,
}

/// Listens on `address`.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop` turns true.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Admin { metrics, readiness });
    let stopped = async move {
        // An error means that the sender is gone, which is a stop as well.
        let _stopped = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, routes).with_graceful_shutdown(stopped).await
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "caches are not filled yet\n")
    }
}

async fn render(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
