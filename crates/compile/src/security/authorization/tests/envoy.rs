//! What Envoy makes of RBAC, as its documentation and source (`source/extensions/filters/common/rbac`, 1.40) say. It knows
//! nothing of policies.

use prost::Message;
use proto::pb::envoy::config::core::v3::CidrRange;
use proto::pb::envoy::config::rbac::v3::{
    Permission, Policy, Principal, Rbac, SourcedMetadata, permission, principal, rbac,
};
use proto::pb::envoy::config::route::v3::HeaderMatcher;
use proto::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use proto::pb::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{StringMatcher, ValueMatcher, list_matcher, path_matcher, value_matcher};
use serde_json::Value;

use super::request::{Peer, Request};

/// Whether an enforced engine lets it pass; `None` for one that only marks.
pub(super) fn passes(rbac: &Rbac, request: &Request) -> Option<bool> {
    let matched = rbac.policies.values().any(|policy| matches(policy, request));
    match rbac::Action::try_from(rbac.action).unwrap() {
        rbac::Action::Allow => Some(matched),
        rbac::Action::Deny => Some(!matched),
        rbac::Action::Log => None,
    }
}

pub(super) fn matches(policy: &Policy, request: &Request) -> bool {
    policy.permissions.iter().any(|permission| permits(permission, request))
        && policy.principals.iter().any(|principal| is(principal, request))
}

fn permits(permission: &Permission, request: &Request) -> bool {
    match permission.rule.as_ref().unwrap() {
        permission::Rule::AndRules(set) => {
            assert!(!set.rules.is_empty(), "Envoy refuses an empty set");
            set.rules.iter().all(|rule| permits(rule, request))
        }
        permission::Rule::OrRules(set) => {
            assert!(!set.rules.is_empty(), "Envoy refuses an empty set");
            set.rules.iter().any(|rule| permits(rule, request))
        }
        permission::Rule::Any(any) => *any,
        permission::Rule::Header(matcher) => header(matcher, request),
        permission::Rule::UrlPath(matcher) => match matcher.rule.as_ref().unwrap() {
            path_matcher::Rule::Path(text) => request.path().is_some_and(|path| string(text, path)),
        },
        permission::Rule::DestinationIp(range) => contains(range, request.destination),
        permission::Rule::DestinationPort(port) => u32::from(request.port) == *port,
        permission::Rule::NotRule(rule) => !permits(rule, request),
        permission::Rule::RequestedServerName(text) => string(text, request.server_name),
        permission::Rule::UriTemplate(extension) => {
            let any = extension.typed_config.as_ref().unwrap();
            let template = UriTemplateMatchConfig::decode(&*any.value).unwrap();
            request.path().is_some_and(|path| uri_template(&template.path_template, path))
        }
        permission::Rule::SourcedMetadata(matcher) => metadata(matcher, request),
        other => panic!("not expected: {other:?}"),
    }
}

fn is(principal: &Principal, request: &Request) -> bool {
    match principal.identifier.as_ref().unwrap() {
        principal::Identifier::AndIds(set) => {
            assert!(!set.ids.is_empty(), "Envoy refuses an empty set");
            set.ids.iter().all(|id| is(id, request))
        }
        principal::Identifier::OrIds(set) => {
            assert!(!set.ids.is_empty(), "Envoy refuses an empty set");
            set.ids.iter().any(|id| is(id, request))
        }
        principal::Identifier::Any(any) => *any,
        principal::Identifier::Authenticated(authenticated) => {
            let name = authenticated.principal_name.as_ref().unwrap();
            let (uris, dns, subject) = match &request.peer {
                Peer::Plain => return false,
                Peer::Workload(domain, namespace, account) => {
                    (vec![format!("spiffe://{domain}/ns/{namespace}/sa/{account}")], Vec::new(), String::new())
                }
                Peer::Named(name) => (Vec::new(), vec![(*name).to_owned()], format!("CN={name}")),
            };
            uris.iter().chain(&dns).chain([&subject]).any(|text| string(name, text))
        }
        principal::Identifier::DirectRemoteIp(range) => contains(range, request.source),
        principal::Identifier::RemoteIp(range) => contains(range, request.remote),
        principal::Identifier::Header(matcher) => header(matcher, request),
        principal::Identifier::NotId(id) => !is(id, request),
        principal::Identifier::SourcedMetadata(matcher) => metadata(matcher, request),
        other => panic!("not expected: {other:?}"),
    }
}

fn string(matcher: &StringMatcher, text: &str) -> bool {
    let folded = |other: &str| if matcher.ignore_case { other.to_ascii_lowercase() } else { other.to_owned() };
    let text = folded(text);
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(exact) => text == folded(exact),
        MatchPattern::Prefix(prefix) => {
            assert!(!prefix.is_empty(), "Envoy refuses an empty prefix");
            text.starts_with(&folded(prefix))
        }
        MatchPattern::Suffix(suffix) => {
            assert!(!suffix.is_empty(), "Envoy refuses an empty suffix");
            text.ends_with(&folded(suffix))
        }
        MatchPattern::SafeRegex(regex) => {
            assert!(!matcher.ignore_case, "it has no effect on expressions");
            regex::Regex::new(&format!("^(?:{})$", regex.regex)).unwrap().is_match(&text)
        }
        other => panic!("not expected: {other:?}"),
    }
}

fn header(matcher: &HeaderMatcher, request: &Request) -> bool {
    assert!(!matcher.invert_match && !matcher.treat_missing_header_as_empty);
    let value = request.headers.get(matcher.name.as_str());
    match matcher.header_match_specifier.as_ref().unwrap() {
        HeaderMatchSpecifier::PresentMatch(present) => value.is_some() == *present,
        HeaderMatchSpecifier::StringMatch(text) => value.is_some_and(|value| string(text, value)),
        other => panic!("not expected: {other:?}"),
    }
}

fn contains(range: &CidrRange, address: std::net::IpAddr) -> bool {
    let bits = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
        std::net::IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
    };
    let (own, other) = (bits(range.address_prefix.parse().unwrap()), bits(address));
    let length = range.prefix_len.as_ref().unwrap().value as usize;
    assert!(length <= own.len(), "Envoy refuses a longer prefix");
    own.len() == other.len() && own[..length] == other[..length]
}

fn metadata(matcher: &SourcedMetadata, request: &Request) -> bool {
    assert_eq!(matcher.metadata_source, 0, "dynamic metadata");
    let matcher = matcher.metadata_matcher.as_ref().unwrap();
    let root = match matcher.filter.as_str() {
        "envoy.filters.http.jwt_authn" => request.token.as_ref().map(|token| serde_json::json!({"payload": token})),
        "envoy.filters.network.shop" => request.noted.as_ref().map(|noted| serde_json::json!({"table": noted})),
        _ => None,
    };
    let mut found = root.unwrap_or(Value::Null);
    for segment in &matcher.path {
        let Segment::Key(key) = segment.segment.as_ref().unwrap();
        found = found.get(key).cloned().unwrap_or(Value::Null);
    }
    value(matcher.value.as_ref().unwrap(), &found) != matcher.invert
}

fn value(matcher: &ValueMatcher, found: &Value) -> bool {
    match matcher.match_pattern.as_ref().unwrap() {
        value_matcher::MatchPattern::StringMatch(text) => found.as_str().is_some_and(|found| string(text, found)),
        value_matcher::MatchPattern::ListMatch(list) => match list.match_pattern.as_ref().unwrap() {
            list_matcher::MatchPattern::OneOf(one) => {
                found.as_array().is_some_and(|items| items.iter().any(|item| value(one, item)))
            }
        },
        value_matcher::MatchPattern::OrMatch(or) => {
            assert!(or.value_matchers.len() >= 2, "Envoy refuses fewer than two");
            or.value_matchers.iter().any(|matcher| value(matcher, found))
        }
        other => panic!("not expected: {other:?}"),
    }
}

/// `source/extensions/path/uri_template_lib`: a star is a segment, two are any text, of these characters.
fn uri_template(template: &str, path: &str) -> bool {
    let characters = "a-zA-Z0-9\\-._~%!$&'()+,;:@";
    let escaped = regex::escape(template).replace("\\*\\*", "\0").replace("\\*", "\u{1}");
    let pattern = escaped.replace('\0', &format!("[{characters}/]*")).replace('\u{1}', &format!("[{characters}]+"));
    regex::Regex::new(&format!("^{pattern}$")).unwrap().is_match(path)
}
