//! The operator's side of mTLS: its certificate, and whom it believes to be an executor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use requiem_config::operator::Args;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Files of the operator's identity.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Client certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authority that signs executors' certificates, PEM. The system's authorities are not consulted.
    pub executor_ca: PathBuf,
}

impl TlsFiles {
    /// Those that the command line names, if it names any.
    pub fn of(args: &Args) -> Option<Self> {
        let (cert, key) = (args.tls_cert.clone()?, args.tls_key.clone()?);
        Some(Self { cert, key, executor_ca: args.executor_ca.clone()? })
    }
}

/// Why the TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error("{what} {}: {source}; give a readable PEM file", path.display())]
    Pem {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A PEM file holds nothing of use.
    #[error("{what} {} holds no certificate; give a PEM file with BEGIN CERTIFICATE", path.display())]
    Empty {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// A certificate that this process made is not what it should be.
    #[error("an issued certificate cannot be read back; this is a defect, please report it")]
    Issued,
    /// Certificate and key do not fit together, or an authority is malformed.
    #[error("TLS configuration is refused: {0}")]
    Config(#[from] rustls::Error),
}

/// Client configuration with our certificate, trusting only the executors' authority.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let chain = certificates("certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Pem {
        what: "private key",
        path: files.key.clone(),
        source,
    })?;
    config(chain, key, certificates("executor CA", &files.executor_ca)?)
}

/// The same from texts in PEM, all of which this process made.
///
/// # Errors
/// See [`TlsError`].
pub fn issued_config(certificate: &str, key: &str, authority: &str) -> Result<ClientConfig, TlsError> {
    let made = |_not_pem| TlsError::Issued;
    let read = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).map_err(made);
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(made)?;
    config(vec![read(certificate)?], key, vec![read(authority)?])
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(config)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem { what, path: path.to_owned(), source };
    let found =
        CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<Vec<_>, _>>().map_err(pem)?;
    if found.is_empty() {
        return Err(TlsError::Empty { what, path: path.to_owned() });
    }
    Ok(found)
}
