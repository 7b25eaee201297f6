//! The compiler's state: one layer per distinct input, and who is made of which layers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use snapshot::Snapshot;
use world::{Key, Problem, World};

use crate::layers::{self, LayerId, LayerKey, Layers, Stack, Turn};
use crate::raw::RawLayer;
use crate::slots::Slots;
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
    /// The layers that are others now.
    pub turns: Vec<Turn>,
    /// Audiences that have other layers than before, because other labels of clients matter now.
    pub restacked: Vec<AudienceId>,
    /// What it cost.
    pub work: Work,
}

/// Names an audience that is compiled for; may name another one when it is not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AudienceId(u32);

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
    ids: HashMap<Arc<Audience>, AudienceId>,
    members: Slots<Member>,
}

#[derive(Debug)]
struct Member {
    audience: Arc<Audience>,
    stack: Stack,
    raw: RawLayer,
    /// As of the last look.
    snapshot: Snapshot,
}

impl Compiler {
    /// A compiler without audiences.
    pub fn new(options: Options) -> Self {
        Self { layers: Layers::new(options), ids: HashMap::new(), members: Slots::default() }
    }

    /// Begins to compile for `audience`, unless that is done already. Returns what it is to have now, too.
    pub fn add(&mut self, world: &World, audience: &Audience) -> (AudienceId, Snapshot) {
        if let Some(id) = self.ids.get(audience).copied() {
            return (id, self.snapshot(id));
        }
        let stack = self.layers.retain(world, layers::keys_of(world, audience));
        let mut raw = RawLayer::default();
        let snapshot = raw.stack(self.layers.of_stack(&stack));
        let audience = Arc::new(audience.clone());
        let member = Member { audience: audience.clone(), stack, raw, snapshot: snapshot.clone() };
        let id = AudienceId(self.members.put(member));
        self.ids.insert(audience, id);
        (id, snapshot)
    }

    /// Ends compiling for an audience; layers that nobody else uses are dropped.
    pub fn remove(&mut self, id: AudienceId) {
        if let Some(member) = self.members.take(id.0) {
            self.ids.remove(&member.audience);
            self.layers.release(&member.stack);
        }
    }

    /// The audience of this name.
    pub fn audience(&self, id: AudienceId) -> Option<&Audience> {
        Some(&*self.members.get(id.0)?.audience)
    }

    /// The name of an audience, if it is compiled for.
    pub fn id(&self, audience: &Audience) -> Option<AudienceId> {
        self.ids.get(audience).copied()
    }

    /// How many audiences there are.
    pub fn audiences(&self) -> usize {
        self.members.len()
    }

    /// What the audience is to have now; empty for one that is not compiled for.
    pub fn snapshot(&mut self, id: AudienceId) -> Snapshot {
        self.refresh(id);
        self.members.get(id.0).map(|member| member.snapshot.clone()).unwrap_or_default()
    }

    /// The same, if it is another than when it was last looked at.
    pub fn refresh(&mut self, id: AudienceId) -> Option<Snapshot> {
        let member = self.members.get_mut(id.0)?;
        let snapshot = member.raw.stack(self.layers.of_stack(&member.stack));
        if snapshot.same_as(&member.snapshot) {
            return None;
        }
        member.snapshot = snapshot.clone();
        Some(snapshot)
    }

    /// Compiles again what depends on `touched`, and nothing else. Costs what changed, however many audiences there are.
    pub fn update(&mut self, world: &World, touched: &BTreeSet<Key>) -> Update {
        let restacked = if touched.contains(&Key::ClientLabels) { self.restack(world) } else { Vec::new() };
        let mut work = Work::default();
        let turns = self.layers.update(world, touched, &mut work);
        Update { turns, restacked, work }
    }

    /// The audiences for which an update matters, in order. Costs the number of audiences.
    pub fn concerned(&self, update: &Update) -> Vec<AudienceId> {
        let turned: HashSet<LayerId> = update.turns.iter().map(|turn| turn.layer).collect();
        let matters = |id: AudienceId, member: &Member| {
            member.stack.layers().iter().any(|layer| turned.contains(layer)) || update.restacked.contains(&id)
        };
        let ids = self.members.iter().map(|(number, member)| (AudienceId(number), member));
        ids.filter(|(id, member)| matters(*id, member)).map(|(id, _)| id).collect()
    }

    /// How many audiences an update concerns; one that has several of its layers may count several times.
    pub fn reach(&self, update: &Update) -> usize {
        update.turns.iter().map(|turn| self.layers.users(turn.layer)).sum::<usize>() + update.restacked.len()
    }

    /// The layers of an audience.
    pub fn layers_of(&self, id: AudienceId) -> &[LayerId] {
        self.members.get(id.0).map_or(&[], |member| member.stack.layers())
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
    fn restack(&mut self, world: &World) -> Vec<AudienceId> {
        let mut restacked = Vec::new();
        for id in self.members.iter().map(|(number, _)| number).collect::<Vec<_>>() {
            let Some(member) = self.members.get_mut(id) else { continue };
            let stack = self.layers.retain(world, layers::keys_of(world, &member.audience));
            let before = std::mem::replace(&mut member.stack, stack);
            if before != member.stack {
                restacked.push(AudienceId(id));
            }
            self.layers.release(&before);
        }
        restacked
    }

    /// What is wrong with the objects as far as any audience compiled them, each problem once, in order.
    pub fn problems(&self) -> Vec<Problem> {
        let of_stacks = self.members.iter().flat_map(|(_, member)| {
            let (raw, snapshot) = self.looked_at(member);
            raw.problems(&snapshot)
        });
        let all: BTreeSet<_> = self.layers.problems().cloned().chain(of_stacks).collect();
        all.into_iter().collect()
    }

    /// The snapshot of each audience, in order.
    pub fn snapshots(&self) -> BTreeMap<&Audience, Snapshot> {
        self.members.iter().map(|(_, member)| (&*member.audience, self.looked_at(member).1)).collect()
    }

    /// What a member is to have now, without noting that it was looked at.
    fn looked_at(&self, member: &Member) -> (RawLayer, Snapshot) {
        let mut raw = member.raw.clone();
        let snapshot = raw.stack(self.layers.of_stack(&member.stack));
        (raw, snapshot)
    }
}
