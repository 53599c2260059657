//! A runner shared by the tests of one kind, and short ways to run things in it.

use std::sync::LazyLock;

use requiem_model::report::{LayerReport, SandboxReport};
use requiem_model::{Layer, Outcome, Requirement, SandboxPolicy};
use requiem_sandbox::{Cancel, Finished, RunError, RunSpec, Runner, RunnerConfig, StdStream};

/// The runner of all tests that do not harm theirs.
pub(crate) static RUNNER: LazyLock<Runner> = LazyLock::new(new_runner);

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
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn row(&self, layer: Layer) -> &LayerReport {
        self.end.report.layer(layer).unwrap()
    }
}

/// A run of `sh -c script`.
pub(crate) fn sh(script: &str) -> RunSpec {
    RunSpec::new(["sh", "-c", script].map(str::to_owned).to_vec())
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
    assert_eq!(ran.end.outcome, Outcome::Exited { code: 0 }, "{script}: {} {}", ran.out(), ran.err());
    ran
}

/// Every layer preferred.
pub(crate) fn lenient() -> SandboxPolicy {
    Layer::ALL.into_iter().fold(SandboxPolicy::default(), |policy, layer| policy.with(layer, Requirement::Preferred))
}

pub(crate) fn table(report: &SandboxReport) -> String {
    let row = |row: &LayerReport| {
        format!("{:18} {:10?} {:24} {:?} {}\n", row.layer, row.status, row.mechanism, row.evidence, row.detail.as_deref().unwrap_or(""))
    };
    report.layers.iter().map(row).collect()
}
