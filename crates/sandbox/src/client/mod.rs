//! The caller's side: starts the runner or waits for one, hands runs to it, drains their output.

mod apart;
mod inputs;
mod link;
mod streams;
mod trusted;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use requiem_model::{Requirement, SandboxPolicy, SandboxReport};

pub use trusted::enter_trusted_namespace;

use apart::Shared;
use link::Link;

use crate::protocol::{Channel, ChannelError, Reply, Request};
use crate::spec::{
    Cancel, Finished, RunError, RunSpec, RunnerConfig, RunnerNews, SandboxError, StdStream, Workspace,
};

/// A runner process and the runs prepared in it. Runs may be made from several threads at once.
#[derive(Debug)]
pub struct Runner {
    source: Source,
    spares: usize,
}

/// Where the runner comes from.
#[derive(Debug)]
enum Source {
    /// This process starts it, and another one when it has gone.
    Child { config: RunnerConfig, link: Mutex<Link> },
    /// It comes from a container of its own, by the folder that both see.
    Apart { shared: Arc<Shared>, folder: PathBuf },
}

impl Runner {
    /// Starts the runner and waits until it is ready.
    ///
    /// # Errors
    /// The program cannot be started, or the runner cannot set itself up.
    pub fn spawn(config: RunnerConfig) -> Result<Self, SandboxError> {
        let spares = config.spares;
        let mut link = Link::start(&config)?;
        link.refill(spares);
        Ok(Self { source: Source::Child { config, link: Mutex::new(link) }, spares })
    }

    /// Listens at `socket` for a runner that somebody else starts (see [`runner_main_at`](crate::runner_main_at)), one
    /// at a time. `news` hears of its coming and going; until it comes every run ends with [`RunError::RunnerLost`].
    ///
    /// The peer must have this process's user id. Its inputs are detached mounts or, where this process may not make
    /// them, copies in the socket's folder: it never gets a descriptor from which the store could be reached.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(socket: &Path, spares: usize, news: Sender<RunnerNews>) -> Result<Self, SandboxError> {
        let folder = socket.parent().unwrap_or(Path::new(".")).to_owned();
        let shared = apart::listen(socket, spares, news)?;
        Ok(Self { source: Source::Apart { shared, folder }, spares })
    }

    /// Lets a runner that came by itself go for good; it ends with success. It must have no runs.
    ///
    /// # Errors
    /// There is none, or it has gone already.
    pub fn dismiss(&self) -> Result<(), RunError> {
        let dismissed = self.with_link(Link::dismiss);
        dismissed.and_then(Result::ok).ok_or(RunError::RunnerLost)
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
        let began = Instant::now();
        let handed = inputs::hand_over(&spec.inputs, self.shared_folder())?;
        let stdin = match spec.stdin {
            Some(stdin) => inputs::protect(stdin, self.shared_folder())?,
            None => open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(RunError::at("open /dev/null"))?,
        };
        let handing = began.elapsed();
        let (pipes, stdout, stderr) = streams::Pipes::new()?;
        let request = Request {
            argv: spec.argv,
            env: spec.env,
            env_refs: spec.env_refs,
            working_dir: spec.working_dir,
            inputs: handed.described,
            limits: spec.limits,
            policy: spec.policy,
        };
        let copies = handed.copies;
        let streams = [stdin, stdout, stderr];
        let descriptors: Vec<BorrowedFd<'_>> =
            streams.iter().chain(&handed.descriptors).map(AsFd::as_fd).collect();
        let run = self.start(&request, &descriptors)?;
        drop(descriptors);
        // Whoever keeps a write end keeps a stream from ending.
        drop((streams, handed.descriptors));
        let ended = pipes.drain(&run, sink, cancel);
        drop(copies);
        finish(ended?, run, handing)
    }

    /// Sends the request to a prepared run, or to a fresh one if the prepared one has gone.
    fn start(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Channel, RunError> {
        for _ in 0..=self.spares {
            let run = self.take()?;
            match run.send(request, descriptors) {
                Ok(()) => {
                    self.with_link(|link| link.refill(self.spares));
                    return Ok(run);
                }
                Err(ChannelError::Closed) => {}
                Err(error) => return Err(RunError::at("send the request")(error.errno())),
            }
        }
        Err(RunError::RunnerLost)
    }

    /// A run channel. Starts another runner if this one has gone and was ours.
    fn take(&self) -> Result<Channel, RunError> {
        if let Some(Ok(run)) = self.with_link(Link::take) {
            return Ok(run);
        }
        let Source::Child { config, link } = &self.source else { return Err(RunError::RunnerLost) };
        let mut link = lock(link);
        // Somebody else may have been here meanwhile.
        if let Ok(run) = link.take() {
            return Ok(run);
        }
        *link = Link::start(config)
            .map_err(|error| RunError::Setup { step: error.step, source: error.source })?;
        link.take().map_err(|_| RunError::RunnerLost)
    }

    fn with_link<T>(&self, act: impl FnOnce(&mut Link) -> T) -> Option<T> {
        match &self.source {
            Source::Child { link, .. } => Some(act(&mut lock(link))),
            Source::Apart { shared, .. } => shared.with(act),
        }
    }

    /// The folder that a runner in another container sees, too.
    fn shared_folder(&self) -> Option<&Path> {
        match &self.source {
            Source::Child { .. } => None,
            Source::Apart { folder, .. } => Some(folder),
        }
    }

    /// Process id of the runner; 0 if there is none, or it cannot be seen from here.
    pub fn pid(&self) -> u32 {
        self.with_link(|link| link.pid()).unwrap_or_default()
    }

    /// Whether there is a runner as far as its connection tells.
    pub fn is_connected(&self) -> bool {
        self.with_link(|_| ()).is_some()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Source::Apart { shared, .. } = &self.source {
            shared.close();
        }
    }
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    // The state is a queue and a process; a panic elsewhere leaves neither half-changed.
    link.lock().unwrap_or_else(PoisonError::into_inner)
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
fn finish(frame: crate::protocol::Frame, run: Channel, handing: Duration) -> Result<Finished, RunError> {
    let reply = frame.message().map_err(|error| RunError::at("read the reply")(error.errno()))?;
    match reply {
        Reply::Finished { outcome, usage, report, staged_us } => {
            let workspace = frame.descriptors.into_iter().next();
            let workspace = workspace.ok_or(Errno::EPROTO).map_err(RunError::at("receive the workspace"))?;
            let staged = handing + Duration::from_micros(staged_us);
            let workspace = Workspace { folder: workspace, _lease: run.into() };
            Ok(Finished { outcome, usage, report, staged, workspace })
        }
        Reply::Refused { layer, why } => Err(RunError::Refused { layer, why }),
        Reply::NotRunnable { why } => Err(RunError::CommandNotRunnable { why }),
        Reply::ValueMissing { name } => Err(RunError::ValueMissing { name }),
        Reply::Cancelled => Err(RunError::Cancelled),
        Reply::Lost => Err(RunError::RunnerLost),
        Reply::Broken(fault) => {
            Err(RunError::Setup { step: fault.step, source: Errno::from_raw(fault.errno) })
        }
    }
}
