//! Which keys a file may have: those of the flags of a program.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use crate::nearest::nearest;

/// The version of the file that is read: what its `configVersion` must be.
pub const VERSION: i64 = 1;
/// Keys that are about the file itself.
pub(crate) const VERSION_KEY: &str = "configVersion";
pub(crate) const KIND_KEY: &str = "kind";

/// All keys of one kind of file.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What a file calls its kind: `cli`, `operator` or `executor`.
    pub kind: &'static str,
    keys: Vec<Key>,
    /// Takes each flag alone, to have its value judged.
    pub(crate) judge: Command,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name in the file, like `adminListen`.
    pub name: String,
    /// Its flag, like `--admin-listen`.
    pub flag: String,
    /// Its variable in the environment.
    pub variable: Option<String>,
    /// Which values it takes.
    pub form: Form,
    /// What holds if nothing is said, if that is a value.
    pub default: Option<String>,
    /// What it is for, one sentence.
    pub help: String,
    /// The definition that all this is from.
    pub(crate) argument: Arg,
}

/// Which values a key takes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Whole,
    /// Text.
    Text,
    /// Text that is a path; a relative one starts from the folder of the file.
    Path,
}

impl Keys {
    /// The keys of a program: its flags, but for help, version and the name of the file.
    pub fn of(kind: &'static str, command: Command) -> Self {
        let keys = command.get_arguments().filter_map(Key::of).collect();
        let judge = command.mut_args(|argument| argument.required(false).env(None));
        Self { kind, keys, judge }
    }

    /// All of them, in the order in which the program names them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The key of that name in a file.
    pub fn find(&self, name: &str) -> Option<&Key> {
        self.iter().find(|key| key.name == name)
    }

    /// The name that was meant by `word`, if one is like it.
    pub(crate) fn meant(&self, word: &str) -> Option<&str> {
        let own = [VERSION_KEY, KIND_KEY];
        nearest(word, self.iter().map(|key| key.name.as_str()).chain(own))
    }
}

impl Key {
    fn of(argument: &Arg) -> Option<Self> {
        let long = argument.get_long()?;
        let takes = argument.get_action().takes_values();
        let is_setting = takes || matches!(argument.get_action(), ArgAction::SetTrue);
        if !is_setting || argument.get_id() == "config" {
            return None;
        }
        let text = |text: &OsStr| text.to_string_lossy().into_owned();
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        Some(Self {
            name: camel(long),
            flag: format!("--{long}"),
            variable: argument.get_env().map(text),
            form: Form::of(argument),
            default: argument.get_default_values().first().filter(|_| takes).map(|value| text(value)),
            help: help.split(" [default: ").next().unwrap_or_default().trim_end_matches('.').to_owned() + ".",
            argument: argument.clone(),
        })
    }
}

impl Key {
    /// Whether a command has this setting. An argument of the same name may mean something else: what is the setting has its variable.
    pub fn is_taken_by(&self, command: &Command) -> bool {
        let mut arguments = command.get_arguments();
        arguments.any(|it| it.get_id() == self.argument.get_id() && it.get_env() == self.argument.get_env())
    }

    /// The word that says this value on a command line; none for a flag that is off.
    pub(crate) fn word(&self, value: &OsStr) -> Option<OsString> {
        if self.form == Form::Flag {
            return (value == "true").then(|| OsString::from(&self.flag));
        }
        let mut word = OsString::from(format!("{}=", self.flag));
        word.push(value);
        Some(word)
    }
}

impl Form {
    fn of(argument: &Arg) -> Self {
        let value = argument.get_value_parser().type_id();
        let numbers = [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
        match () {
            () if !argument.get_action().takes_values() => Self::Flag,
            () if numbers.into_iter().any(|number| value == number) => Self::Whole,
            () if value == TypeId::of::<PathBuf>() => Self::Path,
            () => Self::Text,
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Whole => "a whole number",
            Self::Text => "text",
            Self::Path => "text, a path",
        }
    }
}

/// `admin-listen` as `adminListen`.
fn camel(long: &str) -> String {
    let mut words = long.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        let head = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &head.into_iter().chain(letters).collect::<String>()
    })
}
