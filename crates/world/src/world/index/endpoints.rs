//! The endpoints of a service, put together from slices, pods and workload entries when asked.

use std::net::IpAddr;
use std::sync::Arc;

use super::services::parse_address;
use super::{Index, Objects};
use crate::api::istio::WorkloadEntry;
use crate::api::kube::{EndpointSlice, SliceEndpoint};
use crate::{
    Address, Endpoint, Health, Kind, Labels, Locality, Object, ObjectRef, Resolution, Service, ServicePort, Spec,
    TargetPort,
};

impl Index {
    pub(in crate::world) fn endpoints(&self, service: &Service, port: u16, objects: &Objects) -> Vec<Endpoint> {
        let Some(port) = service.port(port) else { return Vec::new() };
        let mut found = match service.origin.kind {
            Kind::Service => self.kubernetes(service, port, objects),
            _ => self.entry(service, port, objects),
        };
        found.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        found.dedup_by(|a, b| a.address == b.address && a.port == b.port);
        found
    }

    /// The objects that endpoints of a service come from, in order: slices; without any, and for workload selectors of
    /// a ServiceEntry, the workloads that are selected.
    pub(in crate::world) fn endpoint_objects(&self, service: &Service, objects: &Objects) -> Vec<ObjectRef> {
        let key = (service.namespace.clone(), service.name.clone());
        if let Some(slices) = (service.origin.kind == Kind::Service).then(|| self.slices.get(&key)).flatten() {
            return slices.iter().cloned().collect();
        }
        if service.selector.is_empty() {
            return Vec::new();
        }
        let entries = match service.origin.kind {
            Kind::ServiceEntry => self.workload_entries.get(&service.namespace),
            _ => None,
        };
        let workloads = entries.into_iter().chain(self.pods.get(&service.namespace)).flatten();
        let selected = |reference: &&ObjectRef| {
            let object = &objects[*reference];
            let labels = match &object.spec {
                Spec::WorkloadEntry(entry) => entry_labels(object, entry),
                _ => (*object.meta.labels).clone(),
            };
            service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let mut found: Vec<_> = workloads.filter(selected).cloned().collect();
        found.sort();
        found
    }

    fn kubernetes(&self, service: &Service, port: &ServicePort, objects: &Objects) -> Vec<Endpoint> {
        if let Some(name) = &service.alias_of {
            return vec![from_pod(parse_address(name.as_str()), port.number, None)];
        }
        let key = (service.namespace.clone(), service.name.clone());
        let Some(slices) = self.slices.get(&key) else {
            // Without slices, as in hand-written files, the selector itself says which pods serve.
            return self.selected_pods(service, port, objects);
        };
        let mut found = Vec::new();
        for reference in slices {
            if let Spec::EndpointSlice(slice) = &objects[reference].spec {
                self.slice(service, port, slice, &reference.namespace, objects, &mut found);
            }
        }
        found
    }

    fn slice(
        &self,
        service: &Service,
        port: &ServicePort,
        slice: &EndpointSlice,
        namespace: &str,
        objects: &Objects,
        found: &mut Vec<Endpoint>,
    ) {
        let same_name = |p: &&crate::api::kube::SlicePort| p.name.as_deref().unwrap_or("") == &*port.name;
        let Some(number) = slice.ports.iter().find(same_name).and_then(|p| p.port) else { return };
        for endpoint in &slice.endpoints {
            let conditions = &endpoint.conditions;
            let serves = conditions.ready.unwrap_or(true) || service.publish_not_ready;
            if !serves || conditions.terminating == Some(true) {
                continue;
            }
            // The addresses of one entry are the same endpoint: the first stands for it, as in kube-proxy.
            let Some(address) = endpoint.addresses.first() else { continue };
            let by_name = target_pod(endpoint, namespace).and_then(|pod| objects.get(&pod));
            let pod = by_name.or_else(|| self.pod_at(address.parse().ok()?, namespace, objects));
            let mut built = from_pod(parse_address(address), number, pod);
            built.locality.zone = endpoint.zone.as_deref().unwrap_or("").into();
            found.push(built);
        }
    }

    /// The pod that has `address` now: one that has not finished, of `namespace` if there is one (pods on the host's
    /// network share its address), and the first by namespace and name.
    pub(super) fn pod_at<'o>(&self, address: IpAddr, namespace: &str, objects: &'o Objects) -> Option<&'o Arc<Object>> {
        let at = self.pod_addresses.get(&address)?.iter().map(|reference| &objects[reference]);
        let running = at.filter(|object| match &object.spec {
            Spec::Pod(pod) => !pod.is_finished(),
            _ => false,
        });
        running.min_by_key(|object| (&*object.reference.namespace != namespace, &object.reference))
    }

    fn selected_pods(&self, service: &Service, port: &ServicePort, objects: &Objects) -> Vec<Endpoint> {
        if service.selector.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for object in self.pods.get(&service.namespace).into_iter().flatten().map(|r| &objects[r]) {
            let Spec::Pod(pod) = &object.spec else { continue };
            let selected = service.selector.iter().all(|(k, v)| object.meta.labels.get(k) == Some(v));
            if !selected || pod.is_finished() || !(pod.is_ready() || service.publish_not_ready) {
                continue;
            }
            let number = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => pod.named_port(name),
            };
            let address = pod.status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
            if let (Some(number), Some(address)) = (number, address) {
                found.push(from_pod(Address::Ip(address), number, Some(object)));
            }
        }
        found
    }

    fn entry(&self, service: &Service, port: &ServicePort, objects: &Objects) -> Vec<Endpoint> {
        let Some(Spec::ServiceEntry(entry)) = objects.get(&service.origin).map(|o| &o.spec) else { return Vec::new() };
        let mut found: Vec<_> =
            entry.endpoints.iter().map(|e| from_entry(e, port, Arc::new(e.labels.clone()), None)).collect();
        if !service.selector.is_empty() {
            for object in self.workload_entries.get(&service.namespace).into_iter().flatten().map(|r| &objects[r]) {
                let Spec::WorkloadEntry(workload) = &object.spec else { continue };
                let labels = entry_labels(object, workload);
                if service.selector.iter().all(|(k, v)| labels.get(k) == Some(v)) {
                    found.push(from_entry(workload, port, Arc::new(labels), Some(&object.reference)));
                }
            }
            found.extend(self.selected_pods(service, port, objects));
        }
        let resolves = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if resolves && found.is_empty() && service.selector.is_empty() && !service.host.is_wildcard() {
            let host = WorkloadEntry { address: service.host.to_string(), ..WorkloadEntry::default() };
            found.push(from_entry(&host, port, Arc::default(), None));
        }
        found
    }
}

/// The pod that an endpoint of a slice in `namespace` names.
pub(super) fn target_pod(endpoint: &SliceEndpoint, namespace: &str) -> Option<ObjectRef> {
    let target = endpoint.target_ref.as_ref().filter(|t| t.kind.as_deref() == Some("Pod"))?;
    Some(ObjectRef::new(Kind::Pod, target.namespace.as_deref().unwrap_or(namespace), target.name.as_deref()?))
}

/// A workload entry's labels: those of its specification over those of its metadata.
pub(in crate::world) fn entry_labels(object: &Object, entry: &WorkloadEntry) -> Labels {
    let mut labels = (*object.meta.labels).clone();
    labels.extend(entry.labels.clone());
    labels
}

fn from_pod(address: Address, port: u16, pod: Option<&Arc<Object>>) -> Endpoint {
    let account = pod.and_then(|object| match &object.spec {
        Spec::Pod(pod) => pod.spec.service_account_name.as_deref(),
        _ => None,
    });
    Endpoint {
        address,
        port,
        labels: pod.map(|p| p.meta.labels.clone()).unwrap_or_default(),
        locality: Locality::default(),
        weight: 1,
        health: Health::Healthy,
        workload: pod.map(|p| (p.reference.namespace.clone(), p.reference.name.clone())),
        service_account: account.map(Arc::from),
        mutual_tls: false,
    }
}

fn from_entry(entry: &WorkloadEntry, port: &ServicePort, labels: Arc<Labels>, object: Option<&ObjectRef>) -> Endpoint {
    let target = match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => port.number,
    };
    let address = parse_address(&entry.address);
    Endpoint {
        port: if matches!(address, Address::Unix(_)) {
            0
        } else {
            entry.ports.get(&*port.name).copied().unwrap_or(target)
        },
        address,
        labels,
        locality: entry.locality.as_deref().map(Locality::parse).unwrap_or_default(),
        weight: entry.weight.unwrap_or(1).max(1),
        health: Health::Healthy,
        workload: object.map(|o| (o.namespace.clone(), o.name.clone())),
        service_account: entry.service_account.as_deref().map(Arc::from),
        mutual_tls: false,
    }
}
