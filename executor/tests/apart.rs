//! The executor of a pod: its runner lives in another container and comes by itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::pod::{Pod, Tier, exists};
use common::{Daemon, error, failed, input, path_of, processes_with, sealed, shell, until, verified};
use hyper::{Method, StatusCode};
use nix::sys::signal::Signal;
use requiem_model::attempt::Capabilities;
use requiem_model::confidence::Level;
use requiem_model::report::{Source, SourceState, Status};
use requiem_model::request::{Input, InputSource};
use requiem_model::result::FailureReason;
use requiem_model::{
    BlobDigest, DataKey, EnvName, EnvRef, Layer, ObjectName, Outcome, RelPath, Requirement, SandboxPolicy,
    ValueSource,
};

/// The role that a restricted container's program begins in.
#[test]
fn restricted() {
    common::pod::restricted();
}

/// Every layer, but not at any price.
fn preferred() -> SandboxPolicy {
    let mut policy = SandboxPolicy::default();
    policy.layers.values_mut().for_each(|level| *level = Requirement::Preferred);
    policy
}

/// The documented policy of a tier. These containers have no memory limit that the runner could see.
fn preset(tier: Tier) -> SandboxPolicy {
    let text = match tier {
        Tier::T1 => include_str!("../../config/profiles/policy/t1.json"),
        Tier::T2 => include_str!("../../config/profiles/policy/t2.json"),
        Tier::T3 => include_str!("../../config/profiles/policy/t3.json"),
    };
    let policy: SandboxPolicy = serde_json::from_str(text).unwrap();
    policy.with(Layer::Cgroup, Requirement::Preferred)
}

async fn ready(daemon: &Daemon) {
    let asking = async {
        while daemon.admin("/readyz").await.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(60), asking).await;
    assert!(asked.is_ok(), "the executor does not become ready");
}

async fn capabilities(daemon: &Daemon) -> Capabilities {
    serde_json::from_slice(&daemon.client().get("/v1/capabilities").await.1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_in_its_own_container_comes_is_tried_out_and_works() {
    let pod = Pod::new(Tier::T1);
    let daemon = pod.executor(&[]);
    let client = daemon.client();
    assert_eq!(daemon.admin("/healthz").await.0, StatusCode::OK);
    let (status, lines) = daemon.admin("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(lines.contains("runner: no runner has connected yet"), "{lines}");
    let (status, body) = client.get("/v1/capabilities").await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "RunnerMissing"));
    // What comes too early waits.
    let mut early = shell("early", "echo early");
    early.request.policy = preferred();
    assert_eq!(client.put(&early, 0).await.0, StatusCode::ACCEPTED);

    let _workload = pod.workload();
    ready(&daemon).await;
    assert!(!exists(&pod.socket()), "there is a socket while a runner is connected");
    assert_eq!(sealed(client.run(&early).await).stdout_tail, "early\n");
    let mut call =
        shell("inputs", "cat in/greeting; cat; (echo x > in/greeting) 2>&1; chmod 777 in/greeting 2>&1");
    call.request.inputs = vec![input("in/greeting", b"hello\n")];
    call.request.stdin = Some(requiem_model::BlobDigest::of(b"from stdin\n"));
    call.request.policy = preferred();
    call.inline = vec!["hello\n".into(), "from stdin\n".into()];
    let result = sealed(client.run(&call).await);
    assert!(result.stdout_tail.starts_with("hello\nfrom stdin\n"), "{}", result.stdout_tail);
    assert_eq!(result.stdout_tail.matches("Read-only file system").count(), 2, "{}", result.stdout_tail);
    let report = verified(&call, &result).body.run.sandbox;
    let short: Vec<_> = report.layers.iter().filter(|row| row.status != Status::Enforced).collect();
    assert!(matches!(short[..], [row] if row.layer == Layer::Cgroup), "{short:#?}");
    assert_eq!(daemon.metric("requiem_executor_runner_connected").await, 1.0);
}

/// A container runtime that executes something in a container becomes root in the user namespace of its first process.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_process_keeps_the_containers_namespaces_and_ends_as_the_executor_does() {
    let pod = Pod::new(Tier::T1);
    let daemon = pod.executor(&[]);
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    let first = common::pod::first_child(daemon.pid());
    let executor = common::pod::first_child(first);
    assert_eq!(namespace(&first.to_string()), namespace("self"));
    assert_ne!(namespace(&executor.to_string()), namespace("self"), "it mounts inputs in its own");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(executor.try_into().unwrap()), Signal::SIGKILL)
        .unwrap();
    assert_eq!(daemon.wait().code(), Some(137));

    let daemon = pod.executor(&[]);
    daemon.signal_inner(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_runner_that_dies_ends_and_the_next_runner_is_tried_out() {
    let pod = Pod::new(Tier::T1);
    let daemon = pod.executor(&["--slots", "1"]);
    let client = daemon.client();
    let workload = pod.workload();
    ready(&daemon).await;
    let mut running = shell("running", "sleep 600");
    running.request.policy = preferred();
    client.put(&running, 0).await;
    client.until_running(&running.identity).await;
    workload.signal(Signal::SIGKILL);
    workload.wait();
    assert_eq!(failed(client.run(&running).await).reason, FailureReason::SandboxError);
    let (status, lines) = daemon.admin("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(lines.contains("runner: the runner has gone"), "{lines}");
    let mut next = shell("next", "echo next");
    next.request.policy = preferred();
    assert_eq!(client.put(&next, 0).await.0, StatusCode::ACCEPTED);
    let _workload = pod.workload();
    assert_eq!(sealed(client.run(&next).await).stdout_tail, "next\n");
    ready(&daemon).await;
    assert_eq!(daemon.metric("requiem_executor_runner_restarts_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runner_of_an_executor_that_dies_ends_its_runs_and_serves_the_next_one() {
    let pod = Pod::new(Tier::T1);
    let daemon = pod.executor(&[]);
    let client = daemon.client();
    let _workload = pod.workload();
    ready(&daemon).await;
    let mut done = shell("done", "head -c 16 /dev/urandom | od -A n -t x1");
    done.request.policy = preferred();
    let result = sealed(client.run(&done).await);
    let marker = format!("{}", 200_000 + std::process::id());
    let mut running = shell("running", &format!("sleep {marker} & sleep {marker}; wait"));
    running.request.policy = preferred();
    client.put(&running, 0).await;
    until(|| processes_with(&marker).len() >= 2).await;
    daemon.kill();
    until(|| processes_with(&marker).is_empty()).await;
    let daemon = pod.executor(&[]);
    ready(&daemon).await;
    let client = daemon.client();
    assert_eq!(sealed(client.run(&done).await), result, "a result is served again, not made again");
    assert_eq!(failed(client.run(&running).await).reason, FailureReason::ExecutorLost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_told_to_end_lets_its_run_end_first() {
    let pod = Pod::new(Tier::T1);
    let daemon = pod.executor(&["--termination-log", pod.path("run/word").to_str().unwrap()]);
    let client = daemon.client();
    let workload = pod.workload();
    ready(&daemon).await;
    // It ends when its input comes, which is after the kubelet has told the runner to end.
    let mut running = shell("running", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; echo whole");
    running.request.policy = preferred();
    client.put(&running, 0).await;
    client.until_running(&running.identity).await;
    workload.signal(Signal::SIGTERM);
    while !capabilities(&daemon).await.draining {
        tokio::task::yield_now().await;
    }
    let late = shell("late", "true");
    let (status, body) = client.put(&late, 0).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown"));
    assert!(daemon.admin("/readyz").await.1.contains("open: draining"));
    let result = sealed(client.run(&running).await);
    assert_eq!(result.stdout_tail, "whole\n");
    let ack = format!("{}/ack", path_of(&running.identity));
    assert_eq!(client.call(Method::POST, &ack, vec![]).await.0, StatusCode::NO_CONTENT);
    assert!(workload.wait().success(), "the runner is let go when its runs are over and fetched");
    let word = std::fs::read_to_string(pod.path("run/word")).unwrap();
    assert!(word.contains(&result.bundle_root.to_string()), "{word}");
    daemon.signal_inner(Signal::SIGTERM);
    assert!(daemon.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_of_one_execution_ends_when_its_end_was_acknowledged() {
    let pod = Pod::new(Tier::T1);
    let daemon = pod.executor(&["--once"]);
    let client = daemon.client();
    let workload = pod.workload();
    let mut only = shell("only", "echo only");
    only.request.policy = preferred();
    let result = sealed(client.run(&only).await);
    assert_eq!(result.stdout_tail, "only\n");
    let (status, body) = client.put(&shell("another", "true"), 0).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown"));
    client.call(Method::POST, &format!("{}/ack", path_of(&only.identity)), vec![]).await;
    assert!(workload.wait().success());
    // The kubelet tells the sidecar when the workload has ended.
    daemon.signal_inner(Signal::SIGTERM);
    assert!(daemon.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_no_runner() {
    let pod = Pod::new(Tier::T1);
    let daemon = pod.executor(&[]);
    // Root of the host: another user than the pod's.
    let mut stranger = UnixStream::connect(pod.socket()).unwrap();
    assert_eq!(std::io::Read::read(&mut stranger, &mut [0; 1]).unwrap(), 0, "the executor hangs up");
    while !daemon.admin("/readyz").await.1.contains("run both containers with the same runAsUser") {
        tokio::task::yield_now().await;
    }
    let _workload = pod.workload();
    ready(&daemon).await;
    assert!(UnixStream::connect(pod.socket()).is_err(), "nobody listens while a runner is connected");
}

fn secret(variable: &str, name: &str, key: &str) -> EnvRef {
    let (name, key) = (ObjectName::parse(name).unwrap(), DataKey::parse(key).unwrap());
    EnvRef { name: EnvName::parse(variable).unwrap(), source: ValueSource::Secret { name, key } }
}

/// Files below `folder` that hold `needle`.
fn holders(folder: &std::path::Path, needle: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(holders(&path, needle)),
            kind if kind.is_file() => {
                let bytes = std::fs::read(&path).unwrap();
                found.extend(
                    bytes.windows(needle.len()).any(|part| part == needle.as_bytes()).then_some(path),
                );
            }
            _ => {}
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_a_request_refers_to_goes_from_the_runner_to_the_command_and_nowhere_else() {
    const VALUE: &str = "canary-7d1f0a52";
    for tier in [Tier::T1, Tier::T3] {
        let pod = Pod::new(tier);
        let daemon = pod.executor(&[]);
        let token = secret("TOKEN", "registry", "token");
        let other = secret("TOKEN", "registry", "other");
        let _workload = pod.workload_with(&[(&token.carrier(), VALUE), ("STRAY", "stray")]);
        ready(&daemon).await;
        let mut call = shell(
            "refers",
            "env | sed 's/=.*//' | sort | tr '\\n' ' '; echo \"got $TOKEN\" > got; cat /proc/1/environ 2> /dev/null; true",
        );
        call.request.policy = preset(tier);
        call.request.env_refs = vec![token];
        call.request.outputs = vec![RelPath::parse("got").unwrap()];
        let result = sealed(daemon.client().run(&call).await);
        let names =
            result.stdout_tail.split_whitespace().filter(|name| !["PWD", "SHLVL", "_"].contains(name));
        assert_eq!(names.collect::<Vec<_>>(), ["HOME", "LANG", "PATH", "TOKEN", "TZ"], "{tier:?}");
        let run = verified(&call, &result).body.run;
        assert_eq!(run.sandbox.source(Source::Environment), SourceState::Undisclosed);
        assert_eq!(run.confidence.level, Level::BestEffort);
        assert!(run.confidence.reasons.contains(&"environment:undisclosed".to_owned()));
        // The command wrote it into its output. It is there, so the search finds what there is, and it is nowhere else.
        let digest = BlobDigest::of(format!("got {VALUE}\n").as_bytes()).to_hex();
        let found = holders(&pod.path("store"), VALUE);
        assert!(matches!(&found[..], [output] if output.ends_with(&digest)), "{found:?}");
        assert!(!result.body.contains(VALUE));

        let mut call = shell("unknown", "echo ran");
        call.request.policy = preset(tier);
        call.request.env_refs = vec![other];
        let failure = failed(daemon.client().run(&call).await);
        assert_eq!(failure.reason, FailureReason::InvalidRequest);
        assert!(
            failure.message.contains("env[TOKEN]") && failure.hint.contains("spec.executor.pod"),
            "{failure}"
        );
    }
}

/// Looks for everything that is not a payload's business, with `hostile.c` for what a shell cannot do. Every line but
/// the last is a find.
const HOSTILE: &str = r#"
for path in /requiem/run /requiem/bin /requiem/store /requiem/tls /var/run/secrets/kubernetes.io /root /home; do
  ls "$path" 2>/dev/null | grep -q . && echo "FOUND $path"
done
find / -xdev \( -name runner.sock -o -name 'inputs-*' -o -name requiem-runner \) 2>/dev/null | sed 's/^/FOUND /'
for pid in $(ls /proc 2>/dev/null | grep '^[0-9]*$'); do
  [ "$pid" = 1 ] || continue
  for what in environ mem; do head -c 1 /proc/$pid/$what 2>/dev/null | grep -q . && echo "FOUND /proc/$pid/$what"; done
  for what in root/ fd/; do ls /proc/$pid/$what 2>/dev/null | grep -q . && echo "FOUND /proc/$pid/$what"; done
done
in/hostile
echo done
"#;

/// The rows that are short in a run of the hostile program, and what it found.
async fn attacked(tier: Tier) -> (Vec<(Layer, Status)>, String) {
    let pod = Pod::new(tier);
    let program = pod.put_program(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile.c"));
    let daemon = pod.executor(&[]);
    let _workload = pod.workload();
    ready(&daemon).await;
    let mut call = shell("hostile", HOSTILE);
    call.request.policy = preset(tier);
    call.request.stdin = Some(requiem_model::BlobDigest::of(b"from stdin\n"));
    let source = InputSource::Blob { digest: program, executable: true };
    call.request.inputs = vec![Input { path: RelPath::parse("in/hostile").unwrap(), source }];
    call.inline = vec!["from stdin\n".into()];
    let result = sealed(daemon.client().run(&call).await);
    let body = verified(&call, &result).body;
    assert_eq!(body.execution.result.outcome, Outcome::Exited { code: 0 }, "{}", result.stderr_tail);
    assert_eq!(result.stderr_tail, "");
    let short = body.run.sandbox.layers.iter().filter(|row| row.status != Status::Enforced);
    (short.map(|row| (row.layer, row.status)).collect(), result.stdout_tail)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_payload_finds_nothing_in_tier_1() {
    let (short, found) = attacked(Tier::T1).await;
    assert_eq!(found, "done\n");
    assert_eq!(short.iter().map(|(layer, _)| *layer).collect::<Vec<_>>(), [Layer::Cgroup]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_payload_finds_nothing_in_tier_2() {
    let (short, found) = attacked(Tier::T2).await;
    assert_eq!(found, "done\n");
    assert_eq!(short.iter().map(|(layer, _)| *layer).collect::<Vec<_>>(), [Layer::Procfs, Layer::Cgroup]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_payload_finds_nothing_in_tier_3() {
    let (short, found) = attacked(Tier::T3).await;
    assert_eq!(found, "done\n");
    use Layer::*;
    let partial = [NetworkNamespace, ReadOnlyInputs, Capabilities].map(|layer| (layer, Status::Partial));
    let missing = [UserNamespace, PidNamespace, MountNamespace, IpcNamespace, UtsNamespace, CgroupNamespace];
    for expected in partial {
        assert!(short.contains(&expected), "{short:?}");
    }
    for layer in [&missing[..], &[MinimalRoot, Scratch, Procfs]].concat() {
        assert!(short.contains(&(layer, Status::Unsupported)), "{layer}: {short:?}");
    }
    for layer in [NoNewPrivileges, Rlimits, Landlock, Seccomp, Descriptors] {
        assert!(!short.iter().any(|(short, _)| *short == layer), "{layer}: {short:?}");
    }
}
