//! Engine `rust`: `std::process` in a temporary folder. It isolates nothing: the command runs as this user, sees this machine, and may
//! do whatever this user may. It honours the environment, inputs (copies), standard input, the time limit, the caps of both streams, and
//! a coarse limit on the workspace; a request that requires more than that is refused.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{cmp, io, io::Read};

use requiem_model::result::{FailureReason, Usage};
use requiem_model::{ExecutionRequest, Failure, Outcome};
use requiem_sandbox::StdStream;
use rustix::event::PollFlags;
use rustix::io::ioctl_fionbio;

use super::companion::{Companion, GLANCE, again, poll_for};
use super::folder::Folder;
use super::sandbox::not_runnable;
use super::{Done, Engine, EngineError, Fault, Job, admit_unproven, unproven};

/// Its name.
pub const NAME: &str = "rust";

/// Where programs without a slash in their name are looked for: as in the sandbox.
const PATH: [&str; 6] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];
/// The workspace as requests name it.
const WORKSPACE: &str = "/workspace";
/// Why no layer is in force.
const WHY: &str =
    "engine rust starts the command with std::process, as this user on this machine; it isolates nothing";

/// The engine. One run at a time in a process: see [`Companion`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

/// Why waiting ended.
enum Came {
    End,
    Deadline,
}

/// A stream of the command, until it ends.
struct Pipe<R> {
    stream: StdStream,
    pipe: Option<R>,
}

impl Engine for Portable {
    fn identity(&self) -> requiem_proof::Engine {
        requiem_proof::Engine { name: NAME.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    fn admit(&self, request: &ExecutionRequest) -> Result<(), Failure> {
        admit_unproven(NAME, request)
    }

    fn run(&self, mut job: Job<'_>) -> Result<Done, EngineError> {
        let started = Instant::now();
        let folder = Folder::make().map_err(|error| unusable("cannot make a folder for the run", &error))?;
        folder.stage(&job.inputs).map_err(|error| unusable("cannot copy the inputs", &error))?;
        let at = folder
            .enter(job.request.working_dir.as_ref())
            .map_err(|error| unusable("cannot enter the working directory", &error))?;
        let mount = started.elapsed();
        let stdin = job.stdin.take().map_or_else(Stdio::null, Stdio::from);
        let mut command = command(job.request, &folder.workspace(), &at)?;
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let companion = Companion::start(&mut command).map_err(|error| {
            let program = &job.request.argv[0];
            EngineError::from(not_runnable(format!("cannot start {program:?}: {error}")))
        })?;
        let outcome = follow(companion, &mut job, &folder, began)?;
        let usage = Usage { wall_us: micros(began.elapsed()), ..Usage::default() };
        let report = unproven(NAME, WHY, &job.request.policy);
        let left = folder.left().map_err(|error| unusable("the workspace cannot be read", &error))?;
        Ok(Done { outcome, usage, report, mount, workspace: Box::new(left), claimed: None })
    }
}

/// Follows a command to its end, and ends it where it must.
fn follow(
    mut companion: Companion,
    job: &mut Job<'_>,
    folder: &Folder,
    began: Instant,
) -> Result<Outcome, EngineError> {
    let (_, stdout, stderr) = companion.pipes();
    let mut stdout = Pipe { stream: StdStream::Stdout, pipe: stdout };
    let mut stderr = Pipe { stream: StdStream::Stderr, pipe: stderr };
    stdout.unblock().and_then(|()| stderr.unblock()).map_err(watched)?;
    let until = began + Duration::from_millis(job.request.limits.timeout_ms);
    let came = attend(&companion, (&mut stdout, &mut stderr), job, folder, until)?;
    let ended = companion.end().map_err(watched)?;
    // Nobody writes any more: what is left in the pipes is all there will be.
    while stdout.take(job).map_err(watched)? {}
    while stderr.take(job).map_err(watched)? {}
    Ok(match came {
        Came::Deadline => Outcome::TimedOut,
        Came::End => outcome(ended.status),
    })
}

/// Takes what the command writes until it ends or has to.
fn attend<O: Read + AsFd, E: Read + AsFd>(
    companion: &Companion,
    (stdout, stderr): (&mut Pipe<O>, &mut Pipe<E>),
    job: &mut Job<'_>,
    folder: &Folder,
    until: Instant,
) -> Result<Came, EngineError> {
    let mut glance = Instant::now() + GLANCE;
    loop {
        let now = Instant::now();
        if now >= until {
            return Ok(Came::Deadline);
        }
        if now >= glance {
            if let Some(why) = folder.check(&job.request.limits) {
                return Err(EngineError::broken(NAME, Fault::Workspace, why));
            }
            glance = now + GLANCE;
        }
        let fds = [Some(companion.as_fd()), Some(job.cancel.as_fd()), stdout.fd(), stderr.fd()];
        let fds = fds.map(|fd| (fd, PollFlags::IN));
        let [ended, cancelled, out, err] = poll_for(fds, cmp::min(until, glance)).map_err(watched)?;
        if cancelled {
            return Err(crate::journal::cancelled().into());
        }
        if out {
            stdout.take(job).map_err(watched)?;
        }
        if err {
            stderr.take(job).map_err(watched)?;
        }
        if ended {
            return Ok(Came::End);
        }
    }
}

/// The program of a request with its arguments and its whole environment.
fn command(request: &ExecutionRequest, workspace: &Path, at: &Path) -> Result<Command, EngineError> {
    let Some((name, arguments)) = request.argv.split_first() else {
        return Err(not_runnable("there is no program to start".to_owned()).into());
    };
    let mut command = Command::new(program(name, workspace)?);
    command.arg0(name).args(arguments).current_dir(at).env_clear();
    let home = workspace.as_os_str().to_owned();
    let defaults: [(&str, OsString); 4] =
        [("HOME", home), ("LANG", "C.UTF-8".into()), ("PATH", PATH.join(":").into()), ("TZ", "UTC".into())];
    command.envs(defaults);
    command.envs(request.env.iter().map(|variable| (variable.name.as_str(), &variable.value)));
    Ok(command)
}

/// The program's file: one without a slash is looked for, one below `/workspace` lies in the folder of the run.
fn program(name: &str, workspace: &Path) -> Result<PathBuf, Failure> {
    if !name.contains('/') {
        let candidates = PATH.into_iter().map(|folder| Path::new(folder).join(name));
        let found = candidates.into_iter().find(|candidate| candidate.is_file());
        return found.ok_or_else(|| not_runnable(format!("cannot start {name:?}: no such program")));
    }
    let below = Path::new(name).strip_prefix(WORKSPACE).ok();
    Ok(below.map_or_else(|| PathBuf::from(name), |below| workspace.join(below)))
}

fn outcome(status: ExitStatus) -> Outcome {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited { code: byte(code) },
        (None, signal) => Outcome::Signalled { signal: byte(signal.unwrap_or_default()) },
    }
}

pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn watched(error: io::Error) -> EngineError {
    EngineError::broken(NAME, Fault::Start, format!("the command cannot be watched: {error}"))
}

/// A run that this machine has no place for.
pub(super) fn unusable(what: &str, error: &io::Error) -> EngineError {
    let hint = "see TMPDIR: the folder of a run is made there, and needs room for its inputs and its outputs";
    Failure::new(FailureReason::StoreError, format!("{what}: {error}"), hint).into()
}

// === impl Pipe ===

impl<R: Read + AsFd> Pipe<R> {
    fn unblock(&self) -> io::Result<()> {
        self.pipe.as_ref().map_or(Ok(()), |pipe| Ok(ioctl_fionbio(pipe, true)?))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Hands on what is there; false if nothing was.
    fn take(&mut self, job: &mut Job<'_>) -> io::Result<bool> {
        let Some(pipe) = &mut self.pipe else { return Ok(false) };
        let mut chunk = [0; 64 * 1024];
        match pipe.read(&mut chunk) {
            Ok(0) => {
                self.pipe = None;
                Ok(false)
            }
            Ok(read) => {
                (job.sink)(self.stream, &chunk[..read]);
                Ok(true)
            }
            Err(error) if again(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
