//! The turn of one type: the response that it is owed now, or what it waits for.

use std::cell::OnceCell;
use std::time::Instant;

use proto::ResourceType;
use snapshot::{Body, Snapshot, Version};

use super::Stream;
use super::flight::Flight;
use super::hosts::Scope;
use super::isolation::Turn;
use super::order::{ORDER, Order};
use super::plan::{Plan, Planner};
use crate::response::Head;
use crate::{Outcome, Response, Variant};

pub(super) enum Step {
    Sent(Response),
    /// Nothing to send, but other types may go on now.
    Moved,
    Idle,
}

impl Stream {
    /// Brings one type closer to `target`, if its last response does not keep it back.
    pub(super) fn step(&mut self, resource_type: ResourceType, target: &Snapshot, now: Instant) -> Step {
        let Some(substream) = &mut self.substreams[resource_type.index()] else { return Step::Idle };
        if substream.is_in_step(target) || substream.subscription.is_empty() || substream.is_blocked() {
            return Step::Idle;
        }
        self.judge(resource_type, target);
        if resource_type == ResourceType::VirtualHost && self.hosts_must_wait(now) {
            return Step::Idle;
        }
        let is_resolved = self.resolve_claims(resource_type, target, now);
        // Of a client that has returned it is known now what it holds.
        let idle = || if is_resolved { Step::Moved } else { Step::Idle };
        let substream = self.substream(resource_type);
        substream.resolve_collections(target);
        let is_searched = substream.isolation.as_ref().is_some_and(|isolation| !isolation.rests());
        if !substream.must_answer && !is_searched && substream.view.rests(resource_type, target) {
            // The newest snapshot of equal content, so that an old one is not kept alive by a type that rests.
            substream.view.base = Some(target.clone());
            return idle();
        }
        let (mut rest, mut is_stuck) = (None, false);
        for turn in substream.turns() {
            let Some(substream) = self.substreams[resource_type.index()].as_deref() else { return Step::Idle };
            let planner = Planner {
                variant: self.variant,
                resource_type,
                substream,
                scope: Scope::new(resource_type, self.service, &self.substreams),
                order: Order::new(resource_type, self.is_returning(now), &self.substreams, target),
                target,
                settings: &self.settings,
                now,
                ttls: self.ttls(),
                tell_missing: self.node.as_ref().is_some_and(|node| node.is_grpc()),
                turn: *turn,
                tried_domains: OnceCell::new(),
            };
            let plan = planner.plan();
            let held_up = planner.is_first_full_state() && !plan.waits.is_empty();
            let must_answer = *turn == Turn::Ordinary && substream.must_answer && plan.waits.is_empty();
            if !held_up && (plan.is_news() || must_answer) {
                let full_state = planner.is_full_state();
                let (version, body, changed) = (plan.version(&planner), plan.body(&planner), plan.changed(&planner));
                let draft = Draft { turn: *turn, version, body, changed, full_state };
                return Step::Sent(self.send(resource_type, target, now, plan, draft));
            }
            match turn {
                Turn::Ordinary => rest = Some((plan, held_up)),
                Turn::Trial => is_stuck = true,
            }
        }
        let step = rest.map_or(Step::Idle, |(plan, held_up)| self.rest(resource_type, target, plan, held_up));
        if !is_stuck {
            return if matches!(step, Step::Idle) { idle() } else { step };
        }
        let outcomes = self.substream(resource_type).skip_trial();
        self.outcomes.extend(outcomes);
        Step::Moved
    }

    /// Compares what the client refuses of a type with what is wanted now.
    fn judge(&mut self, resource_type: ResourceType, target: &Snapshot) {
        let Some(mut isolation) = self.substream(resource_type).isolation.take() else { return };
        let substream = self.substream(resource_type);
        let is_awaited = |nonce: &str| substream.flights.iter().any(|flight| flight.nonce == nonce && !flight.overdue);
        if isolation.trial().is_some_and(|nonce| !is_awaited(nonce)) {
            isolation.lose_trial();
        }
        let scope = Scope::new(resource_type, self.service, &self.substreams);
        let subscription = self.substreams[resource_type.index()].as_ref().map(|substream| &substream.subscription);
        let is_owed = |name: &str| scope.holds(name) && subscription.is_some_and(|asked| asked.covers(name));
        let outcomes = isolation.judge(resource_type, target, is_owed);
        self.outcomes.extend(outcomes);
        let substream = self.substream(resource_type);
        substream.wake(isolation.take_stirred());
        substream.keep(isolation);
    }

    /// Books a plan that says nothing.
    fn rest(&mut self, resource_type: ResourceType, target: &Snapshot, mut plan: Plan, held_up: bool) -> Step {
        self.report_waits(resource_type, &plan);
        let substream = self.substream(resource_type);
        if held_up {
            substream.waits = plan.waits;
            return Step::Idle;
        }
        // Whatever this type no longer owes may set others free.
        let before = substream.view.exceptions.len();
        let is_new = !substream.view.is_of_content(resource_type, target);
        plan.settle(Turn::Ordinary, target, substream);
        let moved = is_new || substream.view.exceptions.len() != before;
        if moved {
            self.wake_hosts_of(resource_type);
        }
        if moved { Step::Moved } else { Step::Idle }
    }

    fn send(
        &mut self,
        resource_type: ResourceType,
        target: &Snapshot,
        now: Instant,
        mut plan: Plan,
        draft: Draft,
    ) -> Response {
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        let head = Head {
            variant: self.variant,
            resource_type,
            version: draft.version,
            nonce: &nonce,
            control_plane: &self.settings.control_plane,
            removed: if self.variant == Variant::Delta { &plan.remove } else { &[] },
            missing: &plan.missing,
        }
        .encode();
        let response = Response { resource_type, nonce: nonce.clone(), version: draft.version, head, body: draft.body };
        self.report_waits(resource_type, &plan);
        self.outcomes.push_back(Outcome::Sent {
            resource_type,
            nonce: nonce.clone(),
            version: draft.version,
            changed: draft.changed,
            removed: plan.remove.len(),
            bytes: response.len(),
        });
        match resource_type {
            ResourceType::Cluster => self.mark_assignments(&plan, target),
            ResourceType::Route => self.mark_hosts(&plan, target),
            _ => {}
        }
        let (contents, fresh) = plan.contents(target);
        let ttls = self.ttls();
        let substream = self.substream(resource_type);
        let number = substream.responses + 1;
        if ttls {
            substream.tell(contents.iter(resource_type), now);
        }
        let removed = std::mem::take(&mut plan.remove).into_iter();
        let removed = removed.map(|name| (name.clone(), substream.view.held(resource_type, &name))).collect();
        plan.settle(draft.turn, target, substream);
        let flight = Flight {
            nonce,
            number,
            version: draft.version,
            sent_at: now,
            contents,
            fresh,
            replaced: plan.replaced,
            doubtful: plan.doubtful,
            removed,
            overdue: false,
            full_state: draft.full_state,
            first: number == 1,
        };
        substream.depart(draft.turn, flight);
        self.wake_hosts_of(resource_type);
        response
    }

    /// The next heartbeats that are due, of one type. They wait for no acknowledgement, because a client may keep one
    /// back for as long as it warms (rule P-18).
    pub(super) fn heartbeats(&mut self, now: Instant) -> Option<Response> {
        for resource_type in ORDER {
            if self.resting.contains(resource_type) {
                continue;
            }
            let Some(substream) = self.substreams[resource_type.index()].as_deref_mut() else { continue };
            if !substream.has_heartbeats() {
                continue;
            }
            let due = substream.take_due(self.variant, now);
            let body = Body::join(&due.iter().filter_map(|cell| cell.heartbeat_entry()).collect::<Vec<_>>());
            if body.is_empty() {
                continue;
            }
            let version = substream.sent_version();
            self.last_nonce += 1;
            let nonce = self.last_nonce.to_string();
            self.substream(resource_type).heartbeats_sent(nonce.clone(), &due);
            let head = Head {
                variant: self.variant,
                resource_type,
                version,
                nonce: &nonce,
                control_plane: &self.settings.control_plane,
                removed: &[],
                missing: &[],
            }
            .encode();
            let response = Response { resource_type, nonce: nonce.clone(), version, head, body };
            let bytes = response.len();
            self.outcomes.push_back(Outcome::Sent { resource_type, nonce, version, changed: 0, removed: 0, bytes });
            return Some(response);
        }
        None
    }

    /// Whether the client knows of TTLs (rule P-63).
    pub(super) fn ttls(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.knows_ttls(self.variant))
    }

    fn report_waits(&mut self, resource_type: ResourceType, plan: &Plan) {
        if let Some(wait) = plan.begun.first() {
            self.outcomes.push_back(Outcome::Waiting { resource_type, count: plan.begun.len(), wait: wait.clone() });
        }
        if let Some(wait) = plan.expired.first() {
            let count = plan.expired.len();
            self.outcomes.push_back(Outcome::WaitExpired { resource_type, count, wait: wait.clone() });
        }
    }
}

/// The parts of a response that are worked out while the stream is only looked at.
struct Draft {
    turn: Turn,
    version: Version,
    body: Body,
    changed: usize,
    full_state: bool,
}
