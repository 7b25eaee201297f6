//! The objects of a made-up mesh, as a source would read them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ::swarm::Stamp;
use clap::ValueEnum;
use world::api::istio::{Destination, DestinationRule, HttpDestination, HttpRoute, SubsetSpec, VirtualService};
use world::api::kube::{
    EndpointSlice, IntOrString, KubeServicePort, Pod, PodSpec, PodStatus, ServiceSpec, SliceConditions, SliceEndpoint,
    SlicePort, TargetRef,
};
use world::{Change, Kind, Labels, Meta, Object, ObjectRef, Spec};

/// What the VirtualService of each service splits its traffic over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Split {
    /// There are no VirtualServices.
    None,
    /// The service and the next one.
    Neighbours,
    /// Two subsets of the service, which a DestinationRule defines by the labels of Pods.
    Subsets,
}

/// A mesh of services `service-0`, `service-1`, ..., all with the HTTP port 80: the worst case for route configurations,
/// because one holds all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mesh {
    pub(crate) services: u32,
    /// Endpoints of every service, all in one EndpointSlice with three zones.
    pub(crate) endpoints: u32,
    /// Service `i` is in the namespace `ns-<i modulo namespaces>`.
    pub(crate) namespaces: u32,
    pub(crate) split: Split,
}

/// Service addresses begin after 10.96.0.0, endpoint addresses after 11.0.0.0, and those of changed endpoints after
/// 100.0.0.0.
const SERVICES: u32 = 0x0A60_0000;
const ENDPOINTS: u32 = 0x0B00_0000;
const CHANGED: u32 = 0x6400_0000;

impl Mesh {
    /// All of it, service by service.
    pub(crate) fn objects(self) -> Vec<Change> {
        let mut objects = Vec::new();
        for service in 0..self.services {
            objects.push(self.service(service));
            objects.push(self.endpoint_slice(service, None));
            if self.split != Split::None {
                objects.push(self.weight(service, 80));
            }
            if self.split == Split::Subsets {
                objects.push(self.destination_rule(service));
                objects.extend((0..self.endpoints).map(|endpoint| self.pod(service, endpoint)));
            }
        }
        objects
    }

    /// The VirtualService with so many percent for the first destination, and the rest for the second.
    pub(crate) fn weight(self, service: u32, percent: u8) -> Change {
        let percent = i64::from(percent.min(100));
        let next = (service + 1) % self.services;
        let (first, second) = match self.split {
            Split::None | Split::Neighbours => (
                Destination { host: name(service), ..Destination::default() },
                Destination { host: self.host(next), ..Destination::default() },
            ),
            Split::Subsets => (
                Destination { host: name(service), subset: "v1".to_owned(), port: None },
                Destination { host: name(service), subset: "v2".to_owned(), port: None },
            ),
        };
        let to = |destination, weight| HttpDestination { destination, weight: Some(weight), headers: None };
        let route =
            HttpRoute { route: Box::new([to(first, percent), to(second, 100 - percent)]), ..HttpRoute::default() };
        let spec =
            VirtualService { hosts: Box::new([name(service)]), http: Box::new([route]), ..VirtualService::default() };
        self.object(Kind::VirtualService, service, name(service), Meta::default(), Spec::VirtualService(spec))
    }

    /// The endpoints of a service after a change: the last one has moved to another address, and its zone is the stamp.
    /// `turn` tells one change from the next.
    pub(crate) fn changed_endpoints(self, stamp: Stamp, turn: u32) -> Change {
        let address = Ipv4Addr::from(CHANGED + turn % 0x00FF_FFFF + 1);
        self.endpoint_slice(stamp.service, Some((address, stamp)))
    }

    fn service(self, service: u32) -> Change {
        let spec = ServiceSpec {
            cluster_ip: Some(Ipv4Addr::from(SERVICES + service + 1).to_string()),
            selector: Arc::new(Labels::from([("app".to_owned(), name(service))])),
            ports: Box::new([KubeServicePort {
                name: "http".to_owned(),
                port: 80,
                target_port: Some(IntOrString::Int(8080)),
                ..KubeServicePort::default()
            }]),
            ..ServiceSpec::default()
        };
        self.object(Kind::Service, service, name(service), Meta::default(), Spec::Service(spec))
    }

    fn endpoint_slice(self, service: u32, last: Option<(Ipv4Addr, Stamp)>) -> Change {
        let mut endpoints: Box<[_]> = (0..self.endpoints)
            .map(|endpoint| SliceEndpoint {
                addresses: Box::new([self.address(service, endpoint).to_string()]),
                zone: Some(format!("zone-{}", endpoint % 3)),
                conditions: SliceConditions { ready: Some(true), ..SliceConditions::default() },
                target_ref: (self.split == Split::Subsets).then(|| {
                    Box::new(TargetRef {
                        kind: Some("Pod".to_owned()),
                        name: Some(pod_name(service, endpoint)),
                        ..TargetRef::default()
                    })
                }),
                ..SliceEndpoint::default()
            })
            .collect();
        if let (Some(endpoint), Some((address, stamp))) = (endpoints.last_mut(), last) {
            endpoint.addresses = Box::new([address.to_string()]);
            endpoint.zone = Some(stamp.to_string());
        }
        let spec = EndpointSlice {
            address_type: "IPv4".to_owned(),
            endpoints,
            ports: Box::new([SlicePort {
                name: Some("http".to_owned()),
                port: Some(8080),
                protocol: Some("TCP".to_owned()),
                app_protocol: None,
            }]),
        };
        let labels = Labels::from([("kubernetes.io/service-name".to_owned(), name(service))]);
        let meta = Meta { labels: Arc::new(labels), ..Meta::default() };
        let slice = format!("{}-abcde", name(service));
        self.object(Kind::EndpointSlice, service, slice, meta, Spec::EndpointSlice(spec))
    }

    fn destination_rule(self, service: u32) -> Change {
        let subset = |version: &str| SubsetSpec {
            name: version.to_owned(),
            labels: Labels::from([("version".to_owned(), version.to_owned())]),
            ..SubsetSpec::default()
        };
        let spec = DestinationRule {
            host: name(service),
            subsets: vec![subset("v1"), subset("v2")],
            ..DestinationRule::default()
        };
        self.object(
            Kind::DestinationRule,
            service,
            name(service),
            Meta::default(),
            Spec::DestinationRule(Box::new(spec)),
        )
    }

    /// The Pod of an endpoint: the first half of them is version v1.
    fn pod(self, service: u32, endpoint: u32) -> Change {
        let version = if endpoint < self.endpoints.div_ceil(2) { "v1" } else { "v2" };
        let labels = Labels::from([("app".to_owned(), name(service)), ("version".to_owned(), version.to_owned())]);
        let spec = Pod {
            spec: PodSpec::default(),
            status: PodStatus {
                pod_ip: Some(self.address(service, endpoint).to_string()),
                phase: Some("Running".to_owned()),
                ..PodStatus::default()
            },
        };
        let meta = Meta { labels: Arc::new(labels), ..Meta::default() };
        self.object(Kind::Pod, service, pod_name(service, endpoint), meta, Spec::Pod(spec))
    }

    fn address(self, service: u32, endpoint: u32) -> Ipv4Addr {
        Ipv4Addr::from(ENDPOINTS.wrapping_add(service.wrapping_mul(self.endpoints)).wrapping_add(endpoint + 1))
    }

    fn namespace(self, service: u32) -> String {
        format!("ns-{}", service % self.namespaces)
    }

    fn host(self, service: u32) -> String {
        format!("{}.{}.svc.cluster.local", name(service), self.namespace(service))
    }

    fn object(self, kind: Kind, service: u32, name: String, meta: Meta, spec: Spec) -> Change {
        let reference = ObjectRef::new(kind, &self.namespace(service), &name);
        Change::Apply(Arc::new(Object { reference, meta, spec }))
    }
}

fn name(service: u32) -> String {
    format!("service-{service}")
}

fn pod_name(service: u32, endpoint: u32) -> String {
    format!("service-{service}-{endpoint}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use compile::Options;
    use plane::Plane;
    use proto::ResourceType;
    use world::Settings;

    use super::*;

    fn plane(mesh: Mesh) -> Plane {
        let mut plane = Plane::new(Settings::default(), Options::default());
        plane.apply(mesh.objects(), Vec::new());
        let id = "sidecar~10.0.0.1~a.ns-0~ns-0.svc.cluster.local".to_owned();
        plane.attach(&plane::Node { id, ..plane::Node::default() }).unwrap();
        plane
    }

    fn count(plane: &Plane, kind: ResourceType) -> usize {
        plane.snapshots().into_values().next().unwrap().len(kind)
    }

    #[test]
    fn every_split_compiles_without_problems() {
        for (split, clusters) in [(Split::None, 6), (Split::Neighbours, 6), (Split::Subsets, 18)] {
            let mesh = Mesh { services: 6, endpoints: 4, namespaces: 2, split };
            let plane = plane(mesh);
            assert_eq!(plane.problems(), Vec::new(), "{split:?}");
            assert_eq!(count(&plane, ResourceType::Endpoints), clusters, "{split:?}");
        }
    }

    #[test]
    fn a_weight_and_an_endpoint_change_what_is_served_each_time() {
        let mesh = Mesh { services: 6, endpoints: 4, namespaces: 2, split: Split::Neighbours };
        let mut plane = plane(mesh);
        for turn in 1..4 {
            assert_eq!(plane.apply([mesh.weight(3, 80 + turn)], Vec::new()).snapshots.len(), 1);
            let stamp = Stamp { committed_ns: 1, service: 3 };
            let change = mesh.changed_endpoints(stamp, turn.into());
            assert_eq!(plane.apply([change], Vec::new()).snapshots.len(), 1);
        }
        assert_eq!(plane.problems(), Vec::new());
    }
}
