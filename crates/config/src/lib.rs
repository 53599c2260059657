//! What may be configured, and from where a value came: a file, below the environment, below the flags.
//!
//! ```text
//! clap definitions of a program ─Keys::of→ which keys there are, of which form
//! file ─File::read→ entries with their lines ─check→ settings and problems
//! command line + settings ─settle→ command line, which clap then reads as always
//! ```
//!
//! A key is the long name of a flag in camelCase, so that nothing is written twice: type, default, environment variable and meaning
//! are those of the flag. The flags of operator and executor are defined here, because the command line, which judges files of theirs,
//! must know them too.

mod check;
pub mod executor;
mod file;
mod keys;
mod layers;
mod nearest;
pub mod operator;

pub use check::{Checked, Code, Problem, Setting, Severity, check};
pub use file::{Entry, File, FileError, Value};
pub use keys::{Form, Key, Keys, VERSION};
pub use layers::{Origin, given, leaf, origin, parse, settle};
