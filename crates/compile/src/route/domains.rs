//! The host names by which clients call a service.

use std::net::IpAddr;

use world::{Service, Settings};

use crate::Audience;

/// The domains of the virtual host of `service` on `port`, each once, for clients of `audience`: its host name; for a
/// Kubernetes Service the short names that the cluster's DNS completes (`svc` from its own namespace only, `svc.ns`,
/// `svc.ns.svc` and the beginnings of the DNS domain after that); its virtual addresses; for a headless service also
/// the names below each of them, which its pods have. Aliases (`ExternalName` services) are services of their own:
/// their domains are asked for separately and added to the target's.
///
/// Envoy matches without the port (`ignore_port_in_host_matching`), so it gets names only. gRPC compares its whole
/// target, which may or may not hold a port, so it gets every name with and without.
///
/// Names and their order follow Istio's `pilot/pkg/networking/core/httproute.go`.
pub(crate) fn domains_for(service: &Service, port: u16, audience: &Audience, settings: &Settings) -> Vec<String> {
    let host = service.host.as_str();
    let mut names = vec![host.to_owned()];
    if service.kubernetes {
        let (name, namespace) = (&service.name, &service.namespace);
        if *namespace == audience.namespace {
            names.push(name.to_string());
        }
        let mut longer = format!("{name}.{namespace}");
        names.push(longer.clone());
        longer.push_str(".svc");
        names.push(longer.clone());
        for label in settings.domain.split('.') {
            longer.push('.');
            longer.push_str(label);
            names.push(longer.clone());
        }
    }
    if service.headless && !service.host.is_wildcard() {
        let below: Vec<_> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    for address in &service.addresses {
        names.push(match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
    }
    if audience.is_grpc() {
        let with_port: Vec<_> = names.iter().filter(|name| *name != "*").map(|name| format!("{name}:{port}")).collect();
        names.extend(with_port);
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use world::{Export, Hostname, Kind, ObjectRef, Resolution};

    use super::*;
    use crate::{HostDelivery, Interception, Proxy};

    fn reviews() -> Service {
        Service {
            host: Hostname::new("reviews.shop.svc.cluster.local"),
            namespace: "shop".into(),
            name: "reviews".into(),
            origin: ObjectRef::new(Kind::Service, "shop", "reviews"),
            created: "".into(),
            kubernetes: true,
            ports: Vec::new(),
            addresses: vec!["10.0.0.7".parse().expect("an address"), "fd00::7".parse().expect("an address")],
            ranges: Vec::new(),
            resolution: Resolution::Static,
            headless: false,
            external: false,
            alias_of: None,
            selector: Arc::default(),
            subject_alt_names: Arc::default(),
            publish_not_ready: false,
            export: Export::All,
        }
    }

    fn domains(service: &Service, proxy: Proxy, namespace: &str) -> Vec<String> {
        let audience = Audience {
            proxy,
            namespace: namespace.into(),
            labels: Arc::default(),
            addresses: Vec::new(),
            hosts: HostDelivery::default(),
            lacks: proto::Extensions::default(),
            secrets: Default::default(),
            control_plane: None,
        };
        domains_for(service, 9080, &audience, &Settings::default())
    }

    const SIDECAR: Proxy = Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None };

    #[test]
    fn a_client_of_the_same_namespace_may_use_the_bare_name() {
        let own = domains(&reviews(), SIDECAR, "shop");
        assert_eq!(
            own,
            [
                "reviews.shop.svc.cluster.local",
                "reviews",
                "reviews.shop",
                "reviews.shop.svc",
                "reviews.shop.svc.cluster",
                "10.0.0.7",
                "[fd00::7]"
            ]
        );
        assert!(!domains(&reviews(), SIDECAR, "other").contains(&"reviews".to_owned()));
    }

    #[test]
    fn grpc_clients_get_every_name_with_and_without_the_port() {
        let names = domains(&reviews(), Proxy::Grpc, "shop");
        for name in ["reviews", "reviews:9080", "reviews.shop.svc.cluster.local:9080", "10.0.0.7:9080"] {
            assert!(names.contains(&name.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_headless_service_has_names_for_its_pods() {
        let service = Service { headless: true, addresses: Vec::new(), ..reviews() };
        let names = domains(&service, SIDECAR, "other");
        for name in ["*.reviews.shop", "*.reviews.shop.svc.cluster.local"] {
            assert!(names.contains(&name.to_owned()), "{name}");
        }
    }

    #[test]
    fn the_host_of_a_service_entry_has_no_short_names() {
        let service =
            Service { host: Hostname::new("*.example.com"), kubernetes: false, addresses: Vec::new(), ..reviews() };
        assert_eq!(domains(&service, SIDECAR, "shop"), ["*.example.com"]);
        assert_eq!(domains(&service, Proxy::Grpc, "shop"), ["*.example.com", "*.example.com:9080"]);
    }
}
