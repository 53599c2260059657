//! What the API server itself refuses while operator and executor are at work.

use kube::api::{Patch, PatchParams};
use requiem_tests::{Bed, Failure};
use serde_json::{Value, json};

async fn refusal(bed: &Bed, name: &str, subresource: bool, change: Value) -> String {
    let (patch, params) = (Patch::Merge(change.clone()), PatchParams::default());
    let answer = if subresource {
        bed.executions.patch_status(name, &params, &patch).await
    } else {
        bed.executions.patch(name, &params, &patch).await
    };
    match answer {
        Ok(_) => panic!("{change} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_execution_cannot_be_rewritten() -> Result<(), Failure> {
    let bed = Bed::start("fenced", |_| {}).await?;
    bed.run("done", json!({"command": ["true"]})).await?;
    let forged = format!("blake3:{}", "0".repeat(64));
    for change in [
        json!({"status": {"proofRoot": forged}}),
        json!({"status": {"proofRoot": null}}),
        json!({"status": {"terminal": false}}),
        json!({"status": {"result": "NonZeroExit"}}),
        json!({"status": {"exitCode": 1}}),
        json!({"status": null}),
    ] {
        let message = refusal(&bed, "done", true, change).await;
        assert!(message.contains("immutable") || message.contains("Invalid"), "{message}");
    }
    for change in [json!({"spec": {"command": ["false"]}}), json!({"spec": {"timeoutSeconds": 7}})] {
        let message = refusal(&bed, "done", false, change).await;
        assert!(message.contains("is immutable"), "{message}");
    }
    Ok(())
}
