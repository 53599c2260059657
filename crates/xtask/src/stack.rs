//! One executor and one operator as child processes, with development certificates, against some cluster.
//!
//! The demo, the suites and the benchmarks start the same thing. Either service can be killed with SIGKILL and
//! started again on the same address with the same store, as a supervisor would.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Background, Target, last_lines};
use crate::scratch::Scratch;
use crate::{Error, Result, pki, ports};

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kubeconfig of the cluster.
    pub kubeconfig: PathBuf,
    /// Folder that holds `requiem-operator` and `requiem-executor`.
    pub programs: PathBuf,
    /// Only this namespace is reconciled; all of them if absent.
    pub namespace: Option<String>,
    /// Attempts that run at the same time.
    pub slots: u32,
    /// Program and arguments in front of the executor's, to start it in another environment.
    pub executor_wrapper: Vec<String>,
    /// Arguments of the operator, besides those that every stack has.
    pub operator_arguments: Vec<String>,
}

/// A child process that can be killed and started again.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    words: Vec<String>,
    admin: SocketAddr,
    log: PathBuf,
    running: Option<Background>,
}

/// Both services. Dropped: both are gone, with their folder.
#[derive(Debug)]
pub struct Stack {
    /// The operator.
    pub operator: Service,
    /// The executor.
    pub executor: Service,
    endpoint: SocketAddr,
    store: PathBuf,
    folder: PathBuf,
    // Last, so that the folder goes after the processes that write to it.
    _owned: Option<Scratch>,
}

// === impl Stack ===

impl Stack {
    /// Starts both, in a folder of their own that goes with them, and waits until they are ready.
    ///
    /// # Errors
    /// A program is missing or does not become ready; the end of its log is in the message.
    pub fn start(options: &Options) -> Result<Self> {
        let owned = Scratch::new("stack")?;
        let stack = Self::start_in(options, owned.path())?;
        Ok(Self { _owned: Some(owned), ..stack })
    }

    /// As [`Stack::start`], with certificates, logs and store in the caller's `folder`.
    ///
    /// # Errors
    /// As for [`Stack::start`].
    pub fn start_in(options: &Options, folder: &Path) -> Result<Self> {
        let store = folder.join("store");
        fs::create_dir_all(&store).map_err(Error::io("make the store's folder"))?;
        let certificates = pki::development(&folder.join("pki-development"))?;
        let endpoint = ports::loopback()?;
        let executor = executor(options, &certificates, folder, endpoint, &store)?;
        let operator = operator(options, &certificates, folder)?;
        let mut stack = Self { operator, executor, endpoint, store, folder: folder.into(), _owned: None };
        stack.executor.start()?;
        stack.operator.start()?;
        Ok(stack)
    }

    /// The ExecutorPool object, as JSON, that names our executor as `namespace`'s default pool.
    pub fn pool(&self, namespace: &str) -> String {
        let endpoint = serde_json::json!({"name": "local", "url": format!("https://{}", self.endpoint)});
        serde_json::json!({
            "apiVersion": "requiem.dev/v1alpha1",
            "kind": "ExecutorPool",
            "metadata": {"name": "default", "namespace": namespace},
            "spec": {"endpoints": [endpoint]},
        })
        .to_string()
    }

    /// Where the executor listens.
    pub const fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// The executor's store.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The folder of certificates, logs and store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops both, the operator first.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop(&mut self) -> Result<()> {
        self.operator.stop()?;
        self.executor.stop()
    }

    /// Gives the running processes into somebody else's care. For a stack with a folder that is not its own.
    pub fn into_running(self) -> impl Iterator<Item = (&'static str, Background)> {
        let services = [("requiem-executor", self.executor), ("requiem-operator", self.operator)];
        services.into_iter().filter_map(|(program, service)| Some((program, service.running?)))
    }
}

fn executor(
    options: &Options,
    certificates: &pki::DevelopmentCertificates,
    folder: &Path,
    endpoint: SocketAddr,
    store: &Path,
) -> Result<Service> {
    let admin = ports::loopback()?;
    let mut words = options.executor_wrapper.clone();
    words.extend([path(&options.programs.join("requiem-executor")), "serve".to_owned()]);
    let slots = options.slots.to_string();
    for (flag, value) in [
        ("--listen", endpoint.to_string()),
        ("--admin-listen", admin.to_string()),
        ("--tls-cert", path(&certificates.executor.certificate)),
        ("--tls-key", path(&certificates.executor.key)),
        ("--client-ca", path(&certificates.ca)),
        ("--store", path(store)),
        ("--slots", slots),
        ("--name", "local".to_owned()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    Ok(Service { name: "executor", words, admin, log: folder.join("executor.log"), running: None })
}

fn operator(
    options: &Options,
    certificates: &pki::DevelopmentCertificates,
    folder: &Path,
) -> Result<Service> {
    let admin = ports::loopback()?;
    let mut words = vec![path(&options.programs.join("requiem-operator"))];
    for (flag, value) in [
        ("--kubeconfig", path(&options.kubeconfig)),
        ("--tls-cert", path(&certificates.operator.certificate)),
        ("--tls-key", path(&certificates.operator.key)),
        ("--executor-ca", path(&certificates.ca)),
        ("--admin-listen", admin.to_string()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    if let Some(namespace) = &options.namespace {
        words.extend(["--namespace".to_owned(), namespace.clone()]);
    }
    words.extend(options.operator_arguments.iter().cloned());
    Ok(Service { name: "operator", words, admin, log: folder.join("operator.log"), running: None })
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// The whole answer, head included, to a GET of `path` without TLS, as admin addresses speak.
///
/// # Errors
/// Nobody answers within seconds, or not with text.
pub fn http_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

// === impl Service ===

impl Service {
    /// Starts it, if it does not run, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; the end of its log is in the message.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts it and does not wait. Does nothing if it runs.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(Error::io("open a log"))?;
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(std::process::Stdio::null()).stdout(log).stderr(errors);
        self.running = Some(Background::spawn(&mut command)?);
        Ok(())
    }

    /// SIGTERM, and SIGKILL for what ignores it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.stop(STOP_WITHIN).map(drop),
            None => Ok(()),
        }
    }

    /// SIGKILL to the main process alone, and waits for its end: its children must follow by themselves.
    ///
    /// # Errors
    /// It does not run, or the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        let Some(running) = self.running.take() else {
            return Err(Error::check(format!("the {} does not run", self.name), "Start it first"));
        };
        let pid = i32::try_from(running.id()).ok().and_then(Pid::from_raw);
        let target = Target::of(running.id())?;
        if let (Some(pid), Some(target)) = (pid, target) {
            kill_process(pid, Signal::KILL).map_err(|errno| Error::io("kill a service")(errno.into()))?;
            target.wait_gone(STOP_WITHIN)?;
        }
        // Collected, not dropped: dropping would kill the rest of the group, and hide children that do not follow.
        running.wait().map(drop)
    }

    /// Process id of the main process, if it runs.
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().map(Background::id)
    }

    /// Where it serves health and metrics.
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where it writes what it has to say.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Body of a GET to its admin address.
    ///
    /// # Errors
    /// It does not answer, or not with 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let text =
            http_get(self.admin, path).map_err(Error::io(format!("ask the {} for {path}", self.name)))?;
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(Error::check(
                format!("the {} answers {path} with {:?}", self.name, text.lines().next().unwrap_or("")),
                format!("See {}", self.log.display()),
            )),
        }
    }

    fn open_log(&self) -> Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.log).map_err(Error::io("open a log"))
    }

    /// Nothing tells when a foreign process begins to listen, so this asks, every few milliseconds.
    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if self.get("/readyz").is_ok() {
                return Ok(());
            }
            let ended = self.running.as_mut().map(Background::ended).transpose()?.flatten();
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                self.running = None;
                return Err(Error::check(
                    format!("the {} did not become ready:\n{}", self.name, last_lines(&said, 20)),
                    format!("Its command line was: {}", self.words.join(" ")),
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
