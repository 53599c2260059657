//! An ordinary user's caller, which must be a single-threaded process: hence a main of its own instead of the harness.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "this is a test with a harness of its own")]

use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, ExitCode};

use requiem_model::report::Status;
use requiem_model::{Layer, RelPath, Requirement};
use requiem_sandbox::{Cancel, InputMount, RunSpec, Runner, RunnerConfig, enter_trusted_namespace};

const NAME: &str = "an_ordinary_user_has_read_only_inputs_by_mount";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{NAME}: test\n\n1 test, 0 benchmarks");
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "ordinary-user") {
        ordinary_user();
        return ExitCode::SUCCESS;
    }
    println!("\nrunning 1 test");
    let binary = std::env::current_exe().unwrap();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let status = Command::new("setpriv").args(user).arg(binary).arg("ordinary-user").status().unwrap();
    let (word, passed) = if status.success() { ("ok", 1) } else { ("FAILED", 0) };
    println!(
        "test {NAME} ... {word}\n\ntest result: {word}. {passed} passed; {} failed; 0 ignored",
        1 - passed
    );
    ExitCode::from(u8::from(!status.success()))
}

/// Every layer but the cgroup, inputs included; the mounts are made in a namespace of the caller's own.
fn ordinary_user() {
    let ids = (nix::unistd::getuid(), nix::unistd::getgid());
    enter_trusted_namespace().unwrap();
    assert_eq!((nix::unistd::getuid(), nix::unistd::getgid()), ids, "ids stay what they were");
    let config = RunnerConfig { args: vec![], ..RunnerConfig::new(env!("CARGO_BIN_EXE_requiem-runner")) };
    let runner = Runner::spawn(config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "content\n").unwrap();
    let script = "cat in/file; (echo x > in/file) 2>/dev/null && echo WROTE; rm -f in/file 2>/dev/null && echo REMOVED; \
                  chmod 777 in 2>/dev/null && echo CHANGED; id -u; echo made > made";
    let mut spec = RunSpec {
        inputs: vec![InputMount { path: RelPath::parse("in").unwrap(), source: folder.path().to_owned() }],
        ..RunSpec::new(["sh", "-c", script].map(str::to_owned).to_vec())
    };
    spec.policy = spec.policy.with(Layer::Cgroup, Requirement::Preferred);
    let mut output = Vec::new();
    let mut sink = |_, bytes: &[u8]| output.extend_from_slice(bytes);
    let ended = runner.run(spec, &mut sink, &Cancel::new().unwrap()).unwrap();
    assert_eq!(String::from_utf8_lossy(&output), "content\n1000\n");
    let short: Vec<_> = ended.report.layers.iter().filter(|row| row.status != Status::Enforced).collect();
    assert!(matches!(short[..], [row] if row.layer == Layer::Cgroup), "{short:#?}");
    // What the payload made can be read by the caller.
    let made = format!("/proc/self/fd/{}/made", ended.workspace.as_fd().as_raw_fd());
    assert_eq!(std::fs::read_to_string(made).unwrap(), "made\n");
}
