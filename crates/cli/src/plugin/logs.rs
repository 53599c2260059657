//! `kubectl requiem logs`: what a command wrote, each stream on its own: standard output to standard output, standard error to
//! standard error. With `-f` while it runs, and on through attempts that are lost.
//!
//! ```text
//! waits ─attempt─▶ runs ─parts by position─▶ result: the rest by digest
//!   ▲                └─ attempt lost ─┐
//!   └────────────────────────────────┘
//! ```

use std::io::{self, Write};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use kube::ResourceExt;
use requiem_crds::Execution;
use requiem_crds::status::StreamStatus;
use requiem_model::BlobDigest;
use schemars::JsonSchema;
use serde::Serialize;

use super::arguments::{ClusterArguments, Logs, StreamName};
use super::get::state;
use super::holder::{self, Running};
use super::remote::Remote;
use super::site::Site;
use crate::cluster::{deleted, runtime, until};
use crate::error::CommandError;
use crate::report::{Report, no_stdout};
use crate::text::printable;

/// How long one call waits for something new.
const WAIT_MS: u64 = 50_000;

/// Both streams as far as they were read, with `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Shown {
    ok: bool,
    /// Bytes of standard output that were shown.
    stdout_bytes: u64,
    /// Bytes of standard error that were shown.
    stderr_bytes: u64,
}

/// Shows streams where they belong.
pub(crate) struct Viewer<'a> {
    site: &'a Site,
    name: &'a str,
    only: Option<StreamName>,
    /// Positions up to which the streams of the attempt were shown.
    shown: [u64; 2],
    /// Path of that attempt.
    attempt: String,
    /// The reason that was told last.
    waits_for: String,
}

/// Codes of an executor that cannot be read now.
const AWAY: [&str; 3] = ["ExecutorUnavailable", "ExecRefused", "NotFound"];
/// Both streams, in the order of [`Viewer::shown`].
const STREAMS: [StreamName; 2] = [StreamName::Stdout, StreamName::Stderr];

/// What a part says about the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There may be more.
    More,
    /// That was all.
    Nothing,
    /// The attempt came to no result.
    NoResult,
}

/// Runs the command.
pub(crate) fn run(cluster: &ClusterArguments, arguments: &Logs) -> Result<Report, CommandError> {
    let shown = runtime()?.block_on(async {
        let site = Site::of(cluster).await?;
        let mut viewer = Viewer::new(&site, &arguments.name, arguments.stream);
        viewer.show(arguments.follow).await?;
        Ok::<_, CommandError>(viewer.shown)
    })?;
    let document = Shown { ok: true, stdout_bytes: shown[0], stderr_bytes: shown[1] };
    Ok(Report::new(&document, String::new(), true))
}

impl<'a> Viewer<'a> {
    pub(crate) const fn new(site: &'a Site, name: &'a str, only: Option<StreamName>) -> Self {
        Self { site, name, only, shown: [0; 2], attempt: String::new(), waits_for: String::new() }
    }

    /// Shows what there is; with `follow` what comes, until the end.
    pub(crate) async fn show(&mut self, follow: bool) -> Result<(), CommandError> {
        let mut execution = self.site.execution(self.name).await?;
        loop {
            if execution.status.as_ref().is_some_and(|status| status.terminal) {
                return self.result(&execution).await;
            }
            match self.attempt(&execution, follow).await {
                Ok(Rest::Nothing) => return Ok(()),
                // An executor that goes away has another attempt, or a result that is elsewhere by then.
                Err(error) if follow && AWAY.contains(&error.error_code.as_str()) => note(&error.message),
                other => drop(other?),
            }
            if !follow {
                return self.told_without_end(&execution);
            }
            self.tell_why(&execution);
            execution = self.changed(&execution).await?;
        }
    }

    /// Says what the Execution waits for, once for each reason.
    fn tell_why(&mut self, execution: &Execution) {
        let (reason, message) = state(execution);
        if reason != "Running" && reason != self.waits_for {
            note(&format!("{}: {reason}: {message}", self.name));
        }
        reason.clone_into(&mut self.waits_for);
    }

    /// Shows the current attempt of an Execution, if an executor has it.
    async fn attempt(&mut self, execution: &Execution, follow: bool) -> Result<Rest, CommandError> {
        let Some(running) = holder::of_attempt(self.site, execution).await? else {
            return Ok(Rest::NoResult);
        };
        if self.attempt != running.path {
            if self.shown != [0; 2] {
                note("that attempt was lost; the next one begins");
            }
            (self.shown, self.attempt) = ([0; 2], running.path.clone());
        }
        let wanted = STREAMS.map(|stream| self.wants(stream));
        let [stdout, stderr] = &mut self.shown;
        let (one, other) = tokio::try_join!(
            show_stream(&running, StreamName::Stdout, wanted[0], stdout, follow),
            show_stream(&running, StreamName::Stderr, wanted[1], stderr, follow),
        )?;
        // Of a stream that was not asked for there is nothing more, so the other one decides.
        Ok(if one == Rest::Nothing { other } else { one })
    }

    /// The Execution when its status is another one.
    async fn changed(&self, before: &Execution) -> Result<Execution, CommandError> {
        let (uid, version) = (before.uid(), before.resource_version());
        let moved = |object: &Execution| object.uid() != uid || object.resource_version() != version;
        let execution = until(&self.site.executions(), self.name, moved).await?;
        // Another object of that name is not the one that was followed.
        if execution.uid() == uid { Ok(execution) } else { Err(deleted(self.name)) }
    }

    /// Nothing more is to be had now.
    fn told_without_end(&self, execution: &Execution) -> Result<(), CommandError> {
        if self.shown != [0; 2] {
            return Ok(());
        }
        let (reason, message) = state(execution);
        let message =
            format!("{} has written nothing yet: {}: {}", self.name, printable(reason), printable(message));
        Err(CommandError::finding("NotStarted", message, "follow it with -f"))
    }

    /// Shows the streams of an Execution that has ended, as far as they were not shown.
    async fn result(&mut self, execution: &Execution) -> Result<(), CommandError> {
        let status = execution.status.clone().unwrap_or_default();
        let kept = [status.stdout, status.stderr];
        let wanted = |(stream, kept): &(StreamName, &StreamStatus)| self.wants(*stream) && kept.bytes > 0;
        let parts =
            STREAMS.into_iter().zip(&kept).filter_map(|(stream, kept)| Some((stream, kept.as_ref()?)));
        let parts: Vec<_> = parts.filter(wanted).collect();
        if parts.is_empty() {
            return Ok(());
        }
        let remote = match holder::of_result(self.site, execution).await {
            Err(error) if error.error_code == "Gone" || error.error_code == "OutOfReach" => {
                return self.tails(&parts, error);
            }
            other => other?,
        };
        for (stream, kept) in parts {
            let place = usize::from(stream == StreamName::Stderr);
            self.shown[place] =
                show_kept(&remote, &self.site.namespace, stream, kept, self.shown[place]).await?;
        }
        Ok(())
    }

    /// Shows what the status keeps, and says if that is not all.
    fn tails(
        &mut self,
        parts: &[(StreamName, &StreamStatus)],
        error: CommandError,
    ) -> Result<(), CommandError> {
        let mut whole = true;
        for (stream, kept) in parts {
            whole &= BlobDigest::of(kept.tail.as_bytes()) == kept.digest;
            write(*stream, kept.tail.as_bytes())?;
            self.shown[usize::from(*stream == StreamName::Stderr)] = kept.tail.len() as u64;
        }
        if whole { Ok(()) } else { Err(error) }
    }

    fn wants(&self, stream: StreamName) -> bool {
        self.only.is_none_or(|only| only == stream)
    }
}

/// Shows a stream of an attempt from `position` on, and moves that.
async fn show_stream(
    running: &Running,
    stream: StreamName,
    is_wanted: bool,
    position: &mut u64,
    follow: bool,
) -> Result<Rest, CommandError> {
    if !is_wanted {
        return Ok(Rest::Nothing);
    }
    loop {
        let wait = if follow { WAIT_MS } else { 0 };
        let path = format!("{}/{}?from={position}&waitMs={wait}", running.path, word(stream));
        let Some(answer) = running.remote.get(&path).await? else { return Ok(Rest::NoResult) };
        let (from, more) = (number(&answer, "requiem-from"), header(&answer, "requiem-more") == "true");
        if from > *position {
            note(&format!("{} bytes of {} went by before they were read", from - *position, word(stream)));
        }
        *position = from.max(*position) + copy(&running.remote, answer, stream, 0).await?.0;
        match (more, follow) {
            (false, _) => return Ok(Rest::Nothing),
            (true, false) => return Ok(Rest::More),
            (true, true) => {}
        }
    }
}

/// Shows a kept stream from the position `from` on, and checks that all of it is what was proven. Gives back its length.
async fn show_kept(
    remote: &Remote,
    namespace: &str,
    stream: StreamName,
    kept: &StreamStatus,
    from: u64,
) -> Result<u64, CommandError> {
    let path = format!("/v1/blobs/{}?namespace={namespace}", kept.digest);
    let answer = remote.get(&path).await?;
    let answer = answer.ok_or_else(|| remote.missing(&kept.digest.to_string()))?;
    let (read, digest) = copy(remote, answer, stream, from).await?;
    if digest == kept.digest {
        return Ok(read);
    }
    let message = format!("what was shown of {} is not what was proven: it is {digest}", word(stream));
    Err(CommandError::finding("E_DIGEST", message, "do not rely on that executor; verify its store"))
}

/// Shows an answer but for its first `skip` bytes. Gives back how many bytes it has in all, and their digest.
async fn copy(
    remote: &Remote,
    answer: Response<Incoming>,
    stream: StreamName,
    skip: u64,
) -> Result<(u64, BlobDigest), CommandError> {
    let (mut body, mut hasher) = (answer.into_body(), blake3::Hasher::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| remote.broke_off(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        let old = usize::try_from(skip.saturating_sub(hasher.count())).unwrap_or(usize::MAX).min(data.len());
        hasher.update(&data);
        write(stream, &data[old..])?;
    }
    Ok((hasher.count(), BlobDigest::from_bytes(*hasher.finalize().as_bytes())))
}

/// Writes to where the stream belongs. Who has seen enough (`| head`) ends the command.
fn write(stream: StreamName, bytes: &[u8]) -> Result<(), CommandError> {
    let written = match stream {
        StreamName::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        StreamName::Stderr => io::stderr().write_all(bytes),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|error| no_stdout(&error)),
    }
}

/// Tells something that is not the command's.
fn note(text: &str) {
    // There is nobody left to tell.
    let _nobody_listens = io::stderr().write_all(format!("({})\n", printable(text)).as_bytes());
}

const fn word(stream: StreamName) -> &'static str {
    match stream {
        StreamName::Stdout => "stdout",
        StreamName::Stderr => "stderr",
    }
}

fn header<'a>(answer: &'a Response<Incoming>, name: &str) -> &'a str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn number(answer: &Response<Incoming>, name: &str) -> u64 {
    header(answer, name).parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::forger::forger;
    use super::*;

    fn proven(content: &[u8]) -> StreamStatus {
        StreamStatus {
            digest: BlobDigest::of(content),
            bytes: content.len() as u64,
            truncated: false,
            tail: String::new(),
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_not_what_was_proven_is_a_finding() {
        let remote = forger(b"forged\n").await;
        let shown = show_kept(&remote, "ns", StreamName::Stdout, &proven(b"forged\n"), 0).await;
        assert_eq!(shown.unwrap(), 7);
        let shown = show_kept(&remote, "ns", StreamName::Stdout, &proven(b"true"), 0).await.unwrap_err();
        assert_eq!((shown.error_code.as_str(), shown.exit_code()), ("E_DIGEST", 1));
        // Also what was shown before is held to it.
        let shown = show_kept(&remote, "ns", StreamName::Stdout, &proven(b"true"), 7).await.unwrap_err();
        assert_eq!(shown.error_code, "E_DIGEST");
    }
}
