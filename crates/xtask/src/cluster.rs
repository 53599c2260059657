//! A real control plane: etcd and kube-apiserver, an administrator's kubeconfig, and, when asked for, real nodes.
//!
//! Flow: tools → folder → certificates → ports → etcd → kube-apiserver → `/readyz` → (controllers, scheduler, nodes) → released (or
//! guarded). Without nodes all is on loopback and needs no root, and there is no controller-manager: nothing collects garbage by
//! owner reference and a deleted namespace stays `Terminating`.
//!
//! | step | module |
//! |---|---|
//! | names and places of its files | [`layout`] |
//! | starting the two programs | [`start`] |
//! | nodes: containerd, kubelet, network; and a handle to disturb them | [`node`] |
//! | what runs, and ending it | [`running`] |

pub mod layout;
pub mod node;
pub mod running;
pub mod start;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub use layout::{Layout, Name};
pub use node::Node;
pub use running::{ControlPlane, clean, down, list, status};

use crate::process::Background;
use crate::{Error, Result, paths, prerequisites, process, progress, tools};

/// Where a cluster can be reached: all that suites and demos need to know of it.
#[derive(Debug, Clone)]
pub struct Access {
    /// A kubeconfig with embedded certificates and one context.
    pub kubeconfig: PathBuf,
    /// A kubectl of the right version.
    pub kubectl: PathBuf,
}

/// What a cluster consists of besides its control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Nodes, at most [`node::MOST`].
    pub nodes: u8,
    /// Whether the nodes have the seccomp profile that the best tier of executor pods asks for.
    pub seccomp_profile: bool,
}

/// The programs of a cluster.
#[derive(Debug)]
pub struct Tools {
    plane: tools::ControlPlaneTools,
    node: Option<tools::NodeTools>,
}

/// A cluster that goes with its guard: dropped, its processes and its folder are gone. So they are when this process dies.
#[derive(Debug)]
pub struct Ephemeral {
    access: Access,
    plane: ControlPlane,
}

/// Starts the cluster `name` and leaves it running. One that runs already is returned as it is.
///
/// # Errors
/// A missing prerequisite, or a program that does not come up (its log is named).
pub fn up(name: &Name, shape: Shape) -> Result<Access> {
    let tools = Tools::ready(shape)?;
    let layout = Layout::of(name)?;
    let _lock = running::lock()?;
    let access = Access { kubeconfig: layout.kubeconfig(), kubectl: tools.plane.kubectl.clone() };
    if running::is_running(&layout) {
        same_shape(&layout, shape)?;
        progress::say(&format!("· cluster {name} is running already"));
        return Ok(access);
    }
    running::remove_stale(&layout)?;
    start::start(&tools, &layout, shape)?.release()?;
    Ok(access)
}

/// Starts a control plane of its own for the caller.
///
/// # Errors
/// As for [`up`].
pub fn up_ephemeral() -> Result<Ephemeral> {
    up_ephemeral_with(Shape::PLANE)
}

/// Starts a cluster of its own for the caller.
///
/// # Errors
/// As for [`up`].
pub fn up_ephemeral_with(shape: Shape) -> Result<Ephemeral> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    up_guarded(&Name::parse(&format!("ephemeral-{}-{number}", std::process::id()))?, shape)
}

/// Starts the cluster `name` for the caller, who may let it run on.
///
/// # Errors
/// As for [`up`]; also if it runs already.
pub fn up_guarded(name: &Name, shape: Shape) -> Result<Ephemeral> {
    let tools = Tools::ready(shape)?;
    let layout = Layout::of(name)?;
    if running::is_running(&layout) {
        let remedy = format!("Stop it first: `cargo xtask cluster down {name}`");
        return Err(Error::usage(format!("The cluster {name} is running already"), remedy));
    }
    running::remove_stale(&layout)?;
    let plane = start::start(&tools, &layout, shape)?;
    Ok(Ephemeral { access: Access { kubeconfig: layout.kubeconfig(), kubectl: tools.plane.kubectl }, plane })
}

/// The nodes of the cluster `name`, whoever has started it.
///
/// # Errors
/// It does not run, or it has none.
pub fn nodes(name: &Name) -> Result<Vec<Node>> {
    let nodes = node::all(&Layout::of(name)?)?;
    if nodes.is_empty() {
        let remedy = format!("Start it with nodes: `cargo xtask cluster up {name} --node`");
        return Err(Error::usage(format!("The cluster {name} has no nodes"), remedy));
    }
    Ok(nodes)
}

fn same_shape(layout: &Layout, wanted: Shape) -> Result<()> {
    let running = node::count(layout);
    if running == wanted.nodes {
        return Ok(());
    }
    let name = layout.name();
    Err(Error::usage(
        format!("The cluster {name} is running with {running} nodes, not with {}", wanted.nodes),
        format!("Stop it first: `cargo xtask cluster down {name}`, or choose another name"),
    ))
}

/// The cluster behind a context of the user's own kubeconfig, written as a kubeconfig of its own into `folder`.
///
/// # Errors
/// There is no such context, or its cluster does not answer.
pub fn existing(context: &str, folder: &Path) -> Result<Access> {
    let kubectl = tools::control_plane()?.kubectl;
    let minified = ["config", "view", "--minify", "--flatten", "--raw", "--context", context];
    let text = process::output(Command::new(&kubectl).args(minified))?;
    let kubeconfig = folder.join("kubeconfig");
    crate::pki::write_private(&kubeconfig, &text)?;
    let access = Access { kubeconfig, kubectl };
    access.kubectl(&["get", "--raw", "/readyz"])?;
    Ok(access)
}

/// Versions of client and server, asked of the cluster behind a context of the user's own kubeconfig.
///
/// # Errors
/// There is no such context, or its cluster does not answer.
pub fn version(context: &str) -> Result<String> {
    let kubectl = tools::control_plane()?.kubectl;
    process::output(Command::new(kubectl).args(["--context", context, "version"]))
}

impl Shape {
    /// A control plane alone.
    pub const PLANE: Self = Self { nodes: 0, seccomp_profile: false };

    /// With `nodes` nodes that have what executor pods can use.
    pub const fn nodes(nodes: u8) -> Self {
        Self { nodes, seccomp_profile: true }
    }
}

impl Tools {
    /// Builds what `shape` needs, or finds it built.
    fn ready(shape: Shape) -> Result<Self> {
        if shape.nodes > node::MOST {
            return Err(Error::usage(
                format!("A cluster of {} nodes cannot be had", shape.nodes),
                format!("Ask for at most {}", node::MOST),
            ));
        }
        if shape.nodes > 0 {
            prerequisites::nodes()?;
        }
        let plane = tools::control_plane()?;
        let node = if shape.nodes > 0 { Some(tools::node()?) } else { None };
        Ok(Self { plane, node })
    }
}

impl Access {
    /// A kubectl command for this cluster.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// kubectl failed; the error holds what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        process::output(self.command().args(arguments))
    }

    /// Installs this checkout's CRDs, or brings them up to date, and waits until they are served.
    ///
    /// # Errors
    /// kubectl failed; the error holds what it said.
    pub fn install_definitions(&self) -> Result<()> {
        let folder = paths::repository().join("config/crd").display().to_string();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "--kustomize", &folder])?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        Ok(())
    }
}

impl Ephemeral {
    /// Its name.
    pub const fn name(&self) -> &Name {
        self.plane.name()
    }

    /// How to reach it.
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.access.kubeconfig
    }

    /// Its folder; what is put here goes with it.
    pub fn folder(&self) -> &Path {
        self.plane.folder()
    }

    /// Its nodes.
    ///
    /// # Errors
    /// One has ended.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        node::all(self.plane.layout())
    }

    /// Has `program` end with the cluster.
    ///
    /// # Errors
    /// Its process cannot be noted; then it is killed.
    pub fn add(&mut self, program: &str, child: Background) -> Result<&mut Background> {
        self.plane.add(program, child)
    }

    /// Stops it now and says whether that worked; dropping does the same in silence.
    ///
    /// # Errors
    /// A process or the folder could not be removed.
    pub fn down(self) -> Result<()> {
        self.plane.stop()
    }

    /// Lets it run on, under its own name, until `cargo xtask cluster down NAME`.
    ///
    /// # Errors
    /// The reaper cannot be told; then it is stopped.
    pub fn keep(self) -> Result<Name> {
        let name = self.plane.name().clone();
        self.plane.release()?;
        Ok(name)
    }
}
