//! A program beside this one and everything that it starts: bounded while it runs, gone when it has ended.
//!
//! What left its process group is found because orphans of this process's children become its own (`PR_SET_CHILD_SUBREAPER`, prctl(2)). So
//! while a companion lives no other thread of this process may start children: they would be taken for its orphans.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{cmp, fs};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open, waitpid,
};

/// How often is looked at what gives no sign by itself: the size of a folder.
pub const GLANCE: Duration = Duration::from_millis(200);

const CHUNK: usize = 64 * 1024;

/// A child in a process group of its own. Dropping it kills whatever is left of it.
#[derive(Debug)]
pub struct Companion {
    child: Child,
    /// Readable once the child has ended.
    held: OwnedFd,
    /// Children that this process had before.
    others: Vec<Pid>,
    collected: bool,
}

/// How a companion ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Not by our hand.
    pub by_itself: bool,
    /// Its status.
    pub status: ExitStatus,
}

/// A question for a program that reads it from its standard input and answers on its standard output.
pub struct Question<'a> {
    /// The program, by its absolute path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// What it is asked.
    pub text: &'a [u8],
    /// Longest answer, in bytes.
    pub limit: usize,
    /// For answer and end together.
    pub deadline: Duration,
    /// Gives the asking up once it is readable.
    pub cancel: Option<BorrowedFd<'a>>,
    /// Gives the asking up for the reason that it names; asked every [`GLANCE`].
    pub check: &'a dyn Fn() -> Option<String>,
}

/// An answer, and whether the program then ended with success.
#[derive(Debug)]
pub struct Answer {
    /// What stood on its standard output.
    pub bytes: Vec<u8>,
    /// Exit code 0, by itself.
    pub ended_well: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be started or watched.
    #[error("{0}")]
    Start(String),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// It did not answer and end in time.
    #[error("it did not answer within {0:?}")]
    Late(Duration),
    /// It answers with more than it may.
    #[error("it answers with more than {0} bytes")]
    TooLong(usize),
    /// The asking was given up.
    #[error("it was given up")]
    Cancelled,
    /// The asking was given up for this reason.
    #[error("{0}")]
    Stopped(String),
}

/// Says why a program must not be started: only a regular file that nobody but its owner changes may.
///
/// # Errors
/// What is wrong with it.
pub fn check_program(program: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let wrong = |why: &str| Err(format!("{} {why}", program.display()));
    if !program.is_absolute() {
        return wrong("is not an absolute path");
    }
    let meta = match fs::symlink_metadata(program) {
        Ok(meta) => meta,
        Err(error) => return wrong(&format!("cannot be looked at: {error}")),
    };
    if meta.is_symlink() {
        return wrong("is a symbolic link: name the program itself");
    }
    let mode = meta.permissions().mode();
    if !meta.is_file() || mode & 0o111 == 0 {
        return wrong("is not an executable file");
    }
    if mode & 0o022 != 0 {
        return wrong("can be changed by others: chmod go-w it");
    }
    Ok(())
}

/// Asks a program once: an empty environment, the folder `/`, its standard error to nowhere. Nothing of it is left on return.
///
/// # Errors
/// Why there is no answer.
pub fn ask(question: &Question<'_>) -> Result<Answer, AskError> {
    let mut command = Command::new(question.program);
    command.args(question.arguments).env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut companion = Companion::start(&mut command).map_err(|error| {
        AskError::Start(format!("{} cannot be started: {error}", question.program.display()))
    })?;
    let answer = talk(&mut companion, question);
    let ended = companion.end().map_err(|error| AskError::Start(error.to_string()))?;
    Ok(Answer { bytes: answer?, ended_well: ended.by_itself && ended.status.success() })
}

/// Neither a program that does not read nor one that does not end holds us up.
fn talk(companion: &mut Companion, question: &Question<'_>) -> Result<Vec<u8>, AskError> {
    let until = Instant::now() + question.deadline;
    let (input, output, _) = companion.pipes();
    let (Some(input), Some(mut output)) = (input, output) else {
        return Err(AskError::Start("its pipes are missing".to_owned()));
    };
    let unblocked = ioctl_fionbio(&input, true).and_then(|()| ioctl_fionbio(&output, true));
    unblocked.map_err(|errno| AskError::Start(errno.to_string()))?;
    let (mut input, mut rest, mut answer) = (Some(input), question.text, Vec::new());
    loop {
        let ready = wait(output.as_fd(), input.as_ref().map(AsFd::as_fd), question, until)?;
        if let Some(pipe) = input.as_mut().filter(|_| ready.input) {
            match pipe.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if again(&error) => {}
                // A program that knows its answer need not read; what it then misses is its own affair.
                Err(_) => rest = &[],
            }
            if rest.is_empty() {
                input = None;
            }
        }
        if ready.output && take(&mut output, &mut answer, question.limit)? {
            break;
        }
    }
    // Its output has ended, so it is about to; one that closes it and lives on has its deadline all the same.
    while !wait(companion.as_fd(), None, question, until)?.output {}
    Ok(answer)
}

/// Takes what is there; true if there will be no more.
fn take(output: &mut ChildStdout, answer: &mut Vec<u8>, limit: usize) -> Result<bool, AskError> {
    let mut chunk = vec![0; CHUNK];
    match output.read(&mut chunk) {
        Ok(0) => Ok(true),
        Ok(read) => {
            answer.extend_from_slice(&chunk[..read]);
            if answer.len() > limit { Err(AskError::TooLong(limit)) } else { Ok(false) }
        }
        Err(error) if again(&error) => Ok(false),
        Err(error) => Err(AskError::Unreadable(error)),
    }
}

/// What can be done now.
struct Ready {
    input: bool,
    output: bool,
}

/// Waits until something can be done, at most a [`GLANCE`].
fn wait(
    output: BorrowedFd<'_>,
    input: Option<BorrowedFd<'_>>,
    question: &Question<'_>,
    until: Instant,
) -> Result<Ready, AskError> {
    let now = Instant::now();
    if now >= until {
        return Err(AskError::Late(question.deadline));
    }
    if let Some(why) = (question.check)() {
        return Err(AskError::Stopped(why));
    }
    let wanted = [(Some(output), PollFlags::IN), (input, PollFlags::OUT), (question.cancel, PollFlags::IN)];
    let ready = poll_for(wanted, cmp::min(until, now + GLANCE));
    let [output, input, cancelled] = ready.map_err(|error| AskError::Start(error.to_string()))?;
    if cancelled { Err(AskError::Cancelled) } else { Ok(Ready { input, output }) }
}

/// Which of these are ready, waiting for one of them until then.
pub(super) fn poll_for<const N: usize>(
    wanted: [(Option<BorrowedFd<'_>>, PollFlags); N],
    until: Instant,
) -> io::Result<[bool; N]> {
    let mut places = Vec::new();
    let mut polled = Vec::new();
    for (place, (fd, kind)) in wanted.into_iter().enumerate() {
        if let Some(fd) = fd {
            places.push(place);
            polled.push(PollFd::from_borrowed_fd(fd, kind));
        }
    }
    await_any(&mut polled, until)?;
    let mut ready = [false; N];
    for (place, fd) in places.into_iter().zip(&polled) {
        ready[place] = !fd.revents().is_empty();
    }
    Ok(ready)
}

/// Waits until one of them is ready, or until then.
fn await_any(polled: &mut [PollFd<'_>], until: Instant) -> io::Result<()> {
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(rest.subsec_nanos()),
        };
        match poll(polled, Some(&timeout)) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

pub(super) fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

// === impl Companion ===

impl Companion {
    /// Starts `command` in a process group of its own.
    ///
    /// # Errors
    /// It cannot be started or watched.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        // Orphans of it become ours, so that they can be found and killed.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // A program that became this one may have left it children.
        let others = children();
        let mut child = command.process_group(0).spawn()?;
        match watch(&child) {
            Ok(held) => Ok(Self { child, held, others, collected: false }),
            Err(error) => {
                // It would not be found again.
                let _already_gone = child.kill();
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Its ends of the pipes that were asked for; each can be had once.
    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Kills what is left of it, its descendants in other groups too.
    ///
    /// # Errors
    /// The kernel does not say how it ended.
    pub fn end(mut self) -> io::Result<Ended> {
        self.collect()
    }

    fn collect(&mut self) -> io::Result<Ended> {
        self.collected = true;
        // Not collected yet: until then its id, and its group's, cannot name another.
        let [by_itself] = poll_for([(Some(self.held.as_fd()), PollFlags::IN)], Instant::now())?;
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // None of it being left is the good case.
            let _already_gone = kill_process_group(group, Signal::KILL);
        }
        let status = self.child.wait()?;
        kill_orphans(&self.others);
        Ok(Ended { by_itself, status })
    }
}

impl AsFd for Companion {
    /// Readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if !self.collected {
            let _nobody_asks = self.collect();
        }
    }
}

fn watch(child: &Child) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// What left the group is a child of this process once its parent has gone.
fn kill_orphans(others: &[Pid]) {
    for _round in 0..100 {
        let orphans: Vec<Pid> = children().into_iter().filter(|pid| !others.contains(pid)).collect();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans {
            let _already_gone = kill_process(pid, Signal::KILL);
            let _not_ours = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let mut found = Vec::new();
    for list in lists {
        found.extend(list.split_ascii_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)));
    }
    found
}
