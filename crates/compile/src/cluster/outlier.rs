//! When an endpoint that fails is left out for a while.

use proto::pb::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use world::Problem;
use world::api::istio;

use super::number;
use crate::pack;
use crate::policy::{Part, Policy};

/// Sets outlier detection, when the policy asks for it.
///
/// Only consecutive errors count, as in Istio: ejection by comparison of success rates is switched off. A count of 0
/// switches its own detector off.
pub(super) fn set(cluster: &mut Cluster, policy: &Policy<'_>, problems: &mut Vec<Problem>) {
    if let Some(part) = &policy.outlier_detection {
        cluster.outlier_detection = Some(detection(part, problems));
        // Its value is used by the panic threshold; what is wrong with it is said here, once.
        min_health(part, problems);
    }
}

/// The share of healthy endpoints below which all are used, in percent.
pub(super) fn min_health_percent(policy: &Policy<'_>) -> u32 {
    policy.outlier_detection.map_or(0, |part| min_health(&part, &mut Vec::new()))
}

/// gRPC compares success rates and failure percentages (gRFC A50), which Istio does not offer.
pub(super) fn refuse_for_grpc(policy: &Policy<'_>, problems: &mut Vec<Problem>) {
    if let Some(part) = &policy.outlier_detection {
        problems.push(part.warning(
            "",
            "gRPC clients do not count consecutive errors",
            "gRPC clients eject no endpoints",
        ));
    }
}

fn min_health(part: &Part<'_, istio::OutlierDetection>, problems: &mut Vec<Problem>) -> u32 {
    let asked = part.value.min_health_percent;
    number::percent(part, "minHealthPercent", asked, "0 is used", problems).unwrap_or(0)
}

fn detection(part: &Part<'_, istio::OutlierDetection>, problems: &mut Vec<Problem>) -> OutlierDetection {
    let asked = part.value;
    let enforced = |count: Option<u32>| count.map(|count| pack::uint32(if count > 0 { 100 } else { 0 }));
    let gateway = asked.consecutive_gateway_errors.or_else(|| {
        let count = asked.consecutive_errors?;
        u32::try_from(count).ok().or_else(|| {
            let otherwise = "gateway errors are not counted";
            number::count(part, "consecutiveErrors", Some(count), otherwise, problems)
        })
    });
    let local = asked.consecutive_local_origin_failures.filter(|_| asked.split_external_local_origin_errors);
    if asked.consecutive_local_origin_failures.is_some() && local.is_none() {
        problems.push(part.warning(
            "consecutiveLocalOriginFailures",
            "local failures are counted apart only with `splitExternalLocalOriginErrors: true`",
            "the count is not used",
        ));
    }
    let interval = number::duration(part, "interval", asked.interval, "10s is used", problems);
    let base = number::duration(part, "baseEjectionTime", asked.base_ejection_time, "30s is used", problems);
    let most = number::percent(part, "maxEjectionPercent", asked.max_ejection_percent, "10 is used", problems);
    OutlierDetection {
        consecutive_5xx: asked.consecutive_5xx_errors.map(pack::uint32),
        enforcing_consecutive_5xx: enforced(asked.consecutive_5xx_errors),
        consecutive_gateway_failure: gateway.map(pack::uint32),
        enforcing_consecutive_gateway_failure: enforced(gateway),
        split_external_local_origin_errors: asked.split_external_local_origin_errors,
        consecutive_local_origin_failure: local.map(pack::uint32),
        enforcing_consecutive_local_origin_failure: enforced(local),
        interval: interval.map(pack::duration),
        base_ejection_time: base.map(pack::duration),
        max_ejection_percent: most.filter(|percent| *percent > 0).map(pack::uint32),
        enforcing_success_rate: Some(pack::uint32(0)),
        enforcing_local_origin_success_rate: asked.split_external_local_origin_errors.then(|| pack::uint32(0)),
        ..OutlierDetection::default()
    }
}
