//! The state machine.
//!
//! Facts come in and are noted; then the run takes as many steps as they allow. So the order in which facts arrive
//! does not matter, a fact may come twice, and a run that was resumed needs to be told only how things are.

mod act;
mod advance;
mod edit;
mod gates;
pub(crate) mod hold;
mod rollback;
mod variants;
mod waiting;
mod weights;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::event::{Endpoints, Event, GateId, Standing};
use crate::steps::{Step, steps};
use crate::{Assignment, Effect, Evidence, Explanation, Judge, Notice, Passage, Phase, Plan, Record, Revision, Time};

pub use hold::{Hold, HoldReason};

/// After a restart a run advances when this share of its nodes is back, in percent, or after so long.
const RETURNED_PERCENT: u64 = 95;
const RETURN_WAIT: Duration = Duration::from_secs(30);
/// Between attempts to make a record durable.
const COMMIT_RETRY: Duration = Duration::from_secs(2);
/// Evidence that nobody wrote down is lost by a crash; more than this is not at stake.
const CHECKPOINT: Duration = Duration::from_secs(10);
/// Before stable has nothing to serve any more, so many of its requests are counted, or for so long: afterwards there
/// is nothing else to compare the candidate with.
const PAST_REQUESTS: f64 = 1_000.0;
const PAST_WAIT: Duration = Duration::from_secs(10);
/// How often proxies report while a run goes on, and while none does.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);
const IDLE_INTERVAL: Duration = Duration::from_secs(30);
/// Entries of a record's lists.
const KEPT: usize = 100;

/// One attempt to carry out an intent. See the crate's page for how it is driven.
#[derive(Clone, Debug)]
pub struct Run {
    record: Record,
    now: Time,
    /// What the steps of the strategy are; they follow from the record.
    steps: Vec<Step>,
    endpoints: Option<BTreeMap<Revision, Endpoints>>,
    standing: Standing,
    /// Since when none of the clients that the intent selects is connected; `None` while one is, and before anything is
    /// known of them.
    unattended: Option<Time>,
    frozen: Option<String>,
    /// Whether somebody holds it back, and when somebody ceased to: a run does not run out of time for that.
    held_back: (bool, Time),
    /// The record has changed since it was handed out last.
    is_dirty: bool,
    handed_out: u64,
    durable: u64,
    /// The sequence number of the first record with the current assignment.
    assigned: u64,
    /// The version published last, and when.
    published: Option<(u64, Time)>,
    commit_failure: Option<(String, Time)>,
    is_fenced: bool,
    recovering: Option<Recovering>,
    /// Questions without an answer, and when they were asked.
    asked: BTreeMap<GateId, Time>,
    checkpoint: Time,
    held: Option<(HoldReason, Time)>,
    /// What a step waits for before it assigns anything, beside endpoints and gates.
    awaited: Option<HoldReason>,
    /// The first point in time at which something could change by itself.
    due: Option<Time>,
    effects: VecDeque<Effect>,
    /// Effects that must not be seen before the record of this sequence number is durable.
    after: VecDeque<(u64, Effect)>,
}

/// What a resumed run waits for before it advances.
#[derive(Clone, Copy, Debug)]
struct Recovering {
    since: Time,
    has_nodes: bool,
    has_evidence: bool,
}

impl Run {
    /// A run that has not begun. Nothing is in force on its account; poll it.
    pub fn start(now: Time, plan: Plan) -> Self {
        let assignment = Assignment {
            version: plan.first_version,
            split: weights::only(&plan, &plan.stable),
            routes: Vec::new(),
            mirror: None,
            stickiness: plan.spec.stickiness.clone(),
            fallback: None,
        };
        let metrics = plan.own_metrics();
        let record = Record {
            sequence: 0,
            next_spec: None,
            next_profiles: None,
            phase: Phase::Pending,
            since: now,
            started: now,
            now,
            acknowledged: assignment.clone(),
            before: assignment.clone(),
            assignment,
            settled: Some(now),
            nodes: 0,
            basis: 0,
            reason: None,
            wanted: None,
            refusals: Vec::new(),
            paused: None,
            is_promoted: false,
            has_stepped_back: false,
            ramp_from: None,
            is_released: false,
            left: Vec::new(),
            successor: None,
            queued: None,
            gates: Vec::new(),
            actions: Vec::new(),
            history: Vec::new(),
            held: None,
            unblocked: None,
            judge: Judge::new(now, seed(&plan.run), &plan.spec.analysis, &metrics),
            plan,
        };
        let mut run = Self::over(record, now);
        run.is_dirty = true;
        run.drive();
        run
    }

    /// Goes on from the last durable record: publishes what it says, and advances only when nodes and evidence are
    /// back. `fence` is the new writer's token, above every one before.
    pub fn resume(now: Time, mut record: Record, fence: u64) -> Self {
        record.plan.fence = fence;
        let mut run = Self::over(record, now);
        // The record is durable as it is; only the token is new, which the next one carries.
        run.durable = run.record.sequence;
        run.handed_out = run.record.sequence;
        run.is_dirty = true;
        let arms = run.arms();
        run.record.judge.resume(run.now, arms);
        let mut metrics = run.record.plan.own_metrics();
        metrics.extend(run.record.plan.metrics());
        run.record.judge.rename(&metrics);
        run.recovering = Some(Recovering { since: run.now, has_nodes: false, has_evidence: false });
        if run.record.phase != Phase::Pending {
            run.assigned = run.record.sequence;
            run.publish();
            run.load_reports();
        }
        if run.record.phase.is_terminal() {
            run.announce_end();
        }
        run.drive();
        run
    }

    fn over(record: Record, now: Time) -> Self {
        let now = now.max(record.now);
        let mut run = Self {
            now,
            steps: Vec::new(),
            endpoints: None,
            standing: Standing::default(),
            unattended: None,
            frozen: None,
            held_back: (false, Time::from_millis(0)),
            is_dirty: false,
            handed_out: 0,
            durable: 0,
            assigned: 0,
            published: None,
            commit_failure: None,
            is_fenced: false,
            recovering: None,
            asked: BTreeMap::new(),
            checkpoint: now,
            held: None,
            awaited: None,
            due: None,
            effects: VecDeque::new(),
            after: VecDeque::new(),
            record,
        };
        run.plan_steps();
        run
    }

    /// Tells the run what has happened. Poll effects and the timeout afterwards.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Endpoints(endpoints) => self.endpoints = Some(endpoints),
            Event::Committed(sequence) => self.committed(sequence),
            Event::CommitFailed { sequence, words, is_fenced } => {
                if sequence == self.handed_out && sequence > self.durable {
                    self.commit_failure = Some((words, self.now));
                }
                self.is_fenced |= is_fenced;
            }
            Event::Standing(standing) => self.stand(standing),
            Event::Evidence(evidence) => self.measure(&evidence),
            Event::Gate(id, answer) => self.answered(id, answer),
            Event::Edited { spec, generation, profiles } => self.edited(*spec, generation, profiles),
            Event::NewRevision(revision) => self.appeared(revision),
            Event::Frozen(reason) => self.frozen = reason,
        }
        self.drive();
    }

    /// Tells the run that time has passed: at [`Run::poll_timeout`], or whenever.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.drive();
    }

    /// The next thing to do, in order. Poll until there is none after every call that takes `&mut self`.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`Run::handle_timeout`] at the latest; `None` when only events can change anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.due.filter(|_| !self.is_fenced)
    }

    /// Everything that is stored of it, as it is now; perhaps newer than what is durable.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether everything that it has decided would survive a crash.
    pub fn is_durable(&self) -> bool {
        !self.is_dirty && self.durable >= self.record.sequence
    }

    /// Whether its record could not be made durable, and is not being written again.
    pub fn has_commit_failed(&self) -> bool {
        self.commit_failure.is_some()
    }

    /// How many steps the strategy comes down to.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// Every number that the verdict on the candidate rests on.
    pub fn explain(&self) -> Explanation {
        self.record.judge.explain()
    }

    /// Whether there is nothing left to do: its end is durable, and the clusters of what is left are gone.
    pub fn is_finished(&self) -> bool {
        self.is_fenced
            || (self.record.phase.is_terminal()
                && self.record.is_released
                && self.durable >= self.record.sequence
                && !self.is_dirty
                && self.after.is_empty())
    }

    /// Another writer has taken over: nothing that this run still says counts.
    pub fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// Takes as many steps as the facts allow, then hands out one record with all that they changed.
    fn drive(&mut self) {
        self.due = None;
        if self.is_fenced {
            self.effects.clear();
            self.after.clear();
            return;
        }
        let is_held_back = self.is_held_back();
        if self.held_back.0 && !is_held_back {
            self.held_back.1 = self.now;
        }
        self.held_back.0 = is_held_back;
        // No run takes more steps at once than its strategy has, each through its stages; the bound is for the case
        // that this is wrong, where a run that waits for its next event is better than one that never returns.
        for _ in 0..(self.steps.len() + 4) * 8 {
            self.due = None;
            if !self.advance() {
                break;
            }
        }
        self.update_hold();
        self.hand_out();
    }

    fn hand_out(&mut self) {
        if let Some((_, at)) = &self.commit_failure {
            let at = *at;
            if self.is_due(at, COMMIT_RETRY) {
                self.commit_failure = None;
                self.is_dirty = true;
            }
        }
        if self.is_dirty && self.commit_failure.is_none() {
            self.is_dirty = false;
            self.record.sequence += 1;
            self.record.now = self.now;
            self.handed_out = self.record.sequence;
            self.checkpoint = self.now;
            self.effects.push_back(Effect::Commit(Box::new(self.record.clone())));
        }
    }

    fn committed(&mut self, sequence: u64) {
        if sequence <= self.durable || sequence > self.handed_out {
            return;
        }
        self.durable = sequence;
        self.commit_failure = None;
        // A newer assignment is on its way to the store: this one has never been in force and never will be.
        let is_current = self.assigned != 0 && sequence >= self.assigned;
        if is_current && self.published.is_none_or(|(version, _)| version < self.record.assignment.version) {
            self.publish();
        }
        while self.after.front().is_some_and(|(needed, _)| *needed <= sequence) {
            let (_, effect) = self.after.pop_front().expect("the front was just looked at");
            self.effects.push_back(effect);
        }
    }

    fn publish(&mut self) {
        self.published = Some((self.record.assignment.version, self.now));
        self.effects.push_back(Effect::Publish(self.record.assignment.clone()));
    }

    fn stand(&mut self, standing: Standing) {
        if self.published.is_none_or(|(version, _)| version != standing.version) {
            return;
        }
        if let Some(recovering) = &mut self.recovering {
            let (back, known) = (u64::from(standing.concerned), u64::from(self.record.nodes));
            recovering.has_nodes |= back * 100 >= known * RETURNED_PERCENT;
        }
        self.record.nodes = match self.recovering {
            Some(_) => self.record.nodes.max(standing.concerned),
            None => standing.concerned,
        };
        let is_unattended = self.record.plan.spec.attach.is_selective() && standing.attached == 0;
        self.unattended = if is_unattended { self.unattended.or(Some(self.now)) } else { None };
        self.standing = standing;
        if self.record.settled.is_none() && self.is_accepted_by_all() {
            self.record.settled = Some(self.now);
            if !self.record.acknowledged.says_the_same(&self.record.assignment) {
                self.record.before = std::mem::replace(&mut self.record.acknowledged, self.record.assignment.clone());
            }
            // Behind what was prepared lies only what was before the run: nothing to step back to.
            if self.record.phase == Phase::Preparing {
                self.record.before = self.record.assignment.clone();
            }
            self.is_dirty = true;
        }
    }

    fn measure(&mut self, evidence: &Evidence) {
        if let Some(recovering) = &mut self.recovering {
            recovering.has_evidence |= evidence.reporters > 0 && evidence.until > recovering.since;
        }
        let warmup = self.record.plan.spec.analysis.warmup;
        // What was counted before the current weights arrived, and shortly after, is about other weights.
        let is_warm = self
            .published
            .is_some_and(|(version, at)| version == self.record.assignment.version && evidence.from >= at.plus(warmup));
        let is_live = !self.record.phase.is_over() || self.record.ramp_from.is_some();
        let counts = is_warm && is_live && self.record.is_exposed();
        let plan = &self.record.plan;
        // Nothing but stable's own traffic: what it is like, for the time when it has none.
        let is_past = is_live
            && !self.record.is_exposed()
            && self.published_at().is_some_and(|at| evidence.from >= at)
            && !self.record.assignment.weight_of(&plan.stable).is_zero();
        let warm = self.published.map_or(self.now, |(_, at)| at.plus(warmup));
        match counts {
            true => self.record.judge.observe(&evidence.counted_after(warm)),
            false => self.record.judge.hear(evidence),
        }
        if is_past {
            let since = self.published.map_or(self.now, |(_, at)| at);
            self.record.judge.learn(&evidence.counted_after(since));
        }
        if (counts || is_past) && self.now.since(self.checkpoint) >= CHECKPOINT {
            self.is_dirty = true;
        }
    }

    /// Whether `span` has passed since `at`; if not, the run wants to be woken when it has.
    fn is_due(&mut self, at: Time, span: Duration) -> bool {
        let then = at.plus(span);
        if self.now >= then {
            return true;
        }
        self.due = Some(self.due.map_or(then, |due| due.min(then)));
        false
    }

    fn enter(&mut self, phase: Phase) {
        let step_changes = self.record.phase.step() != phase.step();
        self.record.phase = phase;
        self.record.since = self.now;
        self.awaited = None;
        if step_changes {
            self.record.is_promoted = false;
        }
        let passage = Passage { at: self.now, phase, weight: self.record.weight() };
        push(&mut self.record.history, passage);
        self.notify(
            "Phase",
            format!("{phase}, candidate \"{}\" at {}", self.record.plan.candidate, self.record.weight()),
        );
    }

    /// Changes the record, and tells about it when the change is durable.
    fn notify(&mut self, event: &'static str, text: String) {
        self.when_durable(Effect::Notify(Notice { event, text }));
    }

    fn when_durable(&mut self, effect: Effect) {
        self.is_dirty = true;
        self.after.push_back((self.record.sequence + 1, effect));
    }

    fn load_reports(&mut self) {
        let is_over = self.record.phase.is_terminal();
        let revisions = match is_over {
            true => Vec::new(),
            false => self.record.assignment.revisions().into_iter().cloned().collect(),
        };
        let interval = if is_over { IDLE_INTERVAL } else { BUSY_INTERVAL };
        self.effects.push_back(Effect::LoadReports { revisions, interval });
    }

    fn plan_steps(&mut self) {
        let plan = &self.record.plan;
        self.steps = steps(&plan.spec, plan.is_fast, self.record.basis);
    }

    fn healthy(&self, revision: &Revision) -> u32 {
        self.endpoints_of(revision).healthy
    }

    fn endpoints_of(&self, revision: &Revision) -> Endpoints {
        self.endpoints.as_ref().and_then(|all| all.get(revision)).copied().unwrap_or_default()
    }
}

fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.len() >= KEPT {
        list.remove(0);
    }
    list.push(entry);
}

/// What chance begins with in a run of this name: FNV-1a, 64 bits.
fn seed(run: &str) -> u64 {
    run.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
