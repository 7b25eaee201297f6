//! `@request.auth.claims` among the headers of a match: the name of something that a token says.

/// What the names of all such conditions begin with, in any case.
const PREFIX: &str = "@request.auth.";
const CLAIMS: &str = "@request.auth.claims";

/// Whether a name in `headers` or `withoutHeaders` is not that of a header, but asks about a token.
pub fn is_about_tokens(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The path to a claim: of `@request.auth.claims.realm.roles` and `@request.auth.claims[realm][roles]` it is `realm`,
/// `roles`. With brackets the parts may have dots. `None` for another form.
pub fn claim_path(name: &str) -> Option<Vec<&str>> {
    let (start, rest) = name.split_at_checked(CLAIMS.len())?;
    if !start.eq_ignore_ascii_case(CLAIMS) {
        return None;
    }
    let parts: Vec<&str> = match rest.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    let is_part = |part: &&str| !part.is_empty() && !part.contains(['[', ']']);
    parts.iter().all(is_part).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_with_dots_or_brackets() {
        for (name, wanted) in [
            ("@request.auth.claims.sub", Some(vec!["sub"])),
            ("@request.auth.claims.realm.roles", Some(vec!["realm", "roles"])),
            ("@Request.Auth.Claims[https://shop.test/role]", Some(vec!["https://shop.test/role"])),
            ("@request.auth.claims[realm][roles]", Some(vec!["realm", "roles"])),
            ("@request.auth.claims", None),
            ("@request.auth.claims.", None),
            ("@request.auth.claims.a..b", None),
            ("@request.auth.claims[]", None),
            ("@request.auth.claims[a", None),
            ("@request.auth.claims[a].b", None),
            ("@request.auth.principal", None),
            ("@request.auth.claimsé", None),
        ] {
            assert_eq!(claim_path(name), wanted, "{name}");
            assert!(is_about_tokens(name));
        }
        assert!(!is_about_tokens("x-request"));
        assert!(!is_about_tokens("é@request.auth."));
    }
}
