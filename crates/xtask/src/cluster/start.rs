//! Starting etcd and kube-apiserver. All connections are TLS with client certificates, all ports are free ones on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::layout::Layout;
use super::running::ControlPlane;
use crate::pki::{Authority, Certified, Files, write_private};
use crate::process::{spawn_logged, wait_ready};
use crate::progress::Step;
use crate::tools::ControlPlaneTools;
use crate::{Error, Result, paths, pki, prerequisites, process};

/// A port that was free a moment ago can be taken by somebody else: then once more with others.
const TRIES: u32 = 3;

#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    peer: u16,
    api: u16,
}

struct Pki {
    folder: std::path::PathBuf,
    etcd: Files,
    etcd_client: Files,
    api: Files,
}

/// Starts a control plane in a folder that does not exist yet. It is stopped and removed unless it is released.
///
/// # Errors
/// A program that does not come up; its log is quoted.
pub fn start(tools: &ControlPlaneTools, layout: &Layout) -> Result<ControlPlane> {
    let mut attempt = 1;
    loop {
        let step = Step::begin(format!("start etcd and kube-apiserver ({})", layout.name()));
        match start_once(tools, layout, step) {
            Err(Error::NotReady { tail, .. })
                if attempt < TRIES && tail.contains("address already in use") =>
            {
                attempt += 1
            }
            other => return other,
        }
    }
}

fn start_once(tools: &ControlPlaneTools, layout: &Layout, mut step: Step) -> Result<ControlPlane> {
    let mut plane = ControlPlane::prepare(layout)?;
    let ports = Ports {
        client: prerequisites::loopback_port()?,
        peer: prerequisites::loopback_port()?,
        api: prerequisites::loopback_port()?,
    };
    let pki = issue(layout, ports.api)?;
    let command = etcd(tools, layout, &pki, ports);
    bring_up(&mut plane, "etcd", command, &mut step, || Ok(listens(ports.client)))?;
    let command = apiserver(tools, &pki, ports);
    bring_up(&mut plane, "kube-apiserver", command, &mut step, || {
        Ok(listens(ports.api) && ready(tools, layout)?)
    })?;
    step.done();
    Ok(plane)
}

/// Two authorities: nobody who may talk to the API server may talk to etcd.
fn issue(layout: &Layout, port: u16) -> Result<Pki> {
    let folder = layout.pki();
    paths::make_private(&folder)?;
    let (etcd, kubernetes) = (Authority::new("requiem-etcd")?, Authority::new("requiem-kubernetes")?);
    write_private(&folder.join("etcd-ca.crt"), &etcd.certificate())?;
    write_private(&folder.join("ca.crt"), &kubernetes.certificate())?;
    let (private, public) = pki::signing_key()?;
    write_private(&folder.join("service-account.key"), &private)?;
    write_private(&folder.join("service-account.pub"), &public)?;
    let admin = kubernetes.client("requiem-admin", Some("system:masters"))?;
    let config = kubeconfig(layout, port, &kubernetes.certificate(), &admin);
    write_private(&layout.kubeconfig(), &config)?;
    Ok(Pki {
        etcd: etcd.server("etcd", &[])?.write(&folder, "etcd")?,
        etcd_client: etcd.client("kube-apiserver", None)?.write(&folder, "etcd-client")?,
        api: kubernetes
            .server("kube-apiserver", &["kubernetes.default.svc", "10.96.0.1"])?
            .write(&folder, "kube-apiserver")?,
        folder,
    })
}

/// JSON is YAML. Certificates are embedded, so the file works wherever it is copied to.
fn kubeconfig(layout: &Layout, port: u16, ca: &str, admin: &Certified) -> String {
    let context = format!("requiem-{}", layout.name());
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": STANDARD.encode(ca)}}],
        "users": [{"name": context, "user": {
            "client-certificate-data": STANDARD.encode(&admin.certificate), "client-key-data": STANDARD.encode(&admin.key)}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": "default"}}],
    })
    .to_string()
}

fn etcd(tools: &ControlPlaneTools, layout: &Layout, pki: &Pki, ports: Ports) -> Command {
    let (client, peer) = (https(ports.client), https(ports.peer));
    let mut command = Command::new(&tools.etcd);
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

fn apiserver(tools: &ControlPlaneTools, pki: &Pki, ports: Ports) -> Command {
    let mut command = Command::new(&tools.apiserver);
    command.args(["--bind-address", "127.0.0.1", "--secure-port", &ports.api.to_string()]);
    // A loopback address cannot be an endpoint of the `kubernetes` service; nobody here uses that service.
    command.args(["--endpoint-reconciler-type", "none", "--advertise-address", "127.0.0.1"]);
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
    command.args(["--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "Node,RBAC"]);
    command.args(["--enable-admission-plugins", "NodeRestriction", "--allow-privileged=true"]);
    command
}

/// Starts one of the two, and waits until `there`.
fn bring_up(
    plane: &mut ControlPlane,
    program: &'static str,
    mut command: Command,
    step: &mut Step,
    there: impl Fn() -> Result<bool>,
) -> Result<()> {
    let log = plane.layout().log(program);
    let child = plane.add(program, spawn_logged(&mut command, &log)?)?;
    wait_ready(child, program, &log, step, there)
}

fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(1)).is_ok()
}

/// Ready, and with the namespace that everything is put into by default (made a moment after `/readyz` says ok).
fn ready(tools: &ControlPlaneTools, layout: &Layout) -> Result<bool> {
    for path in ["/readyz", "/api/v1/namespaces/default"] {
        let mut command = Command::new(&tools.kubectl);
        command.arg("--kubeconfig").arg(layout.kubeconfig()).args(["get", "--raw", path]);
        if !process::capture(&mut command)?.ok {
            return Ok(false);
        }
    }
    Ok(true)
}

fn https(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}
