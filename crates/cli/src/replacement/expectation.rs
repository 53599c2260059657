//! What is known of a result before it is there.

use std::collections::BTreeMap;

use requiem_model::dual::{Category, Mismatch, output_in_words, stream_in_words};
use requiem_model::result::{Outcome, RunResult};
use requiem_model::{BlobDigest, RelPath};
use serde::Deserialize;

/// Items of a result. What is absent is not expected to be anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expectation {
    exit_code: Option<u8>,
    signal: Option<u8>,
    timed_out: Option<bool>,
    stdout: Option<Content>,
    stderr: Option<Content>,
    stdout_truncated: Option<bool>,
    stderr_truncated: Option<bool>,
    /// By path; null for one that is not to be there.
    outputs: BTreeMap<RelPath, Option<Content>>,
    /// Whether runs are to come out the same. One that says false is a command that cannot: equal runs of it were not run.
    pub(crate) deterministic: Option<bool>,
}

/// Bytes, as they are or by their digest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Content {
    text: Option<String>,
    digest: Option<String>,
    executable: bool,
    folder: bool,
}

impl Expectation {
    /// Whether it can be met.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ends = [self.exit_code.is_some(), self.signal.is_some(), self.timed_out == Some(true)];
        if ends.iter().filter(|named| **named).count() > 1 {
            return Err("expect: there is more than one end in exit_code, signal and timed_out".to_owned());
        }
        let streams = [("stdout", &self.stdout), ("stderr", &self.stderr)];
        let streams =
            streams.into_iter().filter_map(|(name, content)| Some((name.to_owned(), content.as_ref()?)));
        let outputs = self.outputs.iter();
        let outputs =
            outputs.filter_map(|(path, content)| Some((format!("outputs[{path}]"), content.as_ref()?)));
        for (name, content) in streams.chain(outputs) {
            if content.text.is_some() == content.digest.is_some() {
                return Err(format!("expect.{name}: it is not exactly one of text and digest"));
            }
        }
        Ok(())
    }

    /// Where a result is not what is expected. What was expected stands on the primary's side.
    pub(crate) fn missed_by(&self, result: &RunResult) -> Vec<Mismatch> {
        let mut found = Vec::new();
        for (path, wanted) in &self.outputs {
            let output = result.outputs.iter().find(|output| output.path == *path);
            let actual =
                output.map_or_else(|| "missing".to_owned(), |output| output_in_words(&output.content));
            let wanted = wanted.as_ref().map_or_else(|| "missing".to_owned(), Content::in_words);
            differs(&mut found, Category::DigestMismatch, format!("output {path}"), wanted, actual);
        }
        if let Some(wanted) = self.outcome() {
            let (wanted, actual) = (wanted.to_string(), result.outcome.to_string());
            differs(&mut found, Category::ExitCodeMismatch, "exit".to_owned(), wanted, actual);
        }
        let streams = [
            (Category::StdoutMismatch, "stdout", &self.stdout, self.stdout_truncated, &result.stdout),
            (Category::StderrMismatch, "stderr", &self.stderr, self.stderr_truncated, &result.stderr),
        ];
        for (category, item, content, truncated, actual) in streams {
            let digest = content.as_ref().map_or_else(|| actual.digest.to_string(), Content::digest);
            let is_cut = truncated.unwrap_or(actual.truncated);
            let wanted = if is_cut { format!("{digest} truncated") } else { digest };
            differs(&mut found, category, item.to_owned(), wanted, stream_in_words(actual));
        }
        found
    }

    const fn outcome(&self) -> Option<Outcome> {
        match (self.exit_code, self.signal, self.timed_out) {
            (Some(code), _, _) => Some(Outcome::Exited { code }),
            (_, Some(signal), _) => Some(Outcome::Signalled { signal }),
            (_, _, Some(true)) => Some(Outcome::TimedOut),
            _ => None,
        }
    }
}

impl Content {
    fn digest(&self) -> String {
        let of_text = self.text.as_ref().map(|text| BlobDigest::of(text.as_bytes()).to_string());
        of_text.or_else(|| self.digest.clone()).unwrap_or_default()
    }

    fn in_words(&self) -> String {
        let word = if self.folder {
            " folder"
        } else if self.executable {
            " executable"
        } else {
            ""
        };
        self.digest() + word
    }
}

fn differs(found: &mut Vec<Mismatch>, category: Category, item: String, primary: String, candidate: String) {
    if primary != candidate {
        found.push(Mismatch { category, item, primary, candidate });
    }
}

#[cfg(test)]
mod tests {
    use requiem_model::result::{Output, OutputContent, Stream};

    use super::*;

    fn result() -> RunResult {
        let stream = |text: &[u8], truncated| Stream {
            digest: BlobDigest::of(text),
            bytes: text.len() as u64,
            truncated,
        };
        let content = OutputContent::Blob { digest: BlobDigest::of(b"x"), bytes: 1, executable: true };
        RunResult {
            outcome: Outcome::Exited { code: 3 },
            stdout: stream(b"out", true),
            stderr: stream(b"", false),
            outputs: vec![Output { path: RelPath::parse("o").unwrap(), content }],
            missing_outputs: Vec::new(),
        }
    }

    fn missed(text: &str) -> Vec<String> {
        let expectation: Expectation = serde_json::from_str(text).unwrap();
        expectation.check().unwrap();
        expectation.missed_by(&result()).into_iter().map(|row| row.item).collect()
    }

    #[test]
    fn each_item_is_held_against_the_result() {
        assert!(missed("{}").is_empty());
        let all = r#"{"exit_code": 3, "stdout": {"text": "out"}, "stdout_truncated": true, "stderr": {"text": ""}, "stderr_truncated": false,
                      "outputs": {"o": {"text": "x", "executable": true}, "gone": null}}"#;
        assert!(missed(all).is_empty());
        for (text, item) in [
            (r#"{"exit_code": 0}"#, "exit"),
            (r#"{"signal": 3}"#, "exit"),
            (r#"{"timed_out": true}"#, "exit"),
            (r#"{"stdout": {"text": "other"}}"#, "stdout"),
            (r#"{"stdout_truncated": false}"#, "stdout"),
            (r#"{"stderr": {"text": "x"}}"#, "stderr"),
            (r#"{"stderr_truncated": true}"#, "stderr"),
            (r#"{"outputs": {"o": {"text": "x"}}}"#, "output o"),
            (r#"{"outputs": {"o": {"text": "y", "executable": true}}}"#, "output o"),
            (r#"{"outputs": {"o": null}}"#, "output o"),
            (r#"{"outputs": {"gone": {"text": ""}}}"#, "output gone"),
        ] {
            assert_eq!(missed(text), [item], "{text}");
        }
    }
}
