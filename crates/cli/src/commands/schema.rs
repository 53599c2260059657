//! `requiem schema`: the JSON Schema of every document that is read or printed, and the list of them.

use std::fs;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    bench_compare, bench_gate, cas_gc, cas_get, cas_info, cas_ls, cas_pin, cas_put, cas_stats, cas_verify,
    completions, config_show, config_validate, digest, doctor, drift_analyze, exec_apply, exec_explain,
    exec_replay, health, man, metrics, policy_check, proof_export, proof_generate, proof_prove, proof_show,
    proof_sign, proof_verify, sandbox_explain, sandbox_probe, version,
};
use crate::arguments::SchemaArguments;
use crate::bench::document::ResultDocument;
use crate::bench::spec;
use crate::error::{CommandError, Refusal};
use crate::replacement::report::Readiness;
use crate::report::Report;
use crate::result::RunDocument;
use crate::schema::{either, of};
use crate::text::{printable, shown};
use crate::trial::DiffDocument;
use crate::{config_schema, plugin, request_schema, store};

/// What there is a schema of: its name, what it is, and how the schema is made. A command's name is its words.
type Entry = (&'static str, &'static str, fn() -> Schema);

const DOCUMENTS: &[Entry] = &[
    ("request", "what exec run reads", request_schema::schema),
    ("error", "what every command prints with --json when it cannot do its work", of::<Refusal<'_>>),
    ("exec-run", "the result of a run, also what exec run --out writes", of::<RunDocument>),
    ("exec-diff", "where two engines differ, what exec run --diff writes", of::<DiffDocument>),
    ("exec-explain", "what a request would run", of::<exec_explain::Explained>),
    ("exec-apply", "an Execution that has ended", of::<exec_apply::Ended<'_>>),
    ("exec-replay", "a run beside its replay", of::<exec_replay::Replayed>),
    ("cas-put", "what was put", of::<cas_put::Put>),
    ("cas-get", "what was written where, with --out", of::<cas_get::Got<'_>>),
    ("cas-ls", "the objects of a store", of::<cas_ls::Listed<'_>>),
    ("cas-info", "what is known of an object", of::<cas_info::Info>),
    ("cas-stats", "what a store holds", of::<cas_stats::Counted>),
    ("cas-verify", "what is not what its name says", of::<cas_verify::Verified>),
    ("cas-pin-add", "what is kept from now on", of::<cas_pin::Added>),
    ("cas-pin-rm", "the pins that were let go of", of::<cas_pin::Pins>),
    ("cas-pin-ls", "all pins", of::<cas_pin::Pins>),
    ("cas-gc", "what goes, what stays, and why", of::<cas_gc::Collected>),
    ("digest-file", "the digest of a file", of::<digest::Digested>),
    ("digest-verify", "the digest of a file beside the one it should have", of::<digest::Verified>),
    ("proof-generate", "the roots of what was generated", of::<proof_generate::Generated>),
    ("proof-show", "what a bundle says", of::<proof_show::Shown<'_>>),
    ("proof-prove", "the roots above one output", of::<proof_prove::Proven<'_>>),
    ("proof-export", "the key whose signature was exported", of::<proof_export::Exported<'_>>),
    ("proof-sign", "the key that signed", of::<proof_sign::SignedDocument>),
    (
        "proof-verify",
        "the verdict about a bundle, or about one output",
        either::<proof_verify::Verdict<'_>, proof_verify::OutputVerdict<'_>>,
    ),
    ("validate-replacement", "whether an engine may take the place of another, and why", of::<Readiness>),
    ("health", "what this machine can do", of::<health::Health>),
    ("doctor", "what was looked at, and what is wrong with it", of::<doctor::Diagnosis>),
    ("drift-analyze", "runs that were compared, and where they differ", of::<drift_analyze::Drift>),
    ("policy-check", "Executions, and what policies say about them", of::<policy_check::Checked>),
    ("bench-spec", "what bench run reads", spec::schema),
    ("bench-run", "the result of a benchmark, also what bench run --out writes", of::<ResultDocument>),
    ("bench-compare", "two results of a benchmark beside one another", of::<bench_compare::Compared>),
    ("bench-gate", "whether a result is a regression", of::<bench_gate::Gated>),
    ("sandbox-probe", "which layers this machine can enforce", of::<sandbox_probe::Probed>),
    (
        "sandbox-explain",
        "what a layer does, or what all of them do",
        either::<sandbox_explain::Explained, sandbox_explain::Listed>,
    ),
    ("config-cli", "the configuration file of requiem", config_schema::of_cli),
    ("config-operator", "the configuration file of requiem-operator", config_schema::of_operator),
    ("config-executor", "the configuration file of requiem-executor serve", config_schema::of_executor),
    ("config-show", "the value of every setting, and from where it is", of::<config_show::Shown>),
    ("config-validate", "what is wrong with a configuration file", of::<config_validate::Judged>),
    ("metrics", "what was counted, and what the store holds", of::<metrics::Figures>),
    ("completions", "a script for a shell", of::<completions::Script>),
    ("man", "a page, or the files that were written", either::<man::Printed, man::Written>),
    ("schema", "the schemas, or the files that were written", either::<Schemas, Written>),
    ("kubectl-run", "an Execution that was run, and the verdict about its proof", of::<plugin::run::Ran<'_>>),
    ("kubectl-get", "Executions as they stand", of::<plugin::get::Standings>),
    ("kubectl-logs", "how much of the streams was shown", of::<plugin::logs::Shown>),
    ("kubectl-outputs", "the outputs of an Execution", of::<plugin::outputs::Listed>),
    ("kubectl-cancel", "which Executions were told to end", of::<plugin::cancel::Cancelled>),
    ("kubectl-top", "what pools can take, and what waits for them", of::<plugin::top::Load>),
    ("version", "versions of the program and of its documents", of::<version::Version>),
];

/// Schemas by the names of their documents.
#[derive(Serialize, JsonSchema)]
pub(super) struct Schemas {
    ok: bool,
    schemas: Map<String, Value>,
}

/// Files that were written.
#[derive(Serialize, JsonSchema)]
pub(super) struct Written {
    ok: bool,
    files: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &SchemaArguments) -> Result<Report, CommandError> {
    let wanted: Vec<_> = match &arguments.name {
        None => DOCUMENTS.iter().collect(),
        Some(name) => vec![find(name)?],
    };
    let made: Vec<(&str, Value)> =
        wanted.iter().map(|(name, about, make)| (*name, titled(name, about, make()))).collect();
    let Some(folder) = &arguments.out else {
        let text = match (&arguments.name, made.as_slice()) {
            (Some(_), [(_, schema)]) => pretty(schema)?,
            _ => list(),
        };
        let schemas = made.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
        return Ok(Report::new(&Schemas { ok: true, schemas }, text, true));
    };
    fs::create_dir_all(folder).map_err(|error| store::cannot("make folder", folder, &error))?;
    let mut files = Vec::new();
    for (name, schema) in &made {
        let file = format!("{name}.json");
        store::write(&folder.join(&file), pretty(schema)?.as_bytes())?;
        files.push(file);
    }
    let text = format!("wrote {} files to {}", files.len(), shown(folder));
    Ok(Report::new(&Written { ok: true, files }, text, true))
}

fn find(name: &str) -> Result<&'static Entry, CommandError> {
    DOCUMENTS.iter().find(|(known, ..)| *known == name).ok_or_else(|| {
        let names: Vec<&str> = DOCUMENTS.iter().map(|(name, ..)| *name).collect();
        let message = format!("there is no document {}", printable(name));
        CommandError::unusable("Usage", message, format!("the documents are: {}", names.join(", ")))
    })
}

fn titled(name: &str, about: &str, schema: Schema) -> Value {
    let mut schema = schema;
    schema.insert("title".to_owned(), format!("{name}: {about}").into());
    schema.to_value()
}

fn pretty(schema: &Value) -> Result<String, CommandError> {
    let text = serde_json::to_string_pretty(schema).map_err(|error| store::encoding(&error))?;
    Ok(text + "\n")
}

fn list() -> String {
    let rows: Vec<[String; 2]> =
        DOCUMENTS.iter().map(|(name, about, _)| [(*name).to_owned(), (*about).to_owned()]).collect();
    crate::text::table(&rows)
}
