//! What the benchmarks share: samples, figures beside a peer, and the report that `--json` writes.
//!
//! Every figure stands beside a named peer or a physical limit that was measured in the same run,
//! because absolute times on a shared machine say little.

pub mod server;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

/// Why a benchmark could not be run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Durations of one variant, in the order they were taken.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one sample.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Number of samples.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `percent`-th percentile by nearest rank, in milliseconds; 0 without samples.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (percent * sorted.len()).div_ceil(100).max(1) - 1;
        sorted.get(rank).map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    }
}

/// One figure beside its peer.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Unit of `ours`, `peer_value`, `p50` and `p99`.
    pub unit: &'static str,
    /// Our value: the median, or the rate.
    pub ours: f64,
    /// Who is compared.
    pub peer: String,
    /// The peer's value.
    pub peer_value: f64,
    /// `ours / peer_value`.
    pub ratio: f64,
    /// Number of samples of ours.
    pub n: usize,
    /// Our median.
    pub p50: f64,
    /// Our 99th percentile.
    pub p99: f64,
}

impl Figure {
    /// Two latencies, compared by their medians.
    pub fn latency(name: &str, ours: &Samples, peer: &str, theirs: &Samples) -> Self {
        Self::latency_against(name, ours, peer, theirs.percentile_ms(50))
    }

    /// A latency beside a peer's value in milliseconds.
    pub fn latency_against(name: &str, ours: &Samples, peer: &str, peer_value: f64) -> Self {
        let p50 = ours.percentile_ms(50);
        Self {
            name: name.to_owned(),
            unit: "ms",
            ours: p50,
            peer: peer.to_owned(),
            peer_value,
            ratio: ratio(p50, peer_value),
            n: ours.len(),
            p50,
            p99: ours.percentile_ms(99),
        }
    }

    /// A scalar beside a peer's scalar: median and 99th percentile over `rounds`.
    pub fn scalar(name: &str, unit: &'static str, ours: &[f64], peer: &str, theirs: &[f64]) -> Self {
        let (p50, p99) = (percentile(ours, 50), percentile(ours, 99));
        let peer_value = percentile(theirs, 50);
        Self {
            name: name.to_owned(),
            unit,
            ours: p50,
            peer: peer.to_owned(),
            peer_value,
            ratio: ratio(p50, peer_value),
            n: ours.len(),
            p50,
            p99,
        }
    }
}

fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent * sorted.len()).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or(0.0)
}

fn ratio(ours: f64, peer: f64) -> f64 {
    if peer == 0.0 { 0.0 } else { ours / peer }
}

/// Where the figures were taken.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// One-minute load average when the benchmark began.
    pub load: String,
    /// What else a reader must know: durability class, versions of peers.
    pub notes: Vec<String>,
}

impl Environment {
    /// Reads the environment, with `notes`.
    pub fn read(notes: Vec<String>) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let model = file("/proc/cpuinfo");
        let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
        Self {
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load: file("/proc/loadavg").split(' ').next().unwrap_or("").to_owned(),
            notes,
        }
    }
}

/// Processor time and highest memory of process `id` so far, and per unit of work: proc_pid_stat(5) fields 14 and
/// 15 in ticks of 10 ms, `VmHWM` of proc_pid_status(5).
pub fn used_by(name: &str, id: u32, units: usize) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("unknown", str::trim);
    format!("{name}: {:.2} ms of processor time each, peak memory {peak}", ticks * 10.0 / units.max(1) as f64)
}

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where.
    pub environment: Environment,
    /// What.
    pub figures: Vec<Figure>,
}

impl Report {
    /// The report as a table for people.
    pub fn table(&self) -> String {
        let env = &self.environment;
        let mut out =
            format!("kernel {} · {} × {} · load {}\n", env.kernel, env.processors, env.processor, env.load);
        for note in &env.notes {
            out.push_str(&format!("  {note}\n"));
        }
        let row = |cells: [&str; 7]| {
            format!(
                "{:<46} {:>10} {:>10} {:>8}  {:<34} {:>10} {:>7}\n",
                cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6]
            )
        };
        out.push_str(&row(["figure", "p50", "p99", "unit", "peer", "peer p50", "ratio"]));
        for figure in &self.figures {
            out.push_str(&row([
                &figure.name,
                &format!("{:.2}", figure.p50),
                &format!("{:.2}", figure.p99),
                figure.unit,
                &figure.peer,
                &format!("{:.2}", figure.peer_value),
                &format!("{:.2}", figure.ratio),
            ]));
        }
        out
    }

    /// Writes the JSON form to `path`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
    }
}

/// The end of the benchmark `name`: its table, and the JSON form where `--json FILE` asks for it.
pub fn finish(name: &str, outcome: Result<Report, Failure>) -> ExitCode {
    let written = outcome.and_then(|report| {
        json_argument().map_or(Ok(()), |path| report.write_json(&path))?;
        Ok(report)
    });
    match written {
        Ok(report) => {
            #[expect(clippy::print_stdout, reason = "a benchmark prints its table")]
            {
                print!("{}", report.table());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a program's last word")]
            {
                eprintln!("bench {name}: {error}");
            }
            ExitCode::from(2)
        }
    }
}

/// The value of `--json FILE` among the arguments.
fn json_argument() -> Option<std::path::PathBuf> {
    let mut arguments = std::env::args_os();
    arguments.find(|argument| argument == "--json")?;
    arguments.next().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut samples = Samples::default();
        for ms in (1..=100).rev() {
            samples.push(Duration::from_millis(ms));
        }
        assert_eq!((samples.percentile_ms(50), samples.percentile_ms(99)), (50.0, 99.0));
        assert_eq!(Samples::default().percentile_ms(50), 0.0);
    }
}
