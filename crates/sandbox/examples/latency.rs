//! How long a sandboxed run of nothing takes, beside a bare spawn of the same program, in the same minute.
//!
//! `cargo run --release -p requiem-sandbox --example latency [RUNS]`

use std::error::Error;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use requiem_sandbox::{Cancel, RunSpec, Runner, RunnerConfig};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("runner") {
        return requiem_sandbox::runner_main();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "figures are what this program is for")]
fn measure() -> Result<(), Box<dyn Error>> {
    let runs = std::env::args().nth(1).and_then(|runs| runs.parse().ok()).unwrap_or(100);
    let runner = Runner::spawn(RunnerConfig::new(std::env::current_exe()?))?;
    let cancel = Cancel::new()?;
    let sandboxed = || -> Result<Duration, Box<dyn Error>> {
        let began = Instant::now();
        runner.run(RunSpec::new(vec!["/bin/true".into()]), &mut |_, _| {}, &cancel)?;
        let took = began.elapsed();
        // What a caller does between two runs; the next one is prepared meanwhile.
        std::thread::sleep(Duration::from_millis(20));
        Ok(took)
    };
    let bare = || -> Result<Duration, Box<dyn Error>> {
        let began = Instant::now();
        Command::new("/bin/true").status()?;
        Ok(began.elapsed())
    };
    for (name, mut times) in [
        ("sandboxed", (0..runs).map(|_| sandboxed()).collect::<Result<Vec<_>, _>>()?),
        ("bare", (0..runs).map(|_| bare()).collect::<Result<Vec<_>, _>>()?),
    ] {
        times.sort();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        println!("{name:10} min {:?} p50 {:?} p90 {:?} p99 {:?}", at(0), at(50), at(90), at(99));
    }
    Ok(())
}
