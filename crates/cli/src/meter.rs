//! Progress of long work: one line on standard error, if that is a terminal, gone when the work ends.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(200);

/// Shows `line` until `work` is done.
pub(crate) fn during<T>(line: &(dyn Fn() -> String + Sync), work: impl FnOnce() -> T) -> T {
    let is_shown = io::stderr().is_terminal() && env::var_os("TERM").is_some_and(|name| name != "dumb");
    if !is_shown {
        return work();
    }
    thread::scope(|scope| {
        let (stop, stopped) = channel::<()>();
        let shower = scope.spawn(move || show(line, &stopped));
        let done = work();
        drop(stop);
        // It has nothing to say but the line.
        drop(shower.join());
        done
    })
}

fn show(line: &(dyn Fn() -> String + Sync), stopped: &Receiver<()>) {
    let mut out = io::stderr();
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
        // Nobody misses a line of progress.
        let _unseen = write!(out, "\r\x1b[K{}", line()).and_then(|()| out.flush());
    }
    let _unseen = write!(out, "\r\x1b[K").and_then(|()| out.flush());
}
