//! What a look at a stream costs, counted in resources that a planner looks at.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proto::pb::google::rpc::Status;
use snapshot::Layer;

use super::plan::visits;
use super::*;

const MANY: usize = 1000;

/// A delta stream whose client refuses all that it is sent of one type, and takes the rest.
struct Refuser {
    stream: Stream,
    refused: ResourceType,
    now: Instant,
}

impl Refuser {
    /// Resources of `refused`, of which there are many, and one other, went out until nothing more is sent.
    fn at_rest(refused: ResourceType, layer: &Arc<Layer>) -> Refuser {
        let stream = Stream::new(Variant::Delta, Service::Aggregated, Settings::default());
        let mut client = Refuser { stream, refused, now: Instant::now() };
        client.publish(layer);
        for of in [ResourceType::Cluster, ResourceType::Route, ResourceType::VirtualHost, ResourceType::Runtime] {
            let names = if of.has_wildcard() || of == ResourceType::VirtualHost { [].as_slice() } else { &["80"] };
            client.say(DeltaDiscoveryRequest {
                node: Some(Node { id: "client".to_owned(), ..Node::default() }),
                type_url: of.type_url().to_owned(),
                resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
                ..DeltaDiscoveryRequest::default()
            });
        }
        client.answer();
        client
    }

    fn publish(&mut self, layer: &Arc<Layer>) {
        self.stream.handle_snapshot(self.now, Snapshot::new([layer.clone()]));
    }

    fn say(&mut self, request: DeltaDiscoveryRequest) {
        self.stream.handle_request(self.now, Request::Delta(request)).unwrap();
    }

    /// Answers whatever comes; returns how many responses of each type came.
    fn answer(&mut self) -> BTreeMap<ResourceType, usize> {
        let mut came = BTreeMap::new();
        while let Some(response) = self.stream.poll_response(self.now) {
            *came.entry(response.resource_type).or_default() += 1;
            let is_refused = response.resource_type == self.refused;
            self.say(DeltaDiscoveryRequest {
                type_url: response.resource_type.type_url().to_owned(),
                response_nonce: response.nonce,
                error_detail: is_refused.then(|| Status { message: "no".to_owned(), ..Status::default() }),
                ..DeltaDiscoveryRequest::default()
            });
        }
        while self.stream.poll_outcome().is_some() {}
        came
    }

    fn refused(&self) -> usize {
        let of = |summary: &Summary| summary.resource_type == self.refused;
        self.stream.summary().iter().find(|summary| of(summary)).unwrap().refused
    }
}

fn name(of: ResourceType, at: usize) -> Name {
    match of {
        ResourceType::VirtualHost => format!("80/host-{at:04}").into(),
        _ => format!("resource-{at:04}").into(),
    }
}

/// Many resources of one type, and the route configuration that virtual hosts need.
fn mesh(of: ResourceType) -> Arc<Layer> {
    let mut edit = Layer::new().edit();
    edit.set(Cell::new(ResourceType::Route, "80".into(), b"vhds"));
    for at in 0..MANY {
        edit.set(Cell::new(of, name(of, at), b"first").also_known_as([Name::from(format!("{at}.test"))]));
    }
    edit.finish()
}

fn with(layer: &Arc<Layer>, of: ResourceType, name: Name, value: &[u8]) -> Arc<Layer> {
    let mut edit = layer.edit();
    edit.set(Cell::new(of, name, value));
    edit.finish()
}

const REFUSED: [ResourceType; 2] = [ResourceType::Cluster, ResourceType::VirtualHost];

#[test]
fn a_client_that_refuses_everything_is_not_tried_for_long() {
    for of in REFUSED {
        visits::take();
        let client = Refuser::at_rest(of, &mesh(of));
        assert_eq!(client.refused(), MANY, "{of}: all of it is held back");
        // All once, halved until one is left, then the rest, halved; and for each response the one before it.
        let visited = visits::take();
        assert!(visited < 8 * MANY, "{of}: {visited} looked at");
    }
}

#[test]
fn a_look_at_a_stream_that_refuses_a_thousand_resources_costs_what_changed() {
    for of in REFUSED {
        let first = mesh(of);
        let mut client = Refuser::at_rest(of, &first);
        visits::take();
        assert!(client.answer().is_empty());
        assert_eq!(visits::take(), 0, "{of}: nothing has changed");

        let second = with(&first, ResourceType::Runtime, "elsewhere".into(), b"new");
        client.publish(&second);
        client.answer();
        assert_eq!(visits::take(), 0, "{of}: nothing of this type has changed");

        let third = with(&second, of, name(of, 500), b"second");
        client.publish(&third);
        assert_eq!(client.answer(), BTreeMap::from([(of, 1)]), "{of}: what has changed is sent, and refused again");
        let visited = visits::take();
        assert!((1..10).contains(&visited), "{of}: {visited} looked at for one that has changed");
        assert_eq!(client.refused(), MANY, "{of}");

        client.refused = ResourceType::Runtime;
        let mended = with(&third, of, name(of, 500), b"third");
        client.publish(&mended);
        assert_eq!(client.answer(), BTreeMap::from([(of, 1)]), "{of}: and taken when it is mended");
        assert_eq!(client.stream.summary().iter().map(|summary| summary.refused).sum::<usize>(), MANY - 1);
        let visited = visits::take();
        assert!(visited < 10, "{of}: {visited} looked at for one that was mended");
    }
}

#[test]
fn versions_say_the_same_whether_what_is_held_back_was_looked_at_or_not() {
    for of in REFUSED {
        let first = mesh(of);
        let second = with(&first, of, name(of, 3), b"second");
        let sent = |client: &Refuser| client.stream.summary().iter().find(|s| s.resource_type == of).unwrap().sent;
        let mut resting = Refuser::at_rest(of, &first);
        let mut woken = Refuser::at_rest(of, &first);
        woken.stream.substream(of).wake_all();
        resting.publish(&second);
        woken.publish(&second);
        assert_eq!((resting.answer(), woken.answer()), (BTreeMap::from([(of, 1)]), BTreeMap::from([(of, 1)])));
        assert_eq!(sent(&resting), sent(&woken), "{of}");
    }
}

#[test]
fn types_that_rest_go_along_with_the_snapshot_and_are_looked_at_when_something_happens_to_them() {
    let first = mesh(ResourceType::Cluster);
    let mut client = Refuser::at_rest(ResourceType::Secret, &first);
    let rests = |client: &Refuser| ResourceType::ALL.into_iter().all(|of| client.stream.resting.contains(of));
    assert!(rests(&client), "the client has everything");

    let second = with(&first, ResourceType::Runtime, "elsewhere".into(), b"new");
    client.publish(&second);
    assert!(client.answer().is_empty(), "it has not asked for that");
    let clusters = client.stream.substreams[ResourceType::Cluster.index()].as_ref().unwrap();
    let target = Snapshot::new([second.clone()]);
    assert!(clusters.view.base.as_ref().unwrap().layers()[0].generation() == target.layers()[0].generation());

    let third = with(&second, ResourceType::Cluster, name(ResourceType::Cluster, 7), b"second");
    client.publish(&third);
    assert_eq!(client.answer(), BTreeMap::from([(ResourceType::Cluster, 1)]), "what has changed is sent");
    assert!(rests(&client));
    client.say(DeltaDiscoveryRequest {
        type_url: ResourceType::Cluster.type_url().to_owned(),
        resource_names_subscribe: vec![name(ResourceType::Cluster, 9).to_string()],
        ..DeltaDiscoveryRequest::default()
    });
    assert_eq!(client.answer(), BTreeMap::from([(ResourceType::Cluster, 1)]), "what is asked for is sent");
}
