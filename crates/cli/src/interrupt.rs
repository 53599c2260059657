//! Ctrl-C, for commands that can say how far they came.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{CommandError, INTERRUPTED};

/// A flag that the first Ctrl-C sets; the second one ends the program.
pub(crate) fn flag() -> Result<Arc<AtomicBool>, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::unusable(
            "Environment",
            format!("cannot listen for signals: {error}"),
            "see the system's message",
        )
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = {
        let _context = runtime.enter();
        signal(SignalKind::interrupt()).map_err(failed)?
    };
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&flag);
    thread::spawn(move || {
        runtime.block_on(async {
            signals.recv().await;
            theirs.store(true, Ordering::Relaxed);
            signals.recv().await;
        });
        process::exit(i32::from(INTERRUPTED));
    });
    Ok(flag)
}
