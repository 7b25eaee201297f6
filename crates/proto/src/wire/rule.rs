//! One value against one rule of `validate.rules` (protoc-gen-validate, "PGV").
//!
//! What a rule means is taken from the comments of `validate/validate.proto`, which `envoy-types` ships. Where PGV's
//! implementations differ, the stricter reading is taken if Envoy's own code enforces it as well.

mod bytes;
mod form;
mod number;
mod text;

use prost_reflect::{FieldDescriptor, Kind as Described};

use self::bytes::BytesRule;
use self::number::{Nanoseconds, Numbers};
use self::text::TextRule;
use super::reader::{Encoding, Malformed, record_at};
use super::table::Kind;
use crate::pb::google::protobuf::{Duration, Timestamp};
use crate::pb::validate::field_rules::Type;
use crate::pb::validate::{AnyRules, DurationRules, EnumRules, TimestampRules};

/// What one value has to satisfy, in the form in which it is checked.
pub(super) enum Rule {
    Bool(bool),
    Signed(Numbers<i64>),
    Unsigned(Numbers<u64>),
    Float(Numbers<f64>),
    Enum(EnumRule),
    Text(TextRule),
    Bytes(BytesRule),
    /// For `google.protobuf.Duration` and `google.protobuf.Timestamp`.
    Time(Numbers<Nanoseconds>),
    Any(AnyRule),
    /// For the messages of `google/protobuf/wrappers.proto`: the rule of the wrapped value, and its type.
    Wrapped(Kind, Box<Rule>),
}

/// A value that breaks a rule.
#[derive(Debug, PartialEq)]
pub(super) struct Broken {
    /// Which rule, such as `string.min_len = 1`.
    pub(super) rule: String,
    /// The value.
    pub(super) value: String,
}

impl Rule {
    /// Compiles a rule for the values of `field`; `None` when it says nothing about single values.
    pub(super) fn of(rules: &Type, field: &FieldDescriptor) -> Option<Self> {
        let rule = match rules {
            Type::Float(r) => Self::Float(numbers!("float", r, f64)),
            Type::Double(r) => Self::Float(numbers!("double", r, f64)),
            Type::Int32(r) => Self::Signed(numbers!("int32", r, i64)),
            Type::Int64(r) => Self::Signed(numbers!("int64", r, i64)),
            Type::Sint32(r) => Self::Signed(numbers!("sint32", r, i64)),
            Type::Sint64(r) => Self::Signed(numbers!("sint64", r, i64)),
            Type::Sfixed32(r) => Self::Signed(numbers!("sfixed32", r, i64)),
            Type::Sfixed64(r) => Self::Signed(numbers!("sfixed64", r, i64)),
            Type::Uint32(r) => Self::Unsigned(numbers!("uint32", r, u64)),
            Type::Uint64(r) => Self::Unsigned(numbers!("uint64", r, u64)),
            Type::Fixed32(r) => Self::Unsigned(numbers!("fixed32", r, u64)),
            Type::Fixed64(r) => Self::Unsigned(numbers!("fixed64", r, u64)),
            Type::Bool(r) => Self::Bool(r.r#const?),
            Type::Enum(r) => Self::Enum(EnumRule::of(r, field)),
            Type::String(r) => Self::Text(TextRule::of(r)),
            Type::Bytes(r) => Self::Bytes(BytesRule::of(r)),
            Type::Any(r) => Self::Any(AnyRule::of(r)?),
            Type::Duration(r) => Self::Time(duration(r)),
            Type::Timestamp(r) => Self::Time(timestamp(r)),
            Type::Repeated(_) | Type::Map(_) => return None,
        };
        Some(match field.kind() {
            Described::Message(message) => match wrapped(message.full_name()) {
                Some(kind) => Self::Wrapped(kind, Box::new(rule)),
                None => rule,
            },
            _ => rule,
        })
    }

    /// Checks a number, a truth value or an enum value, given its bits as they are on the wire.
    #[inline]
    pub(super) fn check_bits(&self, kind: Kind, bits: u64) -> Option<Broken> {
        match self {
            Self::Signed(rule) => rule.check(signed(kind, bits)),
            Self::Unsigned(rule) => rule.check(if kind == Kind::Uint32 { bits & 0xffff_ffff } else { bits }),
            Self::Float(rule) => rule.check(float(kind, bits)),
            Self::Enum(rule) => rule.check(bits as i32),
            Self::Bool(wanted) => ((bits != 0) != *wanted)
                .then(|| Broken { rule: format!("bool.const = {wanted}"), value: (bits != 0).to_string() }),
            Self::Text(_) | Self::Bytes(_) | Self::Time(_) | Self::Any(_) | Self::Wrapped(..) => None,
        }
    }

    /// Checks the text of a string field.
    #[inline]
    pub(super) fn check_text(&self, text: &str) -> Option<Broken> {
        match self {
            Self::Text(rule) => rule.check(text),
            _ => None,
        }
    }

    /// Checks the payload of a bytes field, or of a message field whose message has a value of its own.
    pub(super) fn check_payload(&self, payload: &[u8]) -> Result<Option<Broken>, Malformed> {
        match self {
            Self::Bytes(rule) => Ok(rule.check(payload)),
            Self::Time(rule) => Ok(rule.check(nanoseconds(payload)?)),
            Self::Any(rule) => Ok(rule.check(text_of(payload)?)),
            Self::Wrapped(Kind::String, rule) => Ok(rule.check_text(text_of(payload)?)),
            Self::Wrapped(Kind::Bytes, rule) => rule.check_payload(last(payload, 1)?.map_or(&[][..], |v| v.0)),
            Self::Wrapped(kind, rule) => Ok(rule.check_bits(*kind, last(payload, 1)?.map_or(0, |v| v.1))),
            Self::Bool(_) | Self::Signed(_) | Self::Unsigned(_) | Self::Float(_) | Self::Enum(_) | Self::Text(_) => {
                Ok(None)
            }
        }
    }

    /// Whether nothing is left to check of a message that passes the rule: it has no fields with rules, and was read to its end.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Wrapped(..))
    }

    /// Which rule the default value of a scalar field breaks.
    pub(super) fn broken_by_default(&self, kind: Kind) -> Option<String> {
        let broken = match kind {
            Kind::String => self.check_text(""),
            Kind::Bytes => self.check_payload(&[]).ok().flatten(),
            Kind::Message(_) => None,
            _ => self.check_bits(kind, 0),
        };
        broken.map(|b| b.rule)
    }
}

/// The type that a wrapper message wraps.
fn wrapped(message: &str) -> Option<Kind> {
    Some(match message {
        "google.protobuf.BoolValue" => Kind::Bool,
        "google.protobuf.Int32Value" => Kind::Int32,
        "google.protobuf.Int64Value" => Kind::Int64,
        "google.protobuf.UInt32Value" => Kind::Uint32,
        "google.protobuf.UInt64Value" => Kind::Uint64,
        "google.protobuf.FloatValue" => Kind::Float,
        "google.protobuf.DoubleValue" => Kind::Double,
        "google.protobuf.StringValue" => Kind::String,
        "google.protobuf.BytesValue" => Kind::Bytes,
        _ => return None,
    })
}

fn signed(kind: Kind, bits: u64) -> i64 {
    match kind {
        // Negative 32-bit numbers are written with 64 bits, and only the lower half counts.
        Kind::Int32 | Kind::Sfixed32 => i64::from(bits as i32),
        Kind::Sint32 | Kind::Sint64 => (bits >> 1) as i64 ^ -((bits & 1) as i64),
        _ => bits as i64,
    }
}

fn float(kind: Kind, bits: u64) -> f64 {
    if kind == Kind::Float { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) }
}

/// The last value of a field of a small message: payload and bits. The last one counts.
fn last(message: &[u8], number: u32) -> Result<Option<(&[u8], u64)>, Malformed> {
    let mut found = None;
    let mut at = 0;
    while let Some(record) = record_at(message, at)? {
        if record.number == number {
            let payload = if record.encoding == Encoding::Delimited { &message[record.payload()] } else { &[][..] };
            found = Some((payload, record.bits));
        }
        at = record.end;
    }
    Ok(found)
}

/// Field 1 as text: the value of a `StringValue`, the type URL of an `Any`.
fn text_of(message: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(last(message, 1)?.map_or(&[][..], |v| v.0)).map_err(|_| NOT_TEXT)
}

/// A string field that is not UTF-8.
pub(super) const NOT_TEXT: Malformed = Malformed("a text is not UTF-8");

/// A `Duration` or a `Timestamp` as one number. They have the same fields.
fn nanoseconds(message: &[u8]) -> Result<Nanoseconds, Malformed> {
    let seconds = last(message, 1)?.map_or(0, |v| v.1 as i64);
    let nanos = last(message, 2)?.map_or(0, |v| v.1 as i32);
    Ok(Nanoseconds::new(seconds, nanos))
}

fn duration(rules: &DurationRules) -> Numbers<Nanoseconds> {
    let time = |d: &Duration| Nanoseconds::new(d.seconds, d.nanos);
    Numbers {
        name: "duration",
        constant: rules.r#const.as_ref().map(time),
        lt: rules.lt.as_ref().map(time),
        lte: rules.lte.as_ref().map(time),
        gt: rules.gt.as_ref().map(time),
        gte: rules.gte.as_ref().map(time),
        any_of: rules.r#in.iter().map(time).collect(),
        none_of: rules.not_in.iter().map(time).collect(),
        ignore_empty: false,
    }
}

/// Rules that compare with the present (`lt_now`, `gt_now`, `within`) are left out: nothing in Envoy's API uses them, and a
/// check whose result changes with time would be wrong here.
fn timestamp(rules: &TimestampRules) -> Numbers<Nanoseconds> {
    let time = |t: &Timestamp| Nanoseconds::new(t.seconds, t.nanos);
    Numbers {
        name: "timestamp",
        constant: rules.r#const.as_ref().map(time),
        lt: rules.lt.as_ref().map(time),
        lte: rules.lte.as_ref().map(time),
        gt: rules.gt.as_ref().map(time),
        gte: rules.gte.as_ref().map(time),
        any_of: [].into(),
        none_of: [].into(),
        ignore_empty: false,
    }
}

/// `validate.EnumRules`.
pub(super) struct EnumRule {
    constant: Option<i32>,
    /// The numbers that the enum defines, ordered, if only those may be used.
    defined: Option<Box<[i32]>>,
    any_of: Box<[i32]>,
    none_of: Box<[i32]>,
}

impl EnumRule {
    fn of(rules: &EnumRules, field: &FieldDescriptor) -> Self {
        let defined = match field.kind() {
            Described::Enum(described) if rules.defined_only() => {
                let mut numbers: Vec<i32> = described.values().map(|v| v.number()).collect();
                numbers.sort_unstable();
                Some(numbers.into())
            }
            _ => None,
        };
        Self {
            constant: rules.r#const,
            defined,
            any_of: rules.r#in.clone().into(),
            none_of: rules.not_in.clone().into(),
        }
    }

    fn check(&self, number: i32) -> Option<Broken> {
        let rule = if let Some(wanted) = self.constant.filter(|c| *c != number) {
            format!("enum.const = {wanted}")
        } else if self.defined.as_ref().is_some_and(|d| d.binary_search(&number).is_err()) {
            "enum.defined_only".to_owned()
        } else if !self.any_of.is_empty() && !self.any_of.contains(&number) {
            format!("enum.in = {:?}", self.any_of)
        } else if self.none_of.contains(&number) {
            format!("enum.not_in = {:?}", self.none_of)
        } else {
            return None;
        };
        Some(Broken { rule, value: number.to_string() })
    }
}

/// `validate.AnyRules`: which type URLs may be inside.
pub(super) struct AnyRule {
    any_of: Box<[String]>,
    none_of: Box<[String]>,
}

impl AnyRule {
    fn of(rules: &AnyRules) -> Option<Self> {
        let says_something = !rules.r#in.is_empty() || !rules.not_in.is_empty();
        says_something.then(|| Self { any_of: rules.r#in.clone().into(), none_of: rules.not_in.clone().into() })
    }

    fn check(&self, type_url: &str) -> Option<Broken> {
        let listed = |list: &[String]| list.iter().any(|u| u == type_url);
        let rule = if !self.any_of.is_empty() && !listed(&self.any_of) {
            format!("any.in = {:?}", self.any_of)
        } else if listed(&self.none_of) {
            format!("any.not_in = {:?}", self.none_of)
        } else {
            return None;
        };
        Some(Broken { rule, value: quoted(type_url) })
    }
}

/// A text as violations show it: quoted, and shortened when it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

use number::numbers;
