//! Which revision traffic is at, and which one it is to go to.

use std::collections::{BTreeSet, VecDeque};

use world::Problem;
use world::api::delivery::{Choice, NewRevision, StrategyType, parse_time};

use super::{Lane, Pending};
use crate::conductor::picture::listed;
use crate::conductor::{Deed, PassedOver, Seen, Sight};
use crate::effect::Successor;
use crate::event::Event;
use crate::{Phase, Reason, Record, Revision, Time};

/// Revisions that completed runs left which are remembered; as many as `rollback.window` may ask for.
const KNOWN_GOOD: usize = 10;

impl Lane {
    /// Where traffic is to go. `None` when there is nowhere to go from, or nowhere else.
    fn wanted(&self, sight: &Sight) -> Option<Revision> {
        let stable = self.saved.stable.as_ref()?;
        let wanted = match &self.saved.spec.revisions.candidate {
            // A run does not begin before there is anything to move traffic to.
            Choice::Named(name) => Some(Revision::new(name)).filter(|named| sight.endpoints.contains_key(named)),
            // What is no variant of a test has no part in it.
            Choice::Auto if self.is_test() => {
                let takes_part = |seen: &&Revision| *seen == stable || self.variants().any(|one| one == seen.as_str());
                self.saved.seen.all().filter(takes_part).last().cloned()
            }
            Choice::Auto => self.saved.seen.newest().cloned(),
        };
        wanted.filter(|wanted| wanted != stable && !self.saved.passed_over.contains(wanted))
    }

    fn is_test(&self) -> bool {
        self.saved.spec.strategy.kind == StrategyType::Ab
    }

    fn variants(&self) -> impl Iterator<Item = &str> {
        let tests = self.saved.spec.strategy.ab.iter();
        tests.flat_map(|test| &test.variants).map(|variant| variant.revision.as_str())
    }

    /// Whether a test that no run has carried out can begin: all of its variants are there, it is not over, and it tests
    /// something. If not, that is told.
    fn admits_test(&mut self, now: Time, sight: &Sight) -> bool {
        let tested = self.run.as_ref().map(|run| &run.record().plan.spec.strategy);
        if !self.is_test() || tested == Some(&self.saved.spec.strategy) {
            return true;
        }
        let has = |variant: &str| sight.endpoints.contains_key(&Revision::new(variant));
        let missing: BTreeSet<&str> = self.variants().filter(|variant| !has(variant)).collect();
        let stable = self.saved.stable.as_ref().map_or("", Revision::as_str);
        let end = self.saved.spec.strategy.ab.as_ref().and_then(|test| test.end_at.as_deref());
        let is_over = end.and_then(|end| parse_time(end).ok()).is_some_and(|end| Time::from_millis(end) <= now);
        let (field, message) = if let Some(first) = missing.first() {
            let there = listed(sight.endpoints.keys());
            ("variants", format!("no endpoint has the revision \"{first}\" of a variant; there are: {there}"))
        } else if self.variants().all(|variant| variant == stable) {
            ("variants", format!("every variant is \"{stable}\", which is stable: there is nothing to test"))
        } else if is_over {
            ("endAt", format!("the time of the test was over at {}", end.unwrap_or_default()))
        } else {
            return true;
        };
        let problem = Problem::error(&self.intent, format!("spec.strategy.ab.{field}"), message);
        self.problem = Some(problem.consequence("no run is started, and traffic stays with stable"));
        false
    }

    /// Carries the intent out: finds where traffic is, keeps it there, and starts runs.
    pub(super) fn want(&mut self, now: Time, sight: &Sight, versions: u64, fence: u64, deeds: &mut VecDeque<Deed>) {
        if self.saved.stable.is_none() {
            self.saved.stable = self.inherited_stable(sight).or_else(|| self.find_stable(sight));
        }
        let Some(stable) = self.saved.stable.clone() else { return };
        if self.run.is_none() && self.saved.baseline.is_none() {
            self.saved.baseline = Some((stable.clone(), versions.max(self.last_version()) + 1));
            self.pending = Some((self.saved.sequence + 1, Pending::Baseline));
        }
        self.take_up(now, versions, fence, deeds);
        if !self.goes_on() && !self.admits_test(now, sight) {
            return;
        }
        let Some(wanted) = self.wanted(sight) else { return };
        match &mut self.run {
            None => {
                let successor =
                    Successor { stable, candidate: wanted, attempt: 1, is_fast: false, lingering: Vec::new() };
                self.begin(now, successor, versions, fence, deeds);
            }
            Some(run) if run.record().phase.is_terminal() => match run.record().successor.clone() {
                None => run.begin_next(now, wanted),
                // It has let go of the service, and nobody wants any more what it did so for.
                Some(Successor { stable, .. }) if run.is_durable() => {
                    let listed = run.record().assignment.revisions().into_iter();
                    let lingering = listed.filter(|one| **one != stable && **one != wanted).cloned().collect();
                    let successor = Successor { stable, candidate: wanted, attempt: 1, is_fast: false, lingering };
                    self.begin(now, successor, versions, fence, deeds);
                }
                Some(_) => {}
            },
            Some(run) => {
                let is_known = run.record().plan.candidate == wanted;
                if is_known || self.told.wanted.as_ref() == Some(&wanted) {
                    return;
                }
                if run.record().plan.spec.on_new_revision == NewRevision::Reject {
                    self.saved.passed_over.add(&wanted);
                }
                run.handle(now, Event::NewRevision(wanted.clone()));
                self.told.wanted = Some(wanted);
            }
        }
    }

    /// Whether the intent asks for revisions of another label than traffic is divided by.
    pub(super) fn is_moved(&self) -> bool {
        self.saved.label != self.saved.spec.revisions.label
    }

    /// Finds where traffic is by the label that the intent asks for now; what was known of revisions by another one says
    /// nothing any more. What is in force stays until then.
    pub(super) fn begin_anew(&mut self, sight: &Sight, versions: u64) {
        let is_seen = sight.label == self.saved.spec.revisions.label && sight.service.is_some();
        if !is_seen || self.run.as_ref().is_some_and(|run| !run.is_finished()) {
            return;
        }
        let Some(stable) = self.find_stable(sight) else { return };
        let last = self.last_version();
        self.saved.label.clone_from(&sight.label);
        self.saved.stable = Some(stable.clone());
        self.saved.known_good.clear();
        (self.saved.passed_over, self.saved.seen) = (PassedOver::default(), Seen::default());
        (self.saved.retired, self.saved.retired_version) = (self.saved.runs, last);
        self.saved.baseline = Some((stable, versions.max(last) + 1));
        let records = self.run.take().map(|run| run.record().clone());
        self.history.splice(0..0, records);
        self.pending = Some((self.saved.sequence + 1, Pending::Baseline));
    }

    /// Begins what a run that is over has asked for while nobody wanted that; it asks only once.
    fn take_up(&mut self, now: Time, versions: u64, fence: u64, deeds: &mut VecDeque<Deed>) {
        let left = self.run.as_ref().filter(|run| run.record().phase.is_terminal() && run.is_durable());
        if let Some(successor) = left.and_then(|run| run.record().successor.clone()) {
            self.take_over(now, successor, versions, fence, deeds);
        }
    }

    /// Begins the run that another one asks for, unless somebody has turned away from its candidate since.
    pub(super) fn take_over(
        &mut self,
        now: Time,
        successor: Successor,
        versions: u64,
        fence: u64,
        deeds: &mut VecDeque<Deed>,
    ) {
        if !self.saved.passed_over.contains(&successor.candidate) {
            self.begin(now, successor, versions, fence, deeds);
        }
    }

    /// Where traffic is before the first run.
    fn find_stable(&mut self, sight: &Sight) -> Option<Revision> {
        let policy = &self.saved.spec.revisions;
        if let Choice::Named(name) = &policy.stable {
            // The world's own problems say that it has no endpoint.
            return Some(Revision::new(name)).filter(|named| sight.endpoints.contains_key(named));
        }
        let candidate = match &policy.candidate {
            Choice::Named(name) => Some(Revision::new(name)),
            Choice::Auto => None,
        };
        // What takes no traffic has none to keep.
        let healthy = sight.endpoints.iter().filter(|(_, endpoints)| endpoints.healthy > 0).map(|(name, _)| name);
        let mut possible = healthy.filter(|revision| Some(*revision) != candidate.as_ref());
        match (possible.next(), possible.next()) {
            (Some(only), None) => Some(only.clone()),
            (None, _) => None,
            (Some(_), Some(_)) => {
                let all = listed(sight.endpoints.keys());
                let message = format!("nothing says which of the revisions {all} is stable");
                let hint = "Say spec.revisions.stable: it is only needed until the first run has completed.";
                let problem = Problem::error(&self.intent, "spec.revisions.stable", message).hint(hint);
                self.problem = Some(problem.consequence("traffic goes to all of them, and no run is started"));
                None
            }
        }
    }

    /// What the end of a run says about revisions: where traffic is, and what is not tried again by itself.
    pub(super) fn note_end(&mut self, record: &Record) {
        let plan = &record.plan;
        if record.phase == Phase::Completed && record.reason.is_none() {
            // Its end is written again for whatever comes after, a choice against this candidate included.
            if self.saved.stable.as_ref() != Some(&plan.candidate) {
                self.saved.passed_over.forget(&plan.candidate);
                self.saved.known_good.retain(|known| *known != plan.candidate && *known != plan.stable);
                self.saved.known_good.insert(0, plan.stable.clone());
                self.saved.known_good.truncate(KNOWN_GOOD);
                self.saved.stable = Some(plan.candidate.clone());
            }
        } else if record.phase.is_over() && !matches!(record.reason, Some(Reason::NewRevision(_) | Reason::Edited)) {
            // It went back, or a test of it is over. What only made room for another was not found wanting, and what is
            // tried again is not passed over.
            let next = record.successor.as_ref().map(|next| &next.candidate).or(record.queued.as_ref());
            if next != Some(&plan.candidate) {
                self.saved.passed_over.add(&plan.candidate);
            }
        }
    }

    /// Somebody wants traffic at this revision: of the others, those that there are or were do not take it away again.
    pub(super) fn choose(&mut self, chosen: &Revision) {
        let plan = self.run.as_ref().map(|run| &run.record().plan);
        let of_run = plan.into_iter().flat_map(|plan| [&plan.candidate, &plan.stable]);
        let others: Vec<_> = of_run.chain(self.saved.seen.all()).chain(&self.saved.stable).cloned().collect();
        others.iter().for_each(|revision| self.saved.passed_over.add(revision));
        self.saved.passed_over.forget(chosen);
    }
}
