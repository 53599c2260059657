//! `cargo xtask bench sandbox`: a sandboxed no-op beside a bare spawn and beside bubblewrap.
//!
//! The three variants run `/bin/true` in turn, so that what else the machine does meets all of them. Ours is the
//! warm path: one runner, every layer required, the report proven from inside in every run.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use requiem_benches::{Environment, Failure, Figure, Report, Samples, finish, used_by};
use requiem_model::{Layer, Requirement};
use requiem_sandbox::{Cancel, RunSpec, Runner, RunnerConfig};

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("runner") {
        return requiem_sandbox::runner_main();
    }
    finish("sandbox", run())
}

fn run() -> Result<Report, Failure> {
    requiem_sandbox::enter_trusted_namespace()?;
    let bubblewrap = version_of_bubblewrap()?;
    let runner = Runner::spawn(RunnerConfig::new(std::env::current_exe()?))?;
    let (mut ours, mut shared, mut bare, mut peer) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let shared_network = |spec: &mut RunSpec| {
        spec.policy = spec.policy.clone().with(Layer::NetworkNamespace, Requirement::Off);
    };
    for round in 0..WARM_UP + ROUNDS {
        let samples = [
            sandboxed(&runner, |_| {})?,
            sandboxed(&runner, shared_network)?,
            spawned(&mut bare_true())?,
            spawned(&mut bubblewrapped_true())?,
        ];
        if round >= WARM_UP {
            for (into, sample) in [&mut ours, &mut shared, &mut bare, &mut peer].into_iter().zip(samples) {
                into.push(sample);
            }
        }
    }
    Ok(Report {
        environment: Environment::read(vec![
            format!(
                "peer: {bubblewrap}, --unshare-all with proc, dev, tmpfs and /usr, no seccomp, no limits"
            ),
            "ours: warm runner, all layers required and proven from inside, nothing stored (durability: none)".to_owned(),
            "nothing prepared ahead: one layer (the network namespace) is off, so the run that was prepared with all \
             layers is thrown away"
                .to_owned(),
            used_by("runner process", runner.pid(), 2 * (WARM_UP + ROUNDS)),
        ]),
        figures: vec![
            Figure::latency("sandboxed no-op", &ours, "bare spawn of /bin/true", &bare),
            Figure::latency("sandboxed no-op", &ours, "bubblewrap --unshare-all", &peer),
            Figure::latency("the same, nothing prepared ahead", &shared, "bare spawn of /bin/true", &bare),
            Figure::latency("bubblewrap --unshare-all", &peer, "bare spawn of /bin/true", &bare),
        ],
    })
}

fn sandboxed(runner: &Runner, change: impl Fn(&mut RunSpec)) -> Result<Duration, Failure> {
    let mut spec = RunSpec::new(vec!["/bin/true".to_owned()]);
    change(&mut spec);
    let begin = Instant::now();
    let finished = runner.run(spec, &mut |_, _| {}, &Cancel::new()?)?;
    let took = begin.elapsed();
    if finished.outcome.is_success() { Ok(took) } else { Err(format!("{:?}", finished.outcome).into()) }
}

fn spawned(command: &mut Command) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let took = begin.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?} ended with {status}").into()) }
}

fn bare_true() -> Command {
    Command::new("/bin/true")
}

fn bubblewrapped_true() -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]);
    command.args(["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    for link in ["bin", "sbin", "lib", "lib64"] {
        command.args(["--symlink", &format!("usr/{link}"), &format!("/{link}")]);
    }
    command.arg("/bin/true");
    command
}

fn version_of_bubblewrap() -> Result<String, Failure> {
    let missing = "bubblewrap (bwrap) is not installed; install it with your package manager, \
                   for example `apt-get install bubblewrap`";
    let output = Command::new("bwrap").arg("--version").output().map_err(|_| missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
