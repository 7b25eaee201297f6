//! The compiler's state: one layer per distinct input, and who is made of which layers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use snapshot::Snapshot;
use world::{Key, Problem, World};

use crate::layers::{LayerKey, Layers, Stack};
use crate::raw::RawLayer;
use crate::{Audience, Options, Proxy, Served};

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
    /// Those of them for which more has changed than what leads into their workload: their nodes may send requests
    /// elsewhere than before.
    pub outward: Vec<Audience>,
    /// What it cost.
    pub work: Work,
}

/// What a sidecar's workload is no longer served by, or is again.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The audience, as [`Audience::workload`] has it.
    pub audience: Audience,
    /// What was there when it was compiled last, and would not be there, or would take less than it did, in order of
    /// the workload's port.
    pub lost: Vec<Served>,
    /// What is held, and would be there without that: in order of the workload's port.
    pub returned: Vec<Served>,
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
        let mut update = Update { work, ..Update::default() };
        for (audience, member) in &mut self.audiences {
            let snapshot = member.raw.stack(self.layers.of_stack(&member.stack));
            if !snapshot.same_as(&member.snapshot) {
                let pairs = member.snapshot.layers().iter().zip(snapshot.layers());
                let mut others = pairs.enumerate().filter(|(place, _)| !member.stack.is_inbound(*place));
                if others.any(|(_, (old, new))| !Arc::ptr_eq(old, new)) {
                    update.outward.push(audience.clone());
                }
                member.snapshot = snapshot.clone();
                update.snapshots.push((audience.clone(), snapshot));
            }
        }
        update
    }

    /// What the next [`Compiler::update`] with the same arguments would take from workloads that are compiled for, or
    /// give back to them; none of the entries is empty. Costs a question for each workload of the namespaces in which
    /// something was touched.
    pub fn losses(&self, world: &World, touched: &BTreeSet<Key>) -> Vec<Loss> {
        let shifts = self.layers.shifts(world, touched);
        shifts.filter_map(|(audience, before, now)| self.loss(audience, before.to_vec(), &now)).collect()
    }

    /// What a workload would lose or get back if its sidecar went from one audience to another before the next
    /// [`Compiler::update`].
    pub fn loss_by_move(&self, world: &World, from: &Audience, to: &Audience) -> Option<Loss> {
        let (old, new) = (LayerKey::inbound(from), LayerKey::inbound(to));
        if old == new || !matches!((&from.proxy, &to.proxy), (Proxy::Sidecar { .. }, Proxy::Sidecar { .. })) {
            return None;
        }
        let before = self.layers.served_before(&old).to_vec();
        self.loss(&new.audience, before, &self.layers.served(world, &new))
    }

    /// Whether any audience is compiled for that shares this way into the workload.
    pub fn has_workload(&self, audience: &Audience) -> bool {
        self.layers.has(&LayerKey::inbound(audience))
    }

    fn loss(&self, audience: &Audience, mut lost: Vec<Served>, now: &[Served]) -> Option<Loss> {
        let is_there = |old: &Served| now.iter().any(|new| new.takes_all_of(old));
        lost.retain(|old| !is_there(old));
        let held = self.layers.held(&LayerKey::inbound(audience));
        let returned: Vec<_> = held.iter().filter(|held| is_there(held)).cloned().collect();
        let is_empty = lost.is_empty() && returned.is_empty();
        (!is_empty).then(|| Loss { audience: audience.clone(), lost, returned })
    }

    /// Keeps these ports of a workload, and no others, although no service leads there any more, from the next
    /// [`Compiler::update`] on; also while nobody of this audience is compiled for. Where a service leads to one of them,
    /// what takes more counts.
    pub fn hold(&mut self, audience: &Audience, held: Vec<Served>) {
        self.layers.hold(LayerKey::inbound(audience), held);
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
