//! Layers and the units that they are made of.
//!
//! A layer is compiled by units, each of which builds a few resources: the clusters of one host, its assignments,
//! its virtual hosts, one workload's inbound side. A unit reads the world through a tracked reader; a change runs
//! again the units that read what it touched. What several units share, such as the route configuration of a port,
//! is put together from their contributions afterwards.
//!
//! ```text
//!   touched keys ──▶ units that read them ──▶ cells ─────────────────────────────┐
//!                                        ├──▶ virtual hosts ──▶ route tables ────┼──▶ next layer
//!                                        └──▶ filter chains ──▶ listeners ───────┘
//! ```

mod encode;
mod layer;
mod listeners;
mod output;
mod resolver;
mod table;
mod unit;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use snapshot::Layer;
use world::{Key, Labels, Problem, World};

use crate::{Audience, HostDelivery, Options, Proxy, Work};
use layer::LayerCompiler;

/// What a layer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Towards services.
    Outbound,
    /// Into the workload of a sidecar.
    Inbound,
    /// Into the mesh, at a gateway.
    Edge,
    /// Resources that were written down as they are.
    Raw,
}

/// What tells layers apart: their role, and the part of the audience that matters for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LayerKey {
    pub(crate) role: Role,
    pub(crate) audience: Audience,
}

/// The layers of one audience, first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack(Vec<LayerKey>);

impl Stack {
    /// Takes from the audience what each layer depends on, so that as many nodes as possible share it: outbound
    /// and raw layers depend on the labels that some object asks about, not on addresses; inbound layers on the workload.
    pub(crate) fn of(world: &World, audience: &Audience) -> Self {
        let asked: Labels =
            world.client_label_keys().filter_map(|k| audience.labels.get_key_value(k)).map(owned).collect();
        let outbound = Audience { labels: Arc::new(asked), addresses: Vec::new(), ..audience.clone() };
        let raw = LayerKey { role: Role::Raw, audience: outbound.clone() };
        let mut keys = vec![LayerKey { role: Role::Outbound, audience: outbound }];
        match audience.proxy {
            Proxy::Sidecar { .. } => {
                // Its route configurations have one virtual host each, which is always inside.
                let inbound = Audience { hosts: HostDelivery::Inline, ..audience.clone() };
                keys.push(LayerKey { role: Role::Inbound, audience: inbound });
            }
            Proxy::Gateway => {
                let edge = Audience { addresses: Vec::new(), ..audience.clone() };
                keys.push(LayerKey { role: Role::Edge, audience: edge });
            }
            Proxy::Grpc => {}
        }
        keys.push(raw);
        Self(keys)
    }
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// All layers in use.
#[derive(Debug)]
pub(crate) struct Layers {
    options: Options,
    layers: HashMap<LayerKey, Shared>,
}

#[derive(Debug)]
struct Shared {
    compiler: LayerCompiler,
    users: usize,
}

impl Layers {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, layers: HashMap::new() }
    }

    /// One more user of these layers; new ones are empty until [`Layers::build`].
    pub(crate) fn retain_stack(&mut self, stack: &Stack) {
        for key in &stack.0 {
            let new = || Shared { compiler: LayerCompiler::new(key.clone(), self.options.clone()), users: 0 };
            self.layers.entry(key.clone()).or_insert_with(new).users += 1;
        }
    }

    /// One user less; layers without users are dropped.
    pub(crate) fn release_stack(&mut self, stack: &Stack) {
        for key in &stack.0 {
            if let Some(shared) = self.layers.get_mut(key) {
                shared.users -= 1;
                if shared.users == 0 {
                    self.layers.remove(key);
                }
            }
        }
    }

    /// Compiles the layers that never were.
    pub(crate) fn build(&mut self, world: &World) {
        for shared in self.layers.values_mut().filter(|shared| !shared.compiler.is_built()) {
            shared.compiler.build(world);
        }
    }

    /// Runs the units that depend on what was touched.
    pub(crate) fn update(&mut self, world: &World, touched: &BTreeSet<Key>) -> Work {
        let mut work = Work::default();
        for shared in self.layers.values_mut() {
            shared.compiler.update(world, touched, &mut work);
        }
        work
    }

    /// The layers of a stack, first to last; all of them are built.
    pub(crate) fn of_stack(&self, stack: &Stack) -> Vec<Arc<Layer>> {
        let layers = stack.0.iter().filter_map(|key| self.layers.get(key));
        layers.map(|shared| shared.compiler.layer().clone()).collect()
    }

    /// What is wrong, as far as these layers were concerned.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.layers.values().flat_map(|shared| shared.compiler.problems())
    }
}
