//! A runner in a container of its own: it comes by itself, to a socket in a folder that both containers share.
//!
//! ```text
//! listen → accept → is it ours? → remove the socket → hello → serve it until it hangs up → listen again
//! ```
//!
//! While a runner is connected nobody listens and no socket is in the folder: there is nothing that a second runner,
//! or a payload, could connect to. The socket is put into place when it already listens, so that whoever waits for
//! the file can connect at once.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use super::link::Link;
use crate::error::errno_of;
use crate::protocol::{Channel, News};
use crate::spec::{RunnerNews, SandboxError};

/// How long a new runner may take for its first word; it is ready before it connects.
const HELLO: Duration = Duration::from_secs(10);
/// Pause after a failure to listen, which no event ends.
const RETRY: Duration = Duration::from_secs(1);

/// The connection, as runs and the listening thread share it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    closing: Condvar,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    /// What the thread waits for.
    waits_for: Option<OwnedFd>,
    closed: bool,
}

impl Shared {
    /// The connection, if there is one.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Link) -> T) -> Option<T> {
        self.lock().link.as_mut().map(act)
    }

    /// Ends the thread, and with it the runner's connection.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.link = None;
        if let Some(waits_for) = &state.waits_for {
            // Not connected (any more): then nobody waits for it.
            let _woken = shutdown(std::os::fd::AsRawFd::as_raw_fd(waits_for), Shutdown::Both);
        }
        self.closing.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Neither half is ever left changed by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the thread is about to wait for; false when it must end instead.
    fn wait_for(&self, waits_for: impl AsFd) -> bool {
        let mut state = self.lock();
        state.waits_for = waits_for.as_fd().try_clone_to_owned().ok();
        !state.closed && state.waits_for.is_some()
    }

    /// Waits a while, or until everything ends; false when it does.
    fn pause(&self) -> bool {
        let state = self.lock();
        let waited = self.closing.wait_timeout_while(state, RETRY, |state| !state.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

/// Waits for runners at `path` in a thread, and tells `news` of their coming and going. The first socket is there on
/// return.
pub(super) fn listen(
    path: &Path,
    spares: usize,
    news: Sender<RunnerNews>,
) -> Result<Arc<Shared>, SandboxError> {
    let failed = |error: &io::Error| SandboxError {
        hint: Some("the folder of the runner's socket must exist and be writable for this user"),
        ..SandboxError::at(format!("listen at {}", path.display()), errno_of(error))
    };
    let first = open(path).map_err(|error| failed(&error))?;
    let shared = Arc::new(Shared::default());
    let door = Door { path: path.to_owned(), spares, news, shared: Arc::clone(&shared) };
    let thread = std::thread::Builder::new().name("runner-door".to_owned());
    thread.spawn(move || door.serve(first)).map_err(|error| failed(&error))?;
    Ok(shared)
}

/// A listening socket at `path`, for this user alone; it appears there when it can be connected to.
fn open(path: &Path) -> io::Result<UnixListener> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

/// The thread's belongings.
struct Door {
    path: PathBuf,
    spares: usize,
    news: Sender<RunnerNews>,
    shared: Arc<Shared>,
}

impl Door {
    fn serve(self, first: UnixListener) {
        let mut listener = Some(first);
        loop {
            let opened = listener.take().map_or_else(|| open(&self.path), Ok);
            let met = opened.and_then(|listener| self.meet(&listener));
            match met {
                Ok(Some((runner, uid, pid))) => self.attend(runner, uid, pid),
                Ok(None) => return,
                Err(error) => {
                    self.tell(RunnerNews::Refused { why: format!("cannot listen for a runner: {error}") });
                    if !self.shared.pause() {
                        return;
                    }
                }
            }
        }
    }

    /// The next connection of this user; `None` when everything ends.
    fn meet(&self, listener: &UnixListener) -> io::Result<Option<(UnixStream, u32, u32)>> {
        loop {
            if !self.shared.wait_for(listener) {
                return Ok(None);
            }
            let (stream, _address) = match listener.accept() {
                Err(_) if self.shared.lock().closed => return Ok(None),
                other => other?,
            };
            let peer = getsockopt(&stream, PeerCredentials)?;
            if peer.uid() == geteuid().as_raw() {
                fs::remove_file(&self.path)?;
                return Ok(Some((stream, peer.uid(), u32::try_from(peer.pid()).unwrap_or_default())));
            }
            let why = format!(
                "a peer with user id {} came, this process has {}; run both containers with the same runAsUser",
                peer.uid(),
                geteuid()
            );
            self.tell(RunnerNews::Refused { why });
        }
    }

    /// One runner, from its first word to its end.
    fn attend(&self, runner: UnixStream, uid: u32, pid: u32) {
        match self.admit(runner, pid) {
            Ok(control) => {
                self.tell(RunnerNews::Connected { uid, pid });
                while let Ok(News::Stopping) = control.receive().and_then(|frame| frame.message()) {
                    self.tell(RunnerNews::Stopping);
                }
                self.shared.lock().link = None;
                self.tell(RunnerNews::Gone);
            }
            Err(error) => self.tell(RunnerNews::Refused { why: error.to_string() }),
        }
    }

    /// Makes the connection the one that runs use. Gives back a second handle, to listen at.
    fn admit(&self, runner: UnixStream, pid: u32) -> Result<Channel, SandboxError> {
        let failed = |error: io::Error| SandboxError::at("take a runner on", errno_of(&error));
        runner.set_read_timeout(Some(HELLO)).map_err(failed)?;
        let control = runner.try_clone().map_err(failed)?;
        let mut link = Link::accept(OwnedFd::from(runner).into(), pid)?;
        control.set_read_timeout(None).map_err(failed)?;
        if !self.shared.wait_for(&control) {
            return Err(SandboxError::at("take a runner on", Errno::ECANCELED));
        }
        link.refill(self.spares);
        self.shared.lock().link = Some(link);
        Ok(OwnedFd::from(control).into())
    }

    fn tell(&self, news: RunnerNews) {
        // Whoever does not listen does not want to know.
        let _unheard = self.news.send(news);
    }
}
