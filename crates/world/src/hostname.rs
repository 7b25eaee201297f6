//! Host names and host patterns, with Istio's rules for short names and wildcards.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A DNS name in lower case, or a pattern: `*` alone, or `*.` followed by a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Takes `text` as it is, in lower case.
    pub fn new(text: &str) -> Self {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Self(text.to_ascii_lowercase().into())
        } else {
            Self(text.into())
        }
    }

    /// The fully qualified name of `text` written in an object of `namespace`: a name without a dot is a Kubernetes
    /// short name and becomes `<text>.<namespace>.svc.<domain>`; everything else, `*` included, stays as it is.
    pub fn qualified(text: &str, namespace: &str, domain: &str) -> Self {
        if text.contains('.') || text == "*" || text.is_empty() {
            Self::new(text)
        } else {
            Self::new(&format!("{text}.{namespace}.svc.{domain}"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a pattern.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether every name that `other` stands for is one that `self` stands for.
    pub fn covers(&self, other: &Hostname) -> bool {
        match self.0.strip_prefix('*') {
            None => self == other,
            Some("") => true,
            Some(suffix) => {
                let other = other.0.strip_prefix('*').unwrap_or(&other.0);
                other.len() >= suffix.len() && other.ends_with(suffix)
            }
        }
    }

    /// Every pattern that could cover this name, most specific first: the name itself, then `*.` over each parent
    /// domain, then `*`.
    pub fn patterns(&self) -> impl Iterator<Item = Hostname> + '_ {
        let rest = self.0.strip_prefix("*.").unwrap_or(&self.0);
        let parents = rest.match_indices('.').map(move |(at, _)| Hostname(format!("*{}", &rest[at..]).into()));
        let own = std::iter::once(self.clone());
        let any = (&*self.0 != "*").then(|| Hostname("*".into()));
        own.chain(parents).chain(any)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_qualified_with_its_objects_namespace() {
        assert_eq!(Hostname::qualified("reviews", "shop", "cluster.local").as_str(), "reviews.shop.svc.cluster.local");
        assert_eq!(Hostname::qualified("Example.COM", "shop", "cluster.local").as_str(), "example.com");
        assert_eq!(Hostname::qualified("*", "shop", "cluster.local").as_str(), "*");
    }

    #[test]
    fn patterns_go_from_the_name_itself_to_everything() {
        let patterns: Vec<_> = Hostname::new("a.b.c").patterns().map(|h| h.to_string()).collect();
        assert_eq!(patterns, ["a.b.c", "*.b.c", "*.c", "*"]);
        let patterns: Vec<_> = Hostname::new("*.b.c").patterns().map(|h| h.to_string()).collect();
        assert_eq!(patterns, ["*.b.c", "*.c", "*"]);
    }

    #[test]
    fn a_pattern_covers_deeper_names_and_deeper_patterns() {
        let pattern = Hostname::new("*.b.c");
        assert!(pattern.covers(&Hostname::new("a.b.c")));
        assert!(pattern.covers(&Hostname::new("*.a.b.c")));
        assert!(!pattern.covers(&Hostname::new("b.c")));
        assert!(!pattern.covers(&Hostname::new("xb.c")));
        assert!(!Hostname::new("a.b.c").covers(&pattern));
    }
}
