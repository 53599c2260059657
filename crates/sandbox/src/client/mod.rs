//! The caller's side: starts the runner, hands runs to it, drains their output.

mod inputs;
mod streams;
mod trusted;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use requiem_model::{Requirement, SandboxPolicy, SandboxReport};

pub use trusted::enter_trusted_namespace;

use crate::error::errno_of;
use crate::protocol::{Channel, ChannelError, Hello, Reply, Request};
use crate::spec::{Cancel, Finished, RunError, RunSpec, RunnerConfig, SandboxError, StdStream};

/// A runner process and the runs prepared in it. Runs may be made from several threads at once.
#[derive(Debug)]
pub struct Runner {
    config: RunnerConfig,
    zygote: Mutex<Zygote>,
}

/// The process, and run channels whose supervisors are waiting already.
#[derive(Debug)]
struct Zygote {
    /// Gone only while the zygote is being dropped.
    socket: Option<Channel>,
    process: Child,
    spares: VecDeque<Channel>,
}

impl Runner {
    /// Starts the runner and waits until it is ready.
    ///
    /// # Errors
    /// The program cannot be started, or the runner cannot set itself up.
    pub fn spawn(config: RunnerConfig) -> Result<Self, SandboxError> {
        let mut zygote = Zygote::start(&config)?;
        zygote.refill(config.spares);
        Ok(Self { config, zygote: Mutex::new(zygote) })
    }

    /// Runs `spec` to its end. Blocks; `sink` gets every byte of output as it comes.
    ///
    /// # Errors
    /// The run came to no end of its own: see [`RunError`].
    pub fn run(
        &self,
        spec: RunSpec,
        sink: &mut dyn FnMut(StdStream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Finished, RunError> {
        let handed = inputs::hand_over(&spec.inputs)?;
        let stdin = match spec.stdin {
            Some(stdin) => stdin,
            None => open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(RunError::at("open /dev/null"))?,
        };
        let (pipes, stdout, stderr) = streams::Pipes::new()?;
        let request = Request {
            argv: spec.argv,
            env: spec.env,
            working_dir: spec.working_dir,
            inputs: handed.described,
            limits: spec.limits,
            policy: spec.policy,
        };
        let streams = [stdin, stdout, stderr];
        let descriptors: Vec<BorrowedFd<'_>> =
            streams.iter().chain(&handed.descriptors).map(AsFd::as_fd).collect();
        let run = self.start(&request, &descriptors)?;
        drop(descriptors);
        // Whoever keeps a write end keeps a stream from ending.
        drop((streams, handed.descriptors));
        finish(pipes.drain(&run, sink, cancel)?, run)
    }

    /// Sends the request to a prepared run, or to a fresh one if the prepared one has gone.
    fn start(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Channel, RunError> {
        for _ in 0..=self.config.spares {
            let run = self.zygote().take(&self.config)?;
            match run.send(request, descriptors) {
                Ok(()) => {
                    self.zygote().refill(self.config.spares);
                    return Ok(run);
                }
                Err(ChannelError::Closed) => {}
                Err(error) => return Err(RunError::at("send the request")(error.errno())),
            }
        }
        Err(RunError::RunnerLost)
    }

    fn zygote(&self) -> MutexGuard<'_, Zygote> {
        // The state is a queue and a process; a panic elsewhere leaves neither half-changed.
        self.zygote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Process id of the runner.
    pub fn pid(&self) -> u32 {
        self.zygote().process.id()
    }
}

/// What this host can enforce: the report of a real run of nothing, with every layer preferred.
///
/// # Errors
/// Not even that could be run.
pub fn probe(runner: &Runner) -> Result<SandboxReport, RunError> {
    let mut policy = SandboxPolicy::default();
    for level in policy.layers.values_mut() {
        *level = Requirement::Preferred;
    }
    let cancel = Cancel::new().map_err(|error| RunError::Setup { step: error.step, source: error.source })?;
    let spec = RunSpec { policy, ..RunSpec::new(vec!["true".to_owned()]) };
    Ok(runner.run(spec, &mut |_, _| {}, &cancel)?.report)
}

/// Makes a result of the supervisor's last word.
fn finish(frame: crate::protocol::Frame, run: Channel) -> Result<Finished, RunError> {
    let reply = frame.message().map_err(|error| RunError::at("read the reply")(error.errno()))?;
    match reply {
        Reply::Finished { outcome, usage, report } => {
            let workspace = frame.descriptors.into_iter().next();
            let workspace = workspace.ok_or(Errno::EPROTO).map_err(RunError::at("receive the workspace"))?;
            Ok(Finished { outcome, usage, report, workspace, _lease: run.into() })
        }
        Reply::Refused { layer, why } => Err(RunError::Refused { layer, why }),
        Reply::NotRunnable { why } => Err(RunError::CommandNotRunnable { why }),
        Reply::Cancelled => Err(RunError::Cancelled),
        Reply::Lost => Err(RunError::RunnerLost),
        Reply::Broken(fault) => {
            Err(RunError::Setup { step: fault.step, source: Errno::from_raw(fault.errno) })
        }
    }
}

// === impl Zygote ===

impl Zygote {
    fn start(config: &RunnerConfig) -> Result<Self, SandboxError> {
        let (socket, theirs) =
            Channel::pair().map_err(|errno| SandboxError::at("make the runner's socket", errno))?;
        // The runner reads nothing of the environment but where temporary files go.
        let temporary = std::env::var_os("TMPDIR").map(|value| ("TMPDIR", value));
        let process = Command::new(&config.program)
            .args(&config.args)
            .env_clear()
            .envs(temporary)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                SandboxError::at(format!("start {}", config.program.display()), errno_of(&error))
            })?;
        let zygote = Self { socket: Some(socket), process, spares: VecDeque::new() };
        let heard = zygote.socket.as_ref().map(|socket| socket.receive().and_then(|frame| frame.message()));
        match heard {
            Some(Ok(Hello::Ready)) => Ok(zygote),
            Some(Ok(Hello::Broken(fault))) => Err(SandboxError::at(
                format!("set the runner up: {}", fault.step),
                Errno::from_raw(fault.errno),
            )),
            Some(Err(error)) => Err(SandboxError {
                hint: Some("the program must call runner_main before anything else"),
                ..SandboxError::at("hear from the runner", error.errno())
            }),
            None => Err(SandboxError::at("hear from the runner", Errno::ENOTCONN)),
        }
    }

    /// A run channel. Starts another runner if this one has gone.
    fn take(&mut self, config: &RunnerConfig) -> Result<Channel, RunError> {
        if let Some(prepared) = self.spares.pop_front() {
            return Ok(prepared);
        }
        if let Ok(run) = self.open() {
            return Ok(run);
        }
        *self = Self::start(config)
            .map_err(|error| RunError::Setup { step: error.step, source: error.source })?;
        self.open().map_err(|_| RunError::RunnerLost)
    }

    /// Has a supervisor started for a new run channel.
    fn open(&self) -> Result<Channel, ChannelError> {
        let (run, theirs) = Channel::pair()?;
        let socket = self.socket.as_ref().ok_or(ChannelError::Closed)?;
        socket.send(&(), &[theirs.as_fd()])?;
        Ok(run)
    }

    /// Opens channels ahead of need. That it fails is told by the run that needs one.
    fn refill(&mut self, wanted: usize) {
        while self.spares.len() < wanted {
            match self.open() {
                Ok(run) => self.spares.push_back(run),
                Err(_) => return,
            }
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Both tell their processes to end.
        self.spares.clear();
        self.socket = None;
        // It has been waited for, or was never there.
        let _reaped = self.process.wait();
    }
}
