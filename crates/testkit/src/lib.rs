//! The test bed: real clients, sample services and measured traffic for the tests, the benchmarks and the demo.
//!
//! | module | what it gives |
//! |---|---|
//! | [`envoy`] | a real Envoy with a given bootstrap: start, admin interface, stop |
//! | [`grpc_client`], [`grpc_server`] | a real gRPC client with its own xDS resolver, and a server that is configured by xDS |
//! | [`grpc_language`] | of which implementations of gRPC there are such |
//! | [`prometheus`] | a real Prometheus that scrapes what it is told |
//! | [`redis`] | a real Redis that forgets |
//! | [`pointsman`] | the binary under test as a process: start, addresses, signals, restart |
//! | [`http`] | requests to an admin interface, and streams of events |
//! | [`wire`] | a raw discovery client that sends what it is told, for both protocol variants |
//! | [`backend`], [`tcp_backend`] | sample services that say who they are |
//! | [`authorizer`] | a service that Envoy asks whether requests may pass |
//! | [`api_server`] | the part of a cluster's API server that says whose tokens are |
//! | [`kubernetes`] | a real kube-apiserver with its etcd |
//! | [`leaks`] | secrets, looked for in whatever form they may be shown |
//! | [`load`] | continuous requests, and what came of each |
//! | [`stats`] | whether counts fit weights, with a stated chance of being wrong |
//! | [`netns`] | network namespaces joined by a switch, with interception of traffic |
//! | [`ports`] | addresses that nothing else uses |
//! | [`process`], [`worker`], [`wait`] | what the rest is made of: child processes, threads, deadlines |
//!
//! The invariant: everything that is started here is owned by a value, and ends when that value is dropped, also when
//! a test panics. Only processes that were started through this crate are ever signalled.
//!
//! Sample services and load run on threads of their own ([`worker::Worker`]), so that a test that blocks its own
//! thread neither stalls its traffic nor spoils its timings.
//!
//! Nothing here sleeps to wait for something to happen: [`wait::until`] asks again until a deadline.

#![allow(clippy::disallowed_methods, reason = "a harness for real processes needs the clock, threads and environment")]

mod admin;
pub mod api_server;
pub mod authorizer;
pub mod backend;
pub mod envoy;
pub mod grpc_client;
pub mod grpc_language;
pub mod grpc_server;
pub mod http;
pub mod kubernetes;
pub mod leaks;
pub mod load;
pub mod netns;
pub mod pointsman;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod redis;
pub mod stats;
pub mod tcp_backend;
mod tools;
pub mod wait;
pub mod wire;
pub mod worker;
