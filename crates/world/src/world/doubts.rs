//! What is doubtful in files by themselves: a server that has run for a while knows better.

use crate::api::delivery::{Amount, Choice, DeploymentIntent, StrategyType, parse_time};
use crate::{Object, Problem, Service, Spec, World};

impl World {
    /// Intents of which only a completed run could say which revision is stable, batches in which no endpoint need be
    /// there, variants without endpoints, and tests whose time is over at `now`, in milliseconds since 1970. Looks at all intents; in order.
    pub fn doubts(&self, now: u64) -> Vec<Problem> {
        let mut problems = Vec::new();
        for object in self.intents() {
            let Spec::DeploymentIntent(intent) = &object.spec else { continue };
            Self::is_over(object, intent, now, &mut problems);
            let namespace = intent.service.namespace.as_deref().unwrap_or(&object.reference.namespace);
            if let Some(service) = self.service_named(namespace, &intent.service.name) {
                self.undecided(object, intent, &service, &mut problems);
                self.missing(object, intent, &service, &mut problems);
                self.unknown_variants(object, intent, &service, &mut problems);
            }
        }
        problems.sort();
        problems
    }

    fn is_over(object: &Object, intent: &DeploymentIntent, now: u64, problems: &mut Vec<Problem>) {
        let test = intent.strategy.ab.as_ref().filter(|_| intent.strategy.kind == StrategyType::Ab);
        let Some(end) = test.and_then(|test| test.end_at.as_deref()) else { return };
        if parse_time(end).is_ok_and(|end| end <= now) {
            let message = format!("the time of the test was over at {end}");
            let problem = Problem::warning(&object.reference, "spec.strategy.ab.endAt", message);
            problems.push(problem.consequence("no run is started, and traffic stays with stable"));
        }
    }

    fn undecided(&self, object: &Object, intent: &DeploymentIntent, service: &Service, problems: &mut Vec<Problem>) {
        let Choice::Auto = intent.revisions.stable else { return };
        let found = self.revisions(service, &intent.service.ports, &intent.revisions.label);
        let is_candidate = |name: &str| intent.revisions.candidate == Choice::Named(name.to_owned());
        let possible: Vec<&str> = found.keys().map(String::as_str).filter(|name| !is_candidate(name)).collect();
        if possible.len() > 1 {
            let message = format!("until a run has completed, nothing says which of {} is stable", possible.join(", "));
            let problem = Problem::warning(&object.reference, "spec.revisions.stable", message);
            problems.push(
                problem
                    .consequence("traffic goes to all of them, and no run is started")
                    .hint("Say spec.revisions.stable: it is only needed until the first run has completed."),
            );
        }
    }

    /// A server says of its own accord which variants a test waits for.
    fn unknown_variants(
        &self,
        object: &Object,
        intent: &DeploymentIntent,
        service: &Service,
        problems: &mut Vec<Problem>,
    ) {
        let (label, name) = (&intent.revisions.label, &service.name);
        let found = self.deployed(service, &intent.service.ports, label);
        // That there is no revision at all is told by itself.
        let test = intent.strategy.ab.iter().filter(|_| intent.strategy.kind == StrategyType::Ab && !found.is_empty());
        let known = found.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        for (at, variant) in test.flat_map(|test| &test.variants).enumerate() {
            if !found.contains_key(&variant.revision) {
                let field = format!("spec.strategy.ab.variants[{at}].revision");
                let message =
                    format!("no endpoint of service \"{name}\" has {label}={}; there are: {known}", variant.revision);
                let problem = Problem::warning(&object.reference, field, message);
                problems.push(problem.consequence("the test begins when every variant has endpoints"));
            }
        }
    }

    fn missing(&self, object: &Object, intent: &DeploymentIntent, service: &Service, problems: &mut Vec<Problem>) {
        let Some(Amount::Count(count)) = intent.strategy.rolling.as_ref().map(|rolling| rolling.max_unavailable) else {
            return;
        };
        let found = self.deployed(service, &intent.service.ports, &intent.revisions.label);
        let Some(most) = found.values().copied().max().filter(|most| count >= *most) else { return };
        let message = format!("{count} may be missing, and no revision has more than {most} endpoints");
        let problem = Problem::warning(&object.reference, "spec.strategy.rolling.maxUnavailable", message);
        problems.push(
            problem
                .consequence("one endpoint of the candidate is enough for each batch")
                .hint("Use a share such as 25%, or fewer than there are."),
        );
    }
}
