//! Starting etcd and kube-apiserver. All connections are TLS with client certificates. Without nodes all ports are free ones on
//! loopback; with nodes everything listens in a network of its own ([`super::node`]), the API server where pods can reach it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::layout::Layout;
use super::node::{self, Site, network};
use super::running::ControlPlane;
use super::{Shape, Tools};
use crate::pki::{Authority, Certified, Files, write_private};
use crate::process::{listens, spawn_logged, wait_ready};
use crate::progress::Step;
use crate::tools::ControlPlaneTools;
use crate::{Error, Result, paths, pki, ports, process};

/// A port that was free a moment ago can be taken by somebody else: then once more with others.
const TRIES: u32 = 3;

/// Where the two programs listen.
#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    peer: u16,
    api: SocketAddrV4,
}

/// Keys and certificates of a cluster, and what signs more.
pub(super) struct Pki {
    pub(super) folder: PathBuf,
    pub(super) kubernetes: Authority,
    /// Where the API server is reached, as in every kubeconfig.
    pub(super) server: String,
    etcd: Files,
    etcd_client: Files,
    api: Files,
    kubelet_client: Files,
}

/// Starts a cluster in a folder that does not exist yet. It is stopped and removed unless it is released.
///
/// # Errors
/// A program that does not come up; its log is quoted.
pub fn start(tools: &Tools, layout: &Layout, shape: Shape) -> Result<ControlPlane> {
    let mut attempt = 1;
    loop {
        match start_once(tools, layout, shape) {
            Err(Error::NotReady { tail, .. })
                if attempt < TRIES && tail.contains("address already in use") =>
            {
                attempt += 1
            }
            other => return other,
        }
    }
}

fn start_once(tools: &Tools, layout: &Layout, shape: Shape) -> Result<ControlPlane> {
    let step = Step::begin(format!("start etcd and kube-apiserver ({})", layout.name()));
    let mut plane = ControlPlane::prepare(layout)?;
    let site = match &tools.node {
        Some(tools) => Some(node::open_site(tools, &mut plane, shape.nodes)?),
        None => None,
    };
    let pki = start_plane(&tools.plane, &mut plane, site, step)?;
    if let (Some(tools_of_node), Some(site)) = (&tools.node, site) {
        let setup =
            node::Setup { tools: tools_of_node, kubectl: &tools.plane.kubectl, pki: &pki, site, shape };
        node::start_controllers(&mut plane, &setup)?;
        // Nodes need nothing of the controllers, which take some seconds to get going.
        (1..=shape.nodes).try_for_each(|number| node::start_node(&mut plane, &setup, number))?;
        node::wait_for_admission(&plane, &setup)?;
    }
    Ok(plane)
}

fn start_plane(
    tools: &ControlPlaneTools,
    plane: &mut ControlPlane,
    site: Option<Site>,
    mut step: Step,
) -> Result<Pki> {
    let layout = plane.layout().clone();
    let ports = Ports::choose(site)?;
    let pki = issue(&layout, ports.api)?;
    let command = etcd(program(site, &tools.etcd), &layout, &pki, ports);
    bring_up(plane, "etcd", command, &mut step, |id| Ok(listens(id, ports.client)))?;
    let command = apiserver(program(site, &tools.apiserver), &pki, ports);
    bring_up(plane, "kube-apiserver", command, &mut step, |id| {
        Ok(listens(id, ports.api.port()) && ready(&tools.kubectl, &layout)?)
    })?;
    step.done();
    Ok(pki)
}

impl Ports {
    /// In a network of its own nobody else has taken one.
    fn choose(site: Option<Site>) -> Result<Self> {
        Ok(match site {
            Some(site) => Self {
                client: 2379,
                peer: 2380,
                api: SocketAddrV4::new(site.network.plane(), network::API_PORT),
            },
            None => Self {
                client: ports::loopback()?.port(),
                peer: ports::loopback()?.port(),
                api: SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports::loopback()?.port()),
            },
        })
    }
}

/// `path`, to be run where the cluster's network is.
fn program(site: Option<Site>, path: &Path) -> Command {
    site.map_or_else(
        || Command::new(path),
        |site| {
            let mut command = site.room.on_its_network();
            command.arg(path);
            command
        },
    )
}

/// Two authorities: nobody who may talk to the API server may talk to etcd.
fn issue(layout: &Layout, api: SocketAddrV4) -> Result<Pki> {
    let folder = layout.pki();
    paths::make_private(&folder)?;
    let (etcd, kubernetes) = (Authority::new("requiem-etcd")?, Authority::new("requiem-kubernetes")?);
    write_private(&folder.join("etcd-ca.crt"), &etcd.certificate())?;
    write_private(&folder.join("ca.crt"), &kubernetes.certificate())?;
    let (private, public) = pki::signing_key()?;
    write_private(&folder.join("service-account.key"), &private)?;
    write_private(&folder.join("service-account.pub"), &public)?;
    let admin = kubernetes.client("requiem-admin", Some("system:masters"))?;
    let server = format!("https://{api}");
    let context = format!("requiem-{}", layout.name());
    let config = kubeconfig(&context, &server, &kubernetes.certificate(), &admin);
    write_private(&layout.kubeconfig(), &config)?;
    let names = ["kubernetes.default.svc", "10.96.0.1", &api.ip().to_string()];
    Ok(Pki {
        etcd: etcd.server("etcd", &[])?.write(&folder, "etcd")?,
        etcd_client: etcd.client("kube-apiserver", None)?.write(&folder, "etcd-client")?,
        api: kubernetes.server("kube-apiserver", &names)?.write(&folder, "kube-apiserver")?,
        kubelet_client: kubernetes
            .client("kube-apiserver-kubelet-client", Some("system:masters"))?
            .write(&folder, "kubelet-client")?,
        kubernetes,
        server,
        folder,
    })
}

/// JSON is YAML. Certificates are embedded, so the file works wherever it is copied to.
pub(super) fn kubeconfig(context: &str, server: &str, ca: &str, user: &Certified) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(ca)}}],
        "users": [{"name": context, "user": {
            "client-certificate-data": STANDARD.encode(&user.certificate), "client-key-data": STANDARD.encode(&user.key)}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": "default"}}],
    })
    .to_string()
}

fn etcd(mut command: Command, layout: &Layout, pki: &Pki, ports: Ports) -> Command {
    let (client, peer) = (https(ports.client), https(ports.peer));
    command.args(["--name", "requiem", "--log-level", "warn"]);
    command.arg("--data-dir").arg(layout.data());
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("requiem={peer}")]);
    for prefix in ["", "peer-"] {
        command.arg(format!("--{prefix}client-cert-auth"));
        command.arg(format!("--{prefix}trusted-ca-file")).arg(pki.folder.join("etcd-ca.crt"));
        command.arg(format!("--{prefix}cert-file")).arg(&pki.etcd.certificate);
        command.arg(format!("--{prefix}key-file")).arg(&pki.etcd.key);
    }
    command
}

fn apiserver(mut command: Command, pki: &Pki, ports: Ports) -> Command {
    let address = ports.api.ip().to_string();
    command.args(["--bind-address", &address, "--advertise-address", &address]);
    command.args(["--secure-port", &ports.api.port().to_string()]);
    if ports.api.ip().is_loopback() {
        // A loopback address cannot be an endpoint of the `kubernetes` service; without pods nobody uses that service.
        command.args(["--endpoint-reconciler-type", "none"]);
    }
    command.args(["--etcd-servers", &https(ports.client)]);
    command.arg("--etcd-cafile").arg(pki.folder.join("etcd-ca.crt"));
    command.arg("--etcd-certfile").arg(&pki.etcd_client.certificate);
    command.arg("--etcd-keyfile").arg(&pki.etcd_client.key);
    command.arg("--tls-cert-file").arg(&pki.api.certificate);
    command.arg("--tls-private-key-file").arg(&pki.api.key);
    command.arg("--client-ca-file").arg(pki.folder.join("ca.crt"));
    command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
    command.arg("--service-account-signing-key-file").arg(pki.folder.join("service-account.key"));
    command.arg("--service-account-key-file").arg(pki.folder.join("service-account.pub"));
    command.arg("--kubelet-certificate-authority").arg(pki.folder.join("ca.crt"));
    command.arg("--kubelet-client-certificate").arg(&pki.kubelet_client.certificate);
    command.arg("--kubelet-client-key").arg(&pki.kubelet_client.key);
    command.args(["--kubelet-preferred-address-types", "InternalIP"]);
    command.args(["--service-cluster-ip-range", network::SERVICES, "--authorization-mode", "Node,RBAC"]);
    command.args(["--enable-admission-plugins", "NodeRestriction", "--allow-privileged=true"]);
    command
}

/// Starts a program of the plane, and waits until `there`, which is given its process.
pub(super) fn bring_up(
    plane: &mut ControlPlane,
    program: &str,
    mut command: Command,
    step: &mut Step,
    there: impl Fn(u32) -> Result<bool>,
) -> Result<()> {
    let log = plane.layout().log(program);
    let child = plane.add(program, spawn_logged(&mut command, &log)?)?;
    let id = child.id();
    wait_ready(child, program, &log, step, || there(id))
}

/// Ready, and with the namespace that everything is put into by default (made a moment after `/readyz` says ok).
fn ready(kubectl: &Path, layout: &Layout) -> Result<bool> {
    for path in ["/readyz", "/api/v1/namespaces/default"] {
        if !answers(kubectl, layout, path)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the API server has something at `path`.
pub(super) fn answers(kubectl: &Path, layout: &Layout, path: &str) -> Result<bool> {
    let mut command = Command::new(kubectl);
    command.arg("--kubeconfig").arg(layout.kubeconfig()).args(["get", "--raw", path]);
    Ok(process::capture(&mut command)?.ok)
}

fn https(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}
