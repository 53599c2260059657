//! What the admin side asks: may work be sent here, and what are the figures.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::attempts::{Attempts, unix_millis};
use crate::metrics::{Metrics, Room};
use crate::runners::Runners;
use crate::server::identity::Identity;

/// Everything that health is about.
pub(crate) struct Health {
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) runners: Arc<Runners>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) store: PathBuf,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Checks that failed last, so that the log has every change once.
    pub(crate) doubts: Mutex<Vec<&'static str>>,
}

impl Health {
    /// Everything that must hold before work is sent here, each with the reason why it does not.
    pub(crate) fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let journal = self.attempts.journal().stopped().map_or(Ok(()), Err);
        let store = try_write(&self.store.join("journal/ready.probe")).map_err(|error| error.to_string());
        let seconds = i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX);
        let certificate = self.identity.condition().verdict(seconds);
        let checks = vec![
            ("runner", self.runners.check()),
            ("journal", journal),
            ("store", store),
            ("certificate", certificate),
            ("open", self.is_open()),
        ];
        self.log(&checks);
        checks
    }

    /// Whoever asks sees a status; whoever looks for the reason has the log.
    fn log(&self, checks: &[(&'static str, Result<(), String>)]) {
        let failed: Vec<_> =
            checks.iter().filter_map(|(name, check)| check.as_ref().err().map(|why| (*name, why))).collect();
        let names = failed.iter().map(|(name, _)| *name).collect();
        let before =
            std::mem::replace(&mut *self.doubts.lock().unwrap_or_else(PoisonError::into_inner), names);
        if before.iter().eq(failed.iter().map(|(name, _)| name)) {
            return;
        }
        for (check, why) in &failed {
            tracing::warn!(check, why, "not ready");
        }
        if failed.is_empty() {
            tracing::info!("ready again");
        }
    }

    fn is_open(&self) -> Result<(), String> {
        match (*self.stopping.borrow(), self.attempts.is_draining()) {
            (true, _) => Err("stopping".to_owned()),
            (false, true) => Err("draining".to_owned()),
            (false, false) => Ok(()),
        }
    }

    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.queue_depth.set(i64::try_from(self.attempts.waiting()).unwrap_or(i64::MAX));
        self.metrics.certificate_expiry.set(self.identity.condition().not_after);
        self.metrics.runner_connected.set(i64::from(self.runners.report().is_ok()));
        self.metrics.draining.set(i64::from(self.attempts.is_draining()));
        // A file system that does not say how large it is leaves the figures as they were.
        if let Ok(stat) = rustix::fs::statvfs(&self.store) {
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            self.metrics.room(&Room { size: bytes(stat.f_blocks), free: bytes(stat.f_bavail) });
        }
        self.metrics.text(self.attempts.journal().stats(), self.runners.restarts())
    }
}

/// Whether the volume takes a page now. A full disk must keep work away.
fn try_write(path: &Path) -> io::Result<()> {
    let written = std::fs::write(path, [0; 4096]);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        Ok(()) | Err(_) => written,
    }
}
