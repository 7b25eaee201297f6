//! The compiler's state: one layer per distinct input, and who is made of which layers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use snapshot::Snapshot;
use world::{Key, Problem, World};

use crate::layers::{Layers, Stack};
use crate::raw::RawLayer;
use crate::{Audience, Options};

/// Counts what an update cost, for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Units of compilation that ran: one builds the clusters, the assignments or the virtual hosts of one host, or
    /// one listener.
    pub units: usize,
    /// Resources that were encoded.
    pub resources: usize,
}

/// What an update changed.
#[derive(Debug, Default)]
pub struct Update {
    /// The audiences whose snapshot is another now, with the new one.
    pub snapshots: Vec<(Audience, Snapshot)>,
    /// What it cost.
    pub work: Work,
}

/// Compiles a world for a changing set of audiences.
#[derive(Debug)]
pub struct Compiler {
    layers: Layers,
    audiences: HashMap<Audience, Member>,
}

#[derive(Debug)]
struct Member {
    stack: Stack,
    raw: RawLayer,
    snapshot: Snapshot,
}

impl Compiler {
    /// A compiler without audiences.
    pub fn new(options: Options) -> Self {
        Self { layers: Layers::new(options), audiences: HashMap::new() }
    }

    /// Begins to compile for `audience`, unless that is done already, and returns its snapshot.
    pub fn add(&mut self, world: &World, audience: &Audience) -> Snapshot {
        if let Some(member) = self.audiences.get(audience) {
            return member.snapshot.clone();
        }
        let stack = Stack::of(world, audience);
        self.layers.retain_stack(&stack);
        self.layers.build(world);
        let mut raw = RawLayer::default();
        let snapshot = raw.stack(self.layers.of_stack(&stack));
        self.audiences.insert(audience.clone(), Member { stack, raw, snapshot: snapshot.clone() });
        snapshot
    }

    /// Ends compiling for `audience`; layers that nobody else uses are dropped.
    pub fn remove(&mut self, audience: &Audience) {
        if let Some(member) = self.audiences.remove(audience) {
            self.layers.release_stack(&member.stack);
        }
    }

    /// Compiles again what depends on `touched`, and nothing else.
    pub fn update(&mut self, world: &World, touched: &BTreeSet<Key>) -> Update {
        if touched.contains(&Key::ClientLabels) {
            self.restack(world);
        }
        let work = self.layers.update(world, touched);
        let mut snapshots = Vec::new();
        for (audience, member) in &mut self.audiences {
            let snapshot = member.raw.stack(self.layers.of_stack(&member.stack));
            if !snapshot.same_as(&member.snapshot) {
                member.snapshot = snapshot.clone();
                snapshots.push((audience.clone(), snapshot));
            }
        }
        Update { snapshots, work }
    }

    /// Other labels of clients matter now than before: who shares a layer with whom is found again.
    fn restack(&mut self, world: &World) {
        for (audience, member) in &mut self.audiences {
            let stack = Stack::of(world, audience);
            if stack != member.stack {
                self.layers.retain_stack(&stack);
                self.layers.release_stack(&member.stack);
                member.stack = stack;
            }
        }
        self.layers.build(world);
    }

    /// What is wrong with the objects as far as any audience compiled them, each problem once, in order.
    pub fn problems(&self) -> Vec<Problem> {
        let of_stacks = self.audiences.values().flat_map(|member| member.raw.problems(&member.snapshot));
        let all: BTreeSet<_> = self.layers.problems().cloned().chain(of_stacks).collect();
        all.into_iter().collect()
    }

    /// The snapshot of each audience, in order.
    pub fn snapshots(&self) -> BTreeMap<&Audience, &Snapshot> {
        self.audiences.iter().map(|(audience, member)| (audience, &member.snapshot)).collect()
    }
}
