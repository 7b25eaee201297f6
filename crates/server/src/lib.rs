//! Pointsman on the wire: discovery services, health, reflection and admin over gRPC, the admin HTTP API, metrics,
//! and the tasks that drive the plane and the streams.
//!
//! ```text
//! Input ──▶ plane task (own thread) ──watch per audience──▶ stream task ──one response──▶ HTTP/2 connection
//!                 ▲                                            ▲     │
//!                 └───────────── attach, detach ───────────────┘     └──requests──◀ client
//! ```
//!
//! What is sent when is decided by [`xds::Stream`], what it consists of by [`plane::Plane`]; this crate carries events
//! to them and carries out what they say. It knows no sources: whoever runs the server feeds its [`Input`].
//!
//! Invariants:
//! - Every task has an owner that joins it; [`Server::run`] returns when all are gone (ARCHITECTURE.md has the table).
//! - No lock is held over an `await` or a send, and no queue grows with slow clients: a stream holds one response.
//! - Nothing that a client sends makes the server panic, and one client's silence or slowness delays no other.

// The shell is where clocks are read; the pure crates are given the time.
#![allow(clippy::disallowed_methods)]

mod admin;
mod certificates;
mod client_status;
mod config;
mod discovery;
mod error;
mod fetch;
mod gateway_secrets;
mod grpc;
mod intake;
mod journal;
mod jwks;
mod listen;
mod load_reports;
mod mailbox;
mod metrics;
mod plane_task;
mod quotas;
mod rollouts;
mod rotation;
mod server;
mod telemetry;
mod token_review;
mod trust;
pub mod view;

pub use admin::AdminAccess;
pub use config::{Config, Deadlines, Limits, Listen, ListenError};
pub use error::{Error, Stopped};
pub use gateway_secrets::{GatewaySecrets, TlsSecrets};
pub use intake::Submitted;
pub use jwks::JwksSettings;
pub use load_reports::LoadReports;
pub use plane_task::Input;
pub use quotas::QuotaStore;
pub use rollouts::StoreError;
pub use server::{Addresses, Server};
pub use telemetry::{Reports, RunTargets, Telemetry};
pub use token_review::TokenReviewSettings;
pub use trust::{AuthoritySource, CertificateSource, ServiceAccountSource, StateDirectory, StateError, TlsSettings};
pub use xds::Settings as StreamSettings;
