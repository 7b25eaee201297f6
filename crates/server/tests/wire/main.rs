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
mod gateway_secrets;
mod held;
mod identity;
mod identity_attacks;
mod intents;
mod lifecycle;
mod peers;
mod quotas;
mod rollouts;
mod rotation;
mod services;
mod streams;
mod telemetry;
mod tenure;
mod token_flood;
mod token_review;
mod transport;
mod truth;
