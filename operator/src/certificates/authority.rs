//! Making certificates. No client and no clock: times are given.
//!
//! Nothing here shows a private key: not in `Debug`, not in an error.

use std::fmt;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{OPERATOR_NAME, SERVER_DOMAIN};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority lasts.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// How long what it signs lasts.
const LIFE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// An authority that ends sooner signs nothing more.
const LAST_CALL: Duration = Duration::from_secs(2 * LIFE.as_secs());
/// Clocks of nodes differ.
const SKEW: Duration = Duration::from_secs(10 * 60);
const AUTHORITY_NAME: &str = "Requiem executors";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library refuses, or there is no randomness.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// What is stored is no authority.
    #[error("the stored authority cannot be used: {0}")]
    Stored(&'static str),
}

/// An authority that signs for executors and for the operator.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    not_after: Timestamp,
}

/// A certificate and its key.
pub struct Issued {
    /// Certificate, PEM.
    pub certificate: String,
    /// Private key, PEM (PKCS #8).
    pub key: String,
    /// Last moment of its validity.
    pub not_after: Timestamp,
    /// From when on a new one is due: a third of its life is left.
    pub renew: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Issued").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn generate(now: Timestamp) -> Result<Self, AuthorityError> {
        let not_after = now + AUTHORITY_LIFE;
        let mut params = params();
        limit(&mut params, now, not_after);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, not_after })
    }

    /// The one that was stored.
    ///
    /// # Errors
    /// What was stored is none.
    pub fn parse(certificate: &str, key: &str, not_after: &str) -> Result<Self, AuthorityError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_not_pem| AuthorityError::Stored("ca.crt is no PEM certificate"))?;
        // The library's error might quote what it could not read.
        let key =
            KeyPair::from_pem(key).map_err(|_| AuthorityError::Stored("ca.key is no PEM private key"))?;
        let not_after =
            not_after.parse().map_err(|_not_a_time| AuthorityError::Stored("notAfter is no time"))?;
        let public = key.public_key_raw();
        if !der.windows(public.len()).any(|part| part == public) {
            return Err(AuthorityError::Stored("ca.crt and ca.key do not belong together"));
        }
        Ok(Self { issuer: Issuer::new(params(), key), certificate: certificate.to_owned(), not_after })
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its private key, PEM, for the Secret that keeps it.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The end of its validity.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether what it signs now would outlive it, or nearly.
    pub fn is_ending(&self, now: Timestamp) -> bool {
        now + LAST_CALL >= self.not_after
    }

    /// A certificate of a server called `name`.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn server(&self, name: &str, now: Timestamp) -> Result<Issued, AuthorityError> {
        self.issue(name, ExtendedKeyUsagePurpose::ServerAuth, now)
    }

    /// A certificate of the operator, as a client.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn operator(&self, now: Timestamp) -> Result<Issued, AuthorityError> {
        self.issue(OPERATOR_NAME, ExtendedKeyUsagePurpose::ClientAuth, now)
    }

    fn issue(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = distinguished(name);
        let not_after = now + LIFE;
        limit(&mut params, now, not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem(), not_after, renew: now + LIFE * 2 / 3 })
    }
}

/// What every authority of ours says about itself, besides its times.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    // Whoever steals the key can play executor and operator, and nothing else.
    let permitted = [SERVER_DOMAIN, OPERATOR_NAME].map(|name| GeneralSubtree::DnsName(name.to_owned()));
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted.into(), excluded_subtrees: Vec::new() });
    params
}

/// A subject has at most 64 characters; who a certificate is for stands in its alternative names.
fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if name.len() <= 64 {
        distinguished.push(DnType::CommonName, name);
    }
    distinguished
}

/// Makes it valid from `now` (and a little before, for clocks that are behind) to `not_after`.
fn limit(params: &mut CertificateParams, now: Timestamp, not_after: Timestamp) {
    let since_1970 = |at: Timestamp| Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now - SKEW);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(not_after);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::now()
    }

    #[test]
    fn an_authority_survives_being_stored() {
        let made = Authority::generate(now()).unwrap();
        let stored =
            Authority::parse(made.certificate(), &made.key(), &made.not_after().to_string()).unwrap();
        assert_eq!((stored.certificate(), stored.key()), (made.certificate(), made.key()));
        assert_eq!(stored.not_after(), made.not_after());
        assert!(!stored.is_ending(now()) && stored.is_ending(made.not_after() - LIFE));
    }

    #[test]
    fn what_does_not_fit_is_refused_without_being_quoted() {
        let (one, other) = (Authority::generate(now()).unwrap(), Authority::generate(now()).unwrap());
        let end = one.not_after().to_string();
        let secret = "c2VjcmV0LWtleS1ieXRlcw";
        for (certificate, key, not_after) in [
            (one.certificate(), other.key().as_str(), end.as_str()),
            ("", &one.key(), &end),
            (one.certificate(), &one.key(), "tomorrow"),
            (one.certificate(), secret, &end),
        ] {
            let error = Authority::parse(certificate, key, not_after).unwrap_err().to_string();
            assert!(error.starts_with("the stored authority cannot be used: "), "{error}");
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[test]
    fn no_key_is_shown() {
        let authority = Authority::generate(now()).unwrap();
        let issued = authority.server("ns.executors.requiem.internal", now()).unwrap();
        let shown = format!("{authority:?} {issued:?}");
        assert!(!shown.contains("PRIVATE") && shown.len() < 200, "{shown}");
    }
}
