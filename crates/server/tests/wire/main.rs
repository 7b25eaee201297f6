//! The server over real connections, in this process.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod access;
mod admin;
mod attacks;
mod bad_clients;
mod bad_requests;
mod broken_connections;
mod capabilities;
mod concern;
mod fixture;
mod held;
mod identity;
mod intents;
mod lifecycle;
mod quotas;
mod rollouts;
mod services;
mod streams;
mod telemetry;
mod transport;
mod truth;
