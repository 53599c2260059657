//! `requiem cas ls`: every object, one line each, as they are found. Nothing is kept in memory, and a reader that has seen enough
//! (`| head`) ends it.

use std::io::{self, BufWriter, ErrorKind, Write};

use requiem_cas::examine::{Damage, Kind, Sizes};
use requiem_model::BlobDigest;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cas_arguments::CasLs;
use crate::error::CommandError;
use crate::report::Report;
use crate::schema;
use crate::store;

/// The document that is written row by row.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is made: a store may be larger than memory")]
pub(super) struct Listed<'a> {
    ok: bool,
    objects: Vec<Row<'a>>,
}

/// One object. What cannot be told is absent, and `error_code` says why.
#[derive(Serialize, JsonSchema)]
pub(super) struct Row<'a> {
    tenant: &'a str,
    #[schemars(schema_with = "schema::digest")]
    digest: BlobDigest,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
}

/// Runs the command.
pub(crate) fn run(arguments: &CasLs, json: bool) -> Result<Report, CommandError> {
    let looked = store::look(arguments.store.cas.as_deref())?;
    let tenants = looked.tenants(arguments.tenant.as_deref())?;
    let mut out = Out { to: BufWriter::new(io::stdout().lock()), json, rows: 0 };
    let listed = out.begin().map_err(Ended::from).and_then(|()| {
        for tenant in &tenants {
            for byte in 0..=u8::MAX {
                let shelf =
                    looked.shelves.shelf(tenant, byte).map_err(|error| Ended::Failed(error.into()))?;
                for item in shelf.objects() {
                    if let Some(row) = Row::of(tenant.as_str(), item.digest(), shelf.look(item)) {
                        out.row(&row)?;
                    }
                }
            }
        }
        out.end().map_err(Ended::from)
    });
    match listed {
        Ok(()) | Err(Ended::Unread) => Ok(Report::silent()),
        Err(Ended::Failed(error)) => Err(error),
    }
}

/// Why listing ended early.
enum Ended {
    /// Nobody reads any more.
    Unread,
    Failed(CommandError),
}

struct Out<W> {
    to: W,
    json: bool,
    rows: u64,
}

// === impl Out ===

impl<W: Write> Out<W> {
    fn begin(&mut self) -> io::Result<()> {
        if self.json { self.to.write_all(b"{\"objects\":[") } else { Ok(()) }
    }

    fn row(&mut self, row: &Row<'_>) -> io::Result<()> {
        let first = self.rows == 0;
        self.rows += 1;
        if self.json {
            self.to.write_all(if first { b"\n" } else { b",\n" })?;
            return Ok(serde_json::to_writer(&mut self.to, row)?);
        }
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
        let (kind, plain, stored) = (row.kind.unwrap_or("?"), size(row.bytes), size(row.stored_bytes));
        writeln!(self.to, "{}  {kind:4}  {plain:>12}  {stored:>12}  {}", row.digest, row.tenant)
    }

    fn end(&mut self) -> io::Result<()> {
        if self.json {
            self.to.write_all(b"\n],\"ok\":true}\n")?;
        }
        self.to.flush()
    }
}

// === impl Row ===

impl<'a> Row<'a> {
    /// Nothing for an object that is gone meanwhile.
    fn of(
        tenant: &'a str,
        digest: BlobDigest,
        looked: Result<Option<(Kind, Sizes)>, Damage>,
    ) -> Option<Self> {
        let unknown = Self { tenant, digest, kind: None, bytes: None, stored_bytes: None, error_code: None };
        match looked {
            Ok(None) => None,
            Err(damage) => Some(Self { error_code: Some(damage.code()), ..unknown }),
            Ok(Some((kind, sizes))) => {
                let (bytes, stored_bytes) = (Some(sizes.plain), Some(sizes.stored));
                Some(Self { kind: Some(kind.as_str()), bytes, stored_bytes, ..unknown })
            }
        }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            return Self::Unread;
        }
        let message = format!("cannot write to standard output: {error}");
        Self::Failed(CommandError::unusable("Output", message, "see where standard output leads to"))
    }
}
