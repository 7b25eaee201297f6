//! The wire vocabulary: Envoy's API messages, resource types, and our own API.
//!
//! - [`pb`] holds Envoy's messages, [`admin`] and [`delivery`] our own, [`auth`] those by which agents ask for certificates.
//! - [`ResourceType`] names the kinds of resources.
//! - [`descriptor`] turns any message into JSON and back, by the descriptors that are embedded here.
//! - [`Extensions`] are those of Envoy that configuration can do without.
//! - [`RawResource`] is a resource that somebody wrote as JSON; [`references()`] finds what such a one names.
//! - [`xdstp`] compares names of that form.
//! - [`wire`] works on encoded bytes: it gives equal messages equal bytes, and checks them against the rules that Envoy's
//!   API states about its own fields.
//!
//! Nothing here decides what to publish.

pub mod descriptor;
mod extension;
mod raw_resource;
mod references;
mod resource_type;
pub mod wire;
pub mod xdstp;

/// Our admin API, generated from `proto/pointsman/admin/v1/admin.proto`; the stubs need the feature `grpc`.
#[allow(clippy::all, missing_docs)]
pub mod admin {
    include!(concat!(env!("OUT_DIR"), "/pointsman.admin.v1.rs"));
}

/// Our API of intents, generated from `proto/pointsman/delivery/v1alpha1/intents.proto`; the stubs need the feature
/// `grpc`.
#[allow(clippy::all, missing_docs)]
pub mod delivery {
    include!(concat!(env!("OUT_DIR"), "/pointsman.delivery.v1alpha1.rs"));
}

/// The interface by which Istio's agents ask for certificates, generated from `proto/istio/v1/auth/ca.proto`; the stubs
/// need the feature `grpc`.
#[allow(clippy::all, missing_docs)]
pub mod auth {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}

pub use envoy_types::pb;
pub use extension::{Extension, Extensions};
pub use raw_resource::{InvalidResource, RawResource};
pub use references::references;
pub use resource_type::ResourceType;

/// The descriptors of Envoy's API and of ours, as an encoded `google.protobuf.FileDescriptorSet` without source positions.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
