//! Clients that ask for too much or say what makes no sense: bounded memory, the right status, nothing sent for it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::time::Instant;

use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use proto::pb::google::rpc::Status;
use snapshot::{Cell, Layer, Snapshot};
use xds::{Code, Outcome, Refusal, Request, Service, Settings, Stream, Variant};

const EDS: ResourceType = ResourceType::Endpoints;

struct Client {
    stream: Stream,
    now: Instant,
}

impl Client {
    /// On a stream of a mesh that has one resource `a` of each type.
    fn new(variant: Variant) -> Self {
        let now = Instant::now();
        let mut stream = Stream::new(variant, Service::Aggregated, Settings::default());
        let mut edit = Layer::new().edit();
        ResourceType::ALL.into_iter().for_each(|kind| edit.set(Cell::new(kind, "a".into(), b"a")));
        stream.handle_snapshot(now, Snapshot::new([edit.finish()]));
        Self { stream, now }
    }

    fn say(&mut self, request: Request) -> Result<(), Refusal> {
        self.stream.handle_request(self.now, request)
    }

    fn subscribe(&mut self, kind: ResourceType, names: Vec<String>) -> Result<(), Refusal> {
        self.say(Request::Delta(DeltaDiscoveryRequest { resource_names_subscribe: names, ..delta(kind) }))
    }

    /// How many responses come now.
    fn responses(&mut self) -> usize {
        std::iter::from_fn(|| self.stream.poll_response(self.now)).count()
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        std::iter::from_fn(|| self.stream.poll_outcome()).collect()
    }
}

fn node() -> Option<Node> {
    Some(Node { id: "n".into(), ..Node::default() })
}

fn delta(kind: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node: node(), type_url: kind.type_url().into(), ..DeltaDiscoveryRequest::default() }
}

fn sotw(kind: ResourceType, names: Vec<String>) -> DiscoveryRequest {
    DiscoveryRequest {
        node: node(),
        type_url: kind.type_url().into(),
        resource_names: names,
        ..DiscoveryRequest::default()
    }
}

fn names(count: usize, len: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:0len$}")).collect()
}

fn error() -> Option<Status> {
    Some(Status { code: 13, message: "no".into(), details: Vec::new() })
}

#[test]
fn a_hundred_thousand_names_are_taken_in_one_request_and_answered_in_one_response() {
    let mut client = Client::new(Variant::StateOfTheWorld);
    let mut all = names(100_000, 8);
    all.push("a".into());
    client.say(Request::StateOfTheWorld(sotw(EDS, all.clone()))).unwrap();
    assert_eq!(client.responses(), 1);
    client.say(Request::StateOfTheWorld(sotw(EDS, all))).unwrap();
    assert_eq!(client.responses(), 0);
    let mut client = Client::new(Variant::Delta);
    client.subscribe(EDS, names(100_000, 8)).unwrap();
    assert_eq!(client.responses(), 1);
}

#[test]
fn names_asked_for_and_given_up_in_one_request_cost_no_more_than_in_two() {
    let mut client = Client::new(Variant::Delta);
    let both = DeltaDiscoveryRequest {
        resource_names_subscribe: names(100_000, 8),
        resource_names_unsubscribe: names(100_000, 8),
        ..delta(EDS)
    };
    client.say(Request::Delta(both)).unwrap();
    assert_eq!((client.responses(), client.stream.summary()[0].names), (0, 0));
}

#[test]
fn a_million_names_are_taken_and_one_more_closes_the_stream() {
    let mut client = Client::new(Variant::Delta);
    for part in names(1_000_000, 8).chunks(100_000) {
        client.subscribe(EDS, part.to_vec()).unwrap();
    }
    let refusal = client.subscribe(EDS, vec!["one more".into()]).unwrap_err();
    assert_eq!((refusal.code, refusal.message.contains("at most 1000000")), (Code::ResourceExhausted, true));
}

#[test]
fn long_names_are_taken_until_all_types_together_have_too_many_bytes() {
    let mut client = Client::new(Variant::Delta);
    client.subscribe(EDS, names(3_000, 10_000)).unwrap();
    client.subscribe(ResourceType::Route, names(3_000, 10_000)).unwrap();
    let refusal = client.subscribe(ResourceType::Secret, names(3_000, 10_000)).unwrap_err();
    assert_eq!((refusal.code, refusal.message.contains("bytes")), (Code::ResourceExhausted, true));
    // What is given up counts no more.
    let given_up = DeltaDiscoveryRequest { resource_names_unsubscribe: names(3_000, 10_000), ..delta(EDS) };
    client.say(Request::Delta(given_up)).unwrap();
    client.subscribe(ResourceType::Secret, names(3_000, 10_000)).unwrap();
    // Nor does what a state-of-the-world request replaces; what a client says it holds does.
    let mut client = Client::new(Variant::StateOfTheWorld);
    for _ in 0..5 {
        client.say(Request::StateOfTheWorld(sotw(EDS, names(6_000, 10_000)))).unwrap();
    }
    let held = names(7_000, 10_000).into_iter().map(|name| (name, String::new())).collect();
    let claim = DeltaDiscoveryRequest { initial_resource_versions: held, ..delta(EDS) };
    let refusal = Client::new(Variant::Delta).say(Request::Delta(claim)).unwrap_err();
    assert_eq!(refusal.code, Code::ResourceExhausted);
}

#[test]
fn a_flood_of_stale_nonces_neither_acknowledges_nor_is_answered() {
    let mut client = Client::new(Variant::StateOfTheWorld);
    client.say(Request::StateOfTheWorld(sotw(EDS, vec!["a".into()]))).unwrap();
    assert_eq!(client.responses(), 1);
    client.outcomes();
    for n in 0..100_000 {
        let request = DiscoveryRequest { response_nonce: format!("stale-{n}"), ..sotw(EDS, vec!["a".into()]) };
        client.say(Request::StateOfTheWorld(request)).unwrap();
    }
    assert_eq!((client.responses(), client.outcomes().len()), (0, 0));
    assert_eq!(client.stream.summary()[0].unacknowledged, 1);
}

#[test]
fn a_rejection_of_what_was_never_sent_or_was_answered_already_counts_for_nothing() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let mut client = Client::new(variant);
        let reject = |kind, nonce: &str| match variant {
            Variant::StateOfTheWorld => Request::StateOfTheWorld(DiscoveryRequest {
                response_nonce: nonce.into(),
                error_detail: error(),
                ..sotw(kind, vec!["a".into()])
            }),
            Variant::Delta => Request::Delta(DeltaDiscoveryRequest {
                response_nonce: nonce.into(),
                error_detail: error(),
                resource_names_subscribe: if nonce == "1" { Vec::new() } else { vec!["a".into()] },
                ..delta(kind)
            }),
        };
        // The first request of a type may carry any nonce: nothing was sent that it could be about.
        client.say(reject(EDS, "7")).unwrap();
        assert_eq!(client.responses(), 1);
        let is_rejection = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(_));
        assert!(!client.outcomes().iter().any(is_rejection));
        for _ in 0..1_000 {
            client.say(reject(EDS, "1")).unwrap();
            assert_eq!(client.responses(), 0, "a rejection is not answered with the same");
        }
        assert_eq!(client.outcomes().iter().filter(|outcome| is_rejection(outcome)).count(), 1);
        // Nor is a nonce of another type.
        client.say(reject(ResourceType::Route, "1")).unwrap();
        assert!(!client.outcomes().iter().any(is_rejection));
    }
}

#[test]
fn interleaved_types_have_one_response_each_and_unknown_ones_none() {
    let mut client = Client::new(Variant::Delta);
    let mut responses = 0;
    for n in 0..1_000 {
        for kind in ResourceType::ALL {
            client.subscribe(kind, vec!["a".into(), format!("{n}")]).unwrap();
        }
        let unknown = DeltaDiscoveryRequest { type_url: format!("type.googleapis.com/no.Type{n}"), ..delta(EDS) };
        client.say(Request::Delta(unknown)).unwrap();
        responses += client.responses();
        let unknown = client.outcomes().into_iter().filter(|o| matches!(o, Outcome::UnknownType { .. })).count();
        assert_eq!(unknown, 1);
    }
    assert_eq!(responses, ResourceType::ALL.len(), "the next waits for an acknowledgement");
    assert_eq!(client.stream.summary().len(), ResourceType::ALL.len());
}
