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
mod reads;
mod resolver;
mod rollout;
mod table;
mod unit;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use snapshot::Layer;
use world::{Few, Key, Labels, Problem, Reader, World};

use crate::slots::Slots;
use crate::{Audience, Options, Proxy, Served, Work};
use layer::LayerCompiler;
use resolver::Resolver;

/// What a layer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Towards services.
    Outbound,
    /// Into the workload of a sidecar, or into a gRPC server without one.
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
    /// What leads into a workload.
    pub(crate) fn inbound(audience: &Audience) -> Self {
        Self { role: Role::Inbound, audience: audience.workload() }
    }
}

/// The layers of one audience, first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack(Vec<LayerId>);

impl Stack {
    /// The layers, first to last.
    pub(crate) fn layers(&self) -> &[LayerId] {
        &self.0
    }
}

/// What an audience's layers are compiled for, first to last. Takes from the audience what each layer depends on, so
/// that as many nodes as possible share it: outbound and raw layers depend on the labels that some object asks about,
/// not on addresses; inbound layers on the workload.
pub(crate) fn keys_of(world: &World, audience: &Audience) -> Vec<LayerKey> {
    let asked: Labels = world.client_label_keys().filter_map(|k| audience.labels.get_key_value(k)).map(owned).collect();
    let outbound = Audience { labels: Arc::new(asked), addresses: Vec::new(), control_plane: None, ..audience.clone() };
    let raw = LayerKey { role: Role::Raw, audience: outbound.clone() };
    let mut keys = vec![LayerKey { role: Role::Outbound, audience: outbound }];
    match audience.proxy {
        Proxy::Sidecar { .. } => keys.push(LayerKey::inbound(audience)),
        Proxy::Gateway => {
            let edge = Audience { addresses: Vec::new(), ..audience.clone() };
            keys.push(LayerKey { role: Role::Edge, audience: edge });
        }
        Proxy::Grpc => keys.push(LayerKey::inbound(audience)),
    }
    keys.push(raw);
    keys
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// Names a layer in use; may name another one when it is not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(u32);

/// A layer that is another now.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Which one.
    pub layer: LayerId,
    /// What it was.
    pub old: Arc<Layer>,
    /// What it is.
    pub new: Arc<Layer>,
    /// Whether it leads into a workload; all others lead elsewhere.
    pub is_inbound: bool,
}

/// All layers in use.
#[derive(Debug)]
pub(crate) struct Layers {
    options: Options,
    ids: HashMap<Arc<LayerKey>, LayerId>,
    slots: Slots<Shared>,
    /// Those that are asked about every change.
    broad: BTreeSet<LayerId>,
    /// What the others read.
    readers: HashMap<Key, Few<LayerId>>,
    /// Those that hold something else since the last update.
    stale: BTreeSet<LayerId>,
    /// Ports of workloads that are kept although no service leads there any more. A layer that is dropped and comes back
    /// has them still.
    held: HashMap<LayerKey, Vec<Served>>,
}

#[derive(Debug)]
struct Shared {
    key: Arc<LayerKey>,
    compiler: LayerCompiler,
    users: usize,
}

impl Layers {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            ids: HashMap::new(),
            slots: Slots::default(),
            broad: BTreeSet::new(),
            readers: HashMap::new(),
            stale: BTreeSet::new(),
            held: HashMap::new(),
        }
    }

    /// One more user of each of these layers; those that are new are compiled.
    pub(crate) fn retain(&mut self, world: &World, keys: Vec<LayerKey>) -> Stack {
        let stack = keys.into_iter().map(|key| self.retain_one(world, key)).collect();
        Stack(stack)
    }

    fn retain_one(&mut self, world: &World, key: LayerKey) -> LayerId {
        if let Some((id, shared)) = self.ids.get(&key).and_then(|id| Some((*id, self.slots.get_mut(id.0)?))) {
            shared.users += 1;
            return id;
        }
        let held = self.held.get(&key).cloned().unwrap_or_default();
        let mut compiler = LayerCompiler::new(key.clone(), self.options.clone(), held);
        compiler.build(world);
        let is_broad = compiler.is_broad();
        let key = Arc::new(key);
        let id = LayerId(self.slots.put(Shared { key: key.clone(), compiler, users: 1 }));
        self.ids.insert(key, id);
        if is_broad {
            self.broad.insert(id);
        }
        self.index(id);
        id
    }

    /// One user less; layers without users are dropped.
    pub(crate) fn release(&mut self, stack: &Stack) {
        for id in &stack.0 {
            let Some(shared) = self.slots.get_mut(id.0) else { continue };
            shared.users -= 1;
            if shared.users > 0 {
                continue;
            }
            if let Some(Shared { key, compiler, .. }) = self.slots.take(id.0) {
                self.ids.remove(&key);
                self.broad.remove(id);
                self.stale.remove(id);
                compiler.reads().for_each(|key| forget(&mut self.readers, key, *id));
            }
        }
    }

    /// Brings the index of what layers read up to date.
    fn index(&mut self, id: LayerId) {
        let Some(shared) = self.slots.get_mut(id.0) else { return };
        for (key, reads) in shared.compiler.take_read_changes() {
            if reads {
                self.readers.entry(key).or_default().insert(id);
            } else {
                forget(&mut self.readers, &key, id);
            }
        }
    }

    /// Layers that may have read something that was touched.
    fn readers_of(&self, touched: &BTreeSet<Key>) -> BTreeSet<LayerId> {
        touched.iter().filter_map(|key| self.readers.get(key)).flatten().copied().collect()
    }

    /// Runs the units that depend on what was touched. Returns the layers that are others now.
    pub(crate) fn update(&mut self, world: &World, touched: &BTreeSet<Key>, work: &mut Work) -> Vec<Turn> {
        let mut dirty = self.readers_of(touched);
        dirty.extend(&self.broad);
        dirty.append(&mut self.stale);
        let mut turns = Vec::new();
        for layer in dirty {
            let Some(shared) = self.slots.get_mut(layer.0) else { continue };
            let old = shared.compiler.layer().clone();
            shared.compiler.update(world, touched, work);
            let new = shared.compiler.layer().clone();
            if !Arc::ptr_eq(&old, &new) {
                turns.push(Turn { layer, old, new, is_inbound: shared.key.role == Role::Inbound });
            }
            self.index(layer);
        }
        turns
    }

    /// Keeps these ports of a workload, and no others, from the next update on.
    pub(crate) fn hold(&mut self, key: LayerKey, held: Vec<Served>) {
        if let Some((id, shared)) = self.ids.get(&key).and_then(|id| Some((*id, self.slots.get_mut(id.0)?))) {
            shared.compiler.hold(held.clone());
            self.stale.insert(id);
        }
        if held.is_empty() {
            self.held.remove(&key);
        } else {
            self.held.insert(key, held);
        }
    }

    fn find(&self, key: &LayerKey) -> Option<&Shared> {
        self.slots.get(self.ids.get(key)?.0)
    }

    /// The inbound layers that may serve other ports since something was touched, each with those that it served before
    /// and those that it is to serve.
    pub(crate) fn shifts(
        &self,
        world: &World,
        touched: &BTreeSet<Key>,
    ) -> impl Iterator<Item = (&Audience, &[Served], Vec<Served>)> {
        let layers = self.readers_of(touched).into_iter().filter_map(|id| self.slots.get(id.0));
        let affected = layers.filter(|shared| shared.compiler.may_serve_others(touched));
        affected.map(|Shared { key, compiler, .. }| (&key.audience, compiler.served(), self.served(world, key)))
    }

    /// The ports of a workload that services led to when its layer was compiled; none if it never was.
    pub(crate) fn served_before(&self, key: &LayerKey) -> &[Served] {
        self.find(key).map_or(&[], |shared| shared.compiler.served())
    }

    /// Whether anybody uses a layer.
    pub(crate) fn has(&self, key: &LayerKey) -> bool {
        self.ids.contains_key(key)
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

    /// The layers of a stack, first to last.
    pub(crate) fn of_stack(&self, stack: &Stack) -> Vec<Arc<Layer>> {
        let layers = stack.0.iter().filter_map(|id| self.slots.get(id.0));
        layers.map(|shared| shared.compiler.layer().clone()).collect()
    }

    /// How many stacks have a layer.
    pub(crate) fn users(&self, id: LayerId) -> usize {
        self.slots.get(id.0).map_or(0, |shared| shared.users)
    }

    /// What is wrong, as far as these layers were concerned.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.slots.iter().flat_map(|(_, shared)| shared.compiler.problems())
    }
}

fn forget(readers: &mut HashMap<Key, Few<LayerId>>, key: &Key, id: LayerId) {
    if let Some(layers) = readers.get_mut(key) {
        layers.remove(&id);
        if layers.is_empty() {
            readers.remove(key);
        }
    }
}
