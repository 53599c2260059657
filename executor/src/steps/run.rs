//! Run: the payload by an engine, and its two streams into the store with a cap and in flat memory.

use requiem_cas::{BlobWriter, Durability, StoreError, TenantStore};
use requiem_model::result::{FailureReason, Stream};
use requiem_model::{ExecutionRequest, Failure};
use requiem_sandbox::{Cancel, StdStream};

use super::stage::Staged;
use super::store_failure;
use crate::engine::{Done, Engine, EngineError, Job};
use crate::execute::{Keep, Stored};
use crate::journal::InlineBlob;

/// Bytes of each stream that a status shows.
const TAIL_BYTES: usize = 1024;
/// Streams up to this size stay in memory, and in the journal where there is one.
const INLINE_BYTES: usize = 32 * 1024;

/// One stream, kept.
pub(crate) struct Captured {
    pub(crate) stream: Stream,
    pub(crate) tail: String,
    pub(crate) durability: Durability,
    /// New bytes in the store.
    pub(crate) stored: Stored,
    /// Content that only the journal will make durable.
    pub(crate) inline: Option<InlineBlob>,
}

/// One stream while it is written.
struct Capture<'a> {
    store: &'a TenantStore,
    keep: Keep,
    cap: u64,
    seen: u64,
    kept: Kept,
    tail: Tail,
    failed: Option<StoreError>,
}

/// Where the kept bytes are.
enum Kept {
    Memory(Vec<u8>),
    Store(Box<BlobWriter>, u64),
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

/// What one run left.
pub(crate) struct Ran {
    pub(crate) done: Done,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
}

/// Runs the request by `engine`. Nothing of it runs any more when this returns, however it ends.
pub(crate) fn run(
    store: &TenantStore,
    engine: &dyn Engine,
    keep: Keep,
    request: &ExecutionRequest,
    staged: Staged,
    cancel: &Cancel,
) -> Result<Ran, EngineError> {
    let cap = request.limits.max_output_bytes;
    let (mut stdout, mut stderr) = (Capture::new(store, keep, cap), Capture::new(store, keep, cap));
    let mut sink = |stream: StdStream, bytes: &[u8]| {
        let capture = match stream {
            StdStream::Stdout => &mut stdout,
            StdStream::Stderr => &mut stderr,
        };
        capture.take(bytes);
        if capture.failed.is_some() {
            // There will be no result: the rest of the run is not worth its time.
            cancel.cancel();
        }
    };
    let Staged { stdin, inputs } = staged;
    let ran = engine.run(Job { request, stdin, inputs, sink: &mut sink, cancel });
    let (stdout, stderr) = (stdout.finish("stdout"), stderr.finish("stderr"));
    let done = match ran {
        // A stream that could not be kept ended the run by our own hand; say that, not "cancelled".
        Err(EngineError::Failure(failure)) if failure.reason == FailureReason::Cancelled => {
            return Err(stdout.err().or(stderr.err()).unwrap_or(failure).into());
        }
        other => other?,
    };
    Ok(Ran { done, stdout: stdout?, stderr: stderr? })
}

// === impl Capture ===

impl<'a> Capture<'a> {
    const fn new(store: &'a TenantStore, keep: Keep, cap: u64) -> Self {
        Self {
            store,
            keep,
            cap,
            seen: 0,
            kept: Kept::Memory(Vec::new()),
            tail: Tail(Vec::new()),
            failed: None,
        }
    }

    /// Takes what the payload wrote: counts all, keeps up to the cap. After a failure it only counts.
    fn take(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.cap.saturating_sub(self.seen)).unwrap_or(usize::MAX);
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        self.tail.push(bytes);
        if self.failed.is_none()
            && let Err(error) = self.keep_bytes(&bytes[..bytes.len().min(room)])
        {
            self.failed = Some(error);
        }
    }

    fn keep_bytes(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Kept::Memory(memory) = &mut self.kept {
            if memory.len() + bytes.len() <= INLINE_BYTES {
                memory.extend_from_slice(bytes);
                return Ok(());
            }
            let mut writer = self.store.writer(self.keep.large());
            writer.push(memory)?;
            self.kept = Kept::Store(Box::new(writer), memory.len() as u64);
        }
        if let Kept::Store(writer, length) = &mut self.kept {
            writer.push(bytes)?;
            *length += bytes.len() as u64;
        }
        Ok(())
    }

    fn finish(self, name: &str) -> Result<Captured, Failure> {
        let truncated = self.seen > self.cap;
        let fail = |error: StoreError| store_failure(&format!("cannot keep {name}"), &error);
        if let Some(error) = self.failed {
            return Err(fail(error));
        }
        let (receipt, inline) = match self.kept {
            Kept::Memory(bytes) => {
                let receipt = self.store.put_bytes(&bytes, self.keep.small()).map_err(fail)?;
                let journal = self.keep == Keep::Journal && receipt.durability == Durability::Volatile;
                (receipt, journal.then(|| InlineBlob::new(receipt.digest, bytes)))
            }
            Kept::Store(writer, _length) => (writer.finish().map_err(fail)?, None),
        };
        Ok(Captured {
            stream: Stream { digest: receipt.digest, bytes: receipt.bytes, truncated },
            tail: self.tail.text(),
            durability: receipt.durability,
            stored: Stored::of(&receipt),
            inline,
        })
    }
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        let surplus = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus);
    }

    /// As text of at most [`TAIL_BYTES`]: a cut first character is left out, bytes that are no text are replaced.
    fn text(&self) -> String {
        let cut = self.0.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
        let mut text = String::from_utf8_lossy(&self.0[cut..]).into_owned();
        while text.len() > TAIL_BYTES {
            text.remove(0);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_end_and_stays_small() {
        let mut tail = Tail::default();
        (0..1000).for_each(|line| tail.push(format!("line {line}\n").as_bytes()));
        assert!(tail.text().ends_with("line 998\nline 999\n"));
        assert_eq!(tail.text().len(), TAIL_BYTES);
    }

    #[test]
    fn a_tail_is_text_whatever_was_written() {
        let check = |bytes: &[u8]| {
            let mut tail = Tail::default();
            tail.push(bytes);
            assert!(tail.text().len() <= TAIL_BYTES);
            tail.text()
        };
        assert_eq!(check("é".repeat(1000).as_bytes()), "é".repeat(512));
        assert_eq!(check(format!("x{}", "é".repeat(1000)).as_bytes()), "é".repeat(512));
        assert!(check(&[b"a".as_slice(), &"é".repeat(512).as_bytes()[1..]].concat()).ends_with("éé"));
        check(&[0xff; 5000]);
    }
}
