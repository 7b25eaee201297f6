//! What is wrong between objects, whoever the client is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, Objects, freezes};
use crate::world::age;
use crate::{Hostname, Object, ObjectRef, Problem, Protocol, Settings, Spec};

impl Index {
    pub(in crate::world) fn problems(&self, objects: &Objects, settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.routes_on_one_host(objects, &mut problems);
        self.services_on_one_host(objects, &mut problems);
        self.subsets_defined_twice(objects, &mut problems);
        for object in self.suspects.objects.iter().map(|reference| &objects[reference]) {
            addresses_and_protocols(object, &mut problems);
            freezes::unknown_services(object, objects, settings, &mut problems);
        }
        self.peer_authentications(objects, settings, &mut problems);
        self.intents(objects, settings, &mut problems);
        self.run_routes(objects, settings, &mut problems);
        problems.sort();
        problems
    }

    /// Only one VirtualService governs a host in the mesh; the others have no effect there (Istio's IST0109).
    fn routes_on_one_host(&self, objects: &Objects, problems: &mut Vec<Problem>) {
        for (host, references) in self.suspects.routes.iter().filter_map(|host| self.mesh_routes.get_key_value(host)) {
            let mut sorted: Vec<_> = references.iter().map(|r| &objects[r]).collect();
            sorted.sort_by_key(|o| age(o));
            for (at, loser) in sorted.iter().enumerate().skip(1) {
                let Spec::VirtualService(spec) = &loser.spec else { continue };
                // Rules that are exported to different namespaces do not meet.
                let Some(winner) = sorted[..at].iter().find(|o| meet(o, loser)) else { continue };
                problems.push(
                    Problem::warning(
                        &loser.reference,
                        field_of_host(&spec.hosts, host),
                        format!("host \"{host}\" is already governed by {}", winner.reference),
                    )
                    .consequence(format!("the routes of this object for \"{host}\" have no effect on mesh traffic"))
                    .hint("Merge the two VirtualServices, or give them different hosts or gateways.")
                    .at(loser.meta.location.clone()),
                );
            }
        }
    }

    fn services_on_one_host(&self, objects: &Objects, problems: &mut Vec<Problem>) {
        for (host, services) in self.suspects.services.iter().filter_map(|host| self.services.get_key_value(host)) {
            let mut by_namespace: BTreeMap<_, Vec<&ObjectRef>> = BTreeMap::new();
            let mut sorted: Vec<_> = services.iter().collect();
            sorted.sort_by_key(|s| (!s.kubernetes, &s.created, &s.origin));
            for service in sorted {
                by_namespace.entry(&service.namespace).or_default().push(&service.origin);
            }
            for origins in by_namespace.values() {
                for loser in &origins[1..] {
                    problems.push(
                        Problem::warning(
                            loser,
                            "spec.hosts",
                            format!("host \"{host}\" is already defined by {}", origins[0]),
                        )
                        .consequence(format!("this object's definition of \"{host}\" is not used"))
                        .hint("Give each host to one object of a namespace.")
                        .at(objects[*loser].meta.location.clone()),
                    );
                }
            }
        }
    }

    fn subsets_defined_twice(&self, objects: &Objects, problems: &mut Vec<Problem>) {
        let crowded = self.suspects.rules.iter().filter_map(|host| self.rules.get(host));
        let crowded: Vec<Vec<_>> = crowded.map(|all| all.iter().map(|r| &objects[r]).collect()).collect();
        let of_crowded: BTreeSet<_> = crowded.iter().flatten().map(|object| &object.reference).collect();
        let alone = self.suspects.objects.iter().filter(|r| !of_crowded.contains(r)).map(|r| vec![&objects[r]]);
        for mut sorted in alone.chain(crowded.iter().cloned()) {
            let mut seen: BTreeMap<(&str, &str), &ObjectRef> = BTreeMap::new();
            sorted.sort_by_key(|o| age(o));
            for object in sorted {
                let Spec::DestinationRule(rule) = &object.spec else { continue };
                for (at, subset) in rule.subsets.iter().enumerate() {
                    let slot = (&*object.reference.namespace, subset.name.as_str());
                    if let Some(first) = seen.insert(slot, &object.reference) {
                        seen.insert(slot, first);
                        problems.push(
                            Problem::warning(
                                &object.reference,
                                format!("spec.subsets[{at}].name"),
                                format!(
                                    "subset \"{}\" of host \"{}\" is already defined by {first}",
                                    subset.name, rule.host
                                ),
                            )
                            .consequence("this definition is not used")
                            .at(object.meta.location.clone()),
                        );
                    }
                }
            }
        }
    }
}

/// Whether an object by itself can have a problem that is found here: the others need not be looked at.
pub(super) fn is_odd(object: &Object) -> bool {
    let mut problems = Vec::new();
    match &object.spec {
        Spec::ServiceEntry(_) => addresses_and_protocols(object, &mut problems),
        Spec::DestinationRule(rule) => {
            let names: BTreeSet<_> = rule.subsets.iter().map(|subset| &subset.name).collect();
            return names.len() < rule.subsets.len();
        }
        // Whom it names is known beside other objects only.
        Spec::Freeze(freeze) => return !freeze.services.is_empty(),
        _ => {}
    }
    !problems.is_empty()
}

/// Addresses of a ServiceEntry that cannot be read and protocols that are not known.
fn addresses_and_protocols(object: &Object, problems: &mut Vec<Problem>) {
    let Spec::ServiceEntry(entry) = &object.spec else { return };
    for (at, address) in entry.addresses.iter().enumerate() {
        if address.parse::<std::net::IpAddr>().is_err() && super::services::parse_range(address).is_none() {
            problems.push(
                Problem::error(
                    &object.reference,
                    format!("spec.addresses[{at}]"),
                    format!("\"{address}\" is neither an IP address nor a range"),
                )
                .consequence("the address is left out")
                .hint("Write 10.0.0.1 or 10.0.0.0/8.")
                .at(object.meta.location.clone()),
            );
        }
    }
    for (at, port) in entry.ports.iter().enumerate() {
        if let Some(protocol) = port.protocol.as_deref().filter(|p| Protocol::parse(p).is_none()) {
            problems.push(
                Problem::warning(
                    &object.reference,
                    format!("spec.ports[{at}].protocol"),
                    format!("unknown protocol \"{protocol}\""),
                )
                .consequence("the port is treated as TCP")
                .hint("Known: HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, REDIS, MYSQL, UDP.")
                .at(object.meta.location.clone()),
            );
        }
    }
}

fn meet(a: &crate::Object, b: &crate::Object) -> bool {
    let exports = |o: &crate::Object| match &o.spec {
        Spec::VirtualService(spec) => crate::Export::parse(&spec.export_to, &o.reference.namespace),
        _ => crate::Export::All,
    };
    match (exports(a), exports(b)) {
        (crate::Export::Namespaces(a), crate::Export::Namespaces(b)) => a.iter().any(|n| b.contains(n)),
        (crate::Export::Namespaces(none), _) | (_, crate::Export::Namespaces(none)) => !none.is_empty(),
        (crate::Export::All, crate::Export::All) => true,
    }
}

fn field_of_host(hosts: &[String], host: &Hostname) -> String {
    let is = |h: &String| h == host.as_str() || host.as_str().starts_with(&format!("{h}."));
    match hosts.iter().position(is) {
        Some(at) => format!("spec.hosts[{at}]"),
        None => "spec.hosts".to_owned(),
    }
}
