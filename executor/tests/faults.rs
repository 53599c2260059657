//! The daemon when things go wrong: kills at any moment, a full disk, floods, a runner that dies.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Daemon, Pki, error, failed, path_of, processes_with, sealed, shell, state, until, verified};
use hyper::{Method, StatusCode};
use requiem_model::RelPath;
use requiem_model::attempt::{AttemptState, SealedAttempt};
use requiem_model::result::FailureReason;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_executor_loses_the_run_but_no_result_and_leaves_no_process() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    let done = shell("done", "head -c 16 /dev/urandom | od -A n -t x1");
    let result = sealed(client.run(&done).await);
    // A length of sleep that nobody else chooses is visible from outside as a command line.
    let marker = format!("{}", 100_000 + std::process::id());
    let running = shell("running", &format!("sleep {marker} & sleep {marker}; wait"));
    client.put(&running, 0).await;
    until(|| processes_with(&marker).len() >= 2).await;
    daemon.kill();
    until(|| processes_with(&marker).is_empty()).await;

    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    assert_eq!(sealed(client.run(&done).await), result, "a result is served again, not made again");
    let (_, stdout) = client.get(&format!("{}/stdout", path_of(&done.identity))).await;
    assert_eq!(String::from_utf8_lossy(&stdout), result.stdout_tail);
    assert_eq!(failed(client.run(&running).await).reason, FailureReason::ExecutorLost);
    let mut again = shell("running", "echo again");
    again.identity.attempt = 2;
    let second = sealed(client.run(&again).await);
    assert_eq!(second.stdout_tail, "again\n");
    let (status, body) = client.put(&running, 0).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::CONFLICT, "RequestConflict"), "one result");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_attempt_of_a_killed_executor_is_unknown_and_may_start_again() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--slots", "1"]);
    let client = daemon.client();
    let (running, queued) = (shell("running", "sleep 600"), shell("queued", "echo first"));
    client.put(&running, 0).await;
    client.until_running(&running.identity).await;
    client.put(&queued, 0).await;
    daemon.kill();
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    let (status, body) = client.get(&path_of(&queued.identity)).await;
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::NOT_FOUND, "UnknownAttempt"));
    assert_eq!(sealed(client.run(&queued).await).stdout_tail, "first\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_survive_kills_at_random_moments_and_none_changes() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut known: Vec<Option<SealedAttempt>> = vec![None; 12];
    let mut number = vec![1u32; known.len()];
    let mut rounds = 0;
    while known.iter().any(Option::is_none) {
        rounds += 1;
        assert!(rounds < 60, "no progress: {} of {}", known.iter().flatten().count(), known.len());
        let daemon = Daemon::start(&pki, store.path(), &["--slots", "4"]);
        let mut calls = tokio::task::JoinSet::new();
        for (index, number) in number.iter().enumerate() {
            let client = daemon.client();
            let mut call = shell(&format!("k{index}"), "head -c 16 /dev/urandom | od -A n -t x1; sleep 0.02");
            call.identity.attempt = *number;
            calls.spawn(async move {
                let path = format!("{}?waitMs=60000", path_of(&call.identity));
                (index, client.try_call(Method::PUT, &path, serde_json::to_vec(&call).unwrap()).await)
            });
        }
        // Later in every round, so that kills fall on every phase and the rounds come to an end.
        tokio::time::sleep(Duration::from_millis(60 * rounds)).await;
        daemon.kill();
        while let Some(answer) = calls.join_next().await {
            let (index, Ok((status, body))) = answer.unwrap() else { continue };
            if !status.is_success() {
                continue;
            }
            match state(status, &body) {
                AttemptState::Sealed { sealed } => {
                    let first = known[index].get_or_insert_with(|| (*sealed).clone());
                    assert_eq!(*first, *sealed, "Execution {index} has a second result");
                }
                AttemptState::Failed { failure } => {
                    assert_eq!(failure.reason, FailureReason::ExecutorLost, "{failure}");
                    assert!(known[index].is_none(), "Execution {index} lost its result");
                    number[index] += 1;
                }
                AttemptState::Queued | AttemptState::Running => {}
            }
        }
    }
    let daemon = Daemon::start(&pki, store.path(), &[]);
    for (index, result) in known.iter().enumerate() {
        let mut call = shell(&format!("k{index}"), "head -c 16 /dev/urandom | od -A n -t x1; sleep 0.02");
        call.identity.attempt = number[index];
        assert_eq!(Some(&sealed(daemon.client().run(&call).await)), result.as_ref());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_attempts_at_once_have_one_result_each() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--slots", "4"]);
    let client = daemon.client();
    let mut runs = tokio::task::JoinSet::new();
    for index in 0..200 {
        // Two callers per attempt, as after a change of leader.
        for _caller in 0..2 {
            let client = client.clone();
            let call =
                shell(&format!("c{index}"), &format!("echo {index}; head -c 8 /dev/urandom | od -A n -t x1"));
            runs.spawn(async move { (index, call.clone(), sealed(client.run(&call).await)) });
        }
    }
    let mut roots: Vec<BTreeSet<String>> = vec![BTreeSet::new(); 200];
    while let Some(run) = runs.join_next().await {
        let (index, call, result) = run.unwrap();
        verified(&call, &result);
        assert!(result.stdout_tail.starts_with(&format!("{index}\n")));
        roots[index].insert(result.bundle_root.to_string());
    }
    assert!(roots.iter().all(|roots| roots.len() == 1));
    assert_eq!(daemon.metric("requiem_executor_attempts_total{reason=\"Succeeded\"}").await, 200.0);
    assert_eq!(daemon.metric("requiem_executor_running").await, 0.0);
    assert_eq!(daemon.metric("requiem_executor_queue_depth").await, 0.0);
    let fsyncs = daemon.metric("requiem_executor_journal_fsyncs_total").await;
    assert!(fsyncs <= 201.0, "{fsyncs} syncs for 200 results");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_capped_and_costs_no_memory() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    sealed(client.run(&shell("warm", "head -c 2000000 /dev/zero")).await);
    let before = daemon.resident();
    let mut flood = shell("flood", "head -c 600000000 /dev/zero; echo end >&2");
    flood.request.limits.max_output_bytes = 96 << 20;
    let running = {
        let (client, flood) = (client.clone(), flood.clone());
        tokio::spawn(async move { client.run(&flood).await })
    };
    let mut peak = before;
    while !running.is_finished() {
        peak = peak.max(daemon.resident());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let result = sealed(running.await.unwrap());
    let stdout = verified(&flood, &result).body.execution.result.stdout;
    assert_eq!((stdout.bytes, stdout.truncated), (96 << 20, true));
    assert_eq!(result.stderr_tail, "end\n", "a capped stream does not stop the payload");
    let grown = peak.saturating_sub(before);
    // The store holds back 16 MiB of a stream to see how large it becomes; nothing else may grow.
    assert!(grown < 28 << 20, "{grown} bytes more for a flood of 600 MB of which 96 MiB are kept");
    let (_, bytes) = client.get(&format!("{}/stdout", path_of(&flood.identity))).await;
    assert_eq!(bytes.len(), 96 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_failure_that_says_so_and_passes() {
    let pki = Pki::new();
    let disk = SmallDisk::mount("24m");
    let daemon = Daemon::start(&pki, disk.path(), &["--slots", "2"]);
    let client = daemon.client();
    let small = shell("small", "echo fits");
    sealed(client.run(&small).await);
    let mut stream = shell("stream", "head -c 64000000 /dev/urandom");
    stream.request.limits.max_output_bytes = 64_000_000;
    assert_eq!(failed(client.run(&stream).await).reason, FailureReason::StoreFull);
    let mut output =
        shell("output", "mkdir out; for i in 1 2 3 4; do head -c 16000000 /dev/urandom > out/$i; done");
    output.request.outputs = vec![RelPath::parse("out").unwrap()];
    assert_eq!(failed(client.run(&output).await).reason, FailureReason::StoreFull);

    let ballast = disk.path().join("ballast");
    fill(&ballast);
    let failure = failed(client.run(&shell("none", "head -c 100000 /dev/urandom")).await);
    assert_eq!(failure.reason, FailureReason::StoreFull, "{failure}");
    assert_eq!(daemon.admin("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(sealed(client.run(&small).await).stdout_tail, "fits\n", "what is known is still served");
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(daemon.admin("/readyz").await.0, StatusCode::OK);
    sealed(client.run(&shell("after", "echo fits again")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_runner_is_replaced() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    let marker = format!("{}", 300_000 + std::process::id());
    let running = shell("running", &format!("sleep {marker}"));
    client.put(&running, 0).await;
    until(|| !processes_with(&marker).is_empty()).await;
    for pid in children(daemon.pid()) {
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    }
    assert_eq!(failed(client.run(&running).await).reason, FailureReason::SandboxError);
    until(|| processes_with(&marker).is_empty()).await;
    sealed(client.run(&shell("after", "echo alive")).await);
    assert_eq!(daemon.admin("/readyz").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_runs_end_and_ends_those_that_do_not() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(&pki, store.path(), &["--slots", "2", "--queue", "4", "--drain-seconds", "6"]);
    let client = daemon.client();
    let (short, long, queued) =
        (shell("short", "sleep 1; echo ended"), shell("long", "sleep 600"), shell("queued", "true"));
    for call in [&short, &long] {
        client.put(call, 0).await;
        client.until_running(&call.identity).await;
    }
    client.put(&queued, 0).await;
    let waiting = {
        let (client, queued) = (client.clone(), queued.clone());
        tokio::spawn(async move { client.put(&queued, 60_000).await })
    };
    tokio::task::yield_now().await;
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, body) = waiting.await.unwrap();
    assert_eq!((status, error(&body).code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown"));
    assert!(daemon.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
    let daemon = Daemon::start(&pki, store.path(), &[]);
    let client = daemon.client();
    assert_eq!(sealed(client.run(&short).await).stdout_tail, "ended\n");
    assert_eq!(failed(client.run(&long).await).reason, FailureReason::ExecutorLost, "nobody cancelled it");
    sealed(client.run(&queued).await);
}

#[test]
fn a_daemon_that_cannot_start_says_what_to_do() {
    let (pki, store) = (Pki::new(), tempfile::tempdir().unwrap());
    let ended = |command: &mut Command| {
        let output = command.env("RUST_LOG", "error").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    std::fs::remove_file(pki.file("server.key")).unwrap();
    let (code, log) = ended(&mut Daemon::command(&pki, store.path(), &[]));
    assert_eq!(code, Some(2));
    assert!(log.contains("server.key") && log.contains("--tls-key") && log.contains("hint"), "{log}");

    let pki = Pki::new();
    let first = Daemon::start(&pki, store.path(), &[]);
    let (code, log) = ended(&mut Daemon::command(&pki, store.path(), &[]));
    assert_eq!(code, Some(2));
    assert!(log.contains("another executor uses this store"), "{log}");
    drop(first);
    let (code, log) =
        ended(Command::new(env!("CARGO_BIN_EXE_requiem-executor")).args(["serve", "--slots", "0"]));
    assert_eq!(code, Some(2));
    assert!(log.contains("--slots"), "{log}");
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("children")).ok()
    };
    let lists: Vec<String> = tasks.filter_map(of_task).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
}

/// Takes every byte that is left.
fn fill(path: &Path) {
    let filled =
        Command::new("dd").args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", path.display())).output();
    assert!(!filled.unwrap().status.success(), "dd ends when the disk is full");
}

/// A small file system. Needs root: without it this test must fail, not skip.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "this test mounts a small tmpfs and needs root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}
