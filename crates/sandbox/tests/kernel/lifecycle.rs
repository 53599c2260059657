//! Runs end, whatever they do, and leave nothing.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use requiem_model::{Limits, Outcome};
use requiem_sandbox::{Cancel, RunError, RunSpec, StdStream};

const MIB: u64 = 1 << 20;

#[test]
fn the_wall_clock_ends_a_run() {
    let limits = Limits { timeout_ms: 200, ..Limits::default() };
    let marker = marker();
    let scripts = ["sleep M", "trap '' TERM; while :; do :; done", "kill -STOP $$", "exec >&- 2>&-; sleep M"];
    for script in scripts.map(|script| script.replace('M', &marker)) {
        let began = Instant::now();
        let ran = run(RunSpec { limits: limits.clone(), ..sh(&script) });
        assert_eq!(ran.end.outcome, Outcome::TimedOut, "{script}");
        let (wall, whole) = (ran.end.usage.wall_us, began.elapsed());
        assert!(
            (200_000..1_500_000).contains(&wall) && whole < Duration::from_secs(3),
            "{script}: {wall} {whole:?}"
        );
    }
    assert!(!alive(&marker));
}

#[test]
fn a_fork_bomb_ends_and_the_runner_answers() {
    let limits = Limits { timeout_ms: 1500, pids: 64, ..Limits::default() };
    let marker = marker();
    let script = format!("bomb() {{ bomb | bomb & }}; bomb; while :; do sleep {marker}; done");
    let ran = run(RunSpec { limits, ..sh(&script) });
    assert!(!ran.end.outcome.is_success(), "{:?}", ran.end.outcome);
    assert!(!alive(&marker));
    assert_eq!(ok("echo alive").out(), "alive");
}

#[test]
fn a_memory_bomb_is_out_of_memory() {
    let limits = Limits { memory_bytes: 64 * MIB, timeout_ms: 20_000, ..Limits::default() };
    let bombs = [
        "head -c 900000000 /dev/zero | tail -c 800000000 | wc -c",
        // Files of scratch are memory too, and count.
        "head -c 300000000 /dev/zero > /tmp/file",
        // The main process only watches.
        "(head -c 900000000 /dev/zero | tail -c 800000000 > /dev/null) & sleep 1010",
    ];
    for script in bombs {
        let ran = run(RunSpec { limits: limits.clone(), ..sh(script) });
        assert_eq!(ran.end.outcome, Outcome::OutOfMemory, "{script}: {}", ran.err());
        assert!(ran.end.usage.peak_memory_bytes <= 65 * MIB, "{:?}", ran.end.usage);
    }
}

#[test]
fn scratch_is_capped_in_bytes_and_in_files() {
    let limits = Limits { scratch_bytes: 4 * MIB, scratch_inodes: 50, ..Limits::default() };
    let script = "(head -c 3000000 /dev/zero > a && head -c 3000000 /dev/zero > /tmp/b) 2>&1 | grep -o 'No space left'; \
                  rm -f a /tmp/b; i=0; while touch f$i 2>/dev/null; do i=$((i+1)); done; echo $i";
    let ran = run(RunSpec { limits, ..sh(script) });
    assert_eq!(ran.out(), "No space left\n50", "{}", ran.err());
}

#[test]
fn a_flood_of_output_is_drained_until_time_is_up() {
    let limits = Limits { timeout_ms: 500, ..Limits::default() };
    let mut bytes = 0u64;
    let mut sink = |_: StdStream, chunk: &[u8]| bytes += chunk.len() as u64;
    let ended = RUNNER.run(
        RunSpec { limits, ..sh("cat /dev/zero & cat /dev/zero >&2") },
        &mut sink,
        &Cancel::new().unwrap(),
    );
    assert_eq!(ended.unwrap().outcome, Outcome::TimedOut);
    assert!(bytes > MIB, "{bytes}");
}

#[test]
fn daemons_die_with_the_run() {
    let began = Instant::now();
    let marker = marker();
    let script = "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP INT; sleep M; sleep M' & done; \
                  (setsid setsid sleep M >/dev/null 2>&1 </dev/null &) ; exit 7";
    let ran = run(sh(&script.replace(" M", &format!(" {marker}"))));
    assert_eq!(ran.end.outcome, Outcome::Exited { code: 7 });
    assert!(!alive(&marker) && began.elapsed() < Duration::from_secs(10));
}

#[test]
fn without_a_pid_namespace_the_tree_dies_too() {
    let policy = without(requiem_model::Layer::PidNamespace);
    let marker = marker();
    let script =
        format!("(setsid setsid sleep {marker} >/dev/null 2>&1 </dev/null &) ; (sleep {marker} &) ; exit 0");
    assert_eq!(run(RunSpec { policy: policy.clone(), ..sh(&script) }).end.outcome, SUCCESS);
    assert!(!alive(&marker));
    let limits = Limits { timeout_ms: 300, ..Limits::default() };
    let script = format!("(setsid sh -c 'while :; do sleep {marker}; done' &) ; sleep {marker}");
    assert_eq!(run(RunSpec { policy, limits, ..sh(&script) }).end.outcome, Outcome::TimedOut);
    assert!(!alive(&marker));
}

/// The helper below: a caller with a run whose payload holds the pipe that is this process's standard input.
#[test]
fn caller() {
    if !is_helper() {
        return;
    }
    let runner = new_runner();
    println!("\nrunner {}", runner.pid());
    let stdin: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut sink = |_: StdStream, chunk: &[u8]| println!("{}", String::from_utf8_lossy(chunk).trim_end());
    let script = "echo started; sleep M & sleep M".replace('M', &std::env::var("MARKER").unwrap());
    let spec = RunSpec { stdin: Some(stdin), ..sh(&script) };
    let ended = runner.run(spec, &mut sink, &Cancel::new().unwrap());
    println!("ended {}", matches!(ended, Err(RunError::RunnerLost)));
}

/// Starts the caller, kills what `victims` picks of (caller, runner), waits until every holder of the pipe is gone, and
/// returns what the caller said then.
fn kill_and_await(victims: fn(u32, u32) -> Vec<u32>) -> String {
    let marker = marker();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut caller = helper("lifecycle::caller");
    let mut child = caller.env("MARKER", &marker).stdin(writer).stdout(Stdio::piped()).spawn().unwrap();
    // The command holds the writing end, too.
    drop(caller);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let runner = lines.find_map(|line| Some(line.strip_prefix("runner ")?.parse::<u32>().unwrap())).unwrap();
    lines.find(|line| line == "started").unwrap();
    assert!(alive(&marker));
    for victim in victims(child.id(), runner) {
        kill(Pid::from_raw(i32::try_from(victim).unwrap()), Signal::SIGKILL).unwrap();
    }
    let reader = File::from(reader);
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    // A caller that lives holds the pipe itself, until it has heard of the end.
    let gone = poll(&mut fds, PollTimeout::from(10_000u16)).unwrap();
    assert_eq!(gone, 1, "somebody still holds the pipe");
    assert!(!alive(&marker));
    let rest: Vec<String> = lines.collect();
    child.wait().unwrap();
    rest.join("\n")
}

#[test]
fn nothing_outlives_a_killed_caller() {
    kill_and_await(|caller, _| vec![caller]);
}

#[test]
fn nothing_outlives_a_killed_runner() {
    let heard = kill_and_await(|_, runner| vec![runner]);
    assert!(heard.contains("ended true"), "{heard}");
}

#[test]
fn nothing_outlives_a_killed_supervisor() {
    let heard = kill_and_await(|_, runner| {
        let children = std::fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
        children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
    });
    assert!(heard.contains("ended true"), "{heard}");
}

#[test]
fn a_lost_runner_is_replaced() {
    let runner = new_runner();
    assert!(try_run(&runner, sh("true")).is_ok());
    let first = runner.pid();
    kill(Pid::from_raw(i32::try_from(first).unwrap()), Signal::SIGKILL).unwrap();
    // A run that was prepared before may be lost with it, no more than that.
    let ended: Vec<bool> = (0..4).map(|_| try_run(&runner, sh("true")).is_ok()).collect();
    assert!(ended.ends_with(&[true, true]), "{ended:?}");
    assert_ne!(runner.pid(), first);
}
