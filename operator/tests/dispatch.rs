//! The dispatch client against a real TLS server in this process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::routing::{get, put};
use axum::{Json, Router};
use common::{Pki, Server};
use k8s_openapi::jiff::Timestamp;
use requiem_model::ExecutionRequest;
use requiem_model::attempt::{AttemptState, ErrorBody, Identity, StartAttempt};
use requiem_operator::certificates::{Authority, Issued, server_name};
use requiem_operator::dispatch::{
    DispatchError, Dispatcher, Endpoint, MAX_ANSWER_BYTES, Trust, client_config, issued_config,
};
use requiem_operator::metrics::Metrics;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

const NAMES: &[&str] = &["127.0.0.1"];

fn dispatcher(pki: &Pki) -> Dispatcher {
    Dispatcher::new(client_config(&pki.operator()).unwrap(), Metrics::new().unwrap())
}

fn start() -> StartAttempt {
    let identity =
        Identity { namespace: "ns".into(), name: "n".into(), uid: "uid".into(), generation: 1, attempt: 2 };
    let request = ExecutionRequest::new(vec!["/bin/true".into()]).normalise().unwrap();
    StartAttempt { identity, request, inline: vec!["text".into()] }
}

fn refusal(status: StatusCode, code: &str) -> (StatusCode, Json<ErrorBody>) {
    let body = ErrorBody { code: code.into(), message: "no".into(), hint: "later".into() };
    (status, Json(body))
}

#[tokio::test]
async fn a_start_arrives_as_it_was_sent() {
    let pki = Pki::new();
    let routes = Router::new().route(
        "/v1/attempts/{uid}/{n}",
        put(
            async |path: Path<(String, u32)>,
                   query: Query<Vec<(String, String)>>,
                   version: Version,
                   body: String| {
                let sent: StartAttempt = serde_json::from_str(&body).unwrap();
                assert_eq!((path.0.0.as_str(), path.0.1), ("uid", 2));
                assert_eq!(query.0, [("waitMs".to_owned(), "2000".to_owned())]);
                assert_eq!(version, Version::HTTP_2);
                assert_eq!(sent, start());
                (StatusCode::ACCEPTED, Json(AttemptState::Running))
            },
        ),
    );
    let server = Server::start(pki.server(NAMES), routes).await;
    let state =
        dispatcher(&pki).start(&server.endpoint("a"), &start(), Duration::from_secs(2)).await.unwrap();
    assert_eq!(state, AttemptState::Running);
}

#[tokio::test]
async fn refusals_keep_their_meaning() {
    let pki = Pki::new();
    let attempts = put(async || {
        let (status, body) = refusal(StatusCode::TOO_MANY_REQUESTS, "QueueFull");
        (status, HeaderMap::from_iter([("retry-after".parse().unwrap(), "7".parse().unwrap())]), body)
    })
    .get(async || refusal(StatusCode::NOT_FOUND, "UnknownAttempt"))
    .delete(async || refusal(StatusCode::NOT_FOUND, "UnknownAttempt"));
    let capabilities = get(async || (StatusCode::BAD_GATEWAY, "<html>"));
    let routes =
        Router::new().route("/v1/attempts/{uid}/{n}", attempts).route("/v1/capabilities", capabilities);
    let server = Server::start(pki.server(NAMES), routes).await;
    let (client, endpoint) = (dispatcher(&pki), server.endpoint("a"));
    let full = client.start(&endpoint, &start(), Duration::ZERO).await.unwrap_err();
    assert_eq!((full.code(), full.retry_after()), ("QueueFull", Some(Duration::from_secs(7))));
    assert_eq!(client.ask(&endpoint, "uid", 1).await.unwrap(), None);
    assert_eq!(client.wait(&endpoint, "uid", 1, Duration::ZERO).await.unwrap(), None);
    client.cancel(&endpoint, "uid", 1).await.unwrap();
    let strange = client.capabilities(&endpoint).await.unwrap_err();
    assert_eq!(strange.code(), "UnknownRefusal");
    assert!(strange.to_string().contains("502"), "{strange}");
}

#[tokio::test]
async fn answers_outside_the_protocol_are_refused() {
    let pki = Pki::new();
    let routes = Router::new()
        .route("/v1/attempts/{uid}/1", get(async || "x".repeat(MAX_ANSWER_BYTES + 1)))
        .route("/v1/attempts/{uid}/2", get(async || "not json"))
        .route("/v1/attempts/{uid}/3", get(async || Json(json!({"state": "finished"}))));
    let server = Server::start(pki.server(NAMES), routes).await;
    for n in 1..=3 {
        let error = dispatcher(&pki).ask(&server.endpoint("a"), "uid", n).await.unwrap_err();
        assert_eq!(error.code(), "MalformedAnswer", "{n}: {error}");
    }
}

#[tokio::test]
async fn only_an_executor_of_our_authority_and_name_is_talked_to() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let routes = || Router::new().route("/v1/attempts/{uid}/{n}", get(async || Json(AttemptState::Queued)));
    let other_name = Server::start(ours.server(&["executor.example"]), routes()).await;
    let client = dispatcher(&ours);
    let mut endpoint = other_name.endpoint("a");
    let error = client.ask(&endpoint, "uid", 1).await.unwrap_err();
    assert!(matches!(&error, DispatchError::Unreachable { .. }) && error.is_absence(), "{error}");
    endpoint.server_name = Some("executor.example".into());
    assert_eq!(client.ask(&endpoint, "uid", 1).await.unwrap(), Some(AttemptState::Queued));

    let impostor = Server::start(theirs.server(NAMES), routes()).await;
    let error = client.ask(&impostor.endpoint("a"), "uid", 1).await.unwrap_err();
    assert_eq!(error.code(), "Unreachable", "{error}");

    // And an executor does not talk to whom its authority did not sign.
    let mut files = theirs.operator();
    files.executor_ca = ours.path("ca.crt");
    let stranger = Dispatcher::new(client_config(&files).unwrap(), Metrics::new().unwrap());
    assert_eq!(stranger.ask(&endpoint, "uid", 1).await.unwrap_err().code(), "Unreachable");
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_does_not_hold_up_others() {
    let pki = Pki::new();
    let routes = Router::new()
        .route("/v1/attempts/{uid}/1", get(std::future::pending::<String>))
        .route("/v1/attempts/{uid}/2", get(async || Json(AttemptState::Running)));
    let server = Server::start(pki.server(NAMES), routes).await;
    let (client, endpoint) = (dispatcher(&pki), server.endpoint("a"));
    let silent = client.ask(&endpoint, "uid", 1);
    let quick = async {
        for _ in 0..100 {
            client.ask(&endpoint, "uid", 2).await.unwrap();
        }
        std::time::Instant::now()
    };
    let (silent, quick_done) = futures::future::join(silent, quick).await;
    assert!(quick_done.elapsed() > Duration::from_secs(1), "calls waited for the silent one");
    let error = silent.unwrap_err();
    assert!(matches!(error, DispatchError::Timeout { .. }) && error.is_absence(), "{error}");
}

#[tokio::test]
async fn nobody_there_is_an_absence() {
    let pki = Pki::new();
    let server = Server::start(pki.server(NAMES), Router::new()).await;
    let endpoint = server.endpoint("a");
    drop(server);
    let error = dispatcher(&pki).ask(&endpoint, "uid", 1).await.unwrap_err();
    assert!(error.is_absence(), "{error}");
    assert!(error.to_string().contains("a (https://127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn a_thousand_long_polls_do_not_hold_up_a_start() {
    let pki = Pki::new();
    let routes = Router::new().route(
        "/v1/attempts/{uid}/{n}",
        get(std::future::pending::<String>).put(async || Json(AttemptState::Running)),
    );
    let server = Server::start(pki.server(NAMES), routes).await;
    let (client, endpoint) = (dispatcher(&pki), server.endpoint("a"));
    let polls: Vec<_> = (0..1000)
        .map(|n| {
            let (client, endpoint) = (client.clone(), endpoint.clone());
            tokio::spawn(async move { client.wait(&endpoint, "uid", n, Duration::from_secs(30)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let started = std::time::Instant::now();
    client.start(&endpoint, &start(), Duration::ZERO).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    polls.iter().for_each(|poll| poll.abort());
}

#[tokio::test]
async fn an_issued_certificate_serves_in_its_own_namespace_and_makes_nobody_an_operator() {
    let (authority, other) = (Authority::generate(Timestamp::now()), Authority::generate(Timestamp::now()));
    let (authority, other) = (authority.unwrap(), other.unwrap());
    let issue = |authority: &Authority| authority.server(&server_name("mine"), Timestamp::now()).unwrap();
    let routes = || Router::new().route("/v1/attempts/{uid}/{n}", get(async || Json(AttemptState::Queued)));
    let server = Server::start(issued_server(&authority, &issue(&authority)), routes()).await;
    let endpoint = |namespace: &str| Endpoint {
        server_name: Some(server_name(namespace)),
        trust: Trust::Issued,
        ..server.endpoint("a")
    };
    let client = |signer: &Authority, who: &Issued| {
        let dispatcher = Dispatcher::new(None, Metrics::new().unwrap());
        let config = issued_config(&who.certificate, &who.key, signer.certificate()).unwrap();
        dispatcher.identify(Trust::Issued, config);
        dispatcher
    };
    let operator = client(&authority, &authority.operator(Timestamp::now()).unwrap());
    assert_eq!(operator.ask(&endpoint("mine"), "uid", 1).await.unwrap(), Some(AttemptState::Queued));
    let foreign = operator.ask(&endpoint("yours"), "uid", 1).await.unwrap_err();
    assert_eq!(foreign.code(), "Unreachable", "{foreign}");
    // An executor's certificate is none of a client, and another authority's operator is nobody here.
    let executor = client(&authority, &issue(&authority));
    assert_eq!(executor.ask(&endpoint("mine"), "uid", 1).await.unwrap_err().code(), "Unreachable");
    let stranger = client(&authority, &other.operator(Timestamp::now()).unwrap());
    assert_eq!(stranger.ask(&endpoint("mine"), "uid", 1).await.unwrap_err().code(), "Unreachable");
    // What the authority signs outside of its names counts for nothing.
    let outside = authority.server("api.example.com", Timestamp::now()).unwrap();
    let server = Server::start(issued_server(&authority, &outside), routes()).await;
    let outside = Endpoint {
        server_name: Some("api.example.com".into()),
        trust: Trust::Issued,
        ..server.endpoint("a")
    };
    assert_eq!(operator.ask(&outside, "uid", 1).await.unwrap_err().code(), "Unreachable");
}

#[tokio::test]
async fn without_a_certificate_nobody_is_called_and_the_remedy_is_named() {
    let pki = Pki::new();
    let server = Server::start(pki.server(NAMES), Router::new()).await;
    let dispatcher = Dispatcher::new(None, Metrics::new().unwrap());
    let error = dispatcher.ask(&server.endpoint("a"), "uid", 1).await.unwrap_err();
    assert_eq!((error.code(), error.is_absence()), ("NoIdentity", true));
    assert!(error.to_string().contains("--tls-cert"), "{error}");
}

fn issued_server(authority: &Authority, issued: &Issued) -> rustls::ServerConfig {
    let read = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read(authority.certificate())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![read(&issued.certificate)], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
