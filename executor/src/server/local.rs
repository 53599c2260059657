//! The local side: calls that change nothing, for processes of the own user beside this one. Who may start one in an executor's container
//! (`pods/exec`) is the API server's to say; `relay` is what is started there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::listen::{ACCEPT_PAUSE, http, stopped};
use crate::metrics::Metrics;

/// Connections at the same time; more wait.
const MAX_CONNECTIONS: usize = 64;

/// Listens at `path`, in place of a socket that an earlier process left there.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _gone => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves `router` until `stop` turns true, then lets open calls end.
pub(crate) async fn serve(
    listener: UnixListener,
    router: Router,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= MAX_CONNECTIONS {
            open.join_next().await;
        }
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                metrics.readers.inc();
                open.spawn(http(stream, router.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a local connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}
