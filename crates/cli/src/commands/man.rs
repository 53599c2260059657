//! `requiem man`: manual pages and the reference page, from the table that the command line is parsed by.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man as Page;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Arguments, Man};
use crate::error::CommandError;
use crate::plugin::arguments::PluginArguments;
use crate::report::Report;
use crate::text::{printable, shown};
use crate::{reference, store};

/// A page that was asked for.
#[derive(Serialize, JsonSchema)]
pub(super) struct Printed {
    ok: bool,
    page: String,
}

/// Pages that were written.
#[derive(Serialize, JsonSchema)]
pub(super) struct Written {
    ok: bool,
    files: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Man) -> Result<Report, CommandError> {
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    let pages = match (&arguments.out, arguments.markdown) {
        (_, true) => {
            let mut plugin = PluginArguments::command().disable_help_subcommand(true);
            plugin.build();
            vec![
                ("cli.md".to_owned(), reference::render(reference::REQUIEM, &root)),
                ("kubectl.md".to_owned(), reference::render(reference::PLUGIN, &plugin)),
            ]
        }
        (Some(_), false) => every(&root)?,
        (None, false) => vec![page(named(&root, &arguments.command)?)?],
    };
    let Some(folder) = &arguments.out else {
        let page: String = pages.into_iter().map(|(_, page)| page).collect();
        return Ok(Report::new(&Printed { ok: true, page: page.clone() }, page, true));
    };
    write(folder, &pages)?;
    let files: Vec<String> = pages.into_iter().map(|(name, _)| name).collect();
    let text = format!("wrote {} files to {}", files.len(), shown(folder));
    Ok(Report::new(&Written { ok: true, files }, text, true))
}

fn write(folder: &Path, pages: &[(String, String)]) -> Result<(), CommandError> {
    fs::create_dir_all(folder).map_err(|error| store::cannot("make folder", folder, &error))?;
    pages.iter().try_for_each(|(name, page)| store::write(&folder.join(name), page.as_bytes()))
}

/// The command of these words.
fn named<'a>(root: &'a Command, words: &[String]) -> Result<&'a Command, CommandError> {
    words.iter().try_fold(root, |command, word| {
        command.find_subcommand(word).filter(|found| !found.is_hide_set()).ok_or_else(|| {
            let message = format!("{} has no command {}", name_of(command), printable(word));
            let names: Vec<&str> = reference::shown(command).map(Command::get_name).collect();
            CommandError::unusable("Usage", message, format!("its commands are: {}", names.join(", ")))
        })
    })
}

/// The pages of a command and of all below it.
fn every(command: &Command) -> Result<Vec<(String, String)>, CommandError> {
    let mut pages = vec![page(command)?];
    for below in reference::shown(command) {
        pages.extend(every(below)?);
    }
    Ok(pages)
}

/// The name of a page's file, and the page.
fn page(command: &Command) -> Result<(String, String), CommandError> {
    let file = format!("{}.1", name_of(command).replace(' ', "-"));
    let mut out = Vec::new();
    let page =
        Page::new(command.clone()).source(concat!("requiem ", env!("CARGO_PKG_VERSION"))).manual("Requiem");
    let rendered = page.render(&mut out).map_err(|error| error.to_string());
    let text = rendered.and_then(|()| String::from_utf8(out).map_err(|error| error.to_string()));
    text.map(|text| (file, text)).map_err(|error| {
        CommandError::unusable("Encoding", format!("there is no page: {error}"), "please report this defect")
    })
}

fn name_of(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}
