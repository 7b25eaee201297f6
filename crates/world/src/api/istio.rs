//! Istio's `networking.istio.io` v1, v1beta1 and v1alpha3: one shape serves all three.

mod destination_rule;
mod gateway;
mod service_entry;
mod virtual_service;

pub use destination_rule::*;
pub use gateway::*;
pub use service_entry::*;
pub use virtual_service::*;
