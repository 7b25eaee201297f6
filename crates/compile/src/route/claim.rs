//! `@request.auth.claims` among the headers of a match: conditions on what a token says.

use super::pattern::Pattern;
use crate::flat;
use crate::security::{JWT_FILTER, JWT_PAYLOAD};

/// Writes a condition as one of `RouteMatch.dynamic_metadata`: `MetadataMatcher` with filter 1, path 2 (its key 1), value
/// 3, invert 4.
///
/// A claim that is a list is like the pattern when one of its elements is: `ValueMatcher` with string_match 3,
/// present_match 5, list_match 6 (its one_of 1), or_match 7 (its value_matchers 1).
pub(super) fn write(out: &mut Vec<u8>, path: &[&str], pattern: &Pattern<'_>, without: bool) {
    flat::message(out, 13, |out| {
        flat::text(out, 1, JWT_FILTER);
        for key in [JWT_PAYLOAD].iter().chain(path) {
            flat::message(out, 2, |out| flat::text(out, 1, key));
        }
        flat::message(out, 3, |out| match pattern {
            Pattern::Present => flat::flag(out, 5, true),
            Pattern::Exact(_) | Pattern::Prefix(_) | Pattern::Regex(_) => flat::message(out, 7, |out| {
                flat::message(out, 1, |out| pattern.write(out, 3));
                flat::message(out, 1, |out| {
                    flat::message(out, 6, |out| flat::message(out, 1, |out| pattern.write(out, 3)));
                });
            }),
        });
        flat::flag(out, 4, without);
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;
    use proto::pb::envoy::config::route::v3::RouteMatch;

    use super::*;

    #[test]
    fn what_is_written_is_what_prost_writes() {
        let mut written = Vec::new();
        write(&mut written, &["realm", "roles"], &Pattern::Exact("admin"), true);
        write(&mut written, &["sub"], &Pattern::Present, false);
        let read = RouteMatch::decode(&*written).unwrap();
        assert_eq!(read.encode_to_vec(), written);
        let keys = |at: usize| read.dynamic_metadata[at].path.len();
        assert_eq!((keys(0), keys(1)), (3, 2));
        assert!(read.dynamic_metadata[0].invert && !read.dynamic_metadata[1].invert);
    }
}
