//! `requiem completions`: what a shell needs to complete our command line.

use clap::{Command, CommandFactory};
use clap_complete::{Generator, shells};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Arguments, Completions, Shell};
use crate::error::CommandError;
use crate::report::Report;

#[derive(Serialize, JsonSchema)]
pub(super) struct Script {
    ok: bool,
    script: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &Completions) -> Result<Report, CommandError> {
    let script = match arguments.shell {
        Shell::Bash => script(&shells::Bash),
        Shell::Zsh => script(&shells::Zsh),
        Shell::Fish => script(&shells::Fish),
    }?;
    Ok(Report::new(&Script { ok: true, script: script.clone() }, script, true))
}

fn script(shell: &impl Generator) -> Result<String, CommandError> {
    let all = Arguments::command();
    // Only what users call: the generators do not leave out what is hidden.
    let mut command = Command::new("requiem")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|below| !below.is_hide_set()).cloned());
    command.set_bin_name("requiem");
    command.build();
    let mut script = Vec::new();
    shell.try_generate(&command, &mut script).map_err(|error| defect(&error))?;
    String::from_utf8(script).map_err(|error| defect(&error))
}

fn defect(error: &dyn std::error::Error) -> CommandError {
    CommandError::unusable("Encoding", format!("there is no script: {error}"), "please report this defect")
}
