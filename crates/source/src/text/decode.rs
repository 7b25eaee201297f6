//! From a [`Node`] to a type of [`world::api`], with the path of everything that does not fit.
//!
//! A serde deserializer of our own, because three things are wanted at once: the path of a type error, all fields that
//! the type does not have, and which names it does have. A field whose value is null counts as absent, as it does for
//! the Kubernetes API server.

mod access;
mod mismatch;

use std::cell::RefCell;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::node::{Node, Value};
use access::{Entries, Fields, Items};
pub(super) use mismatch::Mismatch;

/// A field that the type does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// `spec.http[0].rout`.
    pub(super) path: String,
    /// The path with every index as `[]` and every key of a free-form map as `*`: `spec.http[].rout`.
    pub(super) pattern: String,
    /// The last part of the path.
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) column: u32,
    /// The names that the type has at this place.
    pub(super) known: &'static [&'static str],
}

/// A value that does not fit its type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) path: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) mismatch: Mismatch,
}

/// Reads `node` as a `T`, and the fields that `T` does not have. `at` is the path of `node` itself, `also` names
/// fields of it that are known although `T` lacks them.
pub(super) fn decode<T: DeserializeOwned>(
    node: &Node,
    at: &'static str,
    also: &'static [&'static str],
) -> (Result<T, Failure>, Vec<Unknown>) {
    let state = RefCell::new(State::default());
    if !at.is_empty() {
        state.borrow_mut().path.push(Step::Field(at));
    }
    let decoder = Decoder { node, state: &state, also };
    let result = decoder.entered(|decoder| T::deserialize(decoder));
    let state = state.into_inner();
    let result = result.map_err(|mismatch| {
        let (path, line, column) = state.failed.unwrap_or_default();
        Failure { path, line, column, mismatch }
    });
    (result, state.unknown)
}

/// One step from a value to a part of it.
#[derive(Clone, Copy)]
enum Step<'n> {
    /// A field of a type.
    Field(&'n str),
    /// A key of a free-form map.
    Key(&'n str),
    /// A place in a list.
    Index(usize),
}

#[derive(Default)]
struct State<'n> {
    path: Vec<Step<'n>>,
    unknown: Vec<Unknown>,
    /// Path, line and column of the innermost value that failed.
    failed: Option<(String, u32, u32)>,
}

impl State<'_> {
    fn path(&self) -> String {
        write_path(&self.path, |index| format!("[{index}]"), |key| key)
    }

    fn pattern(&self) -> String {
        write_path(&self.path, |_| "[]".to_owned(), |_| "*")
    }
}

fn write_path<'n>(
    steps: &[Step<'n>],
    index: impl Fn(usize) -> String,
    key: impl for<'k> Fn(&'k str) -> &'k str,
) -> String {
    let mut text = String::new();
    for step in steps {
        let name = match step {
            Step::Index(at) => {
                text.push_str(&index(*at));
                continue;
            }
            Step::Field(name) => name,
            Step::Key(name) => key(name),
        };
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(name);
    }
    text
}

#[derive(Clone, Copy)]
struct Decoder<'n, 's> {
    node: &'n Node,
    state: &'s RefCell<State<'n>>,
    also: &'static [&'static str],
}

impl<'n> Decoder<'n, '_> {
    /// Runs `read` and notes this value's place if it fails here and not deeper.
    fn entered<T>(self, read: impl FnOnce(Self) -> Result<T, Mismatch>) -> Result<T, Mismatch> {
        let result = read(self);
        if result.is_err() {
            let mut state = self.state.borrow_mut();
            if state.failed.is_none() {
                let path = state.path();
                state.failed = Some((path, self.node.line, self.node.column));
            }
        }
        result
    }

    /// Reads the part `node` that lies one `step` down.
    fn child<T>(
        self,
        step: Step<'n>,
        node: &'n Node,
        read: impl FnOnce(Self) -> Result<T, Mismatch>,
    ) -> Result<T, Mismatch> {
        self.state.borrow_mut().path.push(step);
        let child = Decoder { node, state: self.state, also: &[] };
        let result = child.entered(read);
        self.state.borrow_mut().path.pop();
        result
    }
}

impl<'n> Deserializer<'n> for Decoder<'n, '_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items::new(self, items)),
            Value::Map(entries) => visitor.visit_map(Entries::new(self, entries)),
        }
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(Fields::new(self, entries, fields)),
            // The derived visitor would also take a list as the fields in order: manifests have no such form.
            Value::List(_) => Err(Mismatch::new("a mapping", "a list")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match &self.node.value {
            Value::String(text) => visitor.visit_enum(serde::de::value::StrDeserializer::new(text)),
            _ => Err(<Mismatch as serde::de::Error>::invalid_type(mismatch::unexpected(&self.node.value), &"a string")),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}
