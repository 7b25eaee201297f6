//! Which endpoints of a service a client speaks mutual TLS of the mesh to, and whom it may find there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{Struct, Value};
use world::{Endpoint, Labels, ObjectRef, Reader, Service, Settings};

use super::{Mtls, Peer, sockets};

/// The label by which a workload says what its proxy takes, and the one value that it has.
const LABEL: (&str, &str) = ("security.istio.io/tlsMode", "istio");
/// What endpoints are marked with, for clusters to choose their transport socket by.
const MARK: (&str, &str) = ("tlsMode", "istio");

/// What a client needs to know to speak mutual TLS of the mesh to a port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutualTls {
    /// Whom it may find there.
    pub peers: Peers,
    /// Whether it is to do so where nobody says that it should not.
    pub is_automatic: bool,
    /// Whether every endpoint takes it, of which there is at least one; for gRPC, whether every endpoint of the cluster takes
    /// nothing else.
    pub is_taken_by_all: bool,
}

/// Who a peer may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// SPIFFE ids.
    exact: BTreeSet<String>,
    /// How SPIFFE ids begin, of workloads of which only the namespace is known.
    prefixes: BTreeSet<String>,
}

impl Peers {
    /// The accounts of these endpoints of a service, in the trust domain and its aliases, and the names that the service
    /// gives. A workload whose account is not known may have any of its namespace where the service gives no names.
    pub fn of<'a>(
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
        service: &'a Service,
        settings: &Settings,
    ) -> Self {
        let mut accounts: BTreeSet<(&str, Option<&str>)> = BTreeSet::new();
        for endpoint in endpoints {
            accounts.insert((namespace(endpoint, service), endpoint.service_account.as_deref()));
        }
        let mut peers = Self::named(&service.subject_alt_names);
        for (namespace, account) in accounts {
            for domain in sockets::trust_domains(settings) {
                match account {
                    Some(account) => peers.exact.insert(format!("spiffe://{domain}/ns/{namespace}/sa/{account}")),
                    None if !service.subject_alt_names.is_empty() => continue,
                    None => peers.prefixes.insert(format!("spiffe://{domain}/ns/{namespace}/")),
                };
            }
        }
        peers
    }

    /// Exactly these.
    pub(crate) fn named(names: &[String]) -> Self {
        Self { exact: names.iter().cloned().collect(), prefixes: BTreeSet::new() }
    }

    /// Each id, and each beginning with a star, for comparison.
    pub(crate) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let prefixes = self.prefixes.iter().map(|prefix| format!("{prefix}*").into());
        self.exact.iter().map(|name| name.as_str().into()).chain(prefixes)
    }

    /// The ids, and how others may begin.
    pub(super) fn patterns(&self) -> (impl Iterator<Item = &String>, impl Iterator<Item = &String>) {
        (self.exact.iter(), self.prefixes.iter())
    }
}

/// Marks those endpoints of a service that say they take mutual TLS and may: not where a policy says that the workload
/// takes plaintext only. Notes the policies that have a say.
pub(crate) fn mark(
    endpoints: &mut [Endpoint],
    service: &Service,
    reader: &Reader<'_>,
    origins: &mut BTreeSet<ObjectRef>,
) {
    for endpoint in endpoints.iter_mut().filter(|endpoint| is_labelled(&endpoint.labels)) {
        let namespace: Arc<str> = match &endpoint.workload {
            Some((namespace, _)) => namespace.clone(),
            None => service.namespace.clone(),
        };
        let policies = reader.told_peer_policies(&namespace, &endpoint.labels);
        let peer = Peer::of(&policies);
        let stated = peer.at(endpoint.port);
        origins.extend(stated.origin().cloned());
        endpoint.mutual_tls = stated.mode != Mtls::Disable;
    }
}

/// What marks an endpoint, and what a transport socket asks for.
pub(crate) fn mutual_tls_mark() -> Struct {
    let value = Value { kind: Some(Kind::StringValue(MARK.1.to_owned())) };
    Struct { fields: HashMap::from([(MARK.0.to_owned(), value)]) }
}

/// Whether a workload says that it takes mutual TLS.
pub(crate) fn is_labelled(labels: &Labels) -> bool {
    labels.get(LABEL.0).is_some_and(|value| value == LABEL.1)
}

fn namespace<'a>(endpoint: &'a Endpoint, service: &'a Service) -> &'a str {
    endpoint.workload.as_ref().map_or(&service.namespace, |(namespace, _)| namespace)
}
