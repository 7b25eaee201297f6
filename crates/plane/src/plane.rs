//! The machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use compile::{Audience, Compiler, HostDelivery, Interception, Options, Proxy, Work};
use snapshot::Snapshot;
use world::{Change, Key, Labels, Object, ObjectRef, Problem, Reader, Settings, Spec, World};

use crate::{Node, NodeError};

/// What applying changes led to.
#[derive(Debug, Default)]
pub struct Publication {
    /// The audiences whose snapshot is another now, with the new one.
    pub snapshots: Vec<(Audience, Snapshot)>,
    /// The members that belong to another audience now, because the world has learnt something about their workload.
    pub moved: Vec<Membership>,
    /// What compiling cost.
    pub work: Work,
}

/// Names an attached node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(u64);

/// What an attached node has a part in.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The node.
    pub member: MemberId,
    /// The audience that it belongs to.
    pub audience: Audience,
    /// The audience's snapshot.
    pub snapshot: Snapshot,
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

/// World, compiler, and the audiences in use.
#[derive(Debug)]
pub struct Plane {
    world: World,
    compiler: Compiler,
    members: BTreeMap<MemberId, (Node, Audience)>,
    last_member: u64,
    /// Members per audience; a snapshot is kept up to date while there is one.
    users: HashMap<Audience, usize>,
    source_problems: Vec<Problem>,
}

impl Plane {
    /// A plane that knows of nothing.
    pub fn new(settings: Settings, options: Options) -> Self {
        Self {
            world: World::new(settings),
            compiler: Compiler::new(options),
            members: BTreeMap::new(),
            last_member: 0,
            users: HashMap::new(),
            source_problems: Vec::new(),
        }
    }

    /// Takes in changes of sources, with all problems that the sources have now, and compiles once.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>, source_problems: Vec<Problem>) -> Publication {
        let touched = self.take_in(changes, source_problems);
        self.compile(&touched)
    }

    /// The first half of [`Plane::apply`]: the world knows, and nothing is compiled. Returns what to compile for.
    #[must_use]
    pub fn take_in(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        source_problems: Vec<Problem>,
    ) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for change in changes {
            touched.extend(self.world.apply(change));
        }
        self.source_problems = source_problems;
        touched
    }

    /// The second half of [`Plane::apply`]: compiles what depends on what was touched.
    pub fn compile(&mut self, touched: &BTreeSet<Key>) -> Publication {
        let update = self.compiler.update(&self.world, touched);
        let moved = self.regroup(touched);
        Publication { snapshots: update.snapshots, moved, work: update.work }
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
        let snapshot = self.join(&audience);
        self.members.insert(member, (node.clone(), audience.clone()));
        Ok(Membership { member, audience, snapshot })
    }

    /// A node is gone. Returns the audience that it belonged to, if nobody else does now.
    pub fn detach(&mut self, member: MemberId) -> Option<Audience> {
        let (_, audience) = self.members.remove(&member)?;
        self.leave(&audience).then_some(audience)
    }

    /// Finds the members that a change of pods or workload entries gives other labels than they had when they came.
    fn regroup(&mut self, touched: &BTreeSet<Key>) -> Vec<Membership> {
        let of_workload = |audience: &Audience| touched.contains(&Key::Workloads(audience.namespace.clone()));
        let reader = Reader::new(&self.world);
        let mut moves = Vec::new();
        for (member, (node, audience)) in self.members.iter().filter(|(_, (_, audience))| of_workload(audience)) {
            match node.audience(&reader) {
                Ok(now) if now != *audience => moves.push((*member, now)),
                // A node that was accepted stays.
                Ok(_) | Err(_) => {}
            }
        }
        let mut moved = Vec::new();
        for (member, audience) in moves {
            let snapshot = self.join(&audience);
            let Some((_, before)) = self.members.get_mut(&member) else { continue };
            let before = std::mem::replace(before, audience.clone());
            self.leave(&before);
            moved.push(Membership { member, audience, snapshot });
        }
        moved
    }

    fn join(&mut self, audience: &Audience) -> Snapshot {
        *self.users.entry(audience.clone()).or_default() += 1;
        self.compiler.add(&self.world, audience)
    }

    /// One member less; whether it was the last.
    fn leave(&mut self, audience: &Audience) -> bool {
        let Some(users) = self.users.get_mut(audience) else { return false };
        *users -= 1;
        let last = *users == 0;
        if last {
            self.users.remove(audience);
            self.compiler.remove(audience);
        }
        last
    }

    /// Everything that is wrong: what sources found, what objects say about each other, what compiling found.
    pub fn problems(&self) -> Vec<Problem> {
        let all = self.source_problems.iter().cloned().map(|problem| self.located(problem));
        all.chain(self.found()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What is wrong beside what sources found, in order, each once.
    pub fn found_problems(&self) -> BTreeSet<Problem> {
        self.found().collect()
    }

    fn found(&self) -> impl Iterator<Item = Problem> {
        self.world.problems().into_iter().chain(self.compiler.problems()).map(|problem| self.located(problem))
    }

    /// Who found a problem may not know where the object stands: the world does.
    fn located(&self, problem: Problem) -> Problem {
        if problem.location.is_some() {
            return problem;
        }
        let object = problem.object.as_ref().and_then(|reference| self.world.object(reference));
        let location = object.and_then(|object| object.meta.location.clone());
        Problem { location, ..problem }
    }

    /// Everything that is wrong, whoever is connected: what [`Plane::problems`] says once everything has been compiled
    /// for a sidecar of every namespace, and for a client of every selector. Compiles all of that and drops it again.
    pub fn check(&mut self) -> Vec<Problem> {
        let audiences = self.typical_audiences();
        for audience in &audiences {
            self.compiler.add(&self.world, audience);
        }
        let problems = self.problems();
        for audience in audiences.iter().filter(|audience| !self.users.contains_key(audience)) {
            self.compiler.remove(audience);
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
        };
        let mut audiences = BTreeSet::new();
        for object in self.world.objects().filter(|object| !object.reference.namespace.is_empty()) {
            let namespace = &object.reference.namespace;
            let sidecar = Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None };
            audiences.insert(of(sidecar.clone(), namespace, Labels::new()));
            match &object.spec {
                Spec::Gateway(gateway) => _ = audiences.insert(of(Proxy::Gateway, namespace, gateway.selector.clone())),
                Spec::XdsResource(raw) => {
                    let labels = raw.selector.iter().flat_map(|selector| selector.match_labels.clone()).collect();
                    audiences.insert(of(sidecar, namespace, labels));
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
    pub fn snapshots(&self) -> BTreeMap<&Audience, &Snapshot> {
        self.compiler.snapshots()
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }
}
