//! The admin API, over HTTP and over gRPC. Read-only; both forms answer from the same views.

mod grpc;
mod http;
mod index;
mod load;
mod views;

pub(crate) use grpc::AdminService;
pub(crate) use http::router;
pub(crate) use views::{Condition, NodeFilter, ObjectFilter, Page, Views};
