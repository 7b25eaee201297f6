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
use world::{Key, Labels, Problem, Reader, World};

use crate::{Audience, Options, Proxy, Served, Work};
use layer::LayerCompiler;
use resolver::Resolver;

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

impl LayerKey {
    /// What leads into the workload of a sidecar.
    pub(crate) fn inbound(audience: &Audience) -> Self {
        Self { role: Role::Inbound, audience: audience.workload() }
    }
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
                keys.push(LayerKey::inbound(audience));
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

    /// Whether the layer at this place leads into the workload.
    pub(crate) fn is_inbound(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|key| key.role == Role::Inbound)
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
    /// Ports of workloads that are kept although no service leads there any more. A layer that is dropped and comes back
    /// has them still.
    held: HashMap<LayerKey, Vec<Served>>,
}

#[derive(Debug)]
struct Shared {
    compiler: LayerCompiler,
    users: usize,
}

impl Layers {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, layers: HashMap::new(), held: HashMap::new() }
    }

    /// One more user of these layers; new ones are empty until [`Layers::build`].
    pub(crate) fn retain_stack(&mut self, stack: &Stack) {
        for key in &stack.0 {
            let new = || {
                let held = self.held.get(key).cloned().unwrap_or_default();
                Shared { compiler: LayerCompiler::new(key.clone(), self.options.clone(), held), users: 0 }
            };
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

    /// Keeps these ports of a workload, and no others, from the next update on.
    pub(crate) fn hold(&mut self, key: LayerKey, held: Vec<Served>) {
        if let Some(shared) = self.layers.get_mut(&key) {
            shared.compiler.hold(held.clone());
        }
        if held.is_empty() {
            self.held.remove(&key);
        } else {
            self.held.insert(key, held);
        }
    }

    /// The inbound layers that may serve other ports since something was touched, each with those that it served before
    /// and those that it is to serve.
    pub(crate) fn shifts(
        &self,
        world: &World,
        touched: &BTreeSet<Key>,
    ) -> impl Iterator<Item = (&Audience, &[Served], Vec<Served>)> {
        let affected = self.layers.iter().filter(|(_, shared)| shared.compiler.may_serve_others(touched));
        affected.map(|(key, shared)| (&key.audience, shared.compiler.served(), self.served(world, key)))
    }

    /// The ports of a workload that services led to when its layer was compiled; none if it never was.
    pub(crate) fn served_before(&self, key: &LayerKey) -> &[Served] {
        self.layers.get(key).map_or(&[], |shared| shared.compiler.served())
    }

    /// Whether anybody uses a layer.
    pub(crate) fn has(&self, key: &LayerKey) -> bool {
        self.layers.contains_key(key)
    }

    /// Those that are held beside them.
    pub(crate) fn held(&self, key: &LayerKey) -> &[Served] {
        self.held.get(key).map_or(&[], Vec::as_slice)
    }

    /// The ports of a workload that services lead to now.
    pub(crate) fn served(&self, world: &World, key: &LayerKey) -> Vec<Served> {
        let reader = Reader::new(world);
        unit::served(&Resolver::new(&reader, &key.audience, &self.options))
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
