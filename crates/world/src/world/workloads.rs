//! The workloads that objects tell of, and policies that are for none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{World, entry_labels};
use crate::policies::{Selection, selection};
use crate::{Labels, Object, ObjectRef, Problem, Spec};

/// What a pod or a workload entry says of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its address; none if it has none that is an IP address.
    pub addresses: Vec<IpAddr>,
}

impl World {
    /// The workloads that pods and workload entries tell of, in order: of those with the same namespace and labels the
    /// first one by name. Looks at every object.
    pub fn workloads(&self) -> Vec<Workload> {
        let mut found: BTreeMap<(Arc<str>, Labels), (ObjectRef, Vec<IpAddr>)> = BTreeMap::new();
        for object in self.objects() {
            let (address, labels) = match &object.spec {
                Spec::Pod(pod) if !pod.is_finished() => (pod.status.pod_ip.as_deref(), (*object.meta.labels).clone()),
                Spec::WorkloadEntry(entry) => (Some(&*entry.address), entry_labels(object, entry)),
                _ => continue,
            };
            let addresses: Vec<IpAddr> = address.and_then(|address| address.parse().ok()).into_iter().collect();
            let slot = (object.reference.namespace.clone(), labels);
            let here = (object.reference.clone(), addresses);
            match found.get_mut(&slot) {
                Some(first) if first.0 <= here.0 => {}
                Some(first) => *first = here,
                None => _ = found.insert(slot, here),
            }
        }
        let workload = |((namespace, labels), (_, addresses))| Workload { namespace, labels, addresses };
        found.into_iter().map(workload).collect()
    }

    /// Policies that are for nobody, as far as pods, workload entries, Gateways and these clients tell (Istio's IST0127), in
    /// order. Where no object tells of any workload there is nothing to say. Looks at every object, if there are policies.
    pub fn idle_policies(&self, clients: &[(&Arc<str>, &Labels)]) -> Vec<Problem> {
        let policies: Vec<_> = self.objects().filter(|object| selection(&object.spec).is_some()).collect();
        let workloads = if policies.is_empty() { Vec::new() } else { self.workloads() };
        if workloads.is_empty() {
            return Vec::new();
        }
        let gateways = self.objects().filter_map(|object| match &object.spec {
            Spec::Gateway(gateway) => Some((&object.reference.namespace, &gateway.selector)),
            _ => None,
        });
        let of_objects = workloads.iter().map(|workload| (&workload.namespace, &workload.labels));
        let mut known: BTreeSet<(&Arc<str>, &Labels)> = of_objects.chain(gateways).collect();
        known.extend(clients.iter().copied());
        let mut problems: Vec<_> = policies.into_iter().filter_map(|object| self.idle(object, &known)).collect();
        problems.sort();
        problems
    }

    fn idle(&self, object: &Object, known: &BTreeSet<(&Arc<str>, &Labels)>) -> Option<Problem> {
        let (_, selection) = selection(&object.spec)?;
        let namespace = &object.reference.namespace;
        let is_root = *namespace == self.settings().root_namespace;
        let mut near = known.iter().filter(|(of, _)| is_root || *of == namespace).map(|(_, labels)| labels);
        let (field, message, hint) = match selection {
            Selection::Nothing => return None,
            Selection::All if is_root || near.next().is_some() => return None,
            Selection::All => {
                let message = format!("there is no workload in namespace {namespace}");
                (
                    "metadata.namespace",
                    message,
                    "A policy is for its own namespace, unless it is in the root namespace.",
                )
            }
            Selection::Labels(wanted) => {
                let has = |labels: &&Labels| wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
                if near.any(has) {
                    return None;
                }
                let wanted: Vec<_> = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let place = if is_root { "in the mesh".to_owned() } else { format!("in namespace {namespace}") };
                let message = format!("no workload {place} has the labels {}", wanted.join(", "));
                ("spec.selector.matchLabels", message, "Write the labels of the pods, not those of their Service.")
            }
        };
        let problem = Problem::warning(&object.reference, field, message).consequence("the policy has no effect");
        Some(problem.hint(hint).at(object.meta.location.clone()))
    }
}
