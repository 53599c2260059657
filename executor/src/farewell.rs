//! The end of the executor: runs end, results are fetched, the runner is let go, and a last word is left for whoever
//! finds the pod after all of it is gone.
//!
//! ```text
//! SIGTERM here, or at the runner's container, or the one Execution is done
//!   → nothing new starts → runs end (or are ended when the time is over)
//!   → in a pod: results are fetched and acknowledged → the runner is let go → termination message
//! ```
//!
//! The kubelet ends the workload's container first and a sidecar last. So the runner hears SIGTERM before the executor
//! does; it goes on serving and passes the word on. When the runner has been let go the kubelet ends the executor.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use requiem_model::attempt::AttemptState;
use serde::Serialize;

use crate::attempts::Attempts;
use crate::journal::AttemptKey;

/// Name of the document's form.
const SCHEMA: &str = "requiem.termination/1";
/// What the kubelet keeps of a termination message.
const MAX_BYTES: usize = 4096;

/// One result in it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sealed<'a> {
    uid: &'a str,
    attempt: u32,
    execution_root: String,
    bundle_root: String,
}

/// The roots of as many results as a termination message has room for.
pub(crate) fn message(results: &[(AttemptKey, Arc<AttemptState>)]) -> String {
    let mut kept = Vec::new();
    let mut text = render(&kept);
    for (key, state) in results {
        let AttemptState::Sealed { sealed } = state.as_ref() else { continue };
        kept.push(Sealed {
            uid: &key.uid,
            attempt: key.attempt,
            execution_root: sealed.execution_root.to_string(),
            bundle_root: sealed.bundle_root.to_string(),
        });
        let longer = render(&kept);
        if longer.len() > MAX_BYTES {
            break;
        }
        text = longer;
    }
    text
}

fn render(results: &[Sealed<'_>]) -> String {
    serde_json::json!({ "schema": SCHEMA, "results": results }).to_string()
}

/// Writes the last word.
pub(crate) fn leave_word(attempts: &Attempts, path: &Path) {
    if let Err(error) = std::fs::write(path, message(&attempts.results())) {
        tracing::warn!(path = %path.display(), %error, "the termination message was not written");
    }
}

/// Waits until every end is acknowledged; false when `patience` is over first.
pub(crate) async fn fetched(attempts: &Attempts, patience: Duration) -> bool {
    tokio::time::timeout(patience, attempts.settled()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use requiem_model::attempt::SealedAttempt;
    use requiem_model::{BundleRoot, ExecutionRoot};

    fn result(attempt: u32) -> (AttemptKey, Arc<AttemptState>) {
        let sealed = SealedAttempt {
            body: "{}".into(),
            execution_root: ExecutionRoot::from_bytes([1; 32]),
            bundle_root: BundleRoot::from_bytes([2; 32]),
            stdout_tail: String::new(),
            stderr_tail: String::new(),
        };
        let key = AttemptKey { uid: format!("{attempt:036}"), attempt };
        (key, Arc::new(AttemptState::Sealed { sealed: Box::new(sealed) }))
    }

    #[test]
    fn the_last_word_fits_and_is_whole() {
        for count in [0, 1, 15, 300] {
            let results: Vec<_> = (0..count).map(result).collect();
            let text = message(&results);
            assert!(text.len() <= MAX_BYTES, "{count}: {}", text.len());
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(parsed["schema"], SCHEMA);
            let kept = parsed["results"].as_array().unwrap().len();
            assert!(kept == results.len() || kept >= 15, "{kept} of {count}");
        }
    }
}
