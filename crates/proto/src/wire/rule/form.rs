//! The well-known forms of strings: addresses, names, headers.
//!
//! They are the forms of protoc-gen-validate, not of the RFCs: a name that Envoy accepts has to pass here too. So host names may not
//! have underscores, but header names may have commas.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A well-known form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Email,
    Hostname,
    Ip,
    Ipv4,
    Ipv6,
    Uri,
    UriRef,
    /// A host name or an IP address.
    Address,
    Uuid,
    /// The name of an HTTP header, also of a pseudo-header such as `:path`.
    HeaderName,
    /// The value of an HTTP header: no control characters but tabs.
    HeaderValue,
    /// No end of line and no NUL: the lenient form of header names and values.
    OneLine,
}

impl Form {
    /// Its name in rules.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Hostname => "hostname",
            Self::Ip => "ip",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Uri => "uri",
            Self::UriRef => "uri_ref",
            Self::Address => "address",
            Self::Uuid => "uuid",
            Self::HeaderName => "well_known_regex = HTTP_HEADER_NAME",
            Self::HeaderValue => "well_known_regex = HTTP_HEADER_VALUE",
            Self::OneLine => "well_known_regex (no NUL, CR or LF)",
        }
    }

    /// Whether `text` has this form.
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            Self::Email => text.rsplit_once('@').is_some_and(|(local, host)| is_local_part(local) && is_hostname(host)),
            Self::Hostname => is_hostname(text),
            Self::Ip => text.parse::<IpAddr>().is_ok(),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Uri => is_uri_text(text) && has_scheme(text),
            Self::UriRef => is_uri_text(text),
            Self::Address => text.parse::<IpAddr>().is_ok() || is_hostname(text),
            Self::Uuid => is_uuid(text),
            Self::HeaderName => is_header_name(text),
            Self::HeaderValue => text.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f)),
            Self::OneLine => !text.bytes().any(|b| matches!(b, 0 | b'\n' | b'\r')),
        }
    }
}

/// RFC 1034 as PGV reads it: at most 253 bytes, labels of 1 to 63 letters, digits and inner hyphens, a dot at the end allowed.
fn is_hostname(text: &str) -> bool {
    text.len() <= 253
        && text.strip_suffix('.').unwrap_or(text).split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_local_part(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>[]:;@\\,\"".contains(&b))
}

/// RFC 3986 in outline: no spaces, no control characters, and each `%` begins a byte in hexadecimal.
fn is_uri_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, &byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        _ => byte > b' ' && byte != 0x7f,
    })
}

/// Whether a URI is absolute: a letter, then letters, digits, `+`, `-` and `.`, then a colon.
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `^:?[0-9a-zA-Z!#$%&'*+-.^_|~\x60]+$`, where `+-.` is a range: it takes in the comma.
fn is_header_name(text: &str) -> bool {
    let name = text.strip_prefix(':').unwrap_or(text);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_|~`".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_takes_what_has_it_and_refuses_what_has_not() {
        let long = "a".repeat(64);
        let cases: [(Form, &[&str], &[&str]); 12] = [
            (Form::Email, &["a.b@example.com"], &["example.com", "@example.com", "a b@example.com", "a@-x"]),
            (Form::Hostname, &["a", "a-b.example.com.", "10.0.0.1"], &["", ".", "a..b", "-a", "a_b", "*.a", &long]),
            (Form::Ip, &["1.2.3.4", "::1"], &["", "1.2.3", "1.2.3.4/8", "a"]),
            (Form::Ipv4, &["1.2.3.4"], &["::1", "1.2.3.256"]),
            (Form::Ipv6, &["::1", "fe80::1"], &["1.2.3.4", ":::"]),
            (Form::Uri, &["http://a/b?c#d", "spiffe://td/ns/a"], &["/a", "a b://c", "http://a/%zz", "1a:b", ""]),
            (Form::UriRef, &["/a", "http://a", ""], &["/a b", "/%2", "\u{7f}"]),
            (Form::Address, &["1.2.3.4", "::1", "a.b"], &["a_b", ""]),
            (
                Form::Uuid,
                &["01234567-89ab-cdef-0123-456789ABCDEF"],
                &["0123456789abcdef", "g1234567-89ab-cdef-0123-456789abcdef"],
            ),
            (Form::HeaderName, &["x-a", ":path", "a,b"], &["", ":", "a b", "a:b", "ä", "a\n"]),
            (Form::HeaderValue, &["", "a\tb c", "ä"], &["a\n", "\u{7f}", "\0"]),
            (Form::OneLine, &["", "a b: \u{7f}"], &["a\nb", "a\rb", "\0"]),
        ];
        for (form, good, bad) in cases {
            for text in good {
                assert!(form.fits(text), "{form:?} should take {text:?}");
            }
            for text in bad {
                assert!(!form.fits(text), "{form:?} should refuse {text:?}");
            }
        }
    }
}
