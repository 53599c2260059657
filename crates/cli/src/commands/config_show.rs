//! `requiem config show`: the value of every setting, and from where it is.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use clap::CommandFactory;
use requiem_config::{Key, Origin, given, leaf, origin};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Arguments;
use crate::config_arguments::{Kind, Settings};
use crate::error::CommandError;
use crate::report::Report;
use crate::settings::{self, Configured};
use crate::store;
use crate::text::{printable, shown, table};

/// All settings.
#[derive(Serialize, JsonSchema)]
pub(super) struct Shown {
    ok: bool,
    /// The file that was read, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    settings: Vec<Row>,
}

/// One of them.
#[derive(Serialize, JsonSchema)]
struct Row {
    /// Its key in the file.
    name: String,
    /// For reading: a byte that is not UTF-8 shows as U+FFFD.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    origin: From,
    /// The place: FILE:LINE, the variable's name, or the flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// From which layer a value is.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum From {
    Default,
    File,
    Environment,
    Flag,
}

/// Runs the command. What the settings come to is worked out by the same function as for the commands that take them.
pub(crate) fn run(settings: &Settings) -> Result<Report, CommandError> {
    let keys = settings::keys(Kind::Cli);
    let Configured { file, checked } = settings::configured(&keys)?;
    let words: Vec<OsString> = env::args_os().collect();
    let root = Arguments::command();
    let (_, named) = leaf(&root, &words);
    let row =
        |key: &Key| Row::of(key, origin(key, &words[named..], &checked), &words[named..], file.as_deref());
    let mut rows: Vec<Row> = keys.iter().map(row).collect();
    for row in rows.iter_mut().filter(|row| row.name == "cas" && row.value.is_none()) {
        // The one default that depends on who asks.
        row.value = Some(store::folder(settings.store.cas.as_deref())?.to_string_lossy().into_owned());
    }
    let text = text(&rows, file.as_deref());
    let file = file.map(|path| path.to_string_lossy().into_owned());
    Ok(Report::new(&Shown { ok: true, file, settings: rows }, text, true))
}

impl Row {
    fn of(key: &Key, origin: Origin<'_>, words: &[OsString], file: Option<&Path>) -> Self {
        let text = |value: &OsString| value.to_string_lossy().into_owned();
        let variable = key.variable.clone().unwrap_or_default();
        let (value, origin, place) = match origin {
            Origin::Flag => (given(words, &key.flag).as_ref().map(text), From::Flag, Some(key.flag.clone())),
            Origin::Environment => {
                (env::var_os(&variable).as_ref().map(text), From::Environment, Some(variable))
            }
            Origin::File(setting) => {
                let file = file.unwrap_or(Path::new("")).to_string_lossy().into_owned();
                (Some(text(&setting.value)), From::File, Some(format!("{file}:{}", setting.line)))
            }
            Origin::Default => (key.default.clone(), From::Default, None),
        };
        Self { name: key.name.clone(), value, origin, place }
    }
}

fn text(rows: &[Row], file: Option<&Path>) -> String {
    let cells = |row: &Row| {
        let value = row.value.as_deref().map_or_else(|| "-".to_owned(), printable);
        let from = row.place.as_deref().map_or_else(|| "default".to_owned(), printable);
        [row.name.clone(), value, from]
    };
    let head = ["SETTING", "VALUE", "FROM"].map(str::to_owned);
    let rows: Vec<[String; 3]> = [head].into_iter().chain(rows.iter().map(cells)).collect();
    let file = file.map_or_else(|| "none".to_owned(), shown);
    format!("file: {file}\n{}", table(&rows))
}
