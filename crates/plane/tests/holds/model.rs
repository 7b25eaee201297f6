//! Whatever happens in whatever order: a port is never taken from a workload while a connected node may use it and the
//! time is not over, and always in the end; and nothing is kept that was not there.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use plane::{Held, Kept};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

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

/// A node, as it is in truth.
#[derive(Clone, Debug, Default)]
struct Client {
    connected: bool,
    left: Option<Instant>,
    /// Ports that it may send requests to: those of what it has settled last, and of all that it was given since.
    uses: BTreeSet<u16>,
}

/// The last loss of a port.
struct Lost {
    at: Instant,
    /// Nodes that the plane can know of: they were there, or had just left.
    known: BTreeSet<&'static str>,
}

/// What is true, whatever the plane says.
#[derive(Default)]
struct Model {
    services: HashMap<usize, Vec<Port>>,
    selected: bool,
    clients: HashMap<&'static str, Client>,
    lost: HashMap<u16, Lost>,
    /// The workload's ports before the last step, and what its node was to have.
    real: BTreeSet<u16>,
    published: BTreeSet<u16>,
    /// What it ever was to have.
    once: BTreeSet<u16>,
}

impl Model {
    /// The workload's ports.
    fn ports(&self) -> BTreeSet<u16> {
        let all = self.services.values().flatten().map(|(target, _)| *target);
        all.filter(|_| self.selected).collect()
    }

    /// A step is done: notes what was lost, and what those who are there may use.
    fn note(&mut self, now: Instant) {
        let ports = self.ports();
        let is_known = |client: &Client| client.connected || client.left.is_some_and(|left| now < left + QUIET);
        let mut known: BTreeSet<_> =
            self.clients.iter().filter(|(_, client)| is_known(client)).map(|(node, _)| *node).collect();
        if !self.clients[WEB].connected {
            // What is lost while nobody compiles for the workload is not held for it.
            known.clear();
        }
        for port in self.real.difference(&ports) {
            self.lost.insert(*port, Lost { at: now, known: known.clone() });
        }
        for client in self.clients.values_mut().filter(|client| client.connected) {
            client.uses.extend(&ports);
        }
        self.real = ports;
    }
}

fn target(held: &Held) -> u16 {
    let Kept::Inbound { target } = held.kept else { panic!("there is no rollout: {held}") };
    target
}

fn check(model: &mut Model, fleet: &Fleet) {
    let held = fleet.plane.held();
    let keys: BTreeSet<_> = held.iter().map(target).collect();
    // What is kept for a workload that left as somebody else is nobody's.
    let mut own: Vec<_> = held.iter().filter(|held| held.kept_by.iter().any(|id| id == WEB)).collect();
    own.sort_by_key(|held| target(held));
    assert!(own.windows(2).all(|pair| target(pair[0]) < target(pair[1])), "nothing is held twice: {held:?}");
    if !model.clients[WEB].connected {
        model.published.retain(|port| keys.contains(port) || model.real.contains(port));
        return;
    }
    let now: BTreeSet<u16> = fleet.inbound(WEB).into_iter().collect();
    assert!(model.real.is_subset(&now), "{:?} {now:?}", model.real);
    for port in now.difference(&model.real) {
        assert!(model.once.contains(port), "{port} was never there");
        assert!(fleet.now < model.lost[port].at + LONGEST, "{port} is kept for too long");
        assert!(keys.contains(port), "{port} is kept, and said to be");
    }
    for port in model.published.difference(&now) {
        let Lost { at, known } = &model.lost[port];
        if fleet.now >= *at + LONGEST {
            continue;
        }
        for node in known {
            let client = &model.clients[node];
            assert!(
                !client.connected || !client.uses.contains(port),
                "{port} is taken away, and {node} may use it: {client:?}"
            );
        }
    }
    model.once.extend(&now);
    model.published = now;
}

fn walk(steps: &[Step]) {
    let mut fleet = Fleet::start(&NODES);
    let there = Client { connected: true, ..Client::default() };
    let clients = NODES.into_iter().map(|node| (node, there.clone())).collect();
    let mut model = Model { selected: true, clients, ..Model::default() };
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
                    client.uses.clear();
                }
            }
            Step::Toggle(node) => {
                let client = model.clients.get_mut(NODES[*node]).unwrap();
                client.connected = !client.connected;
                if client.connected {
                    fleet.connect(NODES[*node]);
                } else {
                    client.left = Some(fleet.now);
                    fleet.depart(NODES[*node]);
                }
            }
            Step::Pass(milliseconds) => fleet.pass(Duration::from_millis(*milliseconds)),
        }
        model.note(fleet.now);
        check(&mut model, &fleet);
    }
    fleet.pass(LONGEST);
    model.note(fleet.now);
    check(&mut model, &fleet);
    assert!(fleet.plane.held().is_empty() && fleet.plane.due().is_none(), "everything goes in the end");
}

/// The same cases each time, so that a change is judged by what it does. `PROPTEST_CASES=5000` looks for new ones.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig { cases: 128, rng_seed: RngSeed::Fixed(1), ..default },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_port_goes_while_it_may_be_used(steps in proptest::collection::vec(step(), 1..40)) {
        walk(&steps);
    }
}
