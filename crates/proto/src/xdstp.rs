//! Names of the form `xdstp://authority/type/id?key=value&...` (rule P-72).
//!
//! Two such names are equal when they differ in the order of their context parameters only; the canonical form has
//! them in order of key. A name whose id ends in `/*` stands for a collection: for every resource whose name has another
//! last part of the id and is equal otherwise.

use std::borrow::Cow;

const SCHEME: &str = "xdstp://";

/// The canonical form of a name; any name of another form is its own.
pub fn canonical(name: &str) -> Cow<'_, str> {
    let Some((path, query)) = name.strip_prefix(SCHEME).and_then(|_| name.split_once('?')) else {
        return Cow::Borrowed(name);
    };
    let (query, fragment) = match query.find('#') {
        Some(at) => query.split_at(at),
        None => (query, ""),
    };
    let mut parameters: Vec<&str> = query.split('&').collect();
    let key = |parameter: &&str| parameter.split_once('=').map_or("", |(key, _)| key).len().min(parameter.len());
    let ordered = |a: &&str, b: &&str| a[..key(a)].cmp(&b[..key(b)]).then_with(|| a.cmp(b));
    if parameters.is_sorted_by(|a, b| ordered(a, b).is_le()) {
        return Cow::Borrowed(name);
    }
    parameters.sort_by(ordered);
    Cow::Owned(format!("{path}?{}{fragment}", parameters.join("&")))
}

/// Whether a name stands for a collection.
pub fn is_collection(name: &str) -> bool {
    collection_of(name).is_some_and(|collection| collection == name)
}

/// The collection that a canonical name belongs to, in canonical form; a collection belongs to itself. `None` for names
/// of another form, and for those without an authority, a type and an id.
pub fn collection_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix(SCHEME)?;
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, suffix) = rest.split_at(end);
    let mut parts = path.splitn(3, '/');
    let (_authority, _type, id) = (parts.next()?, parts.next()?, parts.next()?);
    let directory = &path[..path.len() - id.rsplit('/').next()?.len()];
    Some(format!("{SCHEME}{directory}*{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_context_parameters_does_not_matter() {
        assert_eq!(canonical("xdstp://a/t/id?b=2&a=1"), "xdstp://a/t/id?a=1&b=2");
        assert_eq!(canonical("xdstp://a/t/id?b=2&a=1#x"), "xdstp://a/t/id?a=1&b=2#x");
        assert_eq!(canonical("xdstp://a/t/id?a-b=1&a=2"), "xdstp://a/t/id?a=2&a-b=1");
        for name in ["xdstp://a/t/id", "xdstp://a/t/id?a=1&b=2", "xdstp://a/t/id?", "plain?b=2&a=1", "", "xdstp://"] {
            assert!(matches!(canonical(name), Cow::Borrowed(same) if same == name), "{name}");
        }
    }

    #[test]
    fn a_member_leads_to_its_collection_and_a_collection_to_itself() {
        for (name, collection) in [
            ("xdstp://a/t/dir/x", "xdstp://a/t/dir/*"),
            ("xdstp://a/t/dir/x?p=1", "xdstp://a/t/dir/*?p=1"),
            ("xdstp://a/t/dir/sub/x", "xdstp://a/t/dir/sub/*"),
            ("xdstp://a/t/x", "xdstp://a/t/*"),
            ("xdstp:///t/x", "xdstp:///t/*"),
        ] {
            assert_eq!(collection_of(name).as_deref(), Some(collection));
            assert_eq!(collection_of(collection).as_deref(), Some(collection));
            assert!(is_collection(collection) && !is_collection(name));
        }
        for name in ["x/*", "xdstp://a", "xdstp://a/t", "*", ""] {
            assert!(!is_collection(name), "{name}");
        }
    }
}
