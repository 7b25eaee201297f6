//! What deployment intents refer to, and which of two intents for one service counts.

mod gateways;
mod requests;
mod subsets;

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, Objects, services};
use crate::api::delivery::{
    AnalysisProfile, Attach, Choice, DEFAULT_PROFILE, DeploymentIntent, EvidenceSource, MetricKind, MetricSpec,
};
use crate::world::age;
use crate::{Hostname, Kind, Object, ObjectRef, Problem, Service, Settings, Spec};
use requests::requests;

/// Intents by namespace and name of their service, with the ports that they govern.
type Taken<'o> = BTreeMap<(&'o str, &'o str), Vec<(&'o ObjectRef, &'o [u16])>>;

/// What follows for an intent that cannot be carried out.
const NO_RUN: &str = "no run is started for this intent";
/// How routes are found.
const NAME_ROUTES: &str = "Give the route a name under spec.http[].name.";

impl Index {
    /// Everything that is wrong between intents and the objects that they name.
    pub(in crate::world) fn intents(&self, objects: &Objects, settings: &Settings, problems: &mut Vec<Problem>) {
        let mut sorted: Vec<_> = self.intents.iter().map(|r| &objects[r]).collect();
        sorted.sort_by_key(|o| age(o));
        let mut taken = Taken::new();
        for object in sorted {
            let Spec::DeploymentIntent(intent) = &object.spec else { continue };
            let namespace = intent.service.namespace.as_deref().unwrap_or(&object.reference.namespace);
            let (name, ports) = (intent.service.name.as_str(), intent.service.ports.as_slice());
            let others = taken.entry((namespace, name)).or_default();
            if let Some((first, _)) = others.iter().find(|(_, theirs)| intent.service.meets(theirs)) {
                let message = format!("traffic of service \"{namespace}/{name}\" is already governed by {first}");
                let hint = "One intent governs a port of a service: delete one of the two.";
                problems.push(refused(object, "spec.service", message).hint(hint));
                continue;
            }
            others.push((&object.reference, ports));
            profiles(object, intent, settings, objects, problems);
            source(object, intent, settings, objects, problems);
            let Some(service) = service_named(objects, settings, namespace, name) else {
                let message = format!("there is no service \"{name}\" in namespace \"{namespace}\"");
                let hint = "Name a Service, or the ServiceEntry that defines the host.";
                problems.push(refused(object, "spec.service.name", message).hint(hint));
                continue;
            };
            for (at, message) in missing_routes(&intent.attach, &service.host, settings, objects) {
                let problem = refused(object, format!("spec.attach.routes[{at}]"), message);
                problems.push(problem.hint(NAME_ROUTES));
            }
            self.attached_gateways(object, intent, &service.host, settings, objects, problems);
            for (at, port) in ports.iter().enumerate().filter(|(_, port)| service.port(**port).is_none()) {
                let has: Vec<_> = service.ports.iter().map(|p| p.number.to_string()).collect();
                let message = format!("service \"{name}\" has no port {port}");
                let hint = format!("It has: {}.", has.join(", "));
                problems.push(refused(object, format!("spec.service.ports[{at}]"), message).hint(hint));
            }
            requests(object, intent, &service, problems);
            self.taken_by_subsets(object, intent, &service, settings, objects, problems);
            self.revisions(object, intent, &service, objects, problems);
        }
    }

    /// Runs whose routes are gone since they began.
    pub(in crate::world) fn run_routes(&self, objects: &Objects, settings: &Settings, problems: &mut Vec<Problem>) {
        for (host, runs) in &self.splits {
            for reference in runs {
                let Spec::RolloutRun(run) = &objects[reference].spec else { continue };
                for (at, message) in missing_routes(&run.attach, host, settings, objects) {
                    let problem = Problem::warning(reference, format!("spec.attach.routes[{at}]"), message);
                    let problem = problem.consequence("the run divides no requests of it");
                    problems.push(problem.hint(NAME_ROUTES));
                }
            }
        }
    }

    /// The label splits the endpoints, and each named revision is one of its values.
    fn revisions(
        &self,
        object: &Object,
        intent: &DeploymentIntent,
        service: &Service,
        objects: &Objects,
        problems: &mut Vec<Problem>,
    ) {
        let (label, name) = (&intent.revisions.label, &service.name);
        let endpoints = service.ports.iter().flat_map(|port| self.endpoints(service, port.number, objects));
        let endpoints: Vec<_> = endpoints.collect();
        let found: BTreeSet<&str> = endpoints.iter().filter_map(|e| e.labels.get(label)).map(String::as_str).collect();
        let mut warn = |field: &str, message: String, consequence: &str| {
            let problem = Problem::warning(&object.reference, field, message).consequence(consequence);
            problems.push(problem.at(object.meta.location.clone()));
        };
        if found.is_empty() {
            let message = match endpoints.len() {
                0 => format!("service \"{name}\" has no endpoint"),
                count => format!("none of the {count} endpoints of service \"{name}\" has a label \"{label}\""),
            };
            return warn("spec.revisions.label", message, "there is no revision to move traffic between yet");
        }
        let known = found.iter().copied().collect::<Vec<_>>().join(", ");
        for (field, choice, consequence) in [
            ("stable", &intent.revisions.stable, "no run is started while stable has no endpoint"),
            ("candidate", &intent.revisions.candidate, "a run waits for its endpoints before it moves any traffic"),
        ] {
            if let Choice::Named(revision) = choice
                && !found.contains(revision.as_str())
            {
                let message = format!("no endpoint of service \"{name}\" has {label}={revision}; there are: {known}");
                warn(&format!("spec.revisions.{field}"), message, consequence);
            }
        }
    }
}

/// The service of this name, as intents name it: a Kubernetes Service, or what a ServiceEntry of this name defines first.
pub(in crate::world) fn service_named(
    objects: &Objects,
    settings: &Settings,
    namespace: &str,
    name: &str,
) -> Option<Service> {
    let defined_by = |kind| objects.get(&ObjectRef::new(kind, namespace, name));
    let definition = defined_by(Kind::Service).or_else(|| defined_by(Kind::ServiceEntry))?;
    services::of(definition, settings).into_iter().next()
}

fn refused(object: &Object, field: impl Into<String>, message: String) -> Problem {
    Problem::error(&object.reference, field, message).consequence(NO_RUN).at(object.meta.location.clone())
}

/// Profiles are those of the intent's namespace, those of the root namespace, and the one that is built in.
fn profiles(
    object: &Object,
    intent: &DeploymentIntent,
    settings: &Settings,
    objects: &Objects,
    problems: &mut Vec<Problem>,
) {
    let steps = intent.strategy.canary.iter().flat_map(|canary| canary.steps.iter().enumerate());
    let of_steps = steps.filter_map(|(at, step)| {
        let profile = step.analysis.as_ref()?.profile_ref.as_ref()?;
        Some((format!("spec.strategy.canary.steps[{at}].analysis.profileRef"), profile))
    });
    let of_run = intent.analysis.profiles.iter().enumerate();
    let of_run = of_run.map(|(at, profile)| (format!("spec.analysis.profiles[{at}]"), profile));
    let own = &*object.reference.namespace;
    let is_in = |namespace: &str, profile: &str| {
        objects.contains_key(&ObjectRef::new(Kind::AnalysisProfile, namespace, profile))
    };
    for (field, profile) in of_run.chain(of_steps).filter(|(_, profile)| *profile != DEFAULT_PROFILE) {
        if !is_in(own, profile) && !is_in(&settings.root_namespace, profile) {
            let root = &settings.root_namespace;
            let hint = format!("It is looked for in \"{own}\" and \"{root}\"; \"{DEFAULT_PROFILE}\" is built in.");
            problems.push(refused(object, field, format!("there is no AnalysisProfile \"{profile}\"")).hint(hint));
        }
    }
}

/// Prometheus answers queries; what counts requests has to come from proxies. Of these only sidecars are told to log.
fn source(
    object: &Object,
    intent: &DeploymentIntent,
    settings: &Settings,
    objects: &Objects,
    problems: &mut Vec<Problem>,
) {
    if intent.analysis.source == EvidenceSource::AccessLog && !intent.attach.gateways.is_empty() {
        let problem =
            Problem::warning(&object.reference, "spec.attach.gateways", "gateways are not told to log requests");
        let problem = problem.consequence("what comes through them is not counted for or against a candidate");
        problems.push(problem.at(object.meta.location.clone()).hint("Use another source for spec.analysis.source."));
    }
    if intent.analysis.source != EvidenceSource::Prometheus {
        return;
    }
    let steps = intent.strategy.canary.iter().flat_map(|canary| &canary.steps);
    let of_steps = steps.filter_map(|step| step.analysis.as_ref()?.profile_ref.as_ref());
    let is_queried = |metric: &MetricSpec| matches!(metric.kind, MetricKind::PromQuery | MetricKind::Web);
    for profile in intent.analysis.profiles.iter().chain(of_steps).collect::<BTreeSet<_>>() {
        let find = |namespace: &str| {
            let found = objects.get(&ObjectRef::new(Kind::AnalysisProfile, namespace, profile));
            found.and_then(|found| match &found.spec {
                Spec::AnalysisProfile(profile) => Some(profile.metrics.clone()),
                _ => None,
            })
        };
        let found = find(&object.reference.namespace).or_else(|| find(&settings.root_namespace));
        let built_in = || (*profile == DEFAULT_PROFILE).then(|| AnalysisProfile::envoy_default().metrics);
        let metrics = found.or_else(built_in).unwrap_or_default();
        if let Some(metric) = metrics.iter().find(|metric| !is_queried(metric)) {
            let message = format!(
                "source Prometheus cannot answer metric \"{}\" of profile \"{profile}\": it counts requests",
                metric.name
            );
            let hint = "Use metrics of kind PromQuery alone, or another source: they are asked for beside any.";
            problems.push(refused(object, "spec.analysis.source", message).hint(hint));
            return;
        }
    }
}

/// What is wrong with the names of routes that a run or an intent is attached to, each with its place in the list. Routes
/// are known by the names that VirtualServices give them, and have to lead to the service.
fn missing_routes<'a>(
    attach: &'a Attach,
    host: &Hostname,
    settings: &Settings,
    objects: &Objects,
) -> Vec<(usize, String)> {
    if attach.routes.is_empty() {
        return Vec::new();
    }
    let mut names: BTreeMap<&str, bool> = BTreeMap::new();
    for other in objects.values() {
        let Spec::VirtualService(spec) = &other.spec else { continue };
        let namespace = &other.reference.namespace;
        let leads = |named: &str| Hostname::qualified(named, namespace, &settings.domain) == *host;
        for route in &spec.http {
            let leads_there = route.route.iter().any(|to| leads(&to.destination.host));
            *names.entry(route.name.as_str()).or_default() |= leads_there;
        }
    }
    let wrong = |(at, route): (usize, &'a String)| match names.get(route.as_str()) {
        Some(true) => None,
        Some(false) => Some((at, format!("the http route named \"{route}\" does not lead to {host}"))),
        None => Some((at, format!("no VirtualService has an http route named \"{route}\""))),
    };
    attach.routes.iter().enumerate().filter_map(wrong).collect()
}
