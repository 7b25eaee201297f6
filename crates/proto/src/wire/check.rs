//! Checks encoded messages against the rules that Envoy's API states about itself.

use std::collections::HashSet;

use super::reader::{Encoding, MAX_DEPTH, Malformed, Record, TOO_DEEP, record_at, varint_at};
use super::rule::{Broken, NOT_TEXT};
use super::table::{Complaint, Field, Kind, MessageTable, Sort, Tables, encoding};
use super::violation::{Step, Violation, path_of_absent};

/// More violations than these are not collected: a reader needs the first few, and hostile input may have millions.
const MAX_VIOLATIONS: usize = 100;

/// All violations in `bytes`, at most `MAX_VIOLATIONS`, in the order in which they lie in the message.
pub(super) fn violations(tables: &'static Tables, table: &'static MessageTable, bytes: &[u8]) -> Vec<Violation> {
    let mut check = Check { tables, violations: Vec::new(), counts: Vec::new() };
    match table.sort {
        Sort::Any => check.any(bytes, None, MAX_DEPTH),
        Sort::Ordinary | Sort::Entry => check.message(table, bytes, None, MAX_DEPTH),
    }
    check.violations
}

struct Check {
    tables: &'static Tables,
    violations: Vec<Violation>,
    /// Occurrences of counted fields: a stack, the counters of the innermost message on top.
    counts: Vec<u64>,
}

impl Check {
    fn message(&mut self, table: &'static MessageTable, bytes: &[u8], parent: Option<&Step<'_>>, depth: u32) {
        if depth == 0 {
            return self.malformed(parent, TOO_DEEP);
        }
        let counts_from = self.counts.len();
        if !table.counters.is_empty() {
            self.counts.resize(counts_from + table.counters.len(), 0);
        }
        let mut seen = 0;
        let mut at = 0;
        let whole = loop {
            let record = match record_at(bytes, at) {
                Ok(Some(record)) => record,
                Ok(None) => break true,
                Err(malformed) => {
                    self.malformed(parent, malformed);
                    break false;
                }
            };
            at = record.end;
            // Fields that the API does not know are Envoy's to judge: it may be newer.
            let Some(field) = table.field(record.number) else { continue };
            seen |= field.mark;
            if field.unruled && field.encoding == record.encoding {
                continue;
            }
            let here = Step { parent, table, field, bytes, at: record.key, packed: 0 };
            let values = self.record(&here, &record, depth);
            if let Some(counter) = field.counter {
                self.counts[counts_from + usize::from(counter)] += values;
            }
            if self.violations.len() >= MAX_VIOLATIONS {
                break false;
            }
        };
        if whole {
            if table.expected & !seen != 0 {
                self.absences(table, bytes, seen, parent, depth);
            }
            if !table.counters.is_empty() {
                self.counters(table, bytes, counts_from, parent);
            }
            for &number in &table.uniques {
                self.unique(table, bytes, number, parent);
            }
        }
        self.counts.truncate(counts_from);
    }

    /// Checks the values of one record. Returns how many they are: one, or those of a packed record.
    #[inline]
    fn record(&mut self, here: &Step<'_>, record: &Record, depth: u32) -> u64 {
        let field = here.field;
        let payload = &here.bytes[record.payload()];
        match field.kind {
            _ if record.encoding != field.encoding => return self.packed_record(here, record),
            Kind::Message(inner) => self.inner(here, self.tables.at(inner), payload, depth),
            Kind::String => match std::str::from_utf8(payload) {
                Ok(text) => {
                    if let Some(broken) = field.rule.as_deref().and_then(|rule| rule.check_text(text)) {
                        self.broken(here, broken);
                    }
                }
                Err(_) => self.malformed(Some(here), NOT_TEXT),
            },
            Kind::Bytes => {
                if let Some(rule) = &field.rule {
                    self.outcome(here, rule.check_payload(payload));
                }
            }
            kind => {
                if let Some(broken) = field.rule.as_deref().and_then(|rule| rule.check_bits(kind, record.bits)) {
                    self.broken(here, broken);
                }
            }
        }
        1
    }

    /// Checks a message that a field holds.
    fn inner(&mut self, here: &Step<'_>, inner: &'static MessageTable, payload: &[u8], depth: u32) {
        if let Some(rule) = &here.field.rule {
            self.outcome(here, rule.check_payload(payload));
            if rule.is_complete() {
                return;
            }
        }
        if here.field.skip {
            return;
        }
        match inner.sort {
            _ if !inner.ruled => {
                if let Err(malformed) = well_formed(self.tables, inner, payload, depth - 1) {
                    self.malformed(Some(here), malformed);
                }
            }
            Sort::Any => self.any(payload, Some(here), depth),
            Sort::Ordinary | Sort::Entry => self.message(inner, payload, Some(here), depth - 1),
        }
    }

    /// Checks what an `Any` holds, if its type is known.
    fn any(&mut self, bytes: &[u8], here: Option<&Step<'_>>, depth: u32) {
        match any_parts(bytes) {
            Ok((type_url, value)) => {
                let Some(index) = self.tables.find_type_url(type_url) else { return };
                let inner = self.tables.at(index);
                match inner.sort {
                    _ if depth == 0 => self.malformed(here, TOO_DEEP),
                    Sort::Any => self.any(value, here, depth - 1),
                    Sort::Ordinary | Sort::Entry => self.message(inner, value, here, depth - 1),
                }
            }
            Err(malformed) => self.malformed(here, malformed),
        }
    }

    /// Numbers of a repeated field that are packed into one record; anything else in the wrong encoding is no value of the field.
    #[cold]
    fn packed_record(&mut self, here: &Step<'_>, record: &Record) -> u64 {
        let field = here.field;
        if !may_be_packed(field, record) {
            self.malformed(Some(here), OTHER_TYPE);
            return 1;
        }
        let mut values = 0;
        for (index, bits) in packed(field.kind, here.bytes, record).enumerate() {
            values += 1;
            let here = Step { packed: index, ..*here };
            match bits {
                Ok(bits) => {
                    if let Some(broken) = field.rule.as_deref().and_then(|rule| rule.check_bits(field.kind, bits)) {
                        self.broken(&here, broken);
                    }
                }
                Err(malformed) => self.malformed(Some(&here), malformed),
            }
            if self.violations.len() >= MAX_VIOLATIONS {
                break;
            }
        }
        values
    }

    /// Reports what had to be there and is not.
    #[cold]
    fn absences(
        &mut self,
        table: &'static MessageTable,
        bytes: &[u8],
        seen: u64,
        parent: Option<&Step<'_>>,
        depth: u32,
    ) {
        for (_, absence) in table.absences.iter().enumerate().filter(|(bit, _)| seen & (1 << bit) == 0) {
            match &absence.complaint {
                Complaint::Rule(rule) => {
                    let path = path_of_absent(parent, table, bytes, &absence.name, self.tables);
                    self.push(Violation { path, rule: rule.clone(), value: String::new() });
                }
                Complaint::DefaultOf(place) => {
                    let field = table.field_at(*place);
                    let here = Step { parent, table, field, bytes, at: bytes.len(), packed: 0 };
                    if let Kind::Message(inner) = field.kind {
                        self.inner(&here, self.tables.at(inner), &[], depth);
                    }
                }
            }
        }
    }

    /// Reports fields that occur too rarely or too often.
    fn counters(&mut self, table: &'static MessageTable, bytes: &[u8], counts_from: usize, parent: Option<&Step<'_>>) {
        for (index, counter) in table.counters.iter().enumerate() {
            let count = self.counts[counts_from + index];
            let rule = match count {
                0 if counter.ignore_empty => continue,
                _ if count < counter.min => format!("{} = {}", counter.names.0, counter.min),
                _ if count > counter.max => format!("{} = {}", counter.names.1, counter.max),
                _ => continue,
            };
            let name = &table.field_at(counter.field).name;
            let path = path_of_absent(parent, table, bytes, name, self.tables);
            self.push(Violation { path, rule, value: format!("{count} values") });
        }
    }

    /// Reports a value of a repeated field that occurs twice.
    fn unique(&mut self, table: &'static MessageTable, bytes: &[u8], number: u32, parent: Option<&Step<'_>>) {
        let Some(field) = table.field(number) else { return };
        let mut values: HashSet<(u64, &[u8])> = HashSet::new();
        let mut at = 0;
        while let Ok(Some(record)) = record_at(bytes, at) {
            at = record.end;
            if record.number != number {
                continue;
            }
            let again = if may_be_packed(field, &record) {
                packed(field.kind, bytes, &record).position(|v| v.is_ok_and(|bits| !values.insert((bits, &[]))))
            } else if record.encoding == Encoding::Delimited {
                (!values.insert((0, &bytes[record.payload()]))).then_some(0)
            } else {
                (!values.insert((record.bits, &[]))).then_some(0)
            };
            if let Some(packed) = again {
                let here = Step { parent, table, field, bytes, at: record.key, packed };
                let rule = "repeated.unique".to_owned();
                return self.broken(&here, Broken { rule, value: "a second value like an earlier one".to_owned() });
            }
        }
    }

    fn outcome(&mut self, here: &Step<'_>, outcome: Result<Option<Broken>, Malformed>) {
        match outcome {
            Ok(None) => {}
            Ok(Some(broken)) => self.broken(here, broken),
            Err(malformed) => self.malformed(Some(here), malformed),
        }
    }

    #[cold]
    fn broken(&mut self, here: &Step<'_>, broken: Broken) {
        let value = if here.is_sensitive() { crate::descriptor::REDACTED.to_owned() } else { broken.value };
        self.push(Violation { path: here.path(self.tables), rule: broken.rule, value });
    }

    #[cold]
    fn malformed(&mut self, here: Option<&Step<'_>>, Malformed(reason): Malformed) {
        let path = here.map(|h| h.path(self.tables)).unwrap_or_default();
        self.push(Violation { path, rule: "malformed".to_owned(), value: reason.to_owned() });
    }

    fn push(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }
}

/// Reads a message without rules to its end.
fn well_formed(tables: &Tables, table: &MessageTable, bytes: &[u8], depth: u32) -> Result<(), Malformed> {
    if depth == 0 {
        return Err(TOO_DEEP);
    }
    let mut at = 0;
    while let Some(record) = record_at(bytes, at)? {
        at = record.end;
        let Some(field) = table.field(record.number) else { continue };
        let payload = &bytes[record.payload()];
        match field.kind {
            _ if field.encoding != record.encoding => {
                if !may_be_packed(field, &record) {
                    return Err(OTHER_TYPE);
                }
                packed(field.kind, bytes, &record).try_for_each(|v| v.map(drop))?;
            }
            Kind::Message(inner) => well_formed(tables, tables.at(inner), payload, depth - 1)?,
            Kind::String => drop(std::str::from_utf8(payload).map_err(|_| NOT_TEXT)?),
            _ => {}
        }
    }
    Ok(())
}

const OTHER_TYPE: Malformed = Malformed("a value is encoded as one of another type");

fn may_be_packed(field: &Field, record: &Record) -> bool {
    record.encoding == Encoding::Delimited && field.encoding != Encoding::Delimited && field.repeated
}

/// The type URL and the value of an `Any`; each is empty when it is not there.
pub(super) fn any_parts(bytes: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (mut type_url, mut value) = ("", &[][..]);
    let mut at = 0;
    while let Some(record) = record_at(bytes, at)? {
        at = record.end;
        match (record.number, record.encoding) {
            (1, Encoding::Delimited) => {
                type_url = std::str::from_utf8(&bytes[record.payload()]).map_err(|_| NOT_TEXT)?
            }
            (2, Encoding::Delimited) => value = &bytes[record.payload()],
            (1 | 2, _) => return Err(OTHER_TYPE),
            _ => {}
        }
    }
    Ok((type_url, value))
}

/// The numbers in a packed record, as their bits. After an error nothing follows.
pub(super) fn packed(kind: Kind, bytes: &[u8], record: &Record) -> impl Iterator<Item = Result<u64, Malformed>> {
    let mut rest = &bytes[record.payload()];
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let value = match encoding(kind) {
            Encoding::Fixed64 => rest.split_first_chunk().map(|(b, r)| (u64::from_le_bytes(*b), r)),
            Encoding::Fixed32 => rest.split_first_chunk().map(|(b, r)| (u64::from(u32::from_le_bytes(*b)), r)),
            Encoding::Varint | Encoding::Delimited | Encoding::Group => {
                varint_at(rest, 0).ok().map(|(value, end)| (value, &rest[end..]))
            }
        };
        let (value, after) = match value {
            Some((value, after)) => (Ok(value), after),
            None => (Err(Malformed("packed numbers are cut short")), &[][..]),
        };
        rest = after;
        Some(value)
    })
}
