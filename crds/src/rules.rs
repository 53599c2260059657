//! CEL rules that several kinds share. A rule stands on the object that holds the field, never on the field
//! itself: a rule on a field is not evaluated when the field is removed, and a stale writer that drops a
//! field would pass.

use kube::core::{Message, Reason, Rule};

/// Field `name` of a spec never changes, and is neither added nor removed.
pub(crate) fn immutable(name: &str) -> Rule {
    refusing(
        format!(
            "has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"
        ),
        format!("{name} is immutable: create a new object instead"),
        name,
    )
}

/// Field `name` of a status does not change once `terminal` is true, and is neither added nor removed.
pub(crate) fn fenced(name: &str) -> Rule {
    refusing(
        format!(
            "!oldSelf.terminal || (has(self.{name}) == has(oldSelf.{name}) \
             && (!has(self.{name}) || self.{name} == oldSelf.{name}))"
        ),
        format!("{name} is immutable once terminal is true"),
        name,
    )
}

/// Field `name` of a status may be added after the end, but then neither changes nor goes.
pub(crate) fn set_once(name: &str) -> Rule {
    refusing(
        format!(
            "!oldSelf.terminal || !has(oldSelf.{name}) || (has(self.{name}) && self.{name} == oldSelf.{name})"
        ),
        format!("{name} is immutable once it is set and terminal is true"),
        name,
    )
}

/// Field `name` of a status is a number that never decreases.
pub(crate) fn monotonic(name: &str) -> Rule {
    refusing(
        format!("self.{name} >= oldSelf.{name}"),
        format!("{name} never decreases: the writer is stale"),
        name,
    )
}

/// A rule about values, not about changes.
pub(crate) fn valid(rule: &str, message: &str) -> Rule {
    Rule::new(rule).message(Message::Message(message.to_owned())).reason(Reason::FieldValueInvalid)
}

/// A change of field `name` that is refused.
pub(crate) fn refusing(rule: impl Into<String>, message: impl Into<String>, name: &str) -> Rule {
    Rule::new(rule)
        .message(Message::Message(message.into()))
        .reason(Reason::FieldValueForbidden)
        .field_path(format!(".{name}"))
}
