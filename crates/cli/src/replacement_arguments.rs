//! Arguments of `validate-replacement`.

use std::path::PathBuf;

use clap::Args;
use requiem_executor::engine::EngineName;

#[derive(Debug, Args)]
pub(crate) struct ValidateReplacement {
    /// The engine that is to be replaced: requiem, rust, or command:/PATH.
    #[arg(long, value_name = "ENGINE", default_value = "requiem")]
    pub(crate) engine: EngineName,
    /// The engine that may take its place.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) candidate: EngineName,
    /// Folder with requests to run, NAME.json each [default: the corpus that comes with this program].
    #[arg(long, value_name = "DIR")]
    pub(crate) corpus: Option<PathBuf>,
    /// How often each engine runs each request.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub(crate) repeats: u32,
    /// Also write the readiness report (JSON) to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How long each run of the candidate may take [default: the request's time limit and 15 more].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) candidate_deadline: Option<u32>,
    /// Least difference in time that is told; one of the two also takes more than twice as long.
    #[arg(long, value_name = "MILLISECONDS", default_value = "250")]
    pub(crate) timing_floor: u32,
    /// Store with what the corpus names by digest; its texts and files are put there too [default: one that goes afterwards].
    #[arg(long, value_name = "DIR")]
    pub(crate) cas: Option<PathBuf>,
    /// Whose objects of that store.
    #[arg(long, value_name = "NS", default_value = "default", requires = "cas")]
    pub(crate) tenant: String,
}
