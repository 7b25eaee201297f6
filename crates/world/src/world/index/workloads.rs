//! What a proxy itself is: its labels, and the services that it serves.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Index, Objects};
use crate::{Address, Kind, Labels, Object, ObjectRef, Service, Spec, TargetPort};

impl Index {
    pub(in crate::world) fn workload_labels(
        &self,
        namespace: &str,
        name: &str,
        addresses: &[IpAddr],
        objects: &Objects,
    ) -> Option<Labels> {
        let object = objects
            .get(&ObjectRef::new(Kind::Pod, namespace, name))
            .or_else(|| self.pod_of(namespace, addresses, objects))
            .or_else(|| objects.get(&ObjectRef::new(Kind::WorkloadEntry, namespace, name)))?;
        match &object.spec {
            Spec::WorkloadEntry(entry) => Some(super::endpoints::entry_labels(object, entry)),
            _ => Some((*object.meta.labels).clone()),
        }
    }

    fn pod_of<'o>(&self, namespace: &str, addresses: &[IpAddr], objects: &'o Objects) -> Option<&'o Arc<Object>> {
        let at = addresses.iter().filter_map(|a| self.pod_at(*a, namespace, objects));
        at.filter(|pod| &*pod.reference.namespace == namespace).min_by_key(|pod| &pod.reference)
    }

    pub(in crate::world) fn served_by(
        &self,
        namespace: &str,
        labels: &Labels,
        addresses: &[IpAddr],
        objects: &Objects,
    ) -> Vec<(Arc<Service>, u16, u16)> {
        let mut found = Vec::new();
        for service in self.services_in.get(namespace).into_iter().flat_map(|all| all.values()) {
            for port in &service.ports {
                let target = if service.selector.is_empty() {
                    // Nothing is selected: the service is served here if one of its endpoints is this address.
                    let endpoints = self.endpoints(service, port.number, objects);
                    let here = |e: &&crate::Endpoint| matches!(e.address, Address::Ip(ip) if addresses.contains(&ip));
                    endpoints.iter().find(here).map(|e| e.port)
                } else if service.selector.iter().all(|(k, v)| labels.get(k) == Some(v)) {
                    self.target(namespace, addresses, port, objects)
                } else {
                    None
                };
                if let Some(target) = target {
                    found.push((service.clone(), port.number, target));
                }
            }
        }
        found.sort_by(|a, b| (a.2, &a.0.created, &a.0.origin, a.1).cmp(&(b.2, &b.0.created, &b.0.origin, b.1)));
        found
    }

    fn target(
        &self,
        namespace: &str,
        addresses: &[IpAddr],
        port: &crate::ServicePort,
        objects: &Objects,
    ) -> Option<u16> {
        match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => match &self.pod_of(namespace, addresses, objects)?.spec {
                Spec::Pod(pod) => pod.named_port(name),
                _ => None,
            },
        }
    }
}
