//! All intents, and the runs that carry them out.
//!
//! ```text
//!  handle_picture(now, Picture)   handle(now, run, Event)   act(now, name, Action)   handle_timeout(now)
//!                         │              │                       │                         │
//!                         ▼              ▼                       ▼                         ▼
//!                   one Lane per intent: the baseline, then one Run after the other
//!                                                │
//!                                                ▼
//!                            poll_deed() until there is none, poll_timeout()
//! ```
//!
//! Before an intent's first run everything goes to its stable revision: so a revision that appears gets no request
//! before a run gives it some. A revision that came last and is neither stable nor the last run's candidate begins a
//! run, or replaces the one that goes on. A candidate that has gone back is not tried again unless somebody says so.
//! When an intent is deleted its run goes back, and traffic stays with stable for as long as another revision has
//! endpoints: deleting a text never moves a request to a candidate.
//!
//! Whoever drives it carries deeds out in order, makes records durable before anything that comes after them is done,
//! and tells a run where its nodes stand and what was measured. Like [`Run`] it reads no clock and does no IO.

mod deed;
mod intent_record;
mod lane;
mod passed_over;
mod picture;
mod seen;

pub use deed::Deed;
pub use intent_record::{Acceptance, IntentRecord};
pub use lane::{Condition, Lane};
pub use passed_over::PassedOver;
pub use picture::{Picture, Sight, Wish};
pub use seen::Seen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use world::{Kind, ObjectRef, Problem};

use crate::{Action, ActionError, Event, Record, Revision, Run, Time};

/// The machine.
#[derive(Debug, Default)]
pub struct Conductor {
    lanes: BTreeMap<ObjectRef, Lane>,
    picture: Picture,
    has_picture: bool,
    fence: u64,
    deeds: VecDeque<Deed>,
    /// When a freeze begins or ends.
    edge: Option<Time>,
}

/// Everything that a store has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Of intents.
    pub intents: Vec<IntentRecord>,
    /// Of runs, with their namespaces.
    pub runs: Vec<(String, Record)>,
}

/// Why an action is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// Nothing has this name.
    #[error("there is neither a run nor an intent \"{namespace}/{name}\"")]
    Unknown {
        /// The namespace that was said.
        namespace: String,
        /// The name that was said.
        name: String,
    },
    /// The intent has no run.
    #[error("intent \"{0}\" has no run: traffic is where it is to be")]
    NoRun(String),
    /// The run of this name is not the current one.
    #[error("run \"{asked}\" is over; the current one of intent \"{intent}\" is \"{current}\"")]
    Over {
        /// The run that was meant.
        asked: String,
        /// Whose.
        intent: String,
        /// The one that there is.
        current: String,
    },
    /// The run does not take it.
    #[error(transparent)]
    Refused(#[from] ActionError),
}

impl Conductor {
    /// Goes on from what a store has, as the writer with this token. What is in force is told as deeds at once; nothing
    /// else is decided before the first picture.
    pub fn resume(now: Time, fence: u64, stored: Stored) -> Self {
        let mut conductor = Self { fence, ..Self::default() };
        let mut runs: BTreeMap<(String, String), Vec<Record>> = BTreeMap::new();
        for (namespace, record) in stored.runs {
            let intent = record.plan.run.rsplit_once('-').map_or(record.plan.run.clone(), |(name, _)| name.to_owned());
            runs.entry((namespace, intent)).or_default().push(record);
        }
        for saved in stored.intents {
            let runs = runs.remove(&(saved.namespace.clone(), saved.name.clone())).unwrap_or_default();
            let intent = ObjectRef::new(Kind::DeploymentIntent, &saved.namespace, &saved.name);
            let lane = Lane::resume(now, intent.clone(), saved, runs, fence, &mut conductor.deeds);
            conductor.lanes.insert(intent, lane);
        }
        conductor
    }

    /// Takes in what there is.
    pub fn handle_picture(&mut self, now: Time, picture: Picture) {
        self.picture = picture;
        self.has_picture = true;
        for intent in self.picture.intents.keys() {
            self.lanes.entry(intent.clone()).or_insert_with(|| Lane::new(intent.clone()));
        }
        for lane in self.lanes.values_mut() {
            lane.look(&self.picture);
        }
        self.drive(now);
    }

    /// Tells a run what has happened to it. What is told of a run that is not the current one of its intent is dropped.
    pub fn handle(&mut self, now: Time, run: &ObjectRef, event: Event) {
        if let Some(lane) = self.lanes.values_mut().find(|lane| lane.run_reference().as_ref() == Some(run)) {
            lane.tell(now, event);
            self.drive(now);
        }
    }

    /// The record of an intent with this sequence number is durable, or is not, for this reason.
    pub fn intent_saved(&mut self, now: Time, intent: &ObjectRef, sequence: u64, result: Result<(), String>) {
        if let Some(lane) = self.lanes.get_mut(intent) {
            lane.intent_saved(now, sequence, result);
            self.drive(now);
        }
    }

    /// Takes an action on the run, or on the current run of the intent, of this name; returns the run's name, which the
    /// action need not say.
    ///
    /// # Errors
    /// There is no such run or intent, it has no current run, or the run does not take the action.
    pub fn act(&mut self, now: Time, namespace: &str, name: &str, action: Action) -> Result<String, ActError> {
        let unknown = || ActError::Unknown { namespace: namespace.to_owned(), name: name.to_owned() };
        let mut meant = None;
        for (intent, lane) in self.lanes.iter().filter(|(intent, _)| *intent.namespace == *namespace) {
            let is_run = |record: &Record| record.plan.run == name;
            let is_current = lane.run().is_some_and(|run| is_run(run.record()));
            if *intent.name == *name || is_current {
                meant = Some(intent.clone());
                break;
            }
            if lane.history().iter().any(is_run) {
                let current = lane.run().map_or("", |run| &run.record().plan.run).to_owned();
                return Err(ActError::Over { asked: name.to_owned(), intent: intent.name.to_string(), current });
            }
        }
        let lane = meant.and_then(|intent| self.lanes.get_mut(&intent)).ok_or_else(unknown)?;
        let meant = lane.act(now, action)?;
        self.drive(now);
        Ok(meant)
    }

    /// Tells it that time has passed: at [`Conductor::poll_timeout`], or whenever.
    pub fn handle_timeout(&mut self, now: Time) {
        self.drive(now);
    }

    /// The next thing to do, in order.
    #[must_use]
    pub fn poll_deed(&mut self) -> Option<Deed> {
        self.deeds.pop_front()
    }

    /// When to call [`Conductor::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.lanes.values().filter_map(Lane::due).chain(self.edge).min()
    }

    /// Every intent, in order, those that are gone included.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values()
    }

    /// Runs whose nodes have to be looked at: those that have published something and are not finished.
    pub fn standing_wanted(&self) -> Vec<(ObjectRef, u64)> {
        let open = |run: &&Run| !run.is_finished() && run.record().phase != crate::Phase::Pending;
        let runs = self.lanes.values().filter_map(|lane| Some((lane.run_reference()?, lane.run().filter(open)?)));
        runs.map(|(reference, run)| (reference, run.record().assignment.version)).collect()
    }

    /// Revisions that runs of this intent have left and that nothing is sent to now, by whatever intent: neither a run
    /// that goes on, nor what nodes may still have of one, says otherwise.
    pub fn safe_to_scale_down(&self, lane: &Lane) -> BTreeSet<Revision> {
        let same = self.lanes.values().filter(|other| other.service() == lane.service());
        let used: BTreeSet<Revision> = same.flat_map(Lane::used).cloned().collect();
        lane.left().filter(|left| !used.contains(*left)).cloned().collect()
    }

    /// Why nothing is done for intents, or something else than they say.
    pub fn problems(&self) -> Vec<Problem> {
        self.lanes.values().filter(|lane| !lane.is_gone() || lane.is_wanted()).filter_map(Lane::problem).collect()
    }

    fn drive(&mut self, now: Time) {
        let mut versions: BTreeMap<(String, String), u64> = BTreeMap::new();
        for lane in self.lanes.values() {
            let (namespace, name) = lane.service();
            let last = versions.entry((namespace.to_owned(), name.to_owned())).or_default();
            *last = (*last).max(lane.last_version());
        }
        self.edge = None;
        let claims: Vec<_> = self.lanes.values().filter_map(Lane::claim).collect();
        for lane in self.lanes.values_mut() {
            let (namespace, name) = lane.service();
            let last = versions.get(&(namespace.to_owned(), name.to_owned())).copied().unwrap_or(0);
            match self.has_picture {
                true => {
                    let edge = lane.drive(now, &self.picture, &claims, last, self.fence, &mut self.deeds);
                    self.edge = [self.edge, edge].into_iter().flatten().min();
                }
                false => lane.follow(now, last, self.fence, &mut self.deeds),
            }
        }
    }
}
