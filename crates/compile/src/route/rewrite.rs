//! Rewriting of paths on the way to the destination.

use proto::pb::envoy::config::route::v3::route_match::PathSpecifier;
use proto::pb::envoy::config::route::v3::{RouteAction, RouteMatch};
use proto::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use world::api::istio::Rewrite;

use super::headers::is_sendable;
use super::pattern::regex_matcher;
use super::regex;

/// How the path changes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PathRewrite {
    /// What matched is replaced by this: the prefix, the whole path, or, with groups, what the expression matched.
    Matched(String),
    /// Wherever the expression matches, the substitution.
    Regex { pattern: String, substitution: String },
}

impl PathRewrite {
    /// Reads `rewrite.uri` or `rewrite.uriRegexRewrite`, of which the latter wins as in Istio. Its expression may
    /// compile to at most `most_instructions`.
    ///
    /// # Errors
    /// The field and why it cannot be done.
    pub(super) fn read(text: &Rewrite, most_instructions: u32) -> Result<Option<Self>, (&'static str, String)> {
        const REGEX: &str = ".rewrite.uriRegexRewrite";
        if let Some(rewrite) = &text.uri_regex_rewrite {
            let checked = regex::check(&rewrite.pattern, most_instructions)
                .map_err(|why| (REGEX, format!("invalid regular expression \"{}\": {why}", rewrite.pattern)))?;
            check_substitution(&rewrite.rewrite, checked.groups()).map_err(|why| (REGEX, why))?;
            let (pattern, substitution) = (rewrite.pattern.clone(), rewrite.rewrite.clone());
            return Ok(Some(PathRewrite::Regex { pattern, substitution }));
        }
        let Some(uri) = text.uri.as_ref().filter(|uri| !uri.is_empty()) else { return Ok(None) };
        if !is_sendable(uri) {
            return Err((".rewrite.uri", "not a valid path".to_owned()));
        }
        Ok(Some(PathRewrite::Matched(uri.clone())))
    }

    /// Puts the rewrite into the action of a route with this match.
    ///
    /// # Errors
    /// Why it does not go with the match.
    pub(super) fn apply(&self, conditions: &RouteMatch, action: &mut RouteAction) -> Result<(), String> {
        let (pattern, substitution) = match (self, &conditions.path_specifier) {
            (PathRewrite::Regex { pattern, substitution }, _) => (pattern.clone(), substitution.clone()),
            // Both Envoy's rewrite and the match are about the whole path; an anchor keeps an early alternative from
            // matching, and so replacing, only the beginning.
            (PathRewrite::Matched(uri), Some(PathSpecifier::SafeRegex(path))) => {
                // Only a substitution that refers to groups depends on how many there are.
                if uri.contains('\\') {
                    let groups = regex::check(&path.regex, u32::MAX).map(|checked| checked.groups()).unwrap_or(0);
                    check_substitution(uri, groups)?;
                }
                (format!("^(?:{})$", path.regex), uri.clone())
            }
            (PathRewrite::Matched(uri), _) => {
                action.prefix_rewrite.clone_from(uri);
                return Ok(());
            }
        };
        let pattern = Some(regex_matcher(&pattern));
        action.regex_rewrite = Some(RegexMatchAndSubstitute { pattern, substitution });
        Ok(())
    }
}

/// Whether RE2 can carry out the substitution: `\0` to `\9` up to the number of groups, `\\` for a backslash. Envoy
/// does not check it when it takes the route; it would silently rewrite nothing.
fn check_substitution(text: &str, groups: usize) -> Result<(), String> {
    if !is_sendable(text) {
        return Err("the substitution holds a control character".to_owned());
    }
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            continue;
        }
        match rest.next() {
            Some('\\') => {}
            Some(digit) if digit.to_digit(10).is_some_and(|number| number as usize <= groups) => {}
            Some(digit) if digit.is_ascii_digit() => {
                return Err(format!("the substitution uses group \\{digit}, but the expression has {groups}"));
            }
            Some(_) | None => return Err("a backslash in the substitution is followed by no group".to_owned()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutions_refer_to_groups_that_exist() {
        for (text, groups) in [("/x", 0), (r"/\1/\2", 2), (r"\0", 0), (r"a\\b", 0)] {
            assert_eq!(check_substitution(text, groups), Ok(()), "{text}");
        }
        for (text, groups) in [(r"\1", 0), (r"\3", 2), (r"\x", 1), (r"\", 1), ("a\nb", 0)] {
            assert!(check_substitution(text, groups).is_err(), "{text}");
        }
    }
}
