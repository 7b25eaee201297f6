//! The admin API, over HTTP and over gRPC. Both forms answer from the same views; only actions on rollouts, and what
//! clients are asked for, can be changed here.

mod grpc;
mod http;
mod index;
mod load;
mod rollouts;
mod views;

pub(crate) use grpc::AdminService;
pub(crate) use http::router;
pub(crate) use views::{Condition, NodeFilter, ObjectFilter, Page, Views};
