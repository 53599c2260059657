//! The schemas of configuration files, from the flags of the programs that read them.

use requiem_config::{Form, Key, Keys, VERSION};
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use crate::config_arguments::Kind;
use crate::settings::keys;

/// Of the file of this program.
pub(crate) fn of_cli() -> Schema {
    of(&keys(Kind::Cli))
}

/// Of the operator's file.
pub(crate) fn of_operator() -> Schema {
    of(&keys(Kind::Operator))
}

/// Of the executor's file.
pub(crate) fn of_executor() -> Schema {
    of(&keys(Kind::Executor))
}

/// A file that fits it has no unknown field and no value of a wrong type. Which values of its type a field takes, `config validate` says.
fn of(keys: &Keys) -> Schema {
    let version = json!({"const": VERSION, "description": "The version of this form."});
    let kind = json!({"const": keys.kind, "description": "For which program the file is."});
    let own = [("configVersion".to_owned(), version), ("kind".to_owned(), kind)];
    let properties: Map<String, Value> =
        own.into_iter().chain(keys.iter().map(|key| (key.name.clone(), property(key)))).collect();
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": ["configVersion"],
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let variable = key.variable.as_ref().map_or_else(String::new, |name| format!(" or {name}"));
    let description = format!("{} Above it: {}{variable}.", key.help, key.flag);
    let mut property = match key.form {
        Form::Flag => json!({"type": "boolean", "default": false}),
        Form::Whole => json!({"type": "integer", "minimum": 0}),
        Form::Text | Form::Path => json!({"type": "string"}),
    };
    let number = |text: &String| text.parse::<u64>().ok().map(Value::from);
    let default = match key.form {
        Form::Whole => key.default.as_ref().and_then(number),
        _ => key.default.clone().map(Value::from),
    };
    property["description"] = description.into();
    if let Some(default) = default {
        property["default"] = default;
    }
    property
}
