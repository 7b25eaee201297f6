//! Ports of a workload that no service leads to any more, and that are kept.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use compile::{Audience, Compiler, HostDelivery, Interception, Options, Proxy, Served};
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::listener::v3::Listener;
use snapshot::Snapshot;
use world::{Change, Key, ObjectRef, Settings, World};

fn service(name: &str, ports: &str) -> Change {
    let yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{selector: {{app: web}}, ports: [{ports}]}}\n"
    );
    let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    Change::Apply(parsed.objects.into_iter().next().unwrap())
}

fn gone(name: &str) -> Change {
    Change::Remove(format!("service/default/{name}").parse::<ObjectRef>().unwrap())
}

fn sidecar(interception: Interception) -> Audience {
    Audience {
        proxy: Proxy::Sidecar { interception, http_proxy_port: None },
        namespace: "default".into(),
        labels: std::sync::Arc::new([("app".to_owned(), "web".to_owned())].into()),
        addresses: vec![IpAddr::from([10, 9, 0, 1])],
        hosts: HostDelivery::Separate,
        lacks: proto::Extensions::default(),
        secrets: Default::default(),
        control_plane: None,
    }
}

/// A compiler for one sidecar, and what it publishes.
struct Bed {
    world: World,
    compiler: Compiler,
    audience: Audience,
}

impl Bed {
    fn start(interception: Interception, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut world = World::new(Settings::default());
        changes.into_iter().for_each(|change| drop(world.apply(change)));
        let audience = sidecar(interception);
        let mut compiler = Compiler::new(Options::default());
        compiler.add(&world, &audience);
        Self { world, compiler, audience }
    }

    fn take_in(&mut self, change: Change) -> BTreeSet<Key> {
        self.world.apply(change)
    }

    /// Takes in a change, and keeps whatever it takes away; returns the ports.
    fn change_and_hold(&mut self, change: Change) -> Vec<Served> {
        let touched = self.take_in(change);
        let losses = self.compiler.losses(&self.world, &touched);
        let lost: Vec<_> = losses.into_iter().flat_map(|loss| loss.lost).collect();
        self.compiler.hold(&self.audience, lost.clone());
        let update = self.compiler.update(&self.world, &touched);
        assert!(update.turns.iter().any(|turn| !turn.is_inbound), "clients are sent elsewhere");
        lost
    }

    /// Keeps these ports from now on; what is published is closed.
    fn hold(&mut self, held: Vec<Served>) {
        self.compiler.hold(&self.audience, held);
        let update = self.compiler.update(&self.world, &BTreeSet::new());
        assert!(update.turns.iter().all(|turn| turn.is_inbound), "nobody is sent elsewhere");
    }

    fn snapshot(&self) -> Snapshot {
        let snapshot = self.compiler.snapshots()[&self.audience].clone();
        assert_eq!(snapshot.dangling(), []);
        snapshot
    }

    /// The workload's ports that have a cluster.
    fn clusters(&self) -> Vec<u16> {
        let snapshot = self.snapshot();
        let names = snapshot.iter(ResourceType::Cluster).map(|cell| cell.name().clone());
        let mut ports: Vec<u16> =
            names.filter_map(|name| name.strip_prefix("inbound|")?.strip_suffix("||")?.parse().ok()).collect();
        ports.sort();
        ports
    }

    fn listener(&self, name: &str) -> Option<Listener> {
        let cell = self.snapshot().get(ResourceType::Listener, name)?.clone();
        Some(Listener::decode(&*cell.value()).unwrap())
    }

    /// Filter chains of the virtual listener, by port: how many there are.
    fn chains(&self, port: u32) -> usize {
        let listener = self.listener("virtualInbound").unwrap();
        let of_port = listener.filter_chains.iter().filter(|chain| {
            let matching = chain.filter_chain_match.as_ref();
            matching.and_then(|m| m.destination_port).is_some_and(|p| p.value == port)
        });
        of_port.count()
    }
}

const HTTP_8080: &str = "{name: http, port: 80, targetPort: 8080}";
const HTTP_9090: &str = "{name: http, port: 80, targetPort: 9090}";
const TCP_8080: &str = "{name: tcp, port: 80, targetPort: 8080}";

#[test]
fn what_is_kept_is_published_beside_what_is_new() {
    for interception in [Interception::Redirect, Interception::Tproxy, Interception::None] {
        let mut bed = Bed::start(interception, [service("web", HTTP_8080)]);
        let lost = bed.change_and_hold(service("web", HTTP_9090));
        assert_eq!(lost.iter().map(|served| (served.port, served.target)).collect::<Vec<_>>(), [(80, 8080)]);
        assert_eq!(bed.clusters(), [8080, 9090]);
        if interception == Interception::None {
            assert!(bed.listener("10.9.0.1_8080").is_some() && bed.listener("10.9.0.1_9090").is_some());
        } else {
            assert_eq!((bed.chains(8080), bed.chains(9090)), (2, 2));
        }
        bed.hold(Vec::new());
        assert_eq!(bed.clusters(), [9090]);
        assert!(bed.listener("10.9.0.1_8080").is_none());
    }
}

#[test]
fn what_is_kept_is_what_was_there_and_is_the_same_byte_for_byte() {
    let mut bed = Bed::start(Interception::None, [service("web", HTTP_8080), service("other", "{name: tcp, port: 1}")]);
    let version = |bed: &Bed, of, name: &str| bed.snapshot().get(of, name).unwrap().version();
    let before = version(&bed, ResourceType::Listener, "10.9.0.1_8080");
    let cluster = version(&bed, ResourceType::Cluster, "inbound|8080||");
    bed.change_and_hold(gone("web"));
    assert_eq!(version(&bed, ResourceType::Listener, "10.9.0.1_8080"), before);
    assert_eq!(version(&bed, ResourceType::Cluster, "inbound|8080||"), cluster);
}

#[test]
fn a_port_that_takes_less_than_before_is_lost_and_one_that_takes_more_is_not() {
    let mut bed = Bed::start(Interception::Redirect, [service("web", TCP_8080)]);
    let before = bed.listener("virtualInbound").unwrap();
    let lost = bed.change_and_hold(service("web", HTTP_8080));
    assert_eq!(lost.len(), 1);
    assert_eq!(bed.chains(8080), 1, "bytes of any kind");
    assert_eq!(bed.listener("virtualInbound").unwrap(), before);
    bed.hold(Vec::new());
    assert_eq!(bed.chains(8080), 2, "HTTP and TLS");
    let touched = bed.take_in(service("web", TCP_8080));
    assert!(bed.compiler.losses(&bed.world, &touched).is_empty());
}

#[test]
fn another_service_that_leads_to_the_port_gives_it_back() {
    let mut bed = Bed::start(Interception::Redirect, [service("web", HTTP_8080)]);
    let lost = bed.change_and_hold(gone("web"));
    assert_eq!(lost.len(), 1);
    let touched = bed.take_in(service("web2", HTTP_8080));
    let losses = bed.compiler.losses(&bed.world, &touched);
    let [loss] = &losses[..] else { panic!("one workload: {losses:?}") };
    assert_eq!((loss.lost.len(), loss.returned.len()), (0, 1));
    assert_eq!(loss.audience, bed.audience.workload());
}

#[test]
fn a_workload_that_comes_back_has_what_is_kept_for_it() {
    let mut bed = Bed::start(Interception::Redirect, [service("web", HTTP_8080)]);
    bed.change_and_hold(gone("web"));
    bed.compiler.remove(bed.compiler.id(&bed.audience).unwrap());
    bed.compiler.add(&bed.world, &bed.audience);
    assert_eq!(bed.clusters(), [8080]);
}

#[test]
fn a_workload_that_becomes_another_loses_what_only_the_first_served() {
    let bed = Bed::start(Interception::Redirect, [service("web", HTTP_8080)]);
    let to = Audience { labels: Default::default(), ..bed.audience.clone() };
    let loss = bed.compiler.loss_by_move(&bed.world, &bed.audience, &to).unwrap();
    assert_eq!((loss.lost.len(), &loss.audience), (1, &to.workload()));
    assert!(bed.compiler.loss_by_move(&bed.world, &to, &bed.audience).is_none(), "it gains");
}
