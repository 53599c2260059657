//! Waiting for the end of a run in the background: one long poll per running attempt, which ends when the
//! payload does. Nothing polls on a timer.

use std::time::Duration;

use requiem_model::attempt::AttemptState;

use super::tracker::Place;
use crate::backoff;
use crate::context::Context;
use crate::dispatch::{DispatchError, Endpoint};
use crate::health::GRACE;
use crate::queue::Key;

/// How long one poll waits for the end of a run.
const RUNNING: Duration = Duration::from_secs(30);
/// How long one poll waits while the attempt is queued or has just begun: executors answer at the end, not at the
/// start of a run.
const QUEUED: Duration = Duration::from_secs(2);

/// One attempt that is waited for.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The Execution.
    pub key: Key,
    /// Its UID.
    pub uid: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Who has it.
    pub endpoint: Endpoint,
}

/// Makes sure that one task waits for the attempt.
pub fn ensure(context: &Context, followed: Followed) {
    let Followed { uid, attempt, endpoint, .. } = followed.clone();
    let task = context.clone();
    let spawn = || tokio::spawn(follow(task, followed)).abort_handle();
    context.tracker.follow(&uid, attempt, &endpoint, spawn);
}

async fn follow(context: Context, followed: Followed) {
    let (mut pause, mut troubles, mut ran) = (QUEUED, 0, false);
    loop {
        let Followed { uid, attempt, endpoint, .. } = &followed;
        match context.dispatcher.wait(endpoint, uid, *attempt, pause).await {
            Ok(Some(state)) => {
                troubles = 0;
                let (over, runs) = (state.is_final(), state == AttemptState::Running);
                if runs && !std::mem::replace(&mut ran, true) {
                    // It just began, or was running when we came: said only if it is not over soon.
                    pause = QUEUED;
                    continue;
                }
                pause = if runs { RUNNING } else { QUEUED };
                if !note(&context, &followed, Place::At(endpoint.clone(), Box::new(state))) || over {
                    return;
                }
            }
            Ok(None) => {
                // The executor has forgotten it: its journal was lost. Everybody is asked before it is started anew.
                note(&context, &followed, Place::Unknown);
                return;
            }
            Err(error) if error.is_draining() => {
                // It had not begun, and will not begin there.
                context.health.failed(endpoint, &error);
                note(&context, &followed, Place::Unknown);
                return;
            }
            Err(error) if error.is_absence() => {
                absent(&context, &followed, &error, troubles).await;
                troubles += 1;
            }
            Err(error) => {
                tracing::warn!(execution = %followed.key, %error, "waiting for an attempt failed");
                tokio::time::sleep(backoff::delay(uid, troubles)).await;
                troubles += 1;
            }
        }
    }
}

/// Waits until the executor is back; if that takes longer than the grace period, the status shall say so.
async fn absent(context: &Context, followed: &Followed, error: &DispatchError, troubles: u32) {
    context.health.failed(&followed.endpoint, error);
    if context.health.outage(&followed.endpoint).is_none() {
        // It is back already, or in no pool any more, where nobody probes it; the next decision knows.
        context.execution_queue.push(followed.key.clone());
        tokio::time::sleep(backoff::delay(&followed.uid, troubles)).await;
        return;
    }
    let back = context.health.until_up(&followed.endpoint);
    tokio::pin!(back);
    if tokio::time::timeout(GRACE, &mut back).await.is_err() {
        context.execution_queue.push(followed.key.clone());
        back.await;
    }
}

/// Notes the new place and has it looked at. `false` when the attempt is not the current one any more.
fn note(context: &Context, followed: &Followed, place: Place) -> bool {
    let changed = context.tracker.with(&followed.uid, |live| {
        let current = live.attempt == followed.attempt
            && matches!(&live.place, Place::At(endpoint, state) if *endpoint == followed.endpoint && !state.is_final());
        let changed = current && live.place != place;
        if changed {
            live.place = place;
        }
        current.then_some(changed)
    });
    if changed.flatten() == Some(true) {
        context.execution_queue.push(followed.key.clone());
    }
    changed.flatten().is_some()
}
