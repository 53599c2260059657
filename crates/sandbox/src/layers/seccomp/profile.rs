//! The profile document (`config/profiles/seccomp/*.json`) and its translation to numbers.

use std::collections::BTreeMap;

use nix::errno::Errno;
use serde::Deserialize;

use super::SeccompError;
use super::numbers::{self, Number};
use super::policy::{Action, Clause, Policy, Rule, Test};

/// The one schema this code reads.
const SCHEMA: &str = "requiem.seccomp-profile/1";

/// A profile as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    schema: String,
    #[expect(dead_code, reason = "for the reader of the file; required so that nobody leaves it out")]
    name: String,
    #[expect(dead_code, reason = "for the reader of the file; required so that nobody leaves it out")]
    about: String,
    rules: Vec<RuleText>,
}

/// One answer for several calls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[expect(dead_code, reason = "for the reader of the file; required so that nobody leaves it out")]
    why: String,
    syscalls: Vec<String>,
    #[serde(default)]
    when: Vec<ClauseText>,
    action: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClauseText {
    #[serde(rename = "if")]
    tests: Vec<TestText>,
    then: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestText {
    arg: u8,
    /// Names or-ed together; absent means all 32 bits.
    mask: Option<Vec<String>>,
    #[serde(rename = "in")]
    values: Vec<String>,
}

impl Profile {
    /// Reads a profile.
    pub(super) fn parse(text: &str) -> Result<Self, SeccompError> {
        let profile: Self = serde_json::from_str(text).map_err(|source| SeccompError::Syntax { source })?;
        if profile.schema != SCHEMA {
            return Err(SeccompError::Schema { found: profile.schema });
        }
        Ok(profile)
    }

    /// Names become numbers; what this architecture does not have is left out.
    pub(super) fn resolve(&self) -> Result<Policy, SeccompError> {
        let known = numbers::table();
        let mut rules = BTreeMap::new();
        for text in &self.rules {
            let rule = text.resolve()?;
            for name in &text.syscalls {
                let number =
                    known.get(name.as_str()).ok_or_else(|| SeccompError::name("system call", name))?;
                if let Number::Is(number) = *number
                    && rules.insert(number, rule.clone()).is_some()
                {
                    return Err(SeccompError::Twice { name: name.clone() });
                }
            }
        }
        Ok(Policy { rules, unknown: Action::Errno(errno(Errno::ENOSYS)) })
    }
}

impl RuleText {
    fn resolve(&self) -> Result<Rule, SeccompError> {
        let clauses = self.when.iter().map(ClauseText::resolve).collect::<Result<_, _>>()?;
        Ok(Rule { clauses, otherwise: action(&self.action)? })
    }
}

impl ClauseText {
    fn resolve(&self) -> Result<Clause, SeccompError> {
        let tests = self.tests.iter().map(TestText::resolve).collect::<Result<Vec<_>, _>>()?;
        if tests.is_empty() {
            return Err(SeccompError::name("clause without conditions, action", &self.then));
        }
        Ok(Clause { tests, action: action(&self.then)? })
    }
}

impl TestText {
    fn resolve(&self) -> Result<Test, SeccompError> {
        let mask = match &self.mask {
            None => u32::MAX,
            Some(names) => {
                names.iter().try_fold(0, |bits, name| Ok::<_, SeccompError>(bits | constant(name)?))?
            }
        };
        let values = self.values.iter().map(|name| constant(name)).collect::<Result<Vec<_>, _>>()?;
        // A value outside the mask can never match: the rule would be dead without anybody noticing.
        if self.arg > 5 || values.is_empty() || values.iter().any(|value| value & !mask != 0) {
            return Err(SeccompError::Test { arg: self.arg, values: self.values.join(", ") });
        }
        Ok(Test { arg: self.arg, mask, values })
    }
}

/// `allow` or the name of an error.
fn action(name: &str) -> Result<Action, SeccompError> {
    let error = match name {
        "allow" => return Ok(Action::Allow),
        "EPERM" => Errno::EPERM,
        "ENOSYS" => Errno::ENOSYS,
        "EAFNOSUPPORT" => Errno::EAFNOSUPPORT,
        "EPROTONOSUPPORT" => Errno::EPROTONOSUPPORT,
        _ => return Err(SeccompError::name("action", name)),
    };
    Ok(Action::Errno(errno(error)))
}

/// Error numbers are below 4096.
pub(super) const fn errno(error: Errno) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "error numbers are below 4096")]
    let number = error as i32 as u16;
    number
}

/// A number in hexadecimal or a constant of the kernel's interface.
fn constant(name: &str) -> Result<u32, SeccompError> {
    if let Some(digits) = name.strip_prefix("0x") {
        return u32::from_str_radix(digits, 16).map_err(|_| SeccompError::name("number", name));
    }
    CONSTANTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
        .ok_or_else(|| SeccompError::name("constant", name))
}

/// Constants of the kernel's interface that profiles use, the same on every architecture we build for.
const CONSTANTS: &[(&str, u32)] = &[
    ("AF_UNIX", 1),
    ("AF_INET", 2),
    ("AF_INET6", 10),
    ("SOCK_TYPE_MASK", 0xf),
    ("SOCK_STREAM", 1),
    ("SOCK_DGRAM", 2),
    ("IPPROTO_IP", 0),
    ("IPPROTO_TCP", 6),
    ("IPPROTO_UDP", 17),
    ("CLONE_NEWTIME", 0x0000_0080),
    ("CLONE_NEWNS", 0x0002_0000),
    ("CLONE_NEWCGROUP", 0x0200_0000),
    ("CLONE_NEWUTS", 0x0400_0000),
    ("CLONE_NEWIPC", 0x0800_0000),
    ("CLONE_NEWUSER", 0x1000_0000),
    ("CLONE_NEWPID", 0x2000_0000),
    ("CLONE_NEWNET", 0x4000_0000),
    ("TIOCSTI", 0x5412),
    ("TIOCLINUX", 0x541c),
    ("TIOCSETD", 0x5423),
    ("PERSONALITY_QUERY", 0xffff_ffff),
    ("ADDR_NO_RANDOMIZE", 0x0004_0000),
];
