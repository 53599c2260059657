//! A command line with a file below it.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Command, Parser};

use crate::check::{Checked, Problem, Setting, Severity, check};
use crate::file::File;
use crate::keys::{Key, Keys};

/// From where the value of a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The command line says it: the text behind the flag, empty if there is none.
    Flag,
    /// A variable of the environment says it.
    Environment,
    /// The file says it.
    File(&'a Setting),
    /// Nobody says anything.
    Default,
}

/// From where the value of `key` is, for a command with these arguments behind its name.
pub fn origin<'a>(key: &Key, arguments: &[OsString], checked: &'a Checked) -> Origin<'a> {
    if given(arguments, &key.flag).is_some() {
        return Origin::Flag;
    }
    if key.variable.as_ref().is_some_and(|name| std::env::var_os(name).is_some()) {
        return Origin::Environment;
    }
    checked.settings.iter().find(|setting| setting.name == key.name).map_or(Origin::Default, Origin::File)
}

/// The command that these arguments name, and how many of them name it, the program included. Right where no flag above the last
/// command takes a value of its own.
pub fn leaf<'a>(root: &'a Command, arguments: &[OsString]) -> (&'a Command, usize) {
    let (mut command, mut named) = (root, arguments.len().min(1));
    for (index, word) in arguments.iter().enumerate().skip(1) {
        if word.as_encoded_bytes().starts_with(b"-") {
            continue;
        }
        match command.find_subcommand(word) {
            Some(below) => (command, named) = (below, index + 1),
            None => break,
        }
    }
    (command, named)
}

/// Puts the settings of a file behind the words that name the command, each as its flag, if that command has it and neither flag nor
/// environment says something.
pub fn settle(root: &Command, mut arguments: Vec<OsString>, keys: &Keys, checked: &Checked) -> Vec<OsString> {
    let (command, at) = leaf(root, &arguments);
    let settled = |key: &&Key| key.is_taken_by(command);
    let words: Vec<OsString> = keys
        .iter()
        .filter(settled)
        .filter_map(|key| match origin(key, &arguments[at..], checked) {
            Origin::File(setting) => key.word(&setting.value),
            _ => None,
        })
        .collect();
    arguments.splice(at..at, words);
    arguments
}

/// What a command line says behind a flag; empty if nothing is.
pub fn given(arguments: &[OsString], flag: &str) -> Option<OsString> {
    let mut words = arguments.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == flag {
            return Some(words.next().cloned().unwrap_or_default());
        }
        let value = word.to_str().and_then(|word| word.strip_prefix(flag)?.strip_prefix('='));
        if let Some(value) = value {
            return Some(value.into());
        }
    }
    None
}

/// Reads the command line of a daemon with the file that its flag `--config`, or the variable of that flag, names; gives also what is
/// wrong with the file without being a reason to refuse it.
///
/// # Errors
/// A command line that is wrong, a file that cannot be used; or help and version, as clap has it.
pub fn parse<P: Parser>(
    keys: &Keys,
    arguments: impl Iterator<Item = OsString>,
) -> Result<(P, Vec<String>), clap::Error> {
    let mut root = P::command();
    let arguments: Vec<OsString> = arguments.collect();
    let Some(path) = named(&root, &arguments) else {
        return Ok((P::try_parse_from(arguments)?, Vec::new()));
    };
    let refuse = |root: &mut Command, why: String| root.error(ErrorKind::ValueValidation, why);
    let file =
        File::read(&path).map_err(|error| refuse(&mut root, format!("{error}\n hint: {}", error.hint())))?;
    let checked = check(&file, keys);
    let (errors, warnings): (Vec<&Problem>, Vec<&Problem>) =
        checked.problems.iter().partition(|problem| problem.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(refuse(&mut root, told(&errors, &path)));
    }
    let warnings =
        warnings.iter().map(|problem| format!("{}; {}", problem.line(&path), problem.hint)).collect();
    Ok((P::try_parse_from(settle(&root, arguments, keys, &checked))?, warnings))
}

/// The file that the command line or the environment names, if this command takes one.
fn named(root: &Command, arguments: &[OsString]) -> Option<PathBuf> {
    let (command, at) = leaf(root, arguments);
    let flag = command.get_arguments().find(|argument| argument.get_id() == "config")?;
    let variable = || flag.get_env().and_then(|name: &OsStr| std::env::var_os(name));
    given(&arguments[at..], "--config").or_else(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn told(problems: &[&Problem], path: &Path) -> String {
    let mut text = String::new();
    for problem in problems {
        let end = if text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{end}{}\n hint: {}", problem.line(path), problem.hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Subcommand};

    use super::*;
    use crate::executor::{self, ServeArgs};
    use crate::operator;

    #[derive(Debug, Parser)]
    #[command(name = "requiem-executor")]
    struct Cli {
        #[command(subcommand)]
        command: Below,
    }

    #[derive(Debug, Subcommand)]
    enum Below {
        Serve(Box<ServeArgs>),
        Other {
            #[arg(long)]
            name: Option<String>,
        },
    }

    /// Parses with a file of this content, if there is to be one.
    fn read<P: Parser>(
        keys: &Keys,
        content: Option<&str>,
        words: &[&str],
    ) -> Result<(P, Vec<String>), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
            arguments.extend(["--config".into(), path.clone().into_os_string()]);
        }
        let place = format!("{}/", folder.path().display());
        let read = parse(keys, arguments.into_iter());
        read.map_err(|error| error.to_string().replace(&place, ""))
    }

    #[test]
    fn a_file_stands_below_the_flags_and_satisfies_what_is_required() {
        let serve = |content: &str, words: &[&str]| {
            let (cli, warnings) = read::<Cli>(
                &executor::keys(),
                Some(content),
                &[&["requiem-executor", "serve"], words].concat(),
            )?;
            match cli.command {
                Below::Serve(args) => Ok((args, warnings)),
                Below::Other { .. } => Err("another command".to_owned()),
            }
        };
        let whole = "configVersion = 1\nstore = \"/s\"\ntlsCert = \"/c\"\ntlsKey = \"/k\"\nclientCa = \"/a\"\nslots = 3\nonce = true\n";
        let (args, warnings) = serve(whole, &["--slots", "5", "--queue=7"]).unwrap();
        assert_eq!((args.slots, args.queue, args.once, args.keep_acked), (Some(5), 7, true, 4096));
        assert_eq!((args.store, args.client_ca), ("/s".into(), "/a".into()));
        assert_eq!(warnings, Vec::<String>::new());
        let (_, warnings) = serve(&format!("{whole}slot = 1\n"), &[]).unwrap();
        assert!(
            warnings[0].ends_with(
                "a.toml:8: slot is no setting, and was passed over [ConfigUnknownField]; did you mean slots?"
            ),
            "{warnings:?}"
        );
        // What is behind -- is no flag, so the file still says it; and then the word is one too many.
        assert!(serve(whole, &["--", "--slots=9"]).unwrap_err().contains("--slots=9"));
        assert!(serve("configVersion = 1\n", &[]).unwrap_err().contains("--store"));
    }

    #[test]
    fn another_command_takes_nothing_from_a_file() {
        let cli = Cli::command();
        let keys = executor::keys();
        let checked = check(&File::parse(Path::new("a"), "configVersion = 1\nname = \"x\"").unwrap(), &keys);
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let settled = |command: &str| settle(&cli, words(&["requiem-executor", command]), &keys, &checked);
        assert_eq!(settled("serve"), words(&["requiem-executor", "serve", "--name=x"]));
        // Its --name has no variable, so it is no setting.
        assert_eq!(settled("other"), words(&["requiem-executor", "other"]));
        assert_eq!(settled("none"), words(&["requiem-executor", "none"]));
    }

    #[test]
    fn what_belongs_together_may_come_from_two_layers() {
        let keys = operator::keys();
        let content = "configVersion = 1\ntlsCert = \"/c\"\nexecutorCa = \"/a\"\nleaderElect = true\n";
        let with = |words: &[&str]| {
            read::<operator::Args>(&keys, Some(content), &[&["requiem-operator"], words].concat())
        };
        let (args, _) = with(&["--tls-key", "/k", "--own-namespace", "here"]).unwrap();
        assert_eq!((args.tls_cert, args.tls_key), (Some("/c".into()), Some("/k".into())));
        assert!(args.leader_elect);
        assert!(with(&["--own-namespace", "here"]).unwrap_err().contains("--tls-key"));
        assert!(with(&["--tls-key", "/k"]).unwrap_err().contains("--own-namespace"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_its_line() {
        let keys = operator::keys();
        let refused =
            |content: &str| read::<operator::Args>(&keys, Some(content), &["requiem-operator"]).unwrap_err();
        let said = refused("configVersion = 1\n\nconcurrency = \"5\"\nleaseSeconds = 1\n");
        assert!(said.contains("a.toml:3: concurrency is text, not a whole number [ConfigType]"), "{said}");
        assert!(
            said.contains("a.toml:4: leaseSeconds is \"1\": 1 is not in 3..=300 [ConfigValue]"),
            "{said}"
        );
        assert!(refused("configVersion = \n").contains("a.toml:1: "));
        let absent = ["requiem-operator", "--config", "/absent/a.toml"];
        let said = read::<operator::Args>(&keys, None, &absent).unwrap_err();
        assert!(said.contains("cannot read /absent/a.toml: ") && said.contains("hint: "), "{said}");
        assert!(read::<operator::Args>(&keys, None, &["requiem-operator"]).is_ok());
    }
}
