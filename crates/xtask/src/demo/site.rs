//! Where the demo runs: a cluster of its own, or somebody's; and what must go afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::NAMESPACE;
use crate::cluster::{self, Access, Ephemeral, Name};
use crate::process::Background;
use crate::progress::Step;
use crate::scratch::Scratch;
use crate::{Error, Result, paths, process};

/// Time for executor and operator to end by themselves.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct Site {
    access: Access,
    programs: PathBuf,
    owner: Owner,
}

enum Owner {
    /// A control plane of our own; everything goes with it.
    Ours(Box<Ephemeral>),
    /// Somebody's cluster: what we made in it goes, the rest stays.
    Theirs { scratch: Scratch, children: Vec<Background>, definitions: bool },
}

impl Site {
    /// Starts a control plane, or looks whether the one of `context` answers.
    pub(crate) fn open(context: Option<&str>, programs: PathBuf) -> Result<Self> {
        if let Some(context) = context {
            let scratch = Scratch::new("demo")?;
            let access = cluster::existing(context, scratch.path())?;
            return Ok(Self {
                access,
                programs,
                owner: Owner::Theirs { scratch, children: Vec::new(), definitions: false },
            });
        }
        let ours = cluster::up_guarded(&Name::parse("demo")?)?;
        Ok(Self { access: ours.access().clone(), programs, owner: Owner::Ours(Box::new(ours)) })
    }

    /// A private folder that goes with the site.
    pub(crate) fn folder(&self) -> &Path {
        match &self.owner {
            Owner::Ours(ours) => ours.folder(),
            Owner::Theirs { scratch, .. } => scratch.path(),
        }
    }

    /// The executor's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder().join("store")
    }

    /// One of the built programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    pub(crate) const fn access(&self) -> &Access {
        &self.access
    }

    /// kubectl in the demo's namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        process::output(self.access.command().args(["--namespace", NAMESPACE]).args(arguments))
    }

    /// `kubectl apply` of a text.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.folder().join("manifest.yaml");
        std::fs::write(&file, manifest).map_err(Error::io(format!("write {}", file.display())))?;
        self.kubectl(&["apply", "--server-side", "--filename", &file.display().to_string()])?;
        Ok(())
    }

    /// Takes a started program into care.
    pub(crate) fn add(&mut self, program: &'static str, child: Background) -> Result<&mut Background> {
        match &mut self.owner {
            Owner::Ours(ours) => ours.add(program, child),
            Owner::Theirs { children, .. } => Ok(children.push_mut(child)),
        }
    }

    /// Installs the CRDs and makes the namespace.
    pub(crate) fn install_definitions(&mut self) -> Result<()> {
        let step = Step::begin("install the CRDs");
        let there = self.kubectl(&["get", "crd", "executions.requiem.dev"]).is_ok();
        if let Owner::Theirs { definitions, .. } = &mut self.owner {
            *definitions = !there;
        }
        let folder = paths::repository().join("config/crd");
        let folder = folder.display().to_string();
        self.kubectl(&["apply", "--server-side", "--kustomize", &folder])?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--kustomize", &folder])?;
        self.access.kubectl(&["create", "namespace", NAMESPACE])?;
        step.done();
        Ok(())
    }

    /// Removes everything the demo made.
    pub(crate) fn close(self) -> Result<()> {
        let step = Step::begin("stop the cluster");
        match self.owner {
            Owner::Ours(ours) => ours.down()?,
            Owner::Theirs { scratch, children, definitions } => {
                self.access.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"])?;
                if definitions {
                    let folder = paths::repository().join("config/crd").display().to_string();
                    self.access.kubectl(&["delete", "--kustomize", &folder])?;
                }
                for child in children.into_iter().rev() {
                    child.stop(GRACE)?;
                }
                drop(scratch);
            }
        }
        step.done();
        Ok(())
    }

    /// Lets it run on.
    pub(crate) fn keep(self) -> Result<(Name, Access)> {
        match self.owner {
            Owner::Ours(ours) => Ok((ours.keep()?, self.access)),
            Owner::Theirs { .. } => {
                Err(Error::usage("--keep is for a cluster of the demo's own", "Leave out --context"))
            }
        }
    }
}
