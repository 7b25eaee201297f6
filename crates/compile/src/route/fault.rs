//! Injected faults: settings of the fault filter for one route.

use proto::pb::envoy::extensions::filters::common::fault::v3::FaultDelay as EnvoyDelay;
use proto::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use proto::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use proto::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort as EnvoyAbort, HttpFault};
use proto::pb::envoy::r#type::v3::FractionalPercent;
use world::Problem;
use world::api::istio::{Fault, FaultAbort, FaultDelay, GRPC_STATUSES, Percent};

use super::rule::Place;
use super::split;
use crate::pack;

/// Name of the filter whose settings these are.
pub(super) const FILTER: &str = "envoy.filters.http.fault";

/// The faults of an entry; `None` when there are none that can be injected.
pub(super) fn fault(text: &Fault, place: &Place, problems: &mut Vec<Problem>) -> Option<HttpFault> {
    let delay = text.delay.as_ref().and_then(|delay| read_delay(delay, place, problems));
    let abort = text.abort.as_ref().and_then(|abort| read_abort(abort, place, problems));
    (delay.is_some() || abort.is_some()).then(|| HttpFault { delay, abort, ..HttpFault::default() })
}

fn read_delay(text: &FaultDelay, place: &Place, problems: &mut Vec<Problem>) -> Option<EnvoyDelay> {
    let field = ".fault.delay";
    let Some(length) = text.fixed_delay.filter(|length| !length.is_zero()) else {
        let problem = place
            .error(&format!("{field}.fixedDelay"), "a delay of more than 0 is needed")
            .consequence("no request is delayed");
        problems.push(problem);
        return None;
    };
    let integer = text.percent.map(|percent| Percent { value: f64::from(percent) });
    let percentage = percentage(text.percentage.or(integer), field, "no request is delayed", place, problems)?;
    let delay = FaultDelaySecifier::FixedDelay(pack::duration(length));
    Some(EnvoyDelay { percentage: Some(percentage), fault_delay_secifier: Some(delay) })
}

fn read_abort(text: &FaultAbort, place: &Place, problems: &mut Vec<Problem>) -> Option<EnvoyAbort> {
    let field = ".fault.abort";
    let error = match (text.http_status, &text.grpc_status) {
        (Some(status), None) if (200..600).contains(&status) => Ok(ErrorType::HttpStatus(status)),
        (Some(status), None) => Err(format!("status {status} is not within 200 to 599")),
        (None, Some(name)) => match grpc_status(name) {
            Some(status) => Ok(ErrorType::GrpcStatus(status)),
            None => Err(format!("\"{name}\" is not a gRPC status")),
        },
        (None, None) => Err("httpStatus or grpcStatus is needed".to_owned()),
        (Some(_), Some(_)) => Err("only one of httpStatus and grpcStatus can be given".to_owned()),
    };
    match error {
        Err(message) => {
            problems.push(place.error(field, message).consequence("no request is aborted"));
            None
        }
        Ok(error) => {
            let percentage = percentage(text.percentage, field, "no request is aborted", place, problems)?;
            Some(EnvoyAbort { percentage: Some(percentage), error_type: Some(error), ..EnvoyAbort::default() })
        }
    }
}

/// Istio injects nothing when no percentage is given; that is seldom meant.
fn percentage(
    text: Option<Percent>,
    field: &str,
    consequence: &str,
    place: &Place,
    problems: &mut Vec<Problem>,
) -> Option<FractionalPercent> {
    let field = format!("{field}.percentage");
    let Some(Percent { value }) = text else {
        let problem = place
            .warning(&field, "no percentage is given, which means none")
            .consequence(consequence)
            .hint("percentage:\n  value: 100");
        problems.push(problem);
        return None;
    };
    let read = split::percentage(value);
    if read.is_none() {
        problems.push(place.error(&field, format!("{value} is not within 0 to 100")).consequence(consequence));
    }
    read
}

/// The number of a status name, or the number itself.
fn grpc_status(name: &str) -> Option<u32> {
    let upper = name.trim().to_ascii_uppercase();
    let named = GRPC_STATUSES.iter().position(|known| *known == upper).and_then(|at| u32::try_from(at).ok());
    named.or_else(|| upper.parse().ok().filter(|number| *number <= 16))
}
