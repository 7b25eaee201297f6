//! Rewriting of paths on the way to the destination.

use world::api::istio::Rewrite;

use super::headers::is_sendable;
use super::matching::Path;
use super::pattern::write_regex;
use super::regex;
use crate::flat;

/// How the path changes, as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PathRewrite<'a> {
    /// What matched is replaced by this: the prefix, the whole path, or, with groups, what the expression matched.
    Matched(&'a str),
    /// Wherever the expression matches, the substitution.
    Regex { pattern: &'a str, substitution: &'a str },
}

/// How the path of requests that one match takes changes, in Envoy's words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change<'a> {
    /// The matched prefix, or the whole path, becomes this.
    Prefix(&'a str),
    /// Wherever the expression, given in pieces, matches, the substitution.
    Regex { pattern: [&'a str; 3], substitution: &'a str },
}

impl Change<'_> {
    /// Writes `RouteAction.regex_rewrite`: pattern 1, substitution 2. [`Change::Prefix`] belongs elsewhere.
    pub(super) fn write_regex(&self, out: &mut Vec<u8>, field: u32) {
        if let Change::Regex { pattern, substitution } = self {
            flat::message(out, field, |out| {
                write_regex(out, 1, pattern);
                flat::text(out, 2, substitution);
            });
        }
    }
}

impl<'a> PathRewrite<'a> {
    /// Reads `rewrite.uri` or `rewrite.uriRegexRewrite`, of which the latter wins as in Istio. Its expression may
    /// compile to at most `most_instructions`.
    ///
    /// # Errors
    /// The field and why it cannot be done.
    pub(super) fn read(text: &'a Rewrite, most_instructions: u32) -> Result<Option<Self>, (&'static str, String)> {
        const REGEX: &str = ".rewrite.uriRegexRewrite";
        if let Some(rewrite) = &text.uri_regex_rewrite {
            let checked = regex::check(&rewrite.pattern, most_instructions)
                .map_err(|why| (REGEX, format!("invalid regular expression \"{}\": {why}", rewrite.pattern)))?;
            check_substitution(&rewrite.rewrite, checked.groups()).map_err(|why| (REGEX, why))?;
            return Ok(Some(PathRewrite::Regex { pattern: &rewrite.pattern, substitution: &rewrite.rewrite }));
        }
        let Some(uri) = text.uri.as_ref().filter(|uri| !uri.is_empty()) else { return Ok(None) };
        if !is_sendable(uri) {
            return Err((".rewrite.uri", "not a valid path".to_owned()));
        }
        Ok(Some(PathRewrite::Matched(uri)))
    }

    /// What it means for requests whose path matched `path`.
    ///
    /// # Errors
    /// Why it does not go with the match.
    pub(super) fn after(&self, path: &Path<'a>) -> Result<Change<'a>, String> {
        match (*self, path) {
            (PathRewrite::Regex { pattern, substitution }, _) => {
                Ok(Change::Regex { pattern: ["", pattern, ""], substitution })
            }
            // Both Envoy's rewrite and the match are about the whole path; an anchor keeps an early alternative from
            // matching, and so replacing, only the beginning.
            (PathRewrite::Matched(uri), Path::Regex(path)) => {
                // Only a substitution that refers to groups depends on how many there are.
                if uri.contains('\\') {
                    let groups = regex::check(path, u32::MAX).map(|checked| checked.groups()).unwrap_or(0);
                    check_substitution(uri, groups)?;
                }
                Ok(Change::Regex { pattern: ["^(?:", path, ")$"], substitution: uri })
            }
            (PathRewrite::Matched(uri), Path::Exact(_) | Path::Prefix(_)) => Ok(Change::Prefix(uri)),
        }
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
