//! The sandbox on a real kernel.
mod support;
mod happy;
