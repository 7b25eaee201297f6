//! The objects of other APIs, field for field, as far as they have a meaning here.
//!
//! Shared by every source. The types are open where the API grows (unknown fields are ignored by serde and reported
//! by the source with their path) and closed where an unknown value would change what traffic does.

pub mod delivery;
pub mod istio;
pub mod kube;
pub mod mesh_config;
pub mod pointsman;
pub mod policy;
pub(crate) mod schema;
