//! Copies of requests whose responses are thrown away.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use proto::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use world::Problem;
use world::api::istio::{Destination, Percent};

use super::VirtualHostInput;
use super::forward::missing_destination;
use super::rule::{Part, Rule};
use super::split;
use crate::{Rollout, Target, pack};

/// One destination of copies, as it is written.
struct Copied<'r> {
    field: String,
    percentage_field: String,
    destination: &'r Destination,
    percentage: Option<Percent>,
}

/// The mirrors of a rule that exist.
pub(super) fn policies(
    rule: &Rule<'_>,
    input: &VirtualHostInput<'_>,
    clusters: &mut BTreeSet<Arc<str>>,
    problems: &mut Vec<Problem>,
) -> Vec<RequestMirrorPolicy> {
    let place = rule.place_of(Part::Mirror);
    let route = &rule.route;
    if input.audience.is_grpc() {
        if route.mirror.is_some() || !route.mirrors.is_empty() {
            problems.push(place.warning(".mirror", "gRPC clients cannot mirror").consequence("they send no copies"));
        }
        return Vec::new();
    }
    let older = route.mirror_percent.map(|percent| Percent { value: f64::from(percent) });
    let single = route.mirror.iter().map(|to| Copied {
        field: ".mirror".to_owned(),
        percentage_field: ".mirrorPercentage".to_owned(),
        destination: to,
        percentage: route.mirror_percentage.or(older),
    });
    let several = route.mirrors.iter().enumerate().map(|(at, mirror)| Copied {
        field: format!(".mirrors[{at}].destination"),
        percentage_field: format!(".mirrors[{at}].percentage"),
        destination: &mirror.destination,
        percentage: mirror.percentage,
    });
    let mut policies = Vec::new();
    for Copied { field, percentage_field, destination, percentage } in single.chain(several) {
        let share = percentage.map(|percent| (percent.value, split::percentage(percent.value)));
        let fraction = match share {
            Some((value, None)) => {
                let problem = place
                    .error(&percentage_field, format!("{value} is not within 0 to 100"))
                    .consequence("nothing is mirrored there");
                problems.push(problem);
                continue;
            }
            Some((_, Some(fraction))) if fraction.numerator == 0 => continue,
            Some((value, Some(fraction))) => (value < 100.0).then_some(fraction),
            None => None,
        };
        match (input.resolve)(place.namespace(), destination, input.port) {
            Target::Cluster { name, rollout, .. } => {
                // Copies that users ask for are no reason to send anything to a candidate.
                let name = match rollout {
                    Some(Rollout::Divides(division)) => {
                        division.elsewhere.shares.first().map(|(cluster, _)| cluster.clone())
                    }
                    Some(Rollout::Spares(_)) | None => None,
                }
                .unwrap_or(name);
                let default =
                    |fraction| RuntimeFractionalPercent { default_value: Some(fraction), ..Default::default() };
                policies.push(RequestMirrorPolicy {
                    cluster: name.to_string(),
                    runtime_fraction: fraction.map(default),
                    trace_sampled: Some(pack::boolean(false)),
                    ..RequestMirrorPolicy::default()
                });
                clusters.insert(name);
            }
            Target::Missing(why) => {
                problems.push(missing_destination(place, &field, &why, true).consequence("nothing is mirrored there"));
            }
        }
    }
    policies
}
