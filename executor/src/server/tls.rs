//! Who may speak to the executor: TLS 1.3 with a client certificate of one authority that bears the operator's name,
//! nobody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, UnixTime};

use super::certificate::{self, Facts};

/// Files of the endpoint's identity, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain of the executor.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authority that signs client certificates.
    pub client_ca: PathBuf,
    /// Name that client certificates must bear: as a DNS name or as the common name of the subject.
    pub operator_name: String,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is not PEM of the expected kind.
    #[error("cannot read {} as a PEM {kind}: {source}", path.display())]
    Pem {
        /// What it should be.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The authority's certificate cannot be used.
    #[error("{} cannot be used as a client authority: {source}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The file with the authority holds no certificate.
    #[error("{} cannot be used as a client authority: {source}", path.display())]
    Verifier {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("certificate {} and key {} cannot be used together: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The server's side of mutual TLS, and what its certificate says.
///
/// # Errors
/// A file that is missing or does not fit.
pub(crate) fn server_config(files: &TlsFiles) -> Result<(ServerConfig, Facts), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(client_roots(files)?), Arc::clone(&provider))
            .build()
            .map_err(|source| TlsError::Verifier { path: files.client_ca.clone(), source })?;
    let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem_error("private key", &files.key))?;
    let chain = certificates(&files.cert)?;
    let facts = chain.first().and_then(|first| certificate::facts(first));
    let facts = facts.ok_or_else(|| pair(rustls::Error::NoCertificatesPresented))?;
    let verifier = Arc::new(OperatorOnly { name: files.operator_name.clone(), chain: verifier });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, facts))
}

/// Accepts certificates that the chain verifier accepts and that bear the operator's name.
#[derive(Debug)]
struct OperatorOnly {
    name: String,
    chain: Arc<dyn ClientCertVerifier>,
}

impl OperatorOnly {
    fn is_named(&self, certificate: &CertificateDer<'_>) -> bool {
        let dns = DnsName::try_from(self.name.as_str()).map(ServerName::DnsName);
        let by_dns = ParsedCertificate::try_from(certificate)
            .is_ok_and(|parsed| dns.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok()));
        let by_subject =
            || certificate::facts(certificate).is_some_and(|facts| facts.common_names.contains(&self.name));
        by_dns || by_subject()
    }
}

impl ClientCertVerifier for OperatorOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        if self.is_named(certificate) {
            return Ok(verified);
        }
        // The peer learns that it is not wanted here; the log says why.
        tracing::warn!(name = self.name, "a client of our authority does not bear the operator's name");
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn client_roots(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        let added = roots.add(certificate);
        added.map_err(|source| TlsError::ClientCa { path: files.client_ca.clone(), source })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    all.map_err(pem_error("certificate", path))
}

fn pem_error(kind: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::Pem { kind, path, source }
}
