//! Programs built once from pinned Go modules into the user's cache folder.
//!
//! Flow: digest of (go.mod, go.sum, flags) → folder of the cache; there? done · lock → still not there? → `go list` (downloads
//! the modules, checked against go.sum) → `go build` into a temporary folder beside it → rename. Shared by all clones; a build
//! that is interrupted leaves nothing but Go's own cache.

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Background, failed};
use crate::progress::{Step, say};
use crate::{Error, Result, packages, paths, prerequisites, process, reaper};

/// A Go module of ours that pins one family of programs.
#[derive(Debug)]
pub struct Family {
    /// Folder below `crates/xtask/tools`, and the name in the cache.
    pub name: &'static str,
    /// Build tags. A family with tags is built with C, the others without.
    pub tags: &'static str,
    /// What is built: (Go package, file name).
    pub programs: &'static [(&'static str, &'static str)],
    /// Linker flags after `-s -w`.
    pub ldflags: &'static str,
}

/// The store behind the API server.
pub const ETCD: Family =
    Family { name: "etcd", tags: "", programs: &[("go.etcd.io/etcd/server/v3", "etcd")], ldflags: "" };

/// The version variables of Kubernetes, as a release build sets them; without them a server calls itself v0.0.0.
const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 \
                                  -X k8s.io/component-base/version.gitMinor=37";

/// API server and client.
pub const KUBERNETES: Family = Family {
    name: "kubernetes",
    tags: "",
    programs: &[
        ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
        ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    ],
    ldflags: KUBERNETES_VERSION,
};

/// What a cluster with nodes has besides. A module of its own, so that the API server is not built anew because of it.
pub const KUBERNETES_NODE: Family = Family {
    name: "kubernetes-node",
    tags: "",
    programs: &[
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
        ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
        ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
    ],
    ldflags: KUBERNETES_VERSION,
};

/// The container runtime of a node.
pub const CONTAINERD: Family = Family {
    name: "containerd",
    tags: "",
    programs: &[
        ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
        ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
        ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
    ],
    ldflags: "",
};

/// What starts containers. The only one with C in it: it links the system's libseccomp.
pub const RUNC: Family = Family {
    name: "runc",
    tags: "seccomp",
    programs: &[("github.com/opencontainers/runc", "runc")],
    ldflags: "",
};

/// What connects pods.
pub const CNI: Family = Family {
    name: "cni",
    tags: "",
    programs: &[
        ("github.com/containernetworking/plugins/plugins/main/bridge", "bridge"),
        ("github.com/containernetworking/plugins/plugins/main/loopback", "loopback"),
        ("github.com/containernetworking/plugins/plugins/ipam/host-local", "host-local"),
    ],
    ldflags: "",
};

/// What installs the chart. Without its version variable it calls itself v4.3, and refuses charts that ask for a patch of it.
pub const HELM: Family = Family {
    name: "helm",
    tags: "",
    programs: &[("helm.sh/helm/v4/cmd/helm", "helm")],
    ldflags: "-X helm.sh/helm/v4/internal/version.version=v4.3.1",
};

/// The first process of a node, and the container that holds a pod's namespaces. Ours.
pub const PAUSE: Family = Family { name: "pause", tags: "", programs: &[(".", "pause")], ldflags: "" };

/// Judges of manifests, one for each release of Kubernetes besides the one that clusters run. Ours, from one source: what differs
/// are the pinned types.
pub const SCHEMAS: [Family; 4] = [
    Family { name: "schema-1.33", tags: "", programs: &[(".", "schema")], ldflags: "" },
    Family { name: "schema-1.34", tags: "", programs: &[(".", "schema")], ldflags: "" },
    Family { name: "schema-1.35", tags: "", programs: &[(".", "schema")], ldflags: "" },
    Family { name: "schema-1.36", tags: "", programs: &[(".", "schema")], ldflags: "" },
];

/// What GitOps clients say of an object, by their own code. The program around it is ours.
pub const JUDGE: Family = Family { name: "judge", tags: "", programs: &[(".", "judge")], ldflags: "" };

/// What Grafana's own types say of a dashboard. The program around them is ours.
pub const DASHBOARD: Family =
    Family { name: "dashboard", tags: "", programs: &[(".", "dashboard")], ldflags: "" };

/// What sigstore-go, the library of cosign, says of a signature that was exported. The program around it is ours; cosign itself takes four
/// times as long to build, and six times the room.
pub const SIGSTORE: Family =
    Family { name: "sigstore", tags: "", programs: &[(".", "sigstore")], ldflags: "" };

/// What the suite of proofs uses.
pub const VERIFIERS: &[&Family] = &[&SIGSTORE];
/// What writes manifests and judges them.
pub const JUDGES: &[&Family] = &[&HELM, &KUBERNETES, &SCHEMAS[0], &SCHEMAS[1], &SCHEMAS[2], &SCHEMAS[3]];
/// What suites on a control plane use.
pub const CLUSTER: &[&Family] = &[&ETCD, &KUBERNETES, &JUDGE, &HELM];
/// What the suite of metrics uses.
pub const MONITORING: &[&Family] = &[&ETCD, &KUBERNETES, &DASHBOARD];
/// What suites on nodes use.
pub const NODES: &[&Family] =
    &[&ETCD, &KUBERNETES, &PAUSE, &CNI, &RUNC, &CONTAINERD, &KUBERNETES_NODE, &HELM];

/// What a control plane needs.
#[derive(Debug, Clone)]
pub struct ControlPlaneTools {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

/// What a node needs: the folders of the families.
#[derive(Debug, Clone)]
pub struct NodeTools {
    /// kubelet, kube-proxy, kube-scheduler, kube-controller-manager.
    pub kubernetes: PathBuf,
    /// containerd, its shim and its client.
    pub containerd: PathBuf,
    /// runc.
    pub runc: PathBuf,
    /// CNI plugins.
    pub cni: PathBuf,
    /// pause.
    pub pause: PathBuf,
}

/// Builds what nodes need, or finds it built.
///
/// # Errors
/// As for [`control_plane`].
pub fn node() -> Result<NodeTools> {
    Ok(NodeTools {
        pause: ensure(&PAUSE)?,
        cni: ensure(&CNI)?,
        runc: ensure(&RUNC)?,
        containerd: ensure(&CONTAINERD)?,
        kubernetes: ensure(&KUBERNETES_NODE)?,
    })
}

/// Builds what a control plane needs, or finds it built.
///
/// # Errors
/// No Go, no network on the first build, or no space.
pub fn control_plane() -> Result<ControlPlaneTools> {
    let (etcd, kubernetes) = (ensure(&ETCD)?, ensure(&KUBERNETES)?);
    Ok(ControlPlaneTools {
        etcd: etcd.join("etcd"),
        apiserver: kubernetes.join("kube-apiserver"),
        kubectl: kubernetes.join("kubectl"),
    })
}

/// Helm, built now if need be.
///
/// # Errors
/// As for [`control_plane`].
pub fn helm() -> Result<PathBuf> {
    Ok(ensure(&HELM)?.join("helm"))
}

/// Begins to build `families`, one after the other, with the processor time that nobody else wants. Whoever needs one meanwhile waits
/// for it in [`ensure`]; what fails here is tried again there, and told.
pub fn build_ahead(families: Vec<&'static Family>) {
    std::thread::spawn(move || {
        // On Linux this is the priority of the calling thread, and of what it starts: setpriority(2).
        let lowered = rustix::process::setpriority_process(None, 19);
        families.iter().take_while(|family| lowered.is_ok() && ensure(family).is_ok()).count()
    });
}

/// The folder with the programs of `family`, built now if need be.
///
/// # Errors
/// As for [`control_plane`].
pub fn ensure(family: &Family) -> Result<PathBuf> {
    let cache = cache_folder()?;
    let ready = cache.join(key(family)?);
    if ready.is_dir() {
        return Ok(ready);
    }
    prerequisites::go()?;
    if family.has_c() {
        packages::seccomp_headers()?;
    }
    paths::make_private(&cache)?;
    let lock = wait_for_lock(&cache.join(format!("{}.lock", family.name)), family.name)?;
    if !ready.is_dir() {
        make_whole(&ready, |folder| compile(family, folder, download_and_count(family)?))?;
    }
    drop(lock);
    Ok(ready)
}

/// Where built programs are kept.
///
/// # Errors
/// There is no home folder.
pub fn cache_folder() -> Result<PathBuf> {
    Ok(paths::cache()?.join("tools"))
}

/// The folder with the Go module of `family`.
fn module(family: &Family) -> PathBuf {
    paths::repository().join("crates/xtask/tools").join(family.name)
}

fn flags(family: &Family) -> Vec<String> {
    let ldflags = format!("-s -w {}", family.ldflags);
    let mut flags = vec!["-trimpath".into(), "-ldflags".into(), ldflags.trim_end().into()];
    if family.has_c() {
        flags.extend(["-tags".into(), family.tags.into()]);
    }
    flags
}

fn key(family: &Family) -> Result<String> {
    let module = module(family);
    let mut hasher = blake3::Hasher::new();
    // Only the programs of our own have a source here; the others are named by go.mod and go.sum.
    let source = Some("main.go").filter(|file| module.join(file).is_file());
    for file in ["go.mod", "go.sum"].into_iter().chain(source) {
        let path = module.join(file);
        let bytes = fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    let programs =
        family.programs.iter().flat_map(|(package, name)| [(*package).to_owned(), (*name).to_owned()]);
    for text in flags(family).into_iter().chain(programs).chain([std::env::consts::ARCH.to_owned()]) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    Ok(format!("{}-{}", family.name, &hasher.finalize().to_hex()[..16]))
}

fn wait_for_lock(path: &Path, what: &str) -> Result<File> {
    let doing = || format!("lock {}", path.display());
    let file = File::create(path).map_err(Error::io(doing()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(&format!("· {what} is being built already; waiting for it"));
            file.lock().map_err(Error::io(doing()))?;
        }
        Err(TryLockError::Error(source)) => return Err(Error::Io { doing: doing(), source }),
    }
    Ok(file)
}

/// Makes the folder `ready` of the cache whole or not at all: `fill` is given an empty one beside it, which then takes its name. If
/// another process was quicker, its folder is as good.
///
/// # Errors
/// What `fill` says, or the system refuses.
pub fn make_whole(ready: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = ready.file_name().unwrap_or_default().to_string_lossy();
    let building = ready.with_file_name(format!(".building-{name}-{}", std::process::id()));
    let reaper = reaper::global()?;
    reaper.watch_folder(&building)?;
    paths::make_private(&cache_folder()?)?;
    fs::create_dir_all(&building).map_err(Error::io(format!("make {}", building.display())))?;
    let made = fill(&building).and_then(|()| match fs::rename(&building, ready) {
        Err(error) if !ready.is_dir() => Err(Error::io(format!("make {}", ready.display()))(error)),
        _ => Ok(()),
    });
    if building.is_dir() {
        fs::remove_dir_all(&building).map_err(Error::io(format!("remove {}", building.display())))?;
    }
    reaper.forget_folder(&building)?;
    made
}

/// Resolves the build, which downloads what is missing, and returns how many packages it has.
fn download_and_count(family: &Family) -> Result<usize> {
    let mut step = Step::begin(format!("fetch the Go modules of {}", names(family)));
    let mut listing = go(family, "list");
    listing.args(["-deps", "-f", "{{.ImportPath}}"]).args(package_paths(family)).stdout(Stdio::piped());
    let mut child = spawn_go(&mut listing)?;
    let packages = child.child().stdout.take();
    let counter = std::thread::spawn(move || packages.map_or(0, |out| BufReader::new(out).lines().count()));
    let mut downloads = 0;
    finish_go(child, &listing, |line| {
        downloads += usize::from(line.starts_with("go: downloading"));
        step.at(&format!("{downloads} modules so far"));
    })?;
    let count = counter.join().unwrap_or(0);
    step.done();
    Ok(count)
}

fn compile(family: &Family, into: &Path, total: usize) -> Result<()> {
    let mut step = Step::begin(format!("build {} (once; minutes on a small machine)", names(family)));
    for (package, name) in family.programs {
        let mut build = go(family, "build");
        build.arg("-v").args(flags(family)).arg("-o").arg(into.join(name)).arg(package).stdout(Stdio::null());
        let child = spawn_go(&mut build)?;
        let mut compiled = 0;
        finish_go(child, &build, |_| {
            compiled += 1;
            step.at(&format!("{name}: {compiled} packages compiled of at most {total}"));
        })?;
    }
    step.done();
    Ok(())
}

fn go(family: &Family, verb: &str) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module(family))
        .arg(verb)
        .env("CGO_ENABLED", if family.has_c() { "1" } else { "0" })
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly");
    command
}

fn spawn_go(command: &mut Command) -> Result<Background> {
    Background::spawn(command.stdin(Stdio::null()).stderr(Stdio::piped()))
}

/// Hands each line that `go` says to `each`, and waits for its end.
fn finish_go(mut child: Background, command: &Command, mut each: impl FnMut(&str)) -> Result<()> {
    let mut said = String::new();
    if let Some(stderr) = child.child().stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(std::io::Result::ok) {
            each(&line);
            said.push_str(&line);
            said.push('\n');
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(failed(command, status, &process::last_lines(&said, 20))) }
}

impl Family {
    const fn has_c(&self) -> bool {
        !self.tags.is_empty()
    }
}

fn package_paths(family: &Family) -> impl Iterator<Item = &'static str> {
    family.programs.iter().map(|(package, _)| *package)
}

fn names(family: &Family) -> String {
    family.programs.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_key_depends_on_flags_and_programs() {
        let other_flags = Family { ldflags: "-X a=b", ..KUBERNETES };
        let fewer = Family { programs: &[], ..KUBERNETES };
        let keys = [&KUBERNETES, &other_flags, &fewer, &ETCD].map(|family| key(family).unwrap());
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), 4, "{keys:?}");
    }

    #[test]
    fn every_pinned_module_is_summed() {
        for family in
            [&ETCD, &KUBERNETES, &KUBERNETES_NODE, &CONTAINERD, &RUNC, &CNI, &HELM, &JUDGE, &SIGSTORE]
        {
            let sums = fs::read_to_string(module(family).join("go.sum")).unwrap();
            assert!(sums.lines().count() > 50, "{} has no go.sum", family.name);
        }
    }
}
