//! The executor of this machine: `exec run`, `exec replay` and `bench run` run by the same steps as the daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use requiem_cas::TenantStore;
use requiem_executor::archive::Archive;
use requiem_executor::engine::{CommandEngine, Engine, EngineName, Portable, Sandbox};
use requiem_executor::{Deps, Keep, SealedRun, Stored, Timings, execute, executor_claim};
use requiem_model::ExecutionRequest;
use requiem_model::attempt::{Identity, SealedAttempt};
use requiem_proof::{ExecutorClaim, Expect, Sealed, Verified, verify};

use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::{random, sandbox, store};

/// An engine, and what this process says of itself in bundles. The sandbox takes runs from several threads at once.
#[derive(Debug)]
pub(crate) struct LocalExecutor {
    engine: Box<dyn Engine>,
    claim: ExecutorClaim,
}

/// A run, and what follows from its proof.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) sealed: Sealed,
    pub(crate) verified: Verified,
    /// Where the time went.
    pub(crate) timings: Timings,
    /// From the request to the end: what is kept durably is kept.
    pub(crate) took: Duration,
    /// What became of texts and streams in the store.
    pub(crate) stored: Stored,
}

impl LocalExecutor {
    /// Starts the sandbox; as many runs are prepared ahead as will be asked for at the same moment.
    pub(crate) fn start(at_once: usize) -> Result<Self, CommandError> {
        Self::with(Box::new(Sandbox(sandbox::start(at_once)?)))
    }

    /// Starts an engine, for one run at a time.
    pub(crate) fn open(engine: &EngineName) -> Result<Self, CommandError> {
        match engine {
            EngineName::Requiem => Self::start(1),
            EngineName::Rust => Self::with(Box::new(Portable)),
            EngineName::Command(program) => Self::with(Box::new(CommandEngine::open(program)?)),
        }
    }

    fn with(engine: Box<dyn Engine>) -> Result<Self, CommandError> {
        let claim = executor_claim("requiem-cli").map_err(|error| {
            let message = format!("cannot read this program and the kernel's release: {error}");
            CommandError::unusable("Environment", message, "mount /proc")
        })?;
        Ok(Self { engine, claim })
    }

    /// Runs a request on this machine and judges its proof.
    pub(crate) fn execute(
        &self,
        objects: &TenantStore,
        keep: Keep,
        identity: &Identity,
        request: &ExecutionRequest,
        interrupt: &Interrupt,
    ) -> Result<Ran, CommandError> {
        self.execute_into(objects, objects, keep, identity, request, interrupt)
    }

    /// The same with results that go elsewhere than inputs come from.
    pub(crate) fn execute_into(
        &self,
        objects: &TenantStore,
        results: &TenantStore,
        keep: Keep,
        identity: &Identity,
        request: &ExecutionRequest,
        interrupt: &Interrupt,
    ) -> Result<Ran, CommandError> {
        let engine = self.engine.as_ref();
        let deps = Deps { store: objects, results, engine, claim: &self.claim, keep };
        let started = Instant::now();
        let ran = execute(&deps, identity, request, &[], interrupt.cancel());
        let SealedRun { sealed, timings, stored, .. } = ran.map_err(|failure| interrupt.explain(failure))?;
        let verified = believed(&sealed)?;
        let SealedAttempt { body, execution_root, bundle_root, .. } = sealed;
        let sealed = Sealed { body, execution_root, bundle_root };
        Ok(Ran { sealed, verified, timings, took: started.elapsed(), stored })
    }
}

/// Runs a request once, and keeps result and proof in the store of `objects`, which lies at `cas`.
pub(crate) fn execute_here(
    engine: &EngineName,
    cas: Option<&Path>,
    objects: &TenantStore,
    identity: &Identity,
    request: &ExecutionRequest,
    interrupt: &Interrupt,
) -> Result<Ran, CommandError> {
    let executor = LocalExecutor::open(engine)?;
    let started = Instant::now();
    let ran = executor.execute(objects, Keep::Strict, identity, request, interrupt)?;
    remember(cas, identity, &ran.sealed)?;
    Ok(Ran { took: started.elapsed(), ..ran })
}

/// Keeps the bundle of a run in the store, so that garbage collection knows what it names.
fn remember(cas: Option<&Path>, identity: &Identity, sealed: &Sealed) -> Result<(), CommandError> {
    let folder = store::folder(cas)?;
    Archive::new(&folder)
        .keep_durably(&identity.namespace, sealed)
        .map_err(|error| store::cannot("keep the bundle of the run in", &folder, &error))
}

/// What the executor says is a claim, here as everywhere.
fn believed(sealed: &SealedAttempt) -> Result<Verified, CommandError> {
    let expect = Expect {
        execution_root: Some(sealed.execution_root),
        bundle_root: Some(sealed.bundle_root),
        ..Expect::default()
    };
    verify(&sealed.body, &expect).map_err(|error| {
        let message = format!("the run's own proof is refused: {error}");
        CommandError::finding(error.code(), message, "this is a defect; please report it")
    })
}

/// A random id of the shape of a UUID, version 4.
pub(crate) fn random_id() -> Result<String, CommandError> {
    let mut bytes: [u8; 16] = random::bytes()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let group = |from: usize, to: usize| hex[from..to].concat();
    Ok([group(0, 4), group(4, 6), group(6, 8), group(8, 10), group(10, 16)].join("-"))
}
