//! Waiting until something is so.

use std::time::{Duration, Instant};

use world::{ObjectRef, Problem, Severity};

use super::{NodeFilter, Page, Views};
use crate::view::{ObjectNode, ResourceState, Sync, Wait};
use crate::{Stopped, view};

/// Lines about those who are missing.
const MISSING: usize = 20;
/// However much happens, it is looked no more often than this, and never for more than a fifth of the time.
const PAUSE: Duration = Duration::from_millis(20);
/// However little happens, it is looked so often: not everything that matters is an event.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// All connected nodes that the object concerns have accepted what came of its newest generation, which is this one
    /// or a later one.
    Accepted { object: ObjectRef, generation: i64 },
    /// This node, or all of them, run what they are to have.
    Synced { node: Option<String> },
}

impl Views {
    /// Returns as soon as the condition is met, and what is missing when it is not `within` this time.
    pub(crate) async fn wait(&self, condition: Condition, within: Duration) -> Result<Wait, Stopped> {
        let end = Instant::now() + within;
        let mut events = self.journal.listen(None);
        loop {
            events.read();
            let begun = Instant::now();
            let wait = match &condition {
                Condition::Accepted { object, generation } => self.is_accepted(object, *generation).await?,
                Condition::Synced { node } => self.is_synced(node.as_deref()).await,
            };
            let now = Instant::now();
            if wait.met || now >= end || self.draining.is_cancelled() {
                return Ok(wait);
            }
            let pause = PAUSE.max(4 * (now - begun));
            tokio::time::sleep_until((now + pause).min(end).into()).await;
            let next = (now + AT_LEAST_EVERY.max(pause)).min(end);
            tokio::select! {
                () = events.changed() => {}
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.draining.cancelled() => {}
            }
        }
    }

    async fn is_accepted(&self, reference: &ObjectRef, generation: i64) -> Result<Wait, Stopped> {
        let (object, index) = self.look_at(reference).await?;
        let path = reference.path();
        let not = |summary: String| Wait { met: false, summary, missing: Vec::new(), problems: Vec::new() };
        let Some(object) = object else {
            let similar = self.similar(reference).await?;
            let hint = match &similar[..] {
                [] => String::new(),
                names => format!("; there are {}", names.join(", ")),
            };
            return Ok(not(format!("there is no object \"{path}\"{hint}")));
        };
        let problems: Vec<_> = object.problems.iter().map(problem).collect();
        if object.object.is_none() {
            return Ok(Wait { problems, ..not(format!("\"{path}\" could not be read")) });
        }
        if object.generation < generation {
            let summary = format!("\"{path}\" is at generation {}, not at {generation} yet", object.generation);
            return Ok(Wait { problems, ..not(summary) });
        }
        let nodes: Vec<ObjectNode> = index.object_nodes(&path).collect();
        let is_open = |node: &&ObjectNode| node.state != ResourceState::Accepted;
        let open: Vec<_> = nodes.iter().filter(is_open).collect();
        let silent = index.silent_nodes();
        let lines = open.iter().map(|node| line(node, object.generation));
        let missing: Vec<_> = lines.chain(silent.iter().map(|id| format!("{id}: did not answer in time"))).collect();
        let what = format!("\"{path}\" generation {}", object.generation);
        let has_errors = object.problems.iter().any(|problem| problem.severity == Severity::Error);
        let accepted = nodes.len() - open.len();
        let summary = match missing.len() {
            0 if has_errors => format!("{what} has errors: what they are about has no effect"),
            0 if nodes.is_empty() => format!("{what} concerns no connected node"),
            0 => format!("{what} is accepted by all {accepted} nodes that it concerns"),
            _ => format!("{what} is accepted by {accepted} of {} nodes that it concerns", nodes.len() + silent.len()),
        };
        let met = missing.is_empty() && !has_errors;
        Ok(Wait { met, summary, missing: bounded(missing), problems })
    }

    async fn is_synced(&self, id: Option<&str>) -> Wait {
        let all = || Page { after: String::new(), limit: usize::MAX };
        let filter = |state| NodeFilter { id_prefix: id.unwrap_or_default().to_owned(), state };
        let is_meant = |node: &view::Node| id.is_none_or(|id| node.id == id);
        let mut nodes = self.nodes(filter(None), all()).await.nodes;
        nodes.retain(is_meant);
        let open: Vec<_> = nodes.iter().filter(|node| node.sync != Sync::Synced).collect();
        let (met, summary) = match (id, nodes.len(), open.len()) {
            (Some(id), 0, _) => (false, format!("no stream of a node \"{id}\" is open")),
            (None, 0, _) => (false, "no node is connected".to_owned()),
            (Some(id), _, 0) => (true, format!("node \"{id}\" runs all that it is to have")),
            (None, all, 0) => (true, format!("all {all} nodes run what they are to have")),
            (_, all, open) => (false, format!("{} of {all} nodes run what they are to have", all - open)),
        };
        let mut missing: Vec<_> = open.into_iter().map(|node| format!("{}: {}", node.id, state(node))).collect();
        if nodes.is_empty() && id.is_some() {
            let gone = self.nodes(filter(Some(Sync::Disconnected)), all()).await.nodes;
            missing
                .extend(gone.iter().filter(|node| is_meant(node)).map(|node| format!("{}: {}", node.id, state(node))));
        }
        Wait { met, summary, missing: bounded(missing), problems: Vec::new() }
    }
}

fn line(node: &ObjectNode, newest: i64) -> String {
    let runs = match node.generation {
        0 => "runs nothing of it".to_owned(),
        generation if generation == newest => "has part of it".to_owned(),
        generation => format!("runs generation {generation}"),
    };
    format!("{}: {runs}; {}", node.node_id, node.why.join("; "))
}

/// Why a node is not in step.
fn state(node: &view::Node) -> String {
    if let Some(gone) = &node.disconnected {
        return format!(
            "left at {} ({}); it had accepted generation {}",
            gone.since, gone.reason, node.accepted_generation
        );
    }
    let mut reasons = Vec::new();
    for subscription in &node.subscriptions {
        reasons.extend(subscription.waiting.iter().cloned());
        if let Some(rejection) = subscription.last_rejection.as_ref().filter(|_| node.sync == Sync::Rejected) {
            reasons.push(format!("refused {}: {}", subscription.r#type, rejection.message));
        } else if subscription.sent_version != subscription.accepted_version {
            reasons.push(format!("{} is not acknowledged", subscription.r#type));
        }
    }
    match (node.sync, reasons.is_empty()) {
        (Sync::Unknown, _) => "did not answer in time".to_owned(),
        (_, true) => format!("has accepted generation {} of {}", node.accepted_generation, node.generation),
        (_, false) => reasons.join("; "),
    }
}

fn problem(problem: &Problem) -> String {
    problem.to_string()
}

/// The first lines, and how many more there are.
fn bounded(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > MISSING {
        let more = lines.len() - (MISSING - 1);
        lines.truncate(MISSING - 1);
        lines.push(format!("and {more} more"));
    }
    lines
}
