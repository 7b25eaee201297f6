//! Who the peer is, by the URI in its certificate: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
//!
//! Envoy compares the certificate's DNS names and subject, too, when no URI matches. So whatever is asked of an identity
//! begins with `spiffe://`, which neither of the two does.

use std::sync::Arc;

use proto::pb::envoy::config::rbac::v3::{Principal, principal};
use proto::pb::envoy::r#type::matcher::v3::StringMatcher;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use world::api::istio::ValueMatch;

use super::term::Term;
use super::text::{present, regex, string};
use crate::route::regex as syntax;

const SCHEME: &str = "spiffe://";
/// The trust domain that Istio takes for the mesh's own, whatever that is called.
const POINTER: &str = "cluster.local";

/// Whom identities are compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identities<'a> {
    /// The mesh's trust domain, then its aliases: a principal of one of them is one of each.
    pub(super) trust_domains: &'a [Arc<str>],
    /// How many instructions a regular expression may compile to.
    pub(super) most_regex_instructions: u32,
}

impl Identities<'_> {
    /// `principals`.
    pub(super) fn principal(&self, value: &str) -> Option<Principal> {
        let one = |value: &str| {
            Some(match ValueMatch::new(value) {
                ValueMatch::Present => named(present()),
                ValueMatch::Exact(exact) => named(string(MatchPattern::Exact(format!("{SCHEME}{exact}")))),
                ValueMatch::Prefix(prefix) => named(string(MatchPattern::Prefix(format!("{SCHEME}{prefix}")))),
                ValueMatch::Suffix(suffix) => self.ending(&format!(".*{}", ::regex::escape(suffix)), suffix),
            })
        };
        // With a scheme nobody would be meant.
        if value.is_empty() || value.starts_with(SCHEME) {
            return None;
        }
        let all: Option<Vec<_>> = self.under_all_aliases(value).iter().map(|value| one(value)).collect();
        Some(Principal::one_of(all?))
    }

    /// `namespaces`, in which a star stands for any part of a name.
    pub(super) fn namespace(&self, value: &str) -> Option<Principal> {
        let name = match value {
            "" => return None,
            "*" => "[^/]+".to_owned(),
            _ => value.split('*').map(::regex::escape).collect::<Vec<_>>().join("[^/]*"),
        };
        let pattern = format!("{SCHEME}.+/ns/{name}/.+");
        self.fits(&pattern).then(|| named(regex(pattern)))
    }

    /// `serviceAccounts`: `<namespace>/<account>`, or an account of `namespace`. Stars are not taken.
    pub(super) fn service_account(&self, value: &str, namespace: &str) -> Option<Principal> {
        let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
        if [namespace, account].iter().any(|part| part.is_empty() || part.contains(['*', '/'])) {
            return None;
        }
        let (in_namespace, of_account) = (::regex::escape(namespace), ::regex::escape(account));
        // Other pairs may stand between and behind the two, as Istio allows.
        let pattern = format!(".+/ns/{in_namespace}/(?:.+/)?sa/{of_account}(?:/.+)?");
        Some(self.ending(&pattern, &format!("/ns/{namespace}/sa/{account}")))
    }

    /// `trustDomains`.
    pub(super) fn trust_domain(&self, value: &str) -> Option<Principal> {
        if value.is_empty() || value.contains('/') {
            return None;
        }
        Some(named(match ValueMatch::new(value) {
            ValueMatch::Present => string(MatchPattern::Prefix(SCHEME.to_owned())),
            ValueMatch::Exact(exact) => string(MatchPattern::Prefix(format!("{SCHEME}{exact}/"))),
            ValueMatch::Prefix(prefix) => string(MatchPattern::Prefix(format!("{SCHEME}{prefix}"))),
            ValueMatch::Suffix(suffix) => {
                let pattern = format!("{SCHEME}[^/]*{}/.+", ::regex::escape(suffix));
                if !self.fits(&pattern) {
                    return None;
                }
                regex(pattern)
            }
        }))
    }

    /// An identity whose rest behind the scheme is like `pattern`; where that is too large an expression, one that
    /// begins with the scheme and ends with `suffix`.
    fn ending(&self, pattern: &str, suffix: &str) -> Principal {
        let pattern = format!("{SCHEME}{pattern}");
        if self.fits(&pattern) {
            return named(regex(pattern));
        }
        Principal::all(vec![
            named(string(MatchPattern::Prefix(SCHEME.to_owned()))),
            named(string(MatchPattern::Suffix(suffix.to_owned()))),
        ])
    }

    fn fits(&self, pattern: &str) -> bool {
        syntax::check(pattern, self.most_regex_instructions).is_ok()
    }

    /// The principal in each trust domain, if it is one of the mesh's own. The domain of a suffix (`*local/ns/…`) is
    /// whatever ends like that.
    fn under_all_aliases(&self, value: &str) -> Vec<String> {
        // With a star at either end a value is a suffix that ends with a star, which no identity does.
        let is_open = |text: &str| text.starts_with('*') && text.ends_with('*');
        let Some((domain, rest)) = value.split_once('/').filter(|_| !is_open(value)) else {
            return vec![value.to_owned()];
        };
        let is_own = |own: &Arc<str>| match domain.strip_prefix('*') {
            Some("") | None => **own == *domain,
            Some(end) => own.ends_with(end),
        };
        if domain != POINTER && !self.trust_domains.iter().any(is_own) {
            return vec![value.to_owned()];
        }
        let mut all: Vec<String> = Vec::new();
        let own = self.trust_domains.iter().map(|own| format!("{own}/{rest}"));
        let as_written = domain.starts_with('*').then(|| value.to_owned());
        for principal in own.chain(as_written) {
            if !all.contains(&principal) {
                all.push(principal);
            }
        }
        all
    }
}

fn named(name: StringMatcher) -> Principal {
    let authenticated = principal::Authenticated { principal_name: Some(name) };
    Principal { identifier: Some(principal::Identifier::Authenticated(authenticated)) }
}
