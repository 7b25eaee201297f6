//! What a run reads, given what clients send.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod access_logs;
mod bench;
mod loads;
mod metrics;
mod questions;
