//! CEL rules that several kinds share.
//!
//! A rule stands on the object that holds the fields, never on a field itself: a rule on a field is not
//! evaluated when the field is removed, and a stale writer that drops a field would pass. Every write of an
//! object evaluates every rule of it, so there is one rule for many fields, and the message, which is computed
//! for a refusal only, names the first field concerned.

use kube::core::{Message, Reason, Rule};

/// Fields of a spec that never change, and are neither added nor removed: `always` are there in every object,
/// because they are required or have a default; `optional` need not be.
pub(crate) fn immutable(always: &[&str], optional: &[&str]) -> Rule {
    let message = |name: &str| format!("{name} is immutable: create a new object instead");
    // Looking up a field is what a rule costs most, so no `has()` where it can only be true.
    let always = always.iter().map(|name| (format!("self.{name} == oldSelf.{name}"), message(name)));
    let optional = optional.iter().map(|name| (unchanged(name), message(name)));
    every("", &always.chain(optional).collect::<Vec<_>>()).reason(Reason::FieldValueForbidden)
}

/// The fields `frozen` of a status do not change once `terminal` is true, and are neither added nor removed.
/// The fields `late` may still be added, but then neither change nor go.
pub(crate) fn fenced(frozen: &[&str], late: &[&str]) -> Rule {
    let message = |name: &str| format!("{name} is immutable once terminal is true");
    let frozen = frozen.iter().map(|name| (unchanged(name), message(name)));
    let late =
        late.iter().map(|name| (format!("!has(oldSelf.{name}) || {}", unchanged(name)), message(name)));
    every("!oldSelf.terminal || ", &frozen.chain(late).collect::<Vec<_>>())
        .reason(Reason::FieldValueForbidden)
}

/// Fields of a status that change once after `terminal` is true, in the write that sets `compacted`, and then only in
/// the way that is given.
pub(crate) fn compactable(fields: &[(&str, &str)]) -> Rule {
    let rows = fields.iter().map(|(name, compact)| {
        let once = "has(self.compacted) && !has(oldSelf.compacted)";
        let kept = unchanged(name);
        (format!("{kept} || ({once} && {compact})"), format!("{name} is immutable once terminal is true"))
    });
    every("!oldSelf.terminal || ", &rows.collect::<Vec<_>>()).reason(Reason::FieldValueForbidden)
}

/// The fields `names` of a status are numbers that never decrease.
pub(crate) fn monotonic(names: &[&str]) -> Rule {
    let rows = names.iter().map(|name| {
        (format!("self.{name} >= oldSelf.{name}"), format!("{name} never decreases: the writer is stale"))
    });
    every("", &rows.collect::<Vec<_>>()).reason(Reason::FieldValueForbidden)
}

/// A rule about values, not about changes.
pub(crate) fn valid(rule: &str, message: &str) -> Rule {
    Rule::new(rule).message(Message::Message(message.to_owned())).reason(Reason::FieldValueInvalid)
}

/// Several rules about values in one.
pub(crate) fn all_valid(rules: &[(&str, &str)]) -> Rule {
    let rows = rules.iter().map(|(rule, message)| ((*rule).to_owned(), (*message).to_owned()));
    every("", &rows.collect::<Vec<_>>()).reason(Reason::FieldValueInvalid)
}

/// A change that is refused, with an expression for the message.
pub(crate) fn refusing(rule: &str, message: &str) -> Rule {
    Rule::new(rule).message(Message::Expression(message.to_owned())).reason(Reason::FieldValueForbidden)
}

/// Both absent, or both there and equal. The shorter `self.?name == oldSelf.?name` means the same, but the API
/// server cannot estimate what it costs.
fn unchanged(name: &str) -> String {
    format!(
        "(has(self.{name}) ? has(oldSelf.{name}) && self.{name} == oldSelf.{name} : !has(oldSelf.{name}))"
    )
}

/// Every condition of `rows`, in one rule; the message is that of the first that does not hold. Nested choices,
/// because the API server can estimate their cost, and not that of a list of names that is joined.
fn every(unless: &str, rows: &[(String, String)]) -> Rule {
    let conditions: Vec<String> = rows.iter().map(|(condition, _)| format!("({condition})")).collect();
    let message = rows.iter().rev().fold("''".to_owned(), |rest, (condition, message)| {
        format!("!({condition}) ? '{message}' : ({rest})")
    });
    Rule::new(format!("{unless}({})", conditions.join(" && "))).message(Message::Expression(message))
}
