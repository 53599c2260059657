//! `requiem sandbox explain`: what a layer does, and what this machine says about it.

use std::fs;

use requiem_model::report::{LayerReport, Status};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::SandboxExplain;
use crate::error::CommandError;
use crate::layers::{About, LAYERS, markdown, of};
use crate::report::Report;
use crate::text::{printable, shown, table};
use crate::{sandbox, schema, store};

/// The name of the page about all layers.
const PAGE: &str = "layers.md";

/// One layer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explained {
    ok: bool,
    layer: &'static str,
    does: &'static str,
    proof: &'static str,
    needs: &'static str,
    /// What a run of nothing, with every layer preferred, said on this machine.
    #[schemars(schema_with = "schema::layer_report")]
    here: LayerReport,
}

/// All layers, without looking at this machine.
#[derive(Serialize, JsonSchema)]
pub(super) struct Listed {
    ok: bool,
    layers: Vec<Row>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    layer: &'static str,
    does: &'static str,
    proof: &'static str,
    needs: &'static str,
}

/// Runs the command. A layer that is not in force here is exit code 1.
pub(crate) fn run(arguments: &SandboxExplain) -> Result<Report, CommandError> {
    match &arguments.layer {
        Some(name) => one(name),
        None => all(arguments),
    }
}

fn all(arguments: &SandboxExplain) -> Result<Report, CommandError> {
    let page = markdown();
    if let Some(folder) = &arguments.out {
        fs::create_dir_all(folder).map_err(|error| store::cannot("make folder", folder, &error))?;
        store::write(&folder.join(PAGE), page.as_bytes())?;
    }
    let rows: Vec<[String; 2]> =
        LAYERS.iter().map(|row| [row.layer.to_string(), row.does.to_owned()]).collect();
    let text = match (&arguments.out, arguments.markdown) {
        (Some(folder), _) => format!("wrote {PAGE} to {}", shown(folder)),
        (None, true) => page,
        (None, false) => table(&rows),
    };
    let layers = LAYERS.iter().map(|About { layer, does, proof, needs }| Row {
        layer: layer.name(),
        does,
        proof,
        needs,
    });
    Ok(Report::new(&Listed { ok: true, layers: layers.collect() }, text, true))
}

fn one(name: &str) -> Result<Report, CommandError> {
    let unknown = || {
        let names: Vec<&str> = LAYERS.iter().map(|row| row.layer.name()).collect();
        let message = format!("there is no layer {}", printable(name));
        CommandError::unusable("Usage", message, format!("the layers are: {}", names.join(", ")))
    };
    let about = LAYERS.iter().find(|row| row.layer.name() == name).ok_or_else(unknown)?;
    sandbox::enter()?;
    let report = sandbox::probe()?;
    let here = report.layer(about.layer).cloned().ok_or_else(unknown)?;
    let text = text(about, &here);
    let About { layer, does, proof, needs } = *about;
    let ok = here.status == Status::Enforced;
    Ok(Report::new(&Explained { ok, layer: layer.name(), does, proof, needs, here }, text, ok))
}

fn text(about: &About, here: &LayerReport) -> String {
    let row = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
    let mut rows = vec![
        row("layer", about.layer.name()),
        row("does", about.does),
        row("proof", about.proof),
        row("needs", about.needs),
        row("here", &format!("{}, by {}", crate::text::word(&here.status), printable(&here.mechanism))),
    ];
    if let Some(detail) = &here.detail {
        rows.push(row("because", &printable(detail)));
    }
    table(&rows)
}

/// What a layer that is not in force needs, for those who can give it.
pub(super) fn needs(report: &requiem_model::SandboxReport) -> String {
    let short = report.layers.iter().filter(|row| row.status != Status::Enforced);
    let told =
        short.filter_map(|row| of(row.layer)).map(|row| format!("{} needs {}\n", row.layer, row.needs));
    told.collect()
}
