//! An engine of somebody else: a program that speaks [`protocol`], run once for each question and trusted with nothing but how the
//! command ended. It runs as this user with this user's rights: what it does with them is the affair of whoever named it.
//!
//! Flow: look at the file → ask who it is → for each run: a folder with copies of the inputs → ask it to run → its answer must be of the
//! one form → streams are read from the files that it left, outputs collected as for every engine → what it said of them must agree.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use requiem_model::result::Usage;
use requiem_model::{BlobDigest, ExecutionRequest, Failure};
use requiem_sandbox::StdStream;

use super::companion::{AskError, Question, ask, check_program};
use super::folder::{Folder, open_left};
use super::portable::{micros, unusable};
use super::protocol::{Ask, Info, MAX_REPLY_BYTES, Ran, answer, question};
use super::{Done, Engine, EngineError, Fault, Job, admit_unproven, unproven};
use crate::execute::digest_of;
use crate::steps::one_line;

/// How long an engine may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// How much longer than the command's own limit an engine may take, in which it ends the command and answers.
const GRACE: Duration = Duration::from_secs(10);
/// Longest explanation of a layer that is given, in bytes. A report may hold 1024.
const MAX_DETAIL: usize = 1000;

/// A program that speaks `requiem-engine/1`. One run at a time in a process: see
/// [`Companion`](super::companion::Companion).
#[derive(Debug)]
pub struct CommandEngine {
    program: PathBuf,
    binary: BlobDigest,
    info: Info,
}

/// The files of a run, as the engine is told of them.
struct Files {
    folder: String,
    workspace: String,
    stdin: String,
    stdout: String,
    stderr: String,
}

impl CommandEngine {
    /// Asks a program who it is.
    ///
    /// # Errors
    /// It is no program that may be started, or no engine.
    pub fn open(program: &Path) -> Result<Self, EngineError> {
        let name = program.display().to_string();
        check_program(program).map_err(|why| EngineError::broken(&name, Fault::Program, why))?;
        let binary = digest_of(program).map_err(|error| {
            EngineError::broken(&name, Fault::Program, format!("it cannot be read: {error}"))
        })?;
        let text = question(Ask::Info {})
            .map_err(|error| EngineError::broken(&name, Fault::Start, error.to_string()))?;
        let asked = ask(&Question {
            program,
            arguments: &[],
            text: &text,
            limit: MAX_REPLY_BYTES,
            deadline: INTRODUCTION,
            cancel: None,
            check: &|| None,
        });
        let reply = asked.map_err(|error| unanswered(&name, error))?;
        let info: Info = answer(&reply.bytes, reply.ended_well)
            .map_err(|(fault, why)| EngineError::broken(&name, fault, why))?;
        info.check().map_err(|why| EngineError::broken(&name, Fault::Reply, why))?;
        Ok(Self { program: program.to_owned(), binary, info })
    }

    fn broken(&self, fault: Fault, why: impl Into<String>) -> EngineError {
        EngineError::broken(&self.info.name, fault, why)
    }

    /// Asks it to run, and reads its answer.
    fn ask_to_run(&self, job: &Job<'_>, files: &Files, folder: &Folder) -> Result<Ran, EngineError> {
        let start = |why: String| self.broken(Fault::Start, why);
        let digest = job.request.digest().map_err(|error| start(error.to_string()))?;
        let run = Ask::Run {
            request: job.request,
            request_digest: digest,
            folder: &files.folder,
            workspace: &files.workspace,
            stdin: &files.stdin,
            stdout: &files.stdout,
            stderr: &files.stderr,
        };
        let text = question(run).map_err(|error| start(error.to_string()))?;
        // The streams lie in the folder too, cut or not.
        let mut limits = job.request.limits.clone();
        let streams = limits.max_output_bytes.saturating_mul(2);
        limits.scratch_bytes = limits.scratch_bytes.saturating_add(streams);
        let asked = ask(&Question {
            program: &self.program,
            arguments: &[],
            text: &text,
            limit: MAX_REPLY_BYTES,
            deadline: Duration::from_millis(limits.timeout_ms) + GRACE,
            cancel: Some(job.cancel.as_fd()),
            check: &|| folder.check(&limits),
        });
        let reply = asked.map_err(|error| unanswered(&self.info.name, error))?;
        answer(&reply.bytes, reply.ended_well).map_err(|(fault, why)| self.broken(fault, why))
    }

    /// Hands on what it left of a stream, and compares it with what it says of it.
    fn take_stream(
        &self,
        job: &mut Job<'_>,
        stream: StdStream,
        path: &str,
        said: Option<BlobDigest>,
    ) -> Result<(), EngineError> {
        let unread = |error: io::Error| {
            self.broken(Fault::Contradiction, format!("it left no {path} that can be read: {error}"))
        };
        let cap = job.request.limits.max_output_bytes;
        let mut file = open_left(Path::new(path)).map_err(unread)?.take(cap.saturating_add(1));
        let mut hasher = blake3::Hasher::new();
        let (mut chunk, mut seen) = (vec![0; 64 * 1024], 0_u64);
        loop {
            let read = file.read(&mut chunk).map_err(unread)?;
            if read == 0 {
                break;
            }
            let kept = usize::try_from(cap.saturating_sub(seen)).unwrap_or(usize::MAX).min(read);
            hasher.update(&chunk[..kept]);
            seen += read as u64;
            (job.sink)(stream, &chunk[..read]);
        }
        let found = BlobDigest::from_bytes(*hasher.finalize().as_bytes());
        match said {
            Some(said) if said != found => Err(self
                .broken(Fault::Contradiction, format!("it says that {path} is {said}, and it is {found}"))),
            _ => Ok(()),
        }
    }
}

impl Engine for CommandEngine {
    fn identity(&self) -> requiem_proof::Engine {
        requiem_proof::Engine { name: self.info.name.clone(), version: self.info.version.clone() }
    }

    fn admit(&self, request: &ExecutionRequest) -> Result<(), Failure> {
        admit_unproven(&self.info.name, request)
    }

    fn run(&self, mut job: Job<'_>) -> Result<Done, EngineError> {
        let started = Instant::now();
        let folder = Folder::make().map_err(|error| unusable("cannot make a folder for the run", &error))?;
        folder.stage(&job.inputs).map_err(|error| unusable("cannot copy the inputs", &error))?;
        let files =
            Files::of(&folder).map_err(|error| unusable("cannot name the files of the run", &error))?;
        let stdin = job.stdin.take().map(File::from);
        files.write_stdin(stdin).map_err(|error| unusable("cannot copy the standard input", &error))?;
        let mount = started.elapsed();
        let began = Instant::now();
        let ran = self.ask_to_run(&job, &files, &folder)?;
        let usage = Usage { wall_us: micros(began.elapsed()), ..Usage::default() };
        self.take_stream(&mut job, StdStream::Stdout, &files.stdout, ran.stdout)?;
        self.take_stream(&mut job, StdStream::Stderr, &files.stderr, ran.stderr)?;
        let why = format!(
            "engine {} is the program {} ({}); nothing of what it does was observed",
            self.info.name,
            self.program.display(),
            self.binary
        );
        let report = unproven(&self.info.name, &one_line(&why, MAX_DETAIL), &job.request.policy);
        let left = folder.left().map_err(|error| unusable("the workspace cannot be read", &error))?;
        Ok(Done {
            outcome: ran.outcome,
            usage,
            report,
            mount,
            workspace: Box::new(left),
            claimed: ran.outputs,
        })
    }
}

impl Files {
    fn of(folder: &Folder) -> io::Result<Self> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| {
                io::Error::other("the folder for temporary files has a name that is not UTF-8")
            })
        };
        let of = |name: &str| text(&folder.path().join(name));
        Ok(Self {
            folder: text(folder.path())?,
            workspace: text(&folder.workspace())?,
            stdin: of("stdin")?,
            stdout: of("stdout")?,
            stderr: of("stderr")?,
        })
    }

    fn write_stdin(&self, source: Option<File>) -> io::Result<()> {
        let mut target = File::create_new(&self.stdin)?;
        if let Some(mut source) = source {
            io::copy(&mut source, &mut target)?;
        }
        fs::set_permissions(&self.stdin, Permissions::from_mode(0o400))
    }
}

fn unanswered(engine: &str, error: AskError) -> EngineError {
    let fault = match &error {
        AskError::Cancelled => return crate::journal::cancelled().into(),
        AskError::Start(_) => Fault::Start,
        AskError::Unreadable(_) => Fault::Reply,
        AskError::Late(_) => Fault::Deadline,
        AskError::TooLong(_) => Fault::Output,
        AskError::Stopped(_) => Fault::Workspace,
    };
    EngineError::broken(engine, fault, error.to_string())
}
