//! The admin API, over HTTP and over gRPC. Both forms answer from the same views; only intents, runs, and what clients
//! are asked for, can be changed here. Who may call it, and what is recorded of calls, is for [`access`] to say.

mod access;
mod audit;
mod authority;
mod grpc;
mod http;
mod index;
mod intents;
mod load;
mod rollouts;
mod tokens;
mod views;

pub use access::AdminAccess;
pub(crate) use access::{Access, guard, guard_views, is_grpc};
pub(crate) use grpc::AdminService;
pub(crate) use http::{Admin, router};
pub(crate) use intents::{IntentService, Intents};
pub(crate) use views::{Condition, NodeFilter, ObjectFilter, Page, Views};
