//! The discovery protocol for one gRPC stream, without IO: state-of-the-world and delta, aggregated and per type.
//!
//! A [`Stream`] is told what the client asked ([`Stream::handle_request`]), what is published
//! ([`Stream::handle_snapshot`]) and how late it is ([`Stream::handle_timeout`]). It is asked what the client is owed
//! now ([`Stream::poll_response`]), what happened ([`Stream::poll_outcome`]) and when to come back
//! ([`Stream::poll_timeout`]).
//!
//! ```text
//!            handle_request          handle_snapshot
//!                  │                        │
//!                  ▼                        ▼
//!   Subscription ──▶ view: what the client was sent ◀── difference to the latest snapshot
//!                        │                     │
//!                        │ owed                │ order: new clusters before routes,
//!                        ▼                     ▼        removals after those who used them
//!                 poll_response ──▶ Flight ──▶ accepted / rejected (next request) ──▶ poll_outcome
//! ```
//!
//! Invariants:
//! - At most one unacknowledged response per type, unless its acknowledgement is overdue.
//! - The next response is computed from the newest snapshot, when it is asked for. Nothing is queued.
//! - Nothing is sent that is not subscribed to, and a rejection is never answered with the same content: what the
//!   client refuses is found by smaller and smaller responses, and then held back, alone, until it changes.
//! - A route is sent after the clusters that it uses were accepted; a cluster is removed after every resource that
//!   used it is gone from the client. Every wait ends, and says what it is for ([`Wait`]).
//! - Endpoints and secrets never wait for anything but their own type's acknowledgement.
//!
//! The rules that this follows are listed in `RULES.md`, with the tests that show them; code cites them as "rule P-18".
//! What it does not do: sockets, clocks, tasks, authentication, admission.

mod node;
mod outcome;
mod report;
mod request;
mod response;
mod settings;
mod standing;
mod stream;
mod wait;
mod wants;

pub use node::{Locality, Node};
pub use outcome::{Outcome, Rejection};
pub use report::{HeldBack, Holding, HoldingState, Summary, Verdict};
pub use request::{Code, Refusal, Request, Service, Variant};
pub use response::Response;
pub use settings::Settings;
pub use standing::{Comparison, Signature, Standing};
pub use stream::{NamePool, Stream};
pub use wait::{Wait, Waiting};
pub use wants::Wants;
