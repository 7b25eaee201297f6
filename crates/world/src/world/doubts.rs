//! What is doubtful in files by themselves: a server that has run for a while knows better.

use crate::api::delivery::{Amount, Choice, DeploymentIntent};
use crate::{Object, Problem, Service, Spec, World};

impl World {
    /// Intents of which only a completed run could say which revision is stable, and batches in which no endpoint need be
    /// there. Looks at all intents; in order.
    pub fn doubts(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for object in self.intents() {
            let Spec::DeploymentIntent(intent) = &object.spec else { continue };
            let namespace = intent.service.namespace.as_deref().unwrap_or(&object.reference.namespace);
            if let Some(service) = self.service_named(namespace, &intent.service.name) {
                self.undecided(object, intent, &service, &mut problems);
                self.missing(object, intent, &service, &mut problems);
            }
        }
        problems.sort();
        problems
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
