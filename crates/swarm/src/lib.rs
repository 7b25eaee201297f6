//! Thousands of imitated sidecars against any xDS server: what they see, and what they cost it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`scenario`] | what to do: how many nodes of which manners, and the phases they go through |
//! | [`swarm`](Swarm) | the nodes, and the phases as methods; [`run`] goes through a scenario |
//! | [`report`] | what was seen, as a table and as JSON |
//! | `scout` | one node that decodes everything first, to learn the names that the others ask for |
//! | `dialogue` | what Envoy says when, for one node, without IO |
//! | `scan`, `http2` | reading responses without decoding them, over an HTTP/2 of our own |
//! | `worker`, `connection` | sockets: one thread, one epoll, thousands of connections |
//! | `cost` | what processes have used, from `/proc` |
//!
//! The imitation must cost less than what it measures, so a response is never decoded: its type, version, nonce and
//! counts are read off the stream and its resources are skipped. Arrival times are the kernel's, taken when bytes came
//! in and not when somebody got round to reading them, so that a busy client does not make a server look slow. Where it
//! costs more CPU than the server all the same, the report says so.
//!
//! What it does not do: it proves nothing about the content of resources. Of names that come after the start it follows
//! the endpoint assignments of clusters, on delta streams; routes that come later are not asked for. In the state of the
//! world every response names every cluster, and a node that does not decode them cannot tell which are new, so that there
//! all but the first are acknowledged without waiting for anything to get warm.

#![allow(
    clippy::disallowed_methods,
    reason = "an engine of sockets and measurements needs the clock, threads and files"
)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of frames and names are checked where they are made")]

mod address;
mod catalogue;
mod clock;
mod connection;
mod cost;
mod dialogue;
mod entries;
mod error;
mod http2;
mod identity;
mod phases;
pub mod report;
mod request;
mod scan;
pub mod scenario;
mod scout;
mod stamp;
mod swarm;
mod tally;
mod tls;
mod trigger;
mod worker;

pub use address::Address;
pub use error::Error;
pub use phases::run;
pub use report::Report;
pub use scenario::Scenario;
pub use stamp::Stamp;
pub use swarm::{Options, Progress, Swarm};
pub use tls::TlsFiles;
