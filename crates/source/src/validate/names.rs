//! Names of Kubernetes and DNS, host patterns, header names, and lists of namespaces.

use super::Findings;

/// RFC 1123 label: up to 63 lower-case letters, digits and `-`, not at the ends.
pub(super) fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else { return false };
    text.len() <= 63 && allowed(first) && allowed(last) && text.bytes().all(|b| allowed(b) || b == b'-')
}

/// RFC 1123 subdomain: labels joined by dots, 253 characters at most. A single part may be longer than a label, as
/// Kubernetes allows for object names.
pub(super) fn is_subdomain(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        part.bytes().next().is_some_and(allowed)
            && part.bytes().last().is_some_and(allowed)
            && part.bytes().all(|b| allowed(b) || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

/// A subset's name, which becomes part of a cluster's: letters, digits, `-`, `_`, `.`, not at the ends.
pub(super) fn is_subset(text: &str) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.len() <= 253 && ends(text.bytes().next()) && ends(text.bytes().last()) && text.bytes().all(inner)
}

/// A DNS name in any case; `_` is met in practice and taken.
fn is_dns_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let part = |part: &str| {
        part.len() <= 63
            && part.bytes().next().is_some_and(allowed)
            && part.bytes().last().is_some_and(allowed)
            && part.bytes().all(|b| allowed(b) || b == b'-')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(part)
}

/// Which forms of a host are allowed in a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    /// `*`, `*.example.com`, `example.com`.
    Any,
    /// `*.example.com`, `example.com`.
    NotStarAlone,
    /// `example.com` only.
    Exact,
}

/// A host name or pattern in `field`.
pub(super) fn host(field: &str, text: &str, allowed: Hosts, findings: &mut Findings) {
    if text.is_empty() {
        findings.error(field, "the host is empty");
        return;
    }
    if text.contains('*') {
        let rest = text.strip_prefix("*.");
        let is_pattern = text == "*" || rest.is_some_and(is_dns_name);
        if !is_pattern {
            findings
                .error(field, format!("\"{text}\" is not a host name or pattern"))
                .hint("A wildcard stands alone or for whole leading parts: * or *.example.com.");
        } else if allowed == Hosts::Exact {
            findings.error(field, format!("wildcard \"{text}\" is not allowed here")).hint("Name one host.");
        } else if allowed == Hosts::NotStarAlone && text == "*" {
            findings.error(field, "\"*\" alone is not allowed here").hint("Use a pattern such as *.example.com.");
        }
        return;
    }
    // Istio allows addresses as hosts of gateways and routes.
    if !is_dns_name(text) && text.parse::<std::net::IpAddr>().is_err() {
        findings.error(field, format!("\"{text}\" is not a host name")).hint(if text.contains("://") {
            "Write the name alone, without a scheme."
        } else if text.contains(':') {
            "Write the name alone; ports are matched apart."
        } else {
            "Use letters, digits, '-' and '.'."
        });
    }
}

/// A token of RFC 9110, as names of headers and of cookies (RFC 6265) are.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A name of a part of a manifest: some characters on one line, because it is shown in logs and on terminals.
pub(super) fn line(field: &str, name: &str, what: &str, findings: &mut Findings) {
    if name.is_empty() {
        findings.error(field, format!("the {what} has no name"));
    } else if name.len() > 256 || name.chars().any(char::is_control) {
        findings
            .error(field, format!("{:?} is not a name", name.chars().take(64).collect::<String>()))
            .hint("Use up to 256 characters on one line.");
    }
}

/// A header name: a token, or a pseudo header such as `:authority`.
pub(super) fn header(field: &str, name: &str, findings: &mut Findings) {
    if !is_token(name.strip_prefix(':').unwrap_or(name)) {
        findings.error(field, format!("{name:?} is not a header name"));
    }
}

/// `exportTo`.
pub(super) fn export_to(entries: &[String], findings: &mut Findings) {
    for (at, entry) in entries.iter().enumerate() {
        if !matches!(entry.as_str(), "*" | "." | "~") && !is_label(entry) {
            findings
                .error(format_args!("spec.exportTo[{at}]"), format!("\"{entry}\" is not a namespace"))
                .hint("Use a namespace, \".\" for this one, \"*\" for all, or \"~\" for none.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "a-b", "1a", &"x".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_subdomain("a.b-c.d"));
        for bad in ["a..b", ".a", "a.", "a/b"] {
            assert!(!is_subdomain(bad), "{bad}");
        }
    }
}
