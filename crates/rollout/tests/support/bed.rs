//! A run between a store, a fleet of nodes and people, with crashes: it does what a driver does, and watches.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rollout::{
    Action, Assignment, Effect, Endpoints, Event, Evidence, GateAnswer, Observation, Phase, Plan, Record, Refusal,
    Revision, Run, Standing, Successor, Tally, Time, Verb,
};
use world::api::delivery::{AnalysisProfile, DEFAULT_PROFILE, DeploymentIntent, GatePhase, Weight};

pub fn revision(name: &str) -> Revision {
    Revision::new(name)
}

/// An intent from JSON, for a service called `shop`.
pub fn intent(rest: &str) -> DeploymentIntent {
    serde_json::from_str(&format!(r#"{{"service":{{"name":"shop"}}{rest}}}"#)).unwrap()
}

pub fn plan(spec: DeploymentIntent) -> Plan {
    Plan {
        run: "shop-1".to_owned(),
        generation: 1,
        spec,
        profiles: BTreeMap::from([(DEFAULT_PROFILE.to_owned(), AnalysisProfile::envoy_default().metrics)]),
        stable: revision("v1"),
        candidate: revision("v2"),
        attempt: 1,
        is_fast: false,
        known_good: vec![revision("v0")],
        lingering: Vec::new(),
        first_version: 7,
        fence: 1,
    }
}

#[derive(Clone, Default)]
pub struct Node {
    pub connected: bool,
    /// What it has in force.
    pub holds: Option<Assignment>,
    /// The version that it refused last.
    pub refused: Option<u64>,
    /// Revisions whose clusters it has accepted.
    pub clusters: BTreeSet<Revision>,
}

pub struct Bed {
    pub now: u64,
    pub run: Run,
    pub durable: Option<Record>,
    pub fence: u64,
    pub disk_is_full: bool,
    pub nodes: Vec<Node>,
    pub published: Option<Assignment>,
    pub endpoints: BTreeMap<Revision, Endpoints>,
    pub successors: Vec<Successor>,
    pub safe: Vec<Revision>,
    /// What those who want to know were told.
    pub notices: Vec<String>,
    pub gates: GateAnswer,
    /// What gates of phase `Rollback` say: yes means to go back.
    pub rollback_gates: GateAnswer,
    pub asked: usize,
    /// Crashes when so many effects have been looked at.
    pub crash_after: Option<usize>,
    pub effects: usize,
    pub crashes: usize,
    pub log: VecDeque<String>,
    has_endpoints: bool,
    actions: u64,
}

impl Bed {
    pub fn new(plan: Plan, nodes: usize) -> Self {
        let endpoints = ["v1", "v2"].map(|name| (revision(name), Endpoints { healthy: 4, total: 4 }));
        let run = Run::start(Time::from_millis(1_000_000), plan);
        let mut bed = Self {
            now: 1_000_000,
            run,
            durable: None,
            fence: 1,
            disk_is_full: false,
            nodes: vec![Node { connected: true, ..Node::default() }; nodes],
            published: None,
            endpoints: endpoints.into(),
            successors: Vec::new(),
            safe: Vec::new(),
            notices: Vec::new(),
            gates: GateAnswer::Approved,
            rollback_gates: GateAnswer::NotYet,
            asked: 0,
            crash_after: None,
            effects: 0,
            crashes: 0,
            log: VecDeque::new(),
            has_endpoints: false,
            actions: 0,
        };
        bed.perform();
        bed.tell_endpoints();
        bed
    }

    pub fn time(&self) -> Time {
        Time::from_millis(self.now)
    }

    pub fn phase(&self) -> Phase {
        self.run.record().phase
    }

    pub fn weight(&self) -> Weight {
        self.run.record().weight()
    }

    pub fn note(&mut self, text: String) {
        if self.log.len() > 60 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:>9} {text}", self.now.saturating_sub(1_000_000)));
    }

    pub fn fail(&self, what: &str) -> ! {
        let log: Vec<_> = self.log.iter().cloned().collect();
        panic!(
            "{what}\nin {}, held by {:?}, with {:?}\n{}",
            self.phase(),
            self.run.hold(),
            self.run.record().assignment,
            log.join("\n")
        );
    }

    pub fn tell(&mut self, event: Event) {
        self.run.handle(self.time(), event);
        self.check();
        self.perform();
    }

    pub fn tell_endpoints(&mut self) {
        self.has_endpoints = true;
        self.tell(Event::Endpoints(self.endpoints.clone()));
    }

    pub fn set_healthy(&mut self, name: &str, healthy: u32) {
        self.endpoints.insert(revision(name), Endpoints { healthy, total: healthy.max(4) });
        self.note(format!("{name} has {healthy} healthy endpoints"));
        self.tell_endpoints();
    }

    /// One node takes what is published, or refuses it.
    pub fn deliver(&mut self, at: usize, accepts: bool) {
        let Some(published) = self.published.clone() else { return };
        let node = &mut self.nodes[at];
        if !node.connected || node.holds.as_ref().is_some_and(|held| held.version == published.version) {
            return;
        }
        // Nothing is sent twice to a node that has refused it.
        if node.refused == Some(published.version) {
            return;
        }
        match accepts {
            true => {
                node.clusters.extend(published.revisions().into_iter().cloned());
                node.holds = Some(published);
            }
            false => node.refused = Some(published.version),
        }
        self.note(format!("node {at} {}", if accepts { "accepts" } else { "refuses" }));
        self.stand();
    }

    pub fn deliver_all(&mut self) {
        // What they accept may let the run publish the next thing: until nothing is new.
        for _ in 0..8 {
            for at in 0..self.nodes.len() {
                self.deliver(at, true);
            }
        }
    }

    pub fn stand(&mut self) {
        let Some(published) = &self.published else { return };
        let version = published.version;
        let connected: Vec<_> = self.nodes.iter().enumerate().filter(|(_, node)| node.connected).collect();
        let accepted = connected.iter().filter(|(_, n)| n.holds.as_ref().is_some_and(|held| held.version == version));
        let refused = connected.iter().filter(|(_, n)| n.refused == Some(version));
        let refused = refused.map(|(at, _)| Refusal { node: format!("n{at}"), words: "no".to_owned() });
        let standing = Standing {
            version,
            concerned: connected.len() as u32,
            accepted: accepted.count() as u32,
            attached: connected.len() as u32,
            refused: refused.collect(),
            stale: 0,
        };
        self.tell(Event::Standing(standing));
    }

    /// Connects a node anew, without anything, or takes it away.
    pub fn toggle(&mut self, at: usize) {
        let connected = !self.nodes[at].connected;
        self.nodes[at] = Node { connected, ..Node::default() };
        self.note(format!("node {at} {}", if connected { "comes" } else { "goes" }));
        self.stand();
    }

    pub fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.run.handle_timeout(self.time());
        self.check();
        self.perform();
    }

    /// One second of requests in both arms, divided as the first connected node has it.
    pub fn traffic(&mut self, requests: u64, candidate_errors: f64, stable_errors: f64) {
        let (stable, candidate) = (self.run.record().plan.stable.clone(), self.run.record().plan.candidate.clone());
        let held = self.nodes.iter().find(|n| n.connected).and_then(|n| n.holds.clone());
        let share = |revision: &Revision| {
            let mirror = held.as_ref().and_then(|held| held.mirror.as_ref()).filter(|mirror| mirror.to == *revision);
            let copies = mirror.map_or(0.0, |mirror| mirror.share.fraction());
            held.as_ref().map_or(0.0, |held| held.weight_of(revision).fraction()) + copies
        };
        let arm = |share: f64, errors: f64| {
            let total = (requests as f64 * share).round();
            Tally::new(total as u64, (total * errors).round() as u64)
        };
        let counts = Observation::Counts {
            candidate: arm(share(&candidate), candidate_errors),
            stable: arm(share(&stable), stable_errors),
            parts: Vec::new(),
        };
        let from = self.time();
        self.now += 1_000;
        let evidence = Evidence {
            from,
            until: self.time(),
            reporters: 3,
            metrics: BTreeMap::from([("error-rate".to_owned(), counts)]),
        };
        self.tell(Event::Evidence(evidence));
    }

    pub fn act(&mut self, verb: Verb) -> bool {
        self.actions += 1;
        let action = Action {
            id: format!("a{}", self.actions),
            run: self.run.record().plan.run.clone(),
            expected_step: None,
            actor: "alice".to_owned(),
            reason: "because".to_owned(),
            verb: verb.clone(),
        };
        let result = self.run.act(self.time(), action);
        self.note(format!("{verb:?}: {result:?}"));
        self.check();
        self.perform();
        result.is_ok()
    }

    /// Loses everything but the store.
    pub fn crash(&mut self) {
        let Some(record) = self.durable.clone() else { return };
        self.crashes += 1;
        self.fence += 1;
        self.has_endpoints = false;
        self.note(format!("crash; the store has {} at {}", record.phase, record.weight()));
        self.run = Run::resume(self.time(), record, self.fence);
        self.check();
        self.perform();
        // What a driver says to a run that it has resumed.
        self.tell_endpoints();
        self.stand();
    }

    fn perform(&mut self) {
        let mut count = 0;
        let version = self.published.as_ref().map(|published| published.version);
        while let Some(effect) = self.run.poll_effect() {
            count += 1;
            if count > 300 {
                self.fail("the run has no end of effects");
            }
            self.effects += 1;
            let crashes = self.crash_after == Some(self.effects);
            match effect {
                Effect::Commit(record) => {
                    let sequence = record.sequence;
                    if self.disk_is_full {
                        let words = "no space left".to_owned();
                        self.run.handle(self.time(), Event::CommitFailed { sequence, words, is_fenced: false });
                    } else {
                        self.note(format!("commit {sequence}: {} at {}", record.phase, record.weight()));
                        self.durable = Some(*record);
                        // The store has it, and nobody hears of it.
                        if crashes {
                            return self.crash();
                        }
                        self.run.handle(self.time(), Event::Committed(sequence));
                    }
                    self.check();
                }
                Effect::Publish(assignment) => {
                    self.check_publication(&assignment);
                    self.note(format!("publish {}: {:?}", assignment.version, assignment.split));
                    self.published = Some(assignment);
                }
                Effect::AskGate(question) => {
                    self.asked += 1;
                    let is_rollback = question.id.phase == GatePhase::Rollback;
                    let answer = if is_rollback { self.rollback_gates.clone() } else { self.gates.clone() };
                    self.run.handle(self.time(), Event::Gate(question.id, answer));
                    self.check();
                }
                Effect::StartRun(successor) => {
                    if !self.phase().is_terminal() {
                        self.fail("I10: another run begins while this one goes on");
                    }
                    if self.successors.iter().any(|known| *known != successor) {
                        self.fail("I10: two different runs are to come after this one");
                    }
                    self.successors.push(successor);
                }
                Effect::SafeToScaleDown(revision) => {
                    let uses = |n: &Node| n.connected && n.holds.as_ref().is_some_and(|h| h.reaches(&revision));
                    if self.nodes.iter().any(uses) {
                        self.fail("I5: a revision that a node still uses may be scaled down");
                    }
                    self.safe.push(revision);
                }
                Effect::Notify(notice) => self.notices.push(notice.text),
                Effect::LoadReports { .. } => {}
            }
            if crashes {
                return self.crash();
            }
        }
        // A driver says where nodes stand whenever there is something new to stand by.
        if self.published.as_ref().map(|published| published.version) != version {
            self.stand();
        }
    }

    /// What must hold after every event.
    fn check(&self) {
        let record = self.run.record();
        let assignment = &record.assignment;
        if !assignment.is_whole() {
            self.fail("I1: weights do not add up");
        }
        let healthy = |r: &Revision| self.endpoints.get(r).map_or(0, |e| e.healthy);
        if self.has_endpoints && !record.phase.is_terminal() && healthy(&record.plan.stable) > 0 {
            for reached in assignment.revisions().into_iter().filter(|r| assignment.reaches(r)) {
                if healthy(reached) == 0 {
                    self.fail(&format!("I3: \"{reached}\" has no healthy endpoint and gets requests"));
                }
            }
        }
    }

    fn check_publication(&self, next: &Assignment) {
        let record = self.durable.as_ref().unwrap_or_else(|| self.fail("I6: published before anything was durable"));
        if record.assignment.version < next.version {
            self.fail("I6: published before it was durable");
        }
        if !self.successors.is_empty() && self.published.as_ref().is_some_and(|p| p.version != next.version) {
            self.fail("I10: a run publishes after it has let go of its service");
        }
        for node in self.nodes.iter().filter(|n| n.connected && !n.clusters.is_empty()) {
            for reached in next.revisions().into_iter().filter(|r| next.reaches(r)) {
                // What nodes had before the run began is not the run's to prepare.
                if *reached != record.plan.stable && !node.clusters.contains(reached) {
                    self.fail(&format!("I2: \"{reached}\" gets requests from a node without its cluster"));
                }
            }
        }
        let Some(before) = &self.published else { return };
        if next.version < before.version {
            self.fail("an older assignment is published after a newer one");
        }
        let phase = self.phase();
        if next.revisions() != before.revisions() && !phase.is_terminal() && phase != Phase::Preparing {
            // A crash between the commit and the publication of the first assignment shows it later.
            if before.version != record.plan.first_version {
                self.fail("I4: a step changes the set of clusters");
            }
        }
        for dropped in before.revisions().difference(&next.revisions()) {
            let uses = |n: &Node| n.connected && n.holds.as_ref().is_some_and(|held| held.reaches(dropped));
            if self.nodes.iter().any(uses) {
                self.fail(&format!("I5: the clusters of \"{dropped}\" go while a node uses them"));
            }
        }
    }

    /// Everybody behaves from now on, and time passes: how the run ends.
    pub fn settle(&mut self) -> Phase {
        self.disk_is_full = false;
        self.crash_after = None;
        self.gates = GateAnswer::Approved;
        for node in &mut self.nodes {
            node.connected = true;
            node.refused = None;
        }
        for name in ["v1", "v2", "v3"] {
            self.endpoints.insert(revision(name), Endpoints { healthy: 4, total: 4 });
        }
        self.tell_endpoints();
        self.tell(Event::Frozen(None));
        for second in 0..30_000 {
            if self.run.is_finished() {
                return self.phase();
            }
            self.deliver_all();
            if second % 60 == 0 && !self.phase().is_over() {
                self.act(Verb::Resume);
                if matches!(self.phase(), Phase::Step { .. } | Phase::Bake) {
                    self.act(Verb::Promote);
                }
            }
            self.traffic(10_000, 0.001, 0.001);
        }
        self.fail("the run does not end although everybody behaves");
    }

    pub fn minutes(&mut self, minutes: u64) {
        self.pass(Duration::from_secs(minutes * 60).as_millis() as u64);
    }
}
