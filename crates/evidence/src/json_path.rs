//! Where something stands in a JSON document.

use serde_json::Value;

/// What stands at a path such as `$.data[0].value`, `data.0.value` or `{$.data["some key"]}`; `None` when there is nothing.
/// These are the parts of JSONPath that name one place.
pub(crate) fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.trim();
    // Kubernetes and Argo Rollouts write it in braces.
    let path = path.strip_prefix('{').and_then(|path| path.strip_suffix('}')).unwrap_or(path).trim();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut at = document;
    while !rest.is_empty() {
        let (key, behind) = step(rest)?;
        at = match at {
            Value::Object(fields) => fields.get(key)?,
            Value::Array(items) => items.get(key.parse::<usize>().ok()?)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
        rest = behind;
    }
    Some(at)
}

/// The first key, and what comes behind it.
fn step(path: &str) -> Option<(&str, &str)> {
    if let Some(inside) = path.strip_prefix('[') {
        for quote in ['"', '\''] {
            if let Some(quoted) = inside.strip_prefix(quote) {
                let (key, behind) = quoted.split_once(quote)?;
                return Some((key, behind.strip_prefix(']')?));
            }
        }
        return inside.split_once(']');
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (key, behind) = path.split_at(end);
    (!key.is_empty()).then_some((key, behind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_names_one_place() {
        let document = json!({ "data": { "items": [{ "value": 1 }, { "a.b": 2 }], "0": 3 } });
        for (path, expected) in [
            ("$.data.items[0].value", Some(json!(1))),
            ("data.items.0.value", Some(json!(1))),
            ("{$.data.items[1]['a.b']}", Some(json!(2))),
            ("$[\"data\"].0", Some(json!(3))),
            ("$", Some(document.clone())),
            ("", Some(document.clone())),
            ("$.data.items[2]", None),
            ("$.data.items[-1]", None),
            ("$.data.items.value", None),
            ("$..value", None),
            ("$.data[", None),
            ("$.data['items", None),
        ] {
            assert_eq!(find(&document, path).cloned(), expected, "{path}");
        }
    }
}
