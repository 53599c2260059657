//! `requiem-operator`: reads the command line and runs the operator.

use std::io::IsTerminal;
use std::process::ExitCode;

use requiem_config::operator::{Args, keys};
use requiem_operator::run;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let (args, warnings): (Args, _) = match requiem_config::parse(&keys(), std::env::args_os()) {
        Ok(read) => read,
        Err(refused) => refused.exit(),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    if args.log_json {
        log.json().init();
    } else {
        log.init();
    }
    for warning in warnings {
        tracing::warn!(%warning, "a setting was passed over");
    }
    match run::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "requiem-operator cannot run");
            ExitCode::from(2)
        }
    }
}
