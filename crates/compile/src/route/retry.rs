//! Retries.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use prost::Message as _;
use proto::pb::envoy::config::route::v3::RetryPolicy;
use proto::pb::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType as HostConfig;
use proto::pb::envoy::config::route::v3::retry_policy::retry_priority::ConfigType as PriorityConfig;
use proto::pb::envoy::config::route::v3::retry_policy::{RetryHostPredicate, RetryPriority};
use proto::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use proto::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use world::Problem;
use world::api::istio::Retry;

use super::rule::Place;
use crate::{Audience, flat, pack};

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

/// How requests of a route are repeated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Policy {
    retry_on: Cow<'static, str>,
    status_codes: Vec<u32>,
    attempts: u32,
    per_try_timeout: Option<Duration>,
    back_off: Option<Duration>,
    /// Whether another host is tried each time.
    other_hosts: bool,
    /// Whether the next priority is tried in time.
    other_priorities: bool,
    /// Whether it is tried at once.
    falls_back: bool,
}

impl Policy {
    /// Istio's, for a route that says nothing about it.
    const DEFAULT: Policy = Policy {
        retry_on: Cow::Borrowed(RETRY_ON),
        status_codes: Vec::new(),
        attempts: ATTEMPTS,
        per_try_timeout: None,
        back_off: None,
        other_hosts: true,
        other_priorities: false,
        falls_back: false,
    };

    /// The policy of a route that says `text`; `None` when it is not to be retried.
    pub(super) fn read(
        text: Option<&Retry>,
        place: &Place,
        audience: &Audience,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let Some(text) = text else { return Self::default_for(audience) };
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
        let mut policy = Policy {
            attempts,
            per_try_timeout: text.per_try_timeout,
            other_hosts: text.retry_ignore_previous_hosts.unwrap_or(true),
            other_priorities: text.retry_remote_localities == Some(true),
            ..Policy::DEFAULT
        };
        if let Some(conditions) = text.retry_on.as_deref().filter(|text| !text.trim().is_empty()) {
            let (retry_on, status_codes) = read_conditions(conditions, place, problems);
            policy.retry_on = Cow::Owned(retry_on);
            policy.status_codes = status_codes;
        }
        policy.back_off = text.backoff.filter(|interval| {
            if interval.is_zero() {
                let problem = place
                    .error(".retries.backoff", "must be more than 0")
                    .consequence("the client's default, 25ms, is used")
                    .hint("Leave it out for the default.");
                problems.push(problem);
            }
            !interval.is_zero()
        });
        if audience.is_grpc() { policy.for_grpc() } else { Some(policy) }
    }

    /// The policy of a route that says nothing about it.
    pub(super) fn default_for(audience: &Audience) -> Option<Self> {
        if audience.is_grpc() { Self::DEFAULT.for_grpc() } else { Some(Self::DEFAULT) }
    }

    /// The same, with a retry at the next priority each time, where a rollout's fallback is.
    pub(super) fn falling_back(self) -> Self {
        Policy { falls_back: true, ..self }
    }

    /// What gRPC takes of a policy: it ignores the rest, and refuses a policy without retries.
    fn for_grpc(self) -> Option<Self> {
        let known: Vec<_> = self.retry_on.split(',').filter(|word| GRPC_CONDITIONS.contains(word)).collect();
        (!known.is_empty()).then(|| Policy {
            retry_on: Cow::Owned(known.join(",")),
            attempts: self.attempts,
            back_off: self.back_off,
            other_hosts: false,
            ..Self::DEFAULT
        })
    }

    /// Writes `RetryPolicy`: retry_on 1, num_retries 2, per_try_timeout 3, retry_priority 4, retry_host_predicate 5,
    /// host_selection_retry_max_attempts 6, retriable_status_codes 7, retry_back_off 8 (base_interval 1).
    pub(super) fn write(&self, out: &mut Vec<u8>, field: u32) {
        flat::message(out, field, |out| {
            flat::text(out, 1, &self.retry_on);
            flat::wrapped(out, 2, self.attempts.into());
            if let Some(timeout) = self.per_try_timeout {
                flat::duration(out, 3, timeout);
            }
            if self.falls_back {
                out.extend_from_slice(&NEXT_PRIORITY);
            } else if self.other_priorities {
                out.extend_from_slice(&OTHER_PRIORITIES);
            }
            if self.other_hosts {
                out.extend_from_slice(&OTHER_HOSTS);
            }
            if !self.status_codes.is_empty() {
                flat::message(out, 7, |out| {
                    for code in &self.status_codes {
                        flat::varint(out, (*code).into());
                    }
                });
            }
            if let Some(interval) = self.back_off {
                flat::message(out, 8, |out| flat::duration(out, 1, interval));
            }
        });
    }
}

/// Tries the next priority in time.
static OTHER_PRIORITIES: LazyLock<Vec<u8>> = LazyLock::new(|| other_priorities(PRIORITY_UPDATE_FREQUENCY));

/// Tries the next priority at once.
static NEXT_PRIORITY: LazyLock<Vec<u8>> = LazyLock::new(|| other_priorities(1));

fn other_priorities(update_frequency: i32) -> Vec<u8> {
    let config = PreviousPrioritiesConfig { update_frequency };
    let retry_priority = Some(RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(PriorityConfig::TypedConfig(pack::any(&config))),
    });
    RetryPolicy { retry_priority, ..RetryPolicy::default() }.encode_to_vec()
}

/// Tries another host.
static OTHER_HOSTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let predicate = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(HostConfig::TypedConfig(pack::any(&PreviousHostsPredicate {}))),
    };
    let policy = RetryPolicy {
        retry_host_predicate: vec![predicate],
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..RetryPolicy::default()
    };
    policy.encode_to_vec()
});

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
