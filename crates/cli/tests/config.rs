//! The configuration file: its layers, what is said of a wrong one, and the schemas of all three kinds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/edge.rs"]
mod edge;

use std::collections::BTreeMap;

use boon::{Compiler, Schemas};
use common::{Desk, Said, said};
use serde_json::{Value, json};

/// A desk with this file in its place.
fn desk(content: &str) -> Desk {
    let desk = Desk::new();
    desk.write("config/requiem/config.toml", content);
    desk
}

/// Runs a command that finds the desk's file, with these variables.
fn requiem(desk: &Desk, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = desk.command(arguments);
    for name in ["REQUIEM_CONFIG", "REQUIEM_CAS", "REQUIEM_TENANT", "REQUIEM_ENGINE"] {
        command.env_remove(name);
    }
    said(&command.envs(variables.iter().copied()).output().unwrap())
}

/// What `config show` says: by name, value, origin and place.
fn shown(desk: &Desk, variables: &[(&str, &str)], flags: &[&str]) -> BTreeMap<String, [String; 3]> {
    let said = requiem(desk, variables, &[&["config", "show", "--json"], flags].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let text = |row: &Value, name: &str| {
        let text = row[name].as_str().unwrap_or("-").to_owned();
        text.replace(&desk.path("").display().to_string(), "")
    };
    let document = said.json();
    let rows = document["settings"].as_array().unwrap();
    let row = |row: &Value| (text(row, "name"), ["value", "origin", "place"].map(|name| text(row, name)));
    rows.iter().map(row).collect()
}

#[test]
fn each_layer_stands_above_the_one_below_and_says_so() {
    let desk = desk("configVersion = 1\n\ncas = \"../../from-file\"\ntenant = \"from-file\"\n");
    let row = |value: &str, origin: &str, place: &str| [value, origin, place].map(str::to_owned);
    let file = shown(&desk, &[], &[]);
    assert_eq!(file["tenant"], row("from-file", "file", "config/requiem/config.toml:4"));
    assert_eq!(file["cas"], row("config/requiem/../../from-file", "file", "config/requiem/config.toml:3"));
    assert_eq!(file["engine"], row("requiem", "default", "-"));
    let above = shown(&desk, &[("REQUIEM_TENANT", "from-env")], &["--cas", "from-flag"]);
    assert_eq!(above["tenant"], row("from-env", "environment", "REQUIEM_TENANT"));
    assert_eq!(above["cas"], row("from-flag", "flag", "--cas"));
    let flag = shown(&desk, &[("REQUIEM_TENANT", "from-env")], &["--tenant=from-flag"]);
    assert_eq!(flag["tenant"], row("from-flag", "flag", "--tenant"));
    let without = shown(&desk, &[("REQUIEM_CONFIG", "")], &[]);
    assert_eq!(without["tenant"], row("default", "default", "-"));
    assert_eq!(without["cas"], row("data/requiem/cas", "default", "-"));
    desk.write("other.toml", "configVersion = 1\nengine = \"rust\"\n");
    let other = shown(&desk, &[("REQUIEM_CONFIG", "other.toml")], &[]);
    assert_eq!(other["engine"], row("rust", "file", "other.toml:2"));
}

#[test]
fn commands_do_what_is_shown() {
    let desk = desk("configVersion = 1\ncas = \"../../there\"\ntenant = \"team\"\nengine = \"rust\"\n");
    desk.write("file", "hello");
    let put = requiem(&desk, &[], &["cas", "put", "file", "--json"]);
    assert_eq!(put.code, 0, "{put:?}");
    assert!(desk.path("there/tenants").is_dir() && !desk.path("data").exists());
    let ls = |variables: &[(&str, &str)]| requiem(&desk, variables, &["cas", "ls"]).stdout;
    // Whoever lists sees all tenants: that --tenant means something else, and no setting reaches it.
    assert_eq!(requiem(&desk, &[("REQUIEM_TENANT", "other")], &["cas", "put", "file"]).code, 0);
    let listed = ls(&[]);
    assert!(
        listed.lines().count() == 2 && listed.contains("  team\n") && listed.contains("  other"),
        "{listed}"
    );
    let layers: serde_json::Map<String, Value> = requiem_model::Layer::ALL
        .into_iter()
        .map(|layer| (layer.name().to_owned(), json!("preferred")))
        .collect();
    let mut request = json!({"command": "true", "policy": {"layers": layers}});
    desk.write("request.json", request.to_string());
    let run = requiem(&desk, &[], &["exec", "run", "--request", "request.json", "--json"]);
    let document = run.json();
    assert_eq!(
        (run.code, &document["engine"]["name"], &document["tenant_id"]),
        (0, &json!("rust"), &json!("team"))
    );
    request["tenant_id"] = "own".into();
    desk.write("request.json", request.to_string());
    let run = requiem(
        &desk,
        &[("REQUIEM_ENGINE", "requiem")],
        &["--json", "exec", "run", "--request", "request.json", "--engine=rust"],
    );
    assert_eq!(
        (&run.json()["engine"]["name"], &run.json()["tenant_id"]),
        (&json!("rust"), &json!("own")),
        "{run:?}"
    );
}

#[test]
fn a_wrong_file_stops_what_would_read_it_and_nothing_else() {
    let desk = desk("configVersion = 1\ntenant = 5\n");
    let said = requiem(&desk, &[], &["cas", "put", "absent"]);
    assert_eq!(said.code, 2, "{said:?}");
    let place = desk.path("config/requiem/config.toml");
    let expected = format!(
        "error: {}:2: tenant is a whole number, not text [ConfigType]\n hint: --tenant: Whose objects: a Kubernetes namespace, or default.\n",
        place.display()
    );
    assert_eq!(said.stderr, expected);
    let json = requiem(&desk, &[], &["cas", "put", "absent", "--json"]);
    assert_eq!(json.json()["error_code"], "ConfigType");
    for arguments in
        [&["version"][..], &["schema"], &["man", "config", "show"], &["completions", "bash"], &["--help"]]
    {
        assert_eq!(requiem(&desk, &[], arguments).code, 0, "{arguments:?}");
    }
    let judged = requiem(&desk, &[], &["config", "validate"]);
    assert!(judged.code == 2 && judged.stdout.contains(":2: tenant is a whole number"), "{judged:?}");
    for (variables, code) in
        [(("REQUIEM_CONFIG", "absent.toml"), "[File]"), (("REQUIEM_CONFIG", "."), "[File]")]
    {
        let said = requiem(&desk, &[variables], &["config", "show"]);
        assert!(said.code == 2 && said.stderr.contains(code) && said.stderr.contains("hint:"), "{said:?}");
    }
}

#[test]
fn an_unknown_field_is_told_and_passed_over() {
    let desk = desk("configVersion = 1\ntennant = \"x\"\n");
    let said = requiem(&desk, &[], &["config", "show"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.starts_with("warning: ") && said.stderr.contains(":2: tennant is no setting"),
        "{said:?}"
    );
    assert!(said.stderr.contains("did you mean tenant?"), "{said:?}");
    assert!(said.stdout.contains("tenant   default"), "{said:?}");
}

#[test]
fn the_file_of_each_program_is_judged() {
    let desk = Desk::new();
    for (name, content, arguments, code, part) in [
        (
            "good",
            "configVersion = 1\nkind = \"operator\"\nconcurrency = 5\n",
            &[][..],
            0,
            "ok, 1 setting for operator",
        ),
        (
            "kind",
            "configVersion = 1\nstore = \"/s\"\n",
            &["--kind", "executor"],
            0,
            "ok, 1 setting for executor",
        ),
        (
            "warn",
            "configVersion = 1\nkind = \"executor\"\nadmin-listen = \"x\"\n",
            &[],
            1,
            "did you mean adminListen?",
        ),
        (
            "type",
            "configVersion = 1\nkind = \"executor\"\nslots = \"4\"\nquue = 1\n",
            &[],
            2,
            "type.toml:3: slots is text",
        ),
        ("value", "configVersion = 1\nkind = \"executor\"\nslots = 0\n", &[], 2, "0 is not in 1..=1024"),
        (
            "other",
            "configVersion = 1\nkind = \"executor\"\n",
            &["--kind", "operator"],
            2,
            "kind is not operator",
        ),
        ("none", "kind = \"operator\"\n", &[], 2, "configVersion is missing"),
        ("new", "configVersion = 2\n", &[], 2, "configVersion is 2"),
        ("syntax", "configVersion = 1\n\nslots: 4\n", &[], 2, "syntax.toml:3: "),
    ] {
        let file = format!("{name}.toml");
        desk.write(&file, content);
        let said = desk.requiem(&[&["config", "validate", &file], arguments].concat());
        assert_eq!(said.code, code, "{name}: {said:?}");
        assert!(format!("{}{}", said.stdout, said.stderr).contains(part), "{name}: {said:?}");
    }
    let both = desk.requiem(&["config", "validate", "type.toml"]);
    assert!(
        both.stdout.contains("warning: type.toml:4: quue is no setting"),
        "all problems are told: {both:?}"
    );
}

#[test]
fn what_cannot_be_read_or_told_is_said() {
    let desk = Desk::new();
    let locked = desk.write("locked.toml", "configVersion = 1\n");
    std::fs::set_permissions(locked, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::set_permissions(desk.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for file in ["locked.toml", "absent.toml", "."] {
        let said = edge::unprivileged(&desk, &["config", "validate", file]);
        assert!(
            said.code == 2 && said.stderr.contains("[File]") && said.stderr.contains("hint: "),
            "{said:?}"
        );
    }
    desk.write("binary.toml", [0xff; 10]);
    let binary = desk.requiem(&["config", "validate", "binary.toml", "--json"]);
    assert_eq!((binary.code, &binary.json()["error_code"]), (2, &json!("ConfigSyntax")));
    desk.write("good.toml", "configVersion = 1\n");
    for (to, code) in [("/dev/full", 2), ("/dev/null", 0)] {
        let mut command = desk.command(&["config", "validate", "good.toml"]);
        let said =
            said(&command.stdout(std::fs::File::options().write(true).open(to).unwrap()).output().unwrap());
        assert_eq!(said.code, code, "{to}: {said:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = said(&desk.command(&["config", "show"]).stdout(writer).output().unwrap());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "a closed pipe");
}

/// Whether a document is what its schema says.
fn fits(schema: &Value, document: &Value) -> bool {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("mem:///schema.json", schema.clone()).unwrap();
    let index = compiler.compile("mem:///schema.json", &mut schemas).unwrap();
    schemas.validate(document, index).is_ok()
}

/// A document as a file.
fn toml(document: &Value) -> String {
    let line = |(name, value): (&String, &Value)| format!("{name} = {value}\n");
    document.as_object().unwrap().iter().map(line).collect()
}

#[test]
fn the_schemas_say_of_fields_and_types_what_the_program_says() {
    let desk = Desk::new();
    let check = |kind: &str, document: Value, is_good: bool| {
        let schema = desk.requiem(&["schema", &format!("config-{kind}")]);
        let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
        assert_eq!(fits(&schema, &document), is_good, "the schema says otherwise of {document}");
        desk.write("judged.toml", toml(&document));
        let said = desk.requiem(&["config", "validate", "judged.toml", "--kind", kind]);
        assert_eq!(said.code == 0, is_good, "{document}: {said:?}");
    };
    let defaults = |kind: &str| {
        let schema = desk.requiem(&["schema", &format!("config-{kind}")]);
        let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
        let mut document = json!({"configVersion": 1, "kind": kind});
        for (name, property) in schema["properties"].as_object().unwrap() {
            if let Some(default) = property.get("default") {
                document[name] = default.clone();
            }
        }
        document
    };
    for kind in ["cli", "operator", "executor"] {
        let whole = defaults(kind);
        assert!(whole.as_object().unwrap().len() >= 4, "{whole}");
        check(kind, whole, true);
        for (name, value) in [("configVersion", json!(2)), ("kind", json!("none")), ("colour", json!(1))] {
            let mut document = json!({"configVersion": 1});
            document[name] = value;
            check(kind, document, false);
        }
        check(kind, json!({}), false);
    }
    for (kind, name, good, bad) in [
        ("cli", "tenant", json!("a"), json!(true)),
        ("cli", "cas", json!("/a"), json!(["a"])),
        ("operator", "concurrency", json!(7), json!("7")),
        ("operator", "logJson", json!(true), json!(1)),
        ("executor", "slots", json!(3), json!(-3)),
        ("executor", "store", json!("x"), json!(1.5)),
    ] {
        for (value, is_good) in [(good, true), (bad, false)] {
            let mut document = json!({"configVersion": 1});
            document[name] = value;
            check(kind, document, is_good);
        }
    }
}
