//! Arguments of `requiem metrics`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::arguments::StoreArguments;

#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// In which form: text for people, json (as --json), or prom, the text format of Prometheus.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// One page of Markdown about all metrics, instead of their values.
    #[arg(long, conflicts_with = "format")]
    pub(crate) markdown: bool,
    /// Write that page into this folder.
    #[arg(long, value_name = "DIR", requires = "markdown")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

/// How figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    Prom,
}
