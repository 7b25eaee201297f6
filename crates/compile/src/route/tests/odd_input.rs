//! Whatever a VirtualService says, what comes out keeps Envoy's rules.

use std::sync::Arc;

use proptest::prelude::*;
use prost::{Message, Name};
use proto::pb::envoy::config::route::v3::VirtualHost;
use serde_json::{Value, json};
use world::Object;

use super::{KnownService, Setting, object};

/// Words that mean something to someone, and words that should mean nothing to anyone.
fn word() -> impl Strategy<Value = String> {
    let sound = vec!["/", "/a", "a", "*", ".*", "/[a-z]+", "HEADER", "x-user", "v1", "mesh", "GET", "%REQ(a)%", "é"];
    let odd = vec![
        "",
        "(",
        "[a",
        "x{2000}",
        "\n",
        "\0",
        "%",
        "100%",
        "host",
        ":authority",
        ":path",
        r"\1",
        r"\",
        "-1",
        "0",
        "/a?b",
        "@request.auth.claims.sub",
    ];
    prop_oneof![2 => prop::sample::select(sound), 1 => prop::sample::select(odd)].prop_map(str::to_owned)
}

/// One of these, each a part of a document.
fn one_of<const N: usize>(values: [Value; N]) -> impl Strategy<Value = Value> {
    prop::sample::select(values.to_vec())
}

fn string_match() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        word().prop_map(|w| json!({ "exact": w })),
        word().prop_map(|w| json!({ "prefix": w })),
        word().prop_map(|w| json!({ "regex": w })),
        (word(), word()).prop_map(|(a, b)| json!({ "exact": a, "regex": b })),
    ]
}

fn http_match() -> impl Strategy<Value = Value> {
    let values = || prop::collection::btree_map(word(), string_match(), 0..2);
    let maybe = || prop_oneof![2 => Just(Value::Null), 1 => string_match()];
    let strings = (string_match(), maybe(), maybe(), maybe());
    let of_client = (
        one_of([json!(null), json!(null), json!(null), json!(9080), json!(1)]),
        one_of([json!([]), json!([]), json!(["mesh"]), json!(["other"])]),
        one_of([json!({}), json!({}), json!({"app": "a"}), json!({"app": "b"})]),
        one_of([json!(""), json!(""), json!("default"), json!("other")]),
    );
    (strings, values(), values(), values(), any::<bool>(), (word(), word()), of_client).prop_map(
        |(strings, headers, without, query, ignore, (name, prefix), of_client)| {
            let (uri, method, authority, scheme) = strings;
            let (port, gateways, labels, namespace) = of_client;
            json!({ "uri": uri, "method": method, "authority": authority, "scheme": scheme, "headers": headers,
                "withoutHeaders": without, "queryParams": query, "ignoreUriCase": ignore, "name": name,
                "statPrefix": prefix, "port": port, "gateways": gateways, "sourceLabels": labels,
                "sourceNamespace": namespace })
        },
    )
}

fn headers() -> impl Strategy<Value = Value> {
    let operations = || {
        let pairs = || prop::collection::btree_map(word(), word(), 0..3);
        (pairs(), pairs(), prop::collection::vec(word(), 0..3))
            .prop_map(|(set, add, remove)| json!({ "set": set, "add": add, "remove": remove }))
    };
    let both = (operations(), operations());
    let both = both.prop_map(|(request, response)| json!({ "request": request, "response": response }));
    prop_oneof![Just(Value::Null), both]
}

fn destination() -> impl Strategy<Value = Value> {
    let host = prop::sample::select(vec!["reviews", "reviews", "ratings", "nowhere"]);
    let subset = prop::sample::select(vec!["", "v1", "v1", "v9"]);
    let weight = prop::option::of(prop::sample::select(vec![-5i64, 0, 1, 33, 80, 80, i64::MAX]));
    (host, subset, weight, headers()).prop_map(|(host, subset, weight, headers)| {
        json!({ "destination": { "host": host, "subset": subset }, "weight": weight, "headers": headers })
    })
}

fn percent() -> impl Strategy<Value = Value> {
    one_of([
        json!(null),
        json!({ "value": -1.0 }),
        json!({ "value": 0.0 }),
        json!({ "value": 33.3 }),
        json!({ "value": 100.0 }),
        json!({ "value": 1e9 }),
    ])
}

fn answer() -> impl Strategy<Value = Value> {
    let status = prop::sample::select(vec![0u32, 99, 200, 301, 308, 418, 599, 600, 99_999]);
    let code = prop::sample::select(vec![0u32, 301, 302, 303, 307, 308, 418]);
    let derive = one_of([json!(null), json!("FROM_REQUEST_PORT"), json!("FROM_PROTOCOL_DEFAULT"), json!("?")]);
    let delegate = one_of([json!("inner"), json!("missing")]).prop_map(|name| json!({ "delegate": { "name": name } }));
    let to = || one_of([json!("/a"), json!(""), json!(null)]);
    prop_oneof![
        8 => prop::collection::vec(destination(), 0..4).prop_map(|route| json!({ "route": route })),
        1 => (to(), to(), word(), word(), code, derive).prop_map(|(uri, prefix, authority, scheme, code, derive)| {
            json!({ "redirect": { "uri": uri, "prefixRewrite": prefix, "authority": authority, "scheme": scheme,
                "redirectCode": code, "derivePort": derive } })
        }),
        1 => (status, word(), any::<bool>()).prop_map(|(status, body, text)| {
            let body = json!({ if text { "string" } else { "bytes" }: body });
            json!({ "directResponse": { "status": status, "body": body } })
        }),
        1 => delegate,
    ]
}

fn time() -> impl Strategy<Value = Value> {
    one_of([json!(null), json!("0s"), json!("1ns"), json!("1500ms"), json!("87600h")])
}

fn retries() -> impl Strategy<Value = Value> {
    let attempts = prop::sample::select(vec![-1, 0, 1, 2, 1000]);
    let on = one_of([
        json!(null),
        json!(""),
        json!("5xx,gateway-error"),
        json!("503, 429,unavailable,cancelled"),
        json!("99,retriable-status-codes,503"),
        json!("nonsense"),
    ]);
    let choice = || prop::option::of(any::<bool>());
    (attempts, on, time(), time(), choice(), choice()).prop_map(|(attempts, on, per_try, backoff, remote, ignore)| {
        json!({ "attempts": attempts, "retryOn": on, "perTryTimeout": per_try, "backoff": backoff,
            "retryRemoteLocalities": remote, "retryIgnorePreviousHosts": ignore })
    })
}

fn fault() -> impl Strategy<Value = Value> {
    let status = one_of([json!(null), json!(null), json!(418), json!(99)]);
    let grpc = one_of([json!(null), json!("UNAVAILABLE"), json!("17"), json!("0")]);
    (time(), percent(), prop::option::of(0u32..3), status, grpc, percent()).prop_map(
        |(delay, percentage, percent, status, grpc, of_abort)| {
            json!({ "delay": { "fixedDelay": delay, "percentage": percentage, "percent": percent },
                "abort": { "httpStatus": status, "grpcStatus": grpc, "percentage": of_abort } })
        },
    )
}

fn mirrors() -> impl Strategy<Value = Value> {
    let mirror = (destination(), percent());
    let mirror = mirror.prop_map(|(to, share)| json!({ "destination": to["destination"], "percentage": share }));
    prop::collection::vec(mirror, 0..3).prop_map(Value::Array)
}

fn rewrite() -> impl Strategy<Value = Value> {
    let regex = one_of([
        json!(null),
        json!(null),
        json!({ "match": "/(a)/(b)", "rewrite": r"/\2/\1" }),
        json!({ "match": "/(a)", "rewrite": r"/\2" }),
    ]);
    (word(), one_of([json!(null), json!("a.example"), json!("\n")]), regex)
        .prop_map(|(uri, authority, regex)| json!({ "uri": uri, "authority": authority, "uriRegexRewrite": regex }))
}

fn cors() -> impl Strategy<Value = Value> {
    let origins = prop::collection::vec(string_match().prop_filter("a match", |m| !m.is_null()), 0..3);
    let words = || prop::collection::vec(word(), 0..3);
    let preflights = one_of([json!(null), json!("FORWARD"), json!("IGNORE"), json!("?")]);
    let credentials = prop::option::of(any::<bool>());
    (origins, (words(), words(), words(), words()), time(), preflights, credentials).prop_map(
        |(origins, (older, methods, headers, expose), age, preflights, credentials)| {
            json!({ "allowOrigins": origins, "allowOrigin": older, "allowMethods": methods, "allowHeaders": headers,
                "exposeHeaders": expose, "maxAge": age, "unmatchedPreflights": preflights,
                "allowCredentials": credentials })
        },
    )
}

fn extras() -> impl Strategy<Value = Value> {
    let mirror = one_of([json!(null), json!({ "host": "ratings" }), json!({ "host": "nowhere" })]);
    let maybe = |part: BoxedStrategy<Value>| prop_oneof![Just(Value::Null), part];
    (
        (time(), maybe(retries().boxed()), maybe(fault().boxed()), mirror, percent()),
        (maybe(mirrors().boxed()), maybe(rewrite().boxed()), maybe(cors().boxed()), headers()),
    )
        .prop_map(|((timeout, retries, fault, mirror, share), (mirrors, rewrite, cors, headers))| {
            json!({ "timeout": timeout, "retries": retries, "fault": fault, "mirror": mirror,
                "mirrorPercentage": share, "mirrors": mirrors, "rewrite": rewrite, "corsPolicy": cors,
                "headers": headers })
        })
}

fn rule() -> impl Strategy<Value = Value> {
    let parts = (prop::collection::vec(http_match(), 0..3), answer(), prop::option::of(extras()), word());
    parts.prop_map(|(matches, answer, extras, name)| {
        let mut rule = json!({ "match": matches, "name": name });
        for part in [Some(answer), extras].into_iter().flatten() {
            let Value::Object(part) = part else { continue };
            let part = part.into_iter().filter(|(_, value)| !value.is_null());
            rule.as_object_mut().unwrap().extend(part);
        }
        rule
    })
}

fn consistent_hash() -> impl Strategy<Value = Value> {
    one_of([
        json!(null),
        json!({ "httpHeaderName": "x-user" }),
        json!({ "useSourceIp": true }),
        json!({ "httpQueryParameterName": "user" }),
        json!({ "httpCookie": { "name": "user", "path": "/", "ttl": "0s" } }),
        json!({ "httpCookie": { "name": "user" } }),
    ])
}

fn setting() -> impl Strategy<Value = Setting> {
    let client = prop::sample::select(vec!["sidecar", "gateway", "grpc"]);
    let missing = prop::sample::select(vec!["unavailable", "reweight"]);
    let default = prop::option::of(Just("outbound|9080||reviews.default.svc.cluster.local".to_owned()));
    (client, missing, default, any::<bool>(), consistent_hash(), consistent_hash()).prop_map(
        |(client, missing, default, https_redirect, first, second)| {
            let known = |hash| KnownService {
                ports: vec![9080],
                subsets: vec!["v1".to_owned()],
                hash: serde_json::from_value(hash).unwrap(),
            };
            Setting {
                client: client.to_owned(),
                labels: [("app".to_owned(), "a".to_owned())].into(),
                missing: missing.to_owned(),
                default,
                https_redirect,
                services: [("reviews", first), ("ratings", second)]
                    .map(|(name, hash)| (format!("{name}.default.svc.cluster.local"), known(hash)))
                    .into(),
                ..Setting::default()
            }
        },
    )
}

/// Two VirtualServices of the same host, which a gateway may have, and one that they may delegate to.
fn objects() -> impl Strategy<Value = Vec<Arc<Object>>> {
    let rules = || prop::collection::vec(rule(), 0..4);
    (rules(), prop::option::weighted(0.2, rules()), rules()).prop_map(|(first, second, inner)| {
        let named = |name: &str, hosts: Value, rules: Vec<Value>| {
            object("default", name, serde_json::from_value(json!({ "hosts": hosts, "http": rules })).unwrap())
        };
        let second = second.map(|rules| named("other", json!(["reviews"]), rules));
        let first = named("reviews", json!(["reviews"]), first);
        std::iter::once(first).chain(second).chain([named("inner", json!([]), inner)]).collect()
    })
}

proptest! {
    #[test]
    fn any_virtual_service_gives_a_virtual_host_that_keeps_envoys_rules(setting in setting(), objects in objects()) {
        let built = setting.compile(&objects);
        let bytes = built.value.encode();
        let type_url = VirtualHost::type_url();
        let checked = proto::wire::check(&type_url, &bytes);
        prop_assert!(checked.is_ok(), "{checked:?}");
        let read = VirtualHost::decode(&bytes[..]).expect("what is written is a message");
        prop_assert_eq!(built.value.has_routes, !read.routes.is_empty());
        let by_prost = read.encode_to_vec();
        prop_assert_eq!(&*proto::wire::canonicalize(&type_url, &by_prost), &bytes[..], "prost gives the same bytes");
        for problem in &built.problems {
            prop_assert!(!problem.consequence.is_empty(), "{problem}");
        }
    }
}
