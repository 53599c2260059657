//! Content-addressed store: bytes by BLAKE3 digest, durable and verified. Byte formats: `docs/format/store.md`.
//!
//! | step | module |
//! |---|---|
//! | open a store, choose a tenant | [`store`], [`tenant`] |
//! | put bytes, streams | [`put`] |
//! | how durable that is | [`durable`] |
//! | get them back, verified | [`get`] |
//! | collect files and folders | [`ingest`], [`tree`] |
//! | have them as files and folders | [`materialise`] |
//! | pin what must stay | [`pin`] |
//! | look at a store as a whole | [`shelves`], [`examine`], [`stats`], [`audit`], [`bound`] |
//! | remove what nothing needs | [`exclusive`], [`gc`] |
//! | what went wrong | [`error`] |
//!
//! Promises, in order: no read ever returns bytes that do not have the digest asked for; what a receipt calls `strict`
//! was synced; a put leaves either the whole object or nothing; no tenant learns of another's objects. Any number of
//! processes may use one store. Nothing is removed but by [`gc`], which has the store to itself.
//!
//! ```
//! # fn main() -> Result<(), requiem_cas::StoreError> {
//! # let folder = tempfile::tempdir().map_err(|source| requiem_cas::StoreError::Source { source })?;
//! use requiem_cas::{Durability, Store, Tenant};
//!
//! let store = Store::open(folder.path())?.tenant(&Tenant::default())?;
//! let receipt = store.put_bytes(b"hello", Durability::Strict)?;
//! assert_eq!(receipt.digest.to_string(), "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f");
//! assert_eq!(store.get_bytes(&receipt.digest, 1024)?, b"hello");
//! # Ok(())
//! # }
//! ```

pub mod audit;
pub mod bound;
pub mod durable;
pub mod error;
pub mod examine;
pub mod exclusive;
pub mod gc;
pub mod get;
pub mod ingest;
pub mod materialise;
pub mod pin;
pub mod put;
pub mod shelves;
pub mod stats;
pub mod store;
pub mod tenant;
pub mod tree;

mod fd;
mod object;
mod session;
mod stage;

pub use durable::{Durability, Receipt};
pub use error::{IngestError, StoreError};
pub use exclusive::Exclusive;
pub use fd::CAREFUL;
pub use get::BlobReader;
pub use ingest::Ingested;
pub use materialise::{How, Materialised};
pub use object::RAW_FROM;
pub use pin::Pin;
pub use put::BlobWriter;
pub use shelves::Shelves;
pub use store::{Store, TenantStore};
pub use tenant::Tenant;
pub use tree::{Entry, Manifest, ManifestError, Node, TreeLimits};
