//! From what clients report about their traffic to what a run is judged by.
//!
//! ```text
//! metrics service ──▶ MetricStream ─┐
//! access logs ──────▶ LogStream ────┼──▶ Ledger ──▶ Account (one a run) ──▶ rollout::Evidence
//! load reports ─────▶ load::Stream ─┘
//! ```
//!
//! The [`Ledger`] sums up what is reported of the clusters that somebody has opened an [`Account`] for; all else is
//! dropped at once. An account remembers where the sums stood when it was read last, so a reading is what was counted
//! since: nothing is counted in two readings, and a reader that is late loses nothing.
//!
//! This is a crate of its own because it joins what `load` and `rollout` must not know of each other: reports have no
//! arms, and runs have no clusters.
//!
//! Invariants:
//! - A request counts at most once for each source. The first report of a stream, and the first after a cluster became of
//!   interest, says where counting begins and is not counted itself; of several streams of one node the newest counts.
//! - Memory is bounded by the clusters that are of interest times the open streams, whatever clients send.
//! - No traffic, no telemetry and an error of a provider stay three different things: evidence without requests,
//!   evidence without reporters, and [`rollout::Observation::ProviderError`].
//!
//! No clock, no IO: time comes in as a parameter. `docs/telemetry.md` says what each source counts and what it cannot
//! tell apart.

mod account;
mod client;
mod interest;
mod ledger;
mod log_stream;
mod measure;
mod metric_stream;
mod pace;
mod question;
mod stat;
mod sums;

pub use account::{Account, Arm, Places, Targets};
pub use client::{Client, Refusal};
pub use interest::Interest;
pub use ledger::{Channel, ClusterSums, Ledger, StreamId};
pub use log_stream::LogStream;
pub use metric_stream::{Counters, MetricStream};
pub use pace::Pace;
pub use question::{Count, Question, Variables};
pub use stat::Stat;
pub use sums::{LoadSums, Sums};
