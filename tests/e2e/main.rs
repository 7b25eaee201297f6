//! Pointsman with real clients: the binary, real Envoys, gRPC's own xDS client, and load that counts what fails.
//!
//! Every test starts its own server with its own files and its own Envoys, on addresses that nothing else uses.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod actions;
mod authorization;
mod bad_clients;
mod bad_input;
mod changes;
mod cli;
mod divisions;
mod envoy_resources;
mod forms;
mod full_disk;
mod gateway;
mod gateway_secrets;
mod gateway_tls;
mod grpc;
mod guard;
mod hosts;
mod identity;
mod intents;
mod interception;
mod isolation;
mod judged;
mod leaks;
mod load;
mod matches;
mod mesh;
mod missing;
mod mutual;
mod nack;
mod proxyless;
mod proxyless_revisions;
mod rate_limits;
mod raw;
mod removals;
mod restart;
mod rollouts;
mod splits;
mod swarm;
mod tcp;
mod telemetry;
mod token_review;
mod tokens;
mod truth;
mod undeclared;
