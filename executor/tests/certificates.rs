//! The endpoint's identity while it is renewed, and who may speak to it.

mod common;

use common::{Client, Daemon, Pki, alert, sealed, shell};
use hyper::StatusCode;
use rustls::AlertDescription;

#[tokio::test(flavor = "multi_thread")]
async fn new_files_serve_new_connections_and_leave_open_ones_alone() {
    let (pki, next, store) = (Pki::new(), Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let open = daemon.client();
    let running = shell("running", "sleep 1; echo whole");
    open.put(&running, 0).await;
    let waiting = tokio::spawn({
        let (open, running) = (open.clone(), running.clone());
        async move { sealed(open.run(&running).await) }
    });
    open.until_running(&running.identity).await;
    assert_eq!(alert(&daemon.listen, &pki, Some(&next)).await, AlertDescription::DecryptError, "a stranger");
    pki.replace_by(&next, &["server.crt", "server.key", "ca.crt"]);
    let renewed = Client::new(&daemon.listen, &next, Some(&next));
    assert_eq!(renewed.get("/v1/capabilities").await.0, StatusCode::OK, "the new authority's operator");
    assert_eq!(waiting.await.unwrap().stdout_tail, "whole\n", "the old connection lives");
    assert_eq!(open.get("/v1/capabilities").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_leave_the_old_identity_and_show() {
    let (pki, next, store) = (Pki::new(), Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let was = std::fs::read(pki.file("server.key")).unwrap();
    pki.replace_by(&next, &["server.key"]);
    let (status, lines) = daemon.admin("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(lines.contains("certificate: ") && lines.contains("cannot be used together"), "{lines}");
    assert!(lines.contains("the old one stays in use"), "{lines}");
    assert_eq!(daemon.client().get("/v1/capabilities").await.0, StatusCode::OK);
    std::fs::write(pki.file("server.key"), was).unwrap();
    assert_eq!(daemon.admin("/readyz").await.0, StatusCode::OK);
    assert!(daemon.metric("requiem_executor_certificate_expiry_timestamp_seconds").await > 1.7e9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_authority_without_the_operators_name_is_refused() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--operator-name", "another-operator"]);
    let refused = alert(&daemon.listen, &pki, Some(&pki)).await;
    assert_eq!(refused, AlertDescription::AccessDenied);
    drop(daemon);
    let daemon = Daemon::start(&pki, store.path(), &["--operator-name", "requiem-operator"]);
    assert_eq!(daemon.client().get("/v1/capabilities").await.0, StatusCode::OK);
}
