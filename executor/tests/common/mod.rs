//! A real daemon over loopback with real certificates, and a client for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(unreachable_pub, reason = "shared by test binaries")]

pub mod pod;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use requiem_model::attempt::{AttemptState, ErrorBody, Identity, SealedAttempt, StartAttempt};
use requiem_model::request::{Input, InputSource};
use requiem_model::{BlobDigest, ExecutionRequest, Failure, RelPath};
use requiem_proof::{Expect, Verified};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::AsyncReadExt;

/// How long the end of a refused connection is waited for, so that an accepted one fails its test instead of stopping it.
const ALERT_LIMIT: Duration = Duration::from_secs(30);

/// A private authority with one server and one client certificate.
pub struct Pki {
    pub dir: tempfile::TempDir,
}

/// A running `requiem-executor serve`.
pub struct Daemon {
    child: Child,
    pub listen: String,
    pub admin: String,
    pub store: PathBuf,
    pub pki: Arc<Pki>,
}

/// A caller of the daemon.
#[derive(Clone)]
pub struct Client {
    inner: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
}

// === impl Pki ===

impl Pki {
    pub fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.crt"), ca.pem()).unwrap();
        for (name, usage) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
            params.extended_key_usages = vec![usage];
            params
                .distinguished_name
                .push(DnType::CommonName, format!("requiem-{name}").replace("client", "operator"));
            let cert = params.signed_by(&key, &ca).unwrap();
            std::fs::write(dir.path().join(format!("{name}.crt")), cert.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Arc::new(Self { dir })
    }

    /// Puts the files of `other` into place, all at once as far as one reader can tell.
    pub fn replace_by(&self, other: &Pki, names: &[&str]) {
        for name in names {
            let draft = self.file(&format!("{name}.new"));
            std::fs::copy(other.file(name), &draft).unwrap();
            std::fs::rename(draft, self.file(name)).unwrap();
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

// === impl Daemon ===

impl Daemon {
    /// Starts it on `store` with free ports and waits until it serves.
    pub fn start(pki: &Arc<Pki>, store: &Path, flags: &[&str]) -> Self {
        Self::of(Self::command(pki, store, flags), store, pki)
    }

    /// The daemon that `command` starts, when it serves.
    pub fn of(mut command: Command, store: &Path, pki: &Arc<Pki>) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Before it is the daemon, the process may be something that talks.
        let line =
            lines.find_map(|line| Some(line[line.find('{')?..].to_owned())).expect("the daemon serves");
        let addresses: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| addresses[name].as_str().unwrap().to_owned();
        Self {
            child,
            listen: text("listen"),
            admin: text("admin"),
            store: store.to_owned(),
            pki: Arc::clone(pki),
        }
    }

    pub fn command(pki: &Pki, store: &Path, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_requiem-executor"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--name", "test"]);
        command.arg("--tls-cert").arg(pki.file("server.crt")).arg("--tls-key").arg(pki.file("server.key"));
        command.arg("--client-ca").arg(pki.file("ca.crt")).arg("--store").arg(store).args(flags);
        command.env("RUST_LOG", "warn");
        command
    }

    pub fn client(&self) -> Client {
        Client::new(&self.listen, &self.pki, Some(&self.pki))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(self) {
        drop(self);
    }

    /// SIGTERM, and wait for the end.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Signals the executor inside its container, of which this process only knows the outside.
    pub fn signal_inner(&self, signal: nix::sys::signal::Signal) {
        let executor = i32::try_from(pod::first_child(self.child.id())).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(executor), signal).unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    /// A GET on the admin side.
    pub async fn admin(&self, path: &str) -> (StatusCode, String) {
        let client: HyperClient<_, Full<Bytes>> = HyperClient::builder(TokioExecutor::new()).build_http();
        let response = client.get(format!("http://{}{path}", self.admin).parse().unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The value of a metric without labels, or with exactly these.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Resident memory now, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone is fine.
        pod::kill_inside(&mut self.child);
        let _waited = self.child.wait();
    }
}

// === impl Client ===

impl Client {
    /// A client that trusts `server`'s authority and shows the certificate of `own`, if any.
    pub fn new(address: &str, server: &Pki, own: Option<&Pki>) -> Self {
        let config = client_config(server, own);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http2().build();
        let inner = HyperClient::builder(TokioExecutor::new()).http2_only(true).build(connector);
        Self { inner, base: format!("https://{address}") }
    }

    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let response = self.inner.request(request.body(Full::from(body))?).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Bytes) {
        self.try_call(method, path, body).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        self.call(Method::GET, path, vec![]).await
    }

    /// PUT of an attempt to its own path.
    pub async fn put(&self, start: &StartAttempt, wait_ms: u64) -> (StatusCode, Bytes) {
        let path = format!("{}?waitMs={wait_ms}", path_of(&start.identity));
        self.call(Method::PUT, &path, serde_json::to_vec(start).unwrap()).await
    }

    /// Runs an attempt to its end.
    pub async fn run(&self, start: &StartAttempt) -> AttemptState {
        let (status, body) = self.put(start, 60_000).await;
        let state = state(status, &body);
        assert!(state.is_final(), "{state:?}");
        state
    }

    /// Waits until the attempt is `Running`.
    pub async fn until_running(&self, identity: &Identity) {
        loop {
            let (status, body) = self.get(&path_of(identity)).await;
            match state(status, &body) {
                AttemptState::Queued => tokio::task::yield_now().await,
                AttemptState::Running => return,
                ended => panic!("{ended:?}"),
            }
        }
    }
}

/// The client's side of TLS: trusts `server`'s authority and shows the certificate of `own`, if any.
fn client_config(server: &Pki, own: Option<&Pki>) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.file("ca.crt")).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_file(own.file("client.crt")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(own.file("client.key")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// The alert with which the daemon at `address` ends a connection before a word of HTTP. In TLS 1.3 a client that is not wanted hears
/// of it after its own handshake, so this reads on. (By hand, because hyper's client may wait for ever for such a connection.)
pub async fn alert(address: &str, server: &Pki, own: Option<&Pki>) -> rustls::AlertDescription {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(server, own)));
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let error = match connector.connect(name, tcp).await {
        Err(error) => error,
        Ok(mut tls) => {
            let read = tokio::time::timeout(ALERT_LIMIT, tls.read_u8()).await;
            read.expect("the daemon ends the connection").expect_err("the daemon says nothing unasked")
        }
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("{other:?}: {error}"),
    }
}

pub fn path_of(identity: &Identity) -> String {
    format!("/v1/attempts/{}/{}", identity.uid, identity.attempt)
}

pub fn state(status: StatusCode, body: &[u8]) -> AttemptState {
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(body));
    serde_json::from_slice(body).unwrap()
}

pub fn error(body: &[u8]) -> ErrorBody {
    serde_json::from_slice(body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(body)))
}

pub fn sealed(state: AttemptState) -> SealedAttempt {
    match state {
        AttemptState::Sealed { sealed } => *sealed,
        other => panic!("{other:?}"),
    }
}

pub fn failed(state: AttemptState) -> Failure {
    match state {
        AttemptState::Failed { failure } => failure,
        other => panic!("{other:?}"),
    }
}

/// Believes a result as an operator would: everything recomputed and compared.
pub fn verified(start: &StartAttempt, sealed: &SealedAttempt) -> Verified {
    let expect = Expect {
        execution_root: Some(sealed.execution_root),
        bundle_root: Some(sealed.bundle_root),
        request_digest: Some(start.request.digest().unwrap()),
        identity: Some(start.identity.clone()),
    };
    requiem_proof::verify(&sealed.body, &expect).unwrap()
}

/// An attempt that runs `script` with /bin/sh.
pub fn shell(uid: &str, script: &str) -> StartAttempt {
    start(uid, ExecutionRequest::new(vec!["/bin/sh".into(), "-c".into(), script.into()]))
}

pub fn start(uid: &str, request: ExecutionRequest) -> StartAttempt {
    let identity = Identity {
        namespace: "team-a".into(),
        name: format!("job-{uid}"),
        uid: uid.into(),
        generation: 1,
        attempt: 1,
    };
    StartAttempt { identity, request: request.normalise().unwrap(), inline: vec![] }
}

/// Pids whose command line holds `marker`, other than this process's own children that were given it by a test.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() && String::from_utf8_lossy(&line).contains(marker)
    })
    .collect()
}

/// Waits for something that only looking can tell, and fails when it does not come.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An input that is this text.
pub fn input(path: &str, content: &[u8]) -> Input {
    let source = InputSource::Blob { digest: BlobDigest::of(content), executable: false };
    Input { path: RelPath::parse(path).unwrap(), source }
}
