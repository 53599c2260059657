//! Whose objects: every tenant has a tree of its own and learns nothing of the others'.

use std::fmt;

use crate::error::StoreError;

/// A tenant's name: the Kubernetes namespace, or `default` where there is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// Parses a lower-case DNS label of at most 63 characters; such a name is a safe folder name too.
    ///
    /// # Errors
    /// [`StoreError::Tenant`].
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let bytes = text.as_bytes();
        let ends = !text.starts_with('-') && !text.ends_with('-');
        if (1..=63).contains(&bytes.len()) && ends && bytes.iter().all(inner) {
            Ok(Self(text.to_owned()))
        } else {
            Err(StoreError::Tenant(text.chars().take(80).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_are_tenants() {
        for good in ["default", "a", "team-1", "0", &"x".repeat(63)] {
            assert!(Tenant::parse(good).is_ok(), "{good:?} was refused");
        }
        for bad in ["", ".", "..", "a/b", "A", "a.b", "-a", "a-", "a\0", "é", "a_b", " a", &"x".repeat(64)] {
            assert!(Tenant::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
