//! What is compiled of an assignment: clusters of revisions, decorated routes, divided endpoints. The routes and
//! assignments of each strategy are in `tests/golden/rollout/`; `UPDATE_GOLDEN=1` writes them anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod any;
mod bed;

use bed::{Mesh, REVIEWS, canary, gateway, golden, grpc, routes, run, sidecar, weights};

use proto::ResourceType;
use serde_json::json;

const WHOLE: &str = "outbound|80||reviews.default.svc.cluster.local";
const V1: &str = "outbound|80|v1|reviews.default.svc.cluster.local";
const V2: &str = "outbound|80|v2|reviews.default.svc.cluster.local";

#[test]
fn every_revision_listed_has_its_cluster_whatever_its_weight() {
    let mut mesh = Mesh::new(&[REVIEWS]);
    mesh.apply_run(&run(canary(0)));
    for audience in [sidecar(), gateway(), grpc()] {
        let snapshot = mesh.snapshot(&audience);
        for cluster in [WHOLE, V1, V2] {
            let clusters = snapshot.iter(ResourceType::Cluster).filter(|cell| &**cell.name() == cluster).count();
            assert_eq!(clusters, 1, "{cluster} for {audience:?}");
        }
    }
    assert_eq!(mesh.endpoints(&sidecar(), V1), [("", vec!["10.2.1.1", "10.2.1.2", "10.2.1.3"], 3, 0)]);
    assert_eq!(mesh.endpoints(&sidecar(), V2), [("", vec!["10.2.2.1", "10.2.2.2"], 2, 0)]);
    assert_eq!(mesh.problems(), [""; 0]);
}

#[test]
fn a_subset_of_the_same_endpoints_is_the_revision_and_keeps_its_policy() {
    let mut mesh = Mesh::new(&[REVIEWS, SUBSETS]);
    let before = mesh.resource(&sidecar(), ResourceType::Cluster, V2);
    mesh.apply_run(&run(canary(100_000)));
    let after = mesh.resource(&sidecar(), ResourceType::Cluster, V2);
    assert_eq!(after, before);
    assert_eq!(after["circuit_breakers"]["thresholds"][0]["max_connections"], 7);
    let inherited = mesh.resource(&sidecar(), ResourceType::Cluster, V1);
    assert_eq!(inherited["circuit_breakers"]["thresholds"][0]["max_connections"], 9, "{inherited}");
    assert_eq!(mesh.problems(), [""; 0]);
}

#[test]
fn a_subset_of_other_endpoints_keeps_its_name_and_the_revision_gets_another() {
    let other = SUBSETS.replace("labels: {version: v2}", "labels: {version: v2, track: fast}");
    let mut mesh = Mesh::new(&[REVIEWS, &other]);
    mesh.apply_run(&run(canary(100_000)));
    let own = "outbound|80|version=v2|reviews.default.svc.cluster.local";
    assert_eq!(weights(&routes(&mut mesh, &sidecar())[0]), [(own, 100_000), (V1, 900_000)]);
    assert_eq!(mesh.endpoints(&sidecar(), own), [("", vec!["10.2.2.1", "10.2.2.2"], 2, 0)]);
    let problems = mesh.problems();
    assert!(
        problems[0].contains("RolloutRun default/run-1: spec.label: a DestinationRule has a subset \"v2\""),
        "{problems:?}"
    );
}

#[test]
fn a_changed_weight_runs_units_of_that_service_and_changes_one_virtual_host() {
    let mut mesh = Mesh::new(&[REVIEWS, &REVIEWS.replace("reviews", "ratings").replace("10.1.0.1", "10.1.0.2")]);
    let of_http = |candidate| {
        let mut run = run(canary(candidate));
        run["service"]["ports"] = json!([80]);
        run
    };
    mesh.apply_run(&of_http(100_000));
    let (sidecar, gateway) = (sidecar(), gateway());
    let before = [mesh.snapshot(&sidecar), mesh.snapshot(&gateway)];
    let units = mesh.apply_run(&of_http(250_000));
    // Clusters, assignments and virtual hosts of the sidecar's layer, clusters and assignments of the gateway's.
    assert!(units <= 5, "{units} units");
    let after = [mesh.snapshot(&sidecar), mesh.snapshot(&gateway)];
    for resource_type in ResourceType::ALL {
        let changed: Vec<_> = std::iter::zip(&before, &after)
            .flat_map(|(before, after)| after.changes(before, resource_type).changed)
            .map(|cell| cell.name().to_string())
            .collect();
        let wanted: &[&str] = match resource_type {
            ResourceType::VirtualHost => &["80/reviews.default.svc.cluster.local:80"],
            _ => &[],
        };
        assert_eq!(changed, wanted, "{resource_type}");
    }
    let host = after[0].get(ResourceType::VirtualHost, "80/reviews.default.svc.cluster.local:80").unwrap();
    assert!(host.value().len() < 800, "{} bytes for a changed weight", host.value().len());
}

#[test]
fn clients_log_the_requests_of_a_run_that_is_judged_by_logs_to_the_server() {
    let mut mesh = Mesh::new(&[REVIEWS]);
    let at = |candidate, is_logged: bool| {
        let mut run = run(canary(candidate));
        run["accessLog"] = json!(is_logged);
        run
    };
    let logs = |mesh: &mut Mesh| {
        let listener = mesh.resource(&sidecar(), ResourceType::Listener, "0.0.0.0_80");
        let text = listener.to_string();
        text.matches("envoy.access_loggers.http_grpc").count()
    };
    mesh.apply_run(&at(0, false));
    assert_eq!(logs(&mut mesh), 0);
    mesh.apply_run(&at(0, true));
    assert_eq!(logs(&mut mesh), 1);
    let before = mesh.snapshot(&sidecar());
    mesh.apply_run(&at(100_000, true));
    let after = mesh.snapshot(&sidecar());
    let changed = after.changes(&before, ResourceType::Listener).changed.len();
    assert_eq!(changed, 0, "a weight changes no listener");
    mesh.apply_run(&at(100_000, false));
    assert_eq!(logs(&mut mesh), 0);
}

#[test]
fn weights_are_parts_of_the_whole_with_the_candidate_first_and_nothing_for_zero() {
    let mut mesh = Mesh::new(&[REVIEWS]);
    for audience in [sidecar(), grpc()] {
        for (candidate, wanted) in [
            (0, vec![(V1, 1_000_000)]),
            (1, vec![(V2, 1), (V1, 999_999)]),
            (250_000, vec![(V2, 250_000), (V1, 750_000)]),
            (1_000_000, vec![(V2, 1_000_000)]),
        ] {
            mesh.apply_run(&run(canary(candidate)));
            let routes = routes(&mut mesh, &audience);
            assert_eq!(weights(&routes[0]), wanted);
            let resting = [V1, V2].into_iter().find(|name| !wanted.iter().any(|(taken, _)| taken == name));
            match resting.filter(|_| audience.is_grpc()) {
                None => assert_eq!(routes.len(), 1),
                Some(resting) => {
                    assert_eq!(routes.len(), 2);
                    assert_eq!(routes[1]["route"]["weighted_clusters"]["clusters"][0]["name"], resting);
                    assert_eq!(
                        routes[1]["match"]["runtime_fraction"]["default_value"],
                        json!({}),
                        "no request takes it"
                    );
                }
            }
        }
    }
}

#[test]
fn a_destination_among_others_is_divided_within_its_own_weight() {
    let other = REVIEWS.replace("reviews", "ratings").replace("10.1.0.1", "10.1.0.2");
    let ratings = "outbound|80||ratings.default.svc.cluster.local";
    let mut mesh = Mesh::new(&[
        REVIEWS,
        &other,
        &http(
            "[{destination: {host: reviews, port: {number: 80}}, weight: 80},
          {destination: {host: ratings, port: {number: 80}}, weight: 20}]",
        ),
    ]);
    let mut sums = Vec::new();
    for candidate in [10_000, 100_000, 999_999] {
        mesh.apply_run(&run(canary(candidate)));
        let routes = routes(&mut mesh, &sidecar());
        let weights = weights(&routes[0]);
        assert_eq!(weights, [(V2, 4 * candidate), (V1, 4 * (1_000_000 - candidate)), (ratings, 1_000_000)]);
        sums.push(weights.iter().map(|(_, weight)| *weight).sum::<u32>());
    }
    assert_eq!(sums, [5_000_000; 3]);
}

#[test]
fn weights_too_large_to_be_multiplied_are_brought_down_and_their_sum_stays() {
    let other = REVIEWS.replace("reviews", "ratings").replace("10.1.0.1", "10.1.0.2");
    let mut mesh = Mesh::new(&[
        REVIEWS,
        &other,
        &http(
            "[{destination: {host: reviews, port: {number: 80}}, weight: 2000000001},
          {destination: {host: ratings, port: {number: 80}}, weight: 1000000000}]",
        ),
    ]);
    let mut sums = Vec::new();
    for candidate in [1, 333_333, 999_999] {
        mesh.apply_run(&run(canary(candidate)));
        let routes = routes(&mut mesh, &sidecar());
        let parts = weights(&routes[0]);
        let sum: u64 = parts.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let share = f64::from(parts[0].1) / sum as f64;
        let wanted = f64::from(candidate) / 1e6 * 2.0 / 3.0;
        assert!((share - wanted).abs() <= wanted * 1e-3, "{share} for {wanted}");
        sums.push(sum);
    }
    assert!(sums.iter().all(|sum| *sum == sums[0] && *sum <= u64::from(u32::MAX)), "{sums:?}");
}

#[test]
fn an_explicit_subset_is_left_alone_and_the_run_is_told() {
    let mut mesh =
        Mesh::new(&[REVIEWS, SUBSETS, &http("[{destination: {host: reviews, subset: v1, port: {number: 80}}}]")]);
    mesh.apply_run(&run(canary(500_000)));
    assert_eq!(weights(&routes(&mut mesh, &sidecar())[0]), [(V1, 1_000_000)]);
    let problems = mesh.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with(
        "warning: RolloutRun default/run-1: spec.service: VirtualService default/reviews spec.http[0].route[0] names the \
         subset \"v1\"; what it takes goes there"
    ), "{problems:?}");
}

#[test]
fn a_subset_that_connections_are_sent_to_is_left_alone_too() {
    let routes = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: db}\nspec:\n  \
                  hosts: [reviews]\n  tcp: [{route: [{destination: {host: reviews, subset: v1, port: {number: 5432}}}]}]\n";
    let mut mesh = Mesh::new(&[REVIEWS, SUBSETS, routes]);
    mesh.apply_run(&run(canary(500_000)));
    mesh.snapshot(&sidecar());
    let problems = mesh.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("VirtualService default/db spec.tcp[0].route[0] names the subset \"v1\""),
        "{problems:?}"
    );
}

#[test]
fn clients_and_routes_that_a_run_is_not_attached_to_stay_with_what_is_stable() {
    let two = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  \
               hosts: [reviews]\n  http:\n    - {name: new, match: [{uri: {prefix: /new}}], route: [{destination: {host: reviews}}]}\n    \
               - {name: old, route: [{destination: {host: reviews}}]}\n";
    let two = two.replace("{host: reviews}", "{host: reviews, port: {number: 80}}");
    let mut mesh = Mesh::new(&[REVIEWS, &two]);
    let attached = |attach: serde_json::Value, candidate| {
        let mut run = run(canary(candidate));
        run["attach"] = attach;
        run
    };
    let split = [(V2, 100_000), (V1, 900_000)];
    let stable = [(V1, 1_000_000)];
    mesh.apply_run(&attached(json!({"routes": ["new"]}), 100_000));
    let both = routes(&mut mesh, &sidecar());
    assert_eq!((weights(&both[0]), weights(&both[1])), (split.to_vec(), stable.to_vec()));
    mesh.apply_run(&attached(json!({"clients": {"matchLabels": {"team": "a"}}}), 100_000));
    let of_a =
        compile::Audience { labels: std::sync::Arc::new([("team".to_owned(), "a".to_owned())].into()), ..sidecar() };
    assert_eq!(weights(&routes(&mut mesh, &of_a)[0]), split);
    assert_eq!(weights(&routes(&mut mesh, &sidecar())[0]), stable);
    mesh.apply_run(&attached(json!({"mesh": false, "gateways": ["edge"]}), 100_000));
    assert_eq!(weights(&routes(&mut mesh, &of_a)[0]), stable);
    // Who is not attached follows when there is nobody to choose from.
    mesh.apply_run(&attached(json!({"mesh": false, "gateways": ["edge"]}), 1_000_000));
    assert_eq!(weights(&routes(&mut mesh, &of_a)[0]), [(V2, 1_000_000)]);
}

#[test]
fn a_gateway_is_attached_by_its_name() {
    let mut mesh = Mesh::new(&[REVIEWS, EDGE]);
    for (gateways, wanted) in [
        (json!(["edge"]), vec![(V2, 100_000), (V1, 900_000)]),
        (json!(["default/edge"]), vec![(V2, 100_000), (V1, 900_000)]),
        (json!(["other/edge"]), vec![(V1, 1_000_000)]),
        (json!([]), vec![(V1, 1_000_000)]),
    ] {
        let mut run = run(canary(100_000));
        run["attach"] = json!({"gateways": gateways});
        mesh.apply_run(&run);
        assert_eq!(weights(&mesh.routes_at(&gateway(), "http.8080")[0]), wanted, "{gateways}");
        let problems = mesh.problems();
        let told = problems.iter().any(|problem| problem.contains("Gateway default/edge leads to the service"));
        assert_eq!(told, wanted.len() == 1, "{problems:?}");
    }
}

#[test]
fn nothing_is_sent_to_a_revision_without_endpoints() {
    let gone = REVIEWS.replace("version: v2", "version: v9");
    let mut mesh = Mesh::new(&[&gone]);
    let mut run = run(canary(250_000));
    run["assignment"]["routes"] =
        json!([{"name": "qa", "matches": [{"header": {"name": "x-qa", "present": true}}], "to": "v2"}]);
    run["assignment"]["mirror"] = json!({"to": "v2", "share": 100, "matches": []});
    mesh.apply_run(&run);
    let found = routes(&mut mesh, &sidecar());
    assert_eq!(found.len(), 1);
    assert_eq!(weights(&found[0]), [(V1, 1_000_000)]);
    assert!(!found[0].to_string().contains("irror"), "{}", found[0]);
    let problems = mesh.problems();
    let fields = ["spec.assignment.mirror", "spec.assignment.routes[0]", "spec.assignment.split"];
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, field) in problems.iter().zip(fields) {
        assert!(problem.contains(&format!("{field}: revision \"v2\" has no ready endpoints")), "{problem}");
    }
    assert!(problems[2].contains("its 25% of the traffic goes to \"v1\""), "{problems:?}");
    // And when stable is the one that is empty.
    let mut mesh = Mesh::new(&[&REVIEWS.replace("version: v1", "version: v9")]);
    mesh.apply_run(&bed::run(canary(250_000)));
    assert_eq!(weights(&routes(&mut mesh, &sidecar())[0]), [(V2, 1_000_000)]);
}

#[test]
fn clusters_endpoints_and_routes_remember_the_assignment_that_they_came_from() {
    let mut mesh = Mesh::new(&[REVIEWS]);
    for generation in 1..=2 {
        mesh.apply_run(&run(canary(0)));
        let snapshot = mesh.snapshot(&sidecar());
        let of_run = |resource_type, name: &str| {
            let cell = snapshot.get(resource_type, name).unwrap();
            let mut origins = cell.origins().filter(|origin| origin.object.contains("run-1"));
            origins.next().map(|origin| origin.generation)
        };
        for (resource_type, name) in [
            (ResourceType::Cluster, V1),
            (ResourceType::Cluster, V2),
            (ResourceType::Endpoints, V2),
            (ResourceType::VirtualHost, "80/reviews.default.svc.cluster.local:80"),
        ] {
            assert_eq!(of_run(resource_type, name), Some(generation), "{resource_type} {name}");
        }
        assert_eq!(of_run(ResourceType::Cluster, WHOLE), None, "which is as it was");
    }
}

#[test]
fn strategies_become_the_routes_of_the_golden_files() {
    let rules = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - name: api
      match: [{uri: {prefix: /api}, queryParams: {debug: {exact: '1'}}}]
      rewrite: {uri: /}
      timeout: 3s
      headers: {response: {set: {x-route: api}}}
      route: [{destination: {host: reviews, port: {number: 80}}, headers: {request: {add: {x-to: reviews}}}}]
    - route: [{destination: {host: reviews, port: {number: 80}}}]
";
    let qa = json!({"name": "qa", "to": "v2", "matches": [
        {"header": {"name": "X-QA", "exact": "yes"}, "method": "GET"},
        {"cookie": {"name": "qa", "regex": "[0-9]+"}, "query": {"name": "preview", "present": true}},
        {"path": {"suffix": ".beta"}, "query": {"name": "old", "present": false}},
    ]});
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut run = run(canary(100_000));
        change(&mut run["assignment"]);
        run
    };
    let cases = [
        ("canary", with(&|_| {})),
        ("header-routes", with(&|a| a["routes"] = json!([qa]))),
        ("mirror", with(&|a| a["mirror"] = json!({"to": "v2", "share": 12.5, "matches": []}))),
        (
            "mirror-some",
            with(&|a| {
                a["split"] = json!({"Weights": [["v1", 100]]});
                a["mirror"] = json!({"to": "v2", "share": 100, "matches": [{"method": "GET"}]});
            }),
        ),
        (
            "sticky-hash",
            with(&|a| {
                a["stickiness"] =
                    json!({"mode": "Hash", "key": [{"header": "x-user"}, {"cookie": "sid"}, {"sourceIp": true}]})
            }),
        ),
        ("sticky-cookie", with(&|a| a["stickiness"] = json!({"mode": "Cookie", "cookie": {"domain": "a.test"}}))),
        ("fallback", with(&|a| a["fallback"] = json!("v1"))),
        (
            "blue-green-preview",
            with(&|a| {
                a["split"] = json!({"Weights": [["v2", 0], ["v1", 100]]});
                a["routes"] = json!([{"name": "preview", "to": "v2", "matches": [{"header": {"name": "x-preview", "present": true}}]}]);
            }),
        ),
        ("blue-green-switched", with(&|a| a["split"] = json!({"Weights": [["v2", 100], ["v1", 0]]}))),
        (
            "ab",
            with(&|a| {
                a["split"] = json!({"Weights": [["v2", 33.3333], ["v3", 33.3333], ["v1", 33.3334]]});
                a["routes"] = json!([{"name": "b", "to": "v2", "matches": [{"cookie": {"name": "variant", "exact": "b.1"}}]},
                {"name": "c", "to": "v3", "matches": [{"query": {"name": "variant", "exact": "c"}}]}]);
                a["stickiness"] = json!({"mode": "Hash", "key": [{"header": "x-user"}]});
            }),
        ),
    ];
    let third = REVIEWS.replace("endpoints:", "endpoints:\n    - {address: 10.2.3.1, labels: {version: v3}}");
    for (name, run) in cases {
        let mut mesh = Mesh::new(&[&third, rules]);
        mesh.apply_run(&run);
        let sidecar = mesh.routes_at(&sidecar(), "80/reviews.default.svc.cluster.local:80");
        let grpc = routes(&mut mesh, &grpc());
        golden(name, &json!({"sidecar": sidecar, "grpc": grpc, "problems": mesh.problems()}));
    }
}

#[test]
fn a_fallback_stands_behind_each_other_revision_in_a_locality_of_its_own() {
    let mut mesh = Mesh::new(&[REVIEWS]);
    let mut run = run(canary(500_000));
    run["assignment"]["fallback"] = json!("v1");
    mesh.apply_run(&run);
    let stable = vec!["10.2.1.1", "10.2.1.2", "10.2.1.3"];
    assert_eq!(
        mesh.endpoints(&sidecar(), V2),
        [("", vec!["10.2.2.1", "10.2.2.2"], 2, 0), ("pm-fallback", stable.clone(), 3, 1)]
    );
    let assignment = mesh.resource(&sidecar(), ResourceType::Endpoints, V2);
    assert_eq!(assignment["policy"]["overprovisioning_factor"], 10_000, "{assignment}");
    assert_eq!(mesh.endpoints(&sidecar(), V1), [("", stable.clone(), 3, 0)]);
    // Without endpoints of its own, the first priority is not left empty.
    let mut mesh = Mesh::new(&[&REVIEWS.replace("version: v2", "version: v9")]);
    mesh.apply_run(&run);
    assert_eq!(mesh.endpoints(&sidecar(), V2), [("pm-fallback", stable, 3, 0)]);
}

#[test]
fn a_revision_that_hashes_has_its_hash_on_the_routes_that_lead_to_it() {
    let hash = "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-session}}}";
    let subsets = SUBSETS.replace("trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}", hash);
    let mut mesh = Mesh::new(&[REVIEWS, &subsets]);
    mesh.apply_run(&run(canary(100_000)));
    let route = &routes(&mut mesh, &sidecar())[0];
    assert_eq!(route["route"]["hash_policy"], json!([{"header": {"header_name": "x-session"}}]));
    assert!(route["route"]["weighted_clusters"]["use_hash_policy"].is_null(), "each request is drawn anew");
}

#[test]
fn endpoints_that_clients_find_themselves_cannot_be_divided_and_the_run_is_told() {
    let named =
        REVIEWS.replace("resolution: STATIC", "resolution: DNS").replace("address: 10.2.1.1", "address: a.test");
    let mut mesh = Mesh::new(&[&named]);
    mesh.apply_run(&run(canary(100_000)));
    // Requests still are.
    assert_eq!(weights(&routes(&mut mesh, &sidecar())[0]), [(V2, 100_000), (V1, 900_000)]);
    let problems = mesh.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("clients resolve the endpoints of ServiceEntry default/reviews themselves"),
        "{problems:?}"
    );
}

#[test]
fn connections_are_divided_by_localities_and_no_listener_changes() {
    let mut mesh = Mesh::new(&[REVIEWS]);
    mesh.apply_run(&run(canary(0)));
    let whole = "outbound|5432||reviews.default.svc.cluster.local";
    let (v1, v2) = (vec!["10.2.1.1", "10.2.1.2", "10.2.1.3"], vec!["10.2.2.1", "10.2.2.2"]);
    let before = mesh.snapshot(&sidecar());
    for (candidate, wanted) in [
        (0, vec![("v1", v1.clone(), 1_000_000, 0)]),
        (1, vec![("v2", v2.clone(), 1, 0), ("v1", v1.clone(), 999_999, 0)]),
        (250_000, vec![("v2", v2.clone(), 250_000, 0), ("v1", v1.clone(), 750_000, 0)]),
        (1_000_000, vec![("v2", v2.clone(), 1_000_000, 0)]),
    ] {
        mesh.apply_run(&run(canary(candidate)));
        assert_eq!(mesh.endpoints(&sidecar(), whole), wanted);
        let after = mesh.snapshot(&sidecar());
        for untouched in [ResourceType::Listener, ResourceType::Cluster] {
            assert!(after.changes(&before, untouched).changed.is_empty(), "{untouched} at {candidate}");
        }
    }
    let cluster = mesh.resource(&sidecar(), ResourceType::Cluster, whole);
    assert!(cluster["common_lb_config"]["locality_weighted_lb_config"].is_object(), "{cluster}");
}

#[test]
fn a_rolling_run_exchanges_members_and_keeps_those_that_are_in_as_counts_rise() {
    let mut mesh = Mesh::new(&[REVIEWS]);
    let mut members = Vec::new();
    for (new, old) in [(0, 3), (1, 3), (1, 2), (2, 2), (2, 0)] {
        let mut run = run(json!({"Endpoints": [["v2", new], ["v1", old]]}));
        run["assignment"]["stickiness"] = json!({});
        mesh.apply_run(&run);
        members.push(
            mesh.endpoints(&sidecar(), WHOLE).into_iter().flat_map(|(_, addresses, ..)| addresses).collect::<Vec<_>>(),
        );
        assert_eq!(weights(&routes(&mut mesh, &sidecar())[0]), [(WHOLE, 1_000_000)]);
    }
    let (a, b, c, x, y) = ("10.2.1.1", "10.2.1.2", "10.2.1.3", "10.2.2.1", "10.2.2.2");
    assert_eq!(members, [vec![a, b, c], vec![a, b, c, x], vec![a, b, x], vec![a, b, x, y], vec![x, y]]);
    // Nobody of those that should be there is: all of the others are.
    let mut mesh = Mesh::new(&[&REVIEWS.replace("version: v2", "version: v9")]);
    mesh.apply_run(&run(json!({"Endpoints": [["v2", 2], ["v1", 0]]})));
    assert_eq!(mesh.endpoints(&sidecar(), WHOLE), [("v1", vec![a, b, c], 3, 0)]);
    assert_eq!(mesh.problems().len(), 1, "{:?}", mesh.problems());
}

const SUBSETS: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}
";

const EDGE: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [reviews.test]
  gateways: [edge]
  http: [{route: [{destination: {host: reviews, port: {number: 80}}}]}]
";

fn http(route: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  \
         http: [{{route: {route}}}]\n"
    )
}
