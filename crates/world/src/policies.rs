//! Which policies concern a workload.

use std::sync::Arc;

use crate::{Labels, Object, Spec};

/// The kinds of `security.istio.io`, and what our own has of the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum PolicyKind {
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    RateLimitPolicy,
}

/// The policies of one kind that select a workload. Each list is oldest first, then by namespace and name; no policy is
/// in two of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies<'w> {
    /// Those of the root namespace without a selector.
    pub mesh: Vec<&'w Arc<Object>>,
    /// Those of the root namespace whose selector matches, whatever the workload's namespace. To Istio they are like the
    /// others, but for PeerAuthentications, which it passes over.
    pub mesh_selected: Vec<&'w Arc<Object>>,
    /// Those of the workload's namespace without a selector; none if that is the root namespace.
    pub namespace: Vec<&'w Arc<Object>>,
    /// Those of the workload's namespace whose selector matches; none if that is the root namespace.
    pub workload: Vec<&'w Arc<Object>>,
}

impl<'w> Policies<'w> {
    /// All, from the widest level to the narrowest.
    pub fn all(&self) -> impl Iterator<Item = &'w Arc<Object>> + '_ {
        self.mesh.iter().chain(&self.mesh_selected).chain(&self.namespace).chain(&self.workload).copied()
    }
}

/// Whom a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection<'o> {
    /// All workloads of its namespace, and of the mesh in the root namespace.
    All,
    /// Workloads with these labels, of which there is at least one.
    Labels(&'o Labels),
    /// No workload: it is attached to something else.
    Nothing,
}

/// The kind and the selection of a policy; `None` for other objects.
pub(crate) fn selection(spec: &Spec) -> Option<(PolicyKind, Selection<'_>)> {
    let (kind, selector, targets) = match spec {
        Spec::PeerAuthentication(spec) => (PolicyKind::PeerAuthentication, &spec.selector, &[][..]),
        Spec::RequestAuthentication(spec) => (PolicyKind::RequestAuthentication, &spec.selector, &spec.target_refs[..]),
        Spec::AuthorizationPolicy(spec) => (PolicyKind::AuthorizationPolicy, &spec.selector, &spec.target_refs[..]),
        Spec::RateLimitPolicy(spec) => (PolicyKind::RateLimitPolicy, &spec.selector, &[][..]),
        Spec::Namespace(_)
        | Spec::Service(_)
        | Spec::EndpointSlice(_)
        | Spec::Pod(_)
        | Spec::ServiceEntry(_)
        | Spec::WorkloadEntry(_)
        | Spec::DestinationRule(_)
        | Spec::VirtualService(_)
        | Spec::Gateway(_)
        | Spec::XdsResource(_)
        | Spec::DeploymentIntent(_)
        | Spec::AnalysisProfile(_)
        | Spec::RolloutRun(_)
        | Spec::Freeze(_)
        | Spec::MeshConfig(_) => return None,
    };
    let labels = selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty());
    let selection = match labels {
        Some(labels) => Selection::Labels(labels),
        None if targets.is_empty() => Selection::All,
        None => Selection::Nothing,
    };
    Some((kind, selection))
}
