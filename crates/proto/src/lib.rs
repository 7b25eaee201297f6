//! The wire vocabulary: Envoy's API messages, resource types, and our own API.
//!
//! - [`pb`] holds Envoy's messages, [`admin`] our own.
//! - [`ResourceType`] names the kinds of resources.
//!
//! Nothing here decides what to publish.

mod resource_type;

/// Our admin API, generated from `proto/pointsman/admin/v1/admin.proto`; the stubs need the feature `grpc`.
#[allow(clippy::all, missing_docs)]
pub mod admin {
    include!(concat!(env!("OUT_DIR"), "/pointsman.admin.v1.rs"));
}

pub use envoy_types::pb;
pub use resource_type::ResourceType;

/// The descriptors of Envoy's API and of ours, as an encoded `google.protobuf.FileDescriptorSet` without source positions.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
