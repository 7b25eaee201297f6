//! One metric, of what was counted between two readings.

use std::collections::BTreeMap;
use std::sync::Arc;

use rollout::{Observation, Part, Tally};
use world::api::delivery::{EvidenceSource, MetricKind, MetricSpec};

use crate::{Arm, ClusterSums, Places, Stat, Sums, Targets};

/// What was counted, and whose it is.
#[derive(Debug)]
pub(crate) struct Arms<'a> {
    targets: &'a Targets,
    delta: &'a BTreeMap<Arc<str>, ClusterSums>,
}

/// A metric that counts requests.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) candidate: Tally,
    pub(crate) stable: Tally,
    parts: Vec<Part>,
}

/// What makes an answer a bad one.
#[derive(Debug)]
enum Bad {
    /// 500 or more.
    Http5xx,
    /// What a server is to blame for, of gRPC's statuses.
    Grpc,
    /// One of these.
    Codes(Vec<u16>),
    /// Slower than this.
    Slow(u64),
    /// None: all requests are wanted.
    None,
}

/// Which answers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Every attempt: a retry hides a bad one from the caller, not from us.
    Attempts,
    /// What callers got: an SLO is a promise to them.
    Answers,
}

impl From<Counts> for Observation {
    fn from(counts: Counts) -> Self {
        let Counts { candidate, stable, parts } = counts;
        Observation::Counts { candidate, stable, parts }
    }
}

impl<'a> Arms<'a> {
    pub(crate) fn new(targets: &'a Targets, delta: &'a BTreeMap<Arc<str>, ClusterSums>) -> Self {
        Self { targets, delta }
    }

    fn sums(&self, arm: &'a Arm) -> impl Iterator<Item = &'a ClusterSums> {
        arm.clusters.iter().filter_map(|cluster| self.delta.get(cluster))
    }

    /// The requests of an arm.
    fn tally(&self, arm: &'a Arm, source: EvidenceSource, bad: &Bad, seen: Seen) -> Tally {
        let mut tally = Tally::default();
        for sums in self.sums(arm) {
            match source {
                EvidenceSource::MetricsService => tally.add(bad.of(&sums.metrics, seen)),
                EvidenceSource::AccessLog => tally.add(bad.of(&sums.logs, seen)),
                EvidenceSource::Lrs => tally.add(sums.loads.of(&arm.places).0),
                EvidenceSource::Auto => {
                    tally.add(bad.of(&sums.metrics, seen));
                    if bad.is_in_load_reports() {
                        tally.add(sums.other_loads.of(&arm.places).0);
                    }
                }
                EvidenceSource::Prometheus => {}
            }
        }
        tally
    }

    /// What stable's endpoints took, in order of their keys.
    fn parts(&self) -> Vec<Part> {
        let stable = &self.targets.stable;
        let mut parts = BTreeMap::<u64, Tally>::new();
        for sums in self.sums(stable) {
            for (address, tally) in sums.loads.of(&stable.places).1 {
                parts.entry(key(address)).or_default().add(tally);
            }
        }
        parts.into_iter().map(|(endpoint, tally)| Part { endpoint, tally }).collect()
    }
}

/// The counts of both arms.
///
/// # Errors
/// The source cannot tell; in words for whoever wrote the metric.
pub(crate) fn measure(spec: &MetricSpec, arms: &Arms<'_>) -> Result<Counts, String> {
    let bad = Bad::parse(spec)?;
    let Targets { candidate, stable, .. } = arms.targets;
    let shares_clusters = matches!((&candidate.places, &stable.places), (Places::Only(_), _) | (_, Places::Only(_)));
    let source = match arms.targets.source {
        EvidenceSource::Auto if shares_clusters => EvidenceSource::Lrs,
        source => source,
    };
    match source {
        EvidenceSource::Prometheus => {
            return Err("Prometheus is asked for values only: use a metric of kind PromQuery, or another \
                        source for this one"
                .to_owned());
        }
        EvidenceSource::Lrs if !bad.is_in_load_reports() => {
            return Err(format!(
                "load reports tell good requests from bad ones and nothing else: \"{}\" needs the metrics service or \
                 access logs",
                spec.name
            ));
        }
        EvidenceSource::MetricsService | EvidenceSource::AccessLog if shares_clusters => {
            return Err("both revisions share a cluster, and only load reports tell its localities apart".to_owned());
        }
        EvidenceSource::Auto | EvidenceSource::MetricsService | EvidenceSource::Lrs | EvidenceSource::AccessLog => {}
    }
    let seen = if spec.acceptable().is_some() { Seen::Answers } else { Seen::Attempts };
    let has_parts = matches!(bad, Bad::Http5xx | Bad::Grpc) && arms.targets.wants_loads();
    Ok(Counts {
        candidate: arms.tally(candidate, source, &bad, seen),
        stable: arms.tally(stable, source, &bad, seen),
        parts: if has_parts { arms.parts() } else { Vec::new() },
    })
}

impl Bad {
    fn parse(spec: &MetricSpec) -> Result<Self, String> {
        let slow = || {
            let limit = spec.latency_ms.ok_or_else(|| format!("\"{}\" has no latencyMs", spec.name))?;
            Ok(Bad::Slow(limit))
        };
        match (spec.kind, spec.query.as_deref()) {
            (MetricKind::LatencyFraction, _) | (MetricKind::Threshold, Some("slow-fraction")) => return slow(),
            (MetricKind::Threshold, Some("request-rate")) => return Ok(Bad::None),
            (MetricKind::Threshold, Some("error-rate")) | (MetricKind::ErrorRate, _) => {}
            (MetricKind::Threshold, query) => {
                return Err(format!("proxies report no number \"{}\"", query.unwrap_or_default()));
            }
            (MetricKind::PromQuery | MetricKind::Web, _) => return Err("proxies do not report it".to_owned()),
        }
        match &*spec.classify {
            "http5xx" => Ok(Bad::Http5xx),
            "grpcServerError" => Ok(Bad::Grpc),
            codes => {
                let codes: Result<_, _> = codes.split(',').map(|code| code.trim().parse()).collect();
                let codes = codes.map_err(|_| format!("\"{}\" does not say what is an error", spec.classify))?;
                Ok(Bad::Codes(codes))
            }
        }
    }

    /// Whether load reports tell these from good ones: they know an answer of 500 or more, and for gRPC requests a
    /// status that Envoy translates to such a one.
    fn is_in_load_reports(&self) -> bool {
        match self {
            Bad::Http5xx | Bad::Grpc | Bad::None => true,
            Bad::Codes(_) | Bad::Slow(_) => false,
        }
    }

    /// Requests in these sums, and the bad ones among them.
    fn of(&self, sums: &Sums, seen: Seen) -> Tally {
        let retried = match seen {
            Seen::Attempts => sums.get(Stat::Retried),
            Seen::Answers => 0,
        };
        // Of attempts that were followed by another, those without an answer were reset, or refused.
        let unanswered = retried.saturating_sub(sums.get(Stat::RetriedAnswered));
        let retried_as = |stat: Stat| if seen == Seen::Attempts { sums.get(stat) } else { 0 };
        let all = sums.get(Stat::Answered).saturating_add(retried);
        match self {
            Bad::None => Tally::new(all, 0),
            Bad::Slow(limit) => sums.times(*limit),
            Bad::Http5xx => {
                let answered = sums.get(Stat::Failed).saturating_add(retried_as(Stat::RetriedFailed));
                Tally::new(all, answered.saturating_add(unanswered))
            }
            Bad::Codes(codes) => {
                let of = |code: &u16| sums.get(Stat::Code(*code)).saturating_add(retried_as(Stat::RetriedCode(*code)));
                let answered = codes.iter().map(of).fold(0, u64::saturating_add);
                // Envoy itself says 503 where there was no answer.
                let unanswered = if codes.contains(&503) { unanswered } else { 0 };
                Tally::new(all, answered.saturating_add(unanswered))
            }
            Bad::Grpc => {
                let statuses = sums.stats().filter_map(|(stat, count)| match stat {
                    Stat::Grpc(status) => Some((is_server_error(status), count)),
                    _ => None,
                });
                let answered = statuses.fold(Tally::default(), |mut sum, (is_bad, count)| {
                    sum.add(Tally::new(count, if is_bad { count } else { 0 }));
                    sum
                });
                Tally::new(answered.total.saturating_add(retried), answered.bad.saturating_add(retried))
            }
        }
    }
}

/// UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS: those that Envoy counts as 5xx in its
/// load reports (`source/common/grpc/status.cc`).
fn is_server_error(status: u16) -> bool {
    matches!(status, 2 | 4 | 12 | 13 | 14 | 15)
}

/// A key that stays with an endpoint: FNV-1a, 64 bits, of its address.
fn key(address: &str) -> u64 {
    address.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
