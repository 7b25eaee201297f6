//! Limits on how often requests come, as Envoy's two filters keep them.
//!
//! Each limit has a descriptor: its name, the conditions that take an expression, and what is counted apart, in order. `local_ratelimit` has a token bucket for
//! each descriptor; `ratelimit` asks the rate limit service about them, which knows the limit by its name. What tells
//! requests apart stands in the filters themselves, so that no route depends on a limit.

mod expression;
mod filter;
mod key;
mod value;

use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::pb::envoy::config::core::v3::{ApiVersion, GrpcService, RuntimeFractionalPercent};
use proto::pb::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use proto::pb::envoy::config::route::v3::RateLimit as Actions;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::pb::envoy::extensions::common::ratelimit::v3::{LocalRateLimitDescriptor, XRateLimitHeadersRfcVersion};
use proto::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use proto::pb::envoy::extensions::filters::http::ratelimit::v3::RateLimit as GlobalRateLimit;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::pb::envoy::r#type::v3::{FractionalPercent, TokenBucket, fractional_percent};
use world::api::policy::{ClientKey, LimitScope, OnLimitError, RateLimit};
use world::{Object, Spec};

use crate::pack::{boolean, duration, http_filter, uint32};
use crate::{Built, names};

/// The domain of our descriptors at the rate limit service.
pub const DOMAIN: &str = "pointsman";
/// The key of a descriptor's first entry; its value is [`limit_name`].
pub const LIMIT_KEY: &str = "limit";

/// How many clients, or whatever else is counted apart, have a bucket of their own in a proxy; the one that has been
/// silent for longest makes room. Envoy's default of 20 would forget them within a moment.
const MOST_BUCKETS: u32 = 10_000;
/// How long the rate limit service may take: longer than Envoy's 20 ms, which a busy machine exceeds.
const SERVICE_TIMEOUT: Duration = Duration::from_millis(250);
/// What statistics of the local filter are called.
const STAT_PREFIX: &str = "rate_limits";

/// `<namespace>/<policy>/<limit>`: the name of a limit in descriptors.
pub fn limit_name(policy: &Object, limit: &RateLimit) -> String {
    format!("{}/{}/{}", policy.reference.namespace, policy.reference.name, limit.name)
}

/// All that the filters depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimitInput<'a> {
    /// The policies, in order.
    pub(crate) policies: &'a [&'a Arc<Object>],
    /// Whether the control plane is asked by the cluster [`names::LIMITS`]; else by that of the bootstrap.
    pub(crate) asks_by_own_cluster: bool,
    /// How long regular expressions may be, as Envoy measures them.
    pub(crate) most_regex_instructions: u32,
    /// Where the limits are kept.
    pub(crate) peers: Peers,
}

/// Who calls a proxy, and so how its clients are told apart by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Other workloads, whose `X-Forwarded-For` may say anything: the address is that of the connection.
    Workloads,
    /// Clients and trusted proxies in front of a gateway, which finds out whose the request is.
    Outside,
}

/// The filters that keep the limits of these policies, in the policies' order: one that notes whose a connection is, if that
/// is counted apart, one for what proxies count themselves, and one for each way to treat requests that could not be counted.
pub(crate) fn filters(input: &RateLimitInput<'_>) -> Built<Vec<HttpFilter>> {
    let mut built = Built::new(Vec::new());
    let mut local = LocalRateLimit::default();
    let (mut or_allow, mut or_deny) = (Vec::new(), Vec::new());
    let mut is_by_connection = false;
    for policy in input.policies {
        let Spec::RateLimitPolicy(spec) = &policy.spec else { continue };
        built.origins.insert(policy.reference.clone());
        for (at, limit) in spec.limits.iter().enumerate() {
            let name = limit_name(policy, limit);
            let conditions = filter::conditions(&name, &limit.matching, input.most_regex_instructions);
            built.problems.extend(conditions.unusable.into_iter().map(|why| {
                let field = format!("spec.limits[{at}].match.{}", why.field);
                world::Problem::error(&policy.reference, field, why.message)
                    .consequence("the limit counts requests whatever they have there")
                    .hint("Use shorter values.")
                    .at(policy.meta.location.clone())
            }));
            is_by_connection |=
                input.peers == Peers::Workloads && limit.by.iter().any(|by| by.client == Some(ClientKey::Address));
            let keys = limit.by.iter().map(|by| key::action(by, input.peers));
            let actions = conditions.actions.into_iter().chain(keys).collect();
            let actions = Actions { actions, ..Actions::default() };
            match (limit.scope, limit.on_error) {
                (LimitScope::Local, _) => {
                    local.rate_limits.push(actions);
                    local.descriptors.push(bucket(conditions.entries, limit));
                }
                (LimitScope::Global, OnLimitError::Allow) => or_allow.push(actions),
                (LimitScope::Global, OnLimitError::Deny) => or_deny.push(actions),
            }
        }
    }
    if is_by_connection {
        built.value.push(key::note_peer());
    }
    if !local.descriptors.is_empty() {
        built.value.push(http_filter("envoy.filters.http.local_ratelimit", &local_filter(local)));
    }
    for (name, rate_limits, failure_mode_deny) in
        [("envoy.filters.http.ratelimit", or_allow, false), ("envoy.filters.http.ratelimit.deny", or_deny, true)]
    {
        if rate_limits.is_empty() {
            continue;
        }
        let cluster = if input.asks_by_own_cluster { names::LIMITS } else { names::CONTROL_PLANE };
        built.value.push(http_filter(name, &global_filter(rate_limits, failure_mode_deny, cluster)));
        if input.asks_by_own_cluster {
            built.clusters.insert(cluster.into());
        }
    }
    built
}

fn local_filter(with_descriptors: LocalRateLimit) -> LocalRateLimit {
    let always = RuntimeFractionalPercent {
        default_value: Some(FractionalPercent {
            numerator: 100,
            denominator: fractional_percent::DenominatorType::Hundred.into(),
        }),
        ..RuntimeFractionalPercent::default()
    };
    LocalRateLimit {
        stat_prefix: STAT_PREFIX.to_owned(),
        filter_enabled: Some(always.clone()),
        filter_enforced: Some(always),
        always_consume_default_token_bucket: Some(boolean(false)),
        max_dynamic_descriptors: Some(uint32(MOST_BUCKETS)),
        enable_x_ratelimit_headers: XRateLimitHeadersRfcVersion::DraftVersion03.into(),
        rate_limited_as_resource_exhausted: true,
        ..with_descriptors
    }
}

fn global_filter(rate_limits: Vec<Actions>, failure_mode_deny: bool, cluster: &str) -> GlobalRateLimit {
    use proto::pb::envoy::extensions::filters::http::ratelimit::v3::rate_limit::XRateLimitHeadersRfcVersion;
    let service = EnvoyGrpc { cluster_name: cluster.to_owned(), ..EnvoyGrpc::default() };
    GlobalRateLimit {
        domain: DOMAIN.to_owned(),
        timeout: Some(duration(SERVICE_TIMEOUT)),
        failure_mode_deny,
        rate_limited_as_resource_exhausted: true,
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(service)),
                ..GrpcService::default()
            }),
            transport_api_version: ApiVersion::V3.into(),
        }),
        enable_x_ratelimit_headers: XRateLimitHeadersRfcVersion::DraftVersion03.into(),
        rate_limits,
        ..GlobalRateLimit::default()
    }
}

/// The bucket of one limit, whose descriptor begins with these entries: of each value of its keys, if it has any.
fn bucket(entries: Vec<Entry>, limit: &RateLimit) -> LocalRateLimitDescriptor {
    // An entry without a value stands for each.
    let each = limit.by.iter().map(|by| Entry { key: key::name(by), value: String::new() });
    LocalRateLimitDescriptor {
        entries: entries.into_iter().chain(each).collect(),
        token_bucket: Some(TokenBucket {
            max_tokens: limit.burst.unwrap_or(limit.requests),
            tokens_per_fill: Some(uint32(limit.requests)),
            fill_interval: limit.per.map(duration),
        }),
        shadow_mode: limit.dry_run,
    }
}
