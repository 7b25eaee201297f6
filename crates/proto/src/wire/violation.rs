//! What a check finds, and where in the message it lies.

use std::fmt;

use super::reader::{Encoding, record_at};
use super::rule::quoted;
use super::table::{Field, Kind, MessageTable, Sort, Tables};

/// A value that breaks a rule of Envoy's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Violation {
    /// Where, such as `virtual_hosts[3].routes[0].match.headers[1].name`; the contents of an `Any` follow after a dot like those of
    /// any other message, and values of maps after their key: `typed_per_filter_config["envoy.filters.http.fault"].abort`.
    /// Empty for the message as a whole.
    pub path: String,
    /// Which rule, as the API states it: `string.min_len = 1`, `required`; `malformed` when the bytes are no such message.
    pub rule: String,
    /// The value, shortened when it is long; `[redacted]` below sensitive fields; what is wrong when the rule is `malformed`;
    /// empty when nothing is there.
    pub value: String,
}

/// `virtual_hosts[3].name: "" breaks the rule string.min_len = 1`
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        match (self.rule.as_str(), self.value.as_str()) {
            ("malformed", reason) => write!(f, "malformed: {reason}"),
            (rule, "") => write!(f, "nothing there breaks the rule {rule}"),
            (rule, value) => write!(f, "{value} breaks the rule {rule}"),
        }
    }
}

/// One step of the way to a value: a field of a message. Names and indices are worked out only when there is something to say.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    /// The step before; `None` at the outermost message.
    pub(super) parent: Option<&'a Step<'a>>,
    pub(super) table: &'a MessageTable,
    pub(super) field: &'a Field,
    /// The message that holds the field.
    pub(super) bytes: &'a [u8],
    /// Where the field's record begins.
    pub(super) at: usize,
    /// Which value of a packed record.
    pub(super) packed: usize,
}

impl Step<'_> {
    /// Writes the way from the outermost message to here.
    pub(super) fn path(&self, tables: &Tables) -> String {
        let mut path = self.parent.map(|p| p.path(tables)).unwrap_or_default();
        if self.table.sort == Sort::Entry {
            path.push_str(&entry_key(self.table, self.bytes));
            return path;
        }
        push_name(&mut path, &self.field.name);
        let is_map = matches!(self.field.kind, Kind::Message(inner) if tables.at(inner).sort == Sort::Entry);
        if self.field.repeated && !is_map {
            path.push_str(&format!("[{}]", self.index()));
        }
        path
    }

    /// Whether here or on the way here a field is marked as sensitive.
    pub(super) fn is_sensitive(&self) -> bool {
        self.field.sensitive || self.parent.is_some_and(Step::is_sensitive)
    }

    /// How many values of this field come before this one.
    fn index(&self) -> usize {
        let mut index = self.packed;
        let mut at = 0;
        while let Ok(Some(record)) = record_at(self.bytes, at) {
            if record.key >= self.at {
                break;
            }
            if record.number == self.field.number {
                let is_packed = record.encoding == Encoding::Delimited
                    && !matches!(self.field.kind, Kind::Message(_) | Kind::String | Kind::Bytes);
                index += if is_packed { super::check::packed(self.field.kind, self.bytes, &record).count() } else { 1 };
            }
            at = record.end;
        }
        index
    }
}

/// The path of something that is not in the message at the end of the way.
pub(super) fn path_of_absent(
    parent: Option<&Step<'_>>,
    table: &MessageTable,
    bytes: &[u8],
    name: &str,
    tables: &Tables,
) -> String {
    let mut path = parent.map(|p| p.path(tables)).unwrap_or_default();
    if table.sort == Sort::Entry {
        path.push_str(&entry_key(table, bytes));
    } else {
        push_name(&mut path, name);
    }
    path
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// The key of a map's entry in brackets.
fn entry_key(table: &MessageTable, entry: &[u8]) -> String {
    let (mut payload, mut bits) = (&[][..], 0);
    let mut at = 0;
    while let Ok(Some(record)) = record_at(entry, at) {
        if record.number == 1 {
            (payload, bits) = (&entry[record.payload()], record.bits);
        }
        at = record.end;
    }
    match table.field(1).map(|f| f.kind) {
        Some(Kind::String) => format!("[{}]", quoted(&String::from_utf8_lossy(payload))),
        _ => format!("[{bits}]"),
    }
}
