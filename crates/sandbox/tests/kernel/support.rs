//! A runner shared by all tests that do not harm theirs, and short ways to run things in it.

use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use requiem_model::names::EnvName;
use requiem_model::report::{LayerReport, SandboxReport, Status};
use requiem_model::request::EnvVar;
use requiem_model::{Layer, Outcome, RelPath, Requirement, SandboxPolicy};
use requiem_sandbox::{Cancel, Finished, InputMount, RunError, RunSpec, Runner, RunnerConfig, StdStream};

pub(crate) static RUNNER: LazyLock<Runner> = LazyLock::new(new_runner);

pub(crate) const SUCCESS: Outcome = Outcome::Exited { code: 0 };

pub(crate) fn new_runner() -> Runner {
    let config = RunnerConfig { args: vec![], ..RunnerConfig::new(env!("CARGO_BIN_EXE_requiem-runner")) };
    Runner::spawn(config).unwrap()
}

/// What a run left.
pub(crate) struct Ran {
    pub(crate) end: Finished,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ran {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn row(&self, layer: Layer) -> &LayerReport {
        self.end.report.layer(layer).unwrap()
    }

    /// Layers that are not enforced, with their status.
    pub(crate) fn short(&self) -> Vec<(Layer, Status)> {
        let short = |row: &&LayerReport| row.status != Status::Enforced;
        self.end.report.layers.iter().filter(short).map(|row| (row.layer, row.status)).collect()
    }
}

/// A run of `sh -c script`.
pub(crate) fn sh(script: &str) -> RunSpec {
    RunSpec::new(["sh", "-c", script].map(str::to_owned).to_vec())
}

pub(crate) fn var(name: &str, value: &str) -> EnvVar {
    EnvVar { name: EnvName::parse(name).unwrap(), value: value.to_owned() }
}

pub(crate) fn input(path: &str, source: impl Into<std::path::PathBuf>) -> InputMount {
    InputMount { path: RelPath::parse(path).unwrap(), source: source.into() }
}

pub(crate) fn try_run(runner: &Runner, spec: RunSpec) -> Result<Ran, RunError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut sink = |stream, bytes: &[u8]| match stream {
        StdStream::Stdout => stdout.extend_from_slice(bytes),
        StdStream::Stderr => stderr.extend_from_slice(bytes),
    };
    let end = runner.run(spec, &mut sink, &Cancel::new().unwrap())?;
    Ok(Ran { end, stdout, stderr })
}

pub(crate) fn run(spec: RunSpec) -> Ran {
    try_run(&RUNNER, spec).unwrap()
}

/// Runs a script that must succeed.
pub(crate) fn ok(script: &str) -> Ran {
    let ran = run(sh(script));
    assert_eq!(ran.end.outcome, SUCCESS, "{script}: {} {}", ran.out(), ran.err());
    ran
}

/// Every layer preferred.
pub(crate) fn lenient() -> SandboxPolicy {
    let prefer = |policy: SandboxPolicy, layer| policy.with(layer, Requirement::Preferred);
    Layer::ALL.into_iter().fold(SandboxPolicy::default(), prefer)
}

/// Every layer preferred but one, which is off.
pub(crate) fn without(layer: Layer) -> SandboxPolicy {
    lenient().with(layer, Requirement::Off)
}

pub(crate) fn table(report: &SandboxReport) -> String {
    let row = |row: &LayerReport| {
        let detail = row.detail.as_deref().unwrap_or_default();
        format!("{} {:?} {} {:?} {detail}\n", row.layer, row.status, row.mechanism, row.evidence)
    };
    report.layers.iter().map(row).collect()
}

/// A number of seconds to sleep that no other process sleeps, by which a payload's processes are found again.
pub(crate) fn marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}{:03}", std::process::id(), 100 + COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether any process of the host has `marker` in its command line.
pub(crate) fn alive(marker: &str) -> bool {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        let is_process =
            entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok() && name != own);
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        is_process && String::from_utf8_lossy(&words).contains(marker)
    })
}

/// A helper test of this binary as a command of its own.
pub(crate) fn helper(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(helper_args(name)).env(HELPER, "1");
    command
}

pub(crate) fn helper_args(name: &str) -> [&str; 4] {
    ["--exact", name, "--nocapture", "--test-threads=1"]
}

/// Set for helpers, which do nothing when the whole suite runs them.
pub(crate) const HELPER: &str = "REQUIEM_TEST_HELPER";

pub(crate) fn is_helper() -> bool {
    std::env::var_os(HELPER).is_some()
}
