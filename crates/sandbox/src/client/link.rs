//! A connection to a zygote, and the run channels that wait in it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;

use crate::error::errno_of;
use crate::protocol::{Call, Channel, ChannelError, Hello, VERSION};
use crate::spec::{RunnerConfig, SandboxError};

/// The connection, and run channels whose supervisors are waiting already.
#[derive(Debug)]
pub(super) struct Link {
    /// Gone only while the link is being dropped.
    socket: Option<Channel>,
    process: Process,
    spares: VecDeque<Channel>,
}

/// Whose the zygote is.
#[derive(Debug)]
pub(super) enum Process {
    /// A child of this process; it is waited for.
    Child(Child),
    /// Somebody else's; its number as this process sees it, 0 if it cannot.
    Apart(u32),
}

impl Link {
    /// Starts a zygote and waits until it is ready.
    pub(super) fn start(config: &RunnerConfig) -> Result<Self, SandboxError> {
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
            // Ctrl-C is for the caller, who ends its runs in order; the runner ends when the caller has.
            .process_group(0)
            .spawn()
            .map_err(|error| {
                SandboxError::at(format!("start {}", config.program.display()), errno_of(&error))
            })?;
        // From here on the process is waited for, also after an error.
        let link = Self { socket: Some(socket), process: Process::Child(process), spares: VecDeque::new() };
        link.greet()?;
        Ok(link)
    }

    /// Takes over the connection of a zygote that has come by itself, once it says that it is ready.
    pub(super) fn accept(socket: Channel, pid: u32) -> Result<Self, SandboxError> {
        let link = Self { socket: Some(socket), process: Process::Apart(pid), spares: VecDeque::new() };
        link.greet()?;
        Ok(link)
    }

    /// Hears the zygote's first word.
    fn greet(&self) -> Result<(), SandboxError> {
        let gone = SandboxError::at("hear from the runner", Errno::ENOTCONN);
        let socket = self.socket.as_ref().ok_or(gone)?;
        match socket.receive().and_then(|frame| frame.message()) {
            Ok(Hello::Ready { version: VERSION }) => Ok(()),
            Ok(Hello::Ready { version }) => Err(SandboxError {
                hint: Some("runner and executor must be of one release; restart the pod"),
                ..SandboxError::at(format!("speak version {version} of the runner"), Errno::EPROTO)
            }),
            Ok(Hello::Broken(fault)) => Err(SandboxError::at(
                format!("set the runner up: {}", fault.step),
                Errno::from_raw(fault.errno),
            )),
            Err(error) => Err(SandboxError {
                hint: Some("the program must call runner_main before anything else"),
                ..SandboxError::at("hear from the runner", error.errno())
            }),
        }
    }

    /// A run channel: a prepared one, else a fresh one.
    pub(super) fn take(&mut self) -> Result<Channel, ChannelError> {
        self.spares.pop_front().map_or_else(|| self.open(), Ok)
    }

    /// Opens channels ahead of need. That it fails is told by the run that needs one.
    pub(super) fn refill(&mut self, wanted: usize) {
        while self.spares.len() < wanted {
            match self.open() {
                Ok(run) => self.spares.push_back(run),
                Err(_) => return,
            }
        }
    }

    /// Lets the zygote go.
    pub(super) fn dismiss(&mut self) -> Result<(), ChannelError> {
        self.spares.clear();
        self.socket.as_ref().ok_or(ChannelError::Closed)?.send(&Call::Leave, &[])
    }

    /// The zygote's process id.
    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Child(child) => child.id(),
            Process::Apart(pid) => *pid,
        }
    }

    /// Has a supervisor started for a new run channel.
    fn open(&self) -> Result<Channel, ChannelError> {
        let (run, theirs) = Channel::pair()?;
        let socket = self.socket.as_ref().ok_or(ChannelError::Closed)?;
        socket.send(&Call::Run, &[theirs.as_fd()])?;
        Ok(run)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Both tell their processes to end.
        self.spares.clear();
        self.socket = None;
        if let Process::Child(child) = &mut self.process {
            // It has been waited for, or was never there.
            let _reaped = child.wait();
        }
    }
}
