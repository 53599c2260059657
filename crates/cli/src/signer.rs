//! Asks a signer: another program, run once for each question and trusted with nothing but its answer.
//!
//! Flow: look at the file → start it in a process group of its own, with an empty environment, in `/` → question to its standard
//! input, end of file → answer from its standard output, up to 64 KiB, until the deadline → whatever is left of it is killed → how
//! it ended and what it said must agree.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use requiem_proof::signer::{Ask, MAX_REPLY_BYTES, Question, read};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open, waitpid,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CommandError;

/// A program that speaks `requiem-signer/1`.
#[derive(Debug)]
pub(crate) struct Signer {
    program: PathBuf,
    arguments: Vec<String>,
    deadline: Duration,
}

impl Signer {
    /// A signer at an absolute path.
    pub(crate) fn new(
        program: &Path,
        arguments: &[String],
        deadline: Duration,
    ) -> Result<Self, CommandError> {
        check_program(program)?;
        Ok(Self { program: program.to_owned(), arguments: arguments.to_vec(), deadline })
    }

    /// Asks, and gives back the answer if it is one.
    pub(crate) fn ask<T: DeserializeOwned + Serialize>(&self, ask: Ask) -> Result<T, CommandError> {
        let question = serde_json::to_vec(&Question::from(ask))
            .map_err(|error| refused("E_PLUGIN_REPLY", format!("the question has no JSON form: {error}")))?;
        // Orphans of the signer become ours, so that they can be found and killed.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| refused("E_PLUGIN_START", format!("it cannot be watched: {error}")))?;
        // A program that became this one may have left it children.
        let others = children();
        let mut child = self.start()?;
        let answer = self.talk(&mut child, question);
        let status = end(&mut child, &others);
        let reply = answer?;
        let ended_well = status.map_err(|error| refused("E_PLUGIN_START", error))?;
        read(&reply, ended_well).map_err(|error| refused(error.code(), error.to_string()))
    }

    fn start(&self) -> Result<Child, CommandError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map_err(|error| {
            refused("E_PLUGIN_START", format!("{} cannot be started: {error}", self.program.display()))
        })
    }

    /// Neither a signer that does not read nor one that does not end holds us up: each pipe has a thread of its own.
    fn talk(&self, child: &mut Child, question: Vec<u8>) -> Result<Vec<u8>, CommandError> {
        let until = Instant::now() + self.deadline;
        let late = || refused("E_PLUGIN_DEADLINE", format!("it did not answer within {:?}", self.deadline));
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(refused("E_PLUGIN_START", "its pipes are missing"));
        };
        thread::spawn(move || {
            // A signer that knows its answer need not read; what it then misses is its own affair.
            let _unread = input.write_all(&question);
        });
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut reply = Vec::new();
            let read = output.take(MAX_REPLY_BYTES as u64 + 1).read_to_end(&mut reply);
            // Nobody listens after the deadline.
            let _late = tell.send(read.map(|_| reply));
        });
        let reply = told.recv_timeout(self.deadline).map_err(|_| late())?;
        let reply =
            reply.map_err(|error| refused("E_PLUGIN_REPLY", format!("it cannot be read: {error}")))?;
        if reply.len() > MAX_REPLY_BYTES {
            return Err(refused(
                "E_PLUGIN_OUTPUT",
                format!("it answers with more than {MAX_REPLY_BYTES} bytes"),
            ));
        }
        // Its output has ended, so it is about to; one that closes it and lives on has its deadline all the same.
        if ends_before(child, until).map_err(|error| refused("E_PLUGIN_START", error.to_string()))? {
            Ok(reply)
        } else {
            Err(late())
        }
    }
}

/// Waits for a child's end without collecting it: until then its id, and its group's, cannot name another.
fn ends_before(child: &Child, until: Instant) -> std::io::Result<bool> {
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else { return Ok(true) };
    let held = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(rest.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&held, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills what is left of a signer, its descendants in other groups too, and says whether it had ended well by itself.
fn end(child: &mut Child, others: &[Pid]) -> Result<bool, String> {
    let ended = ends_before(child, Instant::now()).map_err(|error| error.to_string())?;
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        // None of it being left is the good case.
        let _already_gone = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    kill_orphans(others);
    Ok(ended && status.success())
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

fn check_program(program: &Path) -> Result<(), CommandError> {
    let wrong = |why: &str| refused("E_PLUGIN_PROGRAM", format!("{} {why}", program.display()));
    if !program.is_absolute() {
        return Err(wrong("is not an absolute path"));
    }
    let meta =
        fs::symlink_metadata(program).map_err(|error| wrong(&format!("cannot be looked at: {error}")))?;
    if meta.is_symlink() {
        return Err(wrong("is a symbolic link: name the program itself"));
    }
    let mode = meta.permissions().mode();
    if !meta.is_file() || mode & 0o111 == 0 {
        return Err(wrong("is not an executable file"));
    }
    if mode & 0o022 != 0 {
        return Err(wrong("can be changed by others: chmod go-w it"));
    }
    Ok(())
}

/// A signer that cannot be used.
pub(crate) fn refused(code: &str, why: impl Into<String>) -> CommandError {
    let message = format!("the signer cannot be used: {}", why.into());
    CommandError::unusable(
        code,
        message,
        "see docs/signers.md; ask it yourself: echo '{\"protocol\":\"requiem-signer/1\",\"verb\":\"info\"}' | PROGRAM",
    )
}
