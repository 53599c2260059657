//! The listeners: attempts over mutual TLS, health and metrics in the clear, and reading for the own user at a Unix socket.

pub(crate) mod admin;
pub(crate) mod bytes;
pub mod certificate;
pub(crate) mod error;
pub(crate) mod follow;
pub(crate) mod identity;
pub(crate) mod listen;
pub(crate) mod local;
pub(crate) mod routes;
pub(crate) mod tls;

pub use tls::{TlsError, TlsFiles};
