//! Whose traffic a rollout divides: that of clients in the mesh with some labels, and that of some gateways.

use world::api::delivery::Attach;
use world::{Object, Reader, Spec};

use crate::route::gateway_name;
use crate::{Audience, Proxy};

/// Whether a client in the mesh is meant.
pub(crate) fn means_client(attach: &Attach, audience: &Audience) -> bool {
    attach.mesh && audience.has_labels(attach.clients.iter().flat_map(|clients| &clients.match_labels))
}

/// Whether any of these Gateways, as `namespace/name`, is meant by a run in `namespace`.
pub(crate) fn means_gateway(attach: &Attach, namespace: &str, gateways: &[String]) -> bool {
    attach.gateways.iter().any(|named| gateways.contains(&gateway_name(named, namespace).into_owned()))
}

/// Whether a run divides what the clients of an audience send, as far as they and not their routes decide about it; `false`
/// for what is no run.
pub fn is_attached(run: &Object, audience: &Audience, world: &Reader<'_>) -> bool {
    let Spec::RolloutRun(spec) = &run.spec else { return false };
    match audience.proxy {
        Proxy::Sidecar { .. } | Proxy::Grpc => means_client(&spec.attach, audience),
        Proxy::Gateway => {
            let gateways = world.gateways(&audience.labels).into_iter().map(|gateway| &gateway.reference);
            let gateways: Vec<_> = gateways.map(|gateway| format!("{}/{}", gateway.namespace, gateway.name)).collect();
            means_gateway(&spec.attach, &run.reference.namespace, &gateways)
        }
    }
}
