//! What a benchmark writes and what comparisons read: raw samples, the figures that follow from them, and where they were
//! taken. A document that is read is not trusted: every figure is computed anew from the samples.

use std::collections::BTreeMap;
use std::path::Path;

use requiem_model::result::Usage;
use requiem_model::{EnvironmentDigest, RequestDigest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::environment::Environment;
use super::statistics::Sorted;
use crate::error::CommandError;
use crate::{schema, store};

/// The version of the document.
pub(crate) const RESULT_SCHEMA: &str = "requiem-bench/1";
/// The reason code of a benchmark of which a run failed.
pub(crate) const RUN_FAILED: &str = "RunFailed";
/// Largest document, in bytes: 10,000 samples, prettily.
const MAX_RESULT_BYTES: u64 = 16 << 20;

/// The result of a benchmark. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ResultDocument {
    /// Whether every run succeeded.
    pub(crate) ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error_code: Option<String>,
    /// `requiem-bench/1`.
    pub(crate) schema: String,
    pub(crate) name: String,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) request_digest: RequestDigest,
    /// Runs before those that count.
    pub(crate) warmup: u64,
    /// Runs that count.
    pub(crate) repeats: u64,
    /// Runs at a time.
    pub(crate) concurrency: u64,
    /// How many of the runs that count ended how, by reason.
    pub(crate) outcomes: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<FailedRun>,
    /// Figures over the runs that succeeded; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<Summary>,
    pub(crate) environment: Environment,
    #[schemars(schema_with = "schema::digest")]
    pub(crate) environment_digest: EnvironmentDigest,
    pub(crate) started_at: String,
    pub(crate) completed_at: String,
    /// The runs that succeeded, in the order in which they ended.
    pub(crate) samples: Vec<Sample>,
}

/// A run that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FailedRun {
    /// Which of the runs that count, from 1, in the order in which they ended.
    pub(crate) run: u64,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Sample {
    /// From the start of the command to the end of its last process, in microseconds; making the sandbox is not in it.
    pub(crate) wall_us: u64,
    /// Processor time in user mode.
    pub(crate) user_us: u64,
    /// Processor time in the kernel.
    pub(crate) system_us: u64,
    pub(crate) peak_memory_bytes: u64,
}

/// Figures over all samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Summary {
    /// How many samples.
    pub(crate) samples: u64,
    pub(crate) wall_us: Spread,
    /// Processor time, in user mode and in the kernel.
    pub(crate) cpu_us: Spread,
    pub(crate) peak_memory_bytes: Spread,
}

/// How samples are spread. Percentiles are of the nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Spread {
    pub(crate) p50: u64,
    pub(crate) p95: u64,
    pub(crate) p99: u64,
    /// Median absolute deviation from the median.
    pub(crate) mad: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl From<&Usage> for Sample {
    fn from(usage: &Usage) -> Self {
        let Usage { wall_us, user_us, system_us, peak_memory_bytes } = *usage;
        Self { wall_us, user_us, system_us, peak_memory_bytes }
    }
}

impl Spread {
    fn of(samples: impl IntoIterator<Item = u64>) -> Option<Self> {
        let sorted = Sorted::new(samples)?;
        let [p50, p95, p99] = [50, 95, 99].map(|percent| sorted.percentile(percent));
        Some(Self { p50, p95, p99, mad: sorted.mad(), min: sorted.min(), max: sorted.max() })
    }
}

impl Summary {
    /// The figures of samples; nothing if there is none.
    pub(crate) fn of(samples: &[Sample]) -> Option<Self> {
        let spread = |figure: fn(&Sample) -> u64| Spread::of(samples.iter().map(figure));
        Some(Self {
            samples: samples.len() as u64,
            wall_us: spread(|sample| sample.wall_us)?,
            cpu_us: spread(|sample| sample.user_us.saturating_add(sample.system_us))?,
            peak_memory_bytes: spread(|sample| sample.peak_memory_bytes)?,
        })
    }
}

impl ResultDocument {
    /// Reads the document of a benchmark that succeeded.
    ///
    /// # Errors
    /// `InvalidResult`: it is no such document, or lacks a figure. `FailedBench`: a run had failed. `AlteredResult`: a
    /// figure is not what follows from the samples. `ZeroFigure`: a run took no time at all.
    pub(crate) fn read(path: &Path) -> Result<Self, CommandError> {
        Self::parse(&store::read(path, MAX_RESULT_BYTES)?).map_err(|error| CommandError {
            message: format!("{}: {}", path.display(), error.message),
            ..error
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        let hint = "give the file that `requiem bench run --out FILE` wrote";
        let invalid = |why: String| CommandError::unusable("InvalidResult", why, hint);
        let value = requiem_proof::json::parse(bytes).map_err(|error| invalid(error.to_string()))?;
        let member = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if value.get("ok") == Some(&Value::Bool(false)) {
            let message = format!("the benchmark failed: {}", member("error_code"));
            return Err(CommandError::unusable("FailedBench", message, "run it again, and see what it says"));
        }
        if member("schema") != RESULT_SCHEMA {
            return Err(invalid(format!("it is no document of {RESULT_SCHEMA}")));
        }
        let document: Self = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
        document.judged()
    }

    /// The same document, if everything in it follows from its samples.
    fn judged(self) -> Result<Self, CommandError> {
        let altered = |field: &str| {
            let message = format!("{field} is not what follows from the samples");
            CommandError::unusable(
                "AlteredResult",
                message,
                "do not rely on this document: run the benchmark again",
            )
        };
        let count = self.samples.len() as u64;
        if !self.ok
            || self.outcomes.keys().any(|reason| reason != "Succeeded")
            || self.first_failure.is_some()
        {
            return Err(altered("ok"));
        }
        if self.repeats != count || self.outcomes.get("Succeeded").copied().unwrap_or_default() != count {
            return Err(altered("outcomes"));
        }
        if self.summary != Summary::of(&self.samples) {
            return Err(altered("summary"));
        }
        if self.environment.digest().as_ref() != Ok(&self.environment_digest) {
            return Err(altered("environment_digest"));
        }
        if let Some(place) = self.samples.iter().position(|sample| sample.wall_us == 0) {
            let message = format!("run {} took 0 µs, which no command does", place + 1);
            return Err(CommandError::unusable("ZeroFigure", message, "run the benchmark again"));
        }
        Ok(self)
    }

    /// The wall times, in the order in which they were taken.
    pub(crate) fn wall_us(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.wall_us).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::super::environment::tests::some;
    use super::*;

    /// A good document with these wall times.
    pub(crate) fn document(wall_us: &[u64]) -> ResultDocument {
        let sample =
            |wall_us: &u64| Sample { wall_us: *wall_us, user_us: 1, system_us: 2, peak_memory_bytes: 4096 };
        let samples: Vec<Sample> = wall_us.iter().map(sample).collect();
        let count = samples.len() as u64;
        ResultDocument {
            ok: true,
            error_code: None,
            schema: RESULT_SCHEMA.to_owned(),
            name: "some".to_owned(),
            request_digest: RequestDigest::from_bytes([1; 32]),
            warmup: 3,
            repeats: count,
            concurrency: 1,
            outcomes: BTreeMap::from([("Succeeded".to_owned(), count)]),
            first_failure: None,
            summary: Summary::of(&samples),
            environment: some(),
            environment_digest: some().digest().unwrap(),
            started_at: "2026-11-28T00:00:00.000Z".to_owned(),
            completed_at: "2026-11-28T00:00:01.000Z".to_owned(),
            samples,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let written = document(&[3, 1, 2]);
        let text = serde_json::to_vec_pretty(&written).unwrap();
        assert_eq!(ResultDocument::parse(&text).unwrap(), written);
        let summary = written.summary.unwrap();
        assert_eq!(summary.wall_us, Spread { p50: 2, p95: 3, p99: 3, mad: 1, min: 1, max: 3 });
        assert_eq!((summary.samples, summary.cpu_us.p50, summary.peak_memory_bytes.max), (3, 3, 4096));
    }

    #[test]
    fn what_is_missing_zero_or_altered_is_refused() {
        let good = serde_json::to_value(document(&[3, 1, 2])).unwrap();
        let refusal = |value: &Value| {
            let error = ResultDocument::parse(&serde_json::to_vec(value).unwrap()).unwrap_err();
            (error.error_code, error.message)
        };
        let check = |pointer: &str, value: Value, code: &str, part: &str| {
            let mut changed = good.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            let (found, message) = refusal(&changed);
            assert!(found == code && message.contains(part), "{pointer}: {found} {message}");
        };
        check("/samples/1/wall_us", json!(0), "AlteredResult", "summary");
        check("/summary/wall_us/p50", json!(1), "AlteredResult", "summary");
        check("/summary/wall_us/p95", json!(0), "AlteredResult", "summary");
        check("/summary/samples", json!(4), "AlteredResult", "summary");
        check("/samples", json!([]), "AlteredResult", "outcomes");
        check("/repeats", json!(4), "AlteredResult", "outcomes");
        check("/outcomes", json!({"Succeeded": 2, "TimedOut": 1}), "AlteredResult", "ok");
        check("/environment/kernel", json!("7.0"), "AlteredResult", "environment_digest");
        check("/schema", json!("requiem-bench/2"), "InvalidResult", "no document of requiem-bench/1");
        check("/samples/0/wall_us", json!(-1), "InvalidResult", "-1");
        check("/samples/0/wall_us", json!(1.5), "InvalidResult", "1.5");
        check("/request_digest", json!("sha256:00"), "InvalidResult", "sha256");
        check("/ok", json!(false), "FailedBench", "the benchmark failed");
        for name in ["samples", "environment", "outcomes", "concurrency", "request_digest"] {
            let mut lacking = good.clone();
            lacking.as_object_mut().unwrap().remove(name);
            assert_eq!(refusal(&lacking), ("InvalidResult".to_owned(), format!("missing field `{name}`")));
        }
        let mut lacking = good.clone();
        lacking["summary"]["wall_us"].as_object_mut().unwrap().remove("p95");
        assert_eq!(refusal(&lacking).0, "InvalidResult");
        lacking.as_object_mut().unwrap().remove("summary");
        assert_eq!(refusal(&lacking).0, "AlteredResult");
        let zero = serde_json::to_value(document(&[3, 0, 2])).unwrap();
        assert_eq!(
            refusal(&zero),
            ("ZeroFigure".to_owned(), "run 2 took 0 µs, which no command does".to_owned())
        );
        let failed = json!({"ok": false, "error_code": "Interrupted", "message": "m", "hint": "h"});
        assert_eq!(
            refusal(&failed),
            ("FailedBench".to_owned(), "the benchmark failed: Interrupted".to_owned())
        );
        assert_eq!(refusal(&json!([])).0, "InvalidResult");
        let twice = br#"{"schema":"requiem-bench/1","schema":"requiem-bench/1"}"#;
        assert_eq!(ResultDocument::parse(twice).unwrap_err().error_code, "InvalidResult");
    }

    #[test]
    fn readers_pass_over_what_is_added_later() {
        let mut newer = serde_json::to_value(document(&[3, 1, 2])).unwrap();
        newer["colour"] = json!("red");
        assert!(ResultDocument::parse(newer.to_string().as_bytes()).is_ok());
    }
}
