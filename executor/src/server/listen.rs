//! The accept loop: TCP → TLS → HTTP/2 (or 1.1) → router, until told to stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::identity::Identity;

/// Connections at the same time; an operator needs one.
const MAX_CONNECTIONS: usize = 512;
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection: every attempt in flight may hold one with a long poll.
const MAX_STREAMS: u32 = 20_000;
/// A peer that does not answer a ping for twice this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Pause after an accept that failed for want of descriptors or memory.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `stop` turns true, then lets open calls end.
pub(crate) async fn serve(
    listener: TcpListener,
    identity: Arc<Identity>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        while open.try_join_next().is_some() {}
        let tcp = match accepted {
            Ok((tcp, _peer)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(limit = MAX_CONNECTIONS, "a connection was refused: too many are open");
            continue;
        };
        let acceptor = TlsAcceptor::from(identity.config());
        let (router, stop) = (router.clone(), stop.clone());
        open.spawn(async move {
            connection(tcp, acceptor, router, stop).await;
            drop(place);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, router: Router, stop: watch::Receiver<bool>) {
    // Long polls and small answers: waiting for a full segment would cost 40 ms each.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let tls = match tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::warn!(%error, "a peer was refused in the handshake"),
        Err(_elapsed) => return tracing::warn!("a peer did not finish the handshake in time"),
    };
    http(tls, router, stop).await;
}

/// Serves one connection until it ends, or until `stop` turns true and its open calls have ended.
pub(crate) async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let served = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = stopped(&mut stop) => None,
    };
    let ended = match served {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Returns when the daemon stops, or is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if let Err(gone) = stop.wait_for(|stop| *stop).await {
        tracing::debug!(%gone, "the daemon is gone");
    }
}
