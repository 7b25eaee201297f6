//! The machine.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use compile::{
    Audience, AudienceId, Compiler, HostDelivery, Interception, LayerId, Loss, Options, Proxy, Update, Work,
};
use snapshot::Snapshot;
use world::{
    Change, Fetched, Key, KeySource, Kind, Labels, Object, ObjectRef, Problem, Reader, SecretList, Settings, Severity,
    Spec, Workload, World,
};

use crate::exposure::Exposure;
use crate::holds::{Entry, Holds};
use crate::modes::{Modes, Step};
use crate::waits::{Missing, Waits};
use crate::{Held, MemberId, Membership, Node, NodeError, Patience};

/// What applying changes led to. Whoever has snapshots asks for the new ones: [`Plane::concerned`] tells which audiences
/// have some, and [`Plane::snapshot`] makes them.
#[derive(Debug, Default)]
pub struct Publication {
    /// What compiling changed, and cost.
    pub update: Update,
    /// The members that belong to another audience now, because the world has learnt something about their workload.
    pub moved: Vec<Membership>,
    /// The audiences that nobody belongs to any more because of that.
    pub left: Vec<AudienceId>,
    /// What this publication begins to hold, or stops to hold; in order.
    pub held: Vec<Held>,
}

/// What applying changes led to, for those who have no clock.
#[derive(Debug, Default)]
pub struct Applied {
    /// The audiences whose snapshot is another now, with the new one.
    pub snapshots: Vec<(AudienceId, Snapshot)>,
    /// The members that belong to another audience now.
    pub moved: Vec<Membership>,
    /// What compiling cost.
    pub work: Work,
}

/// When something is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The generation that it is published as; never less than before.
    pub generation: u64,
    /// The time.
    pub now: Instant,
}

/// One object as the admin API shows it, without what nodes say about it.
#[derive(Clone, Debug)]
pub struct ObjectView {
    /// The object, or `None` when no object could be read where problems were found.
    pub object: Option<Arc<Object>>,
    /// The generation of what it says, see [`World::generation`].
    pub generation: i64,
    /// Its name.
    pub reference: ObjectRef,
    /// What is wrong with it, in order.
    pub problems: Vec<Problem>,
}

/// The members of an audience.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    members: usize,
    /// The generation with which it began.
    since: u64,
}

/// World, compiler, and the audiences in use.
#[derive(Debug)]
pub struct Plane {
    world: World,
    options: Options,
    compiler: Compiler,
    members: BTreeMap<MemberId, (Node, AudienceId)>,
    last_member: u64,
    /// Who is in each audience; it is compiled for while there is somebody.
    groups: HashMap<AudienceId, Group>,
    /// When nodes were last told by a layer to send requests elsewhere than before; whoever has settled that does so.
    turned: HashMap<LayerId, u64>,
    /// When workloads were last told by a layer to take something else than before.
    opened: HashMap<LayerId, u64>,
    holds: Holds,
    exposure: Exposure,
    modes: Modes,
    source_problems: Vec<Problem>,
    rollout_problems: Vec<Problem>,
    /// Of the last [`Plane::compile`] or [`Plane::release`].
    generation: u64,
}

impl Plane {
    /// A plane that knows of nothing.
    pub fn new(settings: Settings, options: Options) -> Self {
        Self {
            world: World::new(settings),
            options: options.clone(),
            compiler: Compiler::new(options),
            members: BTreeMap::new(),
            last_member: 0,
            groups: HashMap::new(),
            turned: HashMap::new(),
            opened: HashMap::new(),
            holds: Holds::new(Patience::default()),
            exposure: Exposure::default(),
            modes: Modes::new(Patience::default()),
            source_problems: Vec::new(),
            rollout_problems: Vec::new(),
            generation: 0,
        }
    }

    /// The same with another patience for clients that may still use ports that are gone, and for those whom a change of
    /// what workloads take concerns.
    pub fn patient(self, patience: Patience) -> Self {
        Self { holds: Holds::new(patience.clone()), modes: Modes::new(patience), ..self }
    }

    /// Takes in changes of sources, with all problems that the sources have now, and compiles once: for those who have no
    /// clock, and whose nodes say nothing. What is gone is gone at once.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>, source_problems: Vec<Problem>) -> Applied {
        let touched = self.take_in(changes, source_problems);
        self.modes.pass_over();
        let moves = self.moves(&touched);
        let update = self.compiler.update(&self.world, &touched);
        let concerned = self.concerned(&update);
        let snapshots = concerned.into_iter().filter_map(|id| Some((id, self.refresh(id)?))).collect();
        let (moved, _) = self.regroup(moves);
        Applied { snapshots, moved, work: update.work }
    }

    /// The audiences for which an update matters, in order. Costs the number of audiences.
    pub fn concerned(&self, update: &Update) -> Vec<AudienceId> {
        self.compiler.concerned(update)
    }

    /// How many audiences an update concerns; one that has several of its layers may count several times.
    pub fn reach(&self, update: &Update) -> usize {
        self.compiler.reach(update)
    }

    /// What an audience is to have now; empty for one that is not in use.
    pub fn snapshot(&mut self, id: AudienceId) -> Snapshot {
        self.compiler.snapshot(id)
    }

    /// The snapshot of an audience, if it is another than when it was last looked at.
    pub fn refresh(&mut self, id: AudienceId) -> Option<Snapshot> {
        self.compiler.refresh(id)
    }

    /// The world takes in changes of sources, with all problems that the sources have now, and nothing is compiled.
    /// Returns what to compile for.
    #[must_use]
    pub fn take_in(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        source_problems: Vec<Problem>,
    ) -> BTreeSet<Key> {
        self.source_problems = source_problems;
        self.take_in_changes(changes)
    }

    /// [`Plane::take_in`] of changes that come from no source; what sources found stays.
    #[must_use]
    pub fn take_in_changes(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for change in changes {
            self.modes.look(&self.world, &change);
            touched.extend(self.world.apply(change));
        }
        touched
    }

    /// The world takes in what fetching a key set has led to, or that it is no longer fetched, and nothing is compiled.
    /// Returns what to compile for.
    #[must_use]
    pub fn take_in_key_set(&mut self, source: KeySource, fetched: Option<Fetched>) -> BTreeSet<Key> {
        self.world.set_key_set(source, fetched)
    }

    /// The world takes in which secrets there are for gateways, and nothing is compiled. Returns what to compile for.
    #[must_use]
    pub fn take_in_secrets(&mut self, secrets: SecretList) -> BTreeSet<Key> {
        self.world.set_secrets(secrets)
    }

    /// All problems that rollouts have now, in place of those before.
    pub fn set_rollout_problems(&mut self, problems: Vec<Problem>) {
        self.rollout_problems = problems;
    }

    /// Compiles what depends on what was touched. Ports that workloads lose, and the last endpoints of revisions that
    /// rollouts send requests to, stay as long as nodes may use them, and between plaintext and mutual TLS workloads take
    /// both; `settled` tells the newest generation that a member has settled, 0 for none, and is asked only if there are
    /// any.
    pub fn compile(
        &mut self,
        touched: &BTreeSet<Key>,
        moment: &Moment,
        settled: &dyn Fn(MemberId) -> u64,
    ) -> Publication {
        let moves = self.moves(touched);
        let left = self.carry_held(&moves);
        let losses = self.losses(touched, &moves);
        for loss in &losses {
            self.holds.cancel(&loss.audience, &loss.returned);
            self.holds.begin(&loss.audience, loss.lost.clone(), moment.generation);
            self.compiler.hold(&loss.audience, self.holds.of(&loss.audience));
        }
        let has_kept = self.look_at_exposure(touched, moment, settled);
        let is_turnover = self.begin_turnover(touched, moment);
        let update = self.compiler.update(&self.world, touched);
        self.generation = moment.generation;
        self.note_turns(&update);
        for id in &update.restacked {
            self.groups.entry(*id).and_modify(|group| group.since = moment.generation);
        }
        let (moved, left_for_good) = self.regroup(moves);
        for audience in left {
            if !self.compiler.has_workload(&audience) {
                self.holds.forget(&audience);
                self.compiler.hold(&audience, Vec::new());
            }
        }
        let mut held = Vec::new();
        if !losses.is_empty() || has_kept || is_turnover {
            let moved: BTreeSet<MemberId> = moved.iter().map(|membership| membership.member).collect();
            if is_turnover {
                let missing = self.unsettled(&self.opened, &moved, moment.generation, settled);
                self.modes.wait_for(moment.generation, moment.now, missing);
            }
            let missing = self.unsettled(&self.turned, &moved, moment.generation, settled);
            if has_kept {
                self.exposure.wait_for(moment.generation, moment.now, missing.clone());
            }
            self.holds.wait_for(moment.generation, moment.now, missing);
            held = self.held_where(|generation| generation == moment.generation);
        }
        Publication { update, moved, left: left_for_good, held }
    }

    /// Begins the steps by which workloads come to take something else; whether there are any. Without members nobody sends
    /// anything by what was said before, as when a server starts.
    fn begin_turnover(&mut self, touched: &BTreeSet<Key>, moment: &Moment) -> bool {
        if self.members.is_empty() {
            self.modes.pass_over();
        }
        self.modes.begin(&mut self.world, touched, moment.generation)
    }

    fn note_turns(&mut self, update: &Update) {
        for turn in &update.turns {
            let told = if turn.is_inbound { &mut self.opened } else { &mut self.turned };
            told.insert(turn.layer, self.generation);
        }
    }

    /// Keeps the last endpoints of revisions that nodes may still send requests to; whether there are any.
    fn look_at_exposure(
        &mut self,
        touched: &BTreeSet<Key>,
        moment: &Moment,
        settled: &dyn Fn(MemberId) -> u64,
    ) -> bool {
        let mut exposure = std::mem::take(&mut self.exposure);
        let mut world = std::mem::take(&mut self.world);
        let is_settled = || self.unsettled(&self.turned, &BTreeSet::new(), moment.generation, settled).is_empty();
        let has_kept = exposure.look(&mut world, touched, moment.generation, &is_settled);
        (self.exposure, self.world) = (exposure, world);
        has_kept
    }

    /// What is held goes with those who move. Returns the audiences that they leave and that something is held for.
    fn carry_held(&mut self, moves: &[(MemberId, Audience)]) -> BTreeSet<Audience> {
        let mut left = BTreeSet::new();
        for (member, to) in moves {
            let Some(from) = self.audience_of(*member).map(Audience::workload) else { continue };
            let to = to.workload();
            if self.holds.carry(&from, &to) {
                self.compiler.hold(&to, self.holds.of(&to));
                left.insert(from);
            }
        }
        left
    }

    /// What workloads lose or get back: because of the world, and because they are others' now.
    fn losses(&self, touched: &BTreeSet<Key>, moves: &[(MemberId, Audience)]) -> Vec<Loss> {
        let mut losses = self.compiler.losses(&self.world, touched);
        for (member, to) in moves {
            let from = self.audience_of(*member);
            losses.extend(from.and_then(|from| self.compiler.loss_by_move(&self.world, from, to)));
        }
        losses
    }

    /// Members that may not yet do what they were told last; `told` has when that was.
    fn unsettled(
        &self,
        told: &HashMap<LayerId, u64>,
        moved: &BTreeSet<MemberId>,
        generation: u64,
        settled: &dyn Fn(MemberId) -> u64,
    ) -> Vec<(MemberId, Missing)> {
        let missing = |(member, (node, audience)): (&MemberId, &(Node, AudienceId))| {
            let needs = if moved.contains(member) { generation } else { self.told(told, *audience) };
            (settled(*member) < needs).then(|| (*member, Missing { node: node.id.clone(), needs }))
        };
        self.members.iter().filter_map(missing).collect()
    }

    /// When the nodes of an audience were last told something by one of these layers.
    fn told(&self, told: &HashMap<LayerId, u64>, audience: AudienceId) -> u64 {
        let since = self.groups.get(&audience).map_or(0, |group| group.since);
        let of_layers = self.compiler.layers_of(audience).iter().filter_map(|layer| told.get(layer).copied());
        of_layers.fold(since, u64::max)
    }

    fn audience_of(&self, member: MemberId) -> Option<&Audience> {
        self.compiler.audience(self.members.get(&member)?.1)
    }

    /// The members whose traffic a run divides. `None` where the run does not choose: then it is that of everybody whom
    /// it concerns.
    pub fn attached(&self, run: &ObjectRef) -> Option<HashSet<MemberId>> {
        let run = self.world.object(run)?;
        let Spec::RolloutRun(spec) = &run.spec else { return None };
        if !spec.attach.is_selective() {
            return None;
        }
        let reader = Reader::new(&self.world);
        let is_attached = |id: &&AudienceId| {
            let audience = self.compiler.audience(**id);
            audience.is_some_and(|audience| compile::is_attached(run, audience, &reader))
        };
        let attached: HashSet<AudienceId> = self.groups.keys().filter(is_attached).copied().collect();
        let members = self.members.iter().filter(|(_, (_, audience))| attached.contains(audience));
        Some(members.map(|(member, _)| *member).collect())
    }

    /// A member has settled what was published as this generation, and all before.
    pub fn settled(&mut self, member: MemberId, generation: u64, now: Instant) {
        self.holds.waits.settled(member, generation, now);
        self.exposure.waits.settled(member, generation, now);
        self.modes.waits.settled(member, generation, now);
    }

    /// When [`Plane::release`] has something to do, if nothing is heard until then; `None` while nothing is held.
    pub fn due(&self) -> Option<Instant> {
        [&self.holds.waits, &self.exposure.waits, &self.modes.waits].into_iter().filter_map(Waits::due).min()
    }

    /// Takes away what nobody can use any more, or what was kept as long as may be: the latter names who is missing. What
    /// goes by steps takes its next one; `settled` is as for [`Plane::compile`].
    pub fn release(&mut self, moment: &Moment, settled: &dyn Fn(MemberId) -> u64) -> Publication {
        let generations = self.holds.waits.due_at(moment.now);
        let unkept = self.exposure.waits.due_at(moment.now);
        let mut held = self.held_ports(|generation| generations.contains(&generation));
        held.extend(self.kept_endpoints(|generation| unkept.contains(&generation)));
        for audience in self.holds.lift(&generations) {
            self.compiler.hold(&audience, self.holds.of(&audience));
        }
        let mut touched = self.exposure.lift(&mut self.world, &unkept);
        let step = self.turn_over(moment, &mut held);
        touched.extend(step.iter().flat_map(|(_, touched)| touched).cloned());
        let update = self.compiler.update(&self.world, &touched);
        self.generation = moment.generation;
        if let Some((ended, _)) = step {
            self.note_turns(&update);
            if ended == Step::Workloads {
                let missing = self.unsettled(&self.turned, &BTreeSet::new(), moment.generation, settled);
                self.modes.wait_for(moment.generation, moment.now, missing);
            }
        }
        Publication { update, moved: Vec::new(), left: Vec::new(), held }
    }

    /// Goes a step on with what workloads take, if that is due. Tells of the last one, and of nodes that were waited for
    /// in vain.
    fn turn_over(&mut self, moment: &Moment, held: &mut Vec<Held>) -> Option<(Step, BTreeSet<Key>)> {
        let before: Vec<_> = self.modes.entries().map(Held::modes).collect();
        let (ended, touched) = self.modes.advance(&mut self.world, moment.generation, moment.now)?;
        held.extend(before.into_iter().filter(|held| ended == Step::Clients || !held.missing.is_empty()));
        Some((ended, touched))
    }

    /// What is gone and is still kept: ports of workloads, then endpoints of revisions, then what workloads took before
    /// policies changed, each in order.
    pub fn held(&self) -> Vec<Held> {
        self.held_where(|_| true)
    }

    fn held_where(&self, wanted: impl Fn(u64) -> bool) -> Vec<Held> {
        let mut held = self.held_ports(&wanted);
        held.extend(self.kept_endpoints(&wanted));
        held.extend(self.modes.entries().filter(|entry| wanted(entry.generation)).map(Held::modes));
        held
    }

    /// Of those that were lost at these generations.
    fn kept_endpoints(&self, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = Held> {
        self.exposure.entries().filter(move |entry| wanted(entry.generation)).map(Held::endpoints)
    }

    fn held_ports(&self, wanted: impl Fn(u64) -> bool) -> Vec<Held> {
        if self.holds.is_empty() {
            return Vec::new();
        }
        let mut nodes: HashMap<Audience, BTreeSet<&str>> = HashMap::new();
        for (node, audience) in self.members.values() {
            if let Some(audience) = self.compiler.audience(*audience) {
                nodes.entry(audience.workload()).or_default().insert(&node.id);
            }
        }
        Held::of(self.holds.entries().filter(|entry: &Entry<'_>| wanted(entry.generation)), &nodes)
    }

    /// A node connects: the audience that it belongs to, and the snapshot to begin with. Each call needs one
    /// [`Plane::detach`].
    ///
    /// # Errors
    /// The node cannot be served; its stream should be refused with the error's text.
    pub fn attach(&mut self, node: &Node) -> Result<Membership, NodeError> {
        let audience = node.audience(&Reader::new(&self.world))?;
        self.last_member += 1;
        let member = MemberId(self.last_member);
        let (audience, snapshot) = self.join(&audience);
        self.members.insert(member, (node.clone(), audience));
        self.holds.waits.came(member, &node.id);
        self.exposure.waits.came(member, &node.id);
        self.modes.waits.came(member, &node.id);
        Ok(Membership { member, audience, snapshot })
    }

    /// Whether a node may have the secrets of gateways. That it is one, it says itself; that its workload can be one, the
    /// world has to agree to ([`World::may_be_gateway`]).
    pub fn may_have_gateway_secrets(&self, node: &Node) -> bool {
        let account = node.account.as_ref().filter(|_| node.id.starts_with("router~"));
        account.is_some_and(|(namespace, account)| self.world.may_be_gateway(namespace, account))
    }

    /// A node is gone. Returns the audience that it belonged to, if nobody else does now.
    pub fn detach(&mut self, member: MemberId, now: Instant) -> Option<AudienceId> {
        let (node, audience) = self.members.remove(&member)?;
        self.holds.waits.left(member, &node.id, now);
        self.exposure.waits.left(member, &node.id, now);
        self.modes.waits.left(member, &node.id, now);
        self.leave(audience).then_some(audience)
    }

    /// The members that a change of pods or workload entries gives other labels than they had when they came, with the
    /// audiences that they are to belong to.
    fn moves(&self, touched: &BTreeSet<Key>) -> Vec<(MemberId, Audience)> {
        // Nearly all changes are of something else, and there are thousands of members.
        if !touched.iter().any(|key| matches!(key, Key::Workloads(_))) {
            return Vec::new();
        }
        let of_workload = |audience: &Audience| touched.contains(&Key::Workloads(audience.namespace.clone()));
        let reader = Reader::new(&self.world);
        let mut moves = Vec::new();
        let members = self.members.iter().filter_map(|(m, (node, id))| Some((m, node, self.compiler.audience(*id)?)));
        for (member, node, audience) in members.filter(|(_, _, audience)| of_workload(audience)) {
            match node.audience(&reader) {
                Ok(now) if now != *audience => moves.push((*member, now)),
                // A node that was accepted stays.
                Ok(_) | Err(_) => {}
            }
        }
        moves
    }

    /// Returns where members are now, and the audiences that nobody belongs to any more.
    fn regroup(&mut self, moves: Vec<(MemberId, Audience)>) -> (Vec<Membership>, Vec<AudienceId>) {
        let (mut moved, mut left) = (Vec::new(), Vec::new());
        for (member, audience) in moves {
            let (audience, snapshot) = self.join(&audience);
            let Some((_, before)) = self.members.get_mut(&member) else { continue };
            let before = std::mem::replace(before, audience);
            moved.push(Membership { member, audience, snapshot });
            left.push(before);
        }
        // The numbers of those that are gone are given to nobody before all have a place.
        left.retain(|audience| self.leave(*audience));
        (moved, left)
    }

    fn join(&mut self, audience: &Audience) -> (AudienceId, Snapshot) {
        let (id, snapshot) = self.compiler.add(&self.world, audience);
        let new = || Group { members: 0, since: self.generation };
        self.groups.entry(id).or_insert_with(new).members += 1;
        (id, snapshot)
    }

    /// One member less; whether it was the last.
    fn leave(&mut self, audience: AudienceId) -> bool {
        let Some(group) = self.groups.get_mut(&audience) else { return false };
        group.members -= 1;
        let last = group.members == 0;
        if last {
            self.groups.remove(&audience);
            self.compiler.remove(audience);
        }
        last
    }

    /// Everything that is wrong: what sources found, what objects say about each other, what compiling found, and policies
    /// that are for nobody whom objects or clients tell of.
    pub fn problems(&self) -> Vec<Problem> {
        let all = self.source_problems.iter().cloned().map(|problem| self.located(problem));
        let audiences = self.groups.keys().filter_map(|id| self.compiler.audience(*id));
        let clients: Vec<_> = audiences.map(|audience| (&audience.namespace, &*audience.labels)).collect();
        let idle = self.world.idle_policies(&clients).into_iter().map(|problem| self.located(problem));
        all.chain(self.found()).chain(idle).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What is wrong beside what sources found, in order, each once.
    pub fn found_problems(&self) -> BTreeSet<Problem> {
        self.found().collect()
    }

    /// Intents that cannot be carried out, because of an error that [`Plane::problems`] tells of.
    pub fn refused_intents(&self) -> BTreeSet<ObjectRef> {
        let mut refused = self.world.refused_intents();
        let wrong = self.world.intents().flat_map(|intent| compile::intents::problems(intent, &self.options));
        refused
            .extend(wrong.filter(|problem| problem.severity == Severity::Error).filter_map(|problem| problem.object));
        refused
    }

    fn found(&self) -> impl Iterator<Item = Problem> {
        let rollouts = self.rollout_problems.iter().cloned();
        let intents = self.world.intents().flat_map(|intent| compile::intents::problems(intent, &self.options));
        let compiled = self.compiler.problems();
        let mut lacking = self.world.lacking_credentials();
        if !lacking.is_empty() {
            // What was found for a gateway that is connected says more.
            let told: BTreeSet<_> = compiled.iter().map(|problem| (&problem.object, &problem.field)).collect();
            let is_gateways = |problem: &Problem| problem.object.as_ref().is_some_and(|of| of.kind == Kind::Gateway);
            lacking.retain(|problem| !is_gateways(problem) || !told.contains(&(&problem.object, &problem.field)));
        }
        let all = self.world.problems().into_iter().chain(compiled).chain(rollouts).chain(intents);
        all.chain(lacking).map(|problem| self.located(problem))
    }

    /// Who found a problem may not know where the object, or its field, stands: the world does.
    fn located(&self, problem: Problem) -> Problem {
        let Some(object) = problem.object.as_ref().and_then(|reference| self.world.object(reference)) else {
            return problem;
        };
        if problem.location.is_some() && problem.location != object.meta.location {
            return problem;
        }
        Problem { location: object.meta.locate(&problem.field), ..problem }
    }

    /// Everything that is wrong, whoever is connected: what [`Plane::problems`] says once everything has been compiled
    /// for a sidecar of every namespace and every workload, and for a client of every selector; and what is doubtful in files
    /// from which nothing was ever rolled out, at `now`, in milliseconds since 1970. Compiles all of that and drops it again.
    pub fn check(&mut self, now: u64) -> Vec<Problem> {
        let audiences = self.typical_audiences();
        let ids: Vec<_> = audiences.iter().map(|audience| self.compiler.add(&self.world, audience).0).collect();
        let mut problems = self.problems();
        problems.extend(self.world.doubts(now).into_iter().map(|problem| self.located(problem)));
        problems.sort();
        for id in ids.into_iter().filter(|id| !self.groups.contains_key(id)) {
            self.compiler.remove(id);
        }
        problems
    }

    fn typical_audiences(&self) -> BTreeSet<Audience> {
        let of = |proxy, namespace: &Arc<str>, labels: Labels| Audience {
            proxy,
            namespace: namespace.clone(),
            labels: Arc::new(labels),
            addresses: Vec::new(),
            hosts: HostDelivery::default(),
            lacks: compile::Extensions::default(),
            // What needs a certificate is compiled, too.
            secrets: compile::Secrets::Stream,
            control_plane: None,
        };
        let mut audiences = BTreeSet::new();
        let sidecar = Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None };
        audiences.extend(self.world.workloads().into_iter().map(|workload| {
            let Workload { namespace, labels, addresses } = workload;
            Audience { addresses, ..of(sidecar.clone(), &namespace, labels) }
        }));
        for object in self.world.objects().filter(|object| !object.reference.namespace.is_empty()) {
            let namespace = &object.reference.namespace;
            audiences.insert(of(sidecar.clone(), namespace, Labels::new()));
            match &object.spec {
                Spec::Gateway(gateway) => _ = audiences.insert(of(Proxy::Gateway, namespace, gateway.selector.clone())),
                Spec::XdsResource(raw) => {
                    let labels = raw.selector.iter().flat_map(|selector| selector.match_labels.clone()).collect();
                    audiences.insert(of(sidecar.clone(), namespace, labels));
                }
                Spec::Namespace(_)
                | Spec::Service(_)
                | Spec::EndpointSlice(_)
                | Spec::Pod(_)
                | Spec::ServiceEntry(_)
                | Spec::WorkloadEntry(_)
                | Spec::DestinationRule(_)
                | Spec::VirtualService(_)
                | Spec::DeploymentIntent(_)
                | Spec::AnalysisProfile(_)
                | Spec::RolloutRun(_)
                | Spec::PeerAuthentication(_)
                | Spec::RequestAuthentication(_)
                | Spec::AuthorizationPolicy(_)
                | Spec::MeshConfig(_)
                | Spec::RateLimitPolicy(_)
                | Spec::Freeze(_) => {}
            }
        }
        audiences
    }

    /// Every object, and every name that has a problem, in order, with its problems.
    pub fn objects(&self) -> Vec<ObjectView> {
        let mut views: BTreeMap<ObjectRef, ObjectView> = BTreeMap::new();
        for object in self.world.objects() {
            let reference = object.reference.clone();
            let generation = self.world.generation(&reference);
            let view = ObjectView { object: Some(object.clone()), generation, reference, problems: Vec::new() };
            views.insert(object.reference.clone(), view);
        }
        for problem in self.problems() {
            let Some(reference) = problem.object.clone() else { continue };
            let empty =
                || ObjectView { object: None, generation: 0, reference: reference.clone(), problems: Vec::new() };
            views.entry(reference.clone()).or_insert_with(empty).problems.push(problem);
        }
        views.into_values().collect()
    }

    /// One object, or a name that has a problem; `None` when there is neither.
    pub fn object(&self, reference: &ObjectRef) -> Option<ObjectView> {
        let object = self.world.object(reference).cloned();
        let is_its = |problem: &Problem| problem.object.as_ref() == Some(reference);
        let problems: Vec<_> = self.problems().into_iter().filter(is_its).collect();
        let generation = self.world.generation(reference);
        let is_known = object.is_some() || !problems.is_empty();
        is_known.then(|| ObjectView { object, generation, reference: reference.clone(), problems })
    }

    /// The snapshot of each audience in use.
    pub fn snapshots(&self) -> BTreeMap<&Audience, Snapshot> {
        self.compiler.snapshots()
    }

    /// How many audiences are in use.
    pub fn audiences(&self) -> usize {
        self.compiler.audiences()
    }

    /// The audience of this name, if it is in use.
    pub fn audience(&self, id: AudienceId) -> Option<&Audience> {
        self.compiler.audience(id)
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }
}
