//! Validated names and paths: parsed once at the border, never checked again.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Longest relative path, in bytes (Linux `PATH_MAX` leaves room for any root in front of it).
pub const MAX_PATH_BYTES: usize = 1024;
/// Longest path component, in bytes (`NAME_MAX`).
pub const MAX_COMPONENT_BYTES: usize = 255;

/// Why a text is not a valid name or path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The path is empty, absolute, not normalised, too long, or holds a NUL.
    #[error("path {path:?} {why}")]
    Path {
        /// The offending path, clipped.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The variable name is empty, too long, or holds `=` or NUL.
    #[error("environment variable name {0:?} must be 1 to 255 bytes without '=' and NUL")]
    EnvName(String),
    /// The name of a Secret or ConfigMap is none.
    #[error("object name {0:?} must be lower-case letters, digits, hyphens and dots, at most 253 bytes")]
    Object(String),
    /// The key within a Secret or ConfigMap is none.
    #[error("key {0:?} must be 1 to 253 letters, digits, hyphens, underscores and dots")]
    Key(String),
}

/// A normalised path below some root: `a/b.txt`. Never empty, never absolute, no `.` or `..`, no NUL,
/// at most [`MAX_PATH_BYTES`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RelPath(String);

impl RelPath {
    /// Parses a path.
    ///
    /// # Errors
    /// [`NameError::Path`] with the reason.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = |why| Err(NameError::Path { path: text.chars().take(80).collect(), why });
        if text.is_empty() {
            return refuse("is empty");
        }
        if text.len() > MAX_PATH_BYTES {
            return refuse("is longer than 1024 bytes");
        }
        if text.contains('\0') {
            return refuse("holds a NUL");
        }
        if text.starts_with('/') {
            return refuse("is absolute; give it relative to the workspace");
        }
        for component in text.split('/') {
            match component {
                "" => return refuse("has an empty component ('//' or a trailing '/')"),
                "." | ".." => return refuse("holds '.' or '..'; give it normalised"),
                long if long.len() > MAX_COMPONENT_BYTES => {
                    return refuse("has a component longer than 255 bytes");
                }
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `self` lies strictly below `other`, or is the same path.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

/// The name of an environment variable: 1 to 255 bytes without `=` and NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EnvName(String);

impl EnvName {
    /// Parses a variable name.
    ///
    /// # Errors
    /// [`NameError::EnvName`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > 255 || text.contains(['=', '\0']) {
            return Err(NameError::EnvName(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for EnvName {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_leave_the_root_are_refused() {
        for bad in ["", "/", "/a", "a//b", "a/", ".", "..", "a/../b", "./a", "a\0b", &"x".repeat(256)] {
            assert!(RelPath::parse(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "a/b.txt", "...", "a b/\u{e9}", ".hidden"] {
            assert!(RelPath::parse(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn within_respects_component_borders() {
        let path = |text| RelPath::parse(text).unwrap();
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert!(!path("a").is_within(&path("a/b")));
    }
}
