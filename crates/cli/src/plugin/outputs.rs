//! `kubectl requiem outputs`: what an Execution kept, as its proof lists it; with `--to` brought here, each byte checked by digest.

use std::fs;
use std::path::Path;

use requiem_crds::Execution;
use requiem_model::result::{Output, OutputContent};
use schemars::JsonSchema;
use serde::Serialize;

use super::arguments::{ClusterArguments, Outputs};
use super::holder;
use super::pull::Puller;
use super::site::Site;
use crate::cluster::runtime;
use crate::commands::cas_get;
use crate::error::CommandError;
use crate::proof_text;
use crate::report::Report;
use crate::schema;
use crate::store::{self, cannot};
use crate::text::{printable, table};

/// The outputs of an Execution.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Listed {
    ok: bool,
    outputs: Vec<Kept>,
}

/// One output.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Kept {
    path: String,
    #[schemars(schema_with = "schema::content")]
    content: OutputContent,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<String>,
}

/// Runs the command.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Outputs) -> Result<Report, CommandError> {
    let outputs = runtime()?.block_on(list(cluster, arguments))?;
    let written = |output: &Output| {
        arguments.to.as_ref().map(|folder| folder.join(output.path.as_str()).to_string_lossy().into_owned())
    };
    let kept = |output: &Output| Kept {
        path: output.path.as_str().to_owned(),
        content: output.content,
        written: written(output),
    };
    let rows: Vec<[String; 4]> = outputs.iter().map(row).collect();
    let document = Listed { ok: true, outputs: outputs.iter().map(kept).collect() };
    Ok(Report::new(&document, table(&rows), true))
}

fn row(output: &Output) -> [String; 4] {
    let (path, kind, digest, bytes) = proof_text::output(&output.path, &output.content);
    [path, kind.to_owned(), format!("{bytes} bytes"), digest]
}

/// The outputs that were asked for; with `--to` they are there when this returns.
async fn list(cluster: &ClusterArguments, arguments: &Outputs) -> Result<Vec<Output>, CommandError> {
    let site = Site::of(cluster).await?;
    let execution = site.execution(&arguments.name).await?;
    let all = site.proof(&execution).await?.verified.body.execution.result.outputs;
    let outputs = chosen(all, &arguments.paths)?;
    if let Some(folder) = &arguments.to {
        bring(&site, &execution, arguments, &outputs, folder).await?;
    }
    Ok(outputs)
}

fn chosen(all: Vec<Output>, paths: &[String]) -> Result<Vec<Output>, CommandError> {
    let known = |path: &String| all.iter().any(|output| output.path.as_str() == path);
    if let Some(unknown) = paths.iter().find(|path| !known(path)) {
        let names: Vec<&str> = all.iter().map(|output| output.path.as_str()).collect();
        let message = format!("{} is none of its outputs", printable(unknown));
        let hint = format!("its outputs are: {}", printable(&names.join(", ")));
        return Err(CommandError::unusable("Usage", message, hint));
    }
    let wanted = |output: &Output| paths.is_empty() || paths.iter().any(|path| output.path.as_str() == path);
    Ok(all.into_iter().filter(wanted).collect())
}

/// Brings outputs into a store here, and from there into a new folder: all of them, or none.
async fn bring(
    site: &Site,
    execution: &Execution,
    arguments: &Outputs,
    outputs: &[Output],
    folder: &Path,
) -> Result<(), CommandError> {
    fs::create_dir(folder).map_err(|error| cannot("make folder", folder, &error))?;
    let brought = async {
        let remote = holder::of_result(site, execution).await?;
        let store = store::open(arguments.store.cas.as_deref(), &site.namespace)?;
        let puller = Puller { remote: &remote, namespace: &site.namespace, store: &store };
        for output in outputs.iter().filter(|output| !lies_in_another(output, outputs)) {
            puller.output(&output.content).await?;
            let path = folder.join(output.path.as_str());
            if let Some(above) = path.parent() {
                fs::create_dir_all(above).map_err(|error| cannot("make folder", above, &error))?;
            }
            match &output.content {
                OutputContent::Blob { digest, executable, .. } => {
                    cas_get::get_file(&store, digest, *executable, &path)?;
                }
                OutputContent::Tree { digest, .. } => cas_get::get_new_tree(&store, digest, &path)?,
            }
        }
        Ok(())
    };
    brought.await.inspect_err(|_| {
        // The first error is the one to tell.
        let _half_of_them = fs::remove_dir_all(folder);
    })
}

/// A folder has it already. To write below it could follow a link in it.
fn lies_in_another(output: &Output, outputs: &[Output]) -> bool {
    let below = |other: &Output| {
        let rest = output.path.as_str().strip_prefix(other.path.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    outputs.iter().any(below)
}
