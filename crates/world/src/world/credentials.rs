//! Secrets that Gateways and DestinationRules name, and that nobody could have, in whatever namespace its workload is.
//!
//! What a gateway lacks that is connected, the compiler says; it knows the namespace. This is what can be said before one is.

use std::collections::HashMap;

use super::World;
use crate::api::istio::{ClientTls, DestinationRule, ServerTls};
use crate::{AUTHORITIES_SUFFIX, Object, PairState, Problem, SecretParts, Spec};

/// What there is by a name, in all namespaces.
type ByName<'a> = HashMap<&'a str, Vec<SecretParts>>;

/// A field that names a Secret which nobody could use.
struct Lack {
    field: String,
    message: String,
}

impl World {
    /// Gateways and DestinationRules that name Secrets of which no namespace has one with what is needed. Nothing while
    /// nobody has said which there are.
    pub fn lacking_credentials(&self) -> Vec<Problem> {
        let Some(all) = &self.secrets else { return Vec::new() };
        let mut secrets = ByName::new();
        for ((_, name), parts) in all {
            secrets.entry(name).or_default().push(*parts);
        }
        let objects =
            self.index.gateways.iter().chain(&self.index.naming_secrets).map(|reference| &self.objects[reference]);
        objects.flat_map(|object| problems(object, &secrets)).collect()
    }
}

/// Whether a DestinationRule names a Secret anywhere.
pub(super) fn is_named_by(rule: &DestinationRule) -> bool {
    let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    rule.traffic_policy.iter().chain(subsets).any(|policy| {
        let ports = policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref());
        policy.tls.iter().chain(ports).any(|tls| tls.credential_name.as_ref().is_some_and(|name| !name.is_empty()))
    })
}

fn problems(object: &Object, secrets: &ByName<'_>) -> Vec<Problem> {
    let mut lacks = Vec::new();
    match &object.spec {
        Spec::Gateway(gateway) => {
            for (index, server) in gateway.servers.iter().enumerate() {
                if let Some(tls) = &server.tls {
                    of_server(tls, &format!("spec.servers[{index}].tls"), secrets, &mut lacks);
                }
            }
            let problem = |Lack { field, message }| {
                Problem::error(&object.reference, field, message)
                    .consequence("a gateway that connects refuses every handshake at the server until it is there")
                    .hint("Put it into the namespace of the gateway's workload.")
                    .at(object.meta.location.clone())
            };
            lacks.into_iter().map(problem).collect()
        }
        Spec::DestinationRule(rule) => {
            let own = rule.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
            let subsets = rule.subsets.iter().enumerate().filter_map(|(index, subset)| {
                Some((format!("spec.subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()?))
            });
            for (field, policy) in own.chain(subsets) {
                let ports = policy.port_level_settings.iter().enumerate();
                let ports = ports.map(|(index, port)| (format!("{field}.portLevelSettings[{index}].tls"), &port.tls));
                for (field, tls) in std::iter::once((format!("{field}.tls"), &policy.tls)).chain(ports) {
                    lacks.extend(tls.as_ref().and_then(|tls| of_client(tls, &field, secrets)));
                }
            }
            // Only gateways get Secrets; there may be none that calls the host.
            let problem = |Lack { field, message }| {
                Problem::warning(&object.reference, field, message)
                    .consequence("connections of gateways to the host fail until it is there")
                    .hint("Put it into the namespace of the gateway's workload.")
                    .at(object.meta.location.clone())
            };
            lacks.into_iter().map(problem).collect()
        }
        _ => Vec::new(),
    }
}

fn of_server(tls: &ServerTls, field: &str, secrets: &ByName<'_>, lacks: &mut Vec<Lack>) {
    let clients = match tls.mode.as_deref() {
        Some("SIMPLE") => false,
        Some("MUTUAL" | "OPTIONAL_MUTUAL") => true,
        // The others have no certificates of their own.
        _ => return,
    };
    let (part, names): (_, Vec<&str>) = match &tls.credential_names[..] {
        [] => ("credentialName", tls.credential_name.as_deref().into_iter().collect()),
        names => ("credentialNames", names.iter().map(String::as_str).collect()),
    };
    let field_of = |part: &str| format!("{field}.{part}");
    for name in names.iter().filter(|name| !name.is_empty()) {
        lacks.extend(pair(name, secrets).map(|message| Lack { field: field_of(part), message }));
    }
    let (part, name) = match tls.ca_cert_credential_name.as_deref() {
        Some(name) => ("caCertCredentialName", Some(name)),
        None => (part, names.first().copied()),
    };
    let Some(name) = name.filter(|name| clients && tls.ca_certificates.is_none() && !name.is_empty()) else { return };
    // What has no pair lacks that above all.
    if lacks.iter().all(|lack| lack.field != field_of(part)) {
        lacks.extend(authorities(name, secrets).map(|message| Lack { field: field_of(part), message }));
    }
}

fn of_client(tls: &ClientTls, field: &str, secrets: &ByName<'_>) -> Option<Lack> {
    let name = tls.credential_name.as_deref().filter(|name| !name.is_empty())?;
    let message = match tls.mode.as_deref() {
        Some("MUTUAL") => pair(name, secrets),
        Some("SIMPLE") => authorities(name, secrets),
        _ => None,
    };
    message.map(|message| Lack { field: format!("{field}.credentialName"), message })
}

/// Why nobody has a certificate with its key by this name, if that is so.
fn pair(name: &str, secrets: &ByName<'_>) -> Option<String> {
    let Some(all) = secrets.get(name) else {
        return Some(format!("no namespace has a Secret \"{}\" that can be used", name.escape_debug()));
    };
    let pairs: Vec<_> = all.iter().filter_map(|parts| parts.pair).collect();
    if pairs.is_empty() {
        return Some(format!("no Secret \"{name}\" has a certificate with its key"));
    }
    let is_over = pairs.iter().all(|pair| *pair == PairState::Expired);
    is_over.then(|| format!("the certificate of the Secret \"{name}\" has expired, in every namespace that has one"))
}

/// Why nobody has authorities by this name, if that is so.
fn authorities(name: &str, secrets: &ByName<'_>) -> Option<String> {
    let own = format!("{name}{AUTHORITIES_SUFFIX}");
    let mut parts = [&*own, name].into_iter().filter_map(|name| secrets.get(name)).flatten();
    (!parts.any(|parts| parts.has_authorities)).then(|| {
        let name = name.escape_debug();
        format!("no namespace has authorities in a Secret \"{name}{AUTHORITIES_SUFFIX}\" or \"{name}\"")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::api::istio::{DestinationRule, Gateway, GatewayServer, TrafficPolicy};
    use crate::{Change, Kind, ObjectRef, SecretList, Settings};

    const HOLDS: SecretParts = SecretParts { pair: Some(PairState::Holds), has_authorities: false };

    fn world(spec: Spec, kind: Kind) -> World {
        let mut world = World::new(Settings::default());
        let object = Object { reference: ObjectRef::new(kind, "edge", "it"), meta: crate::Meta::default(), spec };
        world.apply(Change::Apply(Arc::new(object)));
        world
    }

    fn gateway(tls: ServerTls) -> World {
        let server = GatewayServer { tls: Some(tls), ..GatewayServer::default() };
        world(Spec::Gateway(Gateway { servers: vec![server], ..Gateway::default() }), Kind::Gateway)
    }

    fn secrets(all: &[(&str, &str, SecretParts)]) -> SecretList {
        all.iter().map(|(namespace, name, parts)| (((*namespace).into(), (*name).into()), *parts)).collect()
    }

    fn said(world: &World) -> Vec<String> {
        world.lacking_credentials().iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
    }

    #[test]
    fn a_server_lacks_what_no_namespace_has() {
        let tls = |mode: &str| ServerTls {
            mode: Some(mode.to_owned()),
            credential_name: Some("shop".to_owned()),
            ..ServerTls::default()
        };
        let mut world = gateway(tls("SIMPLE"));
        assert!(said(&world).is_empty(), "nobody has said which there are");
        _ = world.set_secrets(SecretList::new());
        assert_eq!(
            said(&world),
            ["spec.servers[0].tls.credentialName: no namespace has a Secret \"shop\" that can be used"]
        );
        let over = SecretParts { pair: Some(PairState::Expired), ..HOLDS };
        _ = world.set_secrets(secrets(&[("a", "shop", over), ("b", "shop", over)]));
        assert!(said(&world)[0].contains("has expired"));
        _ = world.set_secrets(secrets(&[("a", "shop", over), ("b", "shop", HOLDS)]));
        assert!(said(&world).is_empty(), "a gateway may be there");

        let mut world = gateway(tls("MUTUAL"));
        _ = world.set_secrets(secrets(&[("a", "shop", HOLDS)]));
        assert!(said(&world)[0].contains("no namespace has authorities"), "{:?}", said(&world));
        let trusted = SecretParts { pair: None, has_authorities: true };
        _ = world.set_secrets(secrets(&[("a", "shop", HOLDS), ("a", "shop-cacert", trusted)]));
        assert!(said(&world).is_empty());
        for mode in ["PASSTHROUGH", "ISTIO_MUTUAL"] {
            let mut world = gateway(tls(mode));
            _ = world.set_secrets(SecretList::new());
            assert!(said(&world).is_empty(), "{mode}");
        }
    }

    #[test]
    fn a_rule_lacks_what_its_mode_needs() {
        for (mode, parts, wanted) in [
            ("MUTUAL", HOLDS, 0),
            ("SIMPLE", HOLDS, 1),
            ("MUTUAL", SecretParts { pair: None, has_authorities: true }, 1),
            ("SIMPLE", SecretParts { pair: None, has_authorities: true }, 0),
            ("DISABLE", SecretParts { pair: None, has_authorities: false }, 0),
        ] {
            let tls = ClientTls {
                mode: Some(mode.to_owned()),
                credential_name: Some("shop".to_owned()),
                ..ClientTls::default()
            };
            let traffic_policy = Some(TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() });
            let rule = DestinationRule { host: "a.test".to_owned(), traffic_policy, ..DestinationRule::default() };
            let mut world = world(Spec::DestinationRule(Box::new(rule)), Kind::DestinationRule);
            _ = world.set_secrets(secrets(&[("a", "shop", parts)]));
            assert_eq!(said(&world).len(), wanted, "{mode} {parts:?}");
        }
    }
}
