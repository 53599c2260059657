//! `spec.replay` with a real executor: a command that gives the same again, one that cannot, and who counts it without a cluster.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::wait::await_condition;
use requiem_crds::replay::ReplayPhase;
use requiem_crds::{Execution, ProofBundle};
use requiem_tests::{Bed, Failure, KUBECONFIG, PATIENCE, PROGRAMS, setting};
use serde_json::{Value, json};

fn sample(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/samples").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let object: Execution = serde_norway::from_str(&text).unwrap();
    serde_json::to_value(object.spec).unwrap()
}

/// Runs the sample, and returns its bundle once its replays are over, with the condition that says so.
async fn replayed(bed: &Bed, name: &str, spec: Value) -> Result<(ProofBundle, Condition), Failure> {
    let done = bed.run(name, spec).await?;
    let bundle = done.status.unwrap().proof_bundle_ref.unwrap().name;
    let over = await_condition(bed.bundles.clone(), &bundle, |bundle: Option<&ProofBundle>| {
        let replays = bundle.and_then(|bundle| bundle.status.as_ref()?.replays.as_ref());
        replays.is_some_and(|replays| replays.phase == ReplayPhase::Done)
    });
    let bundle = tokio::time::timeout(PATIENCE, over).await??.unwrap();
    let conditions = bundle.status.iter().flat_map(|status| &status.conditions);
    let told = conditions.into_iter().find(|condition| condition.type_ == "Replayed").cloned();
    Ok((bundle, told.unwrap()))
}

/// The two commands that docs/operator.md shows, about this bundle; what the second one prints.
fn as_the_page_says(bed: &Bed, name: &str) -> Result<Output, Failure> {
    let page =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/operator.md"))?;
    let script = [
        "kubectl wait --for=condition=Replayed proofbundle/NAME",
        "kubectl get proofbundle NAME -o json | requiem proof verify - --require replayed=2",
    ]
    .join("\n");
    assert!(page.contains(&script), "the page shows something else");
    let tools = tempfile::tempdir()?;
    let kubectl = format!(
        "#!/bin/sh\nexec {} --kubeconfig {} --namespace {} \"$@\"\n",
        setting("REQUIEM_TEST_KUBECTL")?.display(),
        setting(KUBECONFIG)?.display(),
        bed.namespace
    );
    std::fs::write(tools.path().join("kubectl"), kubectl)?;
    std::fs::set_permissions(tools.path().join("kubectl"), std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}:/usr/bin:/bin", tools.path().display(), setting(PROGRAMS)?.display());
    let script = format!("set -e\n{}", script.replace("NAME", name));
    Ok(Command::new("sh").args(["-c", &script]).env("PATH", path).output()?)
}

/// What a third party does, with the one object in a file.
fn verify(bundle: &ProofBundle, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.json");
    std::fs::write(&file, serde_json::to_vec(bundle).unwrap()).unwrap();
    let program = setting(PROGRAMS).unwrap().join("requiem");
    Command::new(program).args(["proof", "verify"]).arg(&file).args(more).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_chance_agrees_and_one_with_it_diverges() -> Result<(), Failure> {
    let bed = Bed::start("replays", |_| {}).await?;
    let (bundle, told) = replayed(&bed, "replayed", sample("replayed.yaml")).await?;
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "ReplaysAgree"), "{}", told.message);
    let output = as_the_page_says(&bed, bundle.metadata.name.as_deref().unwrap())?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("replayed 2 times, 2 agree"), "{output:?}");

    // A receipt in which anything was changed is refused, and so is one that is shown twice.
    let mut object = serde_json::to_value(&bundle)?;
    let runs = |object: &mut Value| object.pointer_mut("/status/replays/runs").unwrap().clone();
    let whole = runs(&mut object);
    let body = whole[0]["body"].as_str().unwrap().replacen("attempt", "attempy", 1);
    for (change, code) in
        [(json!([{"body": body}]), "E_SHAPE"), (json!([whole[0], whole[0]]), "E_RECEIPT_TWICE")]
    {
        object["status"]["replays"]["runs"] = change;
        let program = setting(PROGRAMS)?.join("requiem");
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("bundle.json");
        std::fs::write(&file, object.to_string())?;
        let output = Command::new(program).args(["proof", "verify", "--json"]).arg(&file).output()?;
        let document: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(document["error_code"], json!(code), "{document:#}");
    }

    let (bundle, told) = replayed(&bed, "diverging", sample("diverging.yaml")).await?;
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "ReplayDiverged"));
    let words = "replayed 2 of 2 times, 0 agree; the first divergence is in stdout";
    assert_eq!(told.message, words);
    let output = verify(&bundle, &["--require", "replayed=1", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (output.status.code(), &document["error_code"]),
        (Some(1), &json!("E_REQUIRE")),
        "{document:#}"
    );
    let output = verify(&bundle, &["--json"]);
    let document: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (&document["replayed"], &document["agreed"], &document["first_divergence"]),
        (&json!(2), &json!(0), &json!("stdout"))
    );
    Ok(())
}
