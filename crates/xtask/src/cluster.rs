//! A real control plane on loopback: etcd and kube-apiserver, an administrator's kubeconfig, nothing else.
//!
//! Flow: tools → folder → certificates → free ports → etcd → kube-apiserver → `/readyz` → released (or guarded). There is no
//! controller-manager: nothing collects garbage by owner reference and a deleted namespace stays `Terminating`.
//!
//! | step | module |
//! |---|---|
//! | names and places of its files | [`layout`] |
//! | starting the two programs | [`start`] |
//! | what runs, and ending it | [`running`] |

pub mod layout;
pub mod running;
pub mod start;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub use layout::{Layout, Name};
pub use running::{ControlPlane, clean, down, list, status};

use crate::process::Background;
use crate::{Error, Result, process, progress, tools};

/// Where a cluster can be reached: all that suites and demos need to know of it.
#[derive(Debug, Clone)]
pub struct Access {
    /// A kubeconfig with embedded certificates and one context.
    pub kubeconfig: PathBuf,
    /// A kubectl of the right version.
    pub kubectl: PathBuf,
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
pub fn up(name: &Name) -> Result<Access> {
    let tools = tools::control_plane()?;
    let layout = Layout::of(name)?;
    let _lock = running::lock()?;
    let access = Access { kubeconfig: layout.kubeconfig(), kubectl: tools.kubectl.clone() };
    if running::is_running(&layout) {
        progress::say(&format!("· cluster {name} is running already"));
        return Ok(access);
    }
    running::remove_stale(&layout)?;
    start::start(&tools, &layout)?.release()?;
    Ok(access)
}

/// Starts a cluster of its own for the caller.
///
/// # Errors
/// As for [`up`].
pub fn up_ephemeral() -> Result<Ephemeral> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    up_guarded(&Name::parse(&format!("ephemeral-{}-{number}", std::process::id()))?)
}

/// Starts the cluster `name` for the caller, who may let it run on.
///
/// # Errors
/// As for [`up`]; also if it runs already.
pub fn up_guarded(name: &Name) -> Result<Ephemeral> {
    let tools = tools::control_plane()?;
    let layout = Layout::of(name)?;
    if running::is_running(&layout) {
        let remedy = format!("Stop it first: `cargo xtask cluster down {name}`");
        return Err(Error::usage(format!("The cluster {name} is running already"), remedy));
    }
    running::remove_stale(&layout)?;
    let plane = start::start(&tools, &layout)?;
    Ok(Ephemeral { access: Access { kubeconfig: layout.kubeconfig(), kubectl: tools.kubectl }, plane })
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
}

impl Ephemeral {
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

    /// Has `program` end with the cluster.
    ///
    /// # Errors
    /// Its process cannot be noted; then it is killed.
    pub fn add(&mut self, program: &'static str, child: Background) -> Result<&mut Background> {
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
