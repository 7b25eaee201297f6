//! Random policies and random requests: what the filters do is what the policies mean.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use world::api::istio::{Action, AuthorizationPolicy, Condition, From, Operation, Rule, Source, To};

use super::meaning::{self, Place};
use super::request::{Peer, Request};
use super::*;

const PRINCIPALS: &[&str] = &[
    "*",
    "mesh.example/ns/shop/sa/web",
    "old.example/ns/shop/sa/web",
    "cluster.local/ns/shop/sa/web",
    "foreign.example/ns/bank/sa/teller",
    "mesh.example/ns/shop/*",
    "cluster.local/*",
    "mesh*",
    "*/sa/web",
    "*/ns/bank/sa/teller",
    "*mple/ns/shop/sa/web",
    "*b",
    "web",
    "spiffe://mesh.example/ns/shop/sa/web",
    "",
];
const NAMESPACES: &[&str] = &["shop", "bank", "sh*", "*op", "*", "s*p", "sho", "*a*k*", ""];
const ACCOUNTS: &[&str] = &["web", "shop/web", "bank/teller", "teller", "shop/*", "a/b/c", ""];
const TRUST_DOMAINS: &[&str] = &["mesh.example", "foreign.example", "*", "*.example", "old*", "mesh.exampl", "a/b", ""];
const ADDRESSES: &[&str] =
    &["10.1.2.3", "10.1.0.0/16", "10.9.9.9/8", "0.0.0.0/0", "fd00::/8", "::/0", "::1", "10.0.0.0/33", "bad", ""];
const TOKEN_PRINCIPALS: &[&str] = &[
    "*",
    "https://issuer.example/alice",
    "https://issuer.example/team/bob",
    "https://issuer.example/*",
    "https://issuer*",
    "https://issuer.example/te*",
    "*/alice",
    "*ce",
    "*.example/alice",
    "*m/bob",
    "issuer/alice",
    "nobody",
    "",
];
const HOSTS: &[&str] = &["shop.example", "SHOP.example", "*.example", "shop*", "*", "bank.example:8080", "bank*", ""];
const PORTS: &[&str] = &["80", "8080", "9000", "65536", "http", ""];
const METHODS: &[&str] = &["GET", "POST", "P*", "*T", "*", "get", ""];
const PATHS: &[&str] = &[
    "/",
    "/api",
    "/api/*",
    "*.html",
    "*",
    "/a*b",
    "/api/{*}",
    "/api/{*}/orders",
    "/{**}",
    "/api/{**}/orders",
    "/{*}.html",
    "/{*}/",
    "/{**}/{*}",
    "/x{*}",
    "",
];
const TEXTS: &[&str] = &["a", "ab", "a*", "*b", "*", "b", "[a]", "[a*]", "[]", ""];
const KEYS: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[group]",
    "request.auth.claims[realm][roles]",
    "request.headers[x-user]",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental.envoy.filters.network.shop[table]",
    "source.user",
];

/// Mostly empty, as people write.
fn list(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let values = vec(select(values).prop_map(str::to_owned), 1..3);
    prop_oneof![6 => Just(Vec::new()), 2 => values]
}

prop_compose! {
    fn source()(
        principals in list(PRINCIPALS), not_principals in list(PRINCIPALS),
        request_principals in list(TOKEN_PRINCIPALS), not_request_principals in list(TOKEN_PRINCIPALS),
        namespaces in list(NAMESPACES), not_namespaces in list(NAMESPACES),
        (service_accounts, not_service_accounts) in (list(ACCOUNTS), list(ACCOUNTS)),
        (trust_domains, not_trust_domains) in (list(TRUST_DOMAINS), list(TRUST_DOMAINS)),
        (ip_blocks, not_ip_blocks) in (list(ADDRESSES), list(ADDRESSES)),
        (remote_ip_blocks, not_remote_ip_blocks) in (list(ADDRESSES), list(ADDRESSES)),
    ) -> Source {
        Source {
            principals, not_principals, request_principals, not_request_principals, namespaces, not_namespaces,
            service_accounts, not_service_accounts, trust_domains, not_trust_domains, ip_blocks, not_ip_blocks,
            remote_ip_blocks, not_remote_ip_blocks,
        }
    }
}

prop_compose! {
    fn operation()(
        hosts in list(HOSTS), not_hosts in list(HOSTS), ports in list(PORTS), not_ports in list(PORTS),
        methods in list(METHODS), not_methods in list(METHODS), paths in list(PATHS), not_paths in list(PATHS),
    ) -> Operation {
        Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths }
    }
}

fn values_of(key: &str) -> &'static [&'static str] {
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => ADDRESSES,
        "source.namespace" => NAMESPACES,
        "source.principal" => PRINCIPALS,
        "source.serviceAccount" => ACCOUNTS,
        "source.trustDomain" => TRUST_DOMAINS,
        "request.auth.principal" => TOKEN_PRINCIPALS,
        "destination.port" => PORTS,
        "connection.sni" => HOSTS,
        _ => TEXTS,
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    select(KEYS).prop_flat_map(|key| {
        let lists = (list(values_of(key)), list(values_of(key)));
        lists.prop_map(move |(values, not_values)| Condition { key: key.to_owned(), values, not_values })
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let from = option::of(vec(source().prop_map(|source| From { source }), 0..3));
    let to = option::of(vec(operation().prop_map(|operation| To { operation }), 0..3));
    let when = prop_oneof![3 => Just(Vec::new()), 2 => vec(condition(), 1..3)];
    (from, to, when, prop::bool::weighted(0.02)).prop_map(|(from, to, when, is_garbled)| Rule {
        from,
        to,
        when,
        is_garbled,
    })
}

fn policy_spec() -> impl Strategy<Value = AuthorizationPolicy> {
    let action = select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Deny, Action::Audit]);
    (action, vec(rule(), 0..3)).prop_map(|(action, rules)| AuthorizationPolicy {
        action,
        rules,
        ..AuthorizationPolicy::default()
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(vec!["10.1.2.3", "10.1.9.9", "10.2.0.1", "192.168.0.1", "fd00::1", "::1"])
        .prop_map(|text| text.parse().unwrap())
}

fn claim() -> impl Strategy<Value = Value> {
    select(vec![json!("a"), json!("ab"), json!(["b", "a"]), json!(["ab"]), json!([]), json!(7), Value::Null])
}

fn token() -> impl Strategy<Value = Value> {
    let issuer = select(vec!["https://issuer.example", "https://issuer.example/team", "issuer", "evil.example"]);
    let subject = select(vec!["alice", "bob", "team/bob", "mallice"]);
    (issuer, subject, claim(), claim(), claim(), claim()).prop_map(|(issuer, subject, aud, azp, group, roles)| {
        json!({"iss": issuer, "sub": subject, "aud": aud, "azp": azp, "group": group, "realm": {"roles": roles}})
    })
}

fn request() -> impl Strategy<Value = Request> {
    let workload = (
        select(vec!["mesh.example", "old.example", "foreign.example", "cluster.local"]),
        select(vec!["shop", "bank", "shopping"]),
        select(vec!["web", "teller", "webb"]),
    );
    let peer = prop_oneof![
        1 => Just(Peer::Plain),
        1 => select(vec!["shop.example", "x/sa/web", "/ns/shop/sa/web"]).prop_map(Peer::Named),
        6 => workload.prop_map(|(domain, namespace, account)| Peer::Workload(domain, namespace, account)),
    ];
    let paths = vec![
        "/",
        "/api",
        "/api/",
        "/api/7",
        "/api/7?x=1",
        "/api/7/orders",
        "/api/7/8/orders",
        "/index.html",
        "/a*b",
        "/api/index.html#top",
        "/x",
        "/7/",
    ];
    let path = option::weighted(0.95, select(paths));
    let user = option::of(select(vec!["a", "ab", "b", ""]));
    let method = select(vec!["GET", "POST", "PUT", "DELETE"]);
    let host = select(vec!["shop.example", "Shop.Example", "bank.example:8080", "shop.test"]);
    let headers = (method, host, path, user).prop_map(|(method, host, path, user)| {
        let mut headers = BTreeMap::from([(":method", method), (":authority", host)]);
        headers.extend(path.map(|path| (":path", path)));
        headers.extend(user.map(|user| ("x-user", user)));
        headers
    });
    let server_name = select(vec!["", "shop.example", "bank.example:8080"]);
    let places = (address(), address(), address(), select(vec![80, 8080, 9000]));
    (peer, places, server_name, headers, option::of(token()), option::of(claim())).prop_map(
        |(peer, (source, remote, destination, port), server_name, headers, token, noted)| Request {
            peer,
            source,
            remote,
            destination,
            port,
            server_name,
            headers,
            token,
            noted,
        },
    )
}

/// Whether policies let a request through: no policy that refuses matches, and one that allows, if there is any.
fn is_let_through(policies: &[AuthorizationPolicy], request: &Request, place: Place<'_>) -> bool {
    let of = |action| policies.iter().filter(move |policy| policy.action == action);
    let denied = of(Action::Deny).any(|policy| meaning::matches(policy, request, place));
    let has_allow = of(Action::Allow).next().is_some();
    !denied && (!has_allow || of(Action::Allow).any(|policy| meaning::matches(policy, request, place)))
}

proptest! {
    #[test]
    fn what_the_filters_do_is_what_the_policies_mean(
        policies in vec(policy_spec(), 1..4), requests in vec(request(), 6),
    ) {
        let objects: Vec<_> = policies
            .iter()
            .enumerate()
            .map(|(index, spec)| object(&format!("p{index}"), spec.clone(), &[]))
            .collect();
        let built = built(&objects);
        prop_assert!(built.problems.is_empty());
        let (http, network) = (http(&built.value.rules), network(&built.value.network));
        let place = Place { namespace: "shop", trust_domains: &["mesh.example", "old.example"], is_http: true };
        for request in &requests {
            let passes = |rules: Option<&Rbac>| rules.and_then(|rules| envoy::passes(rules, request)).unwrap_or(true);
            let found = http.iter().all(|filter| passes(filter.rules.as_ref()));
            prop_assert_eq!(found, is_let_through(&policies, request, place), "{:?}", request);
            let found = network.iter().all(|filter| passes(filter.rules.as_ref()));
            let place = Place { is_http: false, ..place };
            prop_assert_eq!(found, is_let_through(&policies, request, place), "as a connection: {:?}", request);
        }
    }

    #[test]
    fn a_rule_of_its_own_matches_what_it_means(rule in rule(), request in request(), denies in any::<bool>()) {
        let action = if denies { Action::Deny } else { Action::Allow };
        let spec = AuthorizationPolicy { action, rules: vec![rule], ..AuthorizationPolicy::default() };
        let built = built(&[object("p", spec.clone(), &[])]);
        let rules = http(&built.value.rules).remove(0).rules.unwrap();
        let place = Place { namespace: "shop", trust_domains: &["mesh.example", "old.example"], is_http: true };
        let found = rules.policies.values().any(|policy| envoy::matches(policy, &request));
        prop_assert_eq!(found, meaning::matches(&spec, &request, place));
    }
}
