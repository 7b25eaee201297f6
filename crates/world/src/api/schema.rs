//! What the types of our own kinds say about themselves, for the schema that an API server is given.
//!
//! The shape (fields, words, defaults, descriptions) is derived from the types. What is written here and in the types'
//! `schemars` attributes are bounds, and rules between fields in CEL, the language of `x-kubernetes-validations`:
//! those of the source's validation that an API server can see, which are nearly all of them.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};

/// A rule in CEL about `self`, and what is said where it does not hold.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// The rules of a duration from `least` on (`1s`).
pub(crate) fn at_least(least: &str) -> Vec<Value> {
    vec![rule(&format!("duration(self) >= duration('{least}')"), &format!("is at least {least}"))]
}

/// The rules of a duration up to `most` (`1h`).
pub(crate) fn at_most(most: &str) -> Vec<Value> {
    vec![rule(&format!("duration(self) <= duration('{most}')"), &format!("is {most} at most"))]
}

/// The rules of a duration from `least` up to `most`.
pub(crate) fn between(least: &str, most: &str) -> Vec<Value> {
    [at_least(least), at_most(most)].concat()
}

/// The rules of a duration that takes any time at all.
pub(crate) fn some_time() -> Vec<Value> {
    vec![rule("duration(self) > duration('0s')", "is longer than nothing")]
}

/// A duration as Go writes it.
pub(crate) fn duration() -> Schema {
    json_schema!({
        "type": "string",
        // Rules read it, and what they cost is reckoned from how long it can be.
        "maxLength": 64,
        "pattern": "^(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(h|m|s|ms|us|µs|ns))+)$",
    })
}

/// A token of RFC 9110, as names of headers and cookies are.
pub(crate) const TOKEN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// A name of a header, or of a pseudo header.
pub(crate) const HEADER: &str = "^:?[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// A value of a label that is a revision, or `Auto`.
pub(crate) const REVISION: &str = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$";

/// A name of Kubernetes that may have dots.
pub(crate) const SUBDOMAIN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";

/// One without.
pub(crate) const LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";

/// An address of HTTP, with all that is not written as it is in one already encoded (RFC 3986): a scheme, perhaps a user,
/// a host, perhaps a port, and perhaps a path, a query and a fragment.
pub const URL: &str = "^https?://([A-Za-z0-9._~%:-]+@)?([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?([/?#][!#-;=?-\\[\\]_a-z~]*)?$";

/// A text on one line: what names things, and stands in logs and on terminals.
pub(crate) const LINE: &str = "^[^\\x00-\\x1f\\x7f-\\x9f]+$";

/// A path of a cookie: what `Set-Cookie` of RFC 6265 takes, without blanks and commas.
pub const COOKIE_PATH: &str = "^/[!-+\\--:<-~]*$";

/// A domain of a cookie.
pub const COOKIE_DOMAIN: &str =
    "^[.]?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$";

/// An RFC 3339 time.
pub(crate) const TIME: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$";

/// Something that is not looked into: it is written by machines, or has no type that a schema can express.
pub(crate) fn anything() -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of protobuf messages in JSON, each with its type.
pub(crate) fn messages() -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"@type": {"type": "string", "minLength": 1}},
            "required": ["@type"],
        },
    })
}
