#![allow(clippy::unwrap_used)]

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::pb::google::rpc::Status;
use snapshot::{Cell, Layer, Origin, Part, Parts, Snapshot};
use world::{Kind, ObjectRef};
use xds::{Request, Service, Settings, Stream, Variant};

use super::*;

const ROUTE: ResourceType = ResourceType::Route;
const CLUSTER: ResourceType = ResourceType::Cluster;

fn origin(object: &str, generation: i64) -> Origin {
    Origin { object: object.into(), generation }
}

/// A cluster that came from `service/default/<name>` of this generation, with the generation as its content.
fn cluster(name: &str, generation: i64) -> Cell {
    let origin = origin(&format!("service/default/{name}"), generation);
    Cell::new(CLUSTER, name.into(), format!("{name}{generation}").as_bytes()).from_objects([origin])
}

/// A route configuration with a part for each object.
fn routes(objects: &[(&str, i64)]) -> Cell {
    let mut parts = Parts::default();
    for (name, generation) in objects {
        let origin = origin(&format!("virtualservice/default/{name}"), *generation);
        let bytes = Bytes::from(format!("{name}{generation}"));
        parts.set((*name).into(), Part::new(bytes).from_objects([origin]));
    }
    Cell::composite(ROUTE, "80".into(), Bytes::new(), parts)
}

fn edited(layer: &Arc<Layer>, cells: Vec<Cell>) -> Arc<Layer> {
    let mut edit = layer.edit();
    cells.into_iter().for_each(|cell| edit.set(cell));
    edit.finish()
}

struct Client {
    id: Arc<str>,
    stream: Stream,
    snapshot: Snapshot,
    nonces: Vec<(ResourceType, String)>,
}

impl Client {
    fn new(id: &str, snapshot: &Snapshot) -> Client {
        let mut client = Client {
            id: id.into(),
            stream: Stream::new(Variant::Delta, Service::Aggregated, Settings::default()),
            snapshot: snapshot.clone(),
            nonces: Vec::new(),
        };
        client.stream.handle_snapshot(Instant::now(), snapshot.clone());
        for (kind, names) in [(CLUSTER, vec![]), (ROUTE, vec!["80".to_owned()])] {
            client.ask(DeltaDiscoveryRequest {
                node: Some(Node { id: id.to_owned(), ..Node::default() }),
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: names,
                ..DeltaDiscoveryRequest::default()
            });
        }
        client
    }

    fn ask(&mut self, request: DeltaDiscoveryRequest) {
        self.stream.handle_request(Instant::now(), Request::Delta(request)).unwrap();
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(response) = self.stream.poll_response(Instant::now()) {
            let head = DeltaDiscoveryResponse::decode(response.head).unwrap();
            self.nonces.push((response.resource_type, head.nonce));
        }
    }

    /// Answers all that has come; what is of the type `refused` with these words.
    fn answer(&mut self, refused: Option<(ResourceType, &str)>) {
        while !self.nonces.is_empty() {
            let (kind, nonce) = self.nonces.remove(0);
            let error = refused.filter(|(refused, _)| *refused == kind);
            self.ask(DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                response_nonce: nonce,
                error_detail: error.map(|(_, message)| Status {
                    code: 13,
                    message: message.to_owned(),
                    details: Vec::new(),
                }),
                ..DeltaDiscoveryRequest::default()
            });
            if error.is_some() {
                return;
            }
        }
    }

    fn publish(&mut self, snapshot: &Snapshot) {
        self.snapshot = snapshot.clone();
        self.stream.handle_snapshot(Instant::now(), snapshot.clone());
        self.poll();
    }

    fn report(&self) -> (Arc<str>, Option<Report>) {
        let report = Report {
            summaries: self.stream.summary(),
            standings: self.stream.standings(),
            holdings: Vec::new(),
            missing: Vec::new(),
            trust: None,
            target: Some(self.snapshot.clone()),
            generation: 1,
            member: None,
            settled: None,
            now: (Instant::now(), SystemTime::now()),
        };
        (self.id.clone(), Some(report))
    }
}

fn index(clients: &[Client]) -> Index {
    Index::new(clients.iter().map(Client::report), None)
}

fn object(kind: Kind, name: &str) -> ObjectView {
    ObjectView { object: None, generation: 0, reference: ObjectRef::new(kind, "default", name), problems: Vec::new() }
}

/// `node state generation` and the reasons.
fn nodes(index: &Index, path: &str) -> Vec<String> {
    let line = |node: view::ObjectNode| {
        let state = format!("{:?}", node.state).to_lowercase();
        format!("{} {state} {} {}", node.node_id, node.generation, node.why.join("; ")).trim().to_owned()
    };
    index.object_nodes(path).map(line).collect()
}

#[test]
fn nodes_that_stand_alike_are_looked_at_once_however_many_they_are() {
    let shared = edited(&Layer::new(), (0..50).map(|n| cluster(&format!("s{n}"), 1)).collect());
    let shared = edited(&shared, vec![routes(&[("s1", 1), ("s2", 1)])]);
    let mut clients: Vec<_> = (0..1000)
        .map(|n| {
            // A layer of its own, as the inbound side of a workload is.
            let own = edited(&Layer::new(), vec![cluster(&format!("inbound{n}"), 1)]);
            Client::new(&format!("n{n:04}"), &Snapshot::new([shared.clone(), own]))
        })
        .collect();
    clients.iter_mut().for_each(|client| client.answer(None));
    clients[7].answer(None);
    let one = index(&clients);
    // For all of them: clusters and routes of the shared layer. For each: its own clusters; routes it has none.
    let of_shared = one.objects["service/default/s1"].len();
    assert_eq!((of_shared, one.objects["virtualservice/default/s1"].len()), (1, 1));
    assert_eq!(one.describe(&object(Kind::Service, "s1")).accepted, 1000);
    assert_eq!(one.describe(&object(Kind::Service, "inbound3")).accepted_nodes, ["n0003"]);

    // Half of them are sent a change, of which a tenth is answered: three kinds of standing.
    let next = edited(&shared, vec![cluster("s1", 2)]);
    for (n, client) in clients.iter_mut().enumerate() {
        let own = client.snapshot.layers()[1].clone();
        let snapshot = Snapshot::new([next.clone(), own]);
        if n % 2 == 0 {
            client.publish(&snapshot);
        } else {
            client.snapshot = snapshot;
        }
        if n % 20 == 0 {
            client.answer(None);
        }
    }
    let three = index(&clients);
    assert_eq!(three.objects["service/default/s1"].len(), 3);
    let view = three.describe(&object(Kind::Service, "s1"));
    assert_eq!((view.accepted, view.pending, view.rejected), (50, 950, 0));
    assert_eq!(view.accepted_nodes.len(), 20, "the list shows the first");
    assert_eq!(three.describe(&object(Kind::Service, "s2")).accepted, 1000);
    assert_eq!(
        nodes(&three, "service/default/s1")[..3],
        [
            "n0000 accepted 2",
            "n0001 pending 1 CDS \"s1\" was not sent in its newest form yet",
            "n0002 pending 1 CDS \"s1\" was sent and not acknowledged yet",
        ]
    );
}

#[test]
fn of_a_route_configuration_only_the_objects_that_changed_are_open() {
    let first = edited(&Layer::new(), vec![routes(&[("reviews", 1), ("ratings", 1), ("gone", 1)])]);
    let mut clients = vec![Client::new("n", &Snapshot::new([first.clone()]))];
    clients[0].answer(None);
    let mut edit = first.edit();
    edit.set(routes(&[("reviews", 2), ("ratings", 1), ("new", 1)]));
    let second = Snapshot::new([edit.finish()]);
    clients[0].publish(&second);
    let sent = index(&clients);
    let of = |index: &Index, name: &str| nodes(index, &format!("virtualservice/default/{name}"));
    assert_eq!(of(&sent, "reviews"), ["n pending 1 RDS \"80\" was sent and not acknowledged yet"]);
    assert_eq!(of(&sent, "ratings"), ["n accepted 1"]);
    assert_eq!(of(&sent, "new"), ["n pending 0 RDS \"80\" was sent and not acknowledged yet"]);
    assert_eq!(of(&sent, "gone"), ["n pending 1 RDS \"80\" still comes from it as it was before"]);

    clients[0].answer(Some((ROUTE, "virtual host reviews: no")));
    let suspected = index(&clients);
    assert_eq!(of(&suspected, "reviews"), ["n pending 1 RDS \"80\" was sent and not acknowledged yet"]);
    // The other one that changed is tried alone, and accepted.
    clients[0].answer(None);
    let refused = index(&clients);
    assert_eq!(of(&refused, "new"), ["n accepted 1"]);
    assert_eq!(of(&refused, "reviews"), ["n rejected 1 RDS \"80\" was rejected: virtual host reviews: no"]);
    assert_eq!(of(&refused, "ratings"), ["n accepted 1"], "it has what it had");
    let view = refused.describe(&object(Kind::VirtualService, "reviews"));
    assert_eq!(view.state, ObjectState::Rejected);
    assert_eq!(view.rejected_nodes[0].message, "virtual host reviews: no");
}

#[test]
fn only_what_is_asked_for_is_kept_and_silence_is_told() {
    let layer = edited(&Layer::new(), vec![cluster("a", 1), cluster("b", 1)]);
    let client = Client::new("n", &Snapshot::new([layer]));
    let reports = vec![client.report(), ("quiet".into(), None), ("quiet".into(), None)];
    let index = Index::new(reports, Some(&["service/default/a".to_owned()]));
    assert_eq!(index.paths(), [std::sync::Arc::from("service/default/a")]);
    assert!(!index.knows("service/default/b"));
    assert_eq!(index.silent_nodes(), ["quiet"]);
}

#[test]
fn those_that_left_with_an_older_generation_are_behind() {
    let layer = edited(&Layer::new(), vec![cluster("a", 1), cluster("b", 1)]);
    let mut clients: Vec<_> = ["old", "new", "busy"].map(|id| Client::new(id, &Snapshot::new([layer.clone()]))).into();
    clients.iter_mut().for_each(|client| client.answer(None));
    // Two are sent the next generation, and one of them leaves without an answer.
    let next = Snapshot::new([edited(&layer, vec![cluster("a", 2)])]);
    clients[1..].iter_mut().for_each(|client| client.publish(&next));
    clients[1].answer(None);
    let reports: Vec<_> = clients.iter().map(Client::report).collect();
    let behind = |path: &str, generation| {
        let reports = reports.iter().filter_map(|(id, report)| Some((&**id, report.as_ref()?)));
        Index::behind(reports, path, generation)
    };
    assert_eq!(behind("service/default/a", 2), 2);
    assert_eq!(behind("service/default/a", 1), 0);
    assert_eq!(behind("service/default/a", 3), 3);
    assert_eq!(behind("service/default/b", 1), 0);
    assert_eq!(behind("service/default/never", 9), 0, "it never concerned them");
}

#[test]
fn sets_of_nodes_join_and_part() {
    let of = |rows: &[usize]| {
        let mut bits = Bits::default();
        rows.iter().for_each(|row| bits.insert(*row));
        bits
    };
    let mut all = of(&[1, 64, 200]);
    all.add(&of(&[3, 700]));
    assert_eq!((all.count(), all.iter().collect::<Vec<_>>()), (5, vec![1, 3, 64, 200, 700]));
    assert!(all.contains(700) && !all.contains(701) && !all.contains(100_000));
    all.remove(&of(&[1, 3, 5000]));
    assert_eq!(all.iter().collect::<Vec<_>>(), [64, 200, 700]);
    let mut few = of(&[1]);
    few.remove(&all);
    assert_eq!(few.count(), 1);
}
