//! A file against the keys of a program: what it settles, and what is wrong with it.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use clap::error::ErrorKind;

use crate::file::{Entry, File, Value};
use crate::keys::{Form, KIND_KEY, Key, Keys, VERSION, VERSION_KEY};

/// What a file comes to.
#[derive(Debug, Default)]
pub struct Checked {
    /// What it settles.
    pub settings: Vec<Setting>,
    /// What is wrong with it, from above to below.
    pub problems: Vec<Problem>,
}

/// One setting of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub name: String,
    /// On which line it stands.
    pub line: usize,
    /// The value as it would stand behind the flag: `true` or `false` for one that takes none.
    pub value: OsString,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The rest of the file is used.
    Warning,
    /// The file is not used.
    Error,
}

/// What is wrong, as one stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A key that this program does not have.
    UnknownField,
    /// `configVersion` is not there, or is one that this program does not read.
    Version,
    /// The file is for another program.
    Kind,
    /// The value is of another type than the key's.
    Type,
    /// The value is none that the key can have.
    Value,
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What, in one word.
    pub code: Code,
    /// On which line; none if it is about what is not there.
    pub line: Option<usize>,
    /// Which key.
    pub field: String,
    /// What.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Judges a file.
pub fn check(file: &File, keys: &Keys) -> Checked {
    let mut checked = Checked::default();
    if !file.entries.iter().any(|entry| entry.key == VERSION_KEY) {
        let message = "is missing".to_owned();
        checked.problems.push(wrong(Code::Version, VERSION_KEY, None, message, version_hint()));
    }
    for entry in &file.entries {
        match judge(entry, keys, file.path.parent().unwrap_or(Path::new(""))) {
            Ok(setting) => checked.settings.extend(setting),
            Err(problem) => checked.problems.push(*problem),
        }
    }
    checked
}

fn judge(entry: &Entry, keys: &Keys, folder: &Path) -> Result<Option<Setting>, Box<Problem>> {
    let Entry { key: name, line, value } = entry;
    let fail = |code, message, hint| Err(Box::new(wrong(code, name, Some(*line), message, hint)));
    match name.as_str() {
        VERSION_KEY => match value {
            Value::Whole(VERSION) => Ok(None),
            Value::Whole(other) => {
                fail(Code::Version, format!("is {other}, which this program does not read"), version_hint())
            }
            other => fail(Code::Type, format!("is {}, not a whole number", other.form()), version_hint()),
        },
        KIND_KEY => match value {
            Value::Text(kind) if kind == keys.kind => Ok(None),
            Value::Text(_) => {
                let hint = format!("name another file, or write kind = \"{}\"", keys.kind);
                fail(Code::Kind, format!("is not {}: the file is for another program", keys.kind), hint)
            }
            other => {
                let hint = format!("write kind = \"{}\", or leave it out", keys.kind);
                fail(Code::Type, format!("is {}, not text", other.form()), hint)
            }
        },
        _ => match keys.find(name) {
            Some(key) => setting(keys, key, entry, folder).map(Some).map_err(Box::new),
            None => Err(Box::new(unknown(entry, keys))),
        },
    }
}

/// What an entry settles.
fn setting(keys: &Keys, key: &Key, entry: &Entry, folder: &Path) -> Result<Setting, Problem> {
    let value = match (key.form, &entry.value) {
        (Form::Flag, Value::Flag(flag)) => flag.to_string().into(),
        (Form::Whole, Value::Whole(number)) => number.to_string().into(),
        (Form::Text, Value::Text(text)) => OsString::from(text),
        // An empty path is refused by the flag, a relative one would depend on where the program is started.
        (Form::Path, Value::Text(text)) if text.is_empty() => OsString::new(),
        (Form::Path, Value::Text(text)) => folder.join(text).into_os_string(),
        (form, other) => {
            let message = format!("is {}, not {}", other.form(), form.words());
            return Err(wrong(Code::Type, &key.name, Some(entry.line), message, meaning(key)));
        }
    };
    match refusal(keys, key, &value) {
        None => Ok(Setting { name: key.name.clone(), line: entry.line, value }),
        Some(why) => Err(wrong(Code::Value, &key.name, Some(entry.line), why, meaning(key))),
    }
}

/// Why the flag does not take this value, by the flag's own words.
fn refusal(keys: &Keys, key: &Key, value: &OsString) -> Option<String> {
    let word = key.word(value)?;
    let error = keys.judge.clone().no_binary_name(true).try_get_matches_from([word]).err()?;
    let judged = [ErrorKind::InvalidValue, ErrorKind::ValueValidation, ErrorKind::InvalidUtf8];
    // What it requires beside it may stand anywhere.
    judged.contains(&error.kind()).then(|| {
        let text = error.to_string();
        let said = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let why = said.split_once("': ").map_or(said, |(_, why)| why);
        format!("is {:?}: {why}", value.to_string_lossy())
    })
}

fn unknown(entry: &Entry, keys: &Keys) -> Problem {
    let hint = match keys.meant(&entry.key) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("see requiem schema config-{}", keys.kind),
    };
    Problem {
        severity: Severity::Warning,
        ..wrong(
            Code::UnknownField,
            &entry.key,
            Some(entry.line),
            "is no setting, and was passed over".to_owned(),
            hint,
        )
    }
}

fn wrong(code: Code, field: &str, line: Option<usize>, message: String, hint: String) -> Problem {
    Problem { severity: Severity::Error, code, line, field: field.to_owned(), message, hint }
}

fn version_hint() -> String {
    format!("write {VERSION_KEY} = {VERSION}")
}

fn meaning(key: &Key) -> String {
    format!("{}: {}", key.flag, key.help)
}

impl Code {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownField => "ConfigUnknownField",
            Self::Version => "ConfigVersion",
            Self::Kind => "ConfigKind",
            Self::Type => "ConfigType",
            Self::Value => "ConfigValue",
        }
    }
}

impl Severity {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Problem {
    /// In which place of the file at `path` it is, and what, on one line.
    pub fn line(&self, path: &Path) -> String {
        let place = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{}{place}: {self}", path.display())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, message, .. } = self;
        write!(out, "{field} {message} [{}]", self.code.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{executor, operator};

    /// What is said of a file `/etc/a.toml`, each problem on one line, and its settings.
    fn judged(keys: &Keys, text: &str) -> (Vec<String>, Vec<String>) {
        let checked = check(&File::parse(Path::new("/etc/a.toml"), text).unwrap(), keys);
        let problem = |problem: &Problem| {
            let Problem { severity, code, line, field, message, hint } = problem;
            let line = line.map_or_else(|| "-".to_owned(), |line| line.to_string());
            format!("{} {} {line} {field} {message}; {hint}", severity.as_str(), code.as_str())
        };
        let setting = |it: &Setting| format!("{}:{}={}", it.line, it.name, it.value.to_string_lossy());
        (checked.problems.iter().map(problem).collect(), checked.settings.iter().map(setting).collect())
    }

    #[test]
    fn each_problem_has_its_line_field_and_remedy() {
        let keys = operator::keys();
        for (text, expected) in [
            ("", "error ConfigVersion - configVersion is missing; write configVersion = 1"),
            (
                "configVersion = 2",
                "error ConfigVersion 1 configVersion is 2, which this program does not read; write configVersion = 1",
            ),
            (
                "configVersion = \"1\"",
                "error ConfigType 1 configVersion is text, not a whole number; write configVersion = 1",
            ),
            (
                "configVersion = 1\nkind = \"executor\"",
                "error ConfigKind 2 kind is not operator: the file is for another program; name another file, or write kind = \"operator\"",
            ),
            (
                "configVersion = 1\nkind = 1",
                "error ConfigType 2 kind is a whole number, not text; write kind = \"operator\", or leave it out",
            ),
            (
                "configVersion = 1\n\nadmin-listen = \"a\"",
                "warning ConfigUnknownField 3 admin-listen is no setting, and was passed over; did you mean adminListen?",
            ),
            (
                "configVersion = 1\ncolour = \"red\"",
                "warning ConfigUnknownField 2 colour is no setting, and was passed over; see requiem schema config-operator",
            ),
            (
                "configVersion = 1\nconcurrency = \"5\"",
                "error ConfigType 2 concurrency is text, not a whole number; --concurrency: Executions that are reconciled at the same time.",
            ),
            (
                "configVersion = 1\nconcurrency = 65536",
                "error ConfigValue 2 concurrency is \"65536\": 65536 is not in 0..=65535; --concurrency: Executions that are reconciled at the same time.",
            ),
            (
                "configVersion = 1\nleaseSeconds = 2",
                "error ConfigValue 2 leaseSeconds is \"2\": 2 is not in 3..=300; --lease-seconds: Seconds after which a Lease that is not renewed is somebody else's.",
            ),
            (
                "configVersion = 1\nlogJson = \"true\"",
                "error ConfigType 2 logJson is text, not true or false; --log-json: Log lines as JSON.",
            ),
            (
                "configVersion = 1\n[logJson]\na = 1",
                "error ConfigType 2 logJson is a table, not true or false; --log-json: Log lines as JSON.",
            ),
            (
                "configVersion = 1\nadminListen = \"here\"",
                "error ConfigValue 2 adminListen is \"here\": invalid socket address syntax; --admin-listen: Address of /healthz, /readyz and /metrics (plain HTTP).",
            ),
        ] {
            assert_eq!(judged(&keys, text).0, [expected], "{text}");
        }
    }

    #[test]
    fn what_is_right_is_settled_and_relative_paths_start_from_the_file() {
        let text = "configVersion = 1\nkind = \"executor\"\nstore = \"store\"\ntlsKey = \"/k\"\nslots = 4\nonce = false\nname = \"é\"\n";
        let settings = ["3:store=/etc/store", "4:tlsKey=/k", "5:slots=4", "6:once=false", "7:name=é"];
        assert_eq!(judged(&executor::keys(), text), (Vec::new(), settings.map(str::to_owned).to_vec()));
        // What a flag requires beside it may stand on the command line.
        let text = "configVersion = 1\ntlsCert = \"/c\"\nleaderElect = true\n";
        assert_eq!(judged(&operator::keys(), text).0, Vec::<String>::new());
    }

    #[test]
    fn every_flag_of_a_daemon_is_a_key_with_a_variable() {
        for (keys, least) in [(operator::keys(), 13), (executor::keys(), 14)] {
            assert!(keys.iter().count() >= least, "{keys:?}");
            for key in keys.iter() {
                assert!(!["configVersion", "kind", "config"].contains(&key.name.as_str()), "{key:?}");
                assert!(key.help.len() > 10, "{key:?}");
            }
        }
        let form = |keys: &Keys, name: &str| keys.find(name).unwrap().form;
        let operator = operator::keys();
        for (name, expected) in [
            ("leaderElect", Form::Flag),
            ("leaseSeconds", Form::Whole),
            ("tlsKey", Form::Path),
            ("adminListen", Form::Text),
        ] {
            assert_eq!(form(&operator, name), expected, "{name}");
        }
        assert_eq!(form(&executor::keys(), "slots"), Form::Whole);
        assert_eq!(executor::keys().find("queue").unwrap().default.as_deref(), Some("1024"));
    }
}
