//! Whatever a VirtualService says, what comes out keeps Envoy's rules.

use proptest::prelude::*;
use prost::{Message, Name};
use proto::pb::envoy::config::route::v3::VirtualHost;
use serde_json::{Value, json};
use world::api::istio::VirtualService;

use super::{KnownService, Setting, object};

/// Words that mean something to someone, and words that should mean nothing to anyone.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "/",
        "/a",
        "a",
        "*",
        ".*",
        "(",
        "[a",
        "x{2000}",
        "\n",
        "\0",
        "%",
        "100%",
        "%REQ(a)%",
        "host",
        ":authority",
        ":path",
        "HEADER",
        "x-user",
        r"\1",
        r"\",
        "é",
        "-1",
        "0",
        "/a?b",
        "@request.auth.claims.sub",
        "v1",
        "mesh",
        "GET",
    ])
    .prop_map(str::to_owned)
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
    let values = || prop::collection::btree_map(word(), string_match(), 0..3);
    (string_match(), string_match(), string_match(), values(), values(), values(), any::<bool>(), word()).prop_map(
        |(uri, method, authority, headers, without, query, ignore, name)| {
            json!({ "uri": uri, "method": method, "authority": authority, "headers": headers, "withoutHeaders": without,
                "queryParams": query, "ignoreUriCase": ignore, "name": name })
        },
    )
}

fn headers() -> impl Strategy<Value = Value> {
    let operations = || {
        let pairs = || prop::collection::btree_map(word(), word(), 0..3);
        (pairs(), pairs(), prop::collection::vec(word(), 0..3))
            .prop_map(|(set, add, remove)| json!({ "set": set, "add": add, "remove": remove }))
    };
    (operations(), operations()).prop_map(|(request, response)| json!({ "request": request, "response": response }))
}

fn destination() -> impl Strategy<Value = Value> {
    let host = prop::sample::select(vec!["reviews", "nowhere"]);
    let subset = prop::sample::select(vec!["", "v1", "v9"]);
    let weight = prop::option::of(prop::sample::select(vec![-5i64, 0, 1, 33, 80, i64::MAX]));
    (host, subset, weight, headers()).prop_map(|(host, subset, weight, headers)| {
        json!({ "destination": { "host": host, "subset": subset }, "weight": weight, "headers": headers })
    })
}

fn percent() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
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
    prop_oneof![
        4 => prop::collection::vec(destination(), 0..4).prop_map(|route| json!({ "route": route })),
        1 => (word(), word(), word(), status.clone()).prop_map(|(uri, authority, scheme, code)| {
            json!({ "redirect": { "uri": uri, "authority": authority, "scheme": scheme, "redirectCode": code } })
        }),
        1 => (status, word()).prop_map(|(status, body)| {
            json!({ "directResponse": { "status": status, "body": { "bytes": body } } })
        }),
    ]
}

fn extras() -> impl Strategy<Value = Value> {
    let time = || prop::sample::select(vec![json!(null), json!("0s"), json!("1ns"), json!("87600h")]);
    (
        (time(), time(), time()),
        (any::<i32>(), word(), any::<bool>()),
        (percent(), percent(), percent()),
        (word(), word(), word()),
        prop::collection::vec(string_match().prop_filter("a match", |m| !m.is_null()), 0..3),
        headers(),
    )
        .prop_map(|((timeout, delay, backoff), (attempts, on, remote), (p, q, r), (a, b, c), origins, headers)| {
            json!({
                "timeout": timeout,
                "retries": { "attempts": attempts, "retryOn": on, "backoff": backoff, "retryRemoteLocalities": remote },
                "fault": { "delay": { "fixedDelay": delay, "percentage": p },
                           "abort": { "grpcStatus": a, "percentage": q } },
                "mirror": { "host": "reviews", "subset": c },
                "mirrorPercentage": r,
                "rewrite": { "uri": b, "authority": a },
                "corsPolicy": { "allowOrigins": origins, "allowMethods": [c], "maxAge": timeout },
                "headers": headers,
            })
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

proptest! {
    #[test]
    fn any_virtual_service_gives_a_virtual_host_that_keeps_envoys_rules(
        rules in prop::collection::vec(rule(), 0..4),
        client in prop::sample::select(vec!["sidecar", "gateway", "grpc"]),
        missing in prop::sample::select(vec!["unavailable", "reweight"]),
    ) {
        let spec: VirtualService = serde_json::from_value(json!({ "hosts": ["reviews"], "http": rules })).unwrap();
        let known = KnownService { ports: vec![9080], subsets: vec!["v1".to_owned()], hash: None };
        let setting = Setting {
            client: client.to_owned(),
            missing: missing.to_owned(),
            services: [("reviews.default.svc.cluster.local".to_owned(), known)].into(),
            ..Setting::default()
        };
        let built = setting.compile(&[object("default", "reviews", spec)]);
        let checked = proto::wire::check(&VirtualHost::type_url(), &built.value.encode_to_vec());
        prop_assert!(checked.is_ok(), "{checked:?}");
        for problem in &built.problems {
            prop_assert!(!problem.consequence.is_empty(), "{problem}");
        }
    }
}
