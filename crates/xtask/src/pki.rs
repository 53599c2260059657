//! Certificates for development: one authority, server certificates for loopback, client certificates. ECDSA P-256.
//!
//! Keys never leave the folder they are written to (mode 0600). Nothing here is meant for production.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

use crate::{Error, Result};

/// An authority that signs for development.
pub struct Authority {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

/// Files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What a development executor and operator need to trust one another.
#[derive(Debug, Clone)]
pub struct DevelopmentCertificates {
    /// The authority's certificate; both sides trust it.
    pub ca: PathBuf,
    /// The executor's serving certificate, for 127.0.0.1, ::1 and localhost.
    pub executor: Files,
    /// The operator's client certificate.
    pub operator: Files,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new self-signed authority.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(name: &str) -> Result<Self> {
        let failed = certificate_error(name);
        let mut params = named(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer =
            KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(params, key)).map_err(failed)?;
        Ok(Self { name: name.into(), issuer })
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server at loopback, and at `more` names or addresses. Also good as a client certificate,
    /// as etcd's peers need.
    ///
    /// # Errors
    /// A name is not valid.
    pub fn server(&self, name: &str, more: &[&str]) -> Result<Certified> {
        let names = ["localhost", "127.0.0.1", "::1"]
            .iter()
            .chain(more)
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).map_err(certificate_error(name))?;
        params.distinguished_name = distinguished(name, None);
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params, &usages)
    }

    /// A client certificate; `group` becomes the organisation, which Kubernetes reads as a group.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn client(&self, name: &str, group: Option<&str>) -> Result<Certified> {
        self.issue(name, named(name, group), &[ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue(
        &self,
        name: &str,
        mut params: CertificateParams,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Result<Certified> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let failed = certificate_error(name);
        let key = KeyPair::generate().map_err(&failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(&failed)?;
        Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Certified {
    /// Writes `<name>.crt` and `<name>.key` into `folder`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, folder: &Path, name: &str) -> Result<Files> {
        let files = Files {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        write_private(&files.certificate, &self.certificate)?;
        write_private(&files.key, &self.key)?;
        Ok(files)
    }
}

/// A fresh authority with one executor and one operator certificate, written into `folder`.
///
/// # Errors
/// The system refuses.
pub fn development(folder: &Path) -> Result<DevelopmentCertificates> {
    crate::paths::make_private(folder)?;
    let authority = Authority::new("requiem-development")?;
    let ca = folder.join("ca.crt");
    write_private(&ca, &authority.certificate())?;
    Ok(DevelopmentCertificates {
        ca,
        executor: authority.server("requiem-executor", &[])?.write(folder, "executor")?,
        operator: authority.client("requiem-operator", None)?.write(folder, "operator")?,
    })
}

/// A key pair alone, in PEM: (private, public). Service-account tokens are signed with one.
///
/// # Errors
/// The system has no randomness.
pub fn signing_key() -> Result<(String, String)> {
    let key = KeyPair::generate().map_err(certificate_error("service-account"))?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Writes a file that only this user can read.
///
/// # Errors
/// The system refuses.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let doing = format!("write {}", path.display());
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io(doing))
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(name, group);
    params
}

fn distinguished(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if let Some(group) = group {
        distinguished.push(DnType::OrganizationName, group);
    }
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn certificate_error(name: &str) -> impl Fn(rcgen::Error) -> Error + use<> {
    let name = name.to_owned();
    move |source| Error::Certificate { name: name.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_certificates_are_private_and_complete() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let made = development(folder.path()).unwrap();
        for file in [
            &made.ca,
            &made.executor.certificate,
            &made.executor.key,
            &made.operator.certificate,
            &made.operator.key,
        ] {
            let text = std::fs::read_to_string(file).unwrap();
            assert!(text.starts_with("-----BEGIN "), "{}", file.display());
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
