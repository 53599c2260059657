//! One attempt from request to sealed result: fetch → stage → run → collect → seal. Blocking; used by the
//! daemon's workers and by the command line alike.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use requiem_cas::{Durability, Receipt, TenantStore};
use requiem_model::attempt::{Identity, SealedAttempt};
use requiem_model::result::FailureReason;
use requiem_model::{BlobDigest, ExecutionRequest, Failure, RequestDigest};
use requiem_proof::{BundleBody, ExecutorClaim};
use requiem_sandbox::Cancel;

use crate::attempts::unix_millis;
use crate::engine::{Engine, EngineError, check_claimed};
use crate::journal::InlineBlob;
use crate::steps::{collect, fetch, run, seal, stage};

/// How safely results are kept before they are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing is synced.
    Volatile,
    /// Everything is synced into the store.
    Strict,
    /// Small streams are handed back, for a journal that syncs them together with the result; everything
    /// else is synced into the store.
    Journal,
}

/// What an attempt needs besides its request.
#[derive(Clone, Copy)]
pub struct Deps<'a> {
    /// The tenant's objects, of which inputs come.
    pub store: &'a TenantStore,
    /// Where streams and outputs go: the same, but for a run on trial.
    pub results: &'a TenantStore,
    /// What runs it.
    pub engine: &'a dyn Engine,
    /// Who runs it.
    pub claim: &'a ExecutorClaim,
    /// How safely.
    pub keep: Keep,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Texts of the call put, inputs looked for.
    pub fetch: Duration,
    /// Inputs made mountable.
    pub stage: Duration,
    /// Inputs handed to the sandbox and attached there; part of `run`.
    pub mount: Duration,
    /// In the sandbox.
    pub run: Duration,
    /// Outputs put into the store.
    pub collect: Duration,
    /// Bundle made and sealed.
    pub seal: Duration,
}

/// A finished attempt.
#[derive(Debug, Clone)]
pub struct SealedRun {
    /// What goes to whoever asked.
    pub sealed: SealedAttempt,
    /// The bundle as a value.
    pub body: BundleBody,
    /// Streams that the caller must make durable ([`Keep::Journal`] only).
    pub blobs: Vec<InlineBlob>,
    /// Where the time went.
    pub timings: Timings,
    /// What became of texts and streams in the store.
    pub stored: Stored,
}

/// What became of texts and streams that were put into the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Bytes that were new.
    pub bytes: u64,
    /// Objects that were new.
    pub new: u64,
    /// Objects that it had.
    pub known: u64,
}

impl Stored {
    /// What one put did.
    pub(crate) fn of(receipt: &Receipt) -> Self {
        match receipt.deduplicated {
            true => Self { known: 1, ..Self::default() },
            false => Self { bytes: receipt.bytes, new: 1, known: 0 },
        }
    }
}

impl std::ops::Add for Stored {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let Self { bytes, new, known } = other;
        Self { bytes: self.bytes + bytes, new: self.new + new, known: self.known + known }
    }
}

/// When a run began and ended, in milliseconds since 1970; the end is the beginning plus elapsed time, so it
/// is not before it even if the clock was set back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) started_ms: u64,
    pub(crate) completed_ms: u64,
}

/// Runs `request` for `identity`.
///
/// # Guarantees
/// On return no process of the run is left. A result is given back only if all its bytes are kept as
/// [`Deps::keep`] says.
///
/// # Errors
/// Why there is no result.
pub fn execute(
    deps: &Deps<'_>,
    identity: &Identity,
    request: &ExecutionRequest,
    inline: &[String],
    cancel: &Cancel,
) -> Result<SealedRun, EngineError> {
    check_request(request)?;
    let Deps { store, results, engine, keep, claim: _ } = *deps;
    engine.admit(request)?;
    let mut timings = Timings::default();
    let (started_ms, started) = (unix_millis(), Instant::now());
    let stored = timed(&mut timings.fetch, || fetch::fetch(store, request, inline))?;
    let staged = timed(&mut timings.stage, || stage::stage(store, request, inline))?;
    let mut ran = timed(&mut timings.run, || run::run(results, engine, keep, request, staged, cancel))?;
    timings.mount = ran.done.mount;
    let workspace = ran.done.workspace.as_fd();
    let collected =
        timed(&mut timings.collect, || collect::collect(results, keep, workspace, &request.outputs))?;
    if let Some(claimed) = &ran.done.claimed {
        check_claimed(&engine.identity().name, claimed, &collected.outputs)?;
    }
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let span = Span { started_ms, completed_ms: started_ms.saturating_add(elapsed) };
    let (body, sealed) = timed(&mut timings.seal, || {
        let body = seal::body(deps, identity, request, &ran, collected, span);
        seal::seal(&body, &ran.stdout.tail, &ran.stderr.tail).map(|sealed| (body, sealed))
    })?;
    let blobs = [ran.stdout.inline.take(), ran.stderr.inline.take()].into_iter().flatten().collect();
    let stored = stored + ran.stdout.stored + ran.stderr.stored;
    Ok(SealedRun { sealed, body, blobs, timings, stored })
}

/// Whether `request` may be run at all: in normal form, inside every bound, and such that its result can be
/// sealed however it ends. Gives back its digest.
///
/// # Errors
/// [`FailureReason::InvalidRequest`] with the offending field.
pub fn check_request(request: &ExecutionRequest) -> Result<RequestDigest, Failure> {
    let invalid = |message: String, hint: &str| Failure::new(FailureReason::InvalidRequest, message, hint);
    let normal = request.clone().normalise();
    let normal = normal.map_err(|error| invalid(format!("{}: {}", error.field, error.why), error.hint))?;
    if normal != *request {
        let message = "the request is not in normal form: a list is unsorted or holds duplicates";
        return Err(invalid(
            message.to_owned(),
            "sort env, inputs and outputs before the request is digested",
        ));
    }
    requiem_proof::check_fits(request)
        .map_err(|error| invalid(error.to_string(), "name fewer or shorter arguments, inputs and outputs"))?;
    request.digest().map_err(|error| invalid(error.to_string(), "make the request smaller"))
}

/// What this process says about itself in every bundle. Hashes the running binary: to be called once.
///
/// # Errors
/// /proc is not there.
pub fn executor_claim(name: &str) -> io::Result<ExecutorClaim> {
    let binary = digest_of(Path::new("/proc/self/exe"))?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(ExecutorClaim {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        binary,
        kernel: kernel.trim_end().to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
    })
}

/// The digest of a program's file.
pub(crate) fn digest_of(program: &Path) -> io::Result<BlobDigest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(program)?)?;
    Ok(BlobDigest::from_bytes(*hasher.finalize().as_bytes()))
}

fn timed<T>(spent: &mut Duration, step: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = step();
    *spent = begun.elapsed();
    done
}

// === impl Keep ===

impl Keep {
    /// For streams that fit into a journal record.
    pub(crate) const fn small(self) -> Durability {
        match self {
            Self::Volatile | Self::Journal => Durability::Volatile,
            Self::Strict => Durability::Strict,
        }
    }

    /// For everything else.
    pub(crate) const fn large(self) -> Durability {
        match self {
            Self::Volatile => Durability::Volatile,
            Self::Strict | Self::Journal => Durability::Strict,
        }
    }
}
