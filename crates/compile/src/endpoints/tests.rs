#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use world::{Address, Health, Kind, Locality};

use super::*;
use crate::Interception;

const SIDECAR: Proxy = Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None };

fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint {
        address: match (address.parse(), address.strip_prefix('/')) {
            (Ok(ip), _) => Address::Ip(ip),
            (Err(_), Some(_)) => Address::Unix(address.into()),
            (Err(_), None) => Address::Name(address.into()),
        },
        port,
        labels: Labels::new().into(),
        locality: Locality::default(),
        weight: 1,
        health: Health::Healthy,
        workload: None,
        service_account: None,
        mutual_tls: false,
    }
}

fn decode(bytes: &[u8]) -> ClusterLoadAssignment {
    ClusterLoadAssignment::decode(bytes).unwrap()
}

/// `zone: address:port*weight ...` per locality.
fn summary(bytes: &[u8]) -> String {
    let json = proto::descriptor::to_json(ResourceType::Endpoints.type_url(), bytes);
    let mut text = String::new();
    for locality in json["endpoints"].as_array().into_iter().flatten() {
        text.push_str(locality["locality"]["zone"].as_str().unwrap_or("-"));
        for endpoint in locality["lb_endpoints"].as_array().unwrap() {
            let address = &endpoint["endpoint"]["address"];
            let socket = &address["socket_address"];
            let name = socket["address"].as_str().or(address["pipe"]["path"].as_str()).unwrap();
            let (port, weight) = (&socket["port_value"], &endpoint["load_balancing_weight"]);
            text.push_str(&format!(" {name}:{port}*{weight}"));
        }
        text.push_str(&format!(" = {}\n", locality["load_balancing_weight"]));
    }
    text
}

#[test]
fn endpoints_are_grouped_by_locality_and_ordered_by_address() {
    let mut endpoints = vec![endpoint("10.0.0.2", 80), endpoint("10.0.0.3", 80), endpoint("10.0.0.1", 80)];
    endpoints[0].locality = Locality::parse("eu/b");
    endpoints[1].locality = Locality::parse("eu/a");
    endpoints[2].locality = Locality::parse("eu/b");
    endpoints[2].weight = 3;
    let bytes = assignment("c", &endpoints, &SIDECAR);
    assert_eq!(summary(&bytes), "a 10.0.0.3:80*1 = 1\nb 10.0.0.1:80*3 10.0.0.2:80*1 = 4\n");
}

#[test]
fn an_endpoint_that_comes_twice_is_taken_once() {
    let mut endpoints = vec![endpoint("10.0.0.1", 80), endpoint("10.0.0.2", 80), endpoint("10.0.0.1", 80)];
    endpoints.push(endpoint("10.0.0.1", 81));
    endpoints[2].locality = Locality::parse("eu/z");
    for proxy in [SIDECAR, Proxy::Grpc] {
        let bytes = assignment("c", &endpoints, &proxy);
        assert_eq!(decode(&bytes).endpoints.iter().map(|l| l.lb_endpoints.len()).sum::<usize>(), 3);
    }
}

#[test]
fn no_endpoints_make_an_explicit_empty_assignment() {
    let assignment = decode(&assignment("outbound|80||a", &[], &SIDECAR));
    assert_eq!(assignment, ClusterLoadAssignment { cluster_name: "outbound|80||a".into(), ..Default::default() });
}

#[test]
fn each_client_gets_the_kinds_of_addresses_that_it_takes_and_the_rest_is_reported() {
    let endpoints =
        [endpoint("10.0.0.1", 80), endpoint("fd00::1", 80), endpoint("example.com", 80), endpoint("/run/a.sock", 0)];
    let origin = ObjectRef::new(Kind::ServiceEntry, "shop", "a");
    let messages = |proxy: &Proxy| -> Vec<String> {
        problems(&origin, &endpoints, proxy).iter().map(|problem| problem.message.clone()).collect()
    };
    let a_name = "the endpoint \"example.com\" is a name, and only addresses can be used without DNS";
    assert_eq!(
        summary(&assignment("c", &endpoints, &SIDECAR)),
        "- 10.0.0.1:80*1 fd00::1:80*1 /run/a.sock:null*1 = 3\n"
    );
    assert_eq!(messages(&SIDECAR), [a_name]);
    assert_eq!(summary(&assignment("c", &endpoints, &Proxy::Grpc)), "- 10.0.0.1:80*1 fd00::1:80*1 = 2\n");
    assert_eq!(
        messages(&Proxy::Grpc),
        [a_name, "the endpoint \"/run/a.sock\" is a Unix socket, which gRPC clients cannot reach"]
    );
}

#[test]
fn health_is_said_of_each_endpoint() {
    let healths = [Health::Healthy, Health::Unhealthy, Health::Draining];
    let endpoints: Vec<_> =
        (1u16..).zip(healths).map(|(port, health)| Endpoint { health, ..endpoint("10.0.0.1", port) }).collect();
    let assignment = decode(&assignment("c", &endpoints, &SIDECAR));
    let got: Vec<_> = assignment.endpoints[0].lb_endpoints.iter().map(|e| e.health_status().as_str_name()).collect();
    assert_eq!(got, ["HEALTHY", "UNHEALTHY", "DRAINING"]);
}

#[test]
fn a_subset_is_the_endpoints_with_all_its_labels() {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let endpoints = [
        Endpoint { labels: labels(&[("version", "v1"), ("tier", "a")]).into(), ..endpoint("10.0.0.1", 80) },
        Endpoint { labels: labels(&[("version", "v2")]).into(), ..endpoint("10.0.0.2", 80) },
        endpoint("10.0.0.3", 80),
    ];
    let select = |selector: &Labels| -> Vec<String> {
        of_subset(&endpoints, selector).map(|e| format!("{:?}", e.address)).collect()
    };
    assert_eq!(select(&labels(&[("version", "v1")])), ["Ip(10.0.0.1)"]);
    assert_eq!(select(&labels(&[("version", "v2"), ("tier", "a")])), [] as [&str; 0]);
    assert_eq!(select(&labels(&[])).len(), 3);
    let bytes = assignment("c", of_subset(&endpoints, &labels(&[("version", "v2")])), &SIDECAR);
    assert_eq!(summary(&bytes), "- 10.0.0.2:80*1 = 1\n");
}

#[test]
fn weights_that_are_too_large_together_keep_their_proportions() {
    let mut endpoints: Vec<_> = (1..=3).map(|port| endpoint("10.0.0.1", port)).collect();
    endpoints[0].weight = u32::MAX;
    endpoints[1].weight = u32::MAX;
    let got = summary(&assignment("c", &endpoints, &SIDECAR));
    assert_eq!(got, "- 10.0.0.1:1*1431655765 10.0.0.1:2*1431655765 10.0.0.1:3*1 = 2863311531\n");
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let address = prop_oneof![
        8 => any::<std::net::IpAddr>().prop_map(Address::Ip),
        // A small range, so that some come twice.
        4 => (0u8..4).prop_map(|last| Address::Ip([10, 0, 0, last].into())),
        1 => "[a-z.]{0,200}".prop_map(|name| Address::Name(name.into())),
        1 => "(/[a-z]{1,200})?".prop_map(|path| Address::Unix(path.into())),
    ];
    let locality = prop_oneof![
        Just(Locality::default()),
        ("[a-c]?", "[a-c]?", "[a-c]?|.{0,300}").prop_map(|(a, b, c)| Locality {
            region: a.into(),
            zone: b.into(),
            sub_zone: c.into()
        }),
    ];
    let weight = prop_oneof![4 => Just(1), 2 => 0u32..300, 1 => any::<u32>()];
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy), Just(Health::Draining)];
    let all = (address, any::<u16>(), locality, weight, health, any::<bool>());
    all.prop_map(|(address, port, locality, weight, health, mutual_tls)| Endpoint {
        mutual_tls,
        locality,
        weight,
        health,
        address,
        ..endpoint("", port)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_flat_bytes_are_those_of_prost(
        cluster in "(outbound\\|80\\|\\|[a-z.]{1,150})?",
        endpoints in prop::collection::vec(any_endpoint(), 0..40),
    ) {
        for receiver in [Receiver::Envoy, Receiver::Grpc, Receiver::Dns] {
            let selection = Selection::new(&endpoints, receiver);
            let mut flat = Vec::new();
            write(&mut flat, &cluster, &selection);
            prop_assert_eq!(&flat, &message(&cluster, &selection).encode_to_vec());
        }
    }

    #[test]
    fn every_assignment_is_one_that_clients_take(endpoints in prop::collection::vec(any_endpoint(), 0..40)) {
        for proxy in [SIDECAR, Proxy::Gateway, Proxy::Grpc] {
            let bytes = assignment("c", &endpoints, &proxy);
            let checked = proto::wire::check(ResourceType::Endpoints.type_url(), &bytes);
            prop_assert!(checked.is_ok(), "{checked:?}");
            let assignment = decode(&bytes);
            let mut places = Vec::new();
            let mut total = 0;
            for locality in &assignment.endpoints {
                prop_assert!(!locality.lb_endpoints.is_empty());
                let of_locality: u64 = locality.lb_endpoints.iter().map(weight_of).sum();
                prop_assert_eq!(u64::from(locality.load_balancing_weight.unwrap().value), of_locality);
                total += of_locality;
                places.extend(locality.lb_endpoints.iter().map(|e| e.host_identifier.clone()));
            }
            prop_assert!(total <= u64::from(u32::MAX));
            let localities: Vec<_> = assignment.endpoints.iter().map(|l| format!("{:?}", l.locality)).collect();
            let unique: std::collections::BTreeSet<_> = localities.iter().collect();
            prop_assert_eq!(unique.len(), localities.len());
            let count = places.len();
            places.sort_by_key(|place| format!("{place:?}"));
            places.dedup();
            prop_assert_eq!(places.len(), count, "the same address twice");
        }
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter(
        endpoints in prop::collection::vec(any_endpoint(), 0..20),
        turn in 0usize..20,
    ) {
        // Of two that are the same place the first is taken, so only different places can be turned around.
        let mut unique = endpoints;
        unique.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        unique.dedup_by(|a, b| (&a.address, a.port) == (&b.address, b.port));
        let before = assignment("c", &unique, &SIDECAR);
        let at = turn.min(unique.len());
        unique.rotate_left(at);
        prop_assert_eq!(assignment("c", &unique, &SIDECAR), before);
    }
}

fn weight_of(endpoint: &proto::pb::envoy::config::endpoint::v3::LbEndpoint) -> u64 {
    endpoint.load_balancing_weight.map_or(0, |weight| weight.value.into())
}
