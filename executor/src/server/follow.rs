//! Reading a stream while its run goes on.

use std::sync::Arc;
use std::time::Duration;

use requiem_model::attempt::AttemptState;
use requiem_sandbox::StdStream;

use crate::attempts::Entry;
use crate::live::Part;

/// What the attempt has written to `stream` from the position `from` on, as soon as there is something. Nothing if there is none
/// after `limit`, or when it has just begun. `None` when it has ended: what it wrote is in its result, if it has one.
pub(crate) async fn next(entry: Arc<Entry>, stream: StdStream, from: u64, limit: Duration) -> Option<Part> {
    let nothing = Part { start: from, bytes: Vec::new() };
    // In this order: a run that ends in between has an end in `state`.
    let (live, mut state) = (entry.live(), entry.watch());
    // Only the registry may hold the entry while we wait: a forgotten attempt then wakes us.
    drop(entry);
    let waited = async {
        let nothing = nothing.clone();
        let Some(live) = live else {
            let begun = state.wait_for(|state| *state.as_ref() != AttemptState::Queued).await;
            return begun.is_ok_and(|state| !state.is_final()).then_some(nothing);
        };
        let shown = live.stream(stream);
        tokio::select! {
            biased;
            () = shown.beyond(from) => Some(shown.read(from)),
            _ended = state.wait_for(|state| state.is_final()) => None,
        }
    };
    tokio::time::timeout(limit, waited).await.unwrap_or(Some(nothing))
}
