//! Whatever an assignment says, and whatever users wrote.

use proptest::prelude::*;
use prost::Message as _;
use proto::ResourceType;
use proto::pb::envoy::config::route::v3::VirtualHost;
use proto::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use serde_json::{Value, json};

use super::bed::{Mesh, REVIEWS, gateway, grpc, run, sidecar};

fn one_of<const N: usize>(values: [Value; N]) -> impl Strategy<Value = Value> {
    prop::sample::select(values.to_vec())
}

fn revision() -> impl Strategy<Value = Value> {
    // The last has no endpoints, and one has an odd name.
    one_of([json!("v1"), json!("v2"), json!("v9"), json!("")])
}

fn field(named: bool) -> impl Strategy<Value = Value> {
    let how = one_of([
        json!({"exact": "a.b"}),
        json!({"prefix": "/x"}),
        json!({"suffix": "z"}),
        json!({"regex": "[a-c]+"}),
        json!({"regex": "("}),
        json!({"regex": "(a{50}){50}"}),
        json!({"present": true}),
        json!({"present": false}),
        json!({}),
        json!({"exact": "a", "prefix": "a"}),
    ]);
    let name = one_of([json!("x-a"), json!("X-B"), json!("a.b(c"), json!(""), json!("x\r\ny")]);
    (how, name).prop_map(move |(mut how, name)| {
        if named {
            how["name"] = name;
        }
        how
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let parts = (
        prop::option::of(field(true)),
        prop::option::of(field(true)),
        prop::option::of(field(true)),
        prop::option::of(field(false)),
        prop::option::of(one_of([json!("GET"), json!("POST")])),
        prop::option::weighted(0.2, Just(json!({"app": "a"}))),
    );
    parts.prop_map(|(header, cookie, query, path, method, source_labels)| {
        let parts = [
            ("header", header),
            ("cookie", cookie),
            ("query", query),
            ("path", path),
            ("method", method),
            ("sourceLabels", source_labels),
        ];
        parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    })
}

fn conditions() -> impl Strategy<Value = Value> {
    prop::collection::vec(condition(), 0..3).prop_map(Value::from)
}

fn stickiness() -> impl Strategy<Value = Value> {
    one_of([
        json!({}),
        json!({"mode": "Hash", "key": [{"header": "x-user"}, {"cookie": "c"}, {"query": "q"}, {"sourceIp": true}]}),
        json!({"mode": "Hash", "key": []}),
        json!({"mode": "Hash", "key": [{"header": ""}, {}]}),
        json!({"mode": "Cookie"}),
        json!({"mode": "Cookie", "cookie": {"name": "100%", "path": "/%", "domain": "a%b"}}),
        json!({"mode": "Cookie", "cookie": {"name": "a;b"}}),
    ])
}

fn split() -> impl Strategy<Value = Value> {
    let weights = (0u32..=1_000_000, 0u32..=1_000_000, revision(), revision(), revision()).prop_map(
        |(first, second, a, b, c)| {
            let percent = |parts: u32| f64::from(parts) / 1e4;
            let second = second.min(1_000_000 - first);
            json!({"Weights": [[a, percent(first)], [b, percent(second)], [c, percent(1_000_000 - first - second)]]})
        },
    );
    let members = (0u32..4, 0u32..4, revision(), revision())
        .prop_map(|(first, second, a, b)| json!({"Endpoints": [[a, first], [b, second]]}));
    prop_oneof![4 => weights, 1 => members, 1 => Just(json!({"Weights": []}))]
}

fn any_run() -> impl Strategy<Value = Value> {
    let directed =
        (revision(), conditions()).prop_map(|(to, matches)| json!({"name": "one", "to": to, "matches": matches}));
    let mirror = (revision(), 0u32..=100, conditions())
        .prop_map(|(to, share, matches)| json!({"to": to, "share": share, "matches": matches}));
    let protocol = one_of([json!("Auto"), json!("HTTP"), json!("TCP")]);
    let attach = one_of([json!({}), json!({"mesh": false, "gateways": ["edge"]}), json!({"routes": ["rule"]})]);
    let parts = (
        split(),
        prop::collection::vec(directed, 0..3),
        prop::option::of(mirror),
        stickiness(),
        prop::option::of(revision()),
        protocol,
        attach,
    );
    parts.prop_map(|(split, routes, mirror, stickiness, fallback, protocol, attach)| {
        let mut run = run(split);
        run["protocol"] = protocol;
        run["attach"] = attach;
        for (part, value) in [
            ("routes", json!(routes)),
            ("mirror", json!(mirror)),
            ("stickiness", stickiness),
            ("fallback", json!(fallback)),
        ] {
            run["assignment"][part] = value;
        }
        run
    })
}

fn rules() -> impl Strategy<Value = String> {
    let matched = prop::sample::select(vec!["", "match: [{uri: {prefix: /x}}, {headers: {x-a: {exact: b}}}], "]);
    let rewrite = prop::sample::select(vec!["", "rewrite: {uri: /y}, "]);
    let to = "{destination: {host: reviews, port: {number: 80}}";
    let destinations = prop::sample::select(vec![
        format!("[{to}}}]"),
        format!("[{to}, weight: 3}}, {{destination: {{host: gone}}, weight: 1}}]"),
        format!("[{to}, weight: 2000000000}}, {to}, weight: 1999999999}}]"),
    ]);
    (matched, rewrite, destinations, any::<bool>()).prop_map(|(matched, rewrite, destinations, hashes)| {
        let hash = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews}\n\
                    spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-h}}}}\n";
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  \
             hosts: [reviews]\n  http: [{{name: rule, {matched}{rewrite}route: {destinations}}}]\n{}",
            if hashes { hash } else { "" }
        )
    })
}

proptest! {
    #[test]
    fn any_assignment_gives_what_envoy_takes_and_names_nothing_that_is_not_there(run in any_run(), rules in rules()) {
        let mut mesh = Mesh::new(&[REVIEWS, &rules]);
        mesh.apply_run(&run);
        for audience in [sidecar(), gateway(), grpc()] {
            // It is closed: the bed looks.
            let snapshot = mesh.snapshot(&audience);
            for cell in snapshot.iter(ResourceType::VirtualHost) {
                let host = VirtualHost::decode(&*cell.value()).unwrap();
                let by_prost = host.encode_to_vec();
                let canonical = proto::wire::canonicalize(ResourceType::VirtualHost.type_url(), &by_prost);
                prop_assert_eq!(&*canonical, &*cell.value(), "prost gives the same bytes");
                for route in &host.routes {
                    let Some(action) = &route.action else { continue };
                    let proto::pb::envoy::config::route::v3::route::Action::Route(action) = action else { continue };
                    let Some(ClusterSpecifier::WeightedClusters(clusters)) = &action.cluster_specifier else { continue };
                    let weights = clusters.clusters.iter().map(|entry| entry.weight.map_or(0, |weight| weight.value));
                    prop_assert!(weights.clone().all(|weight| weight > 0), "{:?}", action);
                    prop_assert!(weights.map(u64::from).sum::<u64>() <= u64::from(u32::MAX));
                }
            }
        }
        for problem in mesh.problems() {
            prop_assert!(!problem.contains("breaks Envoy's own rules"), "{}", problem);
        }
    }
}
