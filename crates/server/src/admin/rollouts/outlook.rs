//! Rollouts together with all that is wrong with their intents and runs, whoever found it.

use std::collections::BTreeMap;

use rollout::{ActError, Action};
use tokio::sync::watch;
use world::{Kind, ObjectRef, Problem, Severity};

use crate::plane_task::PlaneHandle;
use crate::rollouts::RolloutsHandle;
use crate::{Stopped, view};

/// Asks the rollouts' task what is going on, and the plane's why it is not. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Outlook {
    rollouts: RolloutsHandle,
    plane: PlaneHandle,
}

/// By object, in order.
type Problems = BTreeMap<ObjectRef, Vec<Problem>>;

impl Outlook {
    /// Asks these.
    pub(crate) fn new(rollouts: RolloutsHandle, plane: PlaneHandle) -> Self {
        Self { rollouts, plane }
    }

    /// Every intent with its current run.
    pub(in crate::admin) async fn all(&self) -> Result<view::Rollouts, Stopped> {
        let problems = self.problems().await?;
        let mut all = self.rollouts.all().await?;
        all.rollouts.iter_mut().for_each(|rollout| explain(rollout, &problems));
        Ok(all)
    }

    /// The intent of this name, or of the run of this name.
    pub(in crate::admin) async fn one(&self, namespace: &str, name: &str) -> Result<Option<view::Rollout>, Stopped> {
        let problems = self.problems().await?;
        let mut found = self.rollouts.one(namespace, name).await?;
        found.iter_mut().for_each(|rollout| explain(rollout, &problems));
        Ok(found)
    }

    /// Takes an action; answers with how things stand right after it.
    pub(in crate::admin) async fn act(
        &self,
        namespace: &str,
        name: &str,
        action: Action,
    ) -> Result<Result<view::Rollout, ActError>, Stopped> {
        let mut acted = self.rollouts.act(namespace, name, action).await?;
        if let Ok(rollout) = &mut acted {
            explain(rollout, &self.problems().await?);
        }
        Ok(acted)
    }

    /// Changes whenever something may be different.
    pub(in crate::admin) fn news(&self) -> watch::Receiver<u64> {
        self.rollouts.news()
    }

    async fn problems(&self) -> Result<Problems, Stopped> {
        let mut problems = Problems::new();
        for problem in self.plane.problems().await? {
            let about = problem.object.clone().filter(|o| matches!(o.kind, Kind::DeploymentIntent | Kind::RolloutRun));
            if let Some(object) = about {
                problems.entry(object).or_default().push(problem);
            }
        }
        Ok(problems)
    }
}

/// Adds what is wrong with the intent and with its run, errors first, each once.
fn explain(rollout: &mut view::Rollout, problems: &Problems) {
    let named = |kind, name: &str| ObjectRef::new(kind, &rollout.namespace, name);
    let intent = problems.get(&named(Kind::DeploymentIntent, &rollout.intent));
    let run = problems.get(&named(Kind::RolloutRun, &rollout.run));
    for problem in intent.into_iter().chain(run).flatten().map(view::Problem::from) {
        // What the rollout says of itself the plane knows with its place.
        rollout.problems.retain(|known| (&known.field, &known.message) != (&problem.field, &problem.message));
        rollout.problems.push(problem);
    }
    rollout.problems.sort_by_key(|problem| problem.severity != "error");
    let refusal = intent.into_iter().flatten().find(|problem| problem.severity == Severity::Error);
    if let Some(problem) = refusal {
        for accepted in rollout.conditions.iter_mut().filter(|condition| condition.kind == "Accepted") {
            if accepted.status != Some(false) {
                // Who tells since when has not heard of it yet.
                accepted.since = None;
            }
            (accepted.status, accepted.reason) = (Some(false), problem.message.clone());
        }
    }
}
