//! Views in the messages of `pointsman.delivery.v1alpha1`.

use bytes::Bytes;
use prost::Message;
use proto::delivery;
use proto::pb::google::{protobuf, rpc};
use world::Effect;

use crate::admin::grpc::timestamp;
use crate::view;

/// The verb as the HTTP API has it; `None` when none was said.
pub(super) fn verb(verb: delivery::Verb) -> Option<&'static str> {
    Some(match verb {
        delivery::Verb::Unspecified => return None,
        delivery::Verb::Promote => "promote",
        delivery::Verb::PromoteFull => "promote-full",
        delivery::Verb::Pause => "pause",
        delivery::Verb::Resume => "resume",
        delivery::Verb::Abort => "abort",
        delivery::Verb::Retry => "retry",
        delivery::Verb::SkipStep => "skip-step",
        delivery::Verb::RollBackTo => "roll-back-to",
    })
}

/// The details of a status: a [`delivery::Refusal`] within `google.rpc.Status`, as clients of gRPC look for them.
pub(super) fn details(words: &str, problems: &[world::Problem]) -> Bytes {
    let refusal = delivery::Refusal { problems: problems.iter().map(|found| problem(found.into())).collect() };
    let detail = protobuf::Any {
        type_url: "type.googleapis.com/pointsman.delivery.v1alpha1.Refusal".to_owned(),
        value: refusal.encode_to_vec(),
    };
    let code = tonic::Code::InvalidArgument as i32;
    rpc::Status { code, message: words.to_owned(), details: vec![detail] }.encode_to_vec().into()
}

pub(super) fn taken(taken: &world::Taken) -> delivery::Taken {
    let effect = match taken.effect {
        Effect::Created => delivery::Effect::Created,
        Effect::Changed => delivery::Effect::Changed,
        Effect::Unchanged => delivery::Effect::Unchanged,
        Effect::Deleted => delivery::Effect::Deleted,
    };
    let reference = delivery::Reference {
        kind: taken.reference.kind.to_string(),
        namespace: taken.reference.namespace.to_string(),
        name: taken.reference.name.to_string(),
    };
    delivery::Taken { reference: Some(reference), generation: taken.generation, effect: effect.into() }
}

pub(super) fn problem(problem: view::Problem) -> delivery::Problem {
    // Shown as a path; the message has its parts.
    let object = problem.object.parse::<world::ObjectRef>().ok();
    delivery::Problem {
        is_error: problem.severity == "error",
        object: object.map(|object| delivery::Reference {
            kind: object.kind.to_string(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
        }),
        field: problem.field,
        message: problem.message,
        consequence: problem.consequence,
        hint: problem.hint,
        file: problem.file,
        line: problem.line,
    }
}

pub(super) fn event(event: view::IntentEvent) -> delivery::WatchResponse {
    let change = match event.change {
        view::IntentChange::Added => delivery::Change::Added,
        view::IntentChange::Modified => delivery::Change::Modified,
        view::IntentChange::Deleted => delivery::Change::Deleted,
        view::IntentChange::Synced => delivery::Change::Synced,
    };
    delivery::WatchResponse { change: change.into(), object: event.object.map(object) }
}

pub(super) fn object(object: view::IntentObject) -> delivery::Object {
    delivery::Object {
        reference: Some(delivery::Reference { kind: object.kind, namespace: object.namespace, name: object.name }),
        generation: object.generation,
        applied: object.applied,
        place: object.place,
        manifest: object.manifest.to_string(),
        problems: object.problems.into_iter().map(problem).collect(),
        rollout: object.rollout.map(rollout),
    }
}

pub(super) fn rollout(rollout: view::Rollout) -> delivery::Rollout {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let has_run = !rollout.run.is_empty();
    let is_safe = |revision: &String| rollout.safe_to_scale_down.contains(revision);
    let revisions = rollout.endpoints.iter().map(|found| delivery::Revision {
        name: found.revision.clone(),
        healthy_endpoints: found.healthy,
        safe_to_scale_down: is_safe(&found.revision),
    });
    let refused = rollout.nodes.refused.into_iter();
    let analysis = rollout.analysis.as_ref().map(ToString::to_string).unwrap_or_default();
    delivery::Rollout {
        revisions: revisions.collect(),
        namespace: rollout.namespace,
        intent: rollout.intent,
        service: rollout.service,
        strategy: rollout.strategy,
        run: rollout.run,
        phase: rollout.phase,
        since: has_run.then(|| timestamp(rollout.since)),
        step: rollout.step.map(count),
        steps: count(rollout.steps),
        stable: rollout.stable,
        candidate: rollout.candidate,
        attempt: rollout.attempt,
        started: has_run.then(|| timestamp(rollout.started)),
        configured_percent: rollout.weight.configured,
        acknowledged_percent: rollout.weight.acknowledged,
        observed: rollout.weight.observed.map(|observed| delivery::ObservedShare {
            percent: observed.percent,
            low_percent: observed.interval[0],
            high_percent: observed.interval[1],
            requests: observed.requests,
            includes_chosen: observed.includes_chosen,
        }),
        nodes: Some(delivery::Nodes {
            version: rollout.nodes.version,
            concerned: rollout.nodes.concerned,
            accepted: rollout.nodes.accepted,
            refused: refused.map(|node| delivery::RefusingNode { node_id: node.node, words: node.words }).collect(),
        }),
        hold: rollout.hold.map(|hold| delivery::Hold {
            reason: hold.reason,
            text: hold.text,
            since: Some(timestamp(hold.since)),
            deadline: hold.deadline.map(timestamp),
        }),
        reason: rollout.reason,
        conditions: rollout.conditions.into_iter().map(condition).collect(),
        problems: rollout.problems.into_iter().map(problem).collect(),
        actions: rollout.actions.into_iter().map(action).collect(),
        events: rollout.events.into_iter().map(happening).collect(),
        runs: rollout.runs.into_iter().map(run).collect(),
        analysis,
    }
}

fn condition(condition: view::RolloutCondition) -> delivery::Condition {
    let view::RolloutCondition { kind, status, reason, since, deadline } = condition;
    delivery::Condition { kind, status, reason, since: since.map(timestamp), deadline: deadline.map(timestamp) }
}

fn action(action: view::RolloutAction) -> delivery::Action {
    let at = Some(timestamp(action.at));
    delivery::Action { at, verb: action.verb, actor: action.actor, reason: action.reason, id: action.id }
}

fn happening(event: view::RolloutEvent) -> delivery::Event {
    let at = Some(timestamp(event.at));
    delivery::Event { id: event.id, at, run: event.run, event: event.event, text: event.text }
}

fn run(run: view::RolloutPast) -> delivery::Run {
    delivery::Run {
        name: run.run,
        stable: run.stable,
        candidate: run.candidate,
        attempt: run.attempt,
        phase: run.phase,
        reason: run.reason,
        started: Some(timestamp(run.started)),
        since: Some(timestamp(run.since)),
    }
}
