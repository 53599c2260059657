//! Programs that do no harm must not notice the sandbox.

use std::io::{Seek, Write};

use crate::attacks::attack_like;
use crate::support::*;
use requiem_model::report::{Source, SourceState, Status};
use requiem_model::{Outcome, RelPath};
use requiem_sandbox::{Cancel, RunError, RunSpec, StdStream, probe};

#[test]
fn every_layer_is_enforced_and_proven() {
    let ran = ok("echo hello; echo problem >&2");
    assert_eq!((ran.out().as_str(), ran.err().as_str()), ("hello", "problem\n"));
    assert_eq!(ran.short(), [], "{}", table(&ran.end.report));
    assert_eq!(ran.end.report.layers.len(), 18);
    let report = probe(&RUNNER).unwrap();
    assert!(report.layers.iter().all(|row| row.status == Status::Enforced), "{}", table(&report));
}

#[test]
fn sources_are_fixed_where_that_was_seen_and_real_elsewhere() {
    let report = ok("true").end.report;
    use Source::*;
    for source in [Environment, Identity, ProcessIds, AddressLayout, InputTimes, Network] {
        assert_eq!(report.source(source), SourceState::Fixed, "{source:?}");
    }
    for source in [RootFilesystem, Clock, Randomness, Scheduling, HostFacts] {
        assert_eq!(report.source(source), SourceState::Real, "{source:?}");
    }
}

#[test]
fn exit_codes_and_signals_come_through() {
    assert_eq!(run(sh("exit 0")).end.outcome, Outcome::Exited { code: 0 });
    assert_eq!(run(sh("exit 255")).end.outcome, Outcome::Exited { code: 255 });
    assert_eq!(run(sh("kill -TERM $$")).end.outcome, Outcome::Signalled { signal: 15 });
    assert_eq!(run(sh("kill -SEGV $$")).end.outcome, Outcome::Signalled { signal: 11 });
    // The runner ignores SIGPIPE; the payload must not inherit that.
    assert_eq!(run(sh("kill -PIPE $$")).end.outcome, Outcome::Signalled { signal: 13 });
}

#[test]
fn the_process_is_the_same_in_every_run() {
    let script = "echo $$; id -u; id -g; id -G; hostname; umask; pwd; echo $0; cat /proc/self/comm; \
                  sed -n 's/^TracerPid:.//p' /proc/self/status; ulimit -c; cat /proc/self/personality";
    let first = ok(script).out();
    let expected = "2\n1000\n1000\n1000\nrequiem\n0022\n/workspace\nsh\ncat\n0\n0\n00040000";
    assert_eq!(first, expected);
    assert_eq!(ok(script).out(), first);
    // Without address-space randomisation the stack of the same program is where it was.
    let stack = "sed -n '/stack/s/-.*//p' /proc/self/maps";
    assert_eq!(ok(stack).out(), ok(stack).out());
}

#[test]
fn the_environment_is_the_given_one_and_nothing_else() {
    let env = vec![var("A", "1 \"2\"\n3"), var("TZ", "Europe/Paris")];
    let ran = run(RunSpec { env, ..RunSpec::new(vec!["env".into(), "-0".into()]) });
    let path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
    let expected =
        ["A=1 \"2\"\n3", "HOME=/workspace", "LANG=C.UTF-8", path, "TZ=Europe/Paris", ""].join("\0");
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected);
}

#[test]
fn standard_input_is_empty_or_the_given_file() {
    assert_eq!(ok("cat; echo end").out(), "end");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 300_000]).unwrap();
    file.rewind().unwrap();
    let ran = run(RunSpec { stdin: Some(file.into()), ..sh("cat") });
    assert_eq!(ran.stdout, vec![7; 300_000]);
}

#[test]
fn the_working_directory_is_made() {
    let working_dir = Some(RelPath::parse("a/b").unwrap());
    let ran = run(RunSpec { working_dir, ..sh("pwd && touch here") });
    assert_eq!(ran.out(), "/workspace/a/b");
    let found = nix::sys::stat::fstatat(&ran.end.workspace, "a/b/here", nix::fcntl::AtFlags::empty());
    assert_eq!(found.unwrap().st_size, 0);
}

#[test]
fn big_output_arrives_whole_and_in_order() {
    let ran =
        ok("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; head -c 9000000 /dev/zero >&2");
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    assert!(ran.stdout == expected.as_bytes());
    assert_eq!(ran.stderr.len(), 9_000_000);
}

#[test]
fn what_cannot_be_started_says_why() {
    let why = |argv: &[&str]| match try_run(
        &RUNNER,
        RunSpec::new(argv.iter().map(|arg| (*arg).to_owned()).collect()),
    ) {
        Err(RunError::CommandNotRunnable { why }) => why,
        other => panic!("{argv:?}: {:?}", other.map(|ran| ran.end.outcome)),
    };
    assert!(why(&["no-such-program"]).contains("no such program"));
    assert!(why(&["./no/such/program"]).contains("no such program"));
    assert!(why(&["/etc/passwd"]).contains("not executable"));
    assert!(why(&["/usr"]).contains("not executable"));
    assert!(why(&["sh\0"]).contains("NUL"));
}

#[test]
fn loopback_works_inside() {
    let ran = run(attack_like(&["loopback"]));
    assert!(ran.out().contains("loopback: Ok"), "{} {}", ran.out(), ran.err());
}

#[test]
fn runs_in_parallel_do_not_mix() {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    for round in 0..5 {
                        let text = format!("{thread}-{round}");
                        let ran = ok(&format!("echo {text} > mine; cat /workspace/*; ls /tmp"));
                        assert_eq!(ran.out(), text);
                        assert_eq!(ran.short(), []);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_cancelled_run_ends_at_once() {
    let cancel = Cancel::new().unwrap();
    let began = std::time::Instant::now();
    // The first byte of output is the event: the payload is running by then.
    let mut sink = |_: StdStream, _: &[u8]| cancel.cancel();
    let marker = marker();
    let ended = RUNNER.run(sh(&format!("echo started; sleep {marker}")), &mut sink, &cancel.clone());
    assert!(matches!(ended, Err(RunError::Cancelled)), "{:?}", ended.map(|end| end.outcome));
    assert!(began.elapsed().as_secs() < 5 && !alive(&marker));
}

#[test]
fn usage_is_counted() {
    let usage = ok("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 50000000 /dev/zero | tail -c 40000000 | wc -c")
        .end
        .usage;
    assert!(usage.user_us > 10_000 && usage.user_us < 60_000_000, "{usage:?}");
    assert!(usage.peak_memory_bytes > 40_000_000 && usage.peak_memory_bytes < 500_000_000, "{usage:?}");
    assert!(usage.wall_us > 10_000, "{usage:?}");
}
