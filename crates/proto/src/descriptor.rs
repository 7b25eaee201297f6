//! Any message by its descriptor: as JSON, from JSON, and without its secrets.
//!
//! This is for views and for input, not for the path of a publish: it decodes into dynamic messages, which is slow. JSON is that of
//! protobuf's own mapping, with the field names of the `.proto` files, as Envoy's `/config_dump` writes them.

mod json;
mod parse;
mod redact;

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};
use serde_json::Value;

use self::json::Secrets;
pub use self::parse::{InvalidJson, from_deserializer, from_json};
pub use self::redact::redact;

/// What stands in the place of a sensitive value.
pub const REDACTED: &str = "[redacted]";

/// The embedded descriptors, ready for use. The first call takes a tenth of a second.
pub fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).expect("the build script wrote them; a test loads them")
    });
    &POOL
}

/// A message as JSON, with `@type` first, as for the contents of an `Any`. **It shows secrets**; see [`to_redacted_json`].
///
/// Never fails: what cannot be decoded (an unknown type, malformed bytes), here or in a nested `Any`, is shown as
/// `{"@type": ..., "value": <base64>}`. Unknown fields are left out.
pub fn to_json(type_url: &str, bytes: &[u8]) -> Value {
    json::any(type_url, bytes, Secrets::Shown, MAX_DEPTH)
}

/// [`to_json`] with `"[redacted]"` in the place of each field that the API marks as sensitive, and of everything that cannot be decoded,
/// because it may hold anything.
pub fn to_redacted_json(type_url: &str, bytes: &[u8]) -> Value {
    json::any(type_url, bytes, Secrets::Redacted, MAX_DEPTH)
}

/// How many messages inside each other are shown.
const MAX_DEPTH: u32 = 100;

/// The message that a type URL (or a bare full name) names.
pub(crate) fn message_of(type_url: &str) -> Option<MessageDescriptor> {
    pool().get_message_by_name(type_url.rsplit('/').next()?)
}
