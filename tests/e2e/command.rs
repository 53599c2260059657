//! `requiem exec apply`: from a manifest to a verified proof by one command, and the document that it prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use boon::{Compiler, Schemas};
use kube::api::ListParams;
use requiem_tests::{Bed, Failure, KUBECONFIG, PROGRAMS, setting};
use serde_json::{Value, json};

/// Judges a document by a committed schema.
fn is_as_published(name: &str, document: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/schemas").join(name);
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("mem:///schema.json", schema).unwrap();
    let index = compiler.compile("mem:///schema.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(document, index) {
        panic!("{name}: {error:#}\n{document:#}");
    }
}

fn requiem(folder: &Path, arguments: &[&str]) -> Output {
    let program = setting(PROGRAMS).unwrap().join("requiem");
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

/// `exec apply` of an Execution with this spec: its exit code, and its document.
fn apply(bed: &Bed, folder: &Path, spec: &Value, more: &[&str]) -> Result<(i32, Value), Failure> {
    let execution = json!({
        "apiVersion": "requiem.dev/v1alpha1", "kind": "Execution", "metadata": {"generateName": "apply-"}, "spec": spec,
    });
    std::fs::write(folder.join("execution.json"), execution.to_string())?;
    let kubeconfig = setting(KUBECONFIG)?.display().to_string();
    let place = ["--kubeconfig", &kubeconfig, "--namespace", &bed.namespace, "--json"];
    let output = requiem(folder, &[&["exec", "apply", "execution.json"], &place[..], more].concat());
    let document = serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
    Ok((output.status.code().ok_or("a signal ended it")?, document))
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_apply_ends_with_a_verified_proof_and_prints_what_is_published() -> Result<(), Failure> {
    let bed = Bed::start("apply", |_| {}).await?;
    let folder = tempfile::tempdir()?;
    let apply = |script: &str, more: &[&str]| {
        let spec = json!({"command": ["/bin/sh", "-c", script]});
        apply(&bed, folder.path(), &spec, more).unwrap()
    };
    let (code, document) = apply("echo hi", &["--proof", "proof.json"]);
    is_as_published("exec-apply.json", &document);
    assert_eq!((code, &document["ok"], &document["result"]), (0, &json!(true), &json!("Succeeded")));
    let output = requiem(folder.path(), &["proof", "verify", "proof.json", "--json"]);
    let proof: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(proof["bundle_root"], document["proof"]["bundle_root"]);
    assert_eq!(proof["namespace"], json!(bed.namespace));
    let (code, document) = apply("exit 3", &["--delete"]);
    is_as_published("exec-apply.json", &document);
    assert_eq!((code, &document["result"]), (1, &json!("NonZeroExit")), "{document:#}");
    let left = bed.executions.list(&ListParams::default()).await?.items;
    assert_eq!(left.len(), 1, "the second was deleted");
    let (code, document) = apply("sleep 60", &["--timeout-seconds", "1", "--delete"]);
    is_as_published("error.json", &document);
    assert_eq!((code, &document["error_code"]), (1, &json!("Timeout")), "{document:#}");
    let (code, document) = apply("true", &["--context", "absent"]);
    is_as_published("error.json", &document);
    assert_eq!((code, &document["error_code"]), (2, &json!("NoCluster")), "{document:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proof_of_what_was_answered_is_that_of_the_run_which_answered() -> Result<(), Failure> {
    let bed = Bed::start("answered", |_| {}).await?;
    let folder = tempfile::tempdir()?;
    let spec = json!({"command": ["/bin/sh", "-c", "echo once"], "cache": "Use"});
    let (_, ran) = apply(&bed, folder.path(), &spec, &[])?;
    let (code, answered) = apply(&bed, folder.path(), &spec, &[])?;
    assert_eq!((code, &answered["result"]), (0, &json!("Succeeded")), "{answered:#}");
    assert_eq!(answered["proof"]["bundle_root"], ran["proof"]["bundle_root"]);
    let all = bed.executions.list(&ListParams::default()).await?.items;
    let hits = all.iter().filter_map(|one| one.status.as_ref()?.cache.as_ref()).filter(|cache| cache.hit);
    assert_eq!(hits.count(), 1, "the second was answered by the first");
    Ok(())
}
