//! Certificates between the operator and executors in pods: issued and renewed here, so that nobody else has to.
//!
//! ```text
//! Secret requiem-ca, in the operator's namespace ─▶ authority ─┬▶ the operator's own certificate, in memory
//!                                                              └▶ Secret requiem-executor-tls of each namespace with pods
//! ```
//!
//! An executor's certificate bears the name of its namespace, and the dispatcher insists on it: whoever may read the
//! Secrets of one namespace can pass for an executor there, and nowhere else. Secrets of other namespaces are written,
//! never read: the operator has no right to.

mod authority;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use requiem_model::BlobDigest;
use tokio::sync::Mutex;

pub use authority::{Authority, AuthorityError, Issued};
pub use requiem_crds::convert::{AUTHORITY_SECRET, EXECUTOR_SECRET};

use crate::dispatch::{Dispatcher, TlsError, Trust, issued_config};
use crate::kubeapi::{ApiError, FIELD_MANAGER, Writer};
use crate::metrics::Metrics;
use crate::queue::Key;

/// What the names of executors end with.
pub const SERVER_DOMAIN: &str = "executors.requiem.internal";
/// Name in the operator's certificate, on which executors insist.
pub const OPERATOR_NAME: &str = "requiem-operator";
/// How often it is looked whether somebody replaced the authority.
const RELOAD: Duration = Duration::from_secs(60 * 60);
/// A Secret that was written longer ago than this is written again before new pods need it: somebody may have deleted it.
const WRITTEN_LATELY: Duration = Duration::from_secs(5 * 60);

/// Why executors have no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The operator was not told where to keep an authority.
    #[error(
        "the operator issues no certificates: start it with --own-namespace and the namespace that it runs in, where it \
         keeps its authority"
    )]
    Off,
    /// The API server does not give or take a Secret.
    #[error("{0}; the operator needs the rights on Secrets that docs/operator.md lists")]
    Api(#[source] Box<ApiError>),
    /// The authority in the cluster is none.
    #[error("{source}; delete Secret {AUTHORITY_SECRET} in namespace {namespace}, and a new one is made")]
    Authority {
        /// Where it is kept.
        namespace: String,
        /// What is wrong.
        source: AuthorityError,
    },
    /// What was issued cannot be used.
    #[error("the operator's own certificate cannot be used: {0}")]
    Own(#[from] TlsError),
}

impl From<ApiError> for CertificateError {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl CertificateError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::Api(error) => error.code(),
            Self::Authority { .. } => "Authority",
            Self::Own(_) => "Own",
        }
    }
}

/// Issues and renews. Clones share everything.
#[derive(Clone)]
pub struct Certificates {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    namespace: String,
    writer: Writer,
    dispatcher: Dispatcher,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    authority: Option<(Authority, Instant)>,
    own: Option<Timestamp>,
    written: HashMap<String, Written>,
}

/// A Secret that this process wrote.
struct Written {
    at: Instant,
    renew: Timestamp,
    not_after: Timestamp,
}

/// The name that executors of `namespace` have in their certificates.
pub fn server_name(namespace: &str) -> String {
    format!("{namespace}.{SERVER_DOMAIN}")
}

impl Certificates {
    /// Keeps the authority in `namespace`; issues nothing without one.
    pub fn new(namespace: Option<&str>, writer: Writer, dispatcher: Dispatcher, metrics: Metrics) -> Self {
        let inner = namespace.map(|namespace| {
            let namespace = namespace.to_owned();
            Arc::new(Inner { namespace, writer, dispatcher, metrics, state: Mutex::default() })
        });
        Self { inner }
    }

    /// Makes sure that executors of `namespace` and the operator have certificates that will last. With `starting`, a
    /// new pod is about to need its own.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub async fn ensure(&self, namespace: &str, starting: bool) -> Result<(), CertificateError> {
        let inner = self.inner.as_ref().ok_or(CertificateError::Off)?;
        let now = Timestamp::now();
        let mut state = inner.state.lock().await;
        inner.load(&mut state, now).await?;
        let State { authority, own, written } = &mut *state;
        let Some((authority, _)) = authority else { return Err(CertificateError::Off) };
        if own.is_none_or(|renew| now >= renew) {
            *own = Some(inner.identify(authority, now)?);
        }
        let due = written
            .get(namespace)
            .is_none_or(|secret| now >= secret.renew || (starting && secret.at.elapsed() > WRITTEN_LATELY));
        if due {
            written.insert(namespace.to_owned(), inner.write(authority, namespace, now).await?);
            let first = written.values().map(|secret| secret.not_after).min();
            inner.metrics.certificate("executor", first.unwrap_or(now).as_second());
            tracing::info!(namespace, "issued a certificate for the executors of a namespace");
        }
        Ok(())
    }
}

impl Inner {
    /// The authority as the cluster has it; makes one where there is none.
    async fn load(&self, state: &mut State, now: Timestamp) -> Result<(), CertificateError> {
        if state.authority.as_ref().is_some_and(|(_, at)| at.elapsed() < RELOAD) {
            return Ok(());
        }
        let found = match self.read().await? {
            Some(authority) if !authority.is_ending(now) => authority,
            Some(_ending) => self.establish(now, true).await?,
            None => self.establish(now, false).await?,
        };
        let same = state.authority.as_ref().is_some_and(|(old, _)| old.certificate() == found.certificate());
        if !same {
            tracing::info!(namespace = self.namespace, until = %found.not_after(), "authority of executors in pods");
            (state.own, state.written) = (None, HashMap::new());
        }
        self.metrics.certificate("authority", found.not_after().as_second());
        state.authority = Some((found, Instant::now()));
        Ok(())
    }

    async fn read(&self) -> Result<Option<Authority>, CertificateError> {
        let key = Key { namespace: self.namespace.clone(), name: AUTHORITY_SECRET.to_owned() };
        let secret = match self.writer.get::<Secret>(&key).await {
            Ok(secret) => secret,
            Err(ApiError::Gone { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let data = secret.data.unwrap_or_default();
        let text =
            |name: &str| data.get(name).and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or("");
        let authority = Authority::parse(text("ca.crt"), text("ca.key"), text("notAfter"));
        authority.map(Some).map_err(|source| self.unusable(source))
    }

    /// Stores a new authority. When two operators do so at once, the one that comes second takes the first one's.
    async fn establish(&self, now: Timestamp, replace: bool) -> Result<Authority, CertificateError> {
        let made = Authority::generate(now).map_err(|source| self.unusable(source))?;
        let (key, end) = (made.key(), made.not_after().to_string());
        let fields = [("ca.crt", made.certificate()), ("ca.key", &key), ("notAfter", &end)];
        let secret = secret(&self.namespace, AUTHORITY_SECRET, "Opaque", &fields);
        // Every maker has a name of its own, so that the second one meets a conflict.
        let manager = format!("{FIELD_MANAGER}-{}", BlobDigest::of(made.certificate().as_bytes()).short());
        match self.writer.apply(&secret, &manager, replace).await {
            Ok(_) => Ok(made),
            Err(error @ ApiError::Fenced { .. }) => self.read().await?.ok_or_else(|| error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the dispatcher show a fresh certificate; returns when the next one is due.
    fn identify(&self, authority: &Authority, now: Timestamp) -> Result<Timestamp, CertificateError> {
        let issued = authority.operator(now).map_err(|source| self.unusable(source))?;
        let config = issued_config(&issued.certificate, &issued.key, authority.certificate())?;
        self.dispatcher.identify(Trust::Issued, config);
        self.metrics.certificate("operator", issued.not_after.as_second());
        Ok(issued.renew)
    }

    async fn write(
        &self,
        authority: &Authority,
        namespace: &str,
        now: Timestamp,
    ) -> Result<Written, CertificateError> {
        let issued =
            authority.server(&server_name(namespace), now).map_err(|source| self.unusable(source))?;
        let fields = [
            ("tls.crt", issued.certificate.as_str()),
            ("tls.key", &issued.key),
            ("ca.crt", authority.certificate()),
        ];
        let secret = secret(namespace, EXECUTOR_SECRET, "kubernetes.io/tls", &fields);
        self.writer.apply(&secret, FIELD_MANAGER, true).await?;
        Ok(Written { at: Instant::now(), renew: issued.renew, not_after: issued.not_after })
    }

    fn unusable(&self, source: AuthorityError) -> CertificateError {
        CertificateError::Authority { namespace: self.namespace.clone(), source }
    }
}

fn secret(namespace: &str, name: &str, kind: &str, fields: &[(&str, &str)]) -> Secret {
    let data = fields.iter().map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
    let labels = [("app.kubernetes.io/managed-by", FIELD_MANAGER), ("app.kubernetes.io/part-of", "requiem")];
    Secret {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from(labels.map(|(key, value)| (key.to_owned(), value.to_owned())))),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}
