//! The authority of executors in pods, in a real API server.

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use requiem_operator::certificates::{AUTHORITY_SECRET, Certificates, EXECUTOR_SECRET};
use requiem_operator::dispatch::Dispatcher;
use requiem_operator::kubeapi::Writer;
use requiem_operator::metrics::Metrics;
use serde_json::json;

use super::{connect, namespace};

fn certificates(client: &Client, own: Option<&str>) -> Certificates {
    let metrics = Metrics::new().unwrap();
    let writer = Writer::new(client.clone(), metrics.clone());
    Certificates::new(own, writer, Dispatcher::new(None, metrics.clone()), metrics)
}

async fn field(secrets: &Api<Secret>, secret: &str, field: &str) -> Vec<u8> {
    let data = secrets.get(secret).await.unwrap().data.unwrap_or_default();
    data.get(field).map(|bytes| bytes.0.clone()).unwrap_or_default()
}

#[tokio::test]
async fn operators_that_begin_at_once_agree_on_one_authority() {
    let client = connect().await;
    let own = namespace(&client, "authority").await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &own);
    let several: Vec<Certificates> = (0..4).map(|_| certificates(&client, Some(&own))).collect();
    let calls = several.iter().map(|one| one.ensure(&own, true));
    for outcome in futures::future::join_all(calls).await {
        outcome.unwrap();
    }
    let authority = field(&secrets, AUTHORITY_SECRET, "ca.crt").await;
    assert!(authority.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert_eq!(field(&secrets, EXECUTOR_SECRET, "ca.crt").await, authority);
    let before = field(&secrets, EXECUTOR_SECRET, "tls.crt").await;
    // What was just written is not written again; another operator's start renews it, under the same authority.
    several[0].ensure(&own, true).await.unwrap();
    assert_eq!(field(&secrets, EXECUTOR_SECRET, "tls.crt").await, before);
    certificates(&client, Some(&own)).ensure(&own, false).await.unwrap();
    assert_ne!(field(&secrets, EXECUTOR_SECRET, "tls.crt").await, before);
    assert_eq!(field(&secrets, AUTHORITY_SECRET, "ca.crt").await, authority);
}

#[tokio::test]
async fn an_authority_that_is_none_is_refused_with_the_remedy_and_without_its_content() {
    let client = connect().await;
    let own = namespace(&client, "no-authority").await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &own);
    certificates(&client, Some(&own)).ensure(&own, true).await.unwrap();
    let broken = json!({"stringData": {"ca.key": "a-secret-that-is-no-key"}});
    secrets.patch(AUTHORITY_SECRET, &PatchParams::default(), &Patch::Merge(&broken)).await.unwrap();
    let error = certificates(&client, Some(&own)).ensure(&own, true).await.unwrap_err().to_string();
    assert!(
        error.contains("delete Secret requiem-ca in namespace") && !error.contains("a-secret"),
        "{error}"
    );
    let off = certificates(&client, None).ensure(&own, true).await.unwrap_err().to_string();
    assert!(off.contains("--own-namespace"), "{off}");
}
