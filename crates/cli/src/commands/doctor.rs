//! `requiem doctor`: what is wrong with this machine, its store and a cluster, and what to do about it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Doctor;
use crate::cluster::{client, config, runtime};
use crate::doctor::{Check, Severity, cluster as clusters, host, store as stores};
use crate::error::CommandError;
use crate::report::Report;
use crate::text::{printable, table};
use crate::{sandbox, store};

/// Everything that was looked at.
#[derive(Serialize, JsonSchema)]
pub(super) struct Diagnosis {
    ok: bool,
    checks: Vec<Check>,
}

/// Runs the command. Exit code 1 if anything was found.
pub(crate) fn run(arguments: &Doctor) -> Result<Report, CommandError> {
    let is_root = rustix::process::geteuid().is_root();
    let folder = store::folder(arguments.store.cas.as_deref())?;
    if arguments.store.cas.is_some() && !folder.is_dir() {
        let message = format!("there is no store at {}", folder.display());
        return Err(CommandError::unusable("NoStore", message, "name the folder of a store with --cas DIR"));
    }
    // Before the namespace in which every other user is nobody.
    let store = stores::look(&folder, arguments.sample)?;
    let probed = sandbox::enter().and_then(|()| sandbox::probe());
    let mut checks = vec![
        host::kernel(is_root)?,
        host::sandbox(probed),
        store,
        host::disk(&folder)?,
        host::clock(&folder),
    ];
    if arguments.cluster {
        checks.extend(cluster(arguments)?);
    }
    let ok = checks.iter().all(|check| check.findings.is_empty());
    let diagnosis = Diagnosis { ok, checks };
    Ok(Report::new(&diagnosis, text(&diagnosis.checks), ok))
}

fn cluster(arguments: &Doctor) -> Result<Vec<Check>, CommandError> {
    runtime()?.block_on(async {
        let config = config(arguments.kubeconfig.as_deref(), arguments.context.as_deref()).await?;
        let namespace = arguments.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let mut checks: Vec<Check> = clusters::certificate(&config.auth_info).into_iter().collect();
        checks.extend(clusters::look(&client(config)?, &namespace).await?);
        Ok(checks)
    })
}

fn text(checks: &[Check]) -> String {
    let rows: Vec<[String; 3]> = checks
        .iter()
        .map(|check| {
            let worst = check.findings.iter().map(|finding| finding.severity).max();
            let word = worst.map_or("ok", word);
            [check.area.to_owned(), word.to_owned(), printable(&check.seen)]
        })
        .collect();
    let findings = checks.iter().flat_map(|check| &check.findings).map(|finding| {
        let (message, remedy) = (printable(&finding.message), printable(&finding.remedy));
        format!("{}: {message} [{}]\n remedy: {remedy}\n", word(finding.severity), finding.code)
    });
    format!("{}{}", table(&rows), findings.collect::<String>())
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
