//! Dual-run: the same request by two engines, and in which items the results differ. The primary's result is the one that counts; what
//! the candidate did is compared with it, typed and weighed. Pure.
//!
//! | category | severity | what differs |
//! |---|---|---|
//! | `digest_mismatch` | critical | an output: its content, its kind, its executable bit, or whether it is there |
//! | `exit_code_mismatch` | high | how the command ended |
//! | `stdout_mismatch`, `stderr_mismatch` | high | what was kept of a stream |
//! | `sandbox_diff` | medium | what the report says of a layer or of a source of differences |
//! | `timing_diff` | low | the wall-clock time, beyond a [`Tolerance`] |

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::confidence::label;
use crate::digest::RequestDigest;
use crate::names::RelPath;
use crate::policy::Layer;
use crate::report::{SandboxReport, Source};
use crate::result::{OutputContent, RunResult, Stream};

/// In which way two runs differ. The order is by severity, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// An output.
    DigestMismatch,
    /// How the command ended.
    ExitCodeMismatch,
    /// Standard output.
    StdoutMismatch,
    /// Standard error.
    StderrMismatch,
    /// Isolation that was in force.
    SandboxDiff,
    /// Time.
    TimingDiff,
}

/// How grave that is. The order is by gravity, so the greatest of several is the gravest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing that anybody could rely on.
    Low,
    /// The result is the same, what protects it is not.
    Medium,
    /// Whoever reads the result sees another one.
    High,
    /// What is kept of the run is another thing.
    Critical,
}

/// One item that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mismatch {
    /// In which way.
    pub category: Category,
    /// `output PATH`, `exit`, `stdout`, `stderr`, `sandbox LAYER`, `source NAME` or `wall time`.
    pub item: String,
    /// What the primary has there.
    pub primary: String,
    /// What the candidate has.
    pub candidate: String,
}

/// What is compared of a run.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What came out.
    pub result: &'a RunResult,
    /// Which isolation was in force.
    pub sandbox: &'a SandboxReport,
    /// Wall-clock time, in microseconds.
    pub wall_us: u64,
}

/// When two times count as different: one is more than twice the other, and they are further apart than the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Least distance that is told, in microseconds.
    pub floor_us: u64,
}

/// Which share of requests is run twice, in hundredths of a percent. What a smaller share takes a greater one takes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample(u16);

/// The text is no percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a percentage from 0 to 100 with at most two decimals, like 1, 12.5 or 0.25")]
pub struct SampleError(String);

/// Compares two runs of one request. Nothing is invented: runs that are the same in every item have no mismatch.
pub fn compare(primary: Seen<'_>, candidate: Seen<'_>, tolerance: Tolerance) -> Vec<Mismatch> {
    let mut found = of_outputs(primary.result, candidate.result);
    let mut differs = |category, item: &str, one: String, other: String| {
        if one != other {
            found.push(Mismatch { category, item: item.to_owned(), primary: one, candidate: other });
        }
    };
    let (one, other) = (primary.result, candidate.result);
    differs(Category::ExitCodeMismatch, "exit", one.outcome.to_string(), other.outcome.to_string());
    differs(Category::StdoutMismatch, "stdout", stream_in_words(&one.stdout), stream_in_words(&other.stdout));
    differs(Category::StderrMismatch, "stderr", stream_in_words(&one.stderr), stream_in_words(&other.stderr));
    for (item, one, other) in of_sandbox(primary.sandbox, candidate.sandbox) {
        differs(Category::SandboxDiff, &item, one, other);
    }
    if tolerance.is_exceeded(primary.wall_us, candidate.wall_us) {
        let told = |us: u64| format!("{} ms", us / 1000);
        let (primary, candidate) = (told(primary.wall_us), told(candidate.wall_us));
        let item = "wall time".to_owned();
        found.push(Mismatch { category: Category::TimingDiff, item, primary, candidate });
    }
    found
}

/// How many of each category; every category is named.
pub fn counts(mismatches: &[Mismatch]) -> BTreeMap<Category, u64> {
    let mut counts: BTreeMap<Category, u64> = Category::ALL.into_iter().map(|each| (each, 0)).collect();
    for mismatch in mismatches {
        *counts.entry(mismatch.category).or_default() += 1;
    }
    counts
}

/// Layers and sources that two reports say different things of: item, the one, the other.
pub fn of_sandbox(one: &SandboxReport, other: &SandboxReport) -> Vec<(String, String, String)> {
    let layers = Layer::ALL.into_iter().map(|layer| {
        let status = |report: &SandboxReport| {
            report.layer(layer).map_or_else(|| "unreported".to_owned(), |row| label(&row.status))
        };
        (format!("sandbox {layer}"), status(one), status(other))
    });
    let sources = Source::ALL.into_iter().map(|source| {
        let state = |report: &SandboxReport| label(&report.source(source));
        (format!("source {}", label(&source)), state(one), state(other))
    });
    layers.chain(sources).filter(|(_, one, other)| one != other).collect()
}

/// Outputs that differ. Why one is missing is said in each engine's own words, and is not compared.
fn of_outputs(one: &RunResult, other: &RunResult) -> Vec<Mismatch> {
    let content = |result: &RunResult, path: &RelPath| {
        let found = result.outputs.iter().find(|output| output.path == *path);
        found.map_or_else(|| "missing".to_owned(), |output| output_in_words(&output.content))
    };
    let mut paths: Vec<&RelPath> =
        one.outputs.iter().chain(&other.outputs).map(|output| &output.path).collect();
    paths.sort();
    paths.dedup();
    let rows = paths.into_iter().map(|path| Mismatch {
        category: Category::DigestMismatch,
        item: format!("output {path}"),
        primary: content(one, path),
        candidate: content(other, path),
    });
    rows.filter(|row| row.primary != row.candidate).collect()
}

/// An output as mismatches tell it.
pub fn output_in_words(content: &OutputContent) -> String {
    match content {
        OutputContent::Blob { digest, executable: true, .. } => format!("{digest} executable"),
        OutputContent::Blob { digest, .. } => digest.to_string(),
        OutputContent::Tree { digest, .. } => format!("{digest} folder"),
    }
}

/// A stream as mismatches tell it.
pub fn stream_in_words(stream: &Stream) -> String {
    if stream.truncated { format!("{} truncated", stream.digest) } else { stream.digest.to_string() }
}

// === impl Category ===

impl Category {
    /// Every category, the gravest first.
    pub const ALL: [Self; 6] = [
        Self::DigestMismatch,
        Self::ExitCodeMismatch,
        Self::StdoutMismatch,
        Self::StderrMismatch,
        Self::SandboxDiff,
        Self::TimingDiff,
    ];

    /// The name used in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DigestMismatch => "digest_mismatch",
            Self::ExitCodeMismatch => "exit_code_mismatch",
            Self::StdoutMismatch => "stdout_mismatch",
            Self::StderrMismatch => "stderr_mismatch",
            Self::SandboxDiff => "sandbox_diff",
            Self::TimingDiff => "timing_diff",
        }
    }

    /// How grave it is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::DigestMismatch => Severity::Critical,
            Self::ExitCodeMismatch | Self::StdoutMismatch | Self::StderrMismatch => Severity::High,
            Self::SandboxDiff => Severity::Medium,
            Self::TimingDiff => Severity::Low,
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

// === impl Severity ===

impl Severity {
    /// The name used in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

// === impl Tolerance ===

impl Tolerance {
    const fn is_exceeded(self, one: u64, other: u64) -> bool {
        let (less, more) = if one < other { (one, other) } else { (other, one) };
        more - less > self.floor_us && more - less > less
    }
}

impl Default for Tolerance {
    /// A quarter of a second, below which machines differ from themselves.
    fn default() -> Self {
        Self { floor_us: 250_000 }
    }
}

// === impl Sample ===

impl Sample {
    /// Every request.
    pub const ALL: Self = Self(10_000);

    /// Whether a request is run twice. Its digest decides: its first 8 bytes as a big-endian number, as a share of 2^64, lie below the
    /// percentage. Equal requests get equal answers, everywhere and always.
    pub fn takes(self, request: &RequestDigest) -> bool {
        let mut first = [0; 8];
        first.copy_from_slice(&request.as_bytes()[..8]);
        u128::from(u64::from_be_bytes(first)) * 10_000 < u128::from(self.0) << 64
    }
}

impl FromStr for Sample {
    type Err = SampleError;

    fn from_str(text: &str) -> Result<Self, SampleError> {
        let refuse = || SampleError(text.chars().take(40).collect());
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str, most| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(part, 2) {
            return Err(refuse());
        }
        let number = |text: &str| text.parse::<u16>().map_err(|_| refuse());
        let tens = if part.len() == 1 { 10 } else { 1 };
        let hundredths = u32::from(number(whole)?) * 100 + u32::from(number(part)? * tens);
        u16::try_from(hundredths).ok().filter(|share| *share <= 10_000).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(out, "{whole}"),
            part if part % 10 == 0 => write!(out, "{whole}.{}", part / 10),
            part => write!(out, "{whole}.{part:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Requirement;
    use crate::report::{Evidence, LayerReport, SourceReport, SourceState, Status};
    use crate::request::ExecutionRequest;
    use crate::result::{MissingOutput, Outcome, Output};
    use crate::{BlobDigest, TreeDigest};

    fn sample(text: &str) -> Sample {
        text.parse().unwrap()
    }

    fn digests(count: u32) -> Vec<RequestDigest> {
        let one = |number: u32| {
            let mut request = ExecutionRequest::new(vec!["/bin/true".into()]);
            request.nonce = Some(number.to_string());
            request.digest().unwrap()
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn the_share_that_is_taken_is_the_one_that_was_named() {
        let digests = digests(10_000);
        for text in ["0", "0.25", "1", "5", "10", "33.33", "50", "75.5", "99", "100"] {
            let taken = digests.iter().filter(|digest| sample(text).takes(digest)).count();
            let wanted = text.parse::<f64>().unwrap() * 100.0;
            // Within one percent of 10,000 requests.
            assert!((taken as f64 - wanted).abs() <= 100.0, "{text} %: {taken}");
        }
        assert!(digests.iter().all(|digest| Sample::ALL.takes(digest)));
        assert!(!digests.iter().any(|digest| sample("0").takes(digest)));
    }

    #[test]
    fn the_digest_decides_and_a_greater_share_takes_what_a_smaller_one_takes() {
        let shares: Vec<Sample> = (0..=10_000).step_by(125).map(Sample).collect();
        for digest in digests(200) {
            let taken: Vec<bool> = shares.iter().map(|share| share.takes(&digest)).collect();
            assert_eq!(taken, shares.iter().map(|share| share.takes(&digest)).collect::<Vec<_>>());
            assert!(taken.is_sorted(), "{digest}: {taken:?}");
        }
        let first = |bytes: [u8; 8]| {
            let mut all = [0xff; 32];
            all[..8].copy_from_slice(&bytes);
            RequestDigest::from_bytes(all)
        };
        // Half of 2^64, and one less.
        assert!(!sample("50").takes(&first([0x80, 0, 0, 0, 0, 0, 0, 0])));
        assert!(sample("50").takes(&first([0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])));
    }

    #[test]
    fn a_percentage_has_one_form() {
        for text in ["0", "1", "12.5", "0.25", "100", "0.01", "99.99"] {
            assert_eq!(sample(text).to_string(), text);
        }
        assert_eq!((sample("1.0"), sample("05"), sample("1.50")), (sample("1"), sample("5"), sample("1.5")));
        for wrong in ["", "-1", "+1", "101", "100.01", "1.", ".5", "1.234", "1e1", "a", "1,5", " 1", "0x1"] {
            assert!(wrong.parse::<Sample>().is_err(), "{wrong:?}");
        }
    }

    fn result() -> RunResult {
        let stream = |text: &[u8]| Stream { digest: BlobDigest::of(text), bytes: 1, truncated: false };
        let output = |path: &str| Output {
            path: RelPath::parse(path).unwrap(),
            content: OutputContent::Blob { digest: BlobDigest::of(b"x"), bytes: 1, executable: false },
        };
        let missing = MissingOutput { path: RelPath::parse("gone").unwrap(), why: "absent".into() };
        RunResult {
            outcome: Outcome::Exited { code: 0 },
            stdout: stream(b"out"),
            stderr: stream(b"err"),
            outputs: vec![output("a"), output("b")],
            missing_outputs: vec![missing],
        }
    }

    fn report() -> SandboxReport {
        let row = |layer| {
            let (status, evidence) = (Status::Unsupported, Evidence::None);
            LayerReport::short_of(layer, Requirement::Preferred, status, "x", evidence, "not here")
        };
        let source = |source| SourceReport { source, state: SourceState::Real };
        SandboxReport {
            layers: Layer::ALL.into_iter().map(row).collect(),
            sources: Source::ALL.into_iter().map(source).collect(),
        }
    }

    /// Runs that differ only by `change` differ in this, and in nothing else.
    fn check(change: impl Fn(&mut RunResult, &mut SandboxReport, &mut u64), expected: &[(Category, &str)]) {
        let (result, sandbox, wall_us) = (result(), report(), 100_000);
        let (mut other, mut others, mut time) = (result.clone(), sandbox.clone(), wall_us);
        change(&mut other, &mut others, &mut time);
        let one = Seen { result: &result, sandbox: &sandbox, wall_us };
        let other = Seen { result: &other, sandbox: &others, wall_us: time };
        for (one, other) in [(one, other), (other, one)] {
            let found = compare(one, other, Tolerance::default());
            let items: Vec<_> = found.iter().map(|each| (each.category, each.item.as_str())).collect();
            assert_eq!(items, expected);
            assert!(found.iter().all(|each| each.primary != each.candidate));
            let counted: u64 = counts(&found).values().sum();
            assert_eq!((counted, counts(&found).len()), (expected.len() as u64, 6));
        }
    }

    #[test]
    fn each_difference_is_found_and_none_is_invented() {
        use Category::{
            DigestMismatch, ExitCodeMismatch, SandboxDiff, StderrMismatch, StdoutMismatch, TimingDiff,
        };
        check(|_, _, _| {}, &[]);
        let content = |content| {
            move |result: &mut RunResult, _: &mut SandboxReport, _: &mut u64| {
                result.outputs[1].content = content
            }
        };
        let blob = |text: &[u8], executable| OutputContent::Blob {
            digest: BlobDigest::of(text),
            bytes: 1,
            executable,
        };
        check(content(blob(b"y", false)), &[(DigestMismatch, "output b")]);
        check(content(blob(b"x", true)), &[(DigestMismatch, "output b")]);
        let digest = TreeDigest::from_bytes(*BlobDigest::of(b"x").as_bytes());
        check(content(OutputContent::Tree { digest, bytes: 1, entries: 1 }), &[(DigestMismatch, "output b")]);
        check(|result, _, _| drop(result.outputs.remove(0)), &[(DigestMismatch, "output a")]);
        check(|result, _, _| result.outcome = Outcome::Exited { code: 1 }, &[(ExitCodeMismatch, "exit")]);
        check(|result, _, _| result.outcome = Outcome::TimedOut, &[(ExitCodeMismatch, "exit")]);
        check(|result, _, _| result.stdout.digest = BlobDigest::of(b"y"), &[(StdoutMismatch, "stdout")]);
        check(|result, _, _| result.stdout.truncated = true, &[(StdoutMismatch, "stdout")]);
        check(|result, _, _| result.stderr.digest = BlobDigest::of(b"y"), &[(StderrMismatch, "stderr")]);
        check(
            |_, report, _| report.layers[2].status = Status::Disabled,
            &[(SandboxDiff, "sandbox mountNamespace")],
        );
        check(|_, report, _| drop(report.layers.pop()), &[(SandboxDiff, "sandbox descriptors")]);
        check(
            |_, report, _| report.sources[6].state = SourceState::Unprobed,
            &[(SandboxDiff, "source clock")],
        );
        check(|_, _, time| *time = 350_001, &[(TimingDiff, "wall time")]);
        // Words of an engine, mechanisms and times within the tolerance are no differences.
        check(|result, _, _| result.missing_outputs[0].why = "not there".into(), &[]);
        check(|_, report, _| report.layers[2].mechanism = "other".into(), &[]);
        check(|_, _, time| *time = 350_000, &[]);
    }

    #[test]
    fn times_differ_by_factor_and_by_distance() {
        let exceeded = |one, other| Tolerance { floor_us: 10 }.is_exceeded(one, other);
        assert!(exceeded(100, 201) && exceeded(201, 100) && exceeded(0, 11));
        assert!(!exceeded(100, 200) && !exceeded(0, 10) && !exceeded(5, 15) && !exceeded(7, 7));
        assert!(exceeded(1, u64::MAX) && !exceeded(u64::MAX / 2 + 1, u64::MAX));
    }

    #[test]
    fn names_are_the_serialised_names() {
        for category in Category::ALL {
            assert_eq!(serde_json::to_value(category).unwrap(), category.as_str());
            assert_eq!(serde_json::to_value(category.severity()).unwrap(), category.severity().as_str());
        }
        assert!(Severity::Critical > Severity::High && Severity::Medium > Severity::Low);
    }
}
