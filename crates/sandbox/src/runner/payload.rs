//! Pid 2 of a run: gives up everything step by step, shows from inside that it is gone, waits for leave, execs.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::exit;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sched::CloneFlags;
use nix::sys::personality::{self, Persona};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, getpid, setsid};
use requiem_model::report::{Evidence, Source};
use requiem_model::{EnvName, EnvRef, Layer, RelPath};

use super::Wants;
use super::ground::Ground;
use super::init::HOST_NAME;
use crate::error::StepError;
use crate::finding::{Finding, Journal};
use crate::layers::inputs::Staged;
use crate::layers::landlock::{Restricted, Rights, Ruleset};
use crate::layers::namespaces::{self, CGROUP, IPC, Identities, MOUNT, NETWORK, PID, USER, UTS};
use crate::layers::owner::PAYLOAD_ID;
use crate::layers::scratch::Place;
use crate::layers::seccomp::Closed;
use crate::layers::{descriptors, network, privileges, procfs, rlimits, root, seccomp};
use crate::protocol::{Channel, Event, Fault, Go, Request};
use crate::spec::INPUT_MTIME;
use crate::sys;

/// Where programs without a slash in their name are looked for.
const PATH: [&str; 6] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The most there is (proc(5), `oom_score_adj`): where memory runs out the payload must go before the runner. In a pod the runner itself
/// has nearly as much from the kubelet.
const OOM_SCORE: &str = "1000";

/// What the payload's process is born with. Nothing of it is ever dropped: the process execs or exits, and
/// its descriptors are closed by number.
pub(crate) struct Start<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) wants: &'a Wants,
    pub(crate) journal: Journal,
    pub(crate) control: &'a Channel,
    pub(crate) place: &'a Place,
    pub(crate) request: &'a Request,
    pub(crate) staged: &'a Staged,
    pub(crate) streams: &'a [OwnedFd],
    pub(crate) extra_inodes: u64,
}

/// What can only be seen before descriptors are closed, and is judged at the end.
struct Observed {
    namespaces: Identities,
    interfaces: Vec<String>,
    cgroup_paths: String,
}

/// The payload's life until exec.
pub(crate) fn run(mut start: Start<'_>) -> ! {
    let event = match prepare(&mut start).and_then(|()| hand_over(&start)) {
        Ok(Unstarted::NotRunnable(why)) => Event::NotRunnable { why },
        Ok(Unstarted::ValueMissing(name)) => Event::ValueMissing { name },
        Err(fault) => Event::Broken(fault),
    };
    // If the supervisor is gone, so is whoever would want to know.
    let _unheard = start.control.send(&event, &[]);
    exit(127)
}

impl Start<'_> {
    fn wants(&self, layer: Layer) -> bool {
        self.wants.layer(layer)
    }

    /// Whether `layer` is wanted and nothing has failed so far.
    fn has(&self, layer: Layer) -> bool {
        self.wants(layer) && !self.journal.lacks(layer)
    }

    /// Sockets that no other layer keeps from leading out. A network or a tree that the policy asks for by switching its
    /// layer off is granted, but the runner's own tree is nobody's.
    fn closed(&self) -> Closed {
        let in_runners_tree = self.place.leftover.is_some();
        Closed {
            unix: in_runners_tree
                && (self.wants(Layer::MinimalRoot) || self.ground.host_root.hidden().is_some()),
            inet: self.wants(Layer::NetworkNamespace) && self.journal.lacks(Layer::NetworkNamespace),
        }
    }

    fn rlimits(&self) -> rlimits::Context {
        rlimits::Context {
            own_user_namespace: self.has(Layer::UserNamespace),
            cgroup_limits_memory: self.has(Layer::Cgroup),
        }
    }
}

/// Applies the layers, then proves them all. The order is the point of this function.
fn prepare(start: &mut Start<'_>) -> Result<(), Fault> {
    // Streams and session first: they need nothing and everything later may forbid them.
    plain_process(start)?;
    // Paths are opened while their owner may still do so; the rules come into force much later.
    let rules = compile_landlock(start);
    // Bounds of the runner's namespace: without a final one, the right to drop them goes with the ids.
    if start.wants(Layer::Capabilities) && start.ground.owner.is_privileged() {
        note_failure(start, Layer::Capabilities, "capset", privileges::drop_bounds());
    }
    start.ground.owner.assume()?;
    enter_user_namespace(start);
    // Only now: the limit on processes counts per user namespace.
    if start.wants(Layer::Rlimits) {
        note_failure(
            start,
            Layer::Rlimits,
            "setrlimit",
            rlimits::apply(&start.request.limits, start.rlimits()),
        );
    }
    change_directory(start)?;
    let observed = observe(start)?;
    // With every capability of the final user namespace: nobody inside will ever have more. Without one, those of the
    // runner's would be used, which the payload never has.
    let sealed = start.has(Layer::UserNamespace);
    let attacked = if sealed { start.staged.attack() } else { Ok(()) };
    if start.wants(Layer::NoNewPrivileges) {
        note_failure(start, Layer::NoNewPrivileges, "prctl:no_new_privs", privileges::forbid_new());
    }
    drop_capabilities(start);
    let attacked = attacked.and_then(|()| start.staged.attack());
    let restricted = rules.and_then(|rules| restrict_files(start, rules));
    // The channel is the only thing still needed.
    if start.wants(Layer::Descriptors) {
        descriptors::close_others(start.control.as_fd())?;
    }
    // Last, because it forbids what the steps above do.
    install_filter(start);
    prove(start, &observed, restricted, attacked);
    Ok(())
}

fn plain_process(start: &Start<'_>) -> Result<(), StepError> {
    let [stdin, stdout, stderr, ..] = start.streams else {
        return Err(StepError { step: "find the streams", errno: Errno::EPROTO });
    };
    dup2_stdin(stdin).map_err(StepError::at("set standard input"))?;
    dup2_stdout(stdout).map_err(StepError::at("set standard output"))?;
    dup2_stderr(stderr).map_err(StepError::at("set standard error"))?;
    setsid().map_err(StepError::at("start a session"))?;
    umask(Mode::from_bits_truncate(0o022));
    reset_signals()?;
    // A refusal (some container profiles) is not a missing layer; it shows in the report's sources.
    let _shown_as_source = personality::set(Persona::ADDR_NO_RANDOMIZE);
    // Courtesy to init and to the host, no layer; some hosts show /proc read-only.
    let _courtesy = prefer_for_oom(start);
    Ok(())
}

/// Rust ignores SIGPIPE, whoever started the caller may have ignored others; exec would hand that on.
fn reset_signals() -> Result<(), StepError> {
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP];
    for signal in Signal::iterator().filter(|signal| !fixed.contains(signal)) {
        sys::process::default_action(signal).map_err(StepError::at("reset a signal"))?;
    }
    Ok(())
}

fn prefer_for_oom(start: &Start<'_>) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    nix::sys::prctl::set_dumpable(true)?;
    let file = openat(&start.ground.proc, "self/oom_score_adj", flags, Mode::empty());
    let written = file.and_then(|file| nix::unistd::write(&file, OOM_SCORE.as_bytes()));
    nix::sys::prctl::set_dumpable(false)?;
    written.map(drop)
}

fn note_failure(start: &mut Start<'_>, layer: Layer, mechanism: &str, done: Result<(), StepError>) {
    if let Err(error) = done {
        start.journal.note(layer, Finding::impossible(mechanism, error.to_string()));
    }
}

fn compile_landlock(start: &mut Start<'_>) -> Option<Ruleset> {
    if !start.wants(Layer::Landlock) {
        return None;
    }
    let rules = file_rules(start);
    let borrowed: Vec<(&Path, Rights)> =
        rules.iter().map(|(path, rights)| (path.as_path(), *rights)).collect();
    match Ruleset::compile(&borrowed) {
        Ok(ruleset) => Some(ruleset),
        Err(finding) => {
            start.journal.note(Layer::Landlock, finding);
            None
        }
    }
}

/// What the payload may do with which files, whatever the mounts say.
fn file_rules(start: &Start<'_>) -> Vec<(PathBuf, Rights)> {
    let whole_host = start.ground.tree.is_err() || !start.wants(Layer::MinimalRoot);
    // The right to list is inherited: given for the root, it would open the folder that nobody may see.
    let listed = !whole_host || start.ground.host_root.hidden().is_none();
    let mut rules: Vec<(PathBuf, Rights)> = listed.then(|| ("/".into(), Rights::List)).into_iter().collect();
    if whole_host {
        rules.extend(start.ground.host_root.folders().map(|path| (path, Rights::Read)));
    }
    let system = root::SYSTEM.into_iter().chain(["etc", "proc", "dev"]);
    rules.extend(system.map(|name| (Path::new("/").join(name), Rights::Read)));
    rules.extend(root::DEVICES.into_iter().map(|name| (Path::new("/dev").join(name), Rights::Device)));
    rules.push((start.place.workspace.clone(), Rights::ReadWriteExec));
    rules.push((start.place.tmp.clone(), Rights::ReadWriteExec));
    rules
}

fn enter_user_namespace(start: &mut Start<'_>) {
    if !start.wants(Layer::UserNamespace) {
        return;
    }
    // Its own mount table, or the flags of the mounts would not be locked.
    let with = if start.has(Layer::MountNamespace) { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
    let sealed = start.ground.owner.seal(start.ground.proc.as_fd(), with);
    note_failure(start, Layer::UserNamespace, &USER.mechanism(), sealed);
}

fn change_directory(start: &Start<'_>) -> Result<(), StepError> {
    let below = start.request.working_dir.as_ref().map_or("", RelPath::as_str);
    chdir(&start.place.workspace.join(below)).map_err(StepError::at("enter the working directory"))
}

fn observe(start: &Start<'_>) -> Result<Observed, StepError> {
    let proc = start.ground.proc.as_fd();
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let paths =
        openat(proc, "self/cgroup", flags, Mode::empty()).map_err(StepError::at("open /proc/self/cgroup"))?;
    Ok(Observed {
        namespaces: Identities::of_self(proc)?,
        interfaces: network::interfaces(proc)?,
        cgroup_paths: std::io::read_to_string(std::fs::File::from(paths))
            .map_err(StepError::io("read /proc/self/cgroup"))?,
    })
}

fn restrict_files(start: &mut Start<'_>, rules: Ruleset) -> Option<Restricted> {
    let canary = match &start.ground.tree {
        Ok(()) => root::LANDLOCK_CANARY.into(),
        Err(_) => start.ground.runs.join("canary"),
    };
    match rules.restrict(&canary) {
        Ok(restricted) => Some(restricted),
        Err(finding) => {
            start.journal.note(Layer::Landlock, finding);
            None
        }
    }
}

fn drop_capabilities(start: &mut Start<'_>) {
    if !start.wants(Layer::Capabilities) {
        return;
    }
    if start.has(Layer::UserNamespace) {
        note_failure(start, Layer::Capabilities, "capset", privileges::drop_bounds());
    }
    note_failure(start, Layer::Capabilities, "capset", privileges::drop_all());
}

fn install_filter(start: &mut Start<'_>) {
    if !start.wants(Layer::Seccomp) {
        return;
    }
    let finding = match start.ground.filter(start.closed()) {
        Err(finding) => Some(finding),
        Ok(filter) => filter.install().err().map(|errno| Finding::impossible("seccomp", errno.desc())),
    };
    if let Some(finding) = finding {
        start.journal.note(Layer::Seccomp, finding);
    }
}

/// Looks at every wanted layer from inside the finished sandbox.
fn prove(start: &mut Start<'_>, seen: &Observed, restricted: Option<Restricted>, attacked: nix::Result<()>) {
    let limits = &start.request.limits;
    let compare = |kind| namespaces::compare(kind, &seen.namespaces, &start.ground.outside);
    let mut findings = vec![
        (Layer::UserNamespace, compare(USER)),
        (Layer::PidNamespace, prove_pid(compare(PID))),
        (Layer::MountNamespace, compare(MOUNT)),
        (Layer::NetworkNamespace, prove_network(compare(NETWORK), &seen.interfaces)),
        (Layer::IpcNamespace, compare(IPC)),
        (Layer::UtsNamespace, prove_host_name(compare(UTS))),
        (Layer::CgroupNamespace, prove_cgroup_view(compare(CGROUP), &seen.cgroup_paths)),
        (Layer::MinimalRoot, start.ground.host_root.prove_gone()),
        (Layer::ReadOnlyInputs, prove_inputs(start.staged, attacked)),
        (Layer::Scratch, start.place.prove(limits, start.extra_inodes)),
        (Layer::NoNewPrivileges, privileges::prove_forbidden()),
        (Layer::Capabilities, privileges::prove_dropped()),
        (Layer::Rlimits, rlimits::prove(limits, start.rlimits())),
        (Layer::Descriptors, descriptors::prove()),
    ];
    if start.has(Layer::Procfs) {
        findings.push((Layer::Procfs, procfs::prove()));
    }
    if start.has(Layer::Seccomp) {
        let closed = start.closed();
        let found = seccomp::prove(closed);
        if closed.inet && matches!(found, Finding::InForce { .. }) {
            start.journal.substitute(Layer::NetworkNamespace, without_sockets());
        }
        findings.push((Layer::Seccomp, found));
    }
    if let Some(restricted) = restricted {
        findings.push((Layer::Landlock, restricted.prove()));
    }
    for (layer, finding) in findings.into_iter().filter(|(layer, _)| start.wants.layer(*layer)) {
        start.journal.note(layer, finding);
    }
}

fn prove_pid(compared: Finding) -> Finding {
    match (&compared, getpid().as_raw()) {
        (Finding::InForce { .. }, other) if other != 2 => Finding::short(
            PID.mechanism(),
            Evidence::Readback,
            format!("the payload is process {other}, not 2"),
        ),
        _ => compared,
    }
}

/// What stands in for a network namespace that cannot be had.
fn without_sockets() -> Finding {
    let detail = "there is no network namespace; instead the payload can open no IP socket, which was tried";
    Finding::short("seccomp:closed:inet", Evidence::Probe, detail)
}

/// A new namespace, and nothing to be reached in it.
fn prove_network(compared: Finding, interfaces: &[String]) -> Finding {
    if matches!(compared, Finding::InForce { .. }) { network::prove(interfaces) } else { compared }
}

fn prove_host_name(compared: Finding) -> Finding {
    match nix::unistd::gethostname() {
        Ok(name) if name == HOST_NAME => compared,
        _ => Finding::short(UTS.mechanism(), Evidence::Readback, "the host name is not the fixed one"),
    }
}

/// Every line of `/proc/self/cgroup` must show the run's own group as the root.
fn prove_cgroup_view(compared: Finding, paths: &str) -> Finding {
    if paths.lines().all(|line| line.ends_with(":/")) {
        return compared;
    }
    Finding::short(CGROUP.mechanism(), Evidence::Readback, "the path of a cgroup on the host can be read")
}

fn prove_inputs(staged: &Staged, attacked: nix::Result<()>) -> Finding {
    match (staged.prove(), attacked) {
        (Finding::InForce { mechanism, .. }, Err(errno)) => {
            let detail = format!("lifting the read-only flag was not refused: {}", errno.desc());
            Finding::short(mechanism, Evidence::Probe, detail)
        }
        (finding, _) => finding,
    }
}

/// Sources of differences that were seen to be the same in every run.
fn fixed_sources(start: &Start<'_>) -> Vec<Source> {
    let proven =
        |layer| start.wants(layer) && matches!(start.journal.of(layer), Some(Finding::InForce { .. }));
    let identity = || {
        let ids = [nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()];
        let mask = umask(Mode::from_bits_truncate(0o022));
        proven(Layer::UtsNamespace) && ids == [PAYLOAD_ID; 2] && mask == Mode::from_bits_truncate(0o022)
    };
    let layout = || personality::get().is_ok_and(|persona| persona.contains(Persona::ADDR_NO_RANDOMIZE));
    let candidates = [
        // Nothing else is inherited: what exec is given below is the request's and fixed defaults.
        (Source::Environment, start.request.env_refs.is_empty()),
        (Source::Identity, identity()),
        (Source::ProcessIds, proven(Layer::PidNamespace)),
        (Source::AddressLayout, layout()),
        (Source::InputTimes, start.staged.times_are(INPUT_MTIME)),
        (Source::Network, proven(Layer::NetworkNamespace)),
    ];
    candidates.into_iter().filter(|(_, fixed)| *fixed).map(|(source, _)| source).collect()
}

/// Why the program was not started.
enum Unstarted {
    /// It, or what it is to be given, is none.
    NotRunnable(String),
    /// The runner has no value for this variable.
    ValueMissing(EnvName),
}

/// Reports, waits for leave, execs. Returns why the program could not be started.
fn hand_over(start: &Start<'_>) -> Result<Unstarted, Fault> {
    let program = Program::of(start.request, &start.place.workspace);
    let event = Event::Proven { findings: start.journal.clone().into_vec(), fixed: fixed_sources(start) };
    let told = |error| Fault::of_channel("speak with the supervisor", &error);
    start.control.send(&event, &[]).map_err(told)?;
    start.control.receive().and_then(|frame| frame.message::<Go>()).map_err(told)?;
    Ok(match program {
        Ok(program) => Unstarted::NotRunnable(program.exec()),
        Err(unstarted) => unstarted,
    })
}

/// What exec takes.
struct Program {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn of(request: &Request, workspace: &Path) -> Result<Self, Unstarted> {
        let not_runnable = |why: &str| Unstarted::NotRunnable(why.to_owned());
        let bytes = |bytes: Vec<u8>| {
            CString::new(bytes).map_err(|_| not_runnable("an argument or variable holds a NUL"))
        };
        let text = |text: String| bytes(text.into_bytes());
        let name = request.argv.first().ok_or_else(|| not_runnable("there is no program to start"))?;
        let candidates = if name.contains('/') {
            vec![name.clone()]
        } else {
            PATH.iter().map(|folder| format!("{folder}/{name}")).collect()
        };
        Ok(Self {
            candidates: candidates.into_iter().map(text).collect::<Result<_, _>>()?,
            argv: request.argv.iter().cloned().map(text).collect::<Result<_, _>>()?,
            env: environment(request, workspace)?.into_iter().map(bytes).collect::<Result<_, _>>()?,
        })
    }

    /// Returns only if no candidate can be started.
    fn exec(&self) -> String {
        let mut answer = Errno::ENOENT;
        for candidate in &self.candidates {
            match execve(candidate, &self.argv, &self.env) {
                Ok(never) => match never {},
                // Somewhere else there may still be one.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::EACCES) => answer = Errno::EACCES,
                Err(errno) => return explain(candidate, errno),
            }
        }
        explain(self.argv.first().map_or(c"", CString::as_c_str), answer)
    }
}

fn explain(program: &CStr, errno: Errno) -> String {
    let remedy = match errno {
        Errno::ENOENT => "; no such program (or its interpreter) in the sandbox",
        Errno::EACCES => "; it is not executable",
        Errno::ENOEXEC => "; it is no program of this machine and has no '#!' line",
        _ => "",
    };
    format!("cannot start {:?}: {}{remedy}", program.to_string_lossy(), errno.desc())
}

/// The request's variables over fixed defaults, sorted. Of the runner's own environment only the values that the request
/// refers to get in, each by its carrier.
fn environment(request: &Request, workspace: &Path) -> Result<Vec<Vec<u8>>, Unstarted> {
    let home = workspace.to_string_lossy();
    let defaults = [("HOME", home.as_ref()), ("LANG", "C.UTF-8"), ("PATH", &PATH.join(":")), ("TZ", "UTC")]
        .map(|(name, value)| (name, OsString::from(value)));
    let mut all = BTreeMap::from(defaults);
    all.extend(request.env.iter().map(|var| (var.name.as_str(), OsString::from(&var.value))));
    for reference in &request.env_refs {
        all.insert(reference.name.as_str(), carried(reference)?);
    }
    let line = |(name, value): (&str, OsString)| [name.as_bytes(), b"=", &value.into_vec()].concat();
    Ok(all.into_iter().map(line).collect())
}

fn carried(reference: &EnvRef) -> Result<OsString, Unstarted> {
    std::env::var_os(reference.carrier()).ok_or_else(|| Unstarted::ValueMissing(reference.name.clone()))
}
