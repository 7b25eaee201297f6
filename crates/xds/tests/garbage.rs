//! Nothing that a client can say makes a stream panic, grow without bound or talk for ever.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use proto::pb::google::protobuf::Any;
use proto::pb::google::rpc::Status;
use snapshot::{Cell, Layer, Snapshot};
use xds::{Request, Service, Settings, Stream, Variant};

/// Two names of one resource, its collection, and an empty one.
const XDSTP: &[&str] = &["xdstp://a/t/d?p=1&q=2", "xdstp://a/t/d?q=2&p=1", "xdstp://a/t/*?q=2&p=1", "xdstp://a/t/*"];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-c*]",
        3 => prop::sample::select(XDSTP).prop_map(str::to_owned),
        1 => Just(String::new()),
        1 => ".{0,12}",
    ]
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(name(), 0..5)
}

fn type_url() -> impl Strategy<Value = String> {
    let known = (0..ResourceType::ALL.len()).prop_map(|at| ResourceType::ALL[at].type_url().to_owned());
    prop_oneof![12 => known, 1 => Just(String::new()), 1 => ".{0,20}"]
}

fn nonce() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just(String::new()), 6 => (0u64..12).prop_map(|n| n.to_string()), 1 => ".{0,4}"]
}

const FEATURES: &[&str] = &["xds.config.supports-resource-ttl", "xds.config.resource-in-sotw", "nothing"];

fn node() -> impl Strategy<Value = Option<Node>> {
    prop_oneof![
        5 => Just(Some(Node { id: "n".into(), user_agent_name: "gRPC".into(), ..Node::default() })),
        5 => prop::sample::subsequence(FEATURES, 0..=FEATURES.len()).prop_map(|features| {
            let client_features = features.into_iter().map(str::to_owned).collect();
            Some(Node { id: "n".into(), client_features, ..Node::default() })
        }),
        2 => Just(None),
        1 => Just(Some(Node::default())),
    ]
}

fn error() -> impl Strategy<Value = Option<Status>> {
    prop::option::weighted(0.3, ".{0,12}".prop_map(|message| Status { code: 13, message, details: Vec::new() }))
}

fn delta() -> impl Strategy<Value = Request> {
    let held = prop::collection::hash_map(name(), prop_oneof!["[0-9a-f]{16}", ".{0,4}"], 0..4);
    (node(), type_url(), names(), names(), held, nonce(), error()).prop_map(
        |(node, type_url, add, drop, held, nonce, e)| {
            Request::Delta(DeltaDiscoveryRequest {
                node,
                type_url,
                resource_names_subscribe: add,
                resource_names_unsubscribe: drop,
                initial_resource_versions: held,
                response_nonce: nonce,
                error_detail: e,
                ..DeltaDiscoveryRequest::default()
            })
        },
    )
}

fn sotw() -> impl Strategy<Value = Request> {
    (node(), type_url(), names(), ".{0,4}", nonce(), error()).prop_map(|(node, type_url, names, version, nonce, e)| {
        Request::StateOfTheWorld(DiscoveryRequest {
            node,
            type_url,
            resource_names: names,
            version_info: version,
            response_nonce: nonce,
            error_detail: e,
            ..DiscoveryRequest::default()
        })
    })
}

/// A snapshot of which every name exists or not by a bit; each resource refers to others that may not exist.
fn snapshot(bits: u64) -> Snapshot {
    let mut edit = Layer::new().edit();
    for (at, kind) in ResourceType::ALL.into_iter().enumerate() {
        for (letter, name) in ["a", "b", "c", XDSTP[0]].into_iter().enumerate() {
            if bits >> (at * 4 + letter) & 1 == 1 {
                let earlier = ResourceType::ALL[..at].iter().map(|earlier| (*earlier, name.into()));
                let cell = Cell::new(kind, name.into(), format!("{name}{}", bits & 3).as_bytes()).referring_to(earlier);
                let ttl = Duration::from_secs(bits >> 60);
                edit.set(if letter == 0 && !ttl.is_zero() { cell.with_ttl(ttl) } else { cell });
            }
        }
    }
    Snapshot::new([edit.finish()])
}

#[derive(Clone, Debug)]
enum Event {
    Say(Box<Request>),
    Publish(u64),
    Sleep(u8),
}

fn events(request: impl Strategy<Value = Request>) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => request.prop_map(|request| Event::Say(Box::new(request))),
        2 => any::<u64>().prop_map(Event::Publish),
        1 => (0u8..20).prop_map(Event::Sleep),
    ];
    prop::collection::vec(event, 1..40)
}

fn endure(variant: Variant, service: Service, events: Vec<Event>) {
    let settings = Settings { max_names: 8, max_name_bytes: 120, max_response_bytes: 200, ..Settings::default() };
    let mut stream = Stream::new(variant, service, settings);
    let mut now = Instant::now();
    for event in events {
        match event {
            // A refused stream would be closed; going on with it must not panic, either.
            Event::Say(request) => _ = stream.handle_request(now, *request),
            Event::Publish(bits) => stream.handle_snapshot(now, snapshot(bits)),
            Event::Sleep(seconds) => {
                now += Duration::from_secs(seconds.into());
                stream.handle_timeout(now);
            }
        }
        // Each type has at most one response to give before it waits for its acknowledgement, and heartbeats.
        let mut responses = 0;
        while let Some(response) = stream.poll_response(now) {
            responses += 1;
            assert!(responses <= 2 * ResourceType::ALL.len(), "the stream does not stop talking");
            let mut bytes = response.head.to_vec();
            response.body.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
            assert_eq!(bytes.len(), response.len());
            check_once(variant, &bytes);
        }
        while stream.poll_outcome().is_some() {}
        assert!(stream.poll_timeout().is_none_or(|at| at > now), "a deadline passed and was not acted on");
        let (_, _) = (stream.holdings(), stream.summary());
    }
}

/// Rule P-43: no name twice, and none both there and removed.
fn check_once(variant: Variant, bytes: &[u8]) {
    let mut names: Vec<String> = match variant {
        Variant::StateOfTheWorld => {
            let response = DiscoveryResponse::decode(bytes).unwrap();
            let name = |value: &[u8]| String::from_utf8(value[..1].to_vec()).unwrap();
            let is_wrapped = |any: &Any| any.type_url.ends_with(".Resource");
            let unwrapped = |any: &Any| Resource::decode(&*any.value).unwrap().resource.unwrap();
            let resources = response.resources.iter();
            resources.map(|any| if is_wrapped(any) { name(&unwrapped(any).value) } else { name(&any.value) }).collect()
        }
        Variant::Delta => {
            let response = DeltaDiscoveryResponse::decode(bytes).unwrap();
            response.resources.into_iter().map(|resource| resource.name).chain(response.removed_resources).collect()
        }
    };
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands twice in {names:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_state_of_the_world_request_makes_a_stream_panic(events in events(sotw()), at in 0usize..12) {
        endure(Variant::StateOfTheWorld, service(at), events);
    }

    #[test]
    fn no_delta_request_makes_a_stream_panic(events in events(delta()), at in 0usize..12) {
        endure(Variant::Delta, service(at), events);
    }

    #[test]
    fn bytes_that_are_not_a_request_are_refused_by_decoding_or_endured(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = DeltaDiscoveryRequest::decode(&*bytes) {
            endure(Variant::Delta, Service::Aggregated, vec![Event::Publish(!0), Event::Say(Box::new(Request::Delta(request)))]);
        }
    }
}

fn service(at: usize) -> Service {
    ResourceType::ALL.get(at).map_or(Service::Aggregated, |kind| Service::Only(*kind))
}

/// Clusters with other contents each time.
fn numbered(round: u64) -> Snapshot {
    let mut edit = Layer::new().edit();
    for name in ["a", "b", "c", "d"] {
        edit.set(Cell::new(ResourceType::Cluster, name.into(), format!("{name}{round:05}").as_bytes()));
    }
    Snapshot::new([edit.finish()])
}

#[test]
fn a_client_that_never_acknowledges_takes_no_more_memory_as_time_goes_by() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let mut stream = Stream::new(variant, Service::Aggregated, Settings::default());
        let mut now = Instant::now();
        let type_url = ResourceType::Cluster.type_url().to_owned();
        let node = Some(Node { id: "n".into(), ..Node::default() });
        let request = match variant {
            Variant::Delta => Request::Delta(DeltaDiscoveryRequest { node, type_url, ..Default::default() }),
            Variant::StateOfTheWorld => {
                Request::StateOfTheWorld(DiscoveryRequest { node, type_url, ..Default::default() })
            }
        };
        stream.handle_request(now, request).unwrap();
        let mut sizes = Vec::new();
        for round in 0..200 {
            stream.handle_snapshot(now, numbered(round));
            let mut sent = 0;
            while stream.poll_response(now).is_some() {
                sent += 1;
            }
            assert_eq!(sent, 1, "what is newest is sent, acknowledged or not");
            while stream.poll_outcome().is_some() {}
            now += Duration::from_secs(16);
            stream.handle_timeout(now);
            sizes.push(format!("{stream:?}").len());
        }
        let (early, late) = (sizes[20..24].iter().max(), sizes[196..].iter().max());
        assert!(late <= early.map(|size| size + size / 10).as_ref(), "{early:?}, then {late:?}");
    }
}
