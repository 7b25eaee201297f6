//! The wire vocabulary: Envoy's API messages, resource types, and our own API.

mod resource_type;

pub use envoy_types::pb;
pub use resource_type::ResourceType;
