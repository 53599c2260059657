//! Child processes: run one to its end, keep one in the background, and end one that another xtask started.
//!
//! Every child leads a process group that the reaper knows, so none outlives this process unless it is released.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::progress::Step;
use crate::{Error, Result, reaper};

/// How long a program may take to become ready; a loaded machine needs a multiple of the usual 4 s.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two looks at a port or at `/readyz`, neither of which can announce itself.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// A child in a process group of its own. Dropped: the group is killed and waited for.
#[derive(Debug)]
pub struct Background {
    child: Child,
    released: bool,
}

/// A process that is not our child, held by a descriptor so that its id cannot be reused under us.
#[derive(Debug)]
pub struct Target {
    pid: Pid,
    fd: OwnedFd,
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended with code 0.
    pub ok: bool,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

// === impl Background ===

impl Background {
    /// Starts `command` in a group of its own.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let reaper = reaper::global()?;
        let child = command.process_group(0).spawn().map_err(start_error(command))?;
        let guard = Self { child, released: false };
        reaper.watch_group(guard.id())?;
        Ok(guard)
    }

    /// Process id, which is also the group's.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system refuses.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::io("ask for a child's state"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The system refuses.
    pub fn wait(mut self) -> Result<ExitStatus> {
        if let Some(target) = Target::of(self.id())? {
            while !target.wait_gone(Duration::from_secs(3600))? {}
        }
        self.collect()
    }

    /// Lets it live on after this process.
    ///
    /// # Errors
    /// The reaper cannot be told; then the child is killed.
    pub fn release(mut self) -> Result<()> {
        reaper::global()?.forget_group(self.id())?;
        self.released = true;
        Ok(())
    }

    /// Ends the group: SIGTERM if there is any `grace`, SIGKILL after it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop(mut self, grace: Duration) -> Result<ExitStatus> {
        if let Some(target) = Target::of(self.id())? {
            target.end(grace)?;
        }
        self.collect()
    }

    /// Whatever is left in the group goes. While the leader is not collected its id cannot name another group.
    fn kill_group(&self) {
        if let Some(pid) = pid(self.id()) {
            // ESRCH is the good case, and in a destructor there is nobody to tell about another.
            let _already_gone = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Forgets and collects the ended leader, in this order: afterwards the id may be reused.
    fn collect(&mut self) -> Result<ExitStatus> {
        self.released = true;
        reaper::global()?.forget_group(self.id())?;
        self.child.wait().map_err(Error::io("wait for a child"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        self.kill_group();
        // Collects the zombie; how a killed child ended is known, and a missing reaper has nothing to forget.
        let _status = self.collect();
    }
}

// === impl Target ===

impl Target {
    /// Holds process `id`; `None` if there is none.
    ///
    /// # Errors
    /// The kernel has no pidfd (older than 5.3) or refuses.
    pub fn of(id: u32) -> Result<Option<Self>> {
        let Some(pid) = pid(id) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { pid, fd })),
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(errno) => Err(Error::io(format!("hold process {id}"))(errno.into())),
        }
    }

    /// Ends its group: SIGTERM if there is any `grace`, SIGKILL after it. `false` if it is still there then, which is so only
    /// where the kernel itself hangs.
    ///
    /// # Errors
    /// The system refuses.
    pub fn end(&self, grace: Duration) -> Result<bool> {
        if !grace.is_zero() {
            signal_group(self.pid, Signal::TERM)?;
            self.wait_gone(grace)?;
        }
        signal_group(self.pid, Signal::KILL)?;
        self.wait_gone(Duration::from_secs(30))
    }

    /// Waits until it is gone (or a zombie); `false` after `limit`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn wait_gone(&self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(rest.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for a process")(errno.into())),
            }
        }
    }
}

/// When process `id` was started, in clock ticks since boot: together with the id it names one process.
pub fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted after its end. This is field 22 of proc_pid_stat(5).
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether somebody listens on `port` in the network namespace of process `id`.
pub fn listens(id: u32, port: u16) -> bool {
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{id}/net/{table}")));
    tables.iter().flatten().any(|table| has_listener(table, port))
}

/// Reads a table of proc_pid_net(5): the second field is address:port in hexadecimal, the fourth the state, of which 0A listens.
fn has_listener(table: &str, port: u16) -> bool {
    table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        let local = fields.get(1).and_then(|local| local.rsplit_once(':'));
        let own = local.and_then(|(_, digits)| u16::from_str_radix(digits, 16).ok());
        own == Some(port) && fields.get(3) == Some(&"0A")
    })
}

/// Starts `command` in the background with both streams in the file `log`.
///
/// # Errors
/// The file cannot be written, or the program not be started.
pub fn spawn_logged(command: &mut Command, log: &Path) -> Result<Background> {
    let doing = || Error::io(format!("write {}", log.display()));
    let file = File::create(log).map_err(doing())?;
    let copy = file.try_clone().map_err(doing())?;
    Background::spawn(command.current_dir("/").stdin(Stdio::null()).stdout(copy).stderr(file))
}

/// Looks until `there` says yes; stops when the program has ended or took longer than two minutes.
///
/// # Errors
/// [`Error::NotReady`] with the end of the log.
pub fn wait_ready(
    child: &mut Background,
    program: &str,
    log: &Path,
    step: &mut Step,
    there: impl Fn() -> Result<bool>,
) -> Result<()> {
    wait_until(program, log, step, || {
        if there()? {
            return Ok(true);
        }
        match child.ended()? {
            Some(status) => Err(not_ready(log, format!("{program} ended ({status}) before it was ready"))),
            None => Ok(false),
        }
    })
}

/// As [`wait_ready`], for something that no program of ours stands for alone; `log` is where to look if it does not come.
///
/// # Errors
/// [`Error::NotReady`] with the end of the log.
pub fn wait_until(
    what: &str,
    log: &Path,
    step: &mut Step,
    mut there: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !there()? {
        if start.elapsed() > READY_LIMIT {
            return Err(not_ready(log, format!("{what} was not ready after {} s", READY_LIMIT.as_secs())));
        }
        step.at(&format!("waiting for {what}"));
        std::thread::sleep(READY_PAUSE);
    }
    Ok(())
}

/// Runs `command` to its end with both streams captured.
///
/// # Errors
/// It cannot be started. A failing end is not an error here.
pub fn capture(command: &mut Command) -> Result<Said> {
    capture_with(command, Stdio::null())
}

/// As [`capture`], with something to read.
///
/// # Errors
/// As for [`capture`].
pub fn capture_with(command: &mut Command, input: impl Into<Stdio>) -> Result<Said> {
    let reaper = reaper::global()?;
    let child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(start_error(command))?;
    let id = child.id();
    reaper.watch_group(id)?;
    let output = child.wait_with_output().map_err(Error::io("read a child's output"))?;
    reaper.forget_group(id)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        ok: output.status.success(),
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

/// As [`capture`], and a failing end is an error. Returns standard output.
///
/// # Errors
/// It cannot be started, or it failed.
pub fn output(command: &mut Command) -> Result<String> {
    output_with(command, Stdio::null())
}

/// As [`output`], with something to read.
///
/// # Errors
/// As for [`output`].
pub fn output_with(command: &mut Command, input: impl Into<Stdio>) -> Result<String> {
    let said = capture_with(command, input)?;
    if said.ok {
        return Ok(said.stdout);
    }
    let output = if said.stderr.trim().is_empty() { said.stdout } else { said.stderr };
    Err(failed(command, said.status, &output))
}

/// Runs `command` with the streams of this process; a failing end is an error.
///
/// # Errors
/// It cannot be started, or it failed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = Background::spawn(command.stdin(Stdio::null()))?.wait()?;
    if status.success() { Ok(()) } else { Err(failed(command, status, "")) }
}

/// The error of a program that ended badly; keeps the last lines of what it said.
pub fn failed(command: &Command, status: ExitStatus, output: &str) -> Error {
    Error::Program { program: shown(command), status: status.to_string(), output: last_lines(output, 30) }
}

/// The last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn not_ready(log: &Path, what: String) -> Error {
    let tail = fs::read_to_string(log).map(|text| last_lines(&text, 15)).unwrap_or_default();
    Error::NotReady { what, tail }
}

fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program).to_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn start_error(command: &Command) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(format!("start {}", command.get_program().to_string_lossy()))
}

fn signal_group(pid: Pid, signal: Signal) -> Result<()> {
    match kill_process_group(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::io("signal a process group")(errno.into())),
    }
}

fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000\n";
        assert!(has_listener(table, 8080));
        assert!(!has_listener(table, 8081), "a connection's own port");
    }

    #[test]
    fn an_own_listener_is_seen_and_its_end_too() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens(std::process::id(), port));
        drop(listener);
        assert!(!listens(std::process::id(), port));
    }
}
