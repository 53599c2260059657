//! The daemon as its callers see it: real process, real certificates, real sandbox.

mod common;

use common::{Daemon, Pki, alert, error, failed, input, path_of, sealed, shell, start, state, verified};
use hyper::{Method, StatusCode};
use requiem_model::attempt::{AttemptState, Capabilities, StartAttempt};
use requiem_model::policy::Layer;
use requiem_model::result::{FailureReason, OutputContent};
use requiem_model::{BlobDigest, ExecutionRequest, Outcome, RelPath};
use rustls::AlertDescription;

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_runs_end_to_end_and_its_proof_holds() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    let script = "cat in/greeting; cat; echo oops >&2; printf kept > out; exit 3";
    let mut call = shell("e2e", script);
    call.request.inputs = vec![input("in/greeting", b"hello\n")];
    call.request.stdin = Some(BlobDigest::of(b"from stdin\n"));
    call.request.outputs = vec![RelPath::parse("absent").unwrap(), RelPath::parse("out").unwrap()];
    call.inline = vec!["hello\n".into(), "from stdin\n".into()];
    let result = sealed(client.run(&call).await);
    let facts = verified(&call, &result).body;
    assert_eq!(facts.execution.result.outcome, Outcome::Exited { code: 3 });
    assert_eq!(facts.execution.result.stdout.digest, BlobDigest::of(b"hello\nfrom stdin\n"));
    assert_eq!((result.stdout_tail.as_str(), result.stderr_tail.as_str()), ("hello\nfrom stdin\n", "oops\n"));
    let OutputContent::Blob { digest, bytes, .. } = facts.execution.result.outputs[0].content else {
        panic!()
    };
    assert_eq!((digest, bytes), (BlobDigest::of(b"kept"), 4));
    assert_eq!(facts.execution.result.missing_outputs[0].why, "absent");
    assert_eq!(facts.run.executor.name, "test");

    let (_, stdout) = client.get(&format!("{}/stdout", path_of(&call.identity))).await;
    let (_, stderr) = client.get(&format!("{}/stderr", path_of(&call.identity))).await;
    assert_eq!((&stdout[..], &stderr[..]), (&b"hello\nfrom stdin\n"[..], &b"oops\n"[..]));
    let (_, output) = client.get(&format!("/v1/blobs/{digest}?namespace=team-a")).await;
    assert_eq!(&output[..], b"kept");
    let (status, body) = client.get(&format!("/v1/blobs/{digest}?namespace=team-b")).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::NOT_FOUND, "NotFound"));
    let (_, body) = client.get(&format!("/v1/proofs/{}?namespace=team-a", result.bundle_root)).await;
    assert_eq!(&body[..], result.body.as_bytes());
    let (status, _) = client.get(&format!("/v1/proofs/{}?namespace=team-b", result.bundle_root)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(daemon.metric("requiem_executor_attempts_total{reason=\"NonZeroExit\"}").await, 1.0);
    assert!(daemon.metric("requiem_executor_stage_seconds_count").await >= 1.0);
    assert!(daemon.metric("requiem_executor_journal_fsyncs_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_health_and_unknown_paths_answer() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--slots", "3"]);
    let client = daemon.client();
    let (_, body) = client.get("/v1/capabilities").await;
    let capabilities: Capabilities = serde_json::from_slice(&body).unwrap();
    assert_eq!((capabilities.slots, capabilities.sandbox.layers.len()), (3, Layer::ALL.len()));
    assert_eq!(daemon.admin("/healthz").await.0, StatusCode::OK);
    let (ready, lines) = daemon.admin("/readyz").await;
    assert_eq!((ready, lines.matches(": ok").count()), (StatusCode::OK, 5), "{lines}");
    for (method, path, status, code) in [
        (Method::GET, "/v1/nothing", StatusCode::NOT_FOUND, "NotFound"),
        (Method::POST, "/v1/capabilities", StatusCode::METHOD_NOT_ALLOWED, "Malformed"),
        (Method::GET, "/v1/attempts/nobody/1", StatusCode::NOT_FOUND, "UnknownAttempt"),
        (Method::DELETE, "/v1/attempts/nobody/1", StatusCode::NOT_FOUND, "UnknownAttempt"),
        (Method::POST, "/v1/attempts/nobody/1/ack", StatusCode::NOT_FOUND, "UnknownAttempt"),
        (Method::GET, "/v1/attempts/nobody/1/stdout", StatusCode::NOT_FOUND, "UnknownAttempt"),
        (Method::GET, "/v1/attempts/nobody/1/trace", StatusCode::NOT_FOUND, "NotFound"),
        (Method::GET, "/v1/attempts/nobody/0", StatusCode::BAD_REQUEST, "Malformed"),
        (Method::GET, "/v1/attempts/no%20body/1", StatusCode::BAD_REQUEST, "Malformed"),
        (Method::GET, "/v1/attempts/nobody/1?waitMs=soon", StatusCode::BAD_REQUEST, "Malformed"),
        (Method::PUT, "/v1/attempts/nobody/1", StatusCode::BAD_REQUEST, "Malformed"),
        (Method::GET, "/v1/blobs/blake3:00?namespace=a", StatusCode::BAD_REQUEST, "Malformed"),
        (Method::GET, &format!("/v1/blobs/{}", BlobDigest::of(b"")), StatusCode::BAD_REQUEST, "Malformed"),
        (
            Method::GET,
            &format!("/v1/blobs/{}?namespace=..%2Fteam-a", BlobDigest::of(b"")),
            StatusCode::BAD_REQUEST,
            "Malformed",
        ),
    ] {
        let (got, body) = client.call(method.clone(), path, vec![]).await;
        assert_eq!((got, error(&body).code.as_str()), (status, code), "{method} {path}");
        assert!(!error(&body).hint.is_empty(), "{method} {path} has no hint");
    }
    let (status, body) = client.call(Method::PUT, "/v1/attempts/big/1", vec![b' '; 5 << 20]).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "Malformed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_twice_is_one_run() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--slots", "4"]);
    let client = daemon.client();
    let call = shell("twice", "head -c 16 /dev/urandom | od -A n -t x1");
    let calls = (0..8).map(|_| {
        let (client, call) = (client.clone(), call.clone());
        tokio::spawn(async move { sealed(client.run(&call).await) })
    });
    let mut results = vec![];
    for call in calls.collect::<Vec<_>>() {
        results.push(call.await.unwrap());
    }
    results.dedup();
    assert_eq!(results.len(), 1, "a payload that reads random bytes ran more than once");

    let mut edited = call.clone();
    edited.identity.generation = 9;
    assert_eq!(sealed(client.run(&edited).await), results[0], "another generation is the same attempt");
    let mut later = call.clone();
    later.identity.attempt = 2;
    assert_eq!(sealed(client.run(&later).await), results[0], "an Execution has one result");

    let other = shell("twice", "echo something else");
    let (status, body) = client.put(&other, 0).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::CONFLICT, "RequestConflict"));
    let mut stranger = call.clone();
    stranger.identity.namespace = "team-b".into();
    assert_eq!(
        client.put(&stranger, 0).await.0,
        StatusCode::CONFLICT,
        "another tenant's result is not given out"
    );
    assert_eq!(daemon.metric("requiem_executor_attempts_total{reason=\"Succeeded\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_identity_or_request_is_refused() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    let call = shell("honest", "true");
    let body = serde_json::to_vec(&call).unwrap();
    for path in ["/v1/attempts/other/1", "/v1/attempts/honest/2"] {
        let (status, body) = client.call(Method::PUT, path, body.clone()).await;
        assert_eq!((status, error(&body).code.as_str()), (StatusCode::BAD_REQUEST, "IdentityMismatch"));
    }
    let edits: [fn(&mut StartAttempt); 7] = [
        |call| call.identity.namespace = "../team-b".into(),
        |call| call.identity.namespace = String::new(),
        |call| call.identity.name = "a/b".into(),
        |call| call.identity.generation = 1 << 53,
        |call| call.request.argv.clear(),
        |call| call.request.limits.timeout_ms = 0,
        |call| call.request.outputs = ["b", "a"].map(|path| RelPath::parse(path).unwrap()).into(),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let mut forged = call.clone();
        edit(&mut forged);
        let (status, body) = client.put(&forged, 0).await;
        assert_eq!(
            (status, error(&body).code.as_str()),
            (StatusCode::BAD_REQUEST, "Malformed"),
            "edit {index}"
        );
    }
    let mut unknown: serde_json::Value = serde_json::to_value(&call).unwrap();
    unknown["request"]["surprise"] = true.into();
    let (status, body) =
        client.call(Method::PUT, &path_of(&call.identity), serde_json::to_vec(&unknown).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error(&body).message.contains("surprise"), "an unknown field is named");
    assert_eq!(client.get(&path_of(&call.identity)).await.0, StatusCode::NOT_FOUND, "nothing was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_authoritys_clients_are_heard() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let stranger = Pki::new();
    for (own, refused) in [
        (None, AlertDescription::CertificateRequired),
        (Some(stranger.as_ref()), AlertDescription::DecryptError),
    ] {
        assert_eq!(alert(&daemon.listen, &pki, own).await, refused);
    }
    assert_eq!(daemon.client().get("/v1/capabilities").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_why() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    let mut call = shell("missing", "cat data");
    call.request.inputs = vec![input("data", b"never put")];
    let failure = failed(client.run(&call).await);
    assert_eq!(failure.reason, FailureReason::InputMissing);
    let digest = BlobDigest::of(b"never put").to_string();
    assert!(failure.message.contains("data") && failure.message.contains(&digest), "{failure}");

    let call = start("absent", ExecutionRequest::new(vec!["/no/such/program".into()]));
    assert_eq!(failed(client.run(&call).await).reason, FailureReason::CommandNotRunnable);

    let mut call = shell("timeout", "sleep 60");
    call.request.limits.timeout_ms = 300;
    let result = sealed(client.run(&call).await);
    assert_eq!(verified(&call, &result).body.execution.result.outcome, Outcome::TimedOut);
    assert_eq!(daemon.metric("requiem_executor_attempts_total{reason=\"TimedOut\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_cancelled_running_or_queued_and_stays_so() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--slots", "1"]);
    let client = daemon.client();
    let (running, queued) = (shell("running", "sleep 600"), shell("queued", "true"));
    client.put(&running, 0).await;
    client.until_running(&running.identity).await;
    let (status, body) = client.put(&queued, 0).await;
    assert_eq!((status, state(status, &body)), (StatusCode::ACCEPTED, AttemptState::Queued));
    for call in [&queued, &running] {
        let (status, _) = client.call(Method::DELETE, &path_of(&call.identity), vec![]).await;
        assert!(status.is_success());
        assert_eq!(failed(client.run(call).await).reason, FailureReason::Cancelled);
    }
    let (status, body) = client.call(Method::DELETE, &path_of(&running.identity), vec![]).await;
    assert_eq!(
        failed(state(status, &body)).reason,
        FailureReason::Cancelled,
        "cancelling twice changes nothing"
    );
    daemon.kill();
    let daemon = Daemon::start(&pki, store.path(), &[]);
    for call in [&queued, &running] {
        assert_eq!(failed(daemon.client().run(call).await).reason, FailureReason::Cancelled);
    }
    let done = shell("done", "true");
    let result = sealed(daemon.client().run(&done).await);
    let (status, body) = daemon.client().call(Method::DELETE, &path_of(&done.identity), vec![]).await;
    assert_eq!(sealed(state(status, &body)), result, "a result is not cancelled away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--slots", "1", "--queue", "1"]);
    let client = daemon.client();
    let (running, queued, refused) = (shell("a", "sleep 600"), shell("b", "true"), shell("c", "true"));
    client.put(&running, 0).await;
    client.until_running(&running.identity).await;
    assert_eq!(client.put(&queued, 0).await.0, StatusCode::ACCEPTED);
    let (status, body) = client.put(&refused, 0).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::TOO_MANY_REQUESTS, "QueueFull"));
    assert_eq!(
        client.get(&path_of(&refused.identity)).await.0,
        StatusCode::NOT_FOUND,
        "a refused attempt is unknown"
    );
    assert_eq!(client.put(&queued, 0).await.0, StatusCode::ACCEPTED, "a known attempt needs no place");
    let mut second = running.clone();
    second.identity.attempt = 2;
    let (status, body) = client.put(&second, 0).await;
    assert_eq!(
        (status, error(&body).code.as_str()),
        (StatusCode::CONFLICT, "RequestConflict"),
        "one at a time"
    );
    client.call(Method::DELETE, &path_of(&running.identity), vec![]).await;
    sealed(client.run(&queued).await);
    sealed(client.run(&refused).await);
    assert_eq!(daemon.metric("requiem_executor_refused_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_and_retired_is_still_proven_by_its_root() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--keep-acked", "1"]);
    let client = daemon.client();
    let calls = ["one", "two", "three"].map(|uid| shell(uid, &format!("echo {uid}")));
    let mut results = vec![];
    for call in &calls {
        results.push(sealed(client.run(call).await));
        let ack = format!("{}/ack", path_of(&call.identity));
        for _twice in 0..2 {
            assert_eq!(client.call(Method::POST, &ack, vec![]).await.0, StatusCode::NO_CONTENT);
        }
    }
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(&pki, store.path(), &["--keep-acked", "1"]);
    let client = daemon.client();
    for (index, (call, result)) in calls.iter().zip(&results).enumerate() {
        let known = client.get(&path_of(&call.identity)).await.0 == StatusCode::OK;
        assert_eq!(known, index == 2, "only the newest acknowledged attempt stays known");
        let (status, body) = client.get(&format!("/v1/proofs/{}?namespace=team-a", result.bundle_root)).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, result.body.as_bytes()));
        let stdout = verified(call, result).body.execution.result.stdout.digest;
        let (status, body) = client.get(&format!("/v1/blobs/{stdout}?namespace=team-a")).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, format!("{}\n", call.identity.uid).as_bytes()));
    }
}
