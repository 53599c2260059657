//! The inside of the runner: a small single-threaded process that turns requests into sandboxed runs.
//!
//! ```text
//! zygote        in its own user and mount namespace, in the minimal tree; forks one supervisor per run
//!   supervisor  outside the run's namespaces and cgroup; judges the proofs, keeps time, kills the tree
//!     init      pid 1 of the run; makes namespaces, mounts, cgroup membership; reaps
//!       payload pid 2; drops everything, proves it, execs
//! ```
//!
//! A supervisor starts as soon as it has its end of a run channel, and does all that needs no request at once.
//! A caller that opens channels ahead of need thereby takes the slow parts (cgroup migration, network
//! namespace, unmounting) off the path of a run.
//!
//! The zygote's caller is either its parent (`runner_main`) or listens at a socket (`runner_main_at`, `door.rs`);
//! after the connection both are one code path.
//!
//! Nobody outlives its parent: the zygote ends when its caller hangs up (or takes the next one), a supervisor when
//! either is gone, init when its supervisor is, and with init the kernel ends the whole tree.

mod door;
mod ground;
mod init;
mod payload;
mod supervisor;
mod tree;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::ForkResult;
use requiem_model::{Layer, Requirement, SandboxPolicy};

use crate::error::StepError;
use crate::protocol::{Call, Channel, Hello, News, VERSION};
use crate::spec::SandboxError;
use crate::sys;
use door::Door;
pub(crate) use ground::{Ground, Site};

/// How long a runner that ends waits for its supervisors; they need milliseconds.
const GRACE: Duration = Duration::from_secs(2);

/// The layers that a run does not switch off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wants(Vec<Layer>);

impl Wants {
    /// Every layer: what is prepared before the request is known.
    pub(crate) fn all() -> Self {
        Self(Layer::ALL.to_vec())
    }

    /// Those of `policy`.
    pub(crate) fn of(policy: &SandboxPolicy) -> Self {
        let wanted = |layer: &Layer| policy.requirement(*layer) != Requirement::Off;
        Self(Layer::ALL.into_iter().filter(wanted).collect())
    }

    /// Whether `layer` is wanted.
    pub(crate) fn layer(&self, layer: Layer) -> bool {
        self.0.contains(&layer)
    }
}

/// How the service of one caller ended.
enum Served {
    /// The caller lets the runner go.
    Left,
    /// The caller is gone, or speaks nonsense.
    HungUp,
}

/// The body of the runner subcommand: serves the socket that is its standard input until the caller hangs up.
///
/// Must be called first thing in `main`, before any thread exists.
#[must_use]
pub fn runner_main() -> ExitCode {
    let Ok(socket) = sys::fd::take_stdin() else { return ExitCode::from(2) };
    let caller = Channel::from(socket);
    let served = prepare(Site::default()).map_err(|error| {
        // If nobody hears it, there is nobody to serve either.
        let _unheard = caller.send(&Hello::Broken(error.into()), &[]);
    });
    let Ok(ground) = served else { return ExitCode::from(2) };
    let served = caller.send(&Hello::Ready { version: VERSION }, &[]).is_ok();
    if served {
        // Only hanging up ends it, in whichever way.
        let _ended = serve(&ground, &caller, None);
    }
    drop(caller);
    // One that cannot be waited for ends when this process has.
    let _still_ending = await_supervisors();
    ground.clean_up();
    ExitCode::from(if served { 0 } else { 2 })
}

/// The body of the program `requiem-runner`, whose arguments are `arguments`: without any it serves its standard input,
/// with `--socket PATH` the caller that listens there. Other arguments, and a runner that cannot start (see
/// [`runner_main_at`]), end with 2 and one line.
///
/// Must be called first thing in `main`, before any thread exists.
pub fn runner_command(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let ended = match &arguments[..] {
        [] => return runner_main(),
        [flag, socket] if flag == "--socket" => runner_main_at(Path::new(socket)),
        _ => Err(SandboxError {
            hint: Some("usage: requiem-runner [--socket PATH]"),
            ..SandboxError::at("understand the arguments", Errno::EINVAL)
        }),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    // There may be no executor to tell; the container's log is what is left.
    #[expect(clippy::print_stderr, reason = "the one line of a program that does not start")]
    {
        eprintln!("requiem-runner: {error}");
    }
    ExitCode::from(2)
}

/// The body of a runner in a container of its own: connects to the caller that listens at `socket`, serves it, and
/// when it has gone waits for the next one. SIGTERM is passed on to the caller, who lets the runner go when its runs
/// have ended; without a caller it ends the runner.
///
/// Must be called first thing in `main`, before any thread exists.
///
/// # Errors
/// The runner cannot set itself up, or cannot reach the socket's folder. A caller that listens has heard of it.
pub fn runner_main_at(socket: &Path) -> Result<(), SandboxError> {
    let failed = |error: StepError| SandboxError::at(error.step, error.errno);
    let door = Door::open(socket).map_err(failed)?;
    let ground = match prepare(Site { folder: socket.parent(), hidden: door.top.as_deref() }) {
        Ok(ground) => ground,
        Err(error) => {
            if let Ok(Some(caller)) = door.knock() {
                // If nobody hears it, the container's log still has it.
                let _unheard = caller.send(&Hello::Broken(error.into()), &[]);
            }
            return Err(failed(error));
        }
    };
    let ended = serve_callers(&ground, &door);
    ground.clean_up();
    ended.map_err(failed)
}

fn prepare(site: Site<'_>) -> Result<Ground, StepError> {
    let ground = Ground::prepare(site)?;
    sys::process::ignore_children().map_err(StepError::at("ignore children"))?;
    // Where nothing else hides it (no namespaces at all), its memory and descriptors stay its own.
    set_dumpable(false).map_err(StepError::at("make the runner undumpable"))?;
    Ok(ground)
}

/// Waits for the supervisors, who end when their callers hang up: when the caller has waited for this process, nothing of
/// its runs is left. A supervisor that a caller still holds after [`GRACE`] is told by this process's end.
fn await_supervisors() -> nix::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let ended = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    sys::process::default_action(Signal::SIGCHLD)?;
    let until = Instant::now() + GRACE;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return Ok(()),
            Ok(WaitStatus::StillAlive) => {
                let rest = until.saturating_duration_since(Instant::now());
                let rest = PollTimeout::try_from(rest).unwrap_or(PollTimeout::ZERO);
                if poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], rest)? == 0 {
                    return Ok(());
                }
                ended.read_signal()?;
            }
            other => drop(other?),
        }
    }
}

/// One caller after the other.
fn serve_callers(ground: &Ground, door: &Door) -> Result<(), StepError> {
    while let Some(caller) = door.knock()? {
        if caller.send(&Hello::Ready { version: VERSION }, &[]).is_err() {
            continue;
        }
        match serve(ground, &caller, Some(door)) {
            Served::Left => return Ok(()),
            Served::HungUp => {}
        }
    }
    Ok(())
}

/// Forks a supervisor for every run channel that arrives.
fn serve(ground: &Ground, caller: &Channel, door: Option<&Door>) -> Served {
    let zygote = nix::unistd::getpid();
    let own = door.map(|door| door.descriptors().to_vec()).unwrap_or_default();
    let inherited = [&own[..], &[caller.as_fd().as_raw_fd()]].concat();
    let mut told = false;
    loop {
        if let Some(door) = door.filter(|_| !told)
            && !hears(caller, door)
        {
            told = true;
            if caller.send(&News::Stopping, &[]).is_err() {
                return Served::HungUp;
            }
        }
        let Ok(frame) = caller.receive() else { return Served::HungUp };
        match frame.message() {
            Ok(Call::Run) => {}
            Ok(Call::Leave) => return Served::Left,
            Err(_) => return Served::HungUp,
        }
        for run in frame.descriptors {
            match sys::process::fork() {
                Ok(ForkResult::Child) => supervisor::run(ground, Channel::from(run), zygote, &inherited),
                // Without a supervisor the run channel closes, which the caller takes for what it is.
                Ok(ForkResult::Parent { .. }) | Err(_) => {}
            }
        }
    }
}

/// Waits until the caller says something (true) or the runner is told to end (false).
fn hears(caller: &Channel, door: &Door) -> bool {
    loop {
        let mut fds = [
            PollFd::new(caller.as_fd(), PollFlags::POLLIN),
            PollFd::new(door.stop.as_fd(), PollFlags::POLLIN),
        ];
        // A poll that fails otherwise than by a signal leaves it to `receive` to say what is wrong.
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(_) => return true,
            Ok(_) if fds[0].any().unwrap_or(true) => return true,
            Ok(_) => return false,
        }
    }
}
