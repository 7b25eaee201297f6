//! Retries.

use std::sync::LazyLock;

use proto::pb::envoy::config::route::v3::RetryPolicy;
use proto::pb::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType as HostConfig;
use proto::pb::envoy::config::route::v3::retry_policy::retry_priority::ConfigType as PriorityConfig;
use proto::pb::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate, RetryPriority};
use proto::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use proto::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use world::Problem;
use world::api::istio::Retry;

use super::rule::Place;
use crate::{Audience, pack};

/// Istio's default: what cannot have reached an application, or says itself that it can be repeated.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const ATTEMPTS: u32 = 2;
/// How often another host is picked before one that failed is taken again.
const HOST_SELECTION_ATTEMPTS: i64 = 5;
/// After how many retries at one priority the next is tried, Istio's.
const PRIORITY_UPDATE_FREQUENCY: i32 = 2;

/// The conditions that Envoy 1.40 knows (`x-envoy-retry-on` and `x-envoy-retry-grpc-on` in its router filter's docs).
const CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Those that gRPC clients know (gRFC A44).
const GRPC_CONDITIONS: [&str; 5] = ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

/// The policy of a route that says `text`; `None` when it is not to be retried.
pub(super) fn policy(
    text: Option<&Retry>,
    place: &Place,
    audience: &Audience,
    problems: &mut Vec<Problem>,
) -> Option<RetryPolicy> {
    let Some(text) = text else { return default_policy(audience) };
    let attempts = match u32::try_from(text.attempts) {
        Ok(0) => return None,
        Ok(attempts) => attempts,
        Err(_) => {
            let problem = place
                .error(".retries.attempts", format!("{} is negative", text.attempts))
                .consequence(format!("{ATTEMPTS} attempts, the default"));
            problems.push(problem);
            ATTEMPTS
        }
    };
    let mut policy = RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: Some(pack::uint32(attempts)),
        per_try_timeout: text.per_try_timeout.map(pack::duration),
        ..RetryPolicy::default()
    };
    if let Some(conditions) = text.retry_on.as_deref().filter(|text| !text.trim().is_empty()) {
        (policy.retry_on, policy.retriable_status_codes) = read_conditions(conditions, place, problems);
    }
    if let Some(interval) = text.backoff {
        if interval.is_zero() {
            let problem = place
                .error(".retries.backoff", "must be more than 0")
                .consequence("the client's default, 25ms, is used")
                .hint("Leave it out for the default.");
            problems.push(problem);
        } else {
            let base_interval = Some(pack::duration(interval));
            policy.retry_back_off = Some(RetryBackOff { base_interval, max_interval: None });
        }
    }
    if audience.is_grpc() {
        return for_grpc(policy);
    }
    if text.retry_ignore_previous_hosts.unwrap_or(true) {
        avoid_previous_hosts(&mut policy);
    }
    if text.retry_remote_localities == Some(true) {
        let config = PreviousPrioritiesConfig { update_frequency: PRIORITY_UPDATE_FREQUENCY };
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(PriorityConfig::TypedConfig(pack::any(&config))),
        });
    }
    Some(policy)
}

/// The policy of a route that says nothing about it.
pub(super) fn default_policy(audience: &Audience) -> Option<RetryPolicy> {
    static POLICY: LazyLock<RetryPolicy> = LazyLock::new(|| {
        let mut policy = RetryPolicy {
            retry_on: RETRY_ON.to_owned(),
            num_retries: Some(pack::uint32(ATTEMPTS)),
            ..RetryPolicy::default()
        };
        avoid_previous_hosts(&mut policy);
        policy
    });
    if audience.is_grpc() {
        let num_retries = Some(pack::uint32(ATTEMPTS));
        return for_grpc(RetryPolicy { retry_on: RETRY_ON.to_owned(), num_retries, ..RetryPolicy::default() });
    }
    Some(POLICY.clone())
}

fn avoid_previous_hosts(policy: &mut RetryPolicy) {
    policy.retry_host_predicate.push(RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(HostConfig::TypedConfig(pack::any(&PreviousHostsPredicate {}))),
    });
    policy.host_selection_retry_max_attempts = HOST_SELECTION_ATTEMPTS;
}

/// Splits conditions from status codes, which are written in the same list.
fn read_conditions(text: &str, place: &Place, problems: &mut Vec<Problem>) -> (String, Vec<u32>) {
    let mut conditions = Vec::new();
    let mut codes = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word.parse::<u32>() {
            Ok(code) if (100..600).contains(&code) => codes.push(code),
            Err(_) if CONDITIONS.contains(&word) => conditions.push(word),
            Ok(_) | Err(_) => {
                let message = format!("\"{word}\" is neither a condition that Envoy knows nor a status code");
                problems.push(place.error(".retries.retryOn", message).consequence("it is left out"));
            }
        }
    }
    if !codes.is_empty() && !conditions.contains(&"retriable-status-codes") {
        conditions.push("retriable-status-codes");
    }
    (conditions.join(","), codes)
}

/// What gRPC takes of a policy: it ignores the rest, and refuses a policy without retries.
fn for_grpc(policy: RetryPolicy) -> Option<RetryPolicy> {
    let known: Vec<_> = policy.retry_on.split(',').filter(|word| GRPC_CONDITIONS.contains(word)).collect();
    (!known.is_empty()).then(|| RetryPolicy {
        retry_on: known.join(","),
        num_retries: policy.num_retries,
        retry_back_off: policy.retry_back_off,
        ..RetryPolicy::default()
    })
}
