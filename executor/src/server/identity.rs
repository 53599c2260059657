//! The endpoint's identity while it changes: certificate, key and client authority are files that somebody renews.
//!
//! Every new connection asks whether the files are still those that were read (by device, inode, size and time, links
//! followed: a mounted Secret is swapped by a link). If not they are read again; files that do not fit together leave
//! the old identity in place, and are told to whoever asks for health. Open connections are not touched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;

use super::certificate::Facts;
use super::tls::{self, TlsError, TlsFiles};

/// The identity, for every connection.
pub(crate) struct Identity {
    files: TlsFiles,
    current: Mutex<Current>,
}

/// What is in use, and what is wrong with what should be.
struct Current {
    config: Arc<ServerConfig>,
    facts: Facts,
    stamps: [Option<Stamp>; 3],
    problem: Option<String>,
}

/// What tells that a file is another one than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device_and_inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

/// How the identity is, for health and figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Last second of the certificate's validity, since 1970.
    pub(crate) not_after: i64,
    /// Why the files as they are now cannot be used.
    pub(crate) problem: Option<String>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// One is missing or does not fit.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let (config, facts) = tls::server_config(&files)?;
        let current = Mutex::new(Current { config: Arc::new(config), facts, stamps, problem: None });
        Ok(Self { files, current })
    }

    /// What the next connection uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.refreshed().config)
    }

    /// How the identity is now.
    pub(crate) fn condition(&self) -> Condition {
        let current = self.refreshed();
        Condition { not_after: current.facts.not_after, problem: current.problem.clone() }
    }

    fn refreshed(&self) -> MutexGuard<'_, Current> {
        // Every field is replaced as a whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        if stamps != current.stamps {
            current.renew(&self.files, stamps);
        }
        current
    }
}

impl Current {
    fn renew(&mut self, files: &TlsFiles, stamps: [Option<Stamp>; 3]) {
        match tls::server_config(files) {
            Ok((config, facts)) => {
                tracing::info!(not_after = facts.not_after, "the certificate was renewed");
                *self = Self { config: Arc::new(config), facts, stamps, problem: None };
            }
            // The stamps stay those of what is in use, so the next connection tries again.
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    tracing::error!(error = problem, "the new certificate cannot be used; the old one stays");
                }
                self.problem = Some(problem);
            }
        }
    }
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 3] {
    [&files.cert, &files.key, &files.client_ca]
        .map(|path| fs::metadata(path).ok().map(|found| Stamp::of(&found)))
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device_and_inode: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

impl Condition {
    /// What keeps operators away, or soon will, as of `now` (seconds since 1970).
    pub(crate) fn verdict(&self, now: i64) -> Result<(), String> {
        if let Some(problem) = &self.problem {
            return Err(format!("{problem}; the old one stays in use"));
        }
        if now > self.not_after {
            return Err(format!(
                "it expired {} s ago, so no operator accepts it; renew the files of --tls-cert and --tls-key",
                now - self.not_after
            ));
        }
        Ok(())
    }
}
