//! One run from outside: hears the caller, judges the proofs, keeps time, ends the tree.

use std::os::fd::{AsFd, RawFd};
use std::process::exit;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use requiem_model::report::{SandboxReport, Source};
use requiem_model::result::Usage;
use requiem_model::{Layer, Outcome};

use super::Wants;
use super::ground::Ground;
use super::tree::Tree;
use crate::error::StepError;
use crate::finding::Finding;
use crate::layers::cgroup::OomEvents;
use crate::protocol::{Channel, Ending, Event, Fault, Frame, Go, Reply, Request, TreeUsage};
use crate::{report, sys};

/// How long set-up may take before it is taken for stuck; it takes milliseconds.
const SETUP_PATIENCE: Duration = Duration::from_secs(60);

/// SIGKILL.
const KILLED: u8 = 9;

/// A supervisor's whole life. It never returns to the zygote's loop.
pub(super) fn run(ground: &Ground, caller: Channel, zygote: Pid, inherited: &[RawFd]) -> ! {
    // Otherwise the caller could not tell that the zygote has gone, and a run would hold the way to the caller.
    let close = |number: &RawFd| u32::try_from(*number).is_ok_and(|n| sys::fd::close_range(n, n).is_ok());
    let served = if inherited.iter().all(close) {
        serve(ground, &caller, zygote)
    } else {
        Err(Fault::from(StepError { step: "close the zygote's descriptors", errno: Errno::EBADF }))
    };
    if let Err(fault) = &served {
        // If the caller is gone, so is whoever would want to know.
        let _unheard = caller.send(&Reply::Broken(fault.clone()), &[]);
    }
    exit(i32::from(served.is_err()))
}

fn serve(ground: &Ground, caller: &Channel, zygote: Pid) -> Result<(), Fault> {
    let orphaned = watch_zygote(zygote)?;
    sys::process::default_action(Signal::SIGCHLD).map_err(StepError::at("watch children"))?;
    set_child_subreaper(true).map_err(StepError::at("become the reaper"))?;
    let tree = Tree::plant(ground, Wants::all(), false)?;
    let mut desk = Desk { ground, caller, orphaned, tree, oom: None, kills_before: None, staged_us: 0 };
    let reply = desk.work();
    let answered = desk.answer(reply);
    desk.close();
    answered
}

/// Becomes readable when the zygote has gone: the run then ends in an orderly way.
fn watch_zygote(zygote: Pid) -> Result<SignalFd, StepError> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block().map_err(StepError::at("block SIGTERM"))?;
    let orphaned =
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).map_err(StepError::at("watch SIGTERM"))?;
    set_pdeathsig(Signal::SIGTERM).map_err(StepError::at("tie the supervisor to the zygote"))?;
    if nix::unistd::getppid() == zygote {
        Ok(orphaned)
    } else {
        Err(StepError { step: "find the zygote", errno: Errno::ESRCH })
    }
}

/// What a supervisor has in hand.
struct Desk<'a> {
    ground: &'a Ground,
    caller: &'a Channel,
    orphaned: SignalFd,
    tree: Tree,
    oom: Option<OomEvents>,
    /// Kills for want of memory in the container, before the payload started.
    kills_before: Option<u64>,
    staged_us: u64,
}

/// What woke the supervisor.
enum Wake {
    /// Init or payload has something to say.
    Tree,
    /// So has the caller, or it has hung up.
    Caller,
    /// The zygote has gone.
    Orphaned,
    /// The tree's memory has run out.
    OutOfMemory,
    /// Time is up.
    Late,
}

/// An answer, and whether the workspace goes with it.
struct Answer {
    reply: Reply,
    workspace: Option<std::os::fd::OwnedFd>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, workspace: None }
    }
}

/// What the payload has proven.
struct Proven {
    findings: Vec<(Layer, Finding)>,
    fixed: Vec<Source>,
    workspace: Option<std::os::fd::OwnedFd>,
}

impl Desk<'_> {
    /// Request, proofs, verdict, end. An error is a broken set-up.
    fn work(&mut self) -> Result<Answer, Fault> {
        let Some((frame, request)) = self.await_request()? else { return Ok(Reply::Lost.into()) };
        let wants = Wants::of(&request.policy);
        if wants != self.tree.wants {
            self.replant(wants)?;
        }
        self.limit(&request);
        // An init that has broken down has said why, which is heard below.
        let _heard_below = self.tree.control.forward(&frame);
        // From here on only the tree holds the streams, so they end with it.
        drop(frame);
        let proven = match self.await_proofs()? {
            Ok(proven) => proven,
            Err(reply) => return Ok(reply.into()),
        };
        let report = self.judge(&request, &proven);
        if let Some((layer, why)) = report::refusal(&report) {
            return Ok(Reply::Refused { layer, why }.into());
        }
        self.tree.control.send(&Go, &[]).map_err(|error| Fault::of_channel("give leave", &error))?;
        let began = Instant::now();
        self.watch(began, Duration::from_millis(request.limits.timeout_ms), report, proven.workspace)
    }

    /// Waits for the request; `None` when the caller hangs up or the zygote goes before there is one.
    fn await_request(&self) -> Result<Option<(Frame, Request)>, Fault> {
        match self.wait(false, None)? {
            Wake::Caller => match self.caller.receive() {
                Ok(frame) => {
                    let request =
                        frame.message().map_err(|error| Fault::of_channel("read the request", &error))?;
                    Ok(Some((frame, request)))
                }
                Err(_) => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Throws the prepared tree away and makes one without the layers that are off.
    fn replant(&mut self, wants: Wants) -> Result<(), Fault> {
        let fresh = Tree::plant(self.ground, wants, true)?;
        let mut prepared = std::mem::replace(&mut self.tree, fresh);
        prepared.fell(self.ground.proc.as_fd());
        prepared.clear();
        Ok(())
    }

    fn limit(&mut self, request: &Request) {
        let Some(group) = &self.tree.group else { return };
        if let Err(error) = group.apply(&request.limits) {
            self.tree.journal.note(Layer::Cgroup, Finding::impossible("cgroup", error.to_string()));
        }
        // Without it a tree that is out of memory ends by the wall clock instead.
        self.oom = group.oom_events().ok();
    }

    /// Waits until the payload has shown its layers.
    fn await_proofs(&mut self) -> Result<Result<Proven, Reply>, Fault> {
        let deadline = Instant::now() + SETUP_PATIENCE;
        let mut workspace = None;
        loop {
            match self.wait(true, Some(deadline))? {
                Wake::Tree => {}
                wake @ (Wake::Caller | Wake::Orphaned) => return Ok(Err(stopped(&wake))),
                Wake::OutOfMemory => {
                    let step = "set the sandbox up within its memory limit".to_owned();
                    return Err(Fault { step, errno: Errno::ENOMEM as i32 });
                }
                Wake::Late => {
                    return Err(StepError { step: "set the sandbox up", errno: Errno::ETIMEDOUT }.into());
                }
            }
            let lost = |error| Fault::of_channel("hear from the sandbox", &error);
            let mut frame = self.tree.control.receive().map_err(lost)?;
            match frame.message().map_err(lost)? {
                Event::Prepared => workspace = frame.descriptors.pop(),
                Event::Staged { micros } => self.staged_us = micros,
                Event::Proven { findings, fixed } => return Ok(Ok(Proven { findings, fixed, workspace })),
                Event::NotRunnable { why } => return Ok(Err(Reply::NotRunnable { why })),
                Event::ValueMissing { name } => return Ok(Err(Reply::ValueMissing { name })),
                Event::Broken(fault) => return Err(fault),
                Event::Ended { .. } => {
                    return Err(StepError { step: "start the payload", errno: Errno::ECHILD }.into());
                }
            }
        }
    }

    /// Folds what supervisor, init and payload have seen into the report.
    fn judge(&mut self, request: &Request, proven: &Proven) -> SandboxReport {
        for (layer, finding) in &proven.findings {
            self.tree.journal.note(*layer, finding.clone());
        }
        if let Some(group) = &self.tree.group {
            let finding = group.prove(&request.limits, self.tree.init);
            self.tree.journal.note(Layer::Cgroup, finding);
        } else if self.tree.wants.layer(Layer::Cgroup) {
            // The limit on processes counts the run alone only in a user namespace of its own.
            let in_force = |layer| matches!(self.tree.journal.of(layer), Some(Finding::InForce { .. }));
            let own_pids = in_force(Layer::UserNamespace) && in_force(Layer::Rlimits);
            if let Some(finding) = self.ground.cgroups.outer(own_pids) {
                self.tree.journal.substitute(Layer::Cgroup, finding);
            }
        }
        self.kills_before = self.ground.cgroups.outer_kills();
        // The values come from elsewhere, whatever the payload has seen of them.
        let undisclosed: &[Source] = if request.env_refs.is_empty() { &[] } else { &[Source::Environment] };
        report::fold(&request.policy, &self.tree.journal, &proven.fixed, undisclosed)
    }

    /// Waits for the end of the payload, or brings it about.
    fn watch(
        &mut self,
        began: Instant,
        limit: Duration,
        report: SandboxReport,
        workspace: Option<std::os::fd::OwnedFd>,
    ) -> Result<Answer, Fault> {
        let (outcome, used) = loop {
            match self.wait(true, Some(began + limit))? {
                wake @ (Wake::Caller | Wake::Orphaned) => {
                    // The caller may rely on it that nothing runs any more.
                    self.tree.fell(self.ground.proc.as_fd());
                    return Ok(stopped(&wake).into());
                }
                Wake::Late => break (Outcome::TimedOut, self.tree.fell(self.ground.proc.as_fd())),
                Wake::OutOfMemory => break (Outcome::OutOfMemory, self.tree.fell(self.ground.proc.as_fd())),
                Wake::Tree => {}
            }
            let event = self.tree.control.receive().and_then(|frame| frame.message());
            match event {
                Ok(Event::Ended { status, usage }) => break (self.outcome(status), usage),
                Ok(Event::NotRunnable { why }) => return Ok(Reply::NotRunnable { why }.into()),
                Ok(Event::ValueMissing { name }) => return Ok(Reply::ValueMissing { name }.into()),
                Ok(Event::Broken(fault)) => return Err(fault),
                Ok(Event::Prepared | Event::Staged { .. } | Event::Proven { .. }) => {}
                // Init itself was killed, and everything with it: only the kernel does that, for want of memory.
                Err(_) if self.ran_out() => {
                    break (Outcome::OutOfMemory, self.tree.fell(self.ground.proc.as_fd()));
                }
                Err(error) => return Err(Fault::of_channel("hear from init", &error)),
            }
        };
        let usage = self.usage(began, used);
        let reply = Reply::Finished { outcome, usage, report, staged_us: self.staged_us };
        Ok(Answer { reply, workspace })
    }

    /// How a payload that ended by itself ended.
    fn outcome(&self, status: Ending) -> Outcome {
        match status {
            Ending::Exited(0) => Outcome::Exited { code: 0 },
            _ if self.ran_out() => Outcome::OutOfMemory,
            Ending::Exited(code) => Outcome::Exited { code },
            // Without a group of its own: the kernel has killed in this container while the payload ran, and the payload
            // was killed.
            Ending::Signalled(KILLED) if self.container_ran_out() => Outcome::OutOfMemory,
            Ending::Signalled(signal) => Outcome::Signalled { signal },
        }
    }

    fn container_ran_out(&self) -> bool {
        self.tree.group.is_none() && self.ground.cgroups.outer_kills() > self.kills_before
    }

    fn ran_out(&self) -> bool {
        self.tree.group.as_ref().is_some_and(|group| group.usage().oom_killed)
    }

    fn usage(&self, began: Instant, used: TreeUsage) -> Usage {
        let counted = self.tree.group.as_ref().and_then(|group| group.usage().peak_memory);
        Usage {
            wall_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            user_us: used.user_us,
            system_us: used.system_us,
            peak_memory_bytes: counted.unwrap_or(used.peak_rss_bytes),
        }
    }

    /// Sends the answer. A caller that has gone is no error: nobody waits for it.
    fn answer(&self, reply: Result<Answer, Fault>) -> Result<(), Fault> {
        let answer = reply?;
        let workspace: Vec<_> = answer.workspace.iter().map(AsFd::as_fd).collect();
        let _nobody_waits = self.caller.send(&answer.reply, &workspace);
        Ok(())
    }

    /// Leaves nothing behind. The caller has its answer already, unless the tree had to be ended first.
    fn close(mut self) {
        self.tree.fell(self.ground.proc.as_fd());
        let folder = self.ground.runs.join(format!("run-{}", nix::unistd::getpid()));
        self.tree.clear();
        if folder.exists() {
            // The workspace of a run that could not mount is in there; the caller hangs up when it has read it.
            let _hung_up = self.caller.receive();
            // What the payload made undeletable stays until the runner's own clean-up.
            let _removed_later = std::fs::remove_dir_all(folder);
        }
    }

    /// Waits for the next thing to happen. The tree is heard first: an end that came before the deadline counts.
    fn wait(&self, heed_tree: bool, deadline: Option<Instant>) -> Result<Wake, Fault> {
        loop {
            let mut fds = vec![
                PollFd::new(self.caller.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.orphaned.as_fd(), PollFlags::POLLIN),
            ];
            if heed_tree {
                fds.push(PollFd::new(self.tree.control.as_fd(), PollFlags::POLLIN));
                fds.extend(self.oom.as_ref().map(|oom| PollFd::new(oom.as_fd(), oom.flags())));
            }
            match poll(&mut fds, timeout(deadline)) {
                Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Ok(Wake::Late);
                }
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(StepError { step: "wait for the run", errno }.into()),
            }
            let ready = |place: usize| fds.get(place).is_some_and(|fd| fd.any().unwrap_or(false));
            if ready(2) {
                return Ok(Wake::Tree);
            }
            if ready(3) && self.oom.as_ref().is_some_and(OomEvents::has_fired) {
                return Ok(Wake::OutOfMemory);
            }
            if ready(1) {
                return Ok(Wake::Orphaned);
            }
            if ready(0) {
                return Ok(Wake::Caller);
            }
        }
    }
}

/// The answer to a run that somebody else ended.
fn stopped(wake: &Wake) -> Reply {
    if matches!(wake, Wake::Orphaned) { Reply::Lost } else { Reply::Cancelled }
}

/// Rounded up, so that a wake-up for the deadline is never early.
fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
