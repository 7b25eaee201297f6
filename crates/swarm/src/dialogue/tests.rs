#![allow(clippy::unwrap_used)]

use prost::Message;
use proto::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, Resource};
use proto::pb::google::protobuf::Any;

use super::*;
use crate::catalogue::Found;
use crate::scenario::{Endpoints, Scenario};

fn found() -> Found {
    let of = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), format!("v-{name}"))).collect();
    Found {
        resources: [
            (ResourceType::Cluster, of(&["c1", "c2", "c3"])),
            (ResourceType::Endpoints, of(&["e1", "e2", "e3"])),
            (ResourceType::Listener, of(&["l1"])),
            (ResourceType::Route, of(&["r1"])),
            (ResourceType::VirtualHost, of(&["r1/v1"])),
        ]
        .into(),
        virtual_hosts: true,
    }
}

/// A node and what it has said, as lines such as `eds +e1 +e2`.
struct Talk {
    dialogue: Dialogue,
    catalogue: Catalogue,
    variant: Variant,
}

impl Talk {
    fn new(variant: Variant, opinion: Opinion, endpoints: &Endpoints) -> Self {
        let mut found = found();
        found.virtual_hosts = variant == Variant::Delta;
        let catalogue = Catalogue::new(&found, endpoints);
        Self { dialogue: Dialogue::new(variant, opinion, 1), catalogue, variant }
    }

    fn lines(&mut self, say: impl FnOnce(&mut Dialogue, &Catalogue, &mut dyn FnMut(Piece))) -> Vec<String> {
        let mut bytes = Vec::new();
        say(&mut self.dialogue, &self.catalogue, &mut |piece| bytes.extend_from_slice(piece.bytes()));
        let mut rest = &bytes[..];
        let mut lines = Vec::new();
        while let Some((prefix, tail)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let (message, tail) = tail.split_at(length);
            lines.push(line(self.variant, message));
            rest = tail;
        }
        lines
    }

    fn open(&mut self) -> Vec<String> {
        let identity = Identity::of(&Scenario::default(), 1);
        self.lines(|dialogue, catalogue, send| dialogue.open(&identity, catalogue, send))
    }

    fn receive(&mut self, kind: ResourceType, resources: u32, nonce: &str) -> Vec<String> {
        let received = Received {
            kind: Some(kind),
            version: format!("v{nonce}").into(),
            nonce: nonce.into(),
            resources,
            ..Received::default()
        };
        self.lines(|dialogue, catalogue, send| {
            dialogue.receive(&received, catalogue, send);
        })
    }

    /// Delta clusters of these names; those that begin with `e` take the endpoints of that name.
    fn receive_clusters(&mut self, names: &[&str], nonce: &str) -> Vec<String> {
        let packed = |name: &&str| {
            let eds = name.starts_with('e').then_some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
            let cluster = Cluster { name: (*name).to_owned(), cluster_discovery_type: eds, ..Cluster::default() };
            let any = Any { type_url: ResourceType::Cluster.type_url().to_owned(), value: cluster.encode_to_vec() };
            Resource { name: cluster.name, resource: Some(any), ..Resource::default() }
        };
        let message = DeltaDiscoveryResponse { resources: names.iter().map(packed).collect(), ..Default::default() };
        let received = Received {
            kind: Some(ResourceType::Cluster),
            nonce: nonce.into(),
            resources: names.len() as u32,
            message: Some(message.encode_to_vec()),
            ..Received::default()
        };
        self.lines(|dialogue, catalogue, send| {
            dialogue.receive(&received, catalogue, send);
        })
    }

    fn is_synced(&self) -> bool {
        self.dialogue.is_synced(&self.catalogue)
    }
}

fn line(variant: Variant, message: &[u8]) -> String {
    let (has_node, type_url, names, version, nonce, error, mut held) = match variant {
        Variant::Delta => {
            let m = DeltaDiscoveryRequest::decode(message).unwrap();
            let held: Vec<_> = m.initial_resource_versions.into_iter().map(|(k, v)| format!(" {k}={v}")).collect();
            let error = m.error_detail.is_some();
            (m.node.is_some(), m.type_url, m.resource_names_subscribe, String::new(), m.response_nonce, error, held)
        }
        Variant::Sotw => {
            let m = DiscoveryRequest::decode(message).unwrap();
            let error = m.error_detail.is_some();
            (m.node.is_some(), m.type_url, m.resource_names, m.version_info, m.response_nonce, error, Vec::new())
        }
    };
    held.sort_unstable();
    let mut line = ResourceType::from_type_url(&type_url).unwrap().short().to_owned();
    line.push_str(if has_node { " node" } else { "" });
    names.iter().for_each(|name| line.push_str(&format!(" +{name}")));
    line.push_str(&held.concat());
    let verb = if error { "nack" } else { "ack" };
    line.push_str(&if nonce.is_empty() { String::new() } else { format!(" {verb} {nonce}") });
    line.push_str(&if version.is_empty() { String::new() } else { format!(" at {version}") });
    line
}

#[test]
fn the_order_of_a_first_delta_session_is_that_of_a_recorded_envoy() {
    let mut talk = Talk::new(Variant::Delta, Opinion::Accepts, &Endpoints::default());
    assert_eq!(talk.open(), ["cds node"]);
    assert_eq!(talk.receive(ResourceType::Cluster, 3, "1"), ["eds +e1 +e2 +e3"], "the ACK waits for the endpoints");
    assert_eq!(talk.receive(ResourceType::Endpoints, 3, "2"), ["cds ack 1", "lds", "eds ack 2"]);
    assert_eq!(talk.receive(ResourceType::Listener, 1, "3"), ["rds +r1", "lds ack 3"]);
    assert_eq!(talk.receive(ResourceType::Route, 1, "4"), ["vhds", "rds ack 4"]);
    assert!(!talk.is_synced());
    assert_eq!(talk.receive(ResourceType::VirtualHost, 1, "5"), ["vhds ack 5"]);
    assert!(talk.is_synced());
    assert_eq!(talk.receive(ResourceType::VirtualHost, 1, "6"), ["vhds ack 6"]);
    assert_eq!(talk.receive(ResourceType::Cluster, 1, "7"), ["cds ack 7"]);
}

#[test]
fn the_state_of_the_world_repeats_names_and_versions() {
    let mut talk = Talk::new(Variant::Sotw, Opinion::Accepts, &Endpoints::default());
    assert_eq!(talk.open(), ["cds node"]);
    assert_eq!(talk.receive(ResourceType::Cluster, 3, "1"), ["eds +e1 +e2 +e3"]);
    let expected = ["cds ack 1 at v1", "lds", "eds +e1 +e2 +e3 ack 2 at v2"];
    assert_eq!(talk.receive(ResourceType::Endpoints, 3, "2"), expected);
    assert_eq!(talk.receive(ResourceType::Listener, 1, "3"), ["rds +r1", "lds ack 3 at v3"]);
    assert_eq!(talk.receive(ResourceType::Route, 1, "4"), ["rds +r1 ack 4 at v4"]);
    assert!(talk.is_synced(), "virtual hosts have no such variant");
}

#[test]
fn endpoints_that_come_in_parts_are_acknowledged_at_once_and_clusters_when_all_are_there() {
    let mut talk = Talk::new(Variant::Delta, Opinion::Accepts, &Endpoints::default());
    talk.open();
    talk.receive(ResourceType::Cluster, 3, "1");
    assert_eq!(talk.receive(ResourceType::Endpoints, 2, "2"), ["eds ack 2"]);
    assert_eq!(talk.receive(ResourceType::Endpoints, 1, "3"), ["cds ack 1", "lds", "eds ack 3"]);
}

#[test]
fn a_node_may_ask_for_a_few_assignments_only() {
    let each = Endpoints { each: Some(2), ..Endpoints::default() };
    let mut talk = Talk::new(Variant::Delta, Opinion::Accepts, &each);
    talk.open();
    assert_eq!(talk.receive(ResourceType::Cluster, 3, "1"), ["eds +e3 +e1"], "the second node's run");
    let only = Endpoints { only: vec!["none".to_owned()], ..Endpoints::default() };
    let mut talk = Talk::new(Variant::Delta, Opinion::Accepts, &only);
    talk.open();
    assert_eq!(talk.receive(ResourceType::Cluster, 3, "1"), ["cds ack 1", "lds"], "nothing has to get warm");
}

#[test]
fn a_node_that_refuses_still_asks_for_everything() {
    let mut talk = Talk::new(Variant::Sotw, Opinion::Refuses, &Endpoints::default());
    talk.open();
    assert_eq!(talk.receive(ResourceType::Cluster, 3, "1"), ["cds nack 1", "eds +e1 +e2 +e3", "lds"]);
    assert_eq!(talk.receive(ResourceType::Endpoints, 3, "2"), ["eds +e1 +e2 +e3 nack 2"]);
    assert_eq!(talk.receive(ResourceType::Listener, 1, "3"), ["lds nack 3", "rds +r1"]);
    assert_eq!(talk.receive(ResourceType::Route, 1, "4"), ["rds +r1 nack 4"]);
    assert!(talk.is_synced());
}

#[test]
fn what_nobody_asked_for_is_not_answered() {
    let mut talk = Talk::new(Variant::Delta, Opinion::Accepts, &Endpoints::default());
    talk.open();
    assert!(talk.receive(ResourceType::Listener, 1, "1").is_empty());
    assert!(talk.receive(ResourceType::Secret, 1, "2").is_empty());
}

#[test]
fn a_node_that_comes_back_says_everything_at_once_with_what_it_has() {
    let each = Endpoints { each: Some(2), ..Endpoints::default() };
    let mut talk = Talk::new(Variant::Delta, Opinion::Accepts, &each);
    let held = Held::new(&found(), &each);
    let identity = Identity::of(&Scenario::default(), 1);
    let lines = talk.lines(|dialogue, catalogue, send| dialogue.resume(&identity, catalogue, &held, send));
    let expected = [
        "cds node c1=v-c1 c2=v-c2 c3=v-c3",
        "eds +e3 +e1 e1=v-e1 e3=v-e3",
        "lds l1=v-l1",
        "rds +r1 r1=v-r1",
        "vhds r1/v1=v-r1/v1",
    ];
    assert_eq!(lines, expected);
    assert_eq!(talk.receive(ResourceType::Cluster, 1, "1"), ["cds ack 1"], "nothing has to get warm again");
}

#[test]
fn in_the_state_of_the_world_it_says_the_versions_that_it_had() {
    let mut talk = Talk::new(Variant::Sotw, Opinion::Accepts, &Endpoints::default());
    talk.open();
    for (kind, count, nonce) in [
        (ResourceType::Cluster, 3, "1"),
        (ResourceType::Endpoints, 3, "2"),
        (ResourceType::Listener, 1, "3"),
        (ResourceType::Route, 1, "4"),
    ] {
        talk.receive(kind, count, nonce);
    }
    let held = Held::new(&Found::default(), &Endpoints::default());
    let identity = Identity::of(&Scenario::default(), 1);
    let lines = talk.lines(|dialogue, catalogue, send| dialogue.resume(&identity, catalogue, &held, send));
    assert_eq!(lines, ["cds node at v1", "eds +e1 +e2 +e3 at v2", "lds at v3", "rds +r1 at v4"]);
}

/// A delta node that has everything.
fn synced(endpoints: &Endpoints) -> Talk {
    let mut talk = Talk::new(Variant::Delta, Opinion::Accepts, endpoints);
    talk.open();
    for (kind, count) in [
        (ResourceType::Cluster, 3),
        (ResourceType::Endpoints, 3),
        (ResourceType::Listener, 1),
        (ResourceType::Route, 1),
        (ResourceType::VirtualHost, 1),
    ] {
        talk.receive(kind, count, "0");
    }
    assert!(talk.is_synced());
    talk
}

#[test]
fn clusters_that_come_later_wait_for_their_endpoints_too() {
    let mut talk = synced(&Endpoints::default());
    // One that is changed, two that are new, one without endpoints of its own.
    assert_eq!(talk.receive_clusters(&["e1", "e8", "e9", "static"], "1"), ["eds +e8 +e9"]);
    assert!(!talk.is_synced());
    assert_eq!(talk.receive(ResourceType::Endpoints, 2, "2"), ["eds ack 2"]);
    assert_eq!(talk.receive(ResourceType::Endpoints, 1, "3"), ["cds ack 1", "eds ack 3"]);
    assert!(talk.receive_clusters(&["e8"], "4").is_empty(), "nothing is asked for twice");
    assert_eq!(talk.receive(ResourceType::Endpoints, 1, "5"), ["cds ack 4", "eds ack 5"]);
    assert_eq!(talk.receive_clusters(&["static"], "6"), ["cds ack 6"]);

    let held = Held::new(&found(), &Endpoints::default());
    let identity = Identity::of(&Scenario::default(), 1);
    let lines = talk.lines(|dialogue, catalogue, send| dialogue.resume(&identity, catalogue, &held, send));
    assert_eq!(lines.last().unwrap(), "eds +e8 +e9", "they are asked for again");
}

#[test]
fn a_node_that_asks_for_a_few_assignments_does_not_ask_for_more() {
    let mut talk = synced(&Endpoints { each: Some(2), ..Endpoints::default() });
    assert_eq!(talk.receive_clusters(&["e9"], "1"), ["cds ack 1"]);
}
