//! The admin side: is it alive, may it be given work, what are its figures. HTTP/1.1 in the clear, no secrets.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::health::Health;

/// Routes of the admin side.
pub(crate) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    let checks = tokio::task::spawn_blocking(move || health.checks()).await;
    let checks = checks.unwrap_or_else(|error| vec![("checks", Err(error.to_string()))]);
    let status = match checks.iter().all(|(_, check)| check.is_ok()) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let line = |(name, check): &(&str, Result<(), String>)| match check {
        Ok(()) => format!("{name}: ok\n"),
        Err(why) => format!("{name}: {why}\n"),
    };
    (status, checks.iter().map(line).collect::<String>()).into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let text = health.metrics_text();
    ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
