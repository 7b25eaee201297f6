//! What a conductor knows, as the admin API shows it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, UNIX_EPOCH};

use rollout::{Conductor, Lane, Record, Run, Standing, Time};
use world::ObjectRef;
use world::api::delivery::EvidenceSource;

use crate::view;

/// Events of one intent that are remembered.
const EVENTS: usize = 100;
/// Refusals that are shown.
const REFUSALS: usize = 20;
/// Of the normal distribution: 95 % lie within so many standard deviations.
const Z: f64 = 1.959_964;

/// What is known beside what the conductor knows.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Where nodes stand to each run's assignment, as it was seen last.
    standings: BTreeMap<ObjectRef, Standing>,
    /// By intent.
    events: BTreeMap<ObjectRef, VecDeque<view::RolloutEvent>>,
    /// By run: the version that requests were counted under, and how many went to the candidate and to stable.
    observed: BTreeMap<ObjectRef, (u64, u64, u64)>,
    last_event: u64,
}

impl Board {
    /// Where nodes stand.
    pub(super) fn stand(&mut self, run: ObjectRef, standing: Standing) {
        self.standings.insert(run, standing);
    }

    /// Where nodes stood last to what is in force of this run.
    pub(super) fn standing(&self, run: &ObjectRef) -> Option<&Standing> {
        self.standings.get(run)
    }

    /// Requests were counted under this version.
    pub(super) fn observe(&mut self, run: ObjectRef, version: u64, candidate: u64, stable: u64) {
        let seen = self.observed.entry(run).or_insert((version, 0, 0));
        if seen.0 != version {
            *seen = (version, 0, 0);
        }
        (seen.1, seen.2) = (seen.1.saturating_add(candidate), seen.2.saturating_add(stable));
    }

    /// Something has happened to a run of this intent.
    pub(super) fn event(&mut self, intent: &ObjectRef, now: Time, run: &str, event: &str, text: String) {
        self.last_event += 1;
        let events = self.events.entry(intent.clone()).or_default();
        if events.len() >= EVENTS {
            events.pop_front();
        }
        let (run, event) = (run.to_owned(), event.to_owned());
        events.push_back(view::RolloutEvent { id: self.last_event, at: timestamp(now), run, event, text });
    }

    /// Forgets runs that are over.
    pub(super) fn retain(&mut self, conductor: &Conductor) {
        let current: Vec<ObjectRef> = conductor.lanes().filter_map(Lane::run_reference).collect();
        self.standings.retain(|run, _| current.contains(run));
        self.observed.retain(|run, _| current.contains(run));
    }

    /// Every intent.
    pub(super) fn all(&self, conductor: &Conductor) -> view::Rollouts {
        let lanes = conductor.lanes().filter(|lane| !lane.is_gone());
        view::Rollouts { rollouts: lanes.map(|lane| self.describe(conductor, lane, false)).collect() }
    }

    /// The intent of this name, or of the run of this name.
    pub(super) fn one(&self, conductor: &Conductor, namespace: &str, name: &str) -> Option<view::Rollout> {
        let is_run = |record: &Record| record.plan.run == name;
        let is_meant = |lane: &&Lane| {
            let intent = lane.intent();
            let is_current = lane.run().is_some_and(|run| is_run(run.record()));
            *intent.namespace == *namespace
                && (*intent.name == *name || is_current || lane.history().iter().any(is_run))
        };
        // An intent counts before a run that happens to have its name.
        let mut lanes: Vec<_> = conductor.lanes().filter(is_meant).collect();
        lanes.sort_by_key(|lane| *lane.intent().name != *name);
        Some(self.describe(conductor, lanes.first()?, true))
    }

    fn describe(&self, conductor: &Conductor, lane: &Lane, in_full: bool) -> view::Rollout {
        let saved = lane.record();
        let sight = lane.sight();
        let service = match (&*saved.service.0, &*saved.service.1) {
            ("", _) => String::new(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        let endpoints = sight.into_iter().flat_map(|sight| &sight.endpoints);
        let endpoints = endpoints.map(|(revision, endpoints)| view::RevisionEndpoints {
            revision: revision.to_string(),
            healthy: endpoints.healthy,
            total: endpoints.total,
        });
        let endpoints: Vec<_> = endpoints.collect();
        let has_endpoints = |revision: &String| endpoints.iter().any(|found| found.revision == *revision);
        let safe = conductor.safe_to_scale_down(lane);
        let stable = saved.stable.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut rollout = view::Rollout {
            namespace: lane.intent().namespace.to_string(),
            intent: lane.intent().name.to_string(),
            service,
            strategy: if saved.generation > 0 { saved.spec.strategy.kind.as_str().to_owned() } else { String::new() },
            phase: if lane.is_wanted() { "Idle".to_owned() } else { "Deleted".to_owned() },
            safe_to_scale_down: safe.iter().map(ToString::to_string).filter(has_endpoints).collect(),
            stable,
            endpoints,
            problems: lane.problem().iter().map(view::Problem::from).collect(),
            events: self.events.get(lane.intent()).into_iter().flatten().cloned().collect(),
            ..view::Rollout::default()
        };
        if let (Some(run), Some(reference)) = (lane.run(), lane.run_reference()) {
            self.describe_run(run, &reference, &mut rollout);
            if in_full {
                rollout.analysis = serde_json::to_value(run.explain()).ok();
            }
        }
        let records = lane.run().map(Run::record).into_iter().chain(lane.history());
        rollout.runs = records.map(|record| past(record, in_full)).collect();
        rollout.conditions = lane.conditions().into_iter().map(condition).collect();
        rollout
    }

    fn describe_run(&self, run: &Run, reference: &ObjectRef, rollout: &mut view::Rollout) {
        let record = run.record();
        let plan = &record.plan;
        rollout.run.clone_from(&plan.run);
        rollout.phase = record.phase.as_str().to_owned();
        rollout.since = timestamp(record.since);
        rollout.step = record.phase.step();
        rollout.steps = run.step_count();
        rollout.stable = plan.stable.to_string();
        rollout.candidate = plan.candidate.to_string();
        rollout.attempt = plan.attempt;
        rollout.started = timestamp(record.started);
        rollout.reason = record.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        let observed = self.observed.get(reference).filter(|seen| seen.0 == record.assignment.version);
        rollout.weight = view::RolloutWeights {
            configured: percent(record.weight()),
            acknowledged: percent(record.acknowledged.weight_of(&plan.candidate)),
            observed: observed.and_then(|(_, candidate, stable)| {
                let is_told_apart = plan.spec.analysis.source == EvidenceSource::AccessLog;
                let chosen =
                    if is_told_apart { Chosen::Apart } else { Chosen::of(&record.assignment, &plan.candidate) };
                observed_share(chosen, *candidate, *stable)
            }),
        };
        if let Some(standing) = self.standings.get(reference) {
            let refused = standing
                .refused
                .iter()
                .take(REFUSALS)
                .map(|refusal| view::RolloutRefusal { node: refusal.node.clone(), words: refusal.words.clone() });
            rollout.nodes = view::RolloutNodes {
                version: standing.version,
                concerned: standing.concerned,
                accepted: standing.accepted,
                refused: refused.collect(),
                stale: standing.stale,
            };
        }
        rollout.hold = run.hold().map(|hold| view::RolloutHold {
            reason: hold.reason.as_str().to_owned(),
            text: hold.reason.to_string(),
            since: timestamp(hold.since),
            deadline: hold.deadline.map(timestamp),
        });
        let action = |taken: &rollout::TakenAction| view::RolloutAction {
            at: timestamp(taken.at),
            verb: match taken.action.verb.object() {
                Some(object) => format!("{} {object}", taken.action.verb.as_str()),
                None => taken.action.verb.as_str().to_owned(),
            },
            actor: taken.action.actor.clone(),
            reason: taken.action.reason.clone(),
            id: taken.action.id.clone(),
        };
        rollout.actions = record.actions.iter().map(action).collect();
    }
}

fn past(record: &Record, in_full: bool) -> view::RolloutPast {
    let passages = record.history.iter().filter(|_| in_full).map(|passage| view::RolloutPassage {
        at: timestamp(passage.at),
        phase: passage.phase.to_string(),
        weight: percent(passage.weight),
    });
    view::RolloutPast {
        run: record.plan.run.clone(),
        stable: record.plan.stable.to_string(),
        candidate: record.plan.candidate.to_string(),
        attempt: record.plan.attempt,
        phase: record.phase.as_str().to_owned(),
        reason: record.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        started: timestamp(record.started),
        since: timestamp(record.since),
        passages: passages.collect(),
    }
}

fn condition(condition: rollout::Condition) -> view::RolloutCondition {
    view::RolloutCondition {
        kind: condition.kind.to_owned(),
        status: condition.status,
        reason: condition.reason,
        since: condition.since.map(timestamp),
        deadline: condition.deadline.map(timestamp),
    }
}

/// When that was.
pub(super) fn timestamp(time: Time) -> view::Timestamp {
    (UNIX_EPOCH + Duration::from_millis(time.millis().min(253_402_300_799_000))).into()
}

fn percent(weight: world::api::delivery::Weight) -> f64 {
    f64::from(weight.ppm()) / 1e4
}

/// What is known of requests that were chosen by a condition, or are copies, among those that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    /// There are none, or they are told apart.
    Apart,
    /// Some of the counted ones.
    Among,
    /// All that reach the candidate are such.
    Alone,
}

impl Chosen {
    /// What an assignment makes of requests that are counted by the clusters that they went to.
    fn of(assignment: &rollout::Assignment, candidate: &rollout::Revision) -> Self {
        let copies = assignment.mirror.iter().filter(|mirror| !mirror.share.is_zero());
        match assignment.routes.is_empty() && copies.count() == 0 {
            true => Chosen::Apart,
            false if assignment.weight_of(candidate).is_zero() => Chosen::Alone,
            false => Chosen::Among,
        }
    }
}

/// The share that the candidate had, of what weights divide as far as that is known; none where nothing of it is.
fn observed_share(chosen: Chosen, candidate: u64, stable: u64) -> Option<view::ObservedShare> {
    let share = share(candidate, candidate.saturating_add(stable)).filter(|_| chosen != Chosen::Alone)?;
    Some(view::ObservedShare { includes_chosen: chosen == Chosen::Among, ..share })
}

/// Wilson's score interval: it stays within 0 to 100 and is honest about small numbers.
fn share(part: u64, all: u64) -> Option<view::ObservedShare> {
    if all == 0 {
        return None;
    }
    let (n, p) = (all as f64, part as f64 / all as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    // At its ends rounding would leave the share itself just outside.
    let interval = [(middle - half).clamp(0.0, p) * 100.0, (middle + half).clamp(p, 1.0) * 100.0];
    Some(view::ObservedShare { percent: p * 100.0, interval, requests: all, includes_chosen: false })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn requests_that_were_chosen_are_no_share_of_what_weights_divide() {
        let [candidate, stable] = ["v2", "v1"].map(rollout::Revision::new);
        let weight = |percent: u32| world::api::delivery::Weight::from_ppm(percent * 10_000);
        let assignment = |percent: u32| rollout::Assignment {
            version: 1,
            split: rollout::Split::Weights(vec![
                (candidate.clone(), weight(percent)),
                (stable.clone(), weight(100 - percent)),
            ]),
            routes: Vec::new(),
            mirror: None,
            stickiness: world::api::delivery::Stickiness::default(),
            fallback: None,
        };
        let route = rollout::RequestRoute { name: "qa".to_owned(), matches: Vec::new(), to: candidate.clone() };
        let copies = rollout::Mirror { to: candidate.clone(), share: weight(100), matches: Vec::new() };
        let directed = |percent| rollout::Assignment { routes: vec![route.clone()], ..assignment(percent) };
        let mirrored = rollout::Assignment { mirror: Some(copies), ..assignment(0) };
        for (assignment, expected) in [
            (assignment(0), Chosen::Apart),
            (assignment(10), Chosen::Apart),
            (directed(10), Chosen::Among),
            (directed(0), Chosen::Alone),
            (mirrored, Chosen::Alone),
        ] {
            assert_eq!(Chosen::of(&assignment, &candidate), expected, "{assignment:?}");
        }
        assert_eq!(observed_share(Chosen::Alone, 22, 78), None);
        assert!(observed_share(Chosen::Among, 22, 78).unwrap().includes_chosen);
        assert!(!observed_share(Chosen::Apart, 22, 78).unwrap().includes_chosen);
    }

    #[test]
    fn an_observed_share_has_an_interval_that_contains_it() {
        assert_eq!(share(0, 0), None);
        for (part, all) in [(0, 10), (10, 10), (50, 1_000), (1, 3)] {
            let share = share(part, all).unwrap();
            let [low, high] = share.interval;
            assert!(0.0 <= low && low <= share.percent && share.percent <= high && high <= 100.0, "{share:?}");
        }
        // 5 % of 10,000 requests: known to within half a percent.
        let share = share(500, 10_000).unwrap();
        assert!(share.interval[1] - share.interval[0] < 1.0);
    }
}
