//! Whatever happens in whatever order: a port is never taken from a workload while a connected node may use it and the
//! time is not over, and always in the end; and nothing is kept that was not there.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::fleet::{CLIENT, Fleet, HTTP, LONGEST, Port, QUIET, TCP, WEB};

const OTHER: &str = "sidecar~10.0.0.3~client-2.default~default.svc.cluster.local";
const NODES: [&str; 3] = [WEB, CLIENT, OTHER];
const SERVICES: [&str; 2] = ["s0", "s1"];

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, Option<Vec<Port>>),
    Relabel(bool),
    Settle(usize),
    /// The node leaves if it is there, and comes back if it is not.
    Toggle(usize),
    Pass(u64),
}

fn port() -> impl Strategy<Value = Port> {
    (prop_oneof![Just(8080), Just(9090), Just(7070)], prop_oneof![Just(HTTP), Just(TCP)])
}

fn step() -> impl Strategy<Value = Step> {
    let ports = proptest::option::weighted(0.8, proptest::collection::vec(port(), 1..3));
    prop_oneof![
        4 => (0..SERVICES.len(), ports).prop_map(|(service, ports)| Step::Publish(service, ports)),
        1 => any::<bool>().prop_map(Step::Relabel),
        5 => (0..NODES.len()).prop_map(Step::Settle),
        2 => (0..NODES.len()).prop_map(Step::Toggle),
        4 => prop_oneof![4 => 0u64..3_000, 1 => 0u64..40_000].prop_map(Step::Pass),
    ]
}

/// What a node may run, and when it was there.
#[derive(Clone, Copy, Debug)]
struct Client {
    /// What it has settled last.
    settled: u64,
    connected: bool,
    left: Option<Instant>,
    came: Instant,
}

/// What is true, whatever the plane says.
struct Model {
    services: HashMap<usize, Vec<Port>>,
    selected: bool,
    clients: HashMap<&'static str, Client>,
    /// The workload's ports at each generation.
    ports: Vec<BTreeSet<u16>>,
    /// When a port was lost last.
    lost: HashMap<u16, Instant>,
    /// What the workload's node was to have after the step before.
    published: BTreeSet<u16>,
}

impl Model {
    fn real(&self) -> BTreeSet<u16> {
        let all = self.services.values().flatten().map(|(target, _)| *target);
        all.filter(|_| self.selected).collect()
    }

    /// Whether a node may send requests to this port: what it runs is what it has settled, or anything since.
    fn may_use(&self, client: &Client, port: u16) -> bool {
        let from = usize::try_from(client.settled).unwrap();
        self.ports.get(from..).into_iter().flatten().any(|ports| ports.contains(&port))
    }

    /// Whether the plane can know of that: whoever came after the loss only counts if it had just left.
    fn counts(&self, client: &Client, lost: Instant) -> bool {
        client.connected && (client.came <= lost || client.left.is_some_and(|left| lost < left + QUIET))
    }

    /// Everything up to this generation has the same ports as before it.
    fn fill(&mut self, generation: u64, now: Instant) {
        let real = self.real();
        let before = self.ports.last().cloned().unwrap_or_default();
        while self.ports.len() < usize::try_from(generation).unwrap() {
            self.ports.push(before.clone());
        }
        if self.ports.len() == usize::try_from(generation).unwrap() {
            self.lost.extend(before.difference(&real).map(|port| (*port, now)));
            self.ports.push(real);
        }
    }
}

fn check(model: &mut Model, fleet: &Fleet) {
    let held = fleet.plane.held();
    let keys: BTreeSet<_> = held.iter().map(|held| held.target).collect();
    assert_eq!(keys.len(), held.len(), "nothing is held twice: {held:?}");
    let real = model.real();
    if !model.clients[WEB].connected {
        // What is lost while nobody compiles for the workload is not held for it.
        model.published.retain(|port| keys.contains(port) || real.contains(port));
        return;
    }
    let now: BTreeSet<u16> = fleet.inbound(WEB).into_iter().collect();
    assert!(real.is_subset(&now), "{real:?} {now:?}");
    for port in now.difference(&real) {
        assert!(model.published.contains(port), "{port} was not there before");
        assert!(fleet.now < model.lost[port] + LONGEST, "{port} is kept for too long");
        assert!(keys.contains(port), "{port} is kept, and said to be");
    }
    for port in model.published.difference(&now) {
        let lost = model.lost[port];
        if fleet.now >= lost + LONGEST {
            continue;
        }
        for (node, client) in &model.clients {
            let uses = model.counts(client, lost) && model.may_use(client, *port);
            assert!(!uses, "{port} is taken away, and {node} may use it: {client:?}");
        }
    }
    model.published = now;
}

fn walk(steps: &[Step]) {
    let mut fleet = Fleet::start(&NODES);
    let client = Client { settled: fleet.generation, connected: true, left: None, came: fleet.now };
    let mut model = Model {
        services: HashMap::new(),
        selected: true,
        clients: NODES.into_iter().map(|node| (node, client)).collect(),
        ports: vec![BTreeSet::new(); usize::try_from(fleet.generation).unwrap() + 1],
        lost: HashMap::new(),
        published: BTreeSet::new(),
    };
    for step in steps {
        match step {
            Step::Publish(service, ports) => {
                fleet.publish(SERVICES[*service], ports.as_deref());
                match ports {
                    Some(ports) => drop(model.services.insert(*service, ports.clone())),
                    None => drop(model.services.remove(service)),
                }
            }
            Step::Relabel(selected) => {
                fleet.relabel(if *selected { "web" } else { "other" });
                if model.selected != *selected && !model.clients[WEB].connected {
                    // It comes back as somebody else.
                    model.published.clear();
                }
                model.selected = *selected;
            }
            Step::Settle(node) => {
                let client = model.clients.get_mut(NODES[*node]).unwrap();
                if client.connected {
                    fleet.settle(NODES[*node]);
                    client.settled = fleet.generation;
                }
            }
            Step::Toggle(node) => {
                let client = model.clients.get_mut(NODES[*node]).unwrap();
                client.connected = !client.connected;
                if client.connected {
                    client.came = fleet.now;
                    fleet.connect(NODES[*node]);
                } else {
                    client.left = Some(fleet.now);
                    fleet.depart(NODES[*node]);
                }
            }
            Step::Pass(milliseconds) => fleet.pass(Duration::from_millis(*milliseconds)),
        }
        model.fill(fleet.generation, fleet.now);
        check(&mut model, &fleet);
    }
    fleet.pass(LONGEST);
    model.fill(fleet.generation, fleet.now);
    check(&mut model, &fleet);
    assert!(fleet.plane.held().is_empty() && fleet.plane.due().is_none(), "everything goes in the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_port_goes_while_it_may_be_used(steps in proptest::collection::vec(step(), 1..40)) {
        walk(&steps);
    }
}
