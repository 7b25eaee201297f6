//! What policies put in front of a workload.

use std::sync::Arc;

use world::api::istio::{Destination, PortSelector};
use world::{Hostname, Object, PolicyKind};

use crate::layers::resolver::Resolver;
use crate::layers::rollout::Via;
use crate::security::{self, AuthenticationInput, AuthorizationInput, Guards, ResolvedProvider};
use crate::{Audience, Built, Proxy, Target, rate_limit, route};

/// The guards of the audience's own workload: first who may come, then how often.
pub(super) fn guards(resolver: &Resolver<'_, '_>) -> Built<Guards> {
    let Audience { namespace, labels, proxy, .. } = resolver.audience;
    let of_kind = |kind| resolver.reader.policies(kind, namespace, labels).all().collect::<Vec<&Arc<Object>>>();
    let authentication = security::authentication(&AuthenticationInput {
        policies: &of_kind(PolicyKind::RequestAuthentication),
        keys: &|source| resolver.reader.key_set(source).cloned(),
        routes_by_claims: *proxy == Proxy::Gateway,
    });
    let settings = resolver.reader.settings();
    let trust_domains: Vec<Arc<str>> =
        [&settings.trust_domain].into_iter().chain(&settings.trust_domain_aliases).cloned().collect();
    let authorization = security::authorization(&AuthorizationInput {
        policies: &of_kind(PolicyKind::AuthorizationPolicy),
        trust_domains: &trust_domains,
        provider: &|name| provider(resolver, name),
        most_regex_instructions: resolver.options.max_regex_instructions,
    });
    let limits = rate_limit::filters(&of_kind(PolicyKind::RateLimitPolicy), resolver.options.max_regex_instructions);
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
    Built { problems: built.problems, ..Built::new(guards) }
}

/// Who decides under this name.
fn provider<'w>(resolver: &Resolver<'_, 'w>, name: &str) -> Result<ResolvedProvider<'w>, String> {
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
    match resolver.resolve(namespace, &destination, asks.port(), &[], Via::Connections) {
        Target::Cluster { name, .. } => {
            let host = Hostname::qualified(host, namespace, &resolver.reader.settings().domain).to_string();
            Ok(ResolvedProvider { asks, cluster: name, host, origin: &object.reference })
        }
        Target::Missing(missing) => {
            Err(format!("provider \"{name}\" cannot be reached: {}", route::describe(&missing)))
        }
    }
}
