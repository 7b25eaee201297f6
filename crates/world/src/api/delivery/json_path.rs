//! Where something stands in a JSON document.

use std::fmt;

use serde_json::Value;

/// A path such as `$.data[0].value`, `data.0.value` or `{$.data["some key"]}`: the parts of JSONPath that name one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    keys: Vec<String>,
}

/// As it was written.
impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonPath {
    /// Reads a path; an empty one is the whole document.
    ///
    /// # Errors
    /// Says where it is none, or names more than one place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = text.trim();
        // Kubernetes and Argo Rollouts write it in braces.
        let path = path.strip_prefix('{').and_then(|path| path.strip_suffix('}')).unwrap_or(path).trim();
        let mut rest = path.strip_prefix('$').unwrap_or(path);
        let mut keys = Vec::new();
        while !rest.is_empty() {
            let (key, behind) = step(rest).ok_or_else(|| format!("{text:?} names no place at {rest:?}"))?;
            keys.push(key.to_owned());
            rest = behind;
        }
        Ok(Self { text: text.to_owned(), keys })
    }

    /// What stands there; `None` when there is nothing.
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.keys.iter().try_fold(document, |at, key| match at {
            Value::Object(fields) => fields.get(key),
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
    }
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
        // Anything else in there asks for several places.
        let is_number = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit());
        return inside.split_once(']').filter(|(key, _)| is_number(key));
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
            ("$.data.items.value", None),
        ] {
            let parsed = JsonPath::parse(path);
            assert_eq!(parsed.map(|path| path.find(&document).cloned()), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_names_no_place_or_several_is_refused() {
        for path in
            ["$..value", "$.data[", "$[", "$.data['items", "$.data.items[-1]", "$[*]", "$.a[?(@.b)]", "$.", "$[]"]
        {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
