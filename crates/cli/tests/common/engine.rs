//! Engines for tests: programs that speak `requiem-engine/1`, and requests that any engine takes.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::common::{Desk, Said, repository, said};

/// A desk with a folder of its own for temporary files.
pub(crate) fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("tmp")).unwrap();
    desk
}

/// Runs the program with temporary files in the desk's own folder.
pub(crate) fn requiem(desk: &Desk, arguments: &[&str]) -> Said {
    let mut command = desk.command(arguments);
    said(&command.env("TMPDIR", desk.path("tmp")).output().unwrap())
}

/// Nothing of a run is left there.
pub(crate) fn assert_tidy(desk: &Desk) {
    let left: Vec<_> =
        std::fs::read_dir(desk.path("tmp")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Every layer preferred.
pub(crate) fn preferred() -> Value {
    let layers: serde_json::Map<String, Value> = requiem_model::Layer::ALL
        .into_iter()
        .map(|layer| (layer.name().to_owned(), json!("preferred")))
        .collect();
    json!({"layers": layers})
}

/// A request that any engine takes.
pub(crate) fn request(mut fields: Value) -> Value {
    fields["policy"] = preferred();
    fields
}

/// A script that any engine takes.
pub(crate) fn shell(script: &str, outputs: &[&str]) -> Value {
    request(json!({"command": "/bin/sh", "argv": ["-c", script], "outputs": outputs}))
}

/// Writes an engine, and gives what --engine calls it.
pub(crate) fn write(desk: &Desk, name: &str, content: &str) -> String {
    let path = desk.write(name, content);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("command:{}", path.display())
}

/// The engine of config/engines, which is honest.
pub(crate) fn honest(desk: &Desk) -> String {
    write(desk, "honest", &source())
}

/// Its text.
pub(crate) fn source() -> String {
    std::fs::read_to_string(repository("config/engines/subprocess")).unwrap()
}

/// The same with something else after it has run the command: `ran` holds the answer, `asked` the question.
pub(crate) fn lying(desk: &Desk, name: &str, lie: &str) -> String {
    let text = source();
    let place = "    return ran\n";
    assert_eq!(text.matches(place).count(), 1, "{text}");
    write(desk, name, &text.replace(place, &format!("    {lie}\n{place}")))
}

/// Seconds that nobody else sleeps: of this test process alone, so that what another left behind is not taken for ours.
pub(crate) fn nap(number: u8) -> String {
    format!("9{number}{:07}", std::process::id())
}

/// No process has this word among its arguments.
pub(crate) fn assert_nobody_runs(word: &str) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours = line.split(' ').any(|argument| argument == word);
        assert!(!ours, "{line}");
    }
}
