//! From a destination in a route to the cluster that serves it.

use std::collections::BTreeSet;

use world::api::istio::{Destination, TrafficPolicy};
use world::{EffectiveRule, Endpoint, Hostname, Labels, ObjectRef, Reader, Scope, Service, Subset};

use super::rollout::Via;
use crate::listener::Reading;
use crate::security::{self, MutualTls, Peers, Strictness};
use crate::{Audience, Missing, Options, Rollout, Secrets, Target, endpoints, names, policy, target};

/// Longest chain of `ExternalName` services that is followed.
const MOST_ALIASES: usize = 4;

/// Answers for one audience; everything it looks at is noted by the reader.
pub(super) struct Resolver<'r, 'w> {
    pub(super) reader: &'r Reader<'w>,
    pub(super) audience: &'r Audience,
    pub(super) options: &'r Options,
    pub(super) scope: Scope,
}

impl<'r, 'w> Resolver<'r, 'w> {
    pub(super) fn new(reader: &'r Reader<'w>, audience: &'r Audience, options: &'r Options) -> Self {
        Self { reader, audience, options, scope: audience.scope() }
    }

    /// The service of this very host.
    pub(super) fn own_service(&self, host: &Hostname) -> Option<&'w Service> {
        self.reader.service(host, &self.scope).map(|service| &**service)
    }

    /// The service of a host; an `ExternalName` service whose name is another service's leads there.
    pub(super) fn service(&self, host: &Hostname) -> Option<&'w Service> {
        let mut found = self.reader.service(host, &self.scope)?;
        for _ in 0..MOST_ALIASES {
            let Some(next) = found.alias_of.as_ref().and_then(|alias| self.reader.service(alias, &self.scope)) else {
                break;
            };
            found = next;
        }
        Some(found)
    }

    /// How requests are read.
    pub(super) fn reading(&self) -> Reading {
        Reading::of(self.reader.mesh_config().map(|(config, _)| config))
    }

    /// The merged rule of a service.
    pub(super) fn rule(&self, service: &Service) -> EffectiveRule {
        self.reader.rule(&service.host, &service.namespace, &self.scope, &self.audience.labels)
    }

    /// The subsets of a service: those of its rule, then inferred ones in order of name.
    pub(super) fn subsets(&self, service: &Service, rule: &EffectiveRule) -> Vec<Subset> {
        let mut subsets = rule.subsets.clone();
        if let Some(key) = &self.options.infer_subsets {
            let mut values = BTreeSet::new();
            for port in &service.ports {
                for endpoint in self.reader.endpoints(service, port.number) {
                    values.extend(endpoint.labels.get(key).cloned());
                }
            }
            for value in values {
                if !subsets.iter().any(|s| *s.name == *value) {
                    subsets.push(Subset {
                        name: value.as_str().into(),
                        labels: Labels::from([(key.clone(), value)]),
                        policy: None,
                        origin: service.origin.clone(),
                    });
                }
            }
        }
        subsets
    }

    /// The endpoints of a service's port, those marked to which the client is to speak mutual TLS; with the policies that
    /// have a say in that.
    pub(super) fn endpoints(&self, service: &Service, port: u16) -> (Vec<Endpoint>, BTreeSet<ObjectRef>) {
        self.marked(service, self.reader.endpoints(service, port))
    }

    /// The same for endpoints of the service that were found in another way.
    pub(super) fn marked(&self, service: &Service, mut found: Vec<Endpoint>) -> (Vec<Endpoint>, BTreeSet<ObjectRef>) {
        let mut policies = BTreeSet::new();
        let is_marked = self.speaks_mutual_tls() && !self.audience.is_grpc();
        if is_marked && self.options.auto_mtls && !service.external {
            security::mark(&mut found, service, self.reader, &mut policies);
        }
        (found, policies)
    }

    /// How the client speaks mutual TLS to a service's port, if it can; `kept` are endpoints that clusters still have
    /// beside those of the world.
    pub(super) fn mutual_tls(&self, service: &Service, port: u16, kept: &[Endpoint]) -> Option<MutualTls> {
        if !self.speaks_mutual_tls() {
            return None;
        }
        let (endpoints, _) = self.endpoints(service, port);
        // Of endpoints that gRPC gets none is marked: there each cluster has its own answer, which is its strictness.
        let is_taken_by_all = !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.mutual_tls);
        Some(MutualTls {
            peers: Peers::of(endpoints.iter().chain(kept), service, self.reader.settings()),
            is_automatic: self.options.auto_mtls && !service.external,
            is_taken_by_all,
        })
    }

    /// Who these endpoints of a service are; `None` for clients that do not ask.
    pub(super) fn peers<'e>(
        &self,
        service: &'e Service,
        endpoints: impl IntoIterator<Item = &'e Endpoint>,
    ) -> Option<Peers> {
        self.speaks_mutual_tls().then(|| Peers::of(endpoints, service, self.reader.settings()))
    }

    /// Which endpoints of a service's port take nothing but mutual TLS: of all, or of a subset and those that its cluster
    /// `kept` beside them. A subset that has none is taken for what the service is, so that its first endpoint finds
    /// clients that need not change; nobody is said to have stated that.
    pub(super) fn strictness(
        &self,
        service: &Service,
        port: u16,
        subset: Option<&Subset>,
        kept: &[Endpoint],
    ) -> Strictness {
        let all = self.reader.endpoints(service, port);
        let whole = || security::strictness(&all, service, self.reader);
        let Some(Subset { labels, .. }) = subset else { return whole() };
        let mut own = endpoints::of_subset(&all, labels).chain(endpoints::of_subset(kept, labels)).peekable();
        match own.peek() {
            Some(_) => security::strictness(own, service, self.reader),
            None => Strictness { stated: Vec::new(), ..whole() },
        }
    }

    fn speaks_mutual_tls(&self) -> bool {
        self.audience.secrets != Secrets::None
    }

    /// Follows a destination; `wanted` are all subsets that the same object asks of hosts, for the suggestion;
    /// `via` says for whom rollouts divide it.
    pub(super) fn resolve(
        &self,
        namespace: &str,
        destination: &Destination,
        listener_port: u16,
        wanted: &[(Hostname, String)],
        via: Via<'_>,
    ) -> Target {
        let domain = &self.reader.settings().domain;
        let host = Hostname::qualified(&destination.host, namespace, domain);
        let Some(service) = self.service(&host) else { return Target::Missing(Missing::Service { host }) };
        let known: Vec<u16> = service.ports.iter().map(|p| p.number).collect();
        let asked = destination.port.as_ref().map(|p| p.number);
        let port = match (asked, &known[..]) {
            (Some(port), _) => known.contains(&port).then_some(port),
            (None, [only]) => Some(*only),
            (None, _) => known.contains(&listener_port).then_some(listener_port),
        };
        let Some(declared) = port.and_then(|port| service.ports.iter().find(|p| p.number == port)) else {
            return Target::Missing(Missing::Port { host, port: asked, known });
        };
        let port = declared.number;
        let rule = self.rule(service);
        let inferred;
        let subset = if destination.subset.is_empty() {
            None
        } else if let Some(defined) = rule.subset(&destination.subset) {
            Some(defined)
        } else {
            inferred = self.subsets(service, &rule);
            match inferred.iter().find(|s| *s.name == *destination.subset) {
                Some(subset) => Some(subset),
                None => return Target::Missing(self.missing_subset(host, &destination.subset, &rule, wanted)),
            }
        };
        let hash = policy::effective(&rule, subset, port).load_balancer.and_then(|lb| lb.consistent_hash);
        let rollout = match subset {
            None => self.division(service, &rule, declared, via).map(Rollout::Divides),
            Some(_) => self.in_force(service, &rule, port).map(|run| Rollout::Spares(run.run().clone())),
        };
        let name = names::outbound_cluster(port, &destination.subset, &service.host);
        Target::Cluster { name, hash, protocol: declared.protocol, rollout }
    }

    /// The effective policy towards a destination; the default where it leads nowhere.
    pub(super) fn policy(&self, namespace: &str, destination: &Destination, listener_port: u16) -> TrafficPolicy {
        let host = Hostname::qualified(&destination.host, namespace, &self.reader.settings().domain);
        let Some(service) = self.service(&host) else { return TrafficPolicy::default() };
        let asked = destination.port.as_ref().map(|port| port.number);
        let port = asked.or(match &service.ports[..] {
            [only] => Some(only.number),
            _ => None,
        });
        let rule = self.rule(service);
        policy::effective(&rule, rule.subset(&destination.subset), port.unwrap_or(listener_port))
    }

    fn missing_subset(
        &self,
        host: Hostname,
        subset: &str,
        rule: &EffectiveRule,
        wanted: &[(Hostname, String)],
    ) -> Missing {
        let of_host = wanted.iter().filter(|(h, name)| *h == host && rule.subset(name).is_none());
        let mut missing: BTreeSet<&str> = of_host.map(|(_, name)| name.as_str()).collect();
        missing.insert(subset);
        let missing: Vec<&str> = missing.into_iter().collect();
        let label = self.options.infer_subsets.as_deref().unwrap_or("version");
        let suggestion = match rule.origins.first() {
            None => target::suggestion(&host, &missing, label),
            Some(rule) => target::addition(rule, &missing, label),
        };
        Missing::Subset { host, subset: subset.to_owned(), suggestion }
    }
}
