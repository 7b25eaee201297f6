//! What policies put in front of a workload.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ResourceType;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use world::api::istio::{Destination, PortSelector};
use world::api::mesh_config::ExternalAuthorization;
use world::{Hostname, Object, ObjectRef, PolicyKind, Problem};

use crate::layers::output::Output;
use crate::layers::resolver::Resolver;
use crate::layers::rollout::Via;
use crate::rate_limit::{self, RateLimitInput};
use crate::security::{self, AuthenticationInput, AuthorizationInput, Guards, ResolvedProvider};
use crate::{Audience, Built, Proxy, Target, cluster, names, policy, route};

/// The guards of the audience's own workload: first who may come, then how often. Adds the cluster by which they ask the
/// control plane, if they do, and what is wrong.
pub(super) fn guards(resolver: &Resolver<'_, '_>, output: &mut Output) -> Guards {
    let Audience { namespace, labels, proxy, .. } = resolver.audience;
    let of_kind = |kind| resolver.reader.policies(kind, namespace, labels).all().collect::<Vec<&Arc<Object>>>();
    let authentication = security::authentication(&AuthenticationInput {
        policies: &of_kind(PolicyKind::RequestAuthentication),
        keys: &|source| resolver.reader.key_set(source).cloned(),
        routes_by_claims: *proxy == Proxy::Gateway,
    });
    let unfit = RefCell::new(Vec::new());
    let authorization = security::authorization(&AuthorizationInput {
        policies: &of_kind(PolicyKind::AuthorizationPolicy),
        trust_domains: &trust_domains(resolver),
        provider: &|name| provider(resolver, name, &unfit),
        most_regex_instructions: resolver.options.max_regex_instructions,
    });
    let Audience { control_plane, secrets, .. } = resolver.audience;
    let own_cluster = control_plane.as_ref().and_then(|to| cluster::limits(to, *secrets));
    let limits = rate_limit::filters(&RateLimitInput {
        policies: &of_kind(PolicyKind::RateLimitPolicy),
        asks_by_own_cluster: own_cluster.is_some(),
        most_regex_instructions: resolver.options.max_regex_instructions,
        peers: if *proxy == Proxy::Gateway { rate_limit::Peers::Outside } else { rate_limit::Peers::Workloads },
    });
    let is_asked = limits.clusters.contains(names::LIMITS);
    let mut built = Built::new(());
    let authentication = built.absorb(authentication);
    let authorization = built.absorb(authorization);
    let limits = built.absorb(limits);
    let guards = Guards {
        http: authorization.custom.into_iter().chain(authentication).chain(authorization.rules).chain(limits).collect(),
        network: authorization.network,
        clusters: built.clusters,
        origins: built.origins,
    };
    output.problems.extend(built.problems);
    output.problems.extend(unfit.into_inner());
    output.problems.extend(super::reach::without_tokens(resolver));
    if let Some(cluster) = own_cluster.filter(|_| is_asked) {
        output.add(ResourceType::Cluster, names::LIMITS.into(), &cluster, [], &BTreeSet::new());
    }
    guards
}

/// The guards of the audience's own gRPC server: who may come. It checks no tokens and keeps no limits.
pub(super) fn guards_of_grpc(resolver: &Resolver<'_, '_>) -> Built<Vec<HttpFilter>> {
    let Audience { namespace, labels, .. } = resolver.audience;
    let of_kind = |kind| resolver.reader.policies(kind, namespace, labels).all().collect::<Vec<&Arc<Object>>>();
    let mut built = security::authorization_of_grpc(&AuthorizationInput {
        policies: &of_kind(PolicyKind::AuthorizationPolicy),
        trust_domains: &trust_domains(resolver),
        provider: &|_| Err("gRPC servers without a proxy cannot ask a provider".to_owned()),
        most_regex_instructions: resolver.options.max_regex_instructions,
    });
    for (kind, message, consequence) in [
        (
            PolicyKind::RequestAuthentication,
            "gRPC servers without a proxy check no tokens",
            "there requests pass with any token, and policies that ask for tokens let nothing through",
        ),
        (PolicyKind::RateLimitPolicy, "gRPC servers without a proxy keep no limits", "there requests are not limited"),
    ] {
        built.problems.extend(of_kind(kind).into_iter().map(|object| {
            Problem::error(&object.reference, "", message)
                .consequence(consequence)
                .hint("Give the workload a sidecar, or let the application see to it.")
                .at(object.meta.location.clone())
        }));
    }
    built
}

/// The trust domain, then its aliases.
pub(super) fn trust_domains(resolver: &Resolver<'_, '_>) -> Vec<Arc<str>> {
    let settings = resolver.reader.settings();
    [&settings.trust_domain].into_iter().chain(&settings.trust_domain_aliases).cloned().collect()
}

/// Who decides under this name; `unfit` takes what is wrong with it and does not keep it from being asked.
fn provider<'w>(
    resolver: &Resolver<'_, 'w>,
    name: &str,
    unfit: &RefCell<Vec<Problem>>,
) -> Result<ResolvedProvider<'w>, String> {
    if name.is_empty() {
        return Err("the policy names no provider".to_owned());
    }
    let Some((config, object)) = resolver.reader.mesh_config() else {
        return Err(format!("there is no mesh configuration that defines a provider \"{name}\""));
    };
    let Some(provider) = config.provider(name) else {
        return Err(format!("the mesh configuration has no provider \"{name}\""));
    };
    let Some(asks) = provider.authorization() else {
        return Err(format!("provider \"{name}\" does not decide about requests"));
    };
    if !provider.mistakes().is_empty() {
        return Err(format!("provider \"{name}\" is not defined as it must be, see {}", object.reference));
    }
    let (namespace, host) = match asks.service().split_once('/') {
        Some((namespace, host)) => (namespace, host),
        None => (&*object.reference.namespace, asks.service()),
    };
    let port = Some(PortSelector { number: asks.port() });
    let destination = Destination { host: host.to_owned(), subset: String::new(), port };
    let provider_name = name;
    match resolver.resolve(namespace, &destination, asks.port(), &[], Via::Connections) {
        Target::Cluster { name, .. } => {
            let host = Hostname::qualified(host, namespace, &resolver.reader.settings().domain);
            if matches!(asks, ExternalAuthorization::Grpc(_)) && !speaks_http2(resolver, &host, asks.port()) {
                unfit.borrow_mut().push(no_grpc(&object.reference, provider_name, &host, asks.port()));
            }
            Ok(ResolvedProvider { asks, cluster: name, host: host.to_string(), origin: &object.reference })
        }
        Target::Missing(missing) => {
            Err(format!("provider \"{name}\" cannot be reached: {}", route::describe(&missing)))
        }
    }
}

/// Whether proxies speak HTTP/2 to a port: because it is declared so, or because a rule says that they are to.
fn speaks_http2(resolver: &Resolver<'_, '_>, host: &Hostname, port: u16) -> bool {
    let Some(service) = resolver.service(host) else { return false };
    let declared = service.ports.iter().find(|declared| declared.number == port);
    let rule = resolver.rule(service);
    let pool = policy::effective(&rule, None, port).connection_pool.and_then(|pool| pool.http);
    let is_upgraded = pool.is_some_and(|http| http.h2_upgrade_policy.as_deref() == Some("UPGRADE"));
    declared.is_some_and(|declared| declared.protocol.is_http2() || declared.protocol.is_http() && is_upgraded)
}

fn no_grpc(config: &ObjectRef, provider: &str, host: &Hostname, port: u16) -> Problem {
    let message =
        format!("provider \"{provider}\" is asked by gRPC, and port {port} of {host} is not declared as HTTP/2");
    Problem::warning(config, "data.mesh.extensionProviders", message)
        .consequence("nobody understands what it is asked, and requests are treated as when it does not answer")
        .hint("Call the service's port `grpc-...`, or set its appProtocol to `grpc`.")
}
