//! What a policy means, by the reference of `AuthorizationPolicy`, evaluated on the policy itself.
//!
//! A condition holds, does not hold, or nobody can know (`None`): it asks for something that connections do not have, or
//! it makes no sense.

use serde_json::Value;
use world::api::istio::{Action, AddressRange, AuthorizationPolicy, Condition, Operation, Rule, Source};

use super::request::{Peer, Request};

/// Where a policy is evaluated.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The namespace of the policy.
    pub(super) namespace: &'a str,
    /// The mesh's trust domain and its aliases.
    pub(super) trust_domains: &'a [&'a str],
    /// Whether there are requests, not only connections.
    pub(super) is_http: bool,
}

/// Whether the request matches the policy.
pub(super) fn matches(policy: &AuthorizationPolicy, request: &Request, place: Place<'_>) -> bool {
    policy.rules.iter().any(|rule| {
        let mut doubts = Vec::new();
        let certain = rule_holds(rule, request, place, &mut doubts);
        match policy.action {
            // A rule with anything in it that nobody can know lets nothing through.
            Action::Allow => doubts.is_empty() && certain,
            Action::Deny | Action::Audit | Action::Custom => certain,
        }
    })
}

/// Whether all conditions hold of which one can know; a mark for each of the others.
fn rule_holds(rule: &Rule, request: &Request, place: Place<'_>, doubts: &mut Vec<()>) -> bool {
    if rule.is_garbled {
        doubts.push(());
    }
    let mut all = true;
    if let Some(from) = &rule.from {
        let mut any = from.is_empty();
        doubts.extend(from.is_empty().then_some(()));
        for entry in from {
            any |= source(&entry.source, request, place, doubts);
        }
        all &= any;
    }
    if let Some(to) = &rule.to {
        let mut any = to.is_empty();
        doubts.extend(to.is_empty().then_some(()));
        for entry in to {
            any |= operation(&entry.operation, request, place, doubts);
        }
        all &= any;
    }
    for condition in &rule.when {
        all &= when(condition, request, place, doubts);
    }
    all
}

/// One of `values` and none of `not`; what nobody can know holds.
fn lists(values: &[String], not: &[String], doubts: &mut Vec<()>, test: impl Fn(&str) -> Option<bool>) -> bool {
    let (yes, no): (Vec<_>, Vec<_>) = (values.iter().map(|v| test(v)).collect(), not.iter().map(|v| test(v)).collect());
    doubts.extend(yes.iter().chain(&no).filter(|known| known.is_none()).map(|_| ()));
    (values.is_empty() || yes.iter().any(|known| known != &Some(false))) && !no.contains(&Some(true))
}

fn source(source: &Source, request: &Request, place: Place<'_>, doubts: &mut Vec<()>) -> bool {
    if *source == Source::default() {
        doubts.push(());
    }
    let s = source;
    let peer = &request.peer;
    [
        lists(&s.principals, &s.not_principals, doubts, |v| principal(v, peer, place)),
        lists(&s.request_principals, &s.not_request_principals, doubts, |v| token_principal(v, request, place)),
        lists(&s.namespaces, &s.not_namespaces, doubts, |v| namespace(v, peer)),
        lists(&s.service_accounts, &s.not_service_accounts, doubts, |v| service_account(v, peer, place)),
        lists(&s.trust_domains, &s.not_trust_domains, doubts, |v| trust_domain(v, peer)),
        lists(&s.ip_blocks, &s.not_ip_blocks, doubts, |v| address(v, request.source)),
        lists(&s.remote_ip_blocks, &s.not_remote_ip_blocks, doubts, |v| address(v, request.remote)),
    ]
    .into_iter()
    .all(|holds| holds)
}

fn operation(operation: &Operation, request: &Request, place: Place<'_>, doubts: &mut Vec<()>) -> bool {
    if *operation == Operation::default() {
        doubts.push(());
    }
    let o = operation;
    let lower = |text: &str| text.to_ascii_lowercase();
    let host = request.headers.get(":authority").copied();
    let method = request.headers.get(":method").copied();
    [
        lists(&o.hosts, &o.not_hosts, doubts, |v| of_requests(place, text(&lower(v), host.map(lower).as_deref()))),
        lists(&o.ports, &o.not_ports, doubts, |v| port(v, request)),
        lists(&o.methods, &o.not_methods, doubts, |v| of_requests(place, text(v, method))),
        lists(&o.paths, &o.not_paths, doubts, |v| of_requests(place, path(v, request))),
    ]
    .into_iter()
    .all(|holds| holds)
}

fn when(condition: &Condition, request: &Request, place: Place<'_>, doubts: &mut Vec<()>) -> bool {
    let Condition { key, values, not_values } = condition;
    if values.is_empty() && not_values.is_empty() {
        doubts.push(());
    }
    let (name, argument) = match key.split_once('[') {
        Some((name, rest)) => (name, rest.strip_suffix(']').unwrap_or("")),
        None => (key.as_str(), ""),
    };
    let claim = |path: &[&str], wanted: &str| {
        let mut found = request.token.as_ref();
        for key in path {
            found = found.and_then(|value| value.get(key));
        }
        of_requests(place, any_text(wanted, found))
    };
    let known = [
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims",
        "request.headers",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "experimental.envoy.filters.network.shop",
    ];
    if !known.contains(&name) {
        doubts.push(());
        return true;
    }
    let peer = &request.peer;
    lists(values, not_values, doubts, |v| match name {
        "source.ip" => address(v, request.source),
        "remote.ip" => address(v, request.remote),
        "source.namespace" => namespace(v, peer),
        "source.principal" => principal(v, peer, place),
        "source.serviceAccount" => service_account(v, peer, place),
        "source.trustDomain" => trust_domain(v, peer),
        "request.auth.principal" => token_principal(v, request, place),
        "request.auth.audiences" => claim(&["aud"], v),
        "request.auth.presenter" => claim(&["azp"], v),
        "request.auth.claims" => claim(&argument.split("][").collect::<Vec<_>>(), v),
        // A header without a value is present.
        "request.headers" if v == "*" => of_requests(place, Some(request.headers.contains_key(argument))),
        "request.headers" => of_requests(place, text(v, request.headers.get(argument).copied())),
        "destination.ip" => address(v, request.destination),
        "destination.port" => port(v, request),
        "connection.sni" => text(v, Some(request.server_name).filter(|name| !name.is_empty())),
        _ => {
            let wanted = v.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
            match (wanted, &request.noted) {
                (Some(""), _) => None,
                (Some(entry), noted) => Some(noted.as_ref().is_some_and(|noted| {
                    noted.as_array().is_some_and(|all| all.iter().any(|one| text(entry, one.as_str()) == Some(true)))
                })),
                (None, noted) => text(v, noted.as_ref().and_then(Value::as_str)),
            }
        }
    })
}

fn of_requests(place: Place<'_>, known: Option<bool>) -> Option<bool> {
    if place.is_http { known } else { None }
}

/// `*`, `abc*`, `*abc`, `abc`.
fn text(wanted: &str, found: Option<&str>) -> Option<bool> {
    if wanted.is_empty() {
        return None;
    }
    let Some(found) = found else { return Some(false) };
    Some(match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
        (Some(""), _) => !found.is_empty(),
        (Some(suffix), _) => found.ends_with(suffix),
        (None, Some(prefix)) => found.starts_with(prefix),
        (None, None) => found == wanted,
    })
}

/// The claim, or one of its entries.
fn any_text(wanted: &str, found: Option<&Value>) -> Option<bool> {
    let own = text(wanted, found.and_then(Value::as_str))?;
    let items = found.and_then(Value::as_array).into_iter().flatten();
    Some(own || items.into_iter().any(|item| text(wanted, item.as_str()) == Some(true)))
}

fn principal(wanted: &str, peer: &Peer, place: Place<'_>) -> Option<bool> {
    if wanted.is_empty() || wanted.starts_with("spiffe://") {
        return None;
    }
    let (domain, namespace, account) = match peer {
        Peer::Plain => return Some(false),
        Peer::Named(_) => return Some(wanted == "*"),
        Peer::Workload(domain, namespace, account) => (*domain, namespace, account),
    };
    let in_domain = |domain: &str| format!("{domain}/ns/{namespace}/sa/{account}");
    let as_written = text(wanted, Some(&in_domain(domain)))?;
    // A principal of one of the mesh's own trust domains is one of each of them.
    let of_mesh =
        |wanted_domain: &str| wanted_domain == "cluster.local" || place.trust_domains.contains(&wanted_domain);
    match wanted.split_once('/') {
        Some((wanted_domain, rest)) if of_mesh(wanted_domain) => {
            let rest_fits = text(&format!("x/{rest}"), Some(&in_domain("x")))?;
            Some(rest_fits && place.trust_domains.contains(&domain))
        }
        Some((wanted_domain, rest)) if wanted_domain.len() > 1 && wanted_domain.starts_with('*') => {
            let ends = place.trust_domains.iter().any(|own| own.ends_with(&wanted_domain[1..]));
            let rest_is = in_domain("x") == format!("x/{rest}");
            Some(as_written || (ends && rest_is && place.trust_domains.contains(&domain)))
        }
        _ => Some(as_written),
    }
}

fn namespace(wanted: &str, peer: &Peer) -> Option<bool> {
    if wanted.is_empty() {
        return None;
    }
    let Peer::Workload(_, found, _) = peer else { return Some(false) };
    // A star is any text, wherever it stands.
    let parts: Vec<&str> = wanted.split('*').collect();
    let [first, middle @ .., last] = &parts[..] else { return Some(*found == wanted) };
    let Some(mut rest) = found.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return Some(false);
    };
    for part in middle {
        let Some(at) = rest.find(part) else { return Some(false) };
        rest = &rest[at + part.len()..];
    }
    Some(true)
}

fn service_account(wanted: &str, peer: &Peer, place: Place<'_>) -> Option<bool> {
    let parts: Vec<&str> = wanted.split('/').collect();
    let (namespace, account) = match parts[..] {
        [account] => (place.namespace, account),
        [namespace, account] => (namespace, account),
        _ => return None,
    };
    if [namespace, account].iter().any(|part| part.is_empty() || part.contains('*')) {
        return None;
    }
    let Peer::Workload(_, found_namespace, found_account) = peer else { return Some(false) };
    Some(*found_namespace == namespace && *found_account == account)
}

fn trust_domain(wanted: &str, peer: &Peer) -> Option<bool> {
    if wanted.contains('/') {
        return None;
    }
    let Peer::Workload(found, ..) = peer else { return text(wanted, None) };
    text(wanted, Some(found))
}

fn address(wanted: &str, found: std::net::IpAddr) -> Option<bool> {
    wanted.parse::<AddressRange>().ok().map(|range| range.contains(found))
}

fn port(wanted: &str, request: &Request) -> Option<bool> {
    wanted.parse::<u16>().ok().map(|port| port == request.port)
}

fn path(wanted: &str, request: &Request) -> Option<bool> {
    if !wanted.contains("{*}") && !wanted.contains("{**}") {
        return text(wanted, request.path());
    }
    let wanted: Vec<&str> = wanted.strip_prefix('/')?.split('/').collect();
    let path = request.path().unwrap_or("/");
    let found: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    // Of the mistakes that Envoy knows only two are asked about here, at the beginning of a path.
    segments(&wanted, &found).map(|fits| fits && request.path().is_some())
}

fn segments(wanted: &[&str], found: &[&str]) -> Option<bool> {
    let Some((first, rest)) = wanted.split_first() else { return Some(found.is_empty()) };
    if *first == "{**}" {
        if rest.iter().any(|part| part.contains("{*}") || part.contains("{**}")) {
            return None;
        }
        // Nothing but a slash may be there, too.
        return Some((1..=found.len()).any(|taken| segments(rest, &found[taken..]) == Some(true)));
    }
    let Some((own, more)) = found.split_first() else { return Some(false) };
    let fits = match first.split_once("{*}") {
        Some(("", suffix)) => own.len() > suffix.len() && own.ends_with(suffix),
        Some(_) => return None,
        None => own == first,
    };
    let others = segments(rest, more)?;
    Some(fits && others)
}

fn token_principal(wanted: &str, request: &Request, place: Place<'_>) -> Option<bool> {
    if wanted.is_empty() || (!wanted.contains('/') && !wanted.contains('*')) {
        return None;
    }
    let claim = |name: &str| request.token.as_ref().and_then(|token| token.get(name)?.as_str());
    let whole = claim("iss").zip(claim("sub")).map(|(issuer, subject)| format!("{issuer}/{subject}"));
    of_requests(place, text(wanted, whole.as_deref()))
}
