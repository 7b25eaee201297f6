//! What the walkers know of each message: flat tables, built once from the descriptors.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind as Described, MessageDescriptor};

use super::annotations::Annotations;
use super::reader::Encoding;
use super::rule::Rule;
use crate::descriptor;
use crate::pb::validate::field_rules::Type;
use crate::pb::validate::{FieldRules, RepeatedRules};

/// All tables; `MessageIndex` counts into `messages`.
pub(super) struct Tables {
    pub(super) messages: Vec<MessageTable>,
    by_name: HashMap<String, MessageIndex>,
}

/// The place of a message's table.
pub(super) type MessageIndex = u32;

/// What is known of one message.
pub(super) struct MessageTable {
    /// The full name, such as `envoy.config.cluster.v3.Cluster`.
    pub(super) name: String,
    /// Ordered by number.
    fields: Box<[Field]>,
    /// For each field number below 256 the field's place + 1, or 0.
    places: Box<[u16]>,
    /// Numbers of the fields that are maps.
    pub(super) maps: Box<[u32]>,
    /// Whether a map lies in it at any depth, as far as the types say (behind an `Any` there may always be one).
    pub(super) sorts: bool,
    /// Whether rules have to be checked in it or in what it may hold; behind an `Any` there may always be some.
    pub(super) ruled: bool,
    /// What is wrong when nothing has set bit `n` of `Field::mark`s.
    pub(super) absences: Box<[Absence]>,
    /// As many low bits as there are absences.
    pub(super) expected: u64,
    /// Limits on how often a field may occur.
    pub(super) counters: Box<[Counter]>,
    /// Fields whose values must differ.
    pub(super) uniques: Box<[u32]>,
    /// What the values of this message mean to the walkers.
    pub(super) sort: Sort,
}

/// Messages that are not walked as others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Ordinary,
    /// The entry of a map: field 1 is the key, field 2 the value.
    Entry,
    /// `google.protobuf.Any`.
    Any,
}

/// What is known of one field.
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// How single values are encoded.
    pub(super) encoding: Encoding,
    /// Whether each value in the right encoding is a good one.
    pub(super) unruled: bool,
    /// Whether it may occur more than once; so are maps.
    pub(super) repeated: bool,
    pub(super) sensitive: bool,
    /// Whether the contents of this message field are left unchecked.
    pub(super) skip: bool,
    /// The bits of `MessageTable::absences` that its presence clears.
    pub(super) mark: u64,
    /// The place of its limits in `MessageTable::counters`.
    pub(super) counter: Option<u8>,
    /// What each of its values must satisfy.
    pub(super) rule: Option<Box<Rule>>,
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Enum,
    String,
    Bytes,
    Message(MessageIndex),
}

/// A complaint about something that is not there.
pub(super) struct Absence {
    /// The name of the field, or of the oneof.
    pub(super) name: String,
    /// What is broken.
    pub(super) complaint: Complaint,
}

/// Why absence is wrong.
pub(super) enum Complaint {
    /// The default value breaks this rule, or something has to be there.
    Rule(String),
    /// Not wrong in itself: an entry of a map without a value has the default message as its value, which is to be checked.
    DefaultOf(u16),
}

/// How often a repeated field may occur.
pub(super) struct Counter {
    pub(super) field: u16,
    /// Checked for fields that occur at all or that may not be empty.
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) ignore_empty: bool,
    /// `repeated.min_items` and `repeated.max_items`, or `map.min_pairs` and `map.max_pairs`.
    pub(super) names: (&'static str, &'static str),
}

/// The tables of everything in the embedded descriptors.
pub(super) static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables::build(descriptor::pool()));

impl Tables {
    fn build(pool: &DescriptorPool) -> Self {
        let descriptors: Vec<_> = pool.all_messages().collect();
        let by_name: HashMap<String, MessageIndex> =
            descriptors.iter().enumerate().map(|(i, m)| (m.full_name().to_owned(), i as MessageIndex)).collect();
        let annotations = Annotations::of(pool);
        let mut messages: Vec<_> =
            descriptors.iter().map(|m| MessageTable::build(m, &annotations, &by_name, &Entries::default())).collect();
        // Rules for keys and values stand at the map; here they belong to the fields of its entry.
        for message in &descriptors {
            for field in message.fields().filter(FieldDescriptor::is_map) {
                let Described::Message(entry) = field.kind() else { continue };
                let Some(Type::Map(rules)) = annotations.rules(&field).and_then(|r| r.r#type) else { continue };
                let rules = Entries { keys: rules.keys.map(|r| *r), values: rules.values.map(|r| *r) };
                messages[by_name[entry.full_name()] as usize] =
                    MessageTable::build(&entry, &annotations, &by_name, &rules);
            }
        }
        spread(&mut messages, |m| &mut m.sorts);
        spread(&mut messages, |m| &mut m.ruled);
        Self { messages, by_name }
    }

    /// The table of the message with this full name.
    pub(super) fn find(&self, name: &str) -> Option<MessageIndex> {
        self.by_name.get(name).copied()
    }

    /// The table of the message that this type URL names, whatever stands before its last slash.
    pub(super) fn find_type_url(&self, url: &str) -> Option<MessageIndex> {
        self.find(url.rsplit_once('/')?.1)
    }

    pub(super) fn at(&self, index: MessageIndex) -> &MessageTable {
        &self.messages[index as usize]
    }
}

/// Sets a mark on each message that one with that mark can be reached from.
fn spread(messages: &mut [MessageTable], mark: fn(&mut MessageTable) -> &mut bool) {
    let mut reached: Vec<bool> = messages.iter_mut().map(|m| *mark(m)).collect();
    loop {
        let mut changed = false;
        for (index, message) in messages.iter().enumerate().filter(|(_, m)| !m.fields.is_empty()) {
            let reaches = |f: &Field| matches!(f.kind, Kind::Message(inner) if reached[inner as usize]);
            if !reached[index] && message.fields.iter().any(reaches) {
                reached[index] = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    for (message, reached) in messages.iter_mut().zip(reached) {
        *mark(message) = reached;
    }
}

/// Rules for the two fields of a map's entry.
#[derive(Default)]
struct Entries {
    keys: Option<FieldRules>,
    values: Option<FieldRules>,
}

impl MessageTable {
    /// The field with this number.
    #[inline]
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        match self.places.get(number as usize) {
            Some(&place) => self.fields.get(usize::from(place).checked_sub(1)?),
            None => self.fields.binary_search_by_key(&number, |f| f.number).ok().map(|i| &self.fields[i]),
        }
    }

    /// The field at a place that an absence or a counter names.
    pub(super) fn field_at(&self, place: u16) -> &Field {
        &self.fields[usize::from(place)]
    }

    fn build(
        message: &MessageDescriptor,
        annotations: &Annotations,
        by_name: &HashMap<String, MessageIndex>,
        entries: &Entries,
    ) -> Self {
        let name = message.full_name().to_owned();
        let sort = match name.as_str() {
            "google.protobuf.Any" => Sort::Any,
            _ if message.is_map_entry() => Sort::Entry,
            _ => Sort::Ordinary,
        };
        let mut fields = Vec::new();
        let mut absences = Vec::new();
        let mut counters = Vec::new();
        let mut uniques = Vec::new();
        let unchecked = annotations.unchecked(message);
        for (place, described) in message.fields().enumerate() {
            let rules = match (sort, described.number()) {
                _ if unchecked => None,
                (Sort::Entry, 1) => entries.keys.clone(),
                (Sort::Entry, _) => entries.values.clone(),
                (Sort::Ordinary | Sort::Any, _) => annotations.rules(&described),
            };
            let mut field = Field {
                number: described.number(),
                name: described.name().to_owned(),
                encoding: encoding(kind(&described, by_name)),
                kind: kind(&described, by_name),
                unruled: false,
                repeated: described.cardinality() == Cardinality::Repeated,
                sensitive: annotations.is_sensitive(&described),
                skip: unchecked,
                mark: 0,
                counter: None,
                rule: None,
            };
            let mut absent = None;
            if let Some(rules) = rules {
                // A member of a oneof that is not there is not chosen, whatever its rules say.
                let is_choice = described.containing_oneof().is_some();
                let required = !is_choice && rules.message.as_ref().is_some_and(|m| m.required());
                field.skip = rules.message.as_ref().is_some_and(|m| m.skip());
                match rules.r#type {
                    Some(Type::Repeated(repeated)) => {
                        let items = repeated.items.as_deref();
                        field.skip |= items.and_then(|i| i.message.as_ref()).is_some_and(|m| m.skip());
                        field.rule =
                            items.and_then(|i| i.r#type.as_ref()).and_then(|t| Rule::of(t, &described)).map(Box::new);
                        if repeated.unique() {
                            uniques.push(field.number);
                        }
                        let names = ("repeated.min_items", "repeated.max_items");
                        absent = count(&mut field, &mut counters, place, &repeated, names);
                    }
                    Some(Type::Map(map)) => {
                        let limits = RepeatedRules {
                            min_items: map.min_pairs,
                            max_items: map.max_pairs,
                            ignore_empty: map.ignore_empty,
                            ..RepeatedRules::default()
                        };
                        absent = count(&mut field, &mut counters, place, &limits, ("map.min_pairs", "map.max_pairs"));
                    }
                    Some(of_value) => {
                        field.rule = Rule::of(&of_value, &described).map(Box::new);
                        let always_there = !described.supports_presence();
                        if let Some(rule) = field.rule.as_deref().filter(|_| always_there) {
                            absent = rule.broken_by_default(field.kind).map(Complaint::Rule);
                        }
                        // In an entry of a map, an absent value is the default value, and so it is there.
                        if sort != Sort::Entry && !is_choice && of_value_required(&of_value) {
                            absent = Some(Complaint::Rule("required".to_owned()));
                        }
                    }
                    None => {}
                }
                if required && sort != Sort::Entry {
                    absent = Some(Complaint::Rule("required".to_owned()));
                }
            }
            if sort == Sort::Entry && field.number == 2 && matches!(field.kind, Kind::Message(_)) {
                absent = Some(Complaint::DefaultOf(place as u16));
            }
            if let Some(complaint) = absent {
                field.mark = next_mark(&absences);
                absences.push(Absence { name: field.name.clone(), complaint });
            }
            field.unruled = field.encoding != Encoding::Delimited && field.rule.is_none() && field.counter.is_none();
            fields.push(field);
        }
        for oneof in message.oneofs().filter(|o| !unchecked && annotations.is_required(o)) {
            let mark = next_mark(&absences);
            for member in oneof.fields() {
                if let Some(field) = fields.iter_mut().find(|f| f.number == member.number()) {
                    field.mark |= mark;
                }
            }
            let complaint = Complaint::Rule("required".to_owned());
            absences.push(Absence { name: oneof.name().to_owned(), complaint });
        }
        let expected = (0..absences.len()).fold(0, |mask, bit| mask | 1 << bit);
        let maps: Box<[u32]> = message.fields().filter(FieldDescriptor::is_map).map(|f| f.number()).collect();
        Self {
            sorts: !maps.is_empty() || sort == Sort::Any,
            ruled: sort == Sort::Any
                || absences.iter().any(|a| matches!(a.complaint, Complaint::Rule(_)))
                || !(counters.is_empty() && uniques.is_empty())
                || fields.iter().any(|f| f.rule.is_some()),
            places: places(&fields),
            fields: fields.into(),
            absences: absences.into(),
            counters: counters.into(),
            uniques: uniques.into(),
            name,
            maps,
            expected,
            sort,
        }
    }
}

/// Notes how often `field` may occur. Returns the complaint about its absence: counting is not needed when one is enough.
fn count(
    field: &mut Field,
    counters: &mut Vec<Counter>,
    place: usize,
    rules: &RepeatedRules,
    names: (&'static str, &'static str),
) -> Option<Complaint> {
    let (min, max) = (rules.min_items(), rules.max_items.unwrap_or(u64::MAX));
    if min > 1 || max < u64::MAX {
        field.counter = Some(counters.len() as u8);
        counters.push(Counter { field: place as u16, min, max, ignore_empty: rules.ignore_empty(), names });
        return None;
    }
    (min == 1 && !rules.ignore_empty()).then(|| Complaint::Rule(format!("{} = 1", names.0)))
}

/// The bit for one more absence.
fn next_mark(absences: &[Absence]) -> u64 {
    assert!(absences.len() < 64, "no message of the pinned API expects more than 64 things");
    1 << absences.len()
}

/// Rules of these three types state themselves whether the field has to be there.
fn of_value_required(rules: &Type) -> bool {
    match rules {
        Type::Any(rules) => rules.required(),
        Type::Duration(rules) => rules.required(),
        Type::Timestamp(rules) => rules.required(),
        _ => false,
    }
}

/// Field numbers below 256 are looked up, larger ones (there are few) searched.
fn places(fields: &[Field]) -> Box<[u16]> {
    let small = fields.iter().filter(|f| f.number < 256);
    let mut places = vec![0; small.clone().map(|f| f.number as usize + 1).max().unwrap_or(0)];
    for (place, field) in fields.iter().enumerate().filter(|(_, f)| f.number < 256) {
        places[field.number as usize] = place as u16 + 1;
    }
    places.into()
}

fn kind(field: &FieldDescriptor, by_name: &HashMap<String, MessageIndex>) -> Kind {
    match field.kind() {
        Described::Bool => Kind::Bool,
        Described::Int32 => Kind::Int32,
        Described::Int64 => Kind::Int64,
        Described::Uint32 => Kind::Uint32,
        Described::Uint64 => Kind::Uint64,
        Described::Sint32 => Kind::Sint32,
        Described::Sint64 => Kind::Sint64,
        Described::Fixed32 => Kind::Fixed32,
        Described::Fixed64 => Kind::Fixed64,
        Described::Sfixed32 => Kind::Sfixed32,
        Described::Sfixed64 => Kind::Sfixed64,
        Described::Float => Kind::Float,
        Described::Double => Kind::Double,
        Described::Enum(_) => Kind::Enum,
        Described::String => Kind::String,
        Described::Bytes => Kind::Bytes,
        Described::Message(message) => Kind::Message(by_name[message.full_name()]),
    }
}

/// How values of this kind are encoded, outside of packed records.
pub(super) fn encoding(kind: Kind) -> Encoding {
    match kind {
        Kind::Bool
        | Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Enum => Encoding::Varint,
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => Encoding::Fixed64,
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => Encoding::Fixed32,
        Kind::String | Kind::Bytes | Kind::Message(_) => Encoding::Delimited,
    }
}
