//! What the user sees while waiting: phases on standard error, results on standard output.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line is repeated where there is no terminal to rewrite.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);

/// One long step. On a terminal one line is rewritten; elsewhere a line appears every ten seconds.
#[derive(Debug)]
pub struct Step {
    name: String,
    start: Instant,
    last: Instant,
    terminal: bool,
}

impl Step {
    /// Announces a step.
    pub fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let now = Instant::now();
        say(&format!("· {name}"));
        Self { name, start: now, last: now, terminal: io::stderr().is_terminal() }
    }

    /// Says how far the step is.
    pub fn at(&mut self, how_far: &str) {
        let pause = if self.terminal { Duration::from_millis(200) } else { QUIET_INTERVAL };
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        let line = format!("  {}: {how_far}, {}", self.name, seconds(self.start.elapsed()));
        if self.terminal { write(&format!("\r\x1b[K{line}")) } else { say(&line) }
    }

    /// Closes the step.
    pub fn done(self) {
        self.close('✓');
    }

    /// Closes a step whose work had findings.
    pub fn failed(self) {
        self.close('✗');
    }

    fn close(self, mark: char) {
        let line = format!("{mark} {} ({})", self.name, seconds(self.start.elapsed()));
        if self.terminal { write(&format!("\r\x1b[K{line}\n")) } else { say(&line) }
    }
}

/// One line to the user, on standard error.
pub fn say(line: &str) {
    write(&format!("{line}\n"));
}

/// One line of the command's result, on standard output.
pub fn print(line: &str) {
    // A reader that has gone away (`| head`) is no reason to stop half way through a clean-up.
    let _closed = writeln!(io::stdout().lock(), "{line}");
}

/// A duration as people say it.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    // Progress is a courtesy: a closed standard error must not fail the work.
    let _closed = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
