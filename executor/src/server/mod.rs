//! The two listeners: attempts over mutual TLS, and health and metrics in the clear.

pub(crate) mod admin;
pub(crate) mod bytes;
pub mod certificate;
pub(crate) mod error;
pub(crate) mod identity;
pub(crate) mod listen;
pub(crate) mod routes;
pub(crate) mod tls;

pub use tls::{TlsError, TlsFiles};
