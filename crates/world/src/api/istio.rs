//! Istio's `networking.istio.io` v1, v1beta1 and v1alpha3, and `security.istio.io` v1 and v1beta1: one shape serves all
//! versions.

mod authorization_policy;
mod claim;
mod destination_rule;
mod gateway;
mod peer_authentication;
mod policy_target;
mod request_authentication;
mod service_entry;
mod virtual_service;

pub use authorization_policy::*;
pub use claim::*;
pub use destination_rule::*;
pub use gateway::*;
pub use peer_authentication::*;
pub use policy_target::*;
pub use request_authentication::*;
pub use service_entry::*;
pub use virtual_service::*;
