//! Every way to end has its documented reason, leaves no process, and satisfies the status contract.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use requiem_crds::Execution;
use requiem_proof::{Expect, verify};
use requiem_tests::{Bed, Failure, PATIENCE, processes_with, setting};
use serde_json::json;

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/samples")
}

/// `# … Ends with: TimedOut; …` is the promise of a sample.
fn promise(text: &str) -> Option<&str> {
    let rest = text.split_once("Ends with: ")?.1;
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next()
}

fn condition<'a>(execution: &'a Execution, kind: &str) -> Option<&'a Condition> {
    execution.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// What every client of the status relies on, whatever the reason.
fn assert_contract(execution: &Execution, reason: &str) {
    let name = execution.name_any();
    let status = |kind| condition(execution, kind).map(|condition| condition.status.as_str());
    let ready = condition(execution, "Ready").expect("Ready is always there");
    assert_eq!(ready.reason, reason, "{name}: {}", ready.message);
    assert_eq!(status("Reconciling"), None, "{name}");
    if reason == "Succeeded" {
        assert_eq!(
            (ready.status.as_str(), status("Succeeded"), status("Stalled")),
            ("True", Some("True"), None)
        );
    } else {
        assert_eq!(
            (ready.status.as_str(), status("Succeeded"), status("Stalled")),
            ("False", Some("False"), Some("True")),
            "{name}"
        );
        assert!(!ready.message.is_empty(), "{name} says nothing");
    }
    let size = serde_json::to_vec(&execution.status).unwrap().len();
    assert!(size <= 32 * 1024, "{name} has a status of {size} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_ends_as_it_promises() -> Result<(), Failure> {
    let bed = Bed::start("samples", |_| {}).await?;
    let kubectl = |arguments: &[&str]| -> Result<String, Failure> {
        let output = Command::new(setting("REQUIEM_TEST_KUBECTL")?)
            .arg("--kubeconfig")
            .arg(setting(requiem_tests::KUBECONFIG)?)
            .args(["--namespace", &bed.namespace])
            .args(arguments)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    };
    let mut promised = Vec::new();
    for entry in fs::read_dir(samples())? {
        let path = entry?.path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if let Some(reason) = promise(&text) {
            kubectl(&["apply", "-f", &path.display().to_string()])?;
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            promised.push((name, reason.to_owned()));
        }
    }
    assert!(promised.len() >= 12, "only {} samples make a promise", promised.len());
    let names: Vec<String> = promised.iter().map(|(name, _)| name.clone()).collect();
    let done = bed.terminal(&names, PATIENCE).await?;
    for (name, reason) in &promised {
        assert_contract(&done[name], reason);
    }
    kubectl(&["wait", "--for=condition=Succeeded", "execution/hello", "--timeout=5s"])?;
    let table = kubectl(&["get", "exn"])?;
    for column in ["ENGINE", "RESULT", "EXIT", "DETERMINISM", "SANDBOX", "DURATION", "AGE"] {
        assert!(table.lines().next().unwrap_or("").contains(column), "{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_carries_a_proof_that_anybody_can_check() -> Result<(), Failure> {
    let bed = Bed::start("proof", |_| {}).await?;
    let done = bed.run("prove-me", json!({"command": ["/bin/echo", "hello"]})).await?;
    assert_contract(&done, "Succeeded");
    let status = done.status.clone().unwrap();
    assert_eq!(status.stdout.as_ref().map(|stream| stream.tail.as_str()), Some("hello\n"));
    let bundle = bed.bundles.get(&status.proof_bundle_ref.unwrap().name).await?;
    let expect = Expect { bundle_root: status.proof_root, ..Expect::default() };
    let verified = verify(&bundle.spec.body, &expect)?;
    assert_eq!(Some(verified.request_digest), status.request_digest);
    assert_eq!(verified.body.run.identity.uid, done.uid().unwrap());
    let verdict = bundle.status.unwrap().conditions;
    assert!(verdict.iter().any(|condition| condition.type_ == "Verified" && condition.status == "True"));
    assert!(verify(&bundle.spec.body.replace("hello", "hellO"), &expect).is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_not_published_is_in_the_status_alone() -> Result<(), Failure> {
    let bed = Bed::start("unpublished", |_| {}).await?;
    let done = bed.run("quiet", json!({"command": ["true"], "proof": {"publish": "Never"}})).await?;
    assert_contract(&done, "Succeeded");
    let status = done.status.unwrap();
    assert!(status.proof_root.is_some() && status.proof_bundle_ref.is_none());
    assert!(bed.bundles.list(&Default::default()).await?.items.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_leave_no_process_and_a_working_executor() -> Result<(), Failure> {
    let bed = Bed::start("bombs", |_| {}).await?;
    let marker = format!("bomb-{}", std::process::id());
    let script = |body: &str| json!(["/bin/sh", "-c", format!("{body} # {marker}")]);
    let fork = bed.create("fork", json!({
        "command": script("f() { f | f & }; f; exec sleep 600"), "timeoutSeconds": 2, "limits": {"pids": 64},
    }));
    let memory = bed.create("memory", json!({
        "command": script("x=bomb; while :; do x=$x$x; done"), "limits": {"memory": "64Mi", "scratch": "16Mi"},
    }));
    let orphans = bed.create(
        "orphans",
        json!({
            "command": script("(setsid sh -c 'trap \"\" TERM; sleep 600' &) ; echo started"),
        }),
    );
    tokio::try_join!(fork, memory, orphans)?;
    let names = ["fork", "memory", "orphans"].map(str::to_owned);
    let done = bed.terminal(&names, PATIENCE).await?;
    assert_contract(&done["fork"], "TimedOut");
    assert_contract(&done["memory"], "OutOfMemory");
    assert_contract(&done["orphans"], "Succeeded");
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
    assert_contract(&bed.run("after", json!({"command": ["true"]})).await?, "Succeeded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_cgroups_refuses_by_name_and_runs_what_does_not_ask() -> Result<(), Failure> {
    // The executor sees an empty folder where the cgroup hierarchies were.
    let bed = Bed::start("crippled", |options| {
        let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
        options.executor_wrapper = ["unshare", "--mount", "sh", "-c", hide].map(str::to_owned).to_vec();
    })
    .await?;
    let refused = bed.run("required", json!({"command": ["true"]})).await?;
    assert_contract(&refused, "LayerUnavailable");
    let message = &condition(&refused, "Ready").unwrap().message;
    assert!(message.contains("cgroup"), "{message}");
    assert!(refused.status.as_ref().unwrap().proof_root.is_none());
    let policy = json!({"layers": {"cgroup": "preferred"}});
    let ran = bed.run("preferred", json!({"command": ["true"], "policy": policy})).await?;
    assert_contract(&ran, "Succeeded");
    let status = ran.status.unwrap();
    let sandbox = status.sandbox.unwrap();
    assert!(!sandbox.enforced.iter().any(|layer| layer == "cgroup"), "{sandbox:?}");
    let reasons = status.determinism_confidence.unwrap().reasons;
    assert!(reasons.iter().any(|reason| reason.starts_with("layer:cgroup:")), "{reasons:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_is_claimed() -> Result<(), Failure> {
    let bed = Bed::start("full", |options| {
        // The store's folder is the last word but a few of the command line; the wrapper finds it by its flag.
        let mount = "for word; do [ \"$last\" = --store ] && store=$word; last=$word; done; \
                     mount -t tmpfs -o size=12m none \"$store\" && exec \"$0\" \"$@\"";
        options.executor_wrapper = ["unshare", "--mount", "sh", "-c", mount].map(str::to_owned).to_vec();
    })
    .await?;
    let spec = json!({
        "command": ["/bin/sh", "-c", "head -c 30000000 /dev/urandom > big"],
        "outputs": ["big"],
        "retry": {"limit": 0},
    });
    let full = bed.run("big", spec).await?;
    assert_contract(&full, "StoreFull");
    let status = full.status.unwrap();
    assert!(status.proof_root.is_none() && status.outputs.is_empty());
    assert_contract(&bed.run("small", json!({"command": ["true"]})).await?, "Succeeded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_suspend_do_what_they_say() -> Result<(), Failure> {
    use kube::api::{Patch, PatchParams};
    let bed = Bed::start("cancel", |_| {}).await?;
    let marker = format!("to-be-cancelled-{}", std::process::id());
    let command = json!(["/bin/sh", "-c", format!("sleep 600 # {marker}")]);
    bed.create("long", json!({"command": command})).await?;
    let running =
        kube::runtime::wait::await_condition(bed.executions.clone(), "long", |object: Option<&Execution>| {
            object
                .and_then(|object| condition(object, "Ready"))
                .is_some_and(|ready| ready.reason == "Running")
        });
    tokio::time::timeout(Duration::from_secs(30), running).await??;
    assert!(!processes_with(&marker).is_empty());
    let cancel = Patch::Merge(json!({"spec": {"cancel": true}}));
    bed.executions.patch("long", &PatchParams::default(), &cancel).await?;
    let done = bed.terminal(&["long".to_owned()], PATIENCE).await?;
    assert_contract(&done["long"], "Cancelled");
    assert_eq!(processes_with(&marker), Vec::<u32>::new());

    bed.create("held", json!({"command": ["true"], "suspend": true})).await?;
    let suspended =
        kube::runtime::wait::await_condition(bed.executions.clone(), "held", |object: Option<&Execution>| {
            object
                .and_then(|object| condition(object, "Suspended"))
                .is_some_and(|suspended| suspended.status == "True")
        });
    tokio::time::timeout(Duration::from_secs(30), suspended).await??;
    let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
    bed.executions.patch("held", &PatchParams::default(), &resume).await?;
    let done = bed.terminal(&["held".to_owned()], PATIENCE).await?;
    assert_contract(&done["held"], "Succeeded");
    Ok(())
}
