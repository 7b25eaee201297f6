//! Works on encoded messages, without decoding them: brings them into a canonical form, and checks them.
//!
//! Both walk the bytes by tables that are built once from the embedded descriptors (that takes a fraction of a second, on first
//! use; see [`warm_up`]). Nothing is allocated unless something has to be moved or reported.
//!
//! What is not known stays as it is: unknown fields, and the contents of an `Any` of an unknown type.

mod annotations;
mod canonical;
mod check;
mod reader;
mod rule;
mod table;
mod violation;

use std::borrow::Cow;
use std::fmt;

use prost_reflect::MessageDescriptor;

use self::table::{MessageTable, TABLES};
pub use self::violation::Violation;
use crate::ResourceType;

/// A message type of the embedded descriptors. Cheap to copy; find it once, use it often.
#[derive(Clone, Copy)]
pub struct Message(&'static MessageTable);

impl Message {
    /// The message with this full name, such as `envoy.config.cluster.v3.Cluster`; `None` when it is not in the descriptors.
    pub fn of(full_name: &str) -> Option<Self> {
        TABLES.find(full_name).map(|index| Self(TABLES.at(index)))
    }

    /// The message that a type URL names; whatever comes before the last slash is ignored, as Envoy does.
    pub fn of_type_url(type_url: &str) -> Option<Self> {
        TABLES.find_type_url(type_url).map(|index| Self(TABLES.at(index)))
    }

    /// The message of a kind of resource.
    pub fn of_resource(resource_type: ResourceType) -> Self {
        Self::of(resource_type.message_name())
            .expect("the pinned API defines every resource type; a test looks for each")
    }

    /// Its full name.
    pub fn name(self) -> &'static str {
        &self.0.name
    }

    /// The same message with the entries of all maps ordered by the bytes of their keys, also inside of `Any`s of known types.
    ///
    /// prost writes maps in random order; after this, equal messages that prost has encoded have equal bytes. Borrowed when nothing
    /// has to move. Bytes that are no such message are returned as they are.
    pub fn canonicalize(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        if !self.needs_sorting(bytes) {
            return Cow::Borrowed(bytes);
        }
        let mut sorted = bytes.to_vec();
        match canonical::sort(&TABLES, self.0, &mut sorted, canonical::DEPTH) {
            Ok(()) => Cow::Owned(sorted),
            Err(_) => Cow::Borrowed(bytes),
        }
    }

    /// [`Message::canonicalize`] for bytes that the caller owns.
    pub fn canonicalized(self, bytes: Vec<u8>) -> Vec<u8> {
        match self.canonicalize(&bytes) {
            Cow::Owned(sorted) => sorted,
            Cow::Borrowed(_) => bytes,
        }
    }

    fn needs_sorting(self, bytes: &[u8]) -> bool {
        self.0.sorts && canonical::is_sorted(&TABLES, self.0, bytes, canonical::DEPTH) == Ok(false)
    }

    /// Checks the rules that Envoy's API states about its own fields (`validate.rules`), also inside of `Any`s of known types. Envoy
    /// refuses messages that break them.
    ///
    /// Each field is taken as encoders write it: a single message that comes in several parts is checked part by part.
    ///
    /// # Errors
    /// What is broken, at most 100 violations, in the order of the message. Bytes that are no such message break the rule `malformed`.
    pub fn check(self, bytes: &[u8]) -> Result<(), Vec<Violation>> {
        let violations = check::violations(&TABLES, self.0, bytes);
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

/// Names it.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({})", self.name())
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Message {}

/// [`Message::canonicalize`] for a type URL; bytes of an unknown type are returned as they are.
pub fn canonicalize<'a>(type_url: &str, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    Message::of_type_url(type_url).map_or(Cow::Borrowed(bytes), |message| message.canonicalize(bytes))
}

/// [`Message::check`] for a type URL; nothing is known of an unknown type, so nothing is found.
///
/// # Errors
/// As [`Message::check`].
pub fn check(type_url: &str, bytes: &[u8]) -> Result<(), Vec<Violation>> {
    Message::of_type_url(type_url).map_or(Ok(()), |message| message.check(bytes))
}

/// Builds the tables now instead of on first use.
pub fn warm_up() {
    std::sync::LazyLock::force(&TABLES);
}

/// Whether the API marks this field as one not to be shown.
pub(crate) fn is_sensitive(message: &MessageDescriptor, number: u32) -> bool {
    TABLES.find(message.full_name()).and_then(|index| TABLES.at(index).field(number)).is_some_and(|f| f.sensitive)
}
