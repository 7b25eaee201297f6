//! Values as `exact`, `prefix*`, `*suffix` and `*`, of which a request has to have one.

use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};

use crate::route::regex;

/// What surrounds a value in the header that it is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing.
    Text,
    /// A query may follow.
    Path,
    /// A port may follow, and case does not count.
    Host,
}

/// The matcher; `None` asks for presence.
///
/// # Errors
/// Says why Envoy would not take it.
pub(super) fn matcher(values: &[String], form: Form, max_instructions: u32) -> Result<Option<StringMatcher>, String> {
    if values.iter().any(|value| value == "*") {
        return Ok(None);
    }
    let pattern = match (values, form) {
        ([value], Form::Text) => match (value.strip_suffix('*'), value.strip_prefix('*')) {
            (Some(prefix), _) => MatchPattern::Prefix(prefix.to_owned()),
            (None, Some(suffix)) => MatchPattern::Suffix(suffix.to_owned()),
            (None, None) => MatchPattern::Exact(value.clone()),
        },
        ([value], Form::Path) if value.ends_with('*') => MatchPattern::Prefix(value.trim_end_matches('*').to_owned()),
        _ => MatchPattern::SafeRegex(expression(values, form, max_instructions)?),
    };
    Ok(Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }))
}

fn expression(values: &[String], form: Form, max_instructions: u32) -> Result<RegexMatcher, String> {
    let (before, after) = match form {
        Form::Text => ("", ""),
        Form::Path => ("", "(?:\\?.*)?"),
        Form::Host => ("(?i)", "(?::[0-9]+)?"),
    };
    let alternatives = values.iter().map(|value| match (value.strip_suffix('*'), value.strip_prefix('*')) {
        (Some(prefix), _) => format!("{}.*", regex_syntax::escape(prefix)),
        // What comes before a path's suffix is of the path.
        (None, Some(suffix)) if form == Form::Path => format!("[^?]*{}", regex_syntax::escape(suffix)),
        (None, Some(suffix)) => format!(".*{}", regex_syntax::escape(suffix)),
        (None, None) => regex_syntax::escape(value),
    });
    let alternatives = alternatives.collect::<Vec<_>>().join("|");
    let regex = format!("{before}(?:{alternatives}){after}");
    regex::check(&regex, max_instructions).map_err(|why| format!("the values together are too much: {why}"))?;
    Ok(RegexMatcher { regex, ..RegexMatcher::default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn takes(values: &[&str], form: Form, text: &str) -> bool {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        match matcher(&values, form, 1000).unwrap().map(|matcher| matcher.match_pattern.unwrap()) {
            None => true,
            Some(MatchPattern::Exact(exact)) => text == exact,
            Some(MatchPattern::Prefix(prefix)) => text.starts_with(&prefix),
            Some(MatchPattern::Suffix(suffix)) => text.ends_with(&suffix),
            Some(MatchPattern::SafeRegex(regex)) => regex::check(&regex.regex, 1000).unwrap().is_match(text),
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_compared_without_their_query() {
        for text in ["/login", "/login?next=/cart"] {
            assert!(takes(&["/login"], Form::Path, text), "{text}");
        }
        assert!(!takes(&["/login"], Form::Path, "/login/now"));
        assert!(!takes(&["/login"], Form::Path, "/other?to=/login"));
        assert!(takes(&["/api/*"], Form::Path, "/api/a?b"));
        assert!(takes(&["*.png"], Form::Path, "/a/b.png?size=1"));
        assert!(!takes(&["*.png"], Form::Path, "/a?b=c.png"));
        assert!(takes(&["/a", "/b/*", "*.c"], Form::Path, "/b/x?y"));
        assert!(!takes(&["/a", "/b/*", "*.c"], Form::Path, "/ab"));
    }

    #[test]
    fn hosts_are_compared_without_their_port_and_case() {
        for text in ["shop.test", "SHOP.test", "shop.test:8080"] {
            assert!(takes(&["shop.test"], Form::Host, text), "{text}");
        }
        assert!(!takes(&["shop.test"], Form::Host, "shop.test.evil"));
        assert!(!takes(&["shop.test"], Form::Host, "shopxtest"));
        assert!(takes(&["*.shop.test"], Form::Host, "a.shop.test:1"));
        assert!(takes(&["shop.*"], Form::Host, "shop.example:80"));
    }

    #[test]
    fn texts_are_compared_as_they_are() {
        assert!(takes(&["GET", "HEAD"], Form::Text, "HEAD"));
        assert!(!takes(&["GET", "HEAD"], Form::Text, "HEADER"));
        assert!(takes(&["a*"], Form::Text, "ab") && !takes(&["a*"], Form::Text, "ba"));
        assert!(takes(&["*a"], Form::Text, "ba") && !takes(&["*a"], Form::Text, "ab"));
        assert!(takes(&["x", "*"], Form::Text, "anything"));
        assert!(takes(&["a+b", "c"], Form::Text, "a+b") && !takes(&["a+b", "c"], Form::Text, "aab"));
    }

    #[test]
    fn too_many_values_for_envoy_are_told() {
        let values: Vec<String> = (0..16).map(|at| format!("/a/long/path/of/{at}")).collect();
        assert!(matcher(&values, Form::Path, 100).unwrap_err().contains("instructions"));
    }
}
