//! Checks of one object that need no other object: what an API server's admission would refuse.
//!
//! An error here refuses the object as a whole, so that a half-understood version never replaces a good one (but for
//! objects that are worse left out, such as policies that forbid); a warning lets it pass. Which values are allowed follows Istio's and Kubernetes' own validation.

mod analysis_profile;
pub(crate) mod authorization_policy;
mod deployment_intent;
mod destination_rule;
mod findings;
mod gateway;
mod http_route;
mod kubernetes;
mod mesh_config;
mod names;
mod pattern;
mod peer_authentication;
pub(crate) mod rate_limit_policy;
pub(crate) mod request_authentication;
mod request_match;
mod rollout;
mod service_entry;
mod stickiness;
mod strategy;
mod url;
mod virtual_service;
mod xds_resource;

use world::{Kind, Object, ObjectRef, Problem, Spec};

use findings::Findings;

/// What is done with an object that has an error.
pub(crate) const REFUSED: &str = "the object is not applied; the last good version, if there is one, stays in force";

/// What is wrong with an object.
pub(crate) struct Verdict {
    /// Everything, in the order of its fields.
    pub(crate) problems: Vec<Problem>,
    /// Whether it is not to be applied.
    pub(crate) is_refused: bool,
}

/// What is wrong with `object` by itself.
pub(crate) fn object(object: &Object) -> Verdict {
    let mut findings = Findings::new(&object.reference);
    identity(&object.reference, &mut findings);
    match &object.spec {
        Spec::Namespace(_) => {}
        Spec::PeerAuthentication(spec) => peer_authentication::peer_authentication(spec, &mut findings),
        Spec::RequestAuthentication(spec) => request_authentication::request_authentication(spec, &mut findings),
        Spec::AuthorizationPolicy(spec) => {
            authorization_policy::authorization_policy(spec, object, &mut findings);
        }
        Spec::MeshConfig(spec) => mesh_config::mesh_config(spec, &mut findings),
        Spec::Service(spec) => kubernetes::service(spec, &mut findings),
        Spec::EndpointSlice(slice) => kubernetes::endpoint_slice(slice, &object.meta, &mut findings),
        Spec::Pod(pod) => kubernetes::pod(pod, &mut findings),
        Spec::ServiceEntry(spec) => service_entry::service_entry(spec, &mut findings),
        Spec::WorkloadEntry(spec) => service_entry::workload_entry(spec, &mut findings),
        Spec::DestinationRule(spec) => destination_rule::destination_rule(spec, &mut findings),
        Spec::VirtualService(spec) => virtual_service::virtual_service(spec, &mut findings),
        Spec::Gateway(spec) => gateway::gateway(spec, &mut findings),
        Spec::RateLimitPolicy(spec) => rate_limit_policy::rate_limit_policy(spec, &mut findings),
        Spec::XdsResource(spec) => xds_resource::xds_resource(spec, &mut findings),
        Spec::DeploymentIntent(spec) => deployment_intent::deployment_intent(spec, &mut findings),
        Spec::AnalysisProfile(spec) => analysis_profile::analysis_profile(&object.reference.name, spec, &mut findings),
        Spec::RolloutRun(_) => rollout::rollout_run(&mut findings),
        Spec::Freeze(spec) => rollout::freeze(spec, &mut findings),
    }
    findings.into_verdict()
}

/// Whether an object may have this name and this namespace.
pub(crate) fn is_named_properly(reference: &ObjectRef) -> bool {
    let mut findings = Findings::new(reference);
    identity(reference, &mut findings);
    !findings.into_verdict().is_refused
}

fn identity(reference: &ObjectRef, findings: &mut Findings) {
    let is_label = matches!(reference.kind, Kind::Namespace | Kind::Service);
    let fits = if is_label { names::is_label(&reference.name) } else { names::is_subdomain(&reference.name) };
    if !fits {
        let message = format!("\"{}\" is not a valid name", reference.name);
        findings.error("metadata.name", message).hint(match is_label {
            true => "Use up to 63 lower-case letters, digits and '-', with a letter or digit at both ends.",
            false => "Use lower-case letters, digits, '-' and '.', with a letter or digit at both ends.",
        });
    }
    if !reference.namespace.is_empty() && !names::is_label(&reference.namespace) {
        let message = format!("\"{}\" is not a valid namespace", reference.namespace);
        findings
            .error("metadata.namespace", message)
            .hint("Use up to 63 lower-case letters, digits and '-', with a letter or digit at both ends.");
    }
}
