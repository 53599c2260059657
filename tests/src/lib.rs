//! Suites that cross crates; each `[[test]]` of this package is one. See `cargo xtask test --list`.
