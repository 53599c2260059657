//! What a file or the environment may settle, once for all commands that take it, and the commands that say and judge it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use requiem_executor::engine::EngineName;

use crate::arguments::StoreArguments;

/// Every setting of the command line. `config show` takes all of them; other commands take some, by the same definitions.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
    #[command(flatten)]
    pub(crate) by: EngineArgument,
}

/// Whose objects.
#[derive(Debug, Args)]
pub(crate) struct TenantArgument {
    /// Whose objects: a Kubernetes namespace, or default.
    #[arg(
        long,
        value_name = "NS",
        env = "REQUIEM_TENANT",
        hide_env_values = true,
        default_value = "default"
    )]
    pub(crate) tenant: String,
}

/// By what a request is run.
#[derive(Debug, Args)]
pub(crate) struct EngineArgument {
    /// What runs it: requiem (the sandbox), rust (isolates nothing), or command:/PATH, a program that speaks requiem-engine/1.
    #[arg(
        long,
        value_name = "ENGINE",
        env = "REQUIEM_ENGINE",
        hide_env_values = true,
        default_value = "requiem"
    )]
    pub(crate) engine: EngineName,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say the value of every setting, and from where it is.
    Show(Settings),
    /// Judge a configuration file; exit code 1 if something in it would be passed over, 2 if it could not be used.
    Validate(ConfigValidate),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigValidate {
    /// Which file [default: the one that this program reads].
    pub(crate) file: Option<PathBuf>,
    /// For which program it is [default: what the file says as its kind, else cli].
    #[arg(long)]
    pub(crate) kind: Option<Kind>,
}

/// Which program a configuration file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Cli,
    Operator,
    Executor,
}
