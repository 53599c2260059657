//! A node that runs, known by its folder: to give it images, and to disturb it as real life does. Works from any process of the
//! same user, for the notes in the cluster's folder say which process holds the node's room.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::config::{SETTINGS, SOCKET};
use super::network::port;
use super::room::Room;
use super::{PLANE_ROOM, name, noted_network};
use crate::cluster::layout::Layout;
use crate::cluster::running;
use crate::process::{Target, spawn_logged, wait_ready};
use crate::progress::Step;
use crate::{Error, Result, process};

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    number: u8,
    folder: PathBuf,
    address: Ipv4Addr,
    room: Room,
    plane: Room,
}

impl Node {
    /// Node `number` of the cluster at `layout`.
    ///
    /// # Errors
    /// It does not run.
    pub fn of(layout: &Layout, number: u8) -> Result<Self> {
        let name = name(number);
        let holder = |program: &str| {
            running::noted(&layout.pid(program)).map(|(id, _)| id).ok_or_else(|| {
                let remedy = format!("Start the cluster: `cargo xtask cluster up {}`", layout.name());
                Error::usage(format!("{program} of cluster {} does not run", layout.name()), remedy)
            })
        };
        let (room, plane) = (Room::node(holder(&name)?), Room::plane(holder(PLANE_ROOM)?));
        let (network, _) = noted_network(layout).ok_or_else(|| {
            Error::usage(format!("The cluster {} has no nodes", layout.name()), "Start it with `--nodes`")
        })?;
        let address = network.node(number);
        Ok(Self { name, number, folder: layout.node(number), address, room, plane })
    }

    /// Its name in Kubernetes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, on the host and in the cluster.
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where its `/var` lies on the host: `lib/kubelet`, `log/pods`, and what pods have as `hostPath` below `/var`.
    pub fn var(&self) -> PathBuf {
        self.folder.join("var")
    }

    /// What its kubelet says.
    pub fn kubelet_log(&self) -> PathBuf {
        self.log("kubelet")
    }

    /// What its containerd says.
    pub fn containerd_log(&self) -> PathBuf {
        self.log("containerd")
    }

    /// A command inside the node: its mounts, its processes, its network.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.room.inside();
        command.arg(program);
        command
    }

    /// A command of containerd's client, in the namespace of Kubernetes.
    pub fn ctr(&self) -> Command {
        let mut command = self.command("/run/requiem/containerd/ctr");
        command.args(["--address", SOCKET, "--namespace", "k8s.io"]);
        command
    }

    /// Gives it the images of an OCI archive. Pods use them with `imagePullPolicy: Never` or `IfNotPresent`.
    ///
    /// # Errors
    /// containerd does not take it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let file = fs::File::open(archive).map_err(Error::io(format!("open {}", archive.display())))?;
        // Through standard input: inside the node the path may lead elsewhere.
        process::output_with(self.ctr().args(["images", "import", "--local", "-"]), file).map(drop)
    }

    /// Ends its kubelet at once. Containers go on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop_kubelet(&self) -> Result<()> {
        self.stop("kubelet")
    }

    /// Starts its kubelet, if it does not run.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start_kubelet(&self) -> Result<()> {
        let mut command = self.command("/run/requiem/kubernetes/kubelet");
        command.arg(format!("--config={SETTINGS}/kubelet.json"));
        command.arg(format!("--kubeconfig={SETTINGS}/kubelet.kubeconfig"));
        command.arg(format!("--hostname-override={}", self.name));
        command.arg(format!("--node-ip={}", self.address));
        self.start("kubelet", &mut command)
    }

    /// Cuts its cable: nothing reaches it, and it reaches nothing. Its containers go on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn cut(&self) -> Result<()> {
        self.plane.configure(&format!("link set {} down", port(self.number)))
    }

    /// Mends its cable.
    ///
    /// # Errors
    /// The system refuses.
    pub fn mend(&self) -> Result<()> {
        self.plane.configure(&format!("link set {} up", port(self.number)))
    }

    pub(super) fn start_proxy(&self) -> Result<()> {
        let mut command = self.command("/run/requiem/kubernetes/kube-proxy");
        command.arg(format!("--config={SETTINGS}/kube-proxy.json"));
        self.start("kube-proxy", &mut command)
    }

    /// Starts containerd and waits until it answers.
    pub(super) fn start_containerd(&self, step: &mut Step) -> Result<()> {
        let mut command = self.command("/run/requiem/containerd/containerd");
        command.args(["--config", &format!("{SETTINGS}/containerd.toml")]);
        let log = self.log("containerd");
        let mut child = spawn_logged(with_programs(&mut command), &log)?;
        running::note(&self.note("containerd"), child.id())?;
        wait_ready(&mut child, "containerd", &log, step, || {
            Ok(process::capture(self.ctr().arg("version"))?.ok)
        })?;
        child.release()
    }

    /// Whether Kubernetes says that it is ready.
    pub(super) fn is_ready(&self, kubectl: &Path, kubeconfig: &Path) -> Result<bool> {
        let query = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(kubeconfig).args(["get", "node", &self.name, "-o", query]);
        Ok(process::capture(&mut command)?.stdout == "True")
    }

    /// A program of the node needs no guard of its own: it ends with the room.
    fn start(&self, program: &str, command: &mut Command) -> Result<()> {
        if running::noted(&self.note(program)).is_some() {
            return Ok(());
        }
        let child = spawn_logged(with_programs(command), &self.log(program))?;
        running::note(&self.note(program), child.id())?;
        child.release()
    }

    fn stop(&self, program: &str) -> Result<()> {
        let Some((id, started)) = running::noted(&self.note(program)) else { return Ok(()) };
        let Some(target) = Target::of(id)? else { return Ok(()) };
        if process::start_time(id) == Some(started) {
            target.end(Duration::ZERO)?;
        }
        Ok(())
    }

    fn log(&self, program: &str) -> PathBuf {
        self.folder.join(format!("{program}.log"))
    }

    fn note(&self, program: &str) -> PathBuf {
        self.folder.join(format!("{program}.pid"))
    }
}

/// With the PATH on which containerd finds its shim.
fn with_programs(command: &mut Command) -> &mut Command {
    let mut path = std::ffi::OsString::from("/run/requiem/containerd:/run/requiem/runc:");
    path.push(crate::packages::path_with_administration());
    command.env("PATH", path)
}
