//! A real HTTPS server in this process: TLS 1.3 with client certificates, HTTP/2, any routes. Tests use it to
//! answer what no honest executor would.
#![allow(dead_code, reason = "two suites use it, each only in part")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use requiem_operator::dispatch::{Endpoint, TlsFiles};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// An authority and everything that it signed.
pub(crate) struct Pki {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    issued: AtomicUsize,
}

/// A server that stops when this is dropped.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { folder, issuer, issued: AtomicUsize::new(0) }
    }

    /// Certificate and key for these names, in files that nobody else is given: a process may still be reading the last ones.
    pub(crate) fn issue(&self, name: &str, subjects: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = subjects.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let paths = (self.path(&format!("{name}-{number}.crt")), self.path(&format!("{name}-{number}.key")));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The operator's files, trusting this authority.
    pub(crate) fn operator(&self) -> TlsFiles {
        let (cert, key) = self.issue("operator", &["operator"]);
        TlsFiles { cert, key, executor_ca: self.path("ca.crt") }
    }

    /// A server configuration for these names that insists on a client certificate of this authority.
    pub(crate) fn server(&self, subjects: &[&str]) -> ServerConfig {
        let (cert, key) = self.issue("server", subjects);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![read_certificate(&cert)], PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

fn read_certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

impl Server {
    /// Serves `routes` on a free port of loopback.
    pub(crate) async fn start(tls: ServerConfig, routes: Router) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), tls, routes).await
    }

    /// Serves `routes` at this address.
    pub(crate) async fn start_at(address: SocketAddr, tls: ServerConfig, routes: Router) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, routes) = (acceptor.clone(), routes.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(routes);
                    // A client that goes away in the middle is part of the tests.
                    let _gone = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, task }
    }

    pub(crate) fn endpoint(&self, name: &str) -> Endpoint {
        Endpoint { name: name.into(), url: format!("https://{}", self.address), ..Endpoint::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
