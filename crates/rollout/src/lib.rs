//! Which split of traffic comes next, given evidence and time.
//!
//! A [`Run`] carries one deployment intent out: it moves the traffic of one service from its stable revision to a
//! candidate, and back if it must. It is a state machine without IO, in three calls:
//!
//! ```text
//!            handle(now, Event) / act(now, Action) / handle_timeout(now)
//!                                    │
//!                                    ▼
//!   Pending ─▶ Preparing ─▶ PreGate ─▶ Step i { Guard ─▶ Applying ─▶ Settling ─▶ Waiting } ─▶ Bake
//!      │           │           │          │        └─▶ Blocked                           │
//!      └───────────┴───────────┴──────────┴──▶ RollingBack ─▶ RolledBack, Superseded     ▼
//!                                                   ▲              Completed ◀─ Draining ◀─ Promoting
//!                                                   └─────────────────────────────┴──────────┘
//!                                    │
//!                                    ▼
//!                         poll_effect() until there is none, poll_timeout()
//! ```
//!
//! What it decides is an [`Assignment`]. It hands out the whole [`Record`] to be made durable first
//! ([`Effect::Commit`]) and the assignment only when that has happened ([`Effect::Publish`]), so after a crash at any
//! point [`Run::resume`] begins with weights at least as new as those on any proxy. A [`Judge`] says what the evidence
//! means; [`Run::explain`] shows its numbers, [`Run::hold`] why a run does not move.
//!
//! Whoever drives a run polls effects after every call, and performs them in order. It says what endpoints there are
//! ([`Event::Endpoints`]) when the run begins or is resumed, and whenever that changes; where the nodes stand
//! ([`Event::Standing`]) after every publication, with no nodes as well, and whenever that changes; what was measured
//! ([`Event::Evidence`]) as it comes in, reports without any request included, for they tell no traffic from no
//! telemetry; and that time has passed, at [`Run::poll_timeout`]. A run that says [`Effect::StartRun`] is over: the next
//! one's [`Plan`] is the driver's to put together, with the latest intent: a [`Conductor`] does that for all intents.
//!
//! Invariants, which `tests/invariants.rs` holds against random events with crashes in between: weights are never all
//! 0; none is positive before every concerned node has the clusters, or while a revision has no healthy endpoint;
//! steps change weights and never the set of clusters; clusters go only after every node has weight 0, and a drain;
//! rolling back ends under any pattern of refusals; a client that is kept by a hash never moves back as weights rise;
//! a run gives its service to the next only when it has let go of it.
//!
//! This crate reads no clock, draws no random numbers, and does no IO.

mod action;
pub mod analysis;
mod conductor;
mod effect;
mod event;
mod metrics;
mod record;
mod run;
mod steps;
mod time;

pub use action::{Action, ActionError, TakenAction, Verb};
pub use analysis::{Absence, Arms, Evidence, Explanation, Failure, Judge, Observation, Part, Tally, Verdict};
pub use conductor::{
    Acceptance, ActError, Condition, Conductor, Deed, IntentRecord, Lane, PassedOver, Picture, Seen, Sight, Stored,
    Wish,
};
pub use effect::{Effect, GateQuestion, Notice, Successor};
pub use event::{Endpoints, Event, GateAnswer, GateId, Refusal, Standing};
pub use metrics::Profiles;
pub use record::{GateRecord, Held, Passage, Phase, Plan, Reason, Record, Stage};
pub use run::{Hold, HoldReason, Run};
pub use time::Time;
pub use world::api::delivery::{Assignment, Mirror, RequestRoute, Revision, Split};
