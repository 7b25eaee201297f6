//! What a stream says about itself: cheap, comparable, and exact.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::pb::google::rpc::Status;
use snapshot::{Cell, Layer, Snapshot};
use xds::{HoldingState, Request, Service, Settings, Standing, Stream, Variant};

const ROUTE: ResourceType = ResourceType::Route;
const CLUSTER: ResourceType = ResourceType::Cluster;

fn layer(before: &Arc<Layer>, kind: ResourceType, resources: &[(&str, &str)], gone: &[&str]) -> Arc<Layer> {
    let mut edit = before.edit();
    for (name, content) in resources {
        edit.set(Cell::new(kind, (*name).into(), content.as_bytes()));
    }
    for name in gone {
        edit.remove(kind, name);
    }
    edit.finish()
}

struct Client {
    stream: Stream,
    nonce: String,
}

impl Client {
    /// A delta client that subscribes to these names, or to everything.
    fn subscribe(kind: ResourceType, names: &[&str], snapshot: &Snapshot) -> Client {
        let mut client = Client {
            stream: Stream::new(Variant::Delta, Service::Aggregated, Settings::default()),
            nonce: String::new(),
        };
        client.stream.handle_snapshot(Instant::now(), snapshot.clone());
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: "n".to_owned(), ..Node::default() }),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        client.ask(request);
        client
    }

    fn ask(&mut self, request: DeltaDiscoveryRequest) {
        let now = Instant::now();
        self.stream.handle_request(now, Request::Delta(request)).unwrap();
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(response) = self.stream.poll_response(Instant::now()) {
            self.nonce = DeltaDiscoveryResponse::decode(response.head).unwrap().nonce;
        }
    }

    fn answer(&mut self, kind: ResourceType, error: Option<&str>) {
        let error_detail = error.map(|message| Status { code: 13, message: message.to_owned(), details: Vec::new() });
        self.ask(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce: self.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        });
    }

    fn publish(&mut self, snapshot: &Snapshot) {
        self.stream.handle_snapshot(Instant::now(), snapshot.clone());
        self.poll();
    }

    fn standing(&self) -> Standing {
        self.stream.standings().remove(0)
    }
}

/// `name wanted held state accepted`, contents for versions.
fn compared(standing: &Standing, target: &Snapshot, position: usize) -> Vec<String> {
    let text = |cell: Option<&Arc<Cell>>| match cell {
        Some(cell) => String::from_utf8(cell.value().to_vec()).unwrap(),
        None => "-".to_owned(),
    };
    let mut lines: Vec<_> = standing
        .compare(target, position)
        .into_iter()
        .map(|c| {
            let name = c.wanted.or(c.held).or(c.accepted).unwrap().name().to_string();
            let state = match c.state {
                HoldingState::Sent => "sent".to_owned(),
                HoldingState::Accepted => "accepted".to_owned(),
                HoldingState::Rejected { message, .. } => format!("rejected:{message}"),
            };
            format!("{name} {} {} {state} {}", text(c.wanted), text(c.held), text(c.accepted))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn streams_that_stand_alike_have_one_signature_and_others_have_not() {
    let first = layer(&Layer::new(), CLUSTER, &[("a", "1"), ("b", "1")], &[]);
    let (own, other) = (layer(&Layer::new(), CLUSTER, &[("in", "1")], &[]), Layer::new());
    let one = Snapshot::new([first.clone(), own]);
    let two = Snapshot::new([first.clone(), other]);
    let mut clients: Vec<_> =
        [&one, &two, &one].into_iter().map(|snapshot| Client::subscribe(CLUSTER, &[], snapshot)).collect();
    let signature = |client: &Client, target: &Snapshot, at| client.standing().signature(target, at);
    assert_eq!(signature(&clients[0], &one, 0), signature(&clients[2], &one, 0));
    // The shared layer counts alike, whatever else is in the stack; the own layers do not.
    assert_eq!(signature(&clients[0], &one, 0), signature(&clients[1], &two, 0));
    assert_ne!(signature(&clients[0], &one, 1), signature(&clients[1], &two, 1));

    clients[0].answer(CLUSTER, None);
    assert_ne!(signature(&clients[0], &one, 0), signature(&clients[2], &one, 0), "accepted and sent differ");
    clients[2].answer(CLUSTER, Some("no"));
    assert_ne!(signature(&clients[0], &one, 0), signature(&clients[2], &one, 0), "accepted and rejected differ");
    let named = Client::subscribe(CLUSTER, &["a"], &one);
    let same = Client::subscribe(CLUSTER, &["a"], &two);
    let less = Client::subscribe(CLUSTER, &["b"], &one);
    assert_eq!(signature(&named, &one, 0), signature(&same, &two, 0));
    assert_ne!(signature(&named, &one, 0), signature(&less, &one, 0));
}

#[test]
fn what_is_wanted_sent_accepted_and_left_over_is_told_apart() {
    let first = layer(&Layer::new(), CLUSTER, &[("a", "a1"), ("b", "b1"), ("c", "c1")], &[]);
    let one = Snapshot::new([first.clone()]);
    let mut client = Client::subscribe(CLUSTER, &[], &one);
    assert_eq!(compared(&client.standing(), &one, 0), ["a a1 a1 sent -", "b b1 b1 sent -", "c c1 c1 sent -"]);
    assert!(client.standing().is_up_to_date(&one));
    client.answer(CLUSTER, None);
    assert_eq!(
        compared(&client.standing(), &one, 0),
        ["a a1 a1 accepted a1", "b b1 b1 accepted b1", "c c1 c1 accepted c1"]
    );

    let two = Snapshot::new([layer(&first, CLUSTER, &[("a", "a2"), ("d", "d1")], &["b"])]);
    // Published, and not looked at by the stream.
    assert_eq!(
        compared(&client.standing(), &two, 0),
        ["a a2 a1 accepted a1", "b - b1 accepted b1", "c c1 c1 accepted c1", "d d1 - sent -"]
    );
    assert!(!client.standing().is_up_to_date(&two));
    client.publish(&two);
    assert_eq!(
        compared(&client.standing(), &two, 0),
        ["a a2 a2 sent a1", "b - - sent b1", "c c1 c1 accepted c1", "d d1 d1 sent -"],
        "what was replaced is what it goes on with"
    );
    client.answer(CLUSTER, Some("a is bad, and so is d"));
    assert_eq!(
        compared(&client.standing(), &two, 0),
        ["a a2 a2 sent a1", "b - b1 accepted b1", "c c1 c1 accepted c1", "d d1 d1 rejected:a is bad, and so is d -"],
        "one of two suspects is tried, and the removal will be said again"
    );
    client.answer(CLUSTER, Some("a is bad"));
    client.answer(CLUSTER, Some("d is bad, too"));
    client.answer(CLUSTER, None);
    assert_eq!(
        compared(&client.standing(), &two, 0),
        ["a a2 a2 rejected:a is bad a1", "c c1 c1 accepted c1", "d d1 d1 rejected:d is bad, too -"],
        "the words are the client's own"
    );
    assert!(!client.standing().is_up_to_date(&two));
}

#[test]
fn names_that_are_not_subscribed_do_not_count() {
    let first = layer(&Layer::new(), ROUTE, &[("80", "r1"), ("90", "s1")], &[]);
    let one = Snapshot::new([first.clone()]);
    let mut client = Client::subscribe(ROUTE, &["80"], &one);
    client.answer(ROUTE, None);
    let two = Snapshot::new([layer(&first, ROUTE, &[("90", "s2")], &[])]);
    assert_eq!(compared(&client.standing(), &two, 0), ["80 r1 r1 accepted r1"]);
    assert!(client.standing().is_up_to_date(&two));
    let three = Snapshot::new([layer(&first, ROUTE, &[("80", "r2")], &["90"])]);
    assert!(!client.standing().is_up_to_date(&three));
}

#[test]
fn virtual_hosts_count_where_their_route_configuration_is_held() {
    let routes = layer(&Layer::new(), ROUTE, &[("80", "1"), ("81", "1")], &[]);
    let hosts = [("80/a", "1"), ("80/b", "1"), ("81/a", "1")];
    let snapshot = Snapshot::new([layer(&routes, ResourceType::VirtualHost, &hosts, &[])]);
    let client = |route: &str| {
        let mut client = Client::subscribe(ROUTE, &[route], &snapshot);
        let type_url = ResourceType::VirtualHost.type_url().to_owned();
        client.ask(DeltaDiscoveryRequest { type_url, ..DeltaDiscoveryRequest::default() });
        client.answer(ResourceType::VirtualHost, None);
        client.stream.standings().into_iter().find(|s| s.resource_type() == ResourceType::VirtualHost).unwrap()
    };
    let (first, second) = (client("80"), client("81"));
    assert_eq!(compared(&first, &snapshot, 0), ["80/a 1 1 accepted 1", "80/b 1 1 accepted 1"]);
    assert_eq!(compared(&second, &snapshot, 0), ["81/a 1 1 accepted 1"]);
    assert_eq!((first.holdings().len(), second.holdings().len()), (2, 1));
    assert_eq!(first.signature(&snapshot, 0), client("80").signature(&snapshot, 0));
    assert_ne!(first.signature(&snapshot, 0), second.signature(&snapshot, 0));
}
