//! One intent: its runs, one after the other, and what is in force between them.

mod choice;
mod conditions;
mod in_force;
mod succession;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use conditions::Condition;
use in_force::Pending;
pub(super) use succession::Claim;
use succession::Place;
use world::api::delivery::Choice;
use world::{ObjectRef, Problem};

use super::picture::{listed, run_reference};
use super::{ActError, Deed, IntentRecord, Picture, Sight, Wish};
use crate::effect::{Effect, Successor};
use crate::event::{Endpoints, Event};
use crate::{Action, Phase, Plan, Record, Revision, Run, Time, Verb};

/// Between attempts to make an intent's record durable.
const SAVE_RETRY: Duration = Duration::from_secs(2);
/// Who acts when an intent is deleted.
const SELF: &str = "pointsman";

/// An intent with its runs.
#[derive(Debug)]
pub struct Lane {
    pub(super) intent: ObjectRef,
    pub(super) saved: IntentRecord,
    /// What was handed out of it last, and what is durable.
    handed_out: IntentRecord,
    durable: u64,
    save_failure: Option<(String, Time)>,
    wish: Option<Wish>,
    sight: Option<Sight>,
    /// What is seen by what is in force, where that is something else.
    held: Option<Sight>,
    /// The current run, over or not.
    run: Option<Run>,
    /// The runs before, the last first.
    history: Vec<Record>,
    /// What the world has of this intent.
    in_force: Option<ObjectRef>,
    told: Told,
    problem: Option<Problem>,
    /// What is to be done once the record of this sequence number is durable.
    pending: Option<(u64, Pending)>,
    /// What holds it now.
    frozen: Option<String>,
    /// What others are for its service.
    place: Place,
}

/// What the current run was told last.
#[derive(Debug, Default)]
struct Told {
    endpoints: Option<BTreeMap<Revision, Endpoints>>,
    generation: i64,
    frozen: Option<String>,
    wanted: Option<Revision>,
}

impl Lane {
    /// An intent that nothing is known of.
    pub(super) fn new(intent: ObjectRef) -> Self {
        let saved = IntentRecord {
            namespace: intent.namespace.to_string(),
            name: intent.name.to_string(),
            ..IntentRecord::default()
        };
        Self::over(intent, saved)
    }

    fn over(intent: ObjectRef, saved: IntentRecord) -> Self {
        Self {
            intent,
            handed_out: saved.clone(),
            durable: saved.sequence,
            saved,
            save_failure: None,
            wish: None,
            sight: None,
            held: None,
            run: None,
            history: Vec::new(),
            in_force: None,
            told: Told::default(),
            problem: None,
            pending: None,
            frozen: None,
            place: Place::default(),
        }
    }

    /// Goes on from what is stored. Nothing is known of the world yet, so all that follows is what was in force.
    pub(super) fn resume(
        now: Time,
        intent: ObjectRef,
        saved: IntentRecord,
        mut runs: Vec<Record>,
        fence: u64,
        deeds: &mut VecDeque<Deed>,
    ) -> Self {
        let mut lane = Self::over(intent, saved);
        if lane.saved.label.is_empty() {
            lane.saved.label.clone_from(&lane.saved.spec.revisions.label);
        }
        runs.sort_by_key(|record| std::cmp::Reverse(number(&record.plan.run)));
        // Runs of an intent of this name that was deleted say nothing about this one.
        let is_current = runs.first().is_some_and(|record| number(&record.plan.run) > lane.saved.retired);
        let newest = if is_current { Some(runs.remove(0)) } else { None };
        lane.history = runs;
        lane.saved.runs = lane.saved.runs.max(newest.as_ref().map_or(0, |record| number(&record.plan.run)));
        if lane.saved.is_released {
            lane.history.splice(0..0, newest);
            return lane;
        }
        // A run that has not begun leaves in force what was before it.
        if newest.as_ref().is_none_or(|record| record.phase == Phase::Pending) {
            let retired = lane.saved.retired;
            match lane.history.first().filter(|before| number(&before.plan.run) > retired) {
                Some(before) => {
                    let (plan, assignment) = (before.plan.clone(), before.assignment.clone());
                    lane.put_in_force(&plan, assignment, deeds);
                }
                None => lane.put_baseline(deeds),
            }
        }
        if let Some(record) = newest {
            // Records of older versions do not say what is passed over.
            if lane.saved.spec.revisions.candidate != Choice::Named(record.plan.candidate.to_string()) {
                lane.note_end(&record);
            }
            lane.told.generation = record.plan.generation;
            lane.run = Some(Run::resume(now, record, fence));
            lane.follow(now, 0, fence, deeds);
        }
        lane
    }

    /// What this intent is called.
    pub fn intent(&self) -> &ObjectRef {
        &self.intent
    }

    /// What is stored of it beside its runs.
    pub fn record(&self) -> &IntentRecord {
        &self.saved
    }

    /// What is seen of its service; `None` before anything is. By what is in force, as long as that is to be seen: what
    /// the intent asks for now may be something else.
    pub fn sight(&self) -> Option<&Sight> {
        self.counted().or(self.sight.as_ref())
    }

    /// What is seen by what is in force, or goes on. `None` while nobody sees that: then it is as it was.
    fn counted(&self) -> Option<&Sight> {
        let open = self.run.as_ref().map(|run| &run.record().plan.spec).filter(|_| self.goes_on());
        let (label, ports) = match open {
            Some(spec) => (&spec.revisions.label, &spec.service.ports),
            None => (&self.saved.label, &self.saved.spec.service.ports),
        };
        let (namespace, name) = &self.saved.service;
        let is_it = |sight: &&Sight| {
            let service = sight.service.as_ref();
            let is_same = service.is_some_and(|found| (&*found.0, &*found.1) == (namespace.as_str(), name.as_str()));
            is_same && sight.label == *label && sight.limited_to == *ports
        };
        [&self.sight, &self.held].into_iter().flatten().find(is_it)
    }

    /// Whether a run has not ended.
    fn goes_on(&self) -> bool {
        self.run.as_ref().is_some_and(|run| !run.record().phase.is_terminal())
    }

    /// Whether the intent is there; one that was deleted may have a run that goes back, or traffic that stays.
    pub fn is_wanted(&self) -> bool {
        self.wish.is_some()
    }

    /// The current run, over or not.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// The runs before, the last first.
    pub fn history(&self) -> &[Record] {
        &self.history
    }

    /// The name of the current run.
    pub fn run_reference(&self) -> Option<ObjectRef> {
        let run = self.run.as_ref()?;
        Some(run_reference(&self.intent.namespace, &run.record().plan.run))
    }

    /// Why nothing is done for it, or is done otherwise than it says.
    pub fn problem(&self) -> Option<Problem> {
        let stored = self.save_failure.as_ref().map(|(words, _)| {
            Problem::error(&self.intent, "", format!("what was decided about it cannot be stored: {words}"))
                .consequence("nothing new is published for it")
                .hint("It is tried again every two seconds; make room in the state directory.")
        });
        stored.or_else(|| self.problem.clone()).or_else(|| self.selects_nobody())
    }

    /// What to say while nobody is connected whose traffic the run would divide.
    fn selects_nobody(&self) -> Option<Problem> {
        let run = self.run.as_ref().filter(|run| !run.record().phase.is_over() && run.is_unattended())?;
        let spec = &run.record().plan.spec;
        let field = if spec.attach.mesh { "spec.attach.clients" } else { "spec.attach.gateways" };
        let message = format!("nobody is connected whom it selects: {}", spec.attach.selected());
        let problem = Problem::warning(&self.intent, field, message);
        let consequence = "the run does not go on without, and goes back after spec.progressDeadline";
        Some(problem.consequence(consequence).hint("Connect one, or mend the selector."))
    }

    /// The largest version of an assignment that this intent has used.
    pub(super) fn last_version(&self) -> u64 {
        let records = self.run.iter().map(Run::record).chain(&self.history);
        let baseline = self.saved.baseline.as_ref().map_or(0, |(_, version)| *version);
        let least = baseline.max(self.saved.retired_version);
        records.map(|record| record.assignment.version).fold(least, u64::max)
    }

    /// The service, as its namespace and name; both empty while it is not known.
    pub(super) fn service(&self) -> (&str, &str) {
        let seen = self.sight.as_ref().and_then(|sight| sight.service.as_ref());
        match seen.filter(|_| self.saved.generation == 0 || self.saved.is_released) {
            Some((namespace, name)) => (namespace, name),
            None => (&self.saved.service.0, &self.saved.service.1),
        }
    }

    /// Nothing is left to say of this intent, but what is remembered for the case that it comes again.
    pub fn is_gone(&self) -> bool {
        self.wish.is_none() && self.in_force.is_none()
    }

    /// When the lane wants to be looked at again.
    pub(super) fn due(&self) -> Option<Time> {
        let retry = self.save_failure.as_ref().map(|(_, at)| at.plus(SAVE_RETRY));
        let run = self.run.as_ref().and_then(Run::poll_timeout);
        [retry, run, self.saved.seen.due()].into_iter().flatten().min()
    }

    /// The record with this sequence number is durable, or is not.
    pub(super) fn intent_saved(&mut self, now: Time, sequence: u64, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.durable = self.durable.max(sequence);
                self.save_failure = None;
            }
            Err(words) => self.save_failure = Some((words, now)),
        }
    }

    /// Something has happened to the current run.
    pub(super) fn tell(&mut self, now: Time, event: Event) {
        if let Some(run) = &mut self.run {
            run.handle(now, event);
        }
    }

    /// Takes an action on the current run, whose name is returned.
    pub(super) fn act(&mut self, now: Time, mut action: Action) -> Result<String, ActError> {
        let intent = self.intent.name.to_string();
        let run = self.run.as_mut().ok_or(ActError::NoRun(intent))?;
        let meant = run.record().plan.run.clone();
        action.run.clone_from(&meant);
        let is_new = run.record().actions.iter().all(|taken| taken.action.id != action.id);
        let verb = action.verb.clone();
        let candidate = run.record().plan.candidate.clone();
        let winner = match &verb {
            Verb::PromoteVariant(named) => run.winner(named).ok().filter(|winner| *winner != candidate),
            _ => None,
        };
        run.act(now, action)?;
        match verb {
            Verb::PromoteVariant(_) if is_new => winner.iter().for_each(|winner| self.choose(winner)),
            Verb::RollbackTo(revision) if is_new => self.choose(&revision),
            Verb::Retry if is_new => self.saved.passed_over.forget(&candidate),
            _ => {}
        }
        Ok(meant)
    }

    /// Takes in what there is.
    pub(super) fn look(&mut self, picture: &Picture) {
        self.wish = picture.intents.get(&self.intent).cloned();
        self.sight = picture.sights.get(&self.intent).cloned().or_else(|| Some(Sight::default()));
        self.held = picture.held.get(&self.intent).cloned();
    }

    /// Does what follows from all that is known. `versions` is the largest version that any intent has used for the
    /// service.
    pub(super) fn drive(
        &mut self,
        now: Time,
        picture: &Picture,
        others: &[Claim],
        versions: u64,
        fence: u64,
        deeds: &mut VecDeque<Deed>,
    ) -> Option<Time> {
        let sight = self.sight.clone()?;
        self.problem = None;
        let is_wanted = self.wish.is_some();
        self.note_others(others);
        if is_wanted {
            self.take_wish(&sight);
        }
        let counted = self.counted().cloned();
        if let Some(counted) = &counted {
            self.saved.seen.look(now, &counted.endpoints, self.saved.stable.as_ref());
        }
        let edge;
        (self.frozen, edge) = picture.frozen(self.service(), now);
        if let Some(run) = &mut self.run {
            run.handle_timeout(now);
        }
        self.tell_run(now, counted.as_ref());
        self.follow(now, versions, fence, deeds);
        match is_wanted {
            true if self.saved.generation == 0 || self.saved.is_released => {}
            true if self.waits_for_another() => {}
            true if self.is_moved() => self.begin_anew(&sight, versions),
            true => {
                if let Some(counted) = &counted {
                    self.want(now, counted, versions, fence, deeds);
                }
            }
            false => self.wind_up(now, &sight),
        }
        self.follow(now, versions, fence, deeds);
        self.note_acceptance(now);
        self.save(now, deeds);
        edge
    }

    /// Adopts what the intent says, if it can be carried out.
    fn take_wish(&mut self, sight: &Sight) {
        let Some(wish) = &self.wish else { return };
        let Some((namespace, name)) = sight.service.as_ref().filter(|_| !wish.is_refused) else { return };
        let service = (namespace.to_string(), name.to_string());
        if self.saved.is_released && self.in_force.is_some() {
            // Its end is not durable yet, or not carried out.
            if service != self.saved.service {
                return;
            }
            self.saved.is_released = false;
            self.pending = None;
        }
        let is_new = self.saved.generation == 0 || self.saved.is_released;
        if !is_new && service != self.saved.service {
            let (namespace, name) = &self.saved.service;
            self.problem = Some(
                Problem::error(&self.intent, "spec.service", format!("this intent is for \"{namespace}/{name}\""))
                    .consequence("what it said before goes on")
                    .hint("The service of an intent cannot change: delete this one, and write another."),
            );
            return;
        }
        if self.saved.is_released {
            // It comes again: nothing of what was before counts but the numbers.
            let retired_version = self.last_version();
            let IntentRecord { runs, generation, sequence, namespace, name, .. } = std::mem::take(&mut self.saved);
            let retired = runs;
            self.saved = IntentRecord { runs, retired, retired_version, generation, ..IntentRecord::default() };
            (self.saved.sequence, self.saved.namespace, self.saved.name) = (sequence, namespace, name);
            let records = self.run.take().map(|run| run.record().clone());
            self.history.splice(0..0, records);
        }
        let label = &wish.spec.revisions.label;
        if is_new {
            self.saved.label.clone_from(label);
        } else if *label != self.saved.label && sight.endpoints.is_empty() {
            let message = format!("no endpoint of \"{namespace}/{name}\" has a label \"{label}\"");
            let problem = Problem::error(&self.intent, "spec.revisions.label", message);
            self.problem = Some(problem.consequence("what it said before goes on"));
            return;
        }
        if is_new || wish.spec != self.saved.spec || wish.profiles != self.saved.profiles {
            self.saved.generation += 1;
            if let Choice::Named(named) = &wish.spec.revisions.candidate
                && wish.spec.revisions.candidate != self.saved.spec.revisions.candidate
            {
                self.saved.passed_over.forget(&Revision::new(named));
            }
            self.saved.spec = wish.spec.clone();
            self.saved.profiles = wish.profiles.clone();
        }
        self.saved.service = service;
    }

    /// Tells the current run what it does not know yet.
    fn tell_run(&mut self, now: Time, counted: Option<&Sight>) {
        let Some(run) = &mut self.run else { return };
        // What holds it comes first: with endpoints it may go on.
        if self.told.frozen != self.frozen {
            self.told.frozen.clone_from(&self.frozen);
            run.handle(now, Event::Frozen(self.frozen.clone()));
        }
        if let Some(Sight { endpoints, .. }) = counted
            && self.told.endpoints.as_ref() != Some(endpoints)
        {
            self.told.endpoints = Some(endpoints.clone());
            run.handle(now, Event::Endpoints(endpoints.clone()));
        }
        if self.told.generation < self.saved.generation {
            self.told.generation = self.saved.generation;
            let (spec, profiles) = (Box::new(self.saved.spec.clone()), self.saved.profiles.clone());
            run.handle(now, Event::Edited { spec, generation: self.saved.generation, profiles });
        }
    }

    /// The intent is gone: a run goes back to stable, and what is in force ends when nobody else could take traffic.
    fn wind_up(&mut self, now: Time, sight: &Sight) {
        if let Some(run) = &mut self.run
            && !run.record().phase.is_over()
        {
            let plan = run.record().plan.run.clone();
            let action = Action {
                id: format!("deleted-{plan}"),
                run: plan,
                expected_step: None,
                actor: SELF.to_owned(),
                reason: "the intent was deleted".to_owned(),
                verb: Verb::Abort,
            };
            // A run that is over by now has nothing to go back from.
            let _ = run.act(now, action);
        }
        let is_quiet = self.run.as_ref().is_none_or(Run::is_finished);
        if !is_quiet || self.in_force.is_none() {
            return;
        }
        let stable = self.saved.stable.clone();
        let others: Vec<_> = sight.endpoints.keys().filter(|revision| Some(*revision) != stable.as_ref()).collect();
        if others.is_empty() || self.place.is_succeeded {
            if !self.saved.is_released {
                self.saved.is_released = true;
                self.pending = Some((self.saved.sequence + 1, Pending::Removal));
            }
            return;
        }
        let (stable, others) = (stable.as_ref().map_or("", Revision::as_str), listed(others.into_iter()));
        let message = format!("it was deleted, and revision {others} still has endpoints beside \"{stable}\"");
        let problem = Problem::warning(&self.intent, "", message);
        self.problem = Some(
            problem
                .consequence(format!("all traffic stays with \"{stable}\""))
                .hint("Delete the endpoints of the other revisions, or apply the intent again."),
        );
    }

    /// Starts a run. Whoever had the service has let go of it.
    fn begin(&mut self, now: Time, next: Successor, versions: u64, fence: u64, deeds: &mut VecDeque<Deed>) {
        let Successor { stable, candidate, attempt, is_fast, lingering } = next;
        // What the last run has left is good, too, which that run does not count.
        let window = self.saved.spec.rollback.window as usize;
        let is_fast = is_fast || self.saved.known_good.iter().take(window).any(|good| *good == candidate);
        self.saved.runs += 1;
        let plan = Plan {
            run: format!("{}-{}", self.intent.name, self.saved.runs),
            generation: self.saved.generation,
            spec: self.saved.spec.clone(),
            profiles: self.saved.profiles.clone(),
            stable,
            candidate,
            attempt,
            is_fast,
            known_good: self.saved.known_good.clone(),
            lingering,
            first_version: versions.max(self.last_version()) + 1,
            fence,
        };
        if let Some(run) = self.run.take() {
            self.history.insert(0, run.record().clone());
        }
        self.saved.passed_over.forget(&plan.candidate);
        // The record that counts the run is durable before the run's own.
        self.save_now(deeds);
        self.told = Told { generation: self.saved.generation, ..Told::default() };
        self.run = Some(Run::start(now, plan));
        let counted = self.counted().cloned();
        self.tell_run(now, counted.as_ref());
        let keep = self.saved.spec.history_limit.max(1) as usize;
        while self.history.len() >= keep {
            let Some(old) = self.history.pop() else { break };
            deeds.push_back(Deed::ForgetRun(run_reference(&self.intent.namespace, &old.plan.run)));
        }
    }

    /// Carries out what the run wants, until it wants nothing more.
    pub(super) fn follow(&mut self, now: Time, versions: u64, fence: u64, deeds: &mut VecDeque<Deed>) {
        while let (Some(effect), Some(run)) = (self.run.as_mut().and_then(Run::poll_effect), self.run_reference()) {
            match effect {
                Effect::Commit(record) => {
                    self.note_end(&record);
                    self.save_now(deeds);
                    deeds.push_back(Deed::SaveRun { run, record });
                }
                Effect::Publish(assignment) => {
                    let Some(plan) = self.run.as_ref().map(|run| run.record().plan.clone()) else { continue };
                    self.put_in_force(&plan, assignment, deeds);
                }
                Effect::AskGate(question) => deeds.push_back(Deed::AskGate { run, question }),
                Effect::Notify(notice) => {
                    let wants = |events: &[String]| events.is_empty() || events.iter().any(|e| e == notice.event);
                    let targets = self.saved.spec.notify.iter().filter(|target| wants(&target.events));
                    let urls = targets.map(|target| target.url.clone()).collect();
                    deeds.push_back(Deed::Notify { run, notice, urls });
                }
                Effect::LoadReports { revisions, interval } => {
                    deeds.push_back(Deed::LoadReports { run, revisions, interval });
                }
                Effect::SafeToScaleDown(revision) => deeds.push_back(Deed::SafeToScaleDown { run, revision }),
                Effect::StartRun(successor) if (self.wish.is_some() || self.sight.is_none()) && !self.is_moved() => {
                    self.take_over(now, successor, versions, fence, deeds);
                }
                // Nobody wants another run of an intent that is gone, or between revisions of another label.
                Effect::StartRun(_) => {}
            }
        }
        self.carry_out_pending(deeds);
    }

    /// Hands the record out, if it says something new, or could not be stored a while ago.
    fn save(&mut self, now: Time, deeds: &mut VecDeque<Deed>) {
        match &self.save_failure {
            Some((_, at)) if now < at.plus(SAVE_RETRY) => {}
            Some(_) | None => self.save_now(deeds),
        }
    }

    /// The same whenever it failed: a record of a run is to follow, which says nothing without this one.
    fn save_now(&mut self, deeds: &mut VecDeque<Deed>) {
        if self.saved.generation == 0 {
            return;
        }
        if self.save_failure.is_some() || self.saved != self.handed_out {
            self.save_failure = None;
            self.saved.sequence += 1;
            self.handed_out = self.saved.clone();
            deeds.push_back(Deed::SaveIntent(Box::new(self.saved.clone())));
        }
    }
}

/// The number at the end of a run's name; 0 without one.
pub(super) fn number(run: &str) -> u64 {
    run.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}
