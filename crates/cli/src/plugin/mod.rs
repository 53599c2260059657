//! `kubectl requiem`: the same program under the name `kubectl-requiem`, which kubectl starts for it.
//!
//! What a user may do is the API server's to say: objects are read and written with the user's own rights, and bytes come from executors
//! through `pods/exec`, never from the operator.
//!
//! ```text
//! objects  ─▶ API server
//! bytes    ─▶ API server ─pods/exec─▶ requiem-executor relay ─local socket─▶ executor
//! ```

pub(crate) mod arguments;
pub(crate) mod cancel;
pub(crate) mod diff;
#[cfg(test)]
mod forger;
pub(crate) mod get;
mod holder;
pub(crate) mod logs;
pub(crate) mod outputs;
mod pull;
mod remote;
mod replay;
pub(crate) mod run;
mod site;
pub(crate) mod top;
mod verify;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::error::CommandError;
use crate::report::{self, Report};
use arguments::{PluginArguments, PluginCommand};

/// The name under which kubectl finds a plugin called `requiem`.
const NAME: &[u8] = b"kubectl-requiem";

/// Whether this process was started as the plugin.
pub(crate) fn is_plugin() -> bool {
    let name = std::env::args_os().next();
    name.as_deref().map(Path::new).and_then(Path::file_name).map(OsStr::as_bytes) == Some(NAME)
}

/// The plugin's main.
pub(crate) fn main() -> ExitCode {
    let arguments = match PluginArguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return report::usage(&error, std::env::args_os().any(|argument| argument == "--json")),
    };
    report::finish(run(&arguments), arguments.json)
}

fn run(arguments: &PluginArguments) -> Result<Report, CommandError> {
    let (cluster, json) = (&arguments.cluster, arguments.json);
    match &arguments.command {
        PluginCommand::Run(arguments) => run::run(cluster, arguments, json),
        PluginCommand::Get(arguments) => get::run(cluster, arguments),
        PluginCommand::Logs(arguments) => logs::run(cluster, arguments),
        PluginCommand::Outputs(arguments) => outputs::run(cluster, arguments),
        PluginCommand::Verify(arguments) => verify::run(cluster, arguments),
        PluginCommand::Replay(arguments) => replay::run(cluster, arguments),
        PluginCommand::Diff(arguments) => diff::run(cluster, arguments),
        PluginCommand::Cancel(arguments) => cancel::run(cluster, arguments),
        PluginCommand::Top => top::run(cluster),
    }
}
