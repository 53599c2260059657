//! One Python process that judges what it is asked.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use requiem_tests::setting;
use requiem_xtask::suites::PYTHON_VARIABLE;
use serde_json::Value;

/// Lives until this process ends, which closes its standard input.
static PYTHON: Mutex<Option<Python>> = Mutex::new(None);

struct Python {
    _child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Asks what `verify.py` says, and fails the test if it is something else than our `code`.
pub(crate) fn second_opinion(question: &Value, code: &str) {
    let answer = ask(question);
    let theirs = answer["code"].as_str().unwrap_or_else(|| panic!("no verdict: {answer}"));
    let loose = question["loose"] == true && FORM.contains(&code) && FORM.contains(&theirs);
    assert!(loose || agree(code, theirs), "ours says {code}, theirs {answer} about {question}");
}

/// The whole answer.
pub(crate) fn ask(question: &Value) -> Value {
    // A test that failed while it held the lock has disturbed nothing: a question and its answer are one line each.
    let mut held = PYTHON.lock().unwrap_or_else(PoisonError::into_inner);
    let python = held.get_or_insert_with(Python::start);
    writeln!(python.questions, "{question}").unwrap();
    let mut line = String::new();
    python.answers.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?} about {question}"))
}

/// The codes of a body's form. Of several that apply, each is right.
const FORM: [&str; 6] = ["E_PARSE", "E_NOT_CANONICAL", "E_DUP_KEY", "E_KEY", "E_NUMBER", "E_NULL"];

/// Where the specification leaves the code open, any of the codes is right; never "ok" for one and not for the other.
fn agree(ours: &str, theirs: &str) -> bool {
    let open = [["E_SHAPE", "E_NOT_CANONICAL"], ["E_SHAPE", "E_PARSE"]];
    ours == theirs || open.iter().any(|codes| codes.contains(&ours) && codes.contains(&theirs))
}

/// A folder of this suite.
pub(crate) fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier")
}

/// The interpreter.
pub(crate) fn interpreter() -> PathBuf {
    setting(PYTHON_VARIABLE).unwrap()
}

impl Python {
    fn start() -> Self {
        let mut command = Command::new(interpreter());
        command.arg(here().join("batch.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, questions, answers: BufReader::new(answers) }
    }
}

#[test]
fn a_disagreement_is_seen() {
    assert!(agree("E_ROOT", "E_ROOT") && agree("E_SHAPE", "E_PARSE") && agree("ok", "ok"));
    assert!(!agree("ok", "E_SHAPE") && !agree("E_SHAPE", "ok") && !agree("E_ROOT", "E_SHAPE"));
    let question = serde_json::json!({"kind": "canon", "hex": "7b7d"});
    second_opinion(&question, "ok");
    assert!(std::panic::catch_unwind(|| second_opinion(&question, "E_PARSE")).is_err());
}

#[test]
fn the_other_verifier_is_small_and_needs_one_package() {
    let text = std::fs::read_to_string(here().join("verify.py")).unwrap();
    assert!(text.lines().count() <= 250, "{} lines", text.lines().count());
    let imports: Vec<&str> =
        text.lines().filter(|line| line.starts_with("import ") || line.starts_with("from ")).collect();
    assert_eq!(imports, ["import base64, hashlib, json, re, sys, urllib.parse", "from blake3 import blake3"]);
}
