//! Reads any bytes as what a client says and what the world does meanwhile, and lets a stream live through it.
//!
//! The fuzzer makes up the bytes; the tests of the crate replay those that it found worth keeping.

#[path = "input.rs"]
mod input;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::pb::google::rpc::Status;
use snapshot::{Cell, Layer, Snapshot};
use xds::{Request, Service, Settings, Stream, Variant};

use self::input::Input;

/// Few names, so that requests and resources meet; some that look like parts of each other.
const NAMES: [&str; 12] =
    ["a", "b", "c", "d", "*", "", "a/b", "a/*", "xdstp:///t/a?x=1&y=2", "xdstp:///t/a?y=2&x=1", "xdstp:///t/a/*", "é"];
const RESOURCES: [&str; 7] = ["a", "b", "c", "d", "a/b", "xdstp:///t/a?x=1&y=2", "xdstp:///t/a/m"];
const MESSAGES: [&str; 4] =
    ["", "Error adding/updating cluster(s) a: bad", "route: a, b and c", "Proto constraint validation failed"];

/// Lives through `data`, and panics when the stream breaks a promise: it talks without end, uses a nonce twice, sends
/// what cannot be read, names a resource twice, or leaves a deadline behind.
pub fn live(data: &[u8]) {
    let mut input = Input::new(data);
    let variant = if input.byte() & 1 == 0 { Variant::Delta } else { Variant::StateOfTheWorld };
    let service = match input.byte() {
        at if at < 200 => Service::Aggregated,
        at => Service::Only(ResourceType::ALL[usize::from(at) % ResourceType::ALL.len()]),
    };
    let settings = Settings { max_names: 16, max_response_bytes: 300, ..Settings::default() };
    let mut stream = Stream::new(variant, service, settings);
    let mut now = Instant::now();
    let mut sent: Vec<(ResourceType, String)> = Vec::new();
    let mut nonces = BTreeSet::new();
    while !input.is_empty() {
        match input.byte() % 8 {
            0..=3 => {
                let request = request(variant, &mut input, &sent);
                if stream.handle_request(now, request).is_err() {
                    return;
                }
            }
            4 => {
                let bytes = input.bytes();
                let request = match variant {
                    Variant::Delta => DeltaDiscoveryRequest::decode(&bytes[..]).map(Request::Delta),
                    Variant::StateOfTheWorld => DiscoveryRequest::decode(&bytes[..]).map(Request::StateOfTheWorld),
                };
                if let Ok(request) = request
                    && stream.handle_request(now, request).is_err()
                {
                    return;
                }
            }
            5 | 6 => stream.handle_snapshot(now, snapshot(input.number())),
            _ => {
                now += Duration::from_secs(u64::from(input.byte() % 40));
                stream.handle_timeout(now);
            }
        }
        let mut responses = 0;
        while let Some(response) = stream.poll_response(now) {
            responses += 1;
            assert!(responses <= 3 * ResourceType::ALL.len(), "the stream does not stop talking");
            assert!(nonces.insert(response.nonce.to_string()), "nonce {} comes twice", response.nonce);
            sent.push((response.resource_type, response.nonce.to_string()));
            check(variant, &response);
        }
        while stream.poll_outcome().is_some() {}
        assert!(stream.poll_timeout().is_none_or(|at| at > now), "a deadline passed and was not acted on");
    }
    let (_, _) = (stream.holdings(), stream.summary());
}

fn request(variant: Variant, input: &mut Input<'_>, sent: &[(ResourceType, String)]) -> Request {
    let node = Some(Node {
        id: "n".to_owned(),
        user_agent_name: input.pick(&["envoy", "gRPC C++"]).to_owned(),
        client_features: vec!["xds.config.supports-resource-ttl".to_owned(), "xds.config.resource-in-sotw".to_owned()],
        ..Node::default()
    });
    // Mostly an answer to what was sent last, as clients do.
    let (mut resource_type, mut nonce) = (input.pick(&ResourceType::ALL), String::new());
    let back = usize::from(input.byte());
    if back < 192
        && let Some((of, last)) = sent.len().checked_sub(1 + back % 8).and_then(|at| sent.get(at))
    {
        (resource_type, nonce) = (*of, last.clone());
    }
    let type_url = resource_type.type_url().to_owned();
    let error_detail = input.byte().is_multiple_of(4).then(|| Status {
        code: 13,
        message: input.pick(&MESSAGES).to_owned(),
        details: Vec::new(),
    });
    match variant {
        Variant::Delta => {
            let held = (0..input.byte() % 3).map(|_| (input.pick(&NAMES).to_owned(), "0".repeat(16))).collect();
            Request::Delta(DeltaDiscoveryRequest {
                node,
                type_url,
                resource_names_subscribe: names(input),
                resource_names_unsubscribe: names(input),
                initial_resource_versions: held,
                response_nonce: nonce,
                error_detail,
                ..DeltaDiscoveryRequest::default()
            })
        }
        Variant::StateOfTheWorld => Request::StateOfTheWorld(DiscoveryRequest {
            node,
            type_url,
            resource_names: names(input),
            response_nonce: nonce,
            error_detail,
            ..DiscoveryRequest::default()
        }),
    }
}

fn names(input: &mut Input<'_>) -> Vec<String> {
    let count = input.byte() % 5;
    (0..count).map(|_| input.pick(&NAMES).to_owned()).collect()
}

/// A bit says of each type and name whether it exists; each resource refers to those of its name of earlier types.
fn snapshot(bits: u64) -> Snapshot {
    let mut edit = Layer::new().edit();
    for (at, kind) in ResourceType::ALL.into_iter().enumerate() {
        for (index, name) in RESOURCES.into_iter().enumerate() {
            if bits >> ((at * RESOURCES.len() + index) % 60) & 1 == 1 {
                let earlier = ResourceType::ALL[..at].iter().map(|earlier| (*earlier, name.into()));
                let content = format!("{name}{}", bits >> 60);
                let cell = Cell::new(kind, name.into(), content.as_bytes()).referring_to(earlier);
                edit.set(if index == 0 && bits >> 63 == 1 { cell.with_ttl(Duration::from_secs(9)) } else { cell });
            }
        }
    }
    Snapshot::new([edit.finish()])
}

fn check(variant: Variant, response: &xds::Response) {
    let mut bytes = response.head.to_vec();
    response.body.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
    assert_eq!(bytes.len(), response.len());
    match variant {
        Variant::Delta => {
            let message = DeltaDiscoveryResponse::decode(&bytes[..]).expect("what is sent can be read");
            let names = message.resources.iter().map(|resource| &resource.name).chain(&message.removed_resources);
            let distinct: BTreeSet<_> = names.clone().collect();
            assert_eq!(distinct.len(), names.count(), "a name comes twice in {message:?}");
        }
        Variant::StateOfTheWorld => {
            DiscoveryResponse::decode(&bytes[..]).expect("what is sent can be read");
        }
    }
}
