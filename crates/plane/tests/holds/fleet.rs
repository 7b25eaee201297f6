//! A plane with a few nodes, and a clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use compile::{Options, Secrets};
use plane::{Held, MemberId, Moment, Node, Patience, Plane, Publication};
use proto::ResourceType;
use world::{Change, ObjectRef, Settings};

pub const LONGEST: Duration = Duration::from_secs(30);
pub const QUIET: Duration = Duration::from_secs(2);

/// The sidecar of the workload that services select.
pub const WEB: &str = "sidecar~10.0.0.1~web-1.default~default.svc.cluster.local";
/// Another sidecar.
pub const CLIENT: &str = "sidecar~10.0.0.2~client-1.default~default.svc.cluster.local";

pub const HTTP: &str = "http";
pub const TCP: &str = "tcp";

/// The workload's port, and what it carries.
pub type Port = (u16, &'static str);

pub struct Fleet {
    pub plane: Plane,
    pub now: Instant,
    pub generation: u64,
    /// Members by the ids of their nodes.
    pub members: HashMap<String, MemberId>,
    /// What each member has settled.
    pub settled: HashMap<MemberId, u64>,
    /// What was released, oldest first.
    pub lifted: Vec<Held>,
    /// Where the nodes have certificates from.
    secrets: Secrets,
}

impl Fleet {
    /// A plane with these nodes, and the pod of the workload.
    pub fn start(nodes: &[&str]) -> Self {
        Self::start_with(nodes, Secrets::None)
    }

    /// The same with nodes that have certificates, or none.
    pub fn start_with(nodes: &[&str], secrets: Secrets) -> Self {
        let patience = Patience { longest: LONGEST, quiet: QUIET };
        let mut fleet = Self {
            plane: Plane::new(Settings::default(), Options::default()).patient(patience),
            now: Instant::now(),
            generation: 0,
            members: HashMap::new(),
            settled: HashMap::new(),
            lifted: Vec::new(),
            secrets,
        };
        fleet.relabel("web");
        nodes.iter().for_each(|node| fleet.connect(node));
        fleet.settle_all();
        fleet
    }

    /// Gives the workload's pod this label `app`; services select `web`.
    pub fn relabel(&mut self, app: &str) -> Publication {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-1, namespace: default, labels: {{app: {app}}}}}\n\
             status: {{podIP: 10.0.0.1, phase: Running}}\n"
        );
        self.change(parsed(&pod))
    }

    /// A service whose ports are 80, 81, ...; or none.
    pub fn publish(&mut self, service: &str, ports: Option<&[Port]>) -> Publication {
        match ports {
            Some(ports) => self.change(parsed(&manifest(service, ports, ""))),
            None => {
                let reference: ObjectRef = format!("service/default/{service}").parse().unwrap();
                self.change(vec![Change::Remove(reference)])
            }
        }
    }

    /// The service is there with two ports, and no client may use it.
    pub fn hide(&mut self, service: &str) {
        let hidden = "  annotations: {networking.istio.io/exportTo: \"~\"}\n";
        self.change(parsed(&manifest(service, &[(8080, HTTP), (9090, HTTP)], hidden)));
    }

    /// Takes changes in, and publishes.
    pub fn change(&mut self, changes: Vec<Change>) -> Publication {
        self.generation += 1;
        let touched = self.plane.take_in(changes, Vec::new());
        let settled = &self.settled;
        let moment = Moment { generation: self.generation, now: self.now };
        self.plane.compile(&touched, &moment, &|member| settled.get(&member).copied().unwrap_or(0))
    }

    pub fn connect(&mut self, node: &str) {
        let membership = self.plane.attach(&self.node(node)).unwrap();
        self.members.insert(node.to_owned(), membership.member);
    }

    pub fn depart(&mut self, node: &str) {
        let member = self.members.remove(node).unwrap();
        self.plane.detach(member, self.now);
    }

    /// The node has settled everything.
    pub fn settle(&mut self, node: &str) {
        let member = self.members[node];
        self.settled.insert(member, self.generation);
        self.plane.settled(member, self.generation, self.now);
    }

    pub fn settle_all(&mut self) {
        let nodes: Vec<_> = self.members.keys().cloned().collect();
        nodes.iter().for_each(|node| self.settle(node));
    }

    /// Time passes, and what is due is released when it is.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.plane.due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.generation += 1;
            let settled = &self.settled;
            let settled = |member| settled.get(&member).copied().unwrap_or(0);
            let moment = Moment { generation: self.generation, now: self.now };
            let publication = self.plane.release(&moment, &settled);
            let is_step = self.plane.due().is_some();
            assert!(is_step || !publication.held.is_empty(), "what is due is something");
            self.lifted.extend(publication.held);
        }
        self.now = until;
    }

    /// The workload's ports that a node is to have, in order.
    pub fn inbound(&self, node: &str) -> Vec<u16> {
        let snapshot = self.snapshot(node);
        let names = snapshot.iter(ResourceType::Cluster).map(|cell| cell.name().clone());
        let ports = names.filter_map(|name| name.strip_prefix("inbound|")?.strip_suffix("||")?.parse().ok());
        let mut ports: Vec<u16> = ports.collect();
        ports.sort();
        let listener = snapshot.get(ResourceType::Listener, "virtualInbound").unwrap();
        for port in &ports {
            let cluster = format!("inbound|{port}||");
            assert!(listener.references().any(|(_, name)| **name == *cluster), "{cluster} has a filter chain");
        }
        assert_eq!(snapshot.dangling(), []);
        ports
    }

    /// The version of a node's inbound listener.
    pub fn listener(&self, node: &str) -> snapshot::Version {
        self.snapshot(node).get(ResourceType::Listener, "virtualInbound").unwrap().version()
    }

    /// A node's inbound listener, as JSON.
    pub fn listener_text(&self, node: &str) -> String {
        let snapshot = self.snapshot(node);
        let listener = snapshot.get(ResourceType::Listener, "virtualInbound").unwrap();
        proto::descriptor::to_json(ResourceType::Listener.type_url(), &listener.value()).to_string()
    }

    /// Addresses of the endpoints that a node is to have in a cluster, in order.
    pub fn addresses(&self, node: &str, cluster: &str) -> Vec<String> {
        let snapshot = self.snapshot(node);
        let cell = snapshot.get(ResourceType::Endpoints, cluster).unwrap();
        let text = proto::descriptor::to_json(ResourceType::Endpoints.type_url(), &cell.value());
        let lists = text["endpoints"].as_array().into_iter().flatten();
        let endpoints = lists.filter_map(|list| list["lb_endpoints"].as_array()).flatten();
        let address = |endpoint: &serde_json::Value| {
            endpoint["endpoint"]["address"]["socket_address"]["address"].as_str().unwrap().to_owned()
        };
        endpoints.map(address).collect()
    }

    /// All resources of a type that a node is to have, as JSON.
    pub fn text(&self, node: &str, of: ResourceType) -> String {
        let snapshot = self.snapshot(node);
        let json = |cell: &std::sync::Arc<snapshot::Cell>| {
            proto::descriptor::to_json(of.type_url(), &cell.value()).to_string()
        };
        snapshot.iter(of).map(json).collect()
    }

    fn snapshot(&self, node: &str) -> snapshot::Snapshot {
        let reader = world::Reader::new(self.plane.world());
        let audience = self.node(node).audience(&reader).unwrap();
        self.plane.snapshots()[&audience].clone()
    }

    fn node(&self, id: &str) -> Node {
        Node { id: id.to_owned(), secrets: self.secrets, ..Node::default() }
    }
}

fn manifest(service: &str, ports: &[Port], meta: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {service}\n  namespace: default\n{meta}spec:\n  \
         selector: {{app: web}}\n  ports:\n"
    );
    for (at, (target, protocol)) in ports.iter().enumerate() {
        text += &format!("    - {{name: {protocol}-{at}, port: {}, targetPort: {target}}}\n", 80 + at);
    }
    text
}

/// The objects of a text, as changes.
pub fn parsed(yaml: &str) -> Vec<Change> {
    let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    parsed.objects.into_iter().map(Change::Apply).collect()
}
