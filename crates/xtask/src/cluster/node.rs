//! Real nodes: containerd, kubelet and kube-proxy in rooms of their own, on a network of their own.
//!
//! Flow: network claimed, room of the plane → (control plane, [`super::start`]) → controllers → for each node: cgroup → room →
//! cable → files → containerd → pause image → kubelet, kube-proxy → `Ready`.
//!
//! | concern | module |
//! |---|---|
//! | addresses, interfaces, routes | [`network`] |
//! | namespaces that go with the process that holds them | [`room`] |
//! | cgroups, the one thing that does not go by itself | [`cgroup`] |
//! | configuration files | [`config`] |
//! | to load images, stop a kubelet, cut a cable | [`handle`] |

pub mod cgroup;
pub mod config;
pub mod handle;
pub mod network;
pub mod room;

use std::fs;
use std::path::Path;
use std::process::Command;

pub use handle::Node;
use network::Network;
use room::Room;
use serde_json::Value;

use super::Shape;
use super::layout::Layout;
use super::running::ControlPlane;
use super::start::{Pki, answers, bring_up, kubeconfig};
use crate::pki::{Certified, write_private};
use crate::process::listens;
use crate::progress::Step;
use crate::tools::NodeTools;
use crate::{Error, Result, oci, packages, paths, process};

/// The most nodes that a cluster can have; its range of pod addresses has no room for more.
pub const MOST: u8 = 3;
/// The program whose process holds the plane's room.
pub const PLANE_ROOM: &str = "network";

/// Where a cluster with nodes lives.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// Its addresses.
    pub network: Network,
    /// The plane's room.
    pub room: Room,
}

/// What starting nodes needs at hand.
pub(super) struct Setup<'a> {
    /// The programs.
    pub(super) tools: &'a NodeTools,
    /// kubectl.
    pub(super) kubectl: &'a Path,
    /// Keys and certificates.
    pub(super) pki: &'a Pki,
    /// The cluster's place.
    pub(super) site: Site,
    /// What is asked for.
    pub(super) shape: Shape,
}

/// Name of node `number`, from 1: of the Kubernetes object, and of the program that holds its room.
pub fn name(number: u8) -> String {
    format!("node-{number}")
}

/// How many nodes the cluster at `layout` was made with.
pub fn count(layout: &Layout) -> u8 {
    noted_network(layout).map_or(0, |(_, nodes)| nodes)
}

/// Handles to all nodes of the cluster at `layout`.
///
/// # Errors
/// The room of one is gone.
pub fn all(layout: &Layout) -> Result<Vec<Node>> {
    (1..=count(layout)).map(|number| Node::of(layout, number)).collect()
}

/// Removes what a cluster with nodes leaves outside its folder, once its processes are killed: cgroups, and the host's interface,
/// which would go by itself a moment later.
///
/// # Errors
/// A process is left in a cgroup.
pub fn clear_away(layout: &Layout) -> Result<()> {
    let Some((network, nodes)) = noted_network(layout) else { return Ok(()) };
    let link = network.host_link();
    if Path::new("/sys/class/net").join(&link).exists() {
        // It may vanish under our hands, which is what is wanted.
        let _gone_already = process::capture(Command::new(ip()).args(["link", "delete", &link]))?;
    }
    (1..=nodes).try_for_each(|number| cgroup::remove(&network.cgroup(number)))
}

/// Lets the cgroups stay when this process ends.
///
/// # Errors
/// The reaper cannot be told.
pub(super) fn release(layout: &Layout) -> Result<()> {
    let Some((network, nodes)) = noted_network(layout) else { return Ok(()) };
    (1..=nodes).try_for_each(|number| cgroup::release(&network.cgroup(number)))
}

/// Opens the plane's room and joins it to the host on the first network that is free.
///
/// # Errors
/// All networks are taken, or the kernel refuses.
pub(super) fn open_site(tools: &NodeTools, plane: &mut ControlPlane, nodes: u8) -> Result<Site> {
    let log = plane.layout().log(PLANE_ROOM);
    let holder = plane.add(PLANE_ROOM, Room::open_plane(tools, &log)?)?.id();
    let room = Room::plane(holder);
    let network = claim(holder)?;
    let note = plane.layout().network();
    let text = format!("{} {nodes}\n", network.index());
    fs::write(&note, text).map_err(Error::io(format!("write {}", note.display())))?;
    room.configure(&network.join_host())?;
    Ok(Site { network, room })
}

/// Starts kube-controller-manager and kube-scheduler.
///
/// # Errors
/// One does not come up.
pub(super) fn start_controllers(plane: &mut ControlPlane, setup: &Setup<'_>) -> Result<()> {
    let Setup { tools, pki, site, .. } = setup;
    let mut step = Step::begin("start kube-controller-manager and kube-scheduler");
    let layout = plane.layout().clone();
    for (program, port) in [("kube-controller-manager", 10257), ("kube-scheduler", 10259)] {
        let config = layout.folder().join(format!("{program}.kubeconfig"));
        let user = pki.kubernetes.client(&format!("system:{program}"), None)?;
        write_private(&config, &pki.kubeconfig(&user))?;
        let mut command = site.room.on_its_network();
        command
            .arg(tools.kubernetes.join(program))
            .args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
        command.arg("--kubeconfig").arg(&config);
        if program == "kube-controller-manager" {
            command.arg("--root-ca-file").arg(pki.folder.join("ca.crt"));
            command.arg("--service-account-private-key-file").arg(pki.folder.join("service-account.key"));
            command.arg("--use-service-account-credentials");
        }
        bring_up(plane, program, command, &mut step, |id| Ok(listens(id, port)))?;
    }
    step.done();
    Ok(())
}

/// Waits until pods are admitted: until the controllers have made the service account that every pod has.
///
/// # Errors
/// They do not; the end of their log is quoted.
pub(super) fn wait_for_admission(plane: &ControlPlane, setup: &Setup<'_>) -> Result<()> {
    let mut step = Step::begin("wait for the controllers to make the default service account");
    let layout = plane.layout();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    process::wait_until(
        "the default service account",
        &layout.log("kube-controller-manager"),
        &mut step,
        || answers(setup.kubectl, layout, account),
    )?;
    step.done();
    Ok(())
}

/// Starts node `number` and waits until it is ready.
///
/// # Errors
/// A program of it does not come up; its log is quoted.
pub(super) fn start_node(plane: &mut ControlPlane, setup: &Setup<'_>, number: u8) -> Result<()> {
    let Setup { tools, kubectl, pki, site, shape } = setup;
    let name = name(number);
    let mut step = Step::begin(format!("start {name}: containerd, kubelet, kube-proxy"));
    let layout = plane.layout().clone();
    let folder = layout.node(number);
    paths::make_private(&folder)?;
    cgroup::make(&site.network.cgroup(number))?;
    let holder = plane.add(&name, Room::open_node(tools, &folder, &layout.log(&name))?)?.id();
    let room = Room::node(holder);
    site.room.configure(&site.network.join_node(number, holder))?;
    room.configure(&site.network.set_up_node(number, shape.nodes))?;
    host_route(site.network, number)?;
    write_files(&folder, pki, site.network, number, *shape)?;
    let node = Node::of(&layout, number)?;
    node.start_containerd(&mut step)?;
    node.load_image(&pause_image(tools, &folder)?)?;
    node.start_kubelet()?;
    node.start_proxy()?;
    let ready = || node.is_ready(kubectl, &layout.kubeconfig());
    process::wait_until(&name, &node.kubelet_log(), &mut step, ready)?;
    step.done();
    Ok(())
}

/// What the node's programs read, below its `/var`.
fn write_files(folder: &Path, pki: &Pki, network: Network, number: u8, shape: Shape) -> Result<()> {
    let name = name(number);
    let settings = folder.join("var/requiem");
    paths::make_private(&settings)?;
    let cni = settings.join("cni");
    paths::make_private(&cni)?;
    let address = network.node(number).to_string();
    let kubelet = pki.kubernetes.client(&format!("system:node:{name}"), Some("system:nodes"))?;
    let proxy = pki.kubernetes.client("system:kube-proxy", None)?;
    pki.kubernetes.server(&name, &[&name, &address])?.write(&settings, "kubelet")?;
    let json = |value: Value| value.to_string();
    for (file, text) in [
        ("ca.crt", pki.kubernetes.certificate()),
        ("kubelet.kubeconfig", pki.kubeconfig(&kubelet)),
        ("kube-proxy.kubeconfig", pki.kubeconfig(&proxy)),
        ("containerd.toml", config::containerd()),
        ("kubelet.json", json(config::kubelet(network, number))),
        ("kube-proxy.json", json(config::kube_proxy(network, &name))),
        ("cni/requiem.conflist", json(config::cni(network, number))),
    ] {
        write_private(&settings.join(file), &text)?;
    }
    if shape.seccomp_profile { install_profile(folder) } else { Ok(()) }
}

/// Puts the profile of the executor's pods where a kubelet looks for it.
fn install_profile(folder: &Path) -> Result<()> {
    let source = paths::repository().join("config/profiles/seccomp/runner.json");
    let target = folder.join("var/lib/kubelet/seccomp/requiem");
    let doing = format!("copy {} to {}", source.display(), target.display());
    fs::create_dir_all(&target)
        .and_then(|()| fs::copy(&source, target.join("runner.json")))
        .map(drop)
        .map_err(Error::io(doing))
}

/// The image that holds the namespaces of pods, as a file that containerd imports.
fn pause_image(tools: &NodeTools, folder: &Path) -> Result<std::path::PathBuf> {
    let program = tools.pause.join("pause");
    let bytes = fs::read(&program).map_err(Error::io(format!("read {}", program.display())))?;
    let image = oci::Image {
        name: config::PAUSE_IMAGE.to_owned(),
        files: vec![oci::File::program("pause", bytes)],
        entrypoint: vec!["/pause".to_owned()],
        user: "65535:65535".to_owned(),
        labels: Vec::new(),
    };
    let path = folder.join("pause.tar");
    image.pack()?.write_archive(&path)?;
    Ok(path)
}

/// Claims the first free network by making its interface on the host.
fn claim(plane: u32) -> Result<Network> {
    for network in (0..network::MOST).filter_map(Network::new) {
        if Path::new("/sys/class/net").join(network.host_link()).exists() {
            continue;
        }
        let mut lines = network.claim(plane);
        let rest = lines.split_off(lines.find('\n').map_or(lines.len(), |end| end + 1));
        let said = process::capture(Command::new(ip()).args(lines.split_whitespace()))?;
        if said.ok {
            on_host(&rest)?;
            return Ok(network);
        }
        if !said.stderr.contains("File exists") {
            return Err(Error::check(
                format!("No interface for the cluster can be made ({})", said.stderr.trim()),
                "A node needs a kernel with veth, bridge and network namespaces, and CAP_NET_ADMIN",
            ));
        }
    }
    Err(Error::usage(
        format!("All {} networks of this machine are taken", network::MOST),
        "Stop clusters that nobody needs: `cargo xtask cluster status`, `cargo xtask cluster down NAME`",
    ))
}

fn host_route(network: Network, number: u8) -> Result<()> {
    on_host(&network.route(number))
}

fn on_host(lines: &str) -> Result<()> {
    lines
        .lines()
        .try_for_each(|line| process::output(Command::new(ip()).args(line.split_whitespace())).map(drop))
}

fn ip() -> std::path::PathBuf {
    packages::find("ip").unwrap_or_else(|| "ip".into())
}

fn noted_network(layout: &Layout) -> Option<(Network, u8)> {
    let note = fs::read_to_string(layout.network()).ok()?;
    let (index, nodes) = note.trim().split_once(' ')?;
    Some((Network::new(index.parse().ok()?)?, nodes.parse().ok()?))
}

impl Pki {
    /// The kubeconfig of a program of the cluster.
    fn kubeconfig(&self, user: &Certified) -> String {
        kubeconfig("requiem", &self.server, &self.kubernetes.certificate(), user)
    }
}
