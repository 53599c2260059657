//! Where the demo runs: a cluster of its own, or somebody's; and what must go afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::NAMESPACE;
use crate::cluster::{self, Access, Ephemeral, Name, Node, Shape};
use crate::progress::Step;
use crate::scratch::Scratch;
use crate::stack::{Options, Stack};
use crate::{Error, Result, paths, process, tools};

pub(crate) struct Site {
    access: Access,
    programs: PathBuf,
    // Before the owner, so that the two end before the cluster they use.
    stack: Option<Stack>,
    owner: Owner,
}

enum Owner {
    /// A control plane of our own; everything goes with it.
    Ours(Box<Ephemeral>),
    /// Somebody's cluster: what we made in it goes, the rest stays.
    Theirs { scratch: Scratch, definitions: bool },
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
                stack: None,
                owner: Owner::Theirs { scratch, definitions: false },
            });
        }
        let ours = cluster::up_guarded(&Name::parse("demo")?, Shape::PLANE)?;
        Ok(Self { access: ours.access().clone(), programs, stack: None, owner: Owner::Ours(Box::new(ours)) })
    }

    /// Starts a control plane and one node.
    pub(crate) fn open_with_node(programs: PathBuf) -> Result<Self> {
        let ours = cluster::up_guarded(&Name::parse("demo")?, Shape::nodes(1))?;
        Ok(Self { access: ours.access().clone(), programs, stack: None, owner: Owner::Ours(Box::new(ours)) })
    }

    /// The nodes, where they are ours.
    pub(crate) fn nodes(&self) -> Result<Vec<Node>> {
        match &self.owner {
            Owner::Ours(ours) => ours.nodes(),
            Owner::Theirs { .. } => Ok(Vec::new()),
        }
    }

    /// Helm, for the cluster.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(tools::helm()?);
        process::output(helm.args(arguments).env("KUBECONFIG", &self.access.kubeconfig))
    }

    /// A private folder that goes with the site.
    pub(crate) fn folder(&self) -> &Path {
        match &self.owner {
            Owner::Ours(ours) => ours.folder(),
            Owner::Theirs { scratch, .. } => scratch.path(),
        }
    }

    /// The executor's store.
    pub(crate) fn store(&self) -> Option<&Path> {
        self.stack.as_ref().map(Stack::store)
    }

    /// One of the built programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
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

    /// Starts executor and operator, and makes the pool that brings them together; returns when the pool is ready.
    pub(crate) fn start_stack(&mut self) -> Result<()> {
        let step = Step::begin("start requiem-executor and requiem-operator");
        let slots = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let options = Options {
            kubeconfig: self.access.kubeconfig.clone(),
            programs: self.programs.clone(),
            namespace: Some(NAMESPACE.to_owned()),
            slots: u32::try_from(slots).unwrap_or(2),
            executor_wrapper: Vec::new(),
            operator_arguments: Vec::new(),
        };
        let stack = Stack::start_in(&options, self.folder())?;
        self.apply(&stack.pool(NAMESPACE))?;
        self.stack = Some(stack);
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "executorpool/default"])?;
        step.done();
        Ok(())
    }

    /// The executor's metrics.
    pub(crate) fn executor_metrics(&self) -> Result<String> {
        self.stack.as_ref().map_or_else(|| Ok(String::new()), |stack| stack.executor.get("/metrics"))
    }

    /// Installs the CRDs and makes the namespace.
    pub(crate) fn install_definitions(&mut self) -> Result<()> {
        let step = Step::begin("install the CRDs");
        let there = self.kubectl(&["get", "crd", "executions.requiem.dev"]).is_ok();
        if let Owner::Theirs { definitions, .. } = &mut self.owner {
            *definitions = !there;
        }
        self.access.install_definitions()?;
        self.access.kubectl(&["create", "namespace", NAMESPACE])?;
        step.done();
        Ok(())
    }

    /// Removes everything the demo made.
    pub(crate) fn close(mut self) -> Result<()> {
        let step = Step::begin("stop the cluster");
        if let Owner::Theirs { definitions, .. } = &self.owner {
            // The operator is still there: its objects go in good order.
            self.access.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"])?;
            if *definitions {
                let folder = paths::repository().join("config/crd").display().to_string();
                self.access.kubectl(&["delete", "--kustomize", &folder])?;
            }
        }
        self.stack.as_mut().map_or(Ok(()), Stack::stop)?;
        match self.owner {
            Owner::Ours(ours) => ours.down()?,
            Owner::Theirs { scratch, .. } => drop(scratch),
        }
        step.done();
        Ok(())
    }

    /// Lets it run on.
    pub(crate) fn keep(self) -> Result<(Name, Access)> {
        let Owner::Ours(mut ours) = self.owner else {
            return Err(Error::usage("--keep is for a cluster of the demo's own", "Leave out --context"));
        };
        for (program, child) in self.stack.into_iter().flat_map(Stack::into_running) {
            ours.add(program, child)?;
        }
        Ok((ours.keep()?, self.access))
    }
}
