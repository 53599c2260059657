//! Collect: the declared outputs leave the dead workspace for the store. What cannot be kept is named, with
//! the reason; only a store that fails is a failure of the attempt.

use std::os::fd::BorrowedFd;

use requiem_cas::{Durability, IngestError, TenantStore, TreeLimits};
use requiem_model::result::{MissingOutput, Output};
use requiem_model::{Failure, RelPath};

use super::{one_line, store_failure};
use crate::execute::Keep;

/// Longest reason for a missing output, in bytes.
const MAX_WHY: usize = 200;

/// What was found, in the order of the request.
pub(crate) struct Collected {
    pub(crate) outputs: Vec<Output>,
    pub(crate) missing: Vec<MissingOutput>,
    pub(crate) durability: Durability,
}

/// Puts every declared output into the store.
pub(crate) fn collect(
    store: &TenantStore,
    keep: Keep,
    workspace: BorrowedFd<'_>,
    declared: &[RelPath],
) -> Result<Collected, Failure> {
    let mut found = Collected { outputs: vec![], missing: vec![], durability: Durability::Strict };
    for path in declared {
        match store.ingest(workspace, path, &TreeLimits::OUTPUT, keep.large()) {
            Ok(ingested) => {
                found.durability = found.durability.min(ingested.durability);
                found.outputs.push(Output { path: path.clone(), content: ingested.content });
            }
            Err(IngestError::Store(error)) => {
                return Err(store_failure(&format!("cannot keep output {path}"), &error));
            }
            Err(error) => {
                found.missing.push(MissingOutput { path: path.clone(), why: why(path, &error.to_string()) })
            }
        }
    }
    Ok(found)
}

/// One line of bounded length, without the path that stands beside it anyway.
fn why(path: &RelPath, text: &str) -> String {
    let text = text.strip_prefix(path.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(text);
    one_line(text, MAX_WHY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let path = RelPath::parse("out").unwrap();
        assert_eq!(why(&path, "out: absent"), "absent");
        assert_eq!(why(&path, "out/a: is a FIFO"), "out/a: is a FIFO");
        assert_eq!(why(&path, "out/a\n\u{1}: x"), "out/a\u{fffd}\u{fffd}: x");
        assert!(why(&path, &"é".repeat(300)).len() <= MAX_WHY);
    }
}
