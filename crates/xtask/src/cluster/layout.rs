//! Names and places of a cluster's files.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Error, Result, paths};

/// Name of a cluster: a DNS label, so that it can stand in a context's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// The folder of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    name: Name,
    folder: PathBuf,
}

impl Name {
    /// Accepts lower-case letters, digits and inner hyphens, at most 40 characters.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let ends = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 40 || ends || !text.chars().all(fits) {
            let remedy = "Use lower-case letters, digits and inner hyphens, at most 40 characters";
            return Err(Error::usage(format!("{text:?} cannot be the name of a cluster"), remedy));
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Layout {
    /// The layout of cluster `name`; nothing is made yet.
    ///
    /// # Errors
    /// There is no home folder.
    pub fn of(name: &Name) -> Result<Self> {
        Ok(Self { name: name.clone(), folder: clusters()?.join(name.as_str()) })
    }

    /// Whose it is.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The folder that holds everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.folder.join("pki")
    }

    /// etcd's data.
    pub fn data(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    /// The folder of node `number`, from 1.
    pub fn node(&self, number: u8) -> PathBuf {
        self.folder.join(format!("node-{number}"))
    }

    /// The number of its network and of its nodes; absent where there are no nodes.
    pub fn network(&self) -> PathBuf {
        self.folder.join("network")
    }

    /// What `program` writes.
    pub fn log(&self, program: &str) -> PathBuf {
        self.folder.join(format!("{program}.log"))
    }

    /// Process id and start time of `program`.
    pub fn pid(&self, program: &str) -> PathBuf {
        self.folder.join(format!("{program}.pid"))
    }
}

/// The folder that holds one folder per cluster.
///
/// # Errors
/// There is no home folder.
pub fn clusters() -> Result<PathBuf> {
    Ok(paths::state()?.join("clusters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "A", "-a", "a-", "a b", &"a".repeat(41)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Name::parse("dev-2").unwrap().as_str(), "dev-2");
    }
}
