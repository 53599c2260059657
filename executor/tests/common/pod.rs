//! A pod without a kubelet: executor and runner in mount and process-id namespaces of their own, as an ordinary user
//! without capabilities, sharing two folders. What a container runtime does for the three tiers is done by hand.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use requiem_cas::Durability;
use requiem_model::BlobDigest;
use seccompiler::{SeccompAction, SeccompFilter};

use super::{Daemon, Pki};

/// User and group of both containers.
const USER: u32 = 65_532;
/// Tells a test binary to put itself behind the filter of a restricted container; the value is a program and its
/// arguments, separated by this byte.
const RESTRICTED: &str = "REQUIEM_TEST_RESTRICTED";
const SEPARATOR: &str = "\u{1}";

/// What a pod allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Namespaces, mounts, a whole /proc.
    T1,
    /// The same with parts of /proc covered.
    T2,
    /// None of it: a filter refuses namespaces and mounts.
    T3,
}

/// The folders of a pod.
pub struct Pod {
    folder: tempfile::TempDir,
    tier: Tier,
    pub pki: Arc<Pki>,
}

/// A running workload container.
pub struct Workload(Child);

/// Builds a container's root below `$1`, from the host's system folders and the pod's two; becomes user `$2`.
const CONTAINER: &str = r#"
set -e
root=$1 user=$2 run=$3 bin=$4 tier=$5; shift 5
mount --make-rprivate /
mount -t tmpfs none "$root"
cd "$root"
for name in usr bin sbin lib lib64 etc; do
  if [ -L "/$name" ]; then cp -P "/$name" "$name"; elif [ -d "/$name" ]; then mkdir "$name"; mount --rbind "/$name" "$name"; fi
done
mkdir -p tmp proc dev requiem/run requiem/bin old var/run/secrets
chmod 1777 tmp
mount -t proc proc proc
for name in null zero full random urandom; do : > "dev/$name"; mount --bind "/dev/$name" "dev/$name"; done
mount --bind "$run" requiem/run
mount --bind "$bin" requiem/bin
if [ "$tier" != T1 ]; then mount --bind /dev/null proc/interrupts; mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys; fi
pivot_root . old
umount -l /old
exec setpriv --reuid="$user" --regid="$user" --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
"#;

impl Pod {
    pub fn new(tier: Tier) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "run", "bin", "store", "root"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            nix::unistd::chown(&path, Some(USER.into()), Some(USER.into())).unwrap();
        }
        let pki = Pki::new();
        for entry in std::fs::read_dir(pki.dir.path()).unwrap() {
            nix::unistd::chown(&entry.unwrap().path(), Some(USER.into()), None).unwrap();
        }
        nix::unistd::chown(pki.dir.path(), Some(USER.into()), None).unwrap();
        // The build folder may be closed to this user.
        for (from, to) in [
            (PathBuf::from(env!("CARGO_BIN_EXE_requiem-executor")), "executor"),
            (std::env::current_exe().unwrap(), "test"),
        ] {
            std::fs::copy(from, folder.path().join(to)).unwrap();
        }
        Self { folder, tier, pki }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/runner.sock")
    }

    /// Compiles a program and puts it into the tenant's store, before there is an executor.
    pub fn put_program(&self, source: &str) -> BlobDigest {
        let program = self.path("program");
        compile(Path::new(source), &program);
        let store = requiem_cas::Store::open(&self.path("store")).unwrap();
        let tenant = store.tenant(&requiem_cas::Tenant::parse("team-a").unwrap()).unwrap();
        let receipt = tenant.put_bytes(&std::fs::read(program).unwrap(), Durability::Volatile).unwrap();
        let ids = format!("{USER}:{USER}");
        assert!(Command::new("chown").arg("-R").arg(ids).arg(self.path("store")).status().unwrap().success());
        receipt.digest
    }

    /// The executor's container. It serves; the runner is still missing.
    pub fn executor(&self, flags: &[&str]) -> Daemon {
        let (socket, runner) = (self.socket(), self.path("bin/requiem-runner"));
        let own = ["--runner-socket", socket.to_str().unwrap(), "--install-runner", runner.to_str().unwrap()];
        let wanted = Daemon::command(&self.pki, &self.path("store"), &[&own, flags].concat());
        let mut words = vec![self.path("executor").into_os_string().into_string().unwrap()];
        words.extend(wanted.get_args().map(|word| word.to_str().unwrap().to_owned()));
        let mut command = Command::new("unshare");
        let ids = [format!("--reuid={USER}"), format!("--regid={USER}")];
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "setpriv"])
            .args(ids);
        command.args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]);
        command.args(self.wrapped(words, "test")).env("RUST_LOG", "info");
        Daemon::of(command, &self.path("store"), &self.pki)
    }

    /// The workload's container: the runner that the executor has installed, as process 1.
    pub fn workload(&self) -> Workload {
        self.workload_with(&[])
    }

    /// The same with these variables, as a kubelet would have resolved them.
    pub fn workload_with(&self, variables: &[(&str, &str)]) -> Workload {
        let words = ["/requiem/bin/requiem-runner", "--socket", "/requiem/run/runner.sock"];
        let words = self.wrapped(words.map(str::to_owned).to_vec(), "/requiem/bin/test");
        if self.tier == Tier::T3 {
            std::fs::copy(self.path("test"), self.path("bin/test")).unwrap();
        }
        let mut command = Command::new("unshare");
        command.envs(variables.iter().copied());
        command.args([
            "--mount",
            "--pid",
            "--net",
            "--ipc",
            "--uts",
            "--cgroup",
            "--fork",
            "--kill-child",
            "--",
        ]);
        command.args(["sh", "-c", CONTAINER, "container"]).arg(self.path("root")).arg(USER.to_string());
        command.arg(self.path("run")).arg(self.path("bin")).arg(format!("{:?}", self.tier)).args(words);
        Workload(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// `words` behind the restricted container's filter, if this pod has it.
    fn wrapped(&self, words: Vec<String>, test: &str) -> Vec<String> {
        if self.tier != Tier::T3 {
            return words;
        }
        let test = self.path(test).into_os_string().into_string().unwrap();
        let told = format!("{RESTRICTED}={}", words.join(SEPARATOR));
        let own = ["--exact", "restricted", "--nocapture", "--test-threads=1"];
        let mut all = vec!["env".to_owned(), told, test];
        all.extend(own.map(str::to_owned));
        all
    }
}

impl Workload {
    /// Process id of the runner, as the host sees it.
    pub fn runner(&self) -> u32 {
        first_child(self.0.id())
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let runner = nix::unistd::Pid::from_raw(i32::try_from(self.runner()).unwrap());
        nix::sys::signal::kill(runner, signal).unwrap();
    }

    pub fn wait(mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Already gone is fine; the kernel ends the container with its first process.
        kill_inside(&mut self.0);
        let _waited = self.0.wait();
    }
}

/// The role of a test binary that turns into a program behind the filter.
pub fn restricted() {
    let Ok(words) = std::env::var(RESTRICTED) else { return };
    let mut words = words.split(SEPARATOR);
    // What every container runtime's default profile refuses to a container without capabilities.
    let refused = [libc_numbers::UNSHARE, libc_numbers::MOUNT, libc_numbers::SETNS, libc_numbers::OPEN_TREE];
    let rules = refused.into_iter().map(|number| (number, vec![])).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(1), arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
    let error = Command::new(words.next().unwrap()).args(words).env_remove(RESTRICTED).exec();
    panic!("{error}");
}

/// System-call numbers, which this crate has no other use for.
mod libc_numbers {
    #[cfg(target_arch = "x86_64")]
    pub(super) const MOUNT: i64 = 165;
    #[cfg(target_arch = "x86_64")]
    pub(super) const UNSHARE: i64 = 272;
    #[cfg(target_arch = "x86_64")]
    pub(super) const SETNS: i64 = 308;
    #[cfg(target_arch = "aarch64")]
    pub(super) const MOUNT: i64 = 40;
    #[cfg(target_arch = "aarch64")]
    pub(super) const UNSHARE: i64 = 97;
    #[cfg(target_arch = "aarch64")]
    pub(super) const SETNS: i64 = 268;
    pub(super) const OPEN_TREE: i64 = 428;
}

/// The child of a process that has one.
pub fn first_child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

/// Kills what runs inside `outside`, or itself if that is all. (A change of user ids has undone the tie between them.)
pub fn kill_inside(outside: &mut Child) {
    let children = format!("/proc/{0}/task/{0}/children", outside.id());
    let inside = std::fs::read_to_string(children).unwrap_or_default();
    match inside.trim().parse() {
        Ok(inside) if is_unshare(outside.id()) => {
            let _gone =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(inside), nix::sys::signal::Signal::SIGKILL);
        }
        _ => {
            let _gone = outside.kill();
        }
    }
}

fn is_unshare(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "unshare")
}

/// A program from C, static.
pub fn compile(source: &Path, target: &Path) {
    let words = ["-static", "-O1", "-Wall", "-o"];
    assert!(Command::new("cc").args(words).arg(target).arg(source).status().unwrap().success());
}

/// Whether `path` is there.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
