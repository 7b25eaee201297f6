//! How one of the endpoints is chosen.

use std::time::Duration;

use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use proto::pb::google::protobuf::UInt64Value;
use world::Problem;
use world::api::istio::{ConsistentHash, LoadBalancer, SimpleLoadBalancer};

use super::{ClusterInput, Discovery, discovery, number};
use crate::pack;
use crate::policy::{Part, Policy};

/// Istio's default smallest ring; Envoy's is the same.
const DEFAULT_RING: u64 = 1024;
/// Largest ring that Envoy and gRPC take (PGV rule of `RingHashLbConfig.minimum_ring_size`).
const LARGEST_RING: u64 = 8 * 1024 * 1024;
/// Largest Maglev table that Envoy takes (PGV rule of `MaglevLbConfig.table_size`); it must be prime as well.
const LARGEST_TABLE: u64 = 5_000_011;

/// Sets `lb_policy` and its configuration.
pub(super) fn set(
    cluster: &mut Cluster,
    input: &ClusterInput<'_>,
    policy: &Policy<'_>,
    discovery: Discovery,
    problems: &mut Vec<Problem>,
) {
    let choice = match policy.load_balancer {
        _ if discovery == Discovery::OriginalDestination => Choice::plain(LbPolicy::ClusterProvided),
        None => Choice::plain(LbPolicy::LeastRequest),
        Some(part) => Choice::of(&part, problems),
    };
    let in_vain = discovery != Discovery::OriginalDestination && discovery::asks_passthrough(policy);
    if let Some(part) = policy.load_balancer.filter(|_| in_vain) {
        problems.push(part.warning(
            "simple",
            "PASSTHROUGH needs the connection's original destination, which this kind of client does not have",
            "an endpoint of the service is chosen",
        ));
    }
    let choice = if input.audience.is_grpc() { choice.for_grpc(policy.load_balancer, problems) } else { choice };
    cluster.lb_policy = choice.policy as i32;
    cluster.lb_config = choice.config;
}

#[derive(Debug)]
struct Choice {
    policy: LbPolicy,
    config: Option<LbConfig>,
}

impl Choice {
    fn plain(policy: LbPolicy) -> Self {
        Self { policy, config: None }
    }

    fn of(part: &Part<'_, LoadBalancer>, problems: &mut Vec<Problem>) -> Self {
        let warmup = number::duration(
            part,
            "warmupDurationSecs",
            part.value.warmup_duration_secs,
            "endpoints get their full share at once",
            problems,
        );
        let choice = match (&part.value.consistent_hash, part.value.simple) {
            (Some(hash), simple) => {
                if simple.is_some() {
                    problems.push(part.error(
                        "simple",
                        "`simple` and `consistentHash` exclude each other",
                        "`consistentHash` holds",
                    ));
                }
                Self::hashing(part, hash, problems)
            }
            (None, simple) => Self::simple(simple, warmup),
        };
        if warmup.is_some() && !matches!(choice.policy, LbPolicy::LeastRequest | LbPolicy::RoundRobin) {
            problems.push(part.warning(
                "warmupDurationSecs",
                "endpoints are warmed up only with LEAST_REQUEST and ROUND_ROBIN",
                "endpoints get their full share at once",
            ));
        }
        choice
    }

    fn simple(simple: Option<SimpleLoadBalancer>, warmup: Option<Duration>) -> Self {
        let slow_start_config = warmup.map(|window| SlowStartConfig {
            slow_start_window: Some(pack::duration(window)),
            ..SlowStartConfig::default()
        });
        match simple.unwrap_or(SimpleLoadBalancer::Unspecified) {
            SimpleLoadBalancer::Random => Self::plain(LbPolicy::Random),
            SimpleLoadBalancer::RoundRobin => Self {
                policy: LbPolicy::RoundRobin,
                config: slow_start_config.map(|slow_start| {
                    LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow_start) })
                }),
            },
            SimpleLoadBalancer::Unspecified
            | SimpleLoadBalancer::Passthrough
            | SimpleLoadBalancer::LeastRequest
            | SimpleLoadBalancer::LeastConn => Self {
                policy: LbPolicy::LeastRequest,
                config: slow_start_config.map(|slow_start| {
                    LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                        slow_start_config: Some(slow_start),
                        ..LeastRequestLbConfig::default()
                    })
                }),
            },
        }
    }

    fn hashing(part: &Part<'_, LoadBalancer>, hash: &ConsistentHash, problems: &mut Vec<Problem>) -> Self {
        let keys = [
            hash.http_header_name.is_some(),
            hash.http_cookie.is_some(),
            hash.use_source_ip == Some(true),
            hash.http_query_parameter_name.is_some(),
        ];
        if !keys.contains(&true) {
            problems.push(
                part.error("consistentHash", "nothing is named to hash by", "each request goes to a random endpoint")
                    .hint("Set one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName."),
            );
        }
        match (&hash.maglev, &hash.ring_hash) {
            (Some(maglev), None) => Self::maglev(part, maglev.table_size, problems),
            (None, ring) => {
                let (field, size) = match ring {
                    Some(ring) => ("consistentHash.ringHash.minimumRingSize", ring.minimum_ring_size),
                    None => ("consistentHash.minimumRingSize", hash.minimum_ring_size),
                };
                Self::ring(part, field, size, problems)
            }
            (Some(_), Some(ring)) => {
                problems.push(part.error(
                    "consistentHash",
                    "`ringHash` and `maglev` exclude each other",
                    "`ringHash` holds",
                ));
                Self::ring(part, "consistentHash.ringHash.minimumRingSize", ring.minimum_ring_size, problems)
            }
        }
    }

    fn ring(part: &Part<'_, LoadBalancer>, field: &str, minimum: Option<u64>, problems: &mut Vec<Problem>) -> Self {
        let size = match minimum {
            None | Some(0) => DEFAULT_RING,
            Some(size @ ..=LARGEST_RING) => size,
            Some(size) => {
                let message = format!("{size} is too large, the most is {LARGEST_RING}");
                problems.push(part.error(field, message, format!("the ring has at least {DEFAULT_RING} places")));
                DEFAULT_RING
            }
        };
        let config =
            RingHashLbConfig { minimum_ring_size: Some(UInt64Value { value: size }), ..RingHashLbConfig::default() };
        Self { policy: LbPolicy::RingHash, config: Some(LbConfig::RingHashLbConfig(config)) }
    }

    fn maglev(part: &Part<'_, LoadBalancer>, size: Option<u64>, problems: &mut Vec<Problem>) -> Self {
        let size = size.filter(|size| *size != 0).filter(|size| {
            let fits = *size <= LARGEST_TABLE && is_prime(*size);
            if !fits {
                let message = format!("{size} is not a prime number up to {LARGEST_TABLE}");
                let problem = part.error("consistentHash.maglev.tableSize", message, "the table has 65537 entries");
                problems.push(match next_prime(*size) {
                    Some(prime) => problem.hint(format!("The next prime number is {prime}.")),
                    None => problem,
                });
            }
            fits
        });
        let config = size.map(|size| MaglevLbConfig { table_size: Some(UInt64Value { value: size }) });
        Self { policy: LbPolicy::Maglev, config: config.map(LbConfig::MaglevLbConfig) }
    }

    /// gRPC's C core takes round robin and ring hash and refuses the whole cluster for anything else; least request is
    /// experimental in the others. (Seen with grpcio 1.85: `LB policy is not supported` for MAGLEV.)
    fn for_grpc(self, part: Option<Part<'_, LoadBalancer>>, problems: &mut Vec<Problem>) -> Self {
        let mut say = |field: &str, message: &str, consequence: &str| {
            problems.extend(part.map(|part| part.warning(field, message, consequence)));
        };
        match self.policy {
            LbPolicy::RingHash => self,
            LbPolicy::Maglev => {
                say("consistentHash.maglev", "gRPC clients do not have Maglev", "gRPC clients use a hash ring");
                let config = RingHashLbConfig {
                    minimum_ring_size: Some(UInt64Value { value: DEFAULT_RING }),
                    ..RingHashLbConfig::default()
                };
                Self { policy: LbPolicy::RingHash, config: Some(LbConfig::RingHashLbConfig(config)) }
            }
            LbPolicy::RoundRobin
            | LbPolicy::LeastRequest
            | LbPolicy::Random
            | LbPolicy::ClusterProvided
            | LbPolicy::LoadBalancingPolicyConfig => {
                let asked = part.and_then(|part| part.value.simple);
                let lost = match asked {
                    Some(SimpleLoadBalancer::Random) => Some("RANDOM"),
                    Some(SimpleLoadBalancer::LeastRequest | SimpleLoadBalancer::LeastConn) => Some("LEAST_REQUEST"),
                    Some(
                        SimpleLoadBalancer::Unspecified
                        | SimpleLoadBalancer::Passthrough
                        | SimpleLoadBalancer::RoundRobin,
                    )
                    | None => None,
                };
                if let Some(lost) = lost {
                    let message = format!("gRPC clients do not have {lost}");
                    say("simple", &message, "gRPC clients take endpoints in turn");
                }
                if self.config.is_some() {
                    say(
                        "warmupDurationSecs",
                        "gRPC clients do not warm endpoints up",
                        "endpoints get their full share at once from gRPC clients",
                    );
                }
                Self::plain(LbPolicy::RoundRobin)
            }
        }
    }
}

fn next_prime(above: u64) -> Option<u64> {
    (above..=LARGEST_TABLE).find(|n| is_prime(*n))
}

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<_> = (0..30).filter(|n| is_prime(*n)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65_537) && is_prime(LARGEST_TABLE) && !is_prime(65_536) && !is_prime(LARGEST_TABLE - 2));
        assert_eq!(next_prime(5_000_000), Some(5_000_011));
        assert_eq!(next_prime(LARGEST_TABLE + 1), None);
    }
}
