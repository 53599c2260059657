//! `requiem version`: which documents and formats this program speaks, and what it was built with. Every fact is either compiled in
//! by the build or read from the running program; none depends on when or where it was built.

use std::fs::File;

use requiem_model::BlobDigest;
use requiem_model::confidence::FORMULA;
use requiem_proof::{alone, replays, signer, trust};
use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::document::RESULT_SCHEMA;
use crate::error::CommandError;
use crate::report::Report;
use crate::schema;
use crate::text::table;

#[derive(Serialize, JsonSchema)]
pub(super) struct Version {
    ok: bool,
    version: &'static str,
    documents: Documents,
    build: Build,
}

/// What is read and written, by its own version.
#[derive(Serialize, JsonSchema)]
struct Documents {
    /// Kinds in a cluster.
    api: String,
    /// Bundles.
    bundle: &'static str,
    /// Proofs of one output.
    output_proof: &'static str,
    /// Receipts of replays.
    replays: &'static str,
    /// Trust files.
    trust: &'static str,
    /// The way to ask signers.
    signer: &'static str,
    /// The store's folder.
    store: &'static str,
    /// Folders in the store.
    tree: &'static str,
    /// Results of benchmarks.
    bench: &'static str,
    /// The formula of determinism confidence.
    confidence: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Build {
    /// For which machine.
    target: &'static str,
    /// By which compiler.
    rustc: &'static str,
    /// Whether it was optimised, or built with checks for developers.
    profile: &'static str,
    /// BLAKE3 of the running program, as bundles name it.
    #[schemars(schema_with = "schema::digest")]
    binary: BlobDigest,
}

/// Runs the command.
pub(crate) fn run() -> Result<Report, CommandError> {
    let version = Version {
        ok: true,
        version: env!("CARGO_PKG_VERSION"),
        documents: Documents {
            api: format!("{}/{}", requiem_crds::GROUP, requiem_crds::VERSION),
            bundle: requiem_proof::SCHEMA,
            output_proof: alone::OUTPUT_SCHEMA,
            replays: replays::REPLAYS_SCHEMA,
            trust: trust::TRUST_SCHEMA,
            signer: signer::SIGNER_PROTOCOL,
            store: requiem_cas::store::FORMAT.trim_ascii_end(),
            tree: requiem_cas::tree::SCHEMA,
            bench: RESULT_SCHEMA,
            confidence: FORMULA,
        },
        build: Build {
            target: env!("REQUIEM_TARGET"),
            rustc: env!("REQUIEM_RUSTC"),
            profile: if cfg!(debug_assertions) { "debug" } else { "optimised" },
            binary: binary()?,
        },
    };
    let text = text(&version);
    Ok(Report::new(&version, text, true))
}

fn binary() -> Result<BlobDigest, CommandError> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open("/proc/self/exe").and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(|error| {
        CommandError::unusable("Environment", format!("cannot read this program: {error}"), "mount /proc")
    })?;
    Ok(BlobDigest::from_bytes(*hasher.finalize().as_bytes()))
}

fn text(version: &Version) -> String {
    let Version { ok: _, version: number, documents, build } = version;
    let row = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
    let rows = [
        row("requiem", number),
        row("api", &documents.api),
        row("bundle", documents.bundle),
        row("output proof", documents.output_proof),
        row("replays", documents.replays),
        row("trust", documents.trust),
        row("signer", documents.signer),
        row("store", documents.store),
        row("tree", documents.tree),
        row("bench", documents.bench),
        row("confidence", documents.confidence),
        row("target", build.target),
        row("rustc", build.rustc),
        row("profile", build.profile),
        row("binary", &build.binary.to_string()),
    ];
    table(&rows)
}
