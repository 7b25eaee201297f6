//! What an intent asks for that only requests can be given: connections have neither headers nor cookies.

use super::{NO_RUN, refused};
use crate::api::delivery::{DeploymentIntent, IntentProtocol, StickinessMode, StrategyType};
use crate::{Object, Problem, Protocol, Service};

/// Says of everything that needs requests when ports carry something else. Without any port that carries requests
/// nothing of it could be done, and no run is started; beside one it is done there.
pub(super) fn requests(object: &Object, intent: &DeploymentIntent, service: &Service, problems: &mut Vec<Problem>) {
    // Written out it is refused by itself.
    if intent.protocol == IntentProtocol::Tcp {
        return;
    }
    let is_meant = |number: u16| intent.service.ports.is_empty() || intent.service.ports.contains(&number);
    let carries = |protocol: Protocol| protocol.is_http() || protocol == Protocol::Auto;
    let (with, without): (Vec<_>, Vec<_>) =
        service.ports.iter().filter(|port| is_meant(port.number)).partition(|port| carries(port.protocol));
    // Who says HTTP or GRPC means those ports alone.
    if without.is_empty() || (intent.protocol != IntentProtocol::Auto && !with.is_empty()) {
        return;
    }
    let numbers: Vec<String> = without.iter().map(|port| port.number.to_string()).collect();
    for (field, what) in needs(intent) {
        let message =
            format!("{what} needs requests, and port {} of \"{}\" carries none", numbers.join(", "), service.name);
        let problem = match with.is_empty() {
            true => refused(object, field, message).consequence(NO_RUN),
            false => Problem::warning(&object.reference, field, message)
                .consequence("connections to that port are divided by weight alone")
                .at(object.meta.location.clone()),
        };
        problems
            .push(problem.hint("Name the port http-…, give it an appProtocol, or leave it out of spec.service.ports."));
    }
}

/// The fields that need requests, and what they are in words.
fn needs(intent: &DeploymentIntent) -> Vec<(String, &'static str)> {
    let strategy = &intent.strategy;
    let mut needs = Vec::new();
    if matches!(strategy.kind, StrategyType::Ab | StrategyType::Mirror) {
        needs.push(("spec.strategy.type".to_owned(), "this strategy"));
    }
    if intent.stickiness.mode != StickinessMode::None {
        needs.push(("spec.stickiness.mode".to_owned(), "to stay with a revision"));
    }
    let preview = strategy.blue_green.as_ref().map(|blue_green| &blue_green.preview.matches);
    if preview.is_some_and(|matches| !matches.is_empty()) {
        needs.push(("spec.strategy.blueGreen.preview".to_owned(), "a preview"));
    }
    let steps = strategy.canary.iter().flat_map(|canary| canary.steps.iter().enumerate());
    for (at, step) in steps {
        let field = |name: &str| format!("spec.strategy.canary.steps[{at}].{name}");
        if step.header_route.as_ref().is_some_and(|route| route.enabled) {
            needs.push((field("headerRoute"), "a route by headers"));
        }
        if step.mirror.as_ref().is_some_and(|mirror| mirror.enabled) {
            needs.push((field("mirror"), "mirroring"));
        }
    }
    needs
}
