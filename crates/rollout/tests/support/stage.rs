//! A conductor between a store, a world and nodes that accept everything, with crashes.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use rollout::{
    Action, Conductor, Deed, Endpoints, Event, IntentRecord, Lane, Phase, Picture, Plan, Record, Revision, Run, Sight,
    Standing, Stored, Time, Verb, Wish,
};
use world::api::delivery::{
    AnalysisProfile, Assignment, Choice, DEFAULT_PROFILE, DeploymentIntent, RolloutRun, Weight,
};
use world::{Change, Kind, ObjectRef, Spec};

pub fn intent_named(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::DeploymentIntent, "shop", name)
}

/// The intent that a run is of.
fn intent_of(run: &str) -> String {
    run.rsplit_once('-').unwrap().0.to_owned()
}

pub struct Stage {
    pub now: u64,
    pub conductor: Conductor,
    pub picture: Picture,
    pub intents: BTreeMap<String, IntentRecord>,
    pub runs: BTreeMap<String, Record>,
    pub fence: u64,
    pub disk_is_full: bool,
    /// What the world has: by the run's name.
    pub world: BTreeMap<ObjectRef, RolloutRun>,
    /// Nodes have taken what the world has.
    pub accepts: bool,
    /// How many of them are of those that the intents select.
    pub attached: u32,
    /// Crashes when so many deeds have been carried out.
    pub crash_after: Option<usize>,
    pub deeds: usize,
    pub crashes: usize,
    pub safe: Vec<Revision>,
    pub forgotten: Vec<ObjectRef>,
    /// Revisions that no run of an intent may begin for by itself.
    unwanted: BTreeSet<(String, Revision)>,
    versions: BTreeMap<String, u64>,
    /// The version whose acceptance each run has heard of in this life.
    told: BTreeMap<ObjectRef, (u64, u32)>,
    actions: u64,
    log: Vec<String>,
}

impl Stage {
    pub fn new() -> Self {
        let mut stage = Self {
            now: 1_000_000,
            conductor: Conductor::resume(Time::from_millis(1_000_000), 1, Stored::default()),
            picture: Picture { root_namespace: "istio-system".into(), ..Picture::default() },
            intents: BTreeMap::new(),
            runs: BTreeMap::new(),
            fence: 1,
            disk_is_full: false,
            world: BTreeMap::new(),
            accepts: true,
            attached: 1,
            crash_after: None,
            deeds: 0,
            crashes: 0,
            safe: Vec::new(),
            forgotten: Vec::new(),
            unwanted: BTreeSet::new(),
            versions: BTreeMap::new(),
            told: BTreeMap::new(),
            actions: 0,
            log: Vec::new(),
        };
        stage.look();
        stage
    }

    /// A run of "web" from v1 to v2 that carries out these fields of an intent, and waits in its first step at `weight`.
    pub fn waiting(rest: &str, weight: &str) -> Self {
        let mut stage = Self::new();
        stage.endpoints("web", "v1", 3);
        stage.intend("web", rest);
        stage.endpoints("web", "v2", 3);
        stage.pass(3);
        assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2").to_string().as_str()), ("Waiting", weight));
        stage
    }

    pub fn time(&self) -> Time {
        Time::from_millis(self.now)
    }

    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.log.join("\n"));
    }

    pub fn note(&mut self, text: String) {
        if self.log.len() > 80 {
            self.log.remove(0);
        }
        self.log.push(format!("{:>9} {text}", self.now - 1_000_000));
    }

    /// The intent says this now; a service of its name is there.
    pub fn intend(&mut self, name: &str, rest: &str) {
        let wish = self.wish(rest);
        let sight = self.picture.sights.entry(intent_named(name)).or_default();
        sight.service = Some(("shop".into(), "web".into()));
        if sight.label != wish.spec.revisions.label {
            // What is in force still goes by the other label.
            let label = wish.spec.revisions.label.clone();
            let known = self.picture.held.remove(&intent_named(name)).filter(|held| held.label == label);
            let other = Sight { label, service: sight.service.clone(), ..Sight::default() };
            let before = std::mem::replace(sight, known.unwrap_or(other));
            if !before.label.is_empty() {
                self.picture.held.insert(intent_named(name), before);
            }
        }
        self.note(format!("intent {name} says {rest}"));
        // Who names a revision asks for it.
        if let Choice::Named(named) = &wish.spec.revisions.candidate {
            self.unwanted.remove(&(name.to_owned(), Revision::new(named)));
        }
        self.picture.intents.insert(intent_named(name), wish);
        self.look();
    }

    /// What an intent with these further fields asks for.
    pub fn wish(&self, rest: &str) -> Wish {
        let spec: DeploymentIntent = serde_json::from_str(&format!(r#"{{"service":{{"name":"web"}}{rest}}}"#)).unwrap();
        let profiles = BTreeMap::from([(DEFAULT_PROFILE.to_owned(), AnalysisProfile::envoy_default().metrics)]);
        Wish { spec, profiles, is_refused: false }
    }

    pub fn delete(&mut self, name: &str) {
        self.note(format!("intent {name} is deleted"));
        self.picture.intents.remove(&intent_named(name));
        self.look();
    }

    pub fn endpoints(&mut self, name: &str, revision: &str, healthy: u32) {
        self.note(format!("{revision} has {healthy} endpoints"));
        let sight = self.picture.sights.entry(intent_named(name)).or_insert_with(|| Sight {
            service: Some(("shop".into(), "web".into())),
            label: "version".to_owned(),
            ..Sight::default()
        });
        match healthy {
            0 => _ = sight.endpoints.remove(&Revision::new(revision)),
            _ => _ = sight.endpoints.insert(Revision::new(revision), Endpoints { healthy, total: healthy }),
        }
        self.look();
    }

    /// A revision of which none, or not all, take traffic.
    pub fn unready(&mut self, name: &str, revision: &str, endpoints: Endpoints) {
        let sight = self.picture.sights.get_mut(&intent_named(name)).unwrap();
        sight.endpoints.insert(Revision::new(revision), endpoints);
        self.look();
    }

    pub fn look(&mut self) {
        let picture = self.picture.clone();
        self.conductor.handle_picture(self.time(), picture);
        self.carry_out();
    }

    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1_000;
            self.conductor.handle_timeout(self.time());
            self.carry_out();
        }
    }

    pub fn act(&mut self, name: &str, verb: Verb) -> bool {
        self.actions += 1;
        let action = Action {
            id: format!("a{}", self.actions),
            run: String::new(),
            expected_step: None,
            actor: "alice".to_owned(),
            reason: "because".to_owned(),
            verb: verb.clone(),
        };
        let before = self.meant(name);
        let result = self.conductor.act(self.time(), "shop", name, action);
        self.note(format!("{verb:?}: {result:?}"));
        match (&verb, &before) {
            (Verb::Retry, Some(plan)) if result.is_ok() => {
                _ = self.unwanted.remove(&(intent_of(&plan.run), plan.candidate.clone()))
            }
            (Verb::PromoteVariant(named), Some(plan)) if result.is_ok() => {
                self.unwanted.remove(&(intent_of(&plan.run), Revision::new(named)));
            }
            (Verb::RollbackTo(chosen), Some(plan)) if result.is_ok() => {
                self.unwanted.remove(&(intent_of(&plan.run), chosen.clone()));
            }
            _ => {}
        }
        let lives = self.crashes;
        self.carry_out();
        // What is not durable is not so for good.
        if let (Ok(_), Verb::RollbackTo(chosen), Some(plan)) = (&result, &verb, before)
            && self.conductor.lanes().filter_map(Lane::run).all(Run::is_durable)
            && lives == self.crashes
            && self.intents.values().all(|intent| !intent.is_released)
        {
            let there = &self.picture.sights[&intent_named(name)].endpoints;
            let all = there.keys().chain([&plan.candidate, &plan.stable]);
            let others: Vec<_> = all.filter(|one| *one != chosen).cloned().collect();
            self.unwanted.extend(others.into_iter().map(|one| (intent_of(&plan.run), one)));
        }
        result.is_ok()
    }

    /// The plan of the current run of this intent, or of this name.
    fn meant(&self, name: &str) -> Option<Plan> {
        let mut lanes = self.conductor.lanes().filter_map(|lane| Some((lane.intent(), &lane.run()?.record().plan)));
        lanes.find(|(intent, plan)| *intent.name == *name || plan.run == name).map(|(_, plan)| plan.clone())
    }

    pub fn lane(&self, name: &str) -> &Lane {
        self.conductor.lanes().find(|lane| *lane.intent().name == *name).unwrap()
    }

    pub fn run(&self, name: &str) -> Option<&Run> {
        self.lane(name).run()
    }

    pub fn phase(&self, name: &str) -> String {
        self.run(name).map_or("none".to_owned(), |run| run.record().phase.as_str().to_owned())
    }

    /// What is in force for an intent.
    pub fn in_force(&self, name: &str) -> Option<&Assignment> {
        let mut found = self.world.values().filter(|run| run.intent == name);
        let first = found.next()?;
        if found.next().is_some() {
            self.fail("two assignments are in force for one intent");
        }
        first.assignment.as_ref()
    }

    pub fn weight(&self, name: &str, revision: &str) -> Weight {
        self.in_force(name).map_or(Weight::ZERO, |assignment| assignment.weight_of(&Revision::new(revision)))
    }

    /// Loses everything but the store and the picture.
    pub fn crash(&mut self) {
        self.crashes += 1;
        self.fence += 1;
        self.note("crash".to_owned());
        let before = self.world.clone();
        self.world.clear();
        self.told.clear();
        let runs = self.runs.values().map(|record| ("shop".to_owned(), record.clone())).collect();
        let stored = Stored { intents: self.intents.values().cloned().collect(), runs };
        self.conductor = Conductor::resume(self.time(), self.fence, stored);
        self.carry_out();
        // Clients connect now, before anything is seen: they must not get less than they had.
        for (run, was) in before {
            // Its end is durable, and was only not carried out.
            if self.intents.get(&was.intent).is_some_and(|record| record.is_released) {
                continue;
            }
            let Some(is) = self.in_force(&was.intent) else { self.fail(&format!("{run} is not in force any more")) };
            if is.version < was.assignment.as_ref().map_or(0, |assignment| assignment.version) {
                self.fail(&format!("{run} is in force in an older form"));
            }
        }
        self.look();
    }

    pub fn carry_out(&mut self) {
        for _ in 0..400 {
            let Some(deed) = self.conductor.poll_deed() else {
                if self.stand() {
                    continue;
                }
                return;
            };
            self.deeds += 1;
            let crashes = self.crash_after == Some(self.deeds);
            match deed {
                Deed::SaveRun { run, record } => {
                    let sequence = record.sequence;
                    let event = match self.disk_is_full {
                        true => Event::CommitFailed { sequence, words: "no space".to_owned(), is_fenced: false },
                        false => {
                            self.note(format!("{}: {} at {}", run.name, record.phase, record.weight()));
                            self.check_wanted(&record);
                            self.runs.insert(run.name.to_string(), *record);
                            Event::Committed(sequence)
                        }
                    };
                    if crashes {
                        return self.crash();
                    }
                    self.conductor.handle(self.time(), &run, event);
                }
                Deed::SaveIntent(record) => {
                    let (intent, sequence) = (intent_named(&record.name), record.sequence);
                    let result = match self.disk_is_full {
                        true => Err("no space".to_owned()),
                        false => {
                            // An intent that comes again after its end begins with nothing.
                            if record.is_released {
                                self.unwanted.clear();
                            }
                            self.intents.insert(record.name.clone(), *record);
                            Ok(())
                        }
                    };
                    if crashes {
                        return self.crash();
                    }
                    self.conductor.intent_saved(self.time(), &intent, sequence, result);
                }
                Deed::Change(changes) => self.change(changes),
                Deed::SafeToScaleDown { revision, .. } => self.safe.push(revision),
                Deed::ForgetRun(run) => {
                    self.runs.remove(&*run.name);
                    self.forgotten.push(run);
                }
                Deed::AskGate { .. } | Deed::Notify { .. } | Deed::LoadReports { .. } => {}
            }
            if crashes {
                return self.crash();
            }
        }
        self.fail("the conductor has no end of deeds");
    }

    fn change(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Remove(reference) => {
                    self.note(format!("{} is not in force any more", reference.name));
                    self.world.remove(&reference);
                }
                Change::Apply(object) => {
                    let Spec::RolloutRun(run) = &object.spec else { self.fail("something else than a run is applied") };
                    let assignment = run.assignment.clone().unwrap();
                    self.note(format!(
                        "{} is in force: {} {:?}",
                        object.reference.name, assignment.version, assignment.split
                    ));
                    if object.meta.generation != assignment.version as i64 {
                        self.fail("the object's generation is not the assignment's version");
                    }
                    let last = self.versions.entry(run.intent.clone()).or_default();
                    if assignment.version < *last {
                        let last = *last;
                        self.fail(&format!("version {} comes after {last}", assignment.version));
                    }
                    *last = assignment.version;
                    self.check_durable(run, &object.reference.name);
                    self.world.insert(object.reference.clone(), (**run).clone());
                }
            }
        }
        let names: Vec<_> = self.world.values().map(|run| run.intent.clone()).collect();
        names.iter().for_each(|name| drop(self.in_force(name).cloned()));
    }

    /// What is published can be found again.
    fn check_durable(&self, run: &RolloutRun, name: &str) {
        let version = run.assignment.as_ref().unwrap().version;
        let of_run = self.runs.get(name).is_some_and(|record| record.assignment.version >= version);
        let baseline = self.intents.get(&run.intent).and_then(|record| record.baseline.as_ref());
        if !of_run && baseline.is_none_or(|(_, known)| *known != version) {
            self.fail(&format!("{name} version {version} is published and not durable"));
        }
    }

    /// A run that begins is one that a new revision, or somebody, asks for.
    fn check_wanted(&mut self, record: &Record) {
        let candidate = &record.plan.candidate;
        let begins = !self.runs.contains_key(&record.plan.run) && !record.phase.is_over();
        if begins && self.unwanted.contains(&(intent_of(&record.plan.run), candidate.clone())) {
            self.fail(&format!("nobody wants {} towards \"{candidate}\"", record.plan.run));
        }
        let is_next = record.successor.as_ref().is_some_and(|next| next.candidate == *candidate);
        // Of an intent that is released nothing counts any more.
        let is_released = self.intents.values().any(|intent| intent.is_released);
        if record.phase == Phase::RolledBack && !is_next && !is_released {
            self.unwanted.insert((intent_of(&record.plan.run), candidate.clone()));
        }
    }

    /// One node takes what is in force. Whether anybody was told something new.
    fn stand(&mut self) -> bool {
        if !self.accepts {
            return false;
        }
        let mut is_new = false;
        for (run, version) in self.conductor.standing_wanted() {
            let applied = self.world.get(&run).and_then(|run| run.assignment.as_ref()).map(|a| a.version);
            if applied == Some(version) && self.told.get(&run) != Some(&(version, self.attached)) {
                is_new = true;
                self.told.insert(run.clone(), (version, self.attached));
                let (concerned, accepted, attached) = (1, 1, self.attached);
                let standing = Standing { version, concerned, accepted, attached, refused: Vec::new(), stale: 0 };
                self.conductor.handle(self.time(), &run, Event::Standing(standing));
            }
        }
        is_new
    }
}
