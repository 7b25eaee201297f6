//! Intents: what is in force, what becomes of it, and the ways to change it. HTTP and gRPC answer from here.

mod feed;
mod grpc;
mod http;

use std::collections::BTreeMap;

use rollout::{ActError, Action};
use tokio_util::sync::CancellationToken;
use world::{Acceptance, Kind, Location, Object, ObjectRef, Problem, Refusal, Submission};

use super::rollouts::Outlook;
use crate::intake::Intake;
use crate::plane_task::PlaneHandle;
use crate::rollouts::RolloutsHandle;
use crate::{Stopped, view};
use feed::IntentFeed;

pub(crate) use grpc::IntentService;
pub(super) use http::routes;

/// Answers about intents, and takes them. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Intents {
    plane: PlaneHandle,
    rollouts: Outlook,
    intake: Intake,
    draining: CancellationToken,
}

/// Which objects are meant. An empty text stands for all.
#[derive(Clone, Debug, Default)]
pub(super) struct IntentFilter {
    /// Of this kind.
    pub(super) kind: Option<Kind>,
    /// Of this namespace.
    pub(super) namespace: String,
    /// Of this name.
    pub(super) name: String,
}

impl IntentFilter {
    fn takes(&self, reference: &ObjectRef) -> bool {
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        self.kind.as_ref().is_none_or(|kind| *kind == reference.kind)
            && is(&self.namespace, &reference.namespace)
            && is(&self.name, &reference.name)
    }
}

/// The kind of an object that is about rollouts, by any of its names.
pub(super) fn kind_named(text: &str) -> Result<Kind, String> {
    match Kind::named(text) {
        kind @ (Kind::DeploymentIntent | Kind::AnalysisProfile | Kind::Freeze | Kind::RolloutRun) => Ok(kind),
        _ => Err(format!("\"{text}\" is none of DeploymentIntent, AnalysisProfile, Freeze and RolloutRun")),
    }
}

impl Intents {
    /// Asks these.
    pub(crate) fn new(
        plane: PlaneHandle,
        rollouts: RolloutsHandle,
        intake: Intake,
        draining: CancellationToken,
    ) -> Self {
        let rollouts = Outlook::new(rollouts, plane.clone());
        Self { plane, rollouts, intake, draining }
    }

    /// The objects that are in force, in order.
    pub(super) async fn list(&self, filter: &IntentFilter) -> Result<view::Intents, Stopped> {
        Ok(view::Intents { objects: self.look(filter).await?.into_values().collect() })
    }

    async fn look(&self, filter: &IntentFilter) -> Result<BTreeMap<ObjectRef, view::IntentObject>, Stopped> {
        let rollouts = Becoming::of(self.rollouts.all().await?);
        let problems = by_object(self.plane.problems().await?);
        let catalogued = self.plane.catalogued();
        let catalogued = catalogued.borrow();
        let objects = catalogued.iter().filter(|(reference, _)| filter.takes(reference));
        let objects = objects.map(|(reference, (object, generation))| {
            let problems = problems.get(reference).map(Vec::as_slice).unwrap_or_default();
            (reference.clone(), describe(object, *generation, problems, rollouts.of_object(reference)))
        });
        Ok(objects.collect())
    }

    /// One object that is in force.
    pub(super) async fn one(&self, reference: &ObjectRef) -> Result<Option<view::IntentObject>, Stopped> {
        // In this order: what was said before the question is in by then.
        let problems = by_object(self.plane.problems().await?);
        let found = self.plane.catalogued().borrow().get(reference).cloned();
        let Some((object, generation)) = found else { return Ok(None) };
        let problems = problems.get(reference).map(Vec::as_slice).unwrap_or_default();
        let rollout = match reference.kind {
            Kind::DeploymentIntent | Kind::RolloutRun => {
                self.rollouts.one(&reference.namespace, &reference.name).await?
            }
            _ => None,
        };
        let is_its = |rollout: &view::Rollout| match reference.kind {
            Kind::RolloutRun => *rollout.run == *reference.name,
            _ => *rollout.intent == *reference.name,
        };
        Ok(Some(describe(&object, generation, problems, rollout.filter(is_its))))
    }

    /// The objects, and then every change.
    pub(super) fn watch(&self, filter: IntentFilter) -> IntentFeed {
        IntentFeed::new(self.clone(), filter)
    }

    /// Has objects kept, or taken away. What was taken is in force when this returns.
    pub(super) async fn submit(&self, submission: Submission) -> Result<Acceptance, Refusal> {
        let acceptance = self.intake.submit(submission).await?;
        // Everything that was said to the plane before this question is answered is in.
        self.plane.is_reached().await.map_err(|Stopped| Refusal::Nobody)?;
        Ok(acceptance)
    }

    /// Takes an action on a run.
    pub(super) async fn act(
        &self,
        namespace: &str,
        name: &str,
        action: Action,
    ) -> Result<Result<view::Rollout, ActError>, Stopped> {
        self.rollouts.act(namespace, name, action).await
    }
}

/// Rollouts by their intents and by their current runs.
#[derive(Debug, Default)]
struct Becoming {
    rollouts: BTreeMap<ObjectRef, view::Rollout>,
}

impl Becoming {
    fn of(all: view::Rollouts) -> Self {
        let mut rollouts = BTreeMap::new();
        for rollout in all.rollouts {
            let named = |kind, name: &str| ObjectRef::new(kind, &rollout.namespace, name);
            if !rollout.run.is_empty() {
                rollouts.insert(named(Kind::RolloutRun, &rollout.run), rollout.clone());
            }
            rollouts.insert(named(Kind::DeploymentIntent, &rollout.intent), rollout);
        }
        Self { rollouts }
    }

    fn of_object(&self, reference: &ObjectRef) -> Option<view::Rollout> {
        self.rollouts.get(reference).cloned()
    }
}

fn by_object(problems: Vec<Problem>) -> BTreeMap<ObjectRef, Vec<Problem>> {
    let mut by_object = BTreeMap::<_, Vec<_>>::new();
    for problem in problems {
        if let Some(object) = problem.object.clone() {
            by_object.entry(object).or_default().push(problem);
        }
    }
    by_object
}

fn describe(
    object: &Object,
    generation: i64,
    problems: &[Problem],
    rollout: Option<view::Rollout>,
) -> view::IntentObject {
    let ObjectRef { kind, namespace, name } = &object.reference;
    let place = object.meta.location.as_ref().map(Location::to_string).unwrap_or_default();
    let applied = place.starts_with("api:");
    view::IntentObject {
        kind: kind.to_string(),
        namespace: namespace.to_string(),
        name: name.to_string(),
        generation,
        applied,
        place: if applied { String::new() } else { place },
        manifest: object.manifest(generation).unwrap_or_default(),
        problems: problems.iter().map(view::Problem::from).collect(),
        rollout,
    }
}

/// The answer to what was taken.
fn taken(acceptance: &Acceptance) -> view::IntentsTaken {
    let object = |taken: &world::Taken| view::IntentTaken {
        kind: taken.reference.kind.to_string(),
        namespace: taken.reference.namespace.to_string(),
        name: taken.reference.name.to_string(),
        generation: taken.generation,
        effect: taken.effect.as_str().to_owned(),
    };
    view::IntentsTaken {
        objects: acceptance.objects.iter().map(object).collect(),
        warnings: acceptance.warnings.iter().map(view::Problem::from).collect(),
    }
}
