//! The file: TOML, one value per key, each with its line.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// A file that is longer is none of ours.
const MAX_BYTES: u64 = 64 * 1024;

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it lies, as it was named.
    pub path: PathBuf,
    /// What it says, from above to below.
    pub entries: Vec<Entry>,
}

/// One line `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// On which line, from 1.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// A value, as far as settings have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text in quotation marks.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// `true` or `false`.
    Flag(bool),
    /// What no setting is: its name in TOML.
    Other(&'static str),
}

/// Why there is nothing to be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system does not give it.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is too long, or not text.
    #[error("{} is no configuration file: {why}", path.display())]
    NotOurs {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// It is not TOML.
    #[error("{}:{line}: {why}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// On which line, from 1.
        line: usize,
        /// What the reader of TOML says.
        why: String,
    },
}

impl FileError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "File",
            Self::NotOurs { .. } | Self::Syntax { .. } => "ConfigSyntax",
        }
    }

    /// What to do.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "check the path and the permissions of the file",
            Self::NotOurs { .. } => "check that it is the right file",
            Self::Syntax { .. } => {
                "write one KEY = VALUE a line: \"text\" in quotation marks, 5, true or false"
            }
        }
    }
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is not TOML.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let mut content = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
            .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
        let not_ours = |why| FileError::NotOurs { path: path.to_owned(), why };
        if content.len() as u64 > MAX_BYTES {
            return Err(not_ours("it has more than 65536 bytes"));
        }
        Self::parse(path, str::from_utf8(&content).map_err(|_| not_ours("it is not UTF-8"))?)
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// [`FileError::Syntax`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let line = |byte: usize| text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| FileError::Syntax {
            path: path.to_owned(),
            line: line(error.span().map_or(0, |span| span.start)),
            why: error.message().to_owned(),
        })?;
        let mut entries: Vec<Entry> = table
            .get_ref()
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                line: line(key.span().start),
                value: Value::of(value.get_ref()),
            })
            .collect();
        entries.sort_by_key(|entry| entry.line);
        Ok(Self { path: path.to_owned(), entries })
    }
}

impl Value {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("a number beyond 64 bits"), Self::Whole),
            DeValue::Float(_) => Self::Other("a fraction"),
            DeValue::Datetime(_) => Self::Other("a time"),
            DeValue::Array(_) => Self::Other("a list"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }

    /// What it is, in words.
    pub const fn form(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Whole(_) => "a whole number",
            Self::Flag(_) => "true or false",
            Self::Other(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, FileError> {
        File::parse(Path::new("a.toml"), text)
    }

    #[test]
    fn every_value_has_its_line() {
        let text = "# why\nb = \"two\"\n\na = 0x10 # ten and six\nc = false\nd = 1.5\ne = [1]\n[f]\ng = 1\n";
        let entry = |key: &str, line, value| Entry { key: key.to_owned(), line, value };
        let expected = [
            entry("b", 2, Value::Text("two".to_owned())),
            entry("a", 4, Value::Whole(16)),
            entry("c", 5, Value::Flag(false)),
            entry("d", 6, Value::Other("a fraction")),
            entry("e", 7, Value::Other("a list")),
            entry("f", 8, Value::Other("a table")),
        ];
        assert_eq!(parse(text).unwrap().entries, expected);
        assert_eq!(parse("").unwrap().entries, []);
        assert_eq!(parse("a = 9223372036854775807\n").unwrap().entries[0].value, Value::Whole(i64::MAX));
        assert!(matches!(parse("a = 1_000").unwrap().entries[0].value, Value::Whole(1000)));
    }

    #[test]
    fn what_is_not_toml_names_the_line() {
        for (text, line) in [
            ("a = 1\nb = \n", 2),
            ("a = 1\n\na = 2\n", 3),
            ("a = yes\n", 1),
            ("a = \"x\n", 1),
            ("a = 1\n: b\n", 2),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("a.toml:{line}: ")), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let code = || File::read(&path).unwrap_err().code();
        assert_eq!(code(), "File");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(code(), "ConfigSyntax");
        fs::write(&path, "#".repeat(65_537)).unwrap();
        assert_eq!(code(), "ConfigSyntax");
        fs::write(&path, "#".repeat(65_536)).unwrap();
        assert_eq!(File::read(&path).unwrap().entries, []);
    }
}
