//! Pid 1 of a run: makes the place, forks the payload, reaps what dies, ends with the payload.

use std::os::fd::{AsFd, OwnedFd};
use std::process::exit;
use std::time::Instant;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, sethostname};
use requiem_model::Layer;

use super::ground::Ground;
use super::tree::{children_usage, end_descendants};
use super::{Wants, payload};
use crate::error::StepError;
use crate::finding::{Finding, Journal};
use crate::layers::cgroup::Group;
use crate::layers::inputs::{self, Staged};
use crate::layers::namespaces::{self, CGROUP, IPC, MOUNT, NETWORK, UTS};
use crate::layers::scratch::Place;
use crate::layers::{network, procfs, root, scratch};
use crate::protocol::{Channel, Ending, Event, Fault, Request};
use crate::sys;

/// The host name of every run.
pub(crate) const HOST_NAME: &str = "requiem";

/// What init is born with.
pub(crate) struct Start<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) wants: Wants,
    pub(crate) group: Option<Group>,
    pub(crate) journal: Journal,
    pub(crate) own_pids: bool,
    pub(crate) control: Channel,
    pub(crate) supervisor: Pid,
}

/// Init's whole life. Faults travel to the supervisor.
pub(crate) fn run(mut start: Start<'_>) -> ! {
    let ended = live(&mut start);
    if let Err(fault) = &ended {
        // If the supervisor is gone, so is whoever would want to know.
        let _unheard = start.control.send(&Event::Broken(fault.clone()), &[]);
    }
    exit(i32::from(ended.is_err()))
}

fn live(start: &mut Start<'_>) -> Result<(), Fault> {
    shield()?;
    let place = prepare(start)?;
    let told = |error| Fault::of_channel("speak with the supervisor", &error);
    start.control.send(&Event::Prepared, &[place.handle.as_fd()]).map_err(told)?;
    let frame = start.control.receive().map_err(told)?;
    let request: Request = frame.message().map_err(told)?;
    let descriptors = frame.descriptors;
    let began = Instant::now();
    let (staged, extra) = stage(start, &place, &request, &descriptors)?;
    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    start.control.send(&Event::Staged { micros }, &[]).map_err(told)?;
    let child = match sys::process::fork().map_err(StepError::at("fork the payload"))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => payload::run(payload::Start {
            ground: start.ground,
            wants: &start.wants,
            journal: start.journal.clone(),
            control: &start.control,
            place: &place,
            request: &request,
            staged: &staged,
            streams: &descriptors,
            extra_inodes: extra,
        }),
    };
    // Otherwise the caller would never see the end of a stream.
    drop(descriptors);
    let status = reap(child, start)?;
    start.control.send(&Event::Ended { status, usage: children_usage() }, &[]).map_err(told)
}

/// Ties init to its supervisor and hides it from the payload.
fn shield() -> Result<(), StepError> {
    set_pdeathsig(Signal::SIGKILL).map_err(StepError::at("tie init to its supervisor"))?;
    set_dumpable(false).map_err(StepError::at("make init undumpable"))?;
    // Where there is no process-id namespace, orphans must come here all the same.
    set_child_subreaper(true).map_err(StepError::at("become the reaper"))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(StepError::at("unblock signals"))
}

/// Everything that needs no request.
fn prepare(start: &mut Start<'_>) -> Result<Place, Fault> {
    for kind in [MOUNT, IPC, UTS, NETWORK] {
        enter(start, kind);
    }
    join_cgroup(start);
    if start.wants.layer(Layer::UtsNamespace) && !start.journal.lacks(Layer::UtsNamespace) {
        sethostname(HOST_NAME).map_err(StepError::at("set the host name"))?;
    }
    if start.wants.layer(Layer::NetworkNamespace) && !start.journal.lacks(Layer::NetworkNamespace) {
        network::loopback_up()?;
    }
    Ok(furnish(start)?)
}

fn enter(start: &mut Start<'_>, kind: namespaces::Kind) {
    if !start.wants.layer(kind.layer) {
        return;
    }
    if let Err(finding) = namespaces::enter(kind) {
        start.journal.note(kind.layer, finding);
    }
}

/// Joins the run's cgroup, then makes it the root of what the run can see of the cgroup tree.
fn join_cgroup(start: &mut Start<'_>) {
    if let Some(Err(error)) = start.group.as_ref().map(Group::enter_self) {
        start.journal.note(Layer::Cgroup, Finding::impossible("cgroup", error.to_string()));
    }
    enter(start, CGROUP);
}

/// Whether the run has mounts of its own.
fn mounting(start: &Start<'_>) -> bool {
    start.wants.layer(Layer::MountNamespace) && !start.journal.lacks(Layer::MountNamespace)
}

/// Root, scratch and /proc.
fn furnish(start: &mut Start<'_>) -> Result<Place, StepError> {
    if !mounting(start) {
        return without_mounts(start, "the run has no mount namespace");
    }
    if let Err(finding) = &start.ground.tree {
        let (finding, why) = (finding.clone(), "the runner could not build its own root");
        start.journal.note(Layer::MinimalRoot, finding);
        return without_mounts(start, why);
    }
    if !start.wants.layer(Layer::MinimalRoot) {
        enter_host_tree(start)?;
    }
    let place = Place::mount(&start.ground.owner)?;
    inputs::stage_canary()?;
    // Folders of runs that cannot mount are nobody else's business.
    if start.wants.layer(Layer::MinimalRoot) {
        umount2("/runs", MntFlags::MNT_DETACH).map_err(StepError::at("unmount /runs"))?;
    }
    let own_pids = start.own_pids && start.wants.layer(Layer::Procfs);
    if own_pids {
        if let Err(finding) = procfs::replace() {
            start.journal.note(Layer::Procfs, finding);
        }
    } else {
        start.journal.note(
            Layer::Procfs,
            Finding::impossible(procfs::MECHANISM, "it needs pidNamespace; /proc is empty"),
        );
        procfs::remove()?;
    }
    Ok(place)
}

/// The runner's own tree is all there is: notes what cannot be had and makes plain folders.
fn without_mounts(start: &mut Start<'_>, why: &str) -> Result<Place, StepError> {
    start.journal.note(
        Layer::Scratch,
        Finding::impossible(scratch::MECHANISM, format!("{why}; folders without caps")),
    );
    start.journal.note(Layer::Procfs, Finding::impossible(procfs::MECHANISM, why));
    if let Err(finding) = &start.ground.tree {
        start.journal.note(Layer::MinimalRoot, finding.clone());
    }
    Place::folders(&start.ground.runs, &format!("run-{}", start.supervisor), &start.ground.owner)
}

/// Swaps the runner's minimal tree for a frame around the host's whole tree.
fn enter_host_tree(start: &Start<'_>) -> Result<(), StepError> {
    let step = StepError::at("enter the host's tree");
    let tree = start
        .ground
        .host_tree
        .as_ref()
        .ok_or(StepError { step: "find the host's tree", errno: Errno::ENOENT })?;
    setns(tree.as_fd(), CloneFlags::CLONE_NEWNS).map_err(step)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(StepError::at("copy the host's tree"))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(StepError::at("make mounts private"))?;
    root::enter(root::Kind::Host, start.ground.host_root.hidden())
}

/// What does need the request: the caps of scratch, the inputs, the working directory. Returns also how many
/// inodes were added to the cap for mount points.
fn stage(
    start: &mut Start<'_>,
    place: &Place,
    request: &Request,
    descriptors: &[OwnedFd],
) -> Result<(Staged, u64), Fault> {
    let extra = inputs::mount_points(&request.inputs);
    if start.wants.layer(Layer::Scratch) && !start.journal.lacks(Layer::Scratch) {
        place.limit(&request.limits, extra)?;
    }
    let sources = descriptors.get(3..).filter(|sources| sources.len() == request.inputs.len());
    let sources = sources.ok_or(StepError { step: "match inputs with descriptors", errno: Errno::EPROTO })?;
    let mounts = place.leftover.is_none();
    let staged = inputs::stage(&place.workspace, &request.inputs, sources, start.ground, mounts)?;
    if let Some(below) = &request.working_dir {
        inputs::make_folder(&place.workspace, below, &start.ground.owner)?;
    }
    Ok((staged, extra))
}

/// Waits for the payload, and for every orphan; then ends the rest.
fn reap(child: Pid, start: &Start<'_>) -> Result<Ending, StepError> {
    let ending = loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                break Ending::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                break Ending::Signalled(u8::try_from(signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(StepError { step: "wait for the payload", errno }),
        }
    };
    // Only as pid 1 of a namespace is "everybody" the run alone.
    if start.own_pids && nix::unistd::getpid() == Pid::from_raw(1) {
        // ESRCH: nobody is left.
        let _nobody_left = kill(Pid::from_raw(-1), Signal::SIGKILL);
        while waitpid(None, None) != Err(Errno::ECHILD) {}
    } else {
        end_descendants(start.ground.proc.as_fd());
    }
    Ok(ending)
}
